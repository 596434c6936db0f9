"""Where every chunk lies: immutable segments, one written by each backup, held in memory as sorted arrays.

A segment (plaintext, then zstd, then an envelope) is MessagePack of the struct below. Entries are in no special
order. In memory a chunk costs about 60 bytes.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from memkeep.errors import DamagedError
from memkeep.vault.codec import ID_SIZE, MAX_BLOB, MAX_CHUNK
from memkeep.vault.crypto import HEADER_SIZE, TAG_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = dict[str, NDArray[Any]]

MAX_PACK = 1 << 32  # offsets are 32 bits
_NAME_SIZE = 32


class Location(NamedTuple):
    """A blob's place: pack key, offset and length there, and whether it is a delta, against what and how deep."""

    pack: str
    offset: int
    length: int
    raw: int
    depth: int
    base: bytes | None


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment as stored; parallel arrays, integers little endian."""

    packs: list[bytes]  # SHA-256 of each pack, 32 bytes
    sizes: list[int]  # bytes of each pack
    ids: bytes  # 16 bytes an entry
    pack: bytes  # uint32: which of `packs`
    offset: bytes  # uint32
    length: bytes  # uint32: sealed bytes
    raw: bytes  # uint32: bytes of the chunk
    depth: bytes  # uint8: 0 a full chunk, else its base's depth + 1
    bases: bytes  # 16 bytes for each entry with depth > 0, in order


def pack_key(digest: bytes) -> str:
    """Return the key of a pack."""
    name = digest.hex()
    return f"data/{name[:2]}/{name}"


def build_segment(entries: Iterable[tuple[bytes, Location]], packs: dict[str, int]) -> Segment:
    """Make a segment of new entries; `packs` gives sizes by key."""
    import numpy as np

    number = {name: position for position, name in enumerate(packs)}
    listed = list(entries)
    places = [place for _, place in listed]
    return Segment(
        packs=[bytes.fromhex(name.rpartition("/")[2]) for name in packs],
        sizes=list(packs.values()),
        ids=b"".join(chunk for chunk, _ in listed),
        pack=np.array([number[place.pack] for place in places], "<u4").tobytes(),
        offset=np.array([place.offset for place in places], "<u4").tobytes(),
        length=np.array([place.length for place in places], "<u4").tobytes(),
        raw=np.array([place.raw for place in places], "<u4").tobytes(),
        depth=bytes(place.depth for place in places),
        bases=b"".join(place.base for place in places if place.base is not None),
    )


class Index:
    """All chunks of a vault. Grows by `add`; look-ups are by 16-byte id. Safe to use from several threads.

    Backups that ran at once may have stored a chunk twice. Of its entries the one with the lowest depth is taken, and
    of those the first: so a base always has a lower depth than the delta that needs it, and no chain comes back to
    itself, although each writer saw another part of the whole.
    """

    def __init__(self) -> None:
        self.packs: dict[str, int] = {}  # key -> bytes
        self.segments: dict[str, tuple[str, ...]] = {}  # segment key -> pack keys that it describes
        self._keys: list[str] = []
        self._parts: list[Columns] = []
        self._sorted: Columns | None = None
        self._distrusted: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(part["head"]) for part in self._parts)

    def add(self, key: str, segment: Segment) -> None:
        """Take in a segment; `DamagedError` when its arrays do not fit together or point out of their packs."""
        part = _columns(key, segment)
        keys = [pack_key(name) for name in segment.packs]
        with self._lock:
            part["pack"] = part["pack"] + len(self._keys)
            self._keys.extend(keys)
            self.packs.update(zip(keys, segment.sizes, strict=True))
            self.segments[key] = tuple(keys)
            self._parts.append(part)
            self._sorted = None

    def distrust(self, pack: str) -> bool:
        """Prefer other copies of a damaged pack's chunks, and count those without one as absent when writing.

        Returns whether that is news.
        """
        with self._lock:
            news = pack in self.packs and pack not in self._distrusted
            if news:
                self._distrusted.add(pack)
                self._sorted = None
            return news

    def trusts(self, place: Location) -> bool:
        """Say whether a place's pack is not known to be damaged."""
        return place.pack not in self._distrusted

    def find(self, chunk: bytes) -> Location | None:
        """Return where a chunk lies, or None."""
        return self.find_all([chunk])[0]

    def find_all(self, chunks: Sequence[bytes]) -> list[Location | None]:
        """Return where each chunk lies, or None for it; one call for many is far cheaper than many for one."""
        import numpy as np

        found: list[Location | None] = [None] * len(chunks)
        table = self._table()
        if table is None or not len(table["head"]) or not chunks:
            return found
        head, tail = _split(b"".join(chunks))
        at = table["head"].searchsorted(head)
        at[at == len(table["head"])] = 0
        alike = table["head"][at] == head
        hit = alike & (table["tail"][at] == tail)
        for position in np.flatnonzero(alike & ~hit).tolist():  # ids that agree in their first half: next to never
            row = _walk(table, int(at[position]), int(tail[position]))
            if row is not None:
                at[position] = row
                hit[position] = True
        where = np.flatnonzero(hit)
        rows = at[where]
        values = [table[name][rows].tolist() for name in ("pack", "offset", "length", "raw", "depth", "base")]
        for position, pack, offset, length, raw, depth, base in zip(where.tolist(), *values, strict=True):
            found[position] = Location(self._keys[pack], offset, length, raw, depth, base if depth else None)
        return found

    def _table(self) -> "Columns | None":
        import numpy as np

        with self._lock:
            if self._sorted is None and self._parts:
                joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
                bad = np.array([key in self._distrusted for key in self._keys], bool)
                order = (joined["depth"] + bad[joined["pack"]] * np.uint16(256)).argsort(kind="stable")
                order = order[joined["head"][order].argsort(kind="stable")]
                self._sorted = {name: column[order] for name, column in joined.items()}
                self._parts = [self._sorted]
            return self._sorted


def _columns(key: str, segment: Segment) -> "Columns":
    """Return a segment's arrays, of which all are as long as there are entries."""
    import numpy as np

    count = len(segment.ids) // ID_SIZE
    depth = np.frombuffer(segment.depth, np.uint8)
    numbers = [segment.pack, segment.offset, segment.length, segment.raw]
    fits = (
        len(segment.ids) == count * ID_SIZE
        and len(depth) == count
        and all(len(column) == count * 4 for column in numbers)
        and len(segment.bases) == int(np.count_nonzero(depth)) * ID_SIZE
        and len(segment.packs) == len(segment.sizes)
        and all(len(name) == _NAME_SIZE for name in segment.packs)
        and all(HEADER_SIZE <= size <= MAX_PACK + MAX_BLOB + TAG_SIZE for size in segment.sizes)
    )
    if not fits:
        raise _bad(key)
    pack, offset, length, raw = (np.frombuffer(column, "<u4") for column in numbers)
    if count:
        if int(pack.max()) >= len(segment.packs):
            raise _bad(key)
        ends = offset.astype(np.int64) + length
        inside = (offset >= HEADER_SIZE) & (ends <= np.array(segment.sizes, np.int64)[pack])
        if not inside.all() or int(raw.max()) > MAX_CHUNK or int(length.max()) > MAX_BLOB + TAG_SIZE:
            raise _bad(key)
    head, tail = _split(segment.ids)
    base = np.zeros(count, f"V{ID_SIZE}")
    base[depth > 0] = np.frombuffer(segment.bases, f"V{ID_SIZE}")
    return {
        "head": head,
        "tail": tail,
        "pack": pack,
        "offset": offset,
        "length": length,
        "raw": raw,
        "depth": depth,
        "base": base,
    }


def _split(ids: bytes) -> "tuple[NDArray[Any], NDArray[Any]]":
    """Return the two halves of ids as numbers, in the machine's own byte order: it only has to be the same for all."""
    import numpy as np

    halves = np.frombuffer(ids, np.uint64).reshape(-1, 2)
    return halves[:, 0].copy(), halves[:, 1].copy()


def _walk(table: "Columns", row: int, tail: int) -> int | None:
    """Return the first row from `row` on that has the same head and this tail."""
    head = table["head"][row]
    while row < len(table["head"]) and table["head"][row] == head:
        if int(table["tail"][row]) == tail:
            return row
        row += 1
    return None


def _bad(key: str) -> DamagedError:
    return DamagedError(f"{key} is not an index segment", obj=key)

"""Where every chunk lies: immutable segments, one written by each backup, held in memory as sorted arrays.

A segment (plaintext, then zstd, then an envelope) is MessagePack of the struct below. Entries are in no special
order. In memory a chunk costs about 50 bytes.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from memkeep.errors import DamagedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ID_SIZE = 16


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
    import numpy as np  # noqa: PLC0415 - heavy

    names = list(packs)
    number = {name: position for position, name in enumerate(names)}
    listed = list(entries)
    places = [place for _, place in listed]
    return Segment(
        packs=[bytes.fromhex(name.rpartition("/")[2]) for name in names],
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
    """All chunks of a vault. Grows by `add`; look-ups are by 16-byte id."""

    def __init__(self) -> None:
        self.packs: dict[str, int] = {}  # key -> bytes
        self.segments: dict[str, tuple[str, ...]] = {}  # segment key -> pack keys that it describes
        self._keys: list[str] = []
        self._parts: list[dict[str, NDArray]] = []
        self._sorted: dict[str, NDArray] | None = None

    def __len__(self) -> int:
        return sum(len(part["head"]) for part in self._parts)

    def add(self, key: str, segment: Segment) -> None:
        """Take in a segment; `DamagedError` when its arrays do not fit together."""
        import numpy as np  # noqa: PLC0415 - heavy

        count = len(segment.ids) // ID_SIZE
        try:
            ids = np.frombuffer(segment.ids, ">u8").reshape(count, 2)
            depth = np.frombuffer(segment.depth, np.uint8, count)
            delta = np.cumsum(depth > 0) - 1
            bases = np.frombuffer(segment.bases, ">u8").reshape(-1, 2)
            pack = np.frombuffer(segment.pack, "<u4", count)
            part = {
                "head": ids[:, 0].astype(np.uint64),
                "tail": ids[:, 1].astype(np.uint64),
                "pack": (pack + len(self._keys)).astype(np.uint32),
                "offset": np.frombuffer(segment.offset, "<u4", count),
                "length": np.frombuffer(segment.length, "<u4", count),
                "raw": np.frombuffer(segment.raw, "<u4", count),
                "depth": depth,
                "base_head": np.where(depth > 0, bases[delta, 0] if len(bases) else 0, 0).astype(np.uint64),
                "base_tail": np.where(depth > 0, bases[delta, 1] if len(bases) else 0, 0).astype(np.uint64),
            }
            fits = not count or (int(pack.max()) < len(segment.packs) and len(bases) == int((depth > 0).sum()))
        except (ValueError, IndexError) as error:
            raise _bad(key) from error
        if not fits or len(segment.packs) != len(segment.sizes) or any(len(name) != 32 for name in segment.packs):  # noqa: PLR2004
            raise _bad(key)
        keys = [pack_key(name) for name in segment.packs]
        self._keys.extend(keys)
        self.packs.update(zip(keys, segment.sizes, strict=True))
        self.segments[key] = tuple(keys)
        self._parts.append(part)
        self._sorted = None

    def find(self, chunk: bytes) -> Location | None:
        """Return where a chunk lies, or None."""
        import numpy as np  # noqa: PLC0415 - heavy

        table = self._table()
        if table is None:
            return None
        head, tail = int.from_bytes(chunk[:8]), int.from_bytes(chunk[8:])
        at = int(np.searchsorted(table["head"], np.uint64(head)))
        while at < len(table["head"]) and int(table["head"][at]) == head:
            if int(table["tail"][at]) == tail:
                depth = int(table["depth"][at])
                base = int(table["base_head"][at]).to_bytes(8) + int(table["base_tail"][at]).to_bytes(8)
                return Location(
                    self._keys[int(table["pack"][at])],
                    int(table["offset"][at]),
                    int(table["length"][at]),
                    int(table["raw"][at]),
                    depth,
                    base if depth else None,
                )
            at += 1
        return None

    def _table(self) -> "dict[str, NDArray] | None":
        import numpy as np  # noqa: PLC0415 - heavy

        if self._sorted is None and self._parts:
            joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
            # Stable: of a chunk that two backups stored at once, the earlier entry wins everywhere.
            order = np.argsort(joined["head"], kind="stable")
            self._sorted = {name: column[order] for name, column in joined.items()}
            self._parts = [self._sorted]
        return self._sorted


def _bad(key: str) -> DamagedError:
    return DamagedError(f"{key} is not an index segment", obj=key)

"""Where every chunk lies: immutable segments, held in memory as sorted runs of columns.

A chunk costs 37 to 65 bytes. A look-up asks every run, so there are never many: small ones are merged into one.
"""

import threading
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.vault.codec import ID_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memkeep.vault.segment import Segment

SMALL = 4096  # entries, below which a run is merged with others like it; at least,
_LARGE = 32768  # and at most:
_LONGEST = 255  # deltas after each other: a depth is one byte
_PART = 16  # as many runs of the same length are no longer small


class Location(NamedTuple):
    """A blob's place: pack key, offset and length there, and whether it is a delta, against what and how deep."""

    pack: str
    offset: int
    length: int
    raw: int
    depth: int
    base: bytes | None


class Columns(NamedTuple):
    """Entries, one at each place of all arrays but `base`."""

    head: "NDArray[Any]"  # uint64, the first half of the chunk's id; in a segment they ascend
    tail: "NDArray[Any]"  # uint64, the second
    pack: "NDArray[Any]"  # uint32, a number of its pack
    offset: "NDArray[Any]"  # uint32
    length: "NDArray[Any]"  # uint32: sealed bytes
    raw: "NDArray[Any]"  # uint32: bytes of the chunk
    depth: "NDArray[Any]"  # uint8: 0 a full chunk, else its base's depth + 1
    base: "NDArray[Any]"  # 16 bytes for each entry with depth > 0, in order


def pack_key(digest: bytes) -> str:
    """Return the key of a pack."""
    name = digest.hex()
    return f"data/{name[:2]}/{name}"


class Index:
    """All chunks of a vault. Grows by `add`; look-ups are by 16-byte id. Safe to use from several threads.

    Backups that ran at once may have stored a chunk twice. Of its entries the one with the lowest depth is taken, and
    of those the first: so a base always has a lower depth than the delta that needs it, and no chain comes back to
    itself, although each writer saw another part of the whole.
    """

    def __init__(self, small: int = SMALL) -> None:
        self._small = small
        self.packs: dict[str, int] = {}  # key -> bytes
        self.segments: dict[str, tuple[str, ...]] = {}  # segment key -> pack keys that it describes
        self._keys: list[str] = []  # by number; a pack that two segments describe has two
        self._runs: list[_Run] = []
        self._settled = False
        self._bad: NDArray[Any]
        self._distrusted: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(run) for run in self._runs)

    def add(self, key: str, segment: "Segment") -> None:
        """Take in a segment."""
        keys = tuple(name for name, _ in segment.packs)
        with self._lock:
            if len(segment.columns.head):
                self._runs = [*self._runs, _Run(segment.columns, len(self._keys))]
            self._keys.extend(keys)
            self.packs.update(segment.packs)
            self.segments[key] = keys
            self._settled = False

    def become(self, other: "Index") -> None:
        """Take what another index holds, which nobody else uses, for all that is here; what is distrusted stays so."""
        with self._lock:
            self.packs, self.segments = other.packs, other.segments
            self._keys, self._runs = other._keys, other._runs  # noqa: SLF001 - of its own kind
            self._settled = False

    def distrust(self, pack: str) -> bool:
        """Prefer other copies of a damaged pack's chunks, and count those without one as absent when writing.

        Returns whether that is news.
        """
        with self._lock:
            news = pack in self.packs and pack not in self._distrusted
            if news:
                self._distrusted.add(pack)
                self._settled = False
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
        runs, bad, keys = self._settle()
        halves = np.frombuffer(b"".join(chunks), "<u8").reshape(-1, 2)
        best = _Best(halves[:, 0].copy(), halves[:, 1].copy())
        for number, run in enumerate(runs):
            run.look(best, number, bad)
        for number, run in enumerate(runs):
            where = np.flatnonzero(best.run == number)
            if len(where):
                for position, place in zip(where.tolist(), run.places(best.row[where], keys), strict=True):
                    found[position] = place
        return found

    def find_usable(self, chunks: Sequence[bytes]) -> list[Location | None]:
        """Return where each chunk lies that can be leaned on: with all that its delta needs, and all in trusted packs.

        A prune takes the base of a delta that no snapshot needs, although the delta itself may stay in a pack that is
        needed for others: such a delta is as good as none. The depth is the length of the chain as it is now.
        """
        found = self._trusted(chunks)
        todo = {number: place.base for number, place in enumerate(found) if place is not None and place.base}
        for length in range(1, _LONGEST + 1):
            bases = list(dict.fromkeys(todo.values()))
            places = dict(zip(bases, self._trusted(bases), strict=True)) if bases else {}
            for number, base in list(todo.items()):
                below, place = places[base], found[number]
                if below is None or place is None:
                    found[number] = None
                elif below.base is not None:
                    todo[number] = below.base
                    continue
                else:
                    found[number] = place._replace(depth=max(place.depth, length))
                del todo[number]
        return [None if number in todo else place for number, place in enumerate(found)]

    def _trusted(self, chunks: Sequence[bytes]) -> list[Location | None]:
        return [place if place is not None and self.trusts(place) else None for place in self.find_all(chunks)]

    def entries(self, packs: Container[str]) -> Iterator[tuple[bytes, Location]]:
        """Yield every entry of the chunks that lie in some packs, with its place there."""
        import numpy as np

        runs, _, keys = self._settle()
        wanted = np.array([key in packs for key in keys], bool)
        for run in runs:
            rows = np.flatnonzero(wanted[run.columns.pack + np.uint32(run.first)])
            ids = np.stack([run.columns.head[rows], run.columns.tail[rows]], axis=1).astype("<u8").tobytes()
            for number, place in enumerate(run.places(rows, keys)):
                yield ids[number * ID_SIZE : (number + 1) * ID_SIZE], place

    def _settle(self) -> "tuple[list[_Run], NDArray[Any], list[str]]":
        """Return few runs that hold all entries, of each pack by number whether it is distrusted, and its key."""
        import numpy as np

        with self._lock:
            if not self._settled:
                least = max(self._small, min(sum(len(run) for run in self._runs) // _PART, _LARGE))
                small = [run for run in self._runs if len(run) < least]
                if len(small) > 1:
                    self._runs = [*(run for run in self._runs if len(run) >= least), _merged(small)]
                self._bad = np.array([key in self._distrusted for key in self._keys], bool)
                self._settled = True
            return self._runs, self._bad, self._keys


class _Best:
    """Ids that are looked for, and the best entry of each so far: its rank, its run (-1: none) and its row there."""

    def __init__(self, head: "NDArray[Any]", tail: "NDArray[Any]") -> None:
        import numpy as np

        self.head = head
        self.tail = tail
        self.rank = np.full(len(head), np.iinfo(np.uint64).max, np.uint64)
        self.run = np.full(len(head), -1, np.int32)
        self.row = np.zeros(len(head), np.intp)


class _Run:
    """Entries and their heads in order; packs are numbered from `first` on. Nothing in it changes.

    `order` says which entry each of the sorted heads belongs to, where the entries themselves are not in order.
    """

    def __init__(self, columns: Columns, first: int, order: "NDArray[Any] | None" = None) -> None:
        import numpy as np

        self.columns = columns
        self.first = first
        self.order = order
        self.heads = columns.head if order is None else columns.head[order]
        # Which of the deltas an entry is, counted from 1.
        self.deltas = np.cumsum(columns.depth > 0, dtype=np.uint32) if len(columns.base) else None

    def __len__(self) -> int:
        return len(self.columns.head)

    def look(self, best: _Best, number: int, bad: "NDArray[Any]") -> None:
        """Enter into `best` what is better here, in the run of this number."""
        import numpy as np

        table = self.columns
        row = self.heads.searchsorted(best.head)
        wanted = np.flatnonzero(self.heads.take(row, mode="clip") == best.head)
        row = row[wanted]
        while len(wanted):
            entry = row if self.order is None else self.order[row]
            same = table.tail[entry] == best.tail[wanted]
            hits, rows = wanted[same], entry[same]
            pack = table.pack[rows].astype(np.uint64) + np.uint64(self.first)
            rank = (bad[pack] * np.uint64(256) + table.depth[rows]) * np.uint64(1 << 32) + pack
            better = rank < best.rank[hits]
            hits = hits[better]
            best.rank[hits] = rank[better]
            best.run[hits] = number
            best.row[hits] = rows[better]
            # Next to never: an id that was stored twice, or that agrees with another in its first half.
            row = row + 1
            again = self.heads.take(row, mode="clip") == best.head[wanted]
            again &= row < len(self.heads)
            wanted, row = wanted[again], row[again]

    def places(self, rows: "NDArray[Any]", keys: Sequence[str]) -> Iterator[Location]:
        """Yield the places of some entries; `keys` are the keys of packs by number."""
        table = self.columns
        depth = table.depth[rows].tolist()
        bases: list[bytes | None] = [None] * len(depth)
        if self.deltas is not None:
            # A full chunk gets some other's base at first.
            some = table.base[self.deltas[rows].astype("i8") - 1].tolist()
            bases = [base if deep else None for base, deep in zip(some, depth, strict=True)]
        packs = [keys[pack + self.first] for pack in table.pack[rows].tolist()]
        numbers = [column[rows].tolist() for column in (table.offset, table.length, table.raw)]
        return map(Location, packs, *numbers, depth, bases)


def _merged(runs: "list[_Run]") -> _Run:
    """Return one run of the entries of several."""
    import numpy as np

    numbered = [run.columns._replace(pack=run.columns.pack + np.uint32(run.first)) for run in runs]
    joined = Columns(*(np.concatenate(parts) for parts in zip(*numbered, strict=True)))
    # Only heads are moved: in all other columns a look-up touches few places.
    return _Run(joined, 0, joined.head.argsort().astype(np.uint32))

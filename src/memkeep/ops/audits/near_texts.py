"""Find which of many texts say nearly the same in nearly the same words.

Texts are compared by the runs of five bytes that they have in common (Jaccard). Which are compared at all is told by
MinHash: 64 smallest hashes of each, and two texts meet where four in a row are the same.
"""

import re
import tempfile
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

ALIKE = 0.75  # of the runs of two texts together that both have
_RUN = 5  # bytes
_HASHES, _ROWS = 64, 4
_NEIGHBOURS = 3  # texts of one bucket that each is compared with, beside the first
_LONGEST = 20_000  # bytes of a text that are looked at
_BUFFER = 1 << 20
# What makes two texts of nearly the same words say different things.
_TELLING = re.compile(
    r"\d+(?:[.,:]\d+)*|\b(?:not?|never|none|nor|without|no longer|un\w+|dis\w+|\w+n['\u2019]t|nicht|kein\w*|nie|ohne)\b"
)


def plain(text: str) -> str:
    """Return a text as it counts: letters of one kind, in lower case, any space as one."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Pair(NamedTuple):
    """Two texts by their numbers, the earlier one first, and how much of them is alike."""

    one: int
    other: int
    alike: float


class Texts:
    """Texts that wait, as hashes on disk, to be compared."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - `close` closes it
        self._ends = array("Q", [0])
        self._signs: list[bytes] = []
        self._told = array("q")  # of each text a hash of whose it is and of the words that make a difference
        random = np.random.default_rng(0)
        self._factors = random.integers(1, 1 << 63, _HASHES, dtype=np.uint64) | np.uint64(1)
        self._offsets = random.integers(0, 1 << 63, _HASHES, dtype=np.uint64)

    def add(self, text: str, whose: object) -> None:
        """Take in a text that `plain` gave; its number is how many there were. Only texts of one owner are compared."""
        import numpy as np

        runs = _runs(text.encode("utf-8", "surrogatepass")[:_LONGEST])
        self._file.write(runs.tobytes())
        self._ends.append(self._ends[-1] + len(runs))
        hashes = runs[:, None].astype(np.uint64) * self._factors + self._offsets
        self._signs.append((hashes >> np.uint64(32)).astype(np.uint32).min(axis=0).tobytes())
        self._told.append(hash((whose, *sorted(_TELLING.findall(text)))))

    def pairs(self) -> Iterator[Pair]:
        """Yield pairs of texts that are alike; of many that are all alike not every pair, but enough to join them."""
        import numpy as np

        if len(self._signs) < 2:  # noqa: PLR2004 - a pair
            return
        self._file.flush()
        runs = np.memmap(self._file, np.uint32, "r", shape=(max(1, self._ends[-1]),)) if self._ends[-1] else None
        signs = np.frombuffer(b"".join(self._signs), np.uint32).reshape(len(self._signs), _HASHES)
        seen: set[tuple[int, int]] = set()
        for one, other in self._meetings(signs):
            if (one, other) in seen or runs is None:
                continue
            seen.add((one, other))
            ours = runs[self._ends[one] : self._ends[one + 1]]
            theirs = runs[self._ends[other] : self._ends[other + 1]]
            both = len(np.intersect1d(ours, theirs, assume_unique=True))
            alike = both / max(1, len(ours) + len(theirs) - both)
            if alike >= ALIKE:
                yield Pair(one, other, alike)

    def close(self) -> None:
        """Let go of all."""
        self._file.close()

    def _meetings(self, signs: "Numbers") -> Iterator[tuple[int, int]]:
        import numpy as np

        told = np.frombuffer(self._told, np.int64)
        for start in range(0, _HASHES, _ROWS):
            band = np.ascontiguousarray(signs[:, start : start + _ROWS]).view(np.uint64)
            order = np.lexsort((told, band[:, 1], band[:, 0]))
            same = (np.diff(told[order]) == 0) & (np.diff(band[order], axis=0) == 0).all(axis=1)
            first = 0
            for place in (np.flatnonzero(same) + 1).tolist():
                if place == 1 or not same[place - 2]:
                    first = place - 1
                for before in {first, *range(max(first, place - _NEIGHBOURS), place)}:
                    one, other = sorted((int(order[before]), int(order[place])))
                    yield one, other


def _runs(data: bytes) -> "Numbers":
    """Return the runs of a text as different numbers of 32 bits, in ascending order; one of all that is shorter."""
    import numpy as np

    letters = np.frombuffer(data.ljust(_RUN, b"\0"), np.uint8).astype(np.uint64)
    packed = np.zeros(len(letters) - _RUN + 1, np.uint64)
    for place in range(_RUN):
        packed = (packed << np.uint64(8)) | letters[place : place + len(packed)]
    return np.unique(((packed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)).astype(np.uint32))

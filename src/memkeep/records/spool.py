"""Records on disk for a while, so that any number of them is put in order and joined in little memory."""

import os
import tempfile
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.records.record import Portable
from memkeep.records.wire import pack, unpack

if TYPE_CHECKING:
    import numpy as np

_DIGEST = 16
_BUFFER = 1 << 20
_RUN = 1 << 18  # bytes that are read at once
_HELD = 32 << 20  # bytes that wait in memory


class Spool:
    """Records in memory, and what is more in a file without a name; given back in the order of their keys."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - `close` closes it
        self._keys: list[str] = []
        self._held: list[bytes] = []  # the first records
        self._room = _HELD
        self._starts = array("Q")  # where in the file each record begins that is not held, and the last one ends

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, made: Portable) -> None:
        """Take in a record."""
        data = pack(made)
        self._keys.append(key)
        self._room -= len(data)
        if self._room >= 0:
            self._held.append(data)
            return
        if not self._starts:
            self._starts.append(0)
        self._file.write(data)
        self._starts.append(self._starts[-1] + len(data))

    def __iter__(self) -> Iterator[Portable]:
        self._file.flush()
        for numbers in self._runs():
            if numbers.start < len(self._held):
                yield from map(unpack, self._held[numbers.start : numbers.stop])
                continue
            at = numbers.start - len(self._held)
            bounds = self._starts[at : at + len(numbers) + 1]
            data = memoryview(os.pread(self._file.fileno(), bounds[-1] - bounds[0], bounds[0]))
            for start, end in pairwise(bounds):
                yield unpack(data[start - bounds[0] : end - bounds[0]])

    def _runs(self) -> Iterator[range]:
        """Yield the numbers of records in order: in one run those that are held, or that are read at once."""
        held, starts = len(self._held), self._starts
        first = after = 0
        for number in sorted(range(len(self._keys)), key=self._keys.__getitem__):
            if (
                number != after
                or number == held
                or (number > held and starts[number + 1 - held] - starts[first - held] > _RUN)
            ):
                if first < after:
                    yield range(first, after)
                first = number
            after = number + 1
        if first < after:
            yield range(first, after)

    def close(self) -> None:
        """Let go of all."""
        self._held.clear()
        self._file.close()


class Names:
    """Names of records, 16 bytes each."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._sorted: Any = None

    def __len__(self) -> int:
        return len(self._digests) // _DIGEST

    def add(self, name: str) -> None:
        """Take in a name."""
        self._digests += _digest(name)
        self._sorted = None

    def array(self) -> "np.ndarray[Any, np.dtype[np.bytes_]]":
        """Return the names as they came."""
        import numpy as np

        return np.frombuffer(bytes(self._digests), f"S{_DIGEST}")

    def repeated(self) -> "Names":
        """Return the names that came more than once."""
        import numpy as np

        names, times = np.unique(self.array(), return_counts=True)
        found = Names()
        found._digests += names[times > 1].tobytes()
        return found

    def __contains__(self, name: str) -> bool:
        import numpy as np

        if self._sorted is None:
            self._sorted = np.sort(self.array())
        wanted = np.frombuffer(_digest(name), f"S{_DIGEST}")[0]
        at = int(self._sorted.searchsorted(wanted))
        return at < len(self._sorted) and bool(self._sorted[at] == wanted)


class Shelf:
    """Bytes in a file without a name, found again by what names their record."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - `close` closes it
        self._names = Names()
        self._starts = array("Q", [0])
        self._index: tuple[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, data: bytes) -> None:
        """Take in what belongs to a record; of two under one name the later one counts."""
        self._file.write(data)
        self._names.add(name)
        self._starts.append(self._starts[-1] + len(data))
        self._index = None

    def find(self, name: str) -> bytes:
        """Return what belongs to a record; no bytes when there is nothing."""
        import numpy as np

        if not len(self):
            return b""
        if self._index is None:
            self._file.flush()
            names = self._names.array()
            order = names.argsort(kind="stable")
            self._index = names[order], order
        names, order = self._index
        wanted = np.frombuffer(_digest(name), f"S{_DIGEST}")[0]
        at = int(names.searchsorted(wanted, side="right")) - 1
        if at < 0 or names[at] != wanted:
            return b""
        number = int(order[at])
        start, end = self._starts[number], self._starts[number + 1]
        return os.pread(self._file.fileno(), end - start, start)

    def strangers(self, known: Names) -> int:
        """Return how many have a name that is none of the known ones."""
        import numpy as np

        return int((~np.isin(self._names.array(), known.array())).sum())

    def close(self) -> None:
        """Let go of all."""
        self._file.close()


def _digest(name: str) -> bytes:
    from blake3 import blake3

    return blake3(name.encode("utf-8", "surrogatepass")).digest(_DIGEST)

"""Find where vectors lie in the data files of a Lance table, by their content.

Lance writes a page of fixed-size vectors as their bytes one after another, a deleted row still taking its place (tried
with the formats 2.0 to 2.2 and the legacy one). A vector that was found tells where all others of its page must be;
that is then compared, many at once. Where it does not hold, another page begins, which is searched for from there on.
A page with null vectors has some bytes between them from format 2.1 on, and is passed over. A run that is missed or
wrong costs space in a vault, never correctness.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.model import Run

if TYPE_CHECKING:
    import numpy as np

SMALLEST = 256  # bytes a vector; below that pieces cost more than they save
_WINDOW = 4 << 20
_NEAR = 64 << 10  # bytes that are searched first
_TRUST = 16  # rows that are compared at once at first; four times what held before, later
_SHORT = 8  # runs of fewer rows than that, one after another: a page that is not as it should be
_LOST = 8  # files in which nothing was found, after which no more are searched
_MISSES = 2  # vectors of one file that were not found, after which it is not searched any more

Read = Callable[[str, int, int], bytes]


class _Column(msgspec.Struct):
    """What is known of one column in one file."""

    stride: int
    base: int = -1  # where row 0 of the fragment would lie; -1: unknown
    first: int = 0  # rows of the run that is growing
    last: int = -1
    end: int = 0  # behind the last vector found
    misses: int = 0
    short: int = 0  # short runs, one after another
    runs: list[Run] = []


class Finder:
    """Collects the runs of all files, while the rows are read in order."""

    def __init__(self, read: Read) -> None:
        """Begin; `read(file, offset, length)` gives a file's bytes, fewer where it ends."""
        self._read = read
        self._files: dict[str, dict[str, _Column]] = {}
        self._lost = 0
        self._hits = 0

    def add(
        self,
        file: str,
        column: str,
        rows: "np.ndarray[Any, Any]",
        vectors: "np.ndarray[Any, Any]",
        valid: "np.ndarray[Any, Any] | None",
    ) -> None:
        """Take in vectors of one fragment, in ascending order of their row.

        `rows` are the rows' places in the fragment, int64; `vectors` is (n, bytes a vector), uint8; of null vectors
        `valid` is False.
        """
        import numpy as np

        stride = vectors.shape[1]
        if stride < SMALLEST or (self._lost >= _LOST and not self._hits):
            return
        if valid is not None:
            rows, vectors = rows[valid], vectors[valid]
        state = self._files.setdefault(file, {}).setdefault(column, _Column(stride=stride))
        done = 0
        state.short = 0
        while done < len(rows) and state.misses < _MISSES and state.short < _SHORT:
            same = 0
            if state.base >= 0:
                same = self._compare(file, state, rows[done:], vectors[done:])
            if same:
                state.last = int(rows[done + same - 1])
                state.end = state.base + (state.last + 1) * stride
                done += same
                continue
            state.short = state.short + 1 if state.last - state.first < _SHORT else 0
            _finish(state)
            at = self._search(file, state.end, np.ascontiguousarray(vectors[done]).tobytes())
            if at < 0:
                state.misses += 1
                self._lost += not state.runs
                done += 1
                continue
            self._hits += 1
            state.base = at - int(rows[done]) * stride
            state.first = state.last = int(rows[done])
            state.end = at + stride
            done += 1

    def runs(self, file: str) -> tuple[Run, ...]:
        """Return the runs found in a file, in ascending order, none overlapping another."""
        found: list[Run] = []
        for state in self._files.get(file, {}).values():
            _finish(state)
            found += state.runs
        out: list[Run] = []
        end = 0
        for run in sorted(found, key=lambda run: run.offset):
            if run.offset >= end:
                out.append(run)
                end = run.offset + run.count * run.stride
        return tuple(out)

    def _compare(self, file: str, state: _Column, rows: "np.ndarray[Any, Any]", vectors: "np.ndarray[Any, Any]") -> int:
        """Return how many of the vectors lie where they should, from the first on."""
        import numpy as np

        stride = vectors.shape[1]
        start = state.base + int(rows[0]) * stride
        if start < 0:
            return 0
        span = int(rows[-1] - rows[0]) + 1
        span = min(span, max(_TRUST, 4 * (state.last - state.first + 1)), max(1, _WINDOW // stride))
        block = self._read(file, start, span * stride)
        held = len(block) // stride
        inside = int(np.searchsorted(rows, rows[0] + held))
        if not inside:
            return 0
        there = np.frombuffer(block, np.uint8, held * stride).reshape(held, stride)
        if inside != held:
            there = there[rows[:inside] - rows[0]]
        wide = np.uint64 if stride % 8 == 0 else np.uint8
        mine = np.ascontiguousarray(vectors[:inside])
        equal = (np.ascontiguousarray(there).view(wide) == mine.view(wide)).all(axis=1)
        return inside if equal.all() else int(equal.argmin())

    def _search(self, file: str, start: int, vector: bytes) -> int:
        """Return where a vector lies, at or after `start`; -1 when it does not."""
        size = _NEAR
        while True:
            window = self._read(file, start, size + len(vector))
            at = window.find(vector)
            if at >= 0:
                return start + at
            if len(window) < size + len(vector):
                return -1
            start += size
            size = _WINDOW


def _finish(state: _Column) -> None:
    """End the run that is growing."""
    if state.base >= 0:
        offset = state.base + state.first * state.stride
        state.runs.append(Run(offset=offset, count=state.last - state.first + 1, stride=state.stride))
    state.base = -1

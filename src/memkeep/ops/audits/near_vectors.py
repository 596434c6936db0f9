"""Find which of many vectors are nearly alike, in a time that grows little faster than their number.

A tree halves the vectors again and again at the median of a random direction, until few are left together; those are
compared exactly. Two that are alike are parted by a direction only when it cuts between them, so that a few trees find
nearly all of them. What the last trees find that the earlier ones had not says how many are still to be found: trees
are added until that is next to nothing.

Only vectors that are equal to the last bit are joined without a comparison.
"""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

_LEAF = 256  # vectors that are compared all with all
_LEAVES = 32  # gathered at once
_FEWEST, _MOST = 4, 40  # trees
_ENOUGH = 0.995  # of what a tree finds was known
_QUIET = 2  # trees in a row that must find next to nothing new
_WORKERS = 8
_AT_ONCE = 4096  # rows that are put through a product at once


def normalised(vectors: "Numbers") -> "Numbers":
    """Scale the rows of a float32 array to length 1, in place where it can be written; none may be zero."""
    import numpy as np

    for start in range(0, len(vectors), _AT_ONCE):
        block = vectors[start : start + _AT_ONCE]
        # By the largest value first: squares of very large and very small ones are no float32.
        block /= np.abs(block).max(axis=1, keepdims=True)
        block /= np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
    return vectors


def groups(unit: "Numbers", threshold: float, seed: int = 0) -> "Numbers":
    """Return for each row of unit vectors the number of the first row of its group.

    Rows are in one group when a chain of pairs with a cosine of at least the threshold joins them. Every such pair was
    compared; of all pairs that there are, nearly all (more than 99 in 100) are found.
    """
    import numpy as np

    first, back = np.unique(_rows_as_bytes(unit), return_index=True, return_inverse=True)[1:]
    back = back.reshape(-1)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    chosen, back = first[order], rank[back]  # the first of equal rows stands for all of them, in the order of rows
    parents = np.arange(len(chosen))
    quiet = 0
    for number, (one, other) in enumerate(_trees(unit, chosen, threshold, seed)):
        new = int((_roots(parents, one) != _roots(parents, other)).sum())
        _join(parents, one, other)
        quiet = quiet + 1 if new <= (1 - _ENOUGH) * len(one) else 0
        if number + 1 >= _FEWEST and quiet >= _QUIET:
            break
    return chosen[_roots(parents, np.arange(len(chosen)))][back]


def _trees(unit: "Numbers", chosen: "Numbers", threshold: float, seed: int) -> "Iterator[tuple[Numbers, Numbers]]":
    """Yield the pairs that each tree finds, as places in `chosen`; some trees grow at once, each in a thread.

    The products are small: threads of the matrix library would wait for each other most of the time.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    if len(chosen) < 2:  # noqa: PLR2004 - a pair
        return
    seeds = np.random.SeedSequence(seed).spawn(_MOST if len(chosen) > _LEAF else 1)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(workers, _WORKERS)) as pool:
        growing: deque[Future[tuple[Numbers, Numbers]]] = deque()
        try:
            for each in (*seeds, *[None] * workers):
                if each is not None:
                    growing.append(pool.submit(_tree, unit, chosen, threshold, np.random.default_rng(each)))
                if growing and (len(growing) >= workers or each is None):
                    yield growing.popleft().result()
        finally:
            for one in growing:
                one.cancel()


def _tree(
    unit: "Numbers", chosen: "Numbers", threshold: float, random: "np.random.Generator"
) -> "tuple[Numbers, Numbers]":
    """Return pairs that join all that are alike in each leaf of a tree."""
    import numpy as np

    depth = max(0, int(np.ceil(np.log2(len(chosen) / _LEAF))))
    directions = random.standard_normal((unit.shape[1], depth), dtype=np.float32)
    sides = np.empty((len(chosen), depth), np.float32)
    for start in range(0, len(chosen), _AT_ONCE):
        sides[start : start + _AT_ONCE] = unit[chosen[start : start + _AT_ONCE]] @ directions
    order = np.arange(len(chosen))
    bounds = np.array([0, len(chosen)])
    for level in range(depth):
        nodes = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        order = order[np.lexsort((sides[order, level], nodes))]
        bounds = np.sort(np.concatenate((bounds, (bounds[:-1] + bounds[1:]) // 2)))
    ones, others = [], []
    for start in range(0, len(bounds) - 1, _LEAVES):
        few = bounds[start : start + _LEAVES + 1]
        gathered = unit[chosen[order[few[0] : few[-1]]]]
        for begin, end in pairwise(few.tolist()):
            leaf = gathered[begin - few[0] : end - few[0]]
            rows, columns = _joining(leaf @ leaf.T >= threshold)
            if len(rows):
                ones.append(order[begin:end][rows])
                others.append(order[begin:end][columns])
    nothing = np.empty(0, np.intp)
    return np.concatenate((nothing, *ones)), np.concatenate((nothing, *others))


def _joining(alike: "Numbers") -> "tuple[Numbers, Numbers]":
    """Return the pairs that are alike, as rows and columns; of very many so few that they join the same rows."""
    import numpy as np

    rows, columns = np.nonzero(alike)
    above = rows < columns
    rows, columns = rows[above], columns[above]
    if len(rows) <= len(alike):
        return rows, columns
    parents = np.arange(len(alike))
    _join(parents, rows, columns)
    joined = np.flatnonzero(parents != np.arange(len(alike)))
    return joined, parents[joined]


def around(unit: "Numbers", members: "Numbers", threshold: float) -> "Iterator[tuple[int, int, float]]":
    """Yield (row, row that it is like, cosine) so that all that are like one row need not stay beside it.

    Members come in the order of preference: the first stays, and those that are alike to it are yielded; of the rest
    again the first stays, and so on. What is not directly like one that stays is not yielded.
    """
    import numpy as np

    held = unit[members]
    left = np.arange(len(members))
    size = 1
    while len(left) > 1:
        first, size = left[:size], min(2 * size, _LEAF)
        cosines = held[first] @ held[left].T
        stays = np.ones(len(left), bool)
        for at, row in enumerate(cosines):
            if stays[at]:
                alike = stays & (row >= threshold)
                alike[: at + 1] = False
                stays &= ~alike
                for other in np.flatnonzero(alike).tolist():
                    yield int(members[left[other]]), int(members[left[at]]), min(1.0, float(row[other]))
        left = left[len(first) :][stays[len(first) :]]


def _rows_as_bytes(unit: "Numbers") -> "Numbers":
    """Return each row as one value that is equal only for equal rows: a digest of 16 bytes."""
    import numpy as np
    from blake3 import blake3

    digests = b"".join(blake3(row.tobytes()).digest(16) for row in unit)
    return np.frombuffer(digests, np.dtype("V16")).view(np.dtype([("high", "<u8"), ("low", "<u8")]))


def _roots(parents: "Numbers", rows: "Numbers") -> "Numbers":
    """Return the first rows of the groups that rows are in."""
    import numpy as np

    found = parents[rows]
    while True:
        above = parents[found]
        if np.array_equal(above, found):
            return found
        found = above


def _join(parents: "Numbers", ones: "Numbers", others: "Numbers") -> None:
    """Make one group of the two of each pair; the first row of a group is its root."""
    import numpy as np

    while len(ones):
        a, b = _roots(parents, ones), _roots(parents, others)
        low, high = np.minimum(a, b), np.maximum(a, b)
        apart = low != high
        if not apart.any():
            break
        ones, others, low, high = ones[apart], others[apart], low[apart], high[apart]
        np.minimum.at(parents, high, low)
    parents[:] = _roots(parents, np.arange(len(parents)))

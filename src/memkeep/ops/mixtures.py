"""What speaks for two models in vectors of one size, without asking any model.

* Some are of unit length and some are far from it: one model normalises, or the product did for a while.
* They fall into two groups, each close together (as one model's are, which never use all directions alike), and any
  two of different groups are no nearer to each other than chance makes directions. That may be so of two topics too;
  but a model's vectors vary in few directions, the same ones in all topics, and two models' in different ones.
"""

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memkeep.ops.embed_texts import NUMPY, key_of
from memkeep.records.record import Vector

if TYPE_CHECKING:
    import numpy as np

_KEPT = 400  # vectors that are looked at together
_UNIT, _FAR = 1e-3, 0.05  # from length 1
_SHARE, _LEAST = 0.03, 4  # of the vectors, that a group must have
_CLOSE = 0.35  # mean cosine within a group
_CHANCE = 1.5  # times the spread that chance gives
_FEW = 2.0  # times that spread, within a group about its middle
_ROUNDS = 20


class Mixture:
    """Vectors of one collection: the lengths of all, and some of them whole."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self._heap: list[tuple[int, int, str, bytes]] = []

    def add(self, record: str, vector: Vector) -> None:
        """Take in a vector."""
        import numpy as np

        numbers = np.frombuffer(vector.data, NUMPY[vector.type]).astype(np.float32)
        self.lengths.append(float(np.linalg.norm(numbers)))
        order = -int.from_bytes(key_of("", record)[:8], "big")
        entry = (order, len(self.lengths), record, numbers.tobytes())
        if len(self._heap) < _KEPT:
            heapq.heappush(self._heap, entry)
        elif order > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def some(self) -> "tuple[list[str], np.ndarray[Any, np.dtype[np.float32]]]":
        """Return the records that were kept, of the most common size, and their directions."""
        import numpy as np

        sizes = [len(data) for *_, data in self._heap]
        usual = max(set(sizes), key=sizes.count)
        kept = [(record, data) for *_, record, data in self._heap if len(data) == usual]
        made = np.stack([np.frombuffer(data, np.float32) for _, data in kept])
        return [record for record, _ in kept], made / np.linalg.norm(made, axis=1, keepdims=True)


def judged(mixture: Mixture) -> Iterator[tuple[str, str]]:
    """Yield what speaks for two models: a finding's code and message."""
    if message := _lengths(mixture.lengths):
        yield "mixed_lengths", message
    if message := _groups(mixture):
        yield "mixed_groups", message


def _lengths(lengths: list[float]) -> str:
    import numpy as np

    off = np.abs(np.array(lengths) - 1)
    unit, far = int((off < _UNIT).sum()), int((off > _FAR).sum())
    if min(unit, far) < max(_LEAST, _SHARE * len(lengths)):
        return ""
    return f"{unit:,} vectors are of unit length and {far:,} are not: two models, or one that was set up in two ways"


def _groups(mixture: Mixture) -> str:
    """Say which records stand apart from the others as only another model's do; "" when none do."""
    import numpy as np

    names, made = mixture.some()
    if len(names) < 2 * _LEAST:
        return ""
    cosines = made @ made.T
    first = np.unravel_index(int(cosines.argmin()), cosines.shape)
    inside = _halves(made, made[list(first)])
    one, other = np.flatnonzero(inside), np.flatnonzero(~inside)
    if min(len(one), len(other)) < max(_LEAST, _SHARE * len(names)):
        return ""
    within = [float(cosines[np.ix_(some, some)][~np.eye(len(some), dtype=bool)].mean()) for some in (one, other)]
    between = cosines[np.ix_(one, other)]
    chance = 1 / np.sqrt(made.shape[1])
    strange = abs(float(between.mean())) < _CHANCE * chance and float(between.std()) < _CHANCE * chance
    if min(within) < _CLOSE or not strange or not _vary_apart(made[one], made[other], chance):
        return ""
    few = one if len(one) < len(other) else other
    return (
        f"{len(few)} of {len(names)} vectors have nothing in common with the others (mean cosine "
        f"{between.mean():.3f}, within the groups {within[0]:.2f} and {within[1]:.2f}): they look like another "
        f"model's; {', '.join(names[at] for at in few[:3])}"
    )


def _vary_apart(
    one: "np.ndarray[Any, np.dtype[np.float32]]", other: "np.ndarray[Any, np.dtype[np.float32]]", chance: float
) -> bool:
    """Say whether each of two groups varies in few directions, and these have nothing to do with the other's."""
    import numpy as np

    left = [some - some.mean(axis=0) for some in (one, other)]
    left = [some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-9) for some in left]
    own = min(float((some @ some.T)[np.triu_indices(len(some), 1)].std()) for some in left)
    return own > _FEW * chance and float((left[0] @ left[1].T).std()) < _CHANCE * chance


def _halves(
    made: "np.ndarray[Any, np.dtype[np.float32]]", centres: "np.ndarray[Any, np.dtype[np.float32]]"
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return which vectors are nearer to the first of two centres, after these have settled."""
    import numpy as np

    inside: np.ndarray[Any, np.dtype[np.bool_]] = made @ centres[0] >= made @ centres[1]
    for _ in range(_ROUNDS):
        if inside.all() or not inside.any():
            break
        centres = np.stack([made[inside].mean(axis=0), made[~inside].mean(axis=0)])
        centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        again = made @ centres[0] >= made @ centres[1]
        if np.array_equal(again, inside):
            break
        inside = again
    return inside

"""Whether a store's vectors are of one model, and of which: by making a few of them again."""

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from memkeep.embedding.base import Provider
from memkeep.embedding.work import Item, embed
from memkeep.ops.embed_texts import NUMPY, Text, key_of, sendable, usable
from memkeep.records.record import Vector

SAMPLE = 5
ALIKE = 0.97  # cosine: the same model elsewhere, with other rounding, is above; with other words before a text, below
OTHER = 0.8  # below it is another model, or another text


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One vector as it is and as the model makes it. No cosine: they differ in size."""

    record: str
    place: str
    dims: int
    cosine: float | None


class Choice(NamedTuple):
    """A row that was chosen for the comparison."""

    order: bytes
    place: str
    text: Text


class Sample:
    """A few rows with a vector, chosen by what their texts and ids are: the same ones of the same store."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size = size
        self._heap: list[tuple[int, int, Choice]] = []
        self._seen = 0

    def add(self, place: str, text: Text) -> None:
        """Look at a row."""
        if text.vector is None or not text.text.strip() or text.vector.type not in NUMPY or not usable(text.vector):
            return
        key = key_of(f"{place} {text.id}", text.text)
        order = -int.from_bytes(key[:8], "big")
        self._seen += 1
        entry = (order, self._seen, Choice(key, place, text))
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif order > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def chosen(self) -> list[Choice]:
        """Return the rows."""
        return sorted((choice for _, _, choice in self._heap), key=lambda one: one.order)


def compare(provider: Provider, chosen: Sequence[Choice]) -> list[Compared]:
    """Make the vectors of some rows again and compare; what the provider refuses is left out."""
    items = [Item(str(number).encode(), sendable(one.text.text)) for number, one in enumerate(chosen)]
    found = []
    for done in embed(provider, items, batch=len(items) or 1):
        if done.vectors is not None:
            for item, row in zip(done.items, done.vectors, strict=True):
                one = chosen[int(item.key)]
                assert one.text.vector is not None  # noqa: S101 - `Sample` has looked
                cosine = _cosine(one.text.vector, Vector.f32(row.tobytes()))
                dims = one.text.vector.dims
                found.append(Compared(record=str(one.text.id), place=one.place, dims=dims, cosine=cosine))
    return found


def shown(compared: Iterable[Compared]) -> str:
    """Return the cosines for a person."""
    return ", ".join(f"{one.cosine:.3f}" if one.cosine is not None else f"{one.dims} dimensions" for one in compared)


def _cosine(one: Vector, other: Vector) -> float | None:
    import numpy as np

    a, b = (np.frombuffer(each.data, NUMPY[each.type]).astype(np.float64) for each in (one, other))
    if a.size != b.size:
        return None
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

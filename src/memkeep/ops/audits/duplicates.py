"""Memories that say the same: in the same words, in nearly the same words, or to the same effect by their vectors."""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from memkeep.model import Severity
from memkeep.ops.audits import near_texts, near_vectors
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, is_current, owner
from memkeep.records.record import Record, Vector

if TYPE_CHECKING:
    import numpy as np

COSINE = 0.95
_FLOATS = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}
_BUFFER = 1 << 20

name = "duplicates"
vectors = True
kinds: tuple[Kind, ...] = (
    Kind(
        name="exact_duplicate",
        title="memories that say the same in the same words",
        severity=Severity.WARNING,
        mend="delete all but one: `memkeep audit --plan FILE` proposes which",
        proposal="delete",
    ),
    Kind(
        name="near_duplicate_text",
        title="memories that say the same in nearly the same words",
        severity=Severity.WARNING,
        mend="look at them, and keep the one that says it best",
    ),
    Kind(
        name="near_duplicate_vector",
        title="memories that mean the same by their vectors",
        severity=Severity.INFO,
        mend="look at them, and keep the one that says it best",
    ),
)


class _Vectors:
    """The vectors of one group of records that may be compared, in a file."""

    def __init__(self, folder: Path, dims: int) -> None:
        self.dims = dims
        self.numbers: list[int] = []  # of the records
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - `close` closes it

    def add(self, number: int, vector: Vector) -> None:
        import numpy as np

        values = np.frombuffer(vector.data, _FLOATS[vector.type]).astype("<f4")
        if np.isfinite(values).all() and values.any():
            self.numbers.append(number)
            self._file.write(values.tobytes())

    def unit(self) -> "np.ndarray[Any, np.dtype[Any]]":
        import numpy as np

        self._file.flush()
        shape = (len(self.numbers), self.dims)
        return near_vectors.normalised(np.memmap(self._file, "<f4", "r+", shape=shape))

    def close(self) -> None:
        self._file.close()


class _Pass(Pass):
    def __init__(self, scene: Scene) -> None:
        self._folder = scene.folder
        self._ids: list[tuple[str, str]] = []  # collection and id of each memory
        self._ranks: list[tuple[Any, ...]] = []  # the greater the better
        self._digests: list[bytes] = []
        self._owners: dict[tuple[str | None, ...], int] = {}
        self._whose: list[int] = []  # the number of the owner
        self._texts = near_texts.Texts(self._folder)
        self._compared: list[int] = []  # whose texts are in there
        self._seen: set[bytes] = set()
        self._vectors: dict[tuple[Any, ...], _Vectors] = {}

    def record(self, record: Record) -> None:
        if not is_current(record):
            return
        number, whose = len(self._ids), owner(record)
        said = near_texts.plain(record.text)
        mine = self._owners.setdefault(whose, len(self._owners))
        digest = blake3(f"{mine} {said}".encode("utf-8", "surrogatepass")).digest(16)
        self._whose.append(mine)
        self._ids.append((record.collection, record.id))
        self._ranks.append(_rank(record))
        self._digests.append(digest if said else b"")
        if said and digest not in self._seen:
            self._seen.add(digest)
            self._texts.add(said, mine)
            self._compared.append(number)
        for which, vector in record.vectors.items():
            if vector.type in _FLOATS and vector.dims:
                key = (which, vector.dims, vector.model)
                if key not in self._vectors:
                    self._vectors[key] = _Vectors(self._folder, vector.dims)
                self._vectors[key].add(number, vector)

    def noticed(self) -> Iterable[Noticed]:
        try:
            yield from self._exact()
            yield from self._near_texts()
            yield from self._near_vectors()
        finally:
            self._texts.close()
            for held in self._vectors.values():
                held.close()

    def _exact(self) -> Iterator[Noticed]:
        alike = defaultdict[bytes, list[int]](list)
        for number, digest in enumerate(self._digests):
            if digest:
                alike[digest].append(number)
        for numbers in alike.values():
            best, *others = self._by_rank(numbers)
            for number in sorted(others):
                yield self._say("exact_duplicate", number, best, f"{self._ids[best][1]} says the same")

    def _near_texts(self) -> Iterator[Noticed]:
        near = defaultdict[int, dict[int, float]](dict)
        for one, other, alike in self._texts.pairs():
            first, second = self._compared[one], self._compared[other]
            near[first][second] = near[second][first] = alike
        gone: set[int] = set()
        for best in self._by_rank(list(near)):
            if best not in gone:
                for number in sorted(near[best].keys() - gone):
                    why = f"{self._ids[best][1]} says it in {near[best][number]:.0%} the same words"
                    yield self._say("near_duplicate_text", number, best, why)
                gone |= {best, *near[best]}

    def _near_vectors(self) -> Iterator[Noticed]:
        import numpy as np

        for held in self._vectors.values():
            if len(held.numbers) < 2:  # noqa: PLR2004 - a pair
                continue
            unit = held.unit()
            first = near_vectors.groups(unit, COSINE)
            whose = np.array(self._whose)[held.numbers]
            order = np.lexsort((whose, first))
            new = (np.diff(first[order]) != 0) | (np.diff(whose[order]) != 0)
            for rows in np.split(order, np.flatnonzero(new) + 1):
                if len(rows) > 1:
                    yield from self._of_group(held, unit, rows)

    def _of_group(self, held: _Vectors, unit: Any, rows: Any) -> Iterator[Noticed]:
        import numpy as np

        place = {held.numbers[row]: row for row in rows.tolist()}
        preferred = np.array([place[number] for number in self._by_rank(list(place))])
        for row, best, cosine in near_vectors.around(unit, preferred, COSINE):
            number, stays = held.numbers[row], held.numbers[best]
            if not self._digests[number] or self._digests[number] != self._digests[stays]:
                why = f"{self._ids[stays][1]} means the same: cosine {cosine:.3f}"
                yield self._say("near_duplicate_vector", number, stays, why)

    def _by_rank(self, numbers: list[int]) -> list[int]:
        return sorted(numbers, key=lambda number: (self._ranks[number], -number), reverse=True)

    def _say(self, kind: str, number: int, best: int, why: str) -> Noticed:
        collection, identity = self._ids[number]
        return Noticed(kind=kind, collection=collection, id=identity, why=why, same_as=self._ids[best][1])


def _rank(record: Record) -> tuple[Any, ...]:
    """Return how much speaks for keeping a memory rather than one that says the same."""
    return (
        record.access_count or 0,
        record.importance if record.importance is not None else 0.5,
        record.confidence or 0.0,
        len(record.tags),
        record.updated_at or record.created_at or "",
    )


def begin(scene: Scene) -> Pass:
    """Begin a reading."""
    return _Pass(scene)

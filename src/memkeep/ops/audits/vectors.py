"""Vectors that recall can't use: missing, zero, of another size than the others, or with values that are no numbers."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, is_current
from memkeep.records.record import Record, Vector

name = "vectors"
vectors = True
_MEND = "memkeep embed makes it again"
kinds: tuple[Kind, ...] = (
    Kind(
        name="vector_missing",
        title="memories without a vector",
        severity=Severity.WARNING,
        mend="memkeep embed --missing",
    ),
    Kind(name="vector_zero", title="vectors of nothing but zeros", severity=Severity.WARNING, mend=_MEND),
    Kind(name="vector_size", title="vectors of another size than the others", severity=Severity.ERROR, mend=_MEND),
    Kind(name="vector_not_finite", title="vectors with NaN or infinity", severity=Severity.ERROR, mend=_MEND),
)
_FLOATS = {"f16": "<f2", "f32": "<f4", "f64": "<f8", "multi": "<f4"}


class _Pass(Pass):
    def __init__(self) -> None:
        self._found: list[Noticed] = []
        self._without = defaultdict[str, list[str]](list)  # collection -> ids
        self._sizes = defaultdict[tuple[str, str], dict[int, list[str]]](dict)  # collection, name -> size -> a few ids
        self._counts = Counter[tuple[str, str, int]]()

    def record(self, record: Record) -> None:
        if not record.vectors:
            if is_current(record) and record.text.strip():
                self._without[record.collection].append(record.id)
            return
        for vector_name, vector in record.vectors.items():
            self._look(record, vector_name, vector)

    def noticed(self) -> Iterable[Noticed]:
        having = {collection for collection, _ in self._sizes}
        for collection, ids in self._without.items():
            if collection in having:  # a product that keeps no vectors lacks none
                self._found += [
                    Noticed(kind="vector_missing", collection=collection, id=one, why="it has no vector") for one in ids
                ]
        for (collection, vector_name), sizes in sorted(self._sizes.items()):
            usual = max(sorted(sizes), key=lambda dims: self._counts[collection, vector_name, dims])
            for dims in sorted(sizes.keys() - {usual}):
                why = f"its vector has {dims:,} dimensions, most have {usual:,}"
                self._found += [
                    Noticed(kind="vector_size", collection=collection, id=one, why=why) for one in sizes[dims]
                ]
        return self._found

    def _look(self, record: Record, vector_name: str, vector: Vector) -> None:
        import numpy as np

        if vector.type == "sparse":
            numbers = np.frombuffer(vector.data, "<f4")[vector.dims :]
        else:
            numbers = np.frombuffer(vector.data, _FLOATS[vector.type])
            key = (record.collection, vector_name)
            self._counts[*key, vector.dims] += 1
            self._sizes[key].setdefault(vector.dims, []).append(record.id)
        which = f" {vector_name!r}" if vector_name else ""
        if not np.isfinite(numbers).all():
            self._say("vector_not_finite", record, f"its vector{which} has a value that is no number")
        elif vector.type != "sparse" and not numbers.any():
            self._say("vector_zero", record, f"its vector{which} is zero: it is like nothing")

    def _say(self, kind: str, record: Record, why: str) -> None:
        self._found.append(Noticed(kind=kind, collection=record.collection, id=record.id, why=why))


def begin(scene: Scene) -> Pass:  # noqa: ARG001 - the contract's signature
    """Begin a reading."""
    return _Pass()

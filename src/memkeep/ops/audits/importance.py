"""Memories of low importance."""

from collections.abc import Iterable

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, is_current
from memkeep.records.record import Record

LOW = 0.3

name = "importance"
vectors = False
kinds: tuple[Kind, ...] = (
    Kind(
        name="low_importance",
        title="memories of low importance",
        severity=Severity.INFO,
        mend="delete those that nobody will miss",
    ),
)


class _Pass(Pass):
    def __init__(self) -> None:
        self._found: list[Noticed] = []

    def record(self, record: Record) -> None:
        value = record.importance if record.importance is not None else record.heat
        if value is not None and value < LOW and is_current(record):
            what = "importance" if record.importance is not None else "heat"
            why = f"{what} {value:.2f} is below {LOW}"
            self._found.append(Noticed(kind="low_importance", collection=record.collection, id=record.id, why=why))

    def noticed(self) -> Iterable[Noticed]:
        return self._found


def begin(scene: Scene) -> Pass:  # noqa: ARG001 - the contract's signature
    """Begin a reading."""
    return _Pass()

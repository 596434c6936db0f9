"""Memories that time has passed over: replaced, expired, or never asked for."""

from collections.abc import Iterable

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, is_current
from memkeep.records import moments
from memkeep.records.record import Record

_DAY = 86_400 * 10**9
_OLD = 180  # days after which a memory that was never recalled is old

name = "outdated"
vectors = False
kinds: tuple[Kind, ...] = (
    Kind(
        name="expired",
        title="memories past their time",
        severity=Severity.WARNING,
        mend="delete them: the product no longer goes by them",
        proposal="delete",
    ),
    Kind(
        name="superseded",
        title="memories that another has replaced",
        severity=Severity.INFO,
        mend="keep them for their history, or delete them",
    ),
    Kind(
        name="never_recalled",
        title="old memories that were never recalled",
        severity=Severity.INFO,
        mend="delete those that nobody will miss",
    ),
)


class _Pass(Pass):
    def __init__(self, taken: str) -> None:
        self._now = moments.order(taken) or 0
        self._found: list[Noticed] = []
        self._idle: list[tuple[Record, int]] = []
        self._counts = False  # whether the product counts at all

    def record(self, record: Record) -> None:
        if not record.primary:
            return
        self._counts = self._counts or bool(record.access_count)
        end = min((at for at in map(_at, (record.expires_at, record.valid_until)) if at is not None), default=None)
        if record.status == "superseded" or record.superseded_by:
            by = f" by {record.superseded_by}" if record.superseded_by else ""
            self._say("superseded", record, f"it was replaced{by}")
        elif end is not None and end < self._now and is_current(record):
            self._say("expired", record, f"its time ended {(self._now - end) // _DAY:,} days ago")
        elif record.access_count == 0 and is_current(record) and (made := _at(record.created_at)) is not None:
            days = (self._now - made) // _DAY
            if days >= _OLD:
                self._idle.append((record, days))

    def noticed(self) -> Iterable[Noticed]:
        if self._counts:
            for record, days in self._idle:
                self._say("never_recalled", record, f"it was never recalled in {days:,} days")
        return self._found

    def unchecked(self) -> Iterable[str]:
        if self._idle and not self._counts:
            return ("whether memories were recalled: the product has counted no recall at all",)
        return ()

    def _say(self, kind: str, record: Record, why: str) -> None:
        self._found.append(Noticed(kind=kind, collection=record.collection, id=record.id, why=why))


def _at(text: str | None) -> int | None:
    return None if text is None else moments.order(text)


def begin(scene: Scene) -> Pass:
    """Begin a reading."""
    return _Pass(scene.taken)

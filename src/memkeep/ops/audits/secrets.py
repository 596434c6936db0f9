"""Keys, tokens and passwords in memories, and personal data. What they are is never said."""

from collections import Counter
from collections.abc import Iterable

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, texts_of
from memkeep.records import personal, secrets
from memkeep.records.record import Record

name = "secrets"
vectors = False
kinds: tuple[Kind, ...] = (
    Kind(
        name="secret",
        title="records with a key, token or password",
        severity=Severity.ERROR,
        mend="change the secret where it is used, then delete the record; `memkeep export --redact` leaves it out",
    ),
    Kind(
        name="personal_data",
        title="records with a mail address, phone number, bank account or card",
        severity=Severity.INFO,
        mend="delete what need not be remembered",
    ),
)


class _Pass(Pass):
    def __init__(self) -> None:
        self._found: dict[str, list[Noticed]] = {kind.name: [] for kind in kinds}

    def record(self, record: Record) -> None:
        hidden, private = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for field, text in texts_of(record):
            hidden.update((one.kind, field) for one in secrets.find(text))
            private.update((one.kind, field) for one in personal.find(text))
        for kind, told in (("secret", hidden), ("personal_data", private)):
            if told:
                why = ", ".join(f"{what} in {field}" for what, field in sorted(told))
                self._found[kind].append(Noticed(kind=kind, collection=record.collection, id=record.id, why=why))

    def noticed(self) -> Iterable[Noticed]:
        return [one for found in self._found.values() for one in found]


def begin(scene: Scene) -> Pass:  # noqa: ARG001 - the contract's signature
    """Begin a reading."""
    return _Pass()

"""The contract of a check: what it looks for in the records of a store, and what it says of each.

A check is a module; adding one is that module and its name in `catalog.CHECKS`. All checks see the records in one
reading: first each record, memories first, then what joins them; then they say what they noticed.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Protocol

from memkeep.model import Severity, Value
from memkeep.records.record import Record, Relationship

Action = Literal["delete", "keep"]
"""What a plan does with a record."""


class Kind(Value):
    """One kind of thing that a check notices."""

    name: str  # stable, snake_case
    title: str  # a few words, plural
    severity: Severity
    mend: str
    proposal: Action = "keep"  # what a plan says of it before a person has looked


class Noticed(Value):
    """One record, or one thing that joins records, of which something is to be said. No secret is ever in it."""

    kind: str
    collection: str
    id: str
    why: str
    same_as: str | None = None  # the record of the same collection that stays where this one goes


class Scene(Value):
    """What checks may go by beside the records."""

    taken: str  # when the records were as they are, ISO-8601
    here: bool  # the store is on this machine and is read as it is now
    ask_hosts: bool  # whether names of hosts may be looked up
    folder: Path  # private, for what is large
    strangers: tuple[tuple[str, str], ...] = ()  # vectors of no record: their collection and id


class Pass:
    """One reading of all records by one check; says nothing of what it is not interested in."""

    def record(self, record: Record) -> None:
        """See a record."""

    def relationship(self, one: Relationship) -> None:
        """See what joins two records."""

    def noticed(self) -> Iterable[Noticed]:
        """Return what is to be said, in a stable order; called once, last."""
        return ()

    def unchecked(self) -> Iterable[str]:
        """Return what could not be looked at, one sentence each; called after `noticed`."""
        return ()


class Check(Protocol):
    """What looks for one category of things. Stateless."""

    name: str
    kinds: tuple[Kind, ...]
    vectors: bool
    """Whether it needs the vectors."""

    def begin(self, scene: Scene) -> Pass:
        """Begin a reading."""
        ...


def texts_of(record: Record) -> Iterator[tuple[str, str]]:
    """Yield all texts of a record with the names of their fields; those in metadata by path."""
    for field in ("text", "title", "summary"):
        if (text := getattr(record, field)) is not None:
            yield field, text
    yield from _leaves("metadata", record.metadata)


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(path, item)


def is_current(record: Record) -> bool:
    """Say whether a record is a memory that the product still goes by."""
    return record.primary and record.status in {None, "active", "confirmed", "pending"} and not record.superseded_by


def owner(record: Record) -> tuple[str | None, ...]:
    """Return whose a memory is: what two users say is never the same memory."""
    return record.collection, record.scope, record.user, record.agent, record.session

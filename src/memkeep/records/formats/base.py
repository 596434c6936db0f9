"""The contract of a format: how records leave as open files, and how they come back.

A format is a module; adding one is that module and its name in `catalog.FORMATS`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from memkeep.model import Finding, Value
from memkeep.records.readers.base import Read
from memkeep.records.record import Portable, Record, Relationship


class About(Value, kw_only=True):
    """Where records are from, as an export says it: the same for the same snapshot."""

    system: str
    path: str
    taken: str  # ISO-8601, UTC: the snapshot's moment; of a live store the moment it was read
    snapshot: str | None = None
    records: int = 0
    relationships: int = 0
    fingerprint: dict[str, Any] = {}
    filters: dict[str, Any] = {}  # what was asked for: user, scope, since, without vectors, redacted
    unread: tuple[Finding, ...] = ()  # parts that could not be read: what they hold is not among the records
    omitted: tuple[str, ...] = ()  # what of the store could not be read or is not records, one sentence each


class Source(Protocol):
    """Records in the order of their collection and id; each method may be called more than once."""

    @property
    def about(self) -> About:
        """Return where they are from."""
        ...

    def records(self) -> Iterator[Record]:
        """Yield all records, those that are memories first."""
        ...

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        ...


class Format(Protocol):
    """One way to write records as files. Stateless."""

    name: str
    lossless: bool
    """Whether `read` gives back every record as it was."""

    def losses(self, made: Portable) -> Iterable[str]:
        """Return the names of the fields of a record, or `field: why`, that would not come back; none if lossless."""
        ...

    def write(self, source: Source, folder: Path) -> None:
        """Write all files under an empty folder, with a fixed order and content; streams: memory does not grow.

        `metadata.json` and `checksums.json` are the caller's.
        """
        ...

    def fits(self, path: Path) -> bool:
        """Say, from names and first bytes, whether a file or folder is of this format."""
        ...

    def read(self, path: Path) -> Iterator[Read]:
        """Yield what a file or folder of this format holds, and what of it was refused. Raises `FileError`."""
        ...

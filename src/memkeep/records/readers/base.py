"""The contract of a reader: how records come back from what a product wrote.

A reader is a module; adding one is that module and its name in `catalog.READERS`. One damaged record is not the end of
an import: it is told apart, and the others are read. `FileError` is for a file of which nothing can be read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

from memkeep.model import Value
from memkeep.records.record import Portable


class UnfitError(ValueError):
    """A value in a file is not the record, or the part of one, that should be there."""


class Refused(Value):
    """A record in a file that could not be read; the others were."""

    where: str  # for a person: `memories.json, line 12` or `memory/2026-01-02.md`
    reason: str


Read: TypeAlias = Portable | Refused


class Reader(Protocol):
    """What reads the files of one product. Stateless."""

    @property
    def name(self) -> str:
        """Return the name by which an import calls it."""
        ...

    def fits(self, path: Path) -> bool:
        """Say, from names and first bytes, whether a file or folder is what this reads. Raises nothing."""
        ...

    def read(self, path: Path) -> Iterator[Read]:
        """Yield the records and relationships of a file or folder, and what was refused; streams.

        The same file gives the same records with the same ids. Raises `FileError`.
        """
        ...

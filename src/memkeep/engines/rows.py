"""The contract of rows: all of what a part's tables hold, out of a moment and into a live part.

A row is a `records.shape.Row`, {column: value}. Columns are named as records name them: those of SQLite, Lance and
Postgres as they are, the keys of a JSON object in a column of Postgres `payload.<key>`; of a point `id`, the keys of
its payload, and `vector` or `vector.<name>`; of a note `path`, `text`, `modified`. What a map calls a vector is a
`records.record.Vector`, NULL is None; text that is no good UTF-8 is decoded with `surrogateescape`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from memkeep.engines.merging import Merging, Wanted
from memkeep.errors import StoreError
from memkeep.model import Part, TableMap, Value
from memkeep.records.shape import Row

NO_TABLE = "table_missing"
"""The code of the error that says that a moment does not have a map's table, or not its id."""

Rows = Callable[[], Iterator[list[Row]]]
"""Gives the rows of a table, in batches; may be called more than once."""


class Columns(Value, kw_only=True):
    """What a table takes."""

    names: tuple[str, ...]  # without the keys of free JSON
    vectors: dict[str, int] = {}  # column -> dimensions, 0 where any will do
    needed: tuple[str, ...] = ()  # what a new row must say, as far as the database tells
    filled: tuple[str, ...] = ()  # columns that may be NULL, and are not where a row does not say so


@runtime_checkable
class RowReader(Protocol):
    """An `Opened` whose rows can be read, with their vectors."""

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the rows of a map's table in batches of at most some megabytes, in the order of the id if it is cheap.

        Needs no `scan` before. Raises `StoreError` for what can't be read, with the code `NO_TABLE` when
        the table is not there.
        """
        ...


@runtime_checkable
class RowEngine(Protocol):
    """An engine whose live parts take rows that come from elsewhere."""

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return what a live table takes; None when it is not there."""
        ...

    def merge_rows(
        self, live: Part, rows: Mapping[str, Rows], wanted: Wanted, scratch: Path | None = None
    ) -> AbstractContextManager[Merging]:
        """Merge rows, by the tables of the live part's maps, as `MergeEngine.merge` does those of an image.

        A column that a row does not have is left to the table's default when it is inserted, and as it is when the
        row is updated. Rows are the same when all columns that they have are. `scratch` is a folder for what must lie
        on disk meanwhile, which its maker empties even of what a killed process left; None: any temporary folder.
        """
        ...


class Gone(Value, kw_only=True):
    """Rows of one table that are to go: those of which one of the columns names one of the ids."""

    table: str
    columns: tuple[str, ...]
    ids: tuple[str, ...]
    spelled: bool = True  # ids as a record has them; else as `merging.plain_id` gives them, for other parts' spellings


class Deleted(Value, kw_only=True):
    """How many rows a deletion takes."""

    tables: dict[str, int] = {}  # of the tables that were named
    beside: dict[str, int] = {}  # of others: what the database's own keys take along, and full-text tables


class Deleting(Protocol):
    """A deletion that is not yet made to last."""

    result: Deleted

    def commit(self) -> None:
        """Make it last. Raises `StoreError` when the live part no longer takes it; then nothing has changed."""
        ...


@runtime_checkable
class RowDeleter(Protocol):
    """An engine whose live parts let go of rows."""

    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> AbstractContextManager[Deleting]:
        """Find out what goes, and delete it as far as that can be undone; without `commit` nothing has changed.

        Nobody else can change these rows meanwhile where the engine has locks for it. A table that is not there has
        nothing to lose. Raises `StoreError` when the live part can't be written.
        """
        ...


def no_table(table: str, where: object) -> StoreError:
    """Return the error that a table, or the column that names its rows, is not there."""
    message = f"{where} has no table {table} whose records could be read" if table else f"{where} holds no notes"
    return StoreError(message, hint="memkeep discover", code=NO_TABLE)

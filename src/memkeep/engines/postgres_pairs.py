"""Rows in a temporary table beside the live table that they are to go into, and trying statements on some of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from memkeep.engines.merging import FailedRow
from memkeep.engines.postgres_connect import library
from memkeep.engines.postgres_tables import Column, quote, text
from memkeep.model import TableMap

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_BATCH = 1000
# Types with an operator `=` that compares values whole; others are compared as text.
_NUMBERS = ("bool", "float4", "float8", "halfvec", "int2", "int4", "int8", "numeric", "sparsevec", "vector")
_EQUAL = frozenset((*_NUMBERS, "bytea", "date", "jsonb", "text", "time", "timestamp", "timestamptz", "uuid", "varchar"))


class Cell(NamedTuple):
    """A column in SQL; `i` is the temporary table, `l` the live one."""

    name: str
    value: str  # what is inserted
    equal: str  # whether it is there already
    change: str  # what a row that is there gets


class Pair(NamedTuple):
    """A temporary table beside a live one."""

    map: TableMap
    image: str  # the temporary table, quoted; `memkeep_row` numbers its rows
    live: str  # quoted
    cells: tuple[Cell, ...]
    key: tuple[str, ...]

    @property
    def joined(self) -> str:
        """The condition under which a row is there."""
        values = {cell.name: cell.value for cell in self.cells}
        return " AND ".join(f"l.{quote(name)} = {values[name]}" for name in self.key)

    @property
    def name(self) -> str:
        """What names a row: its id, or what is unique in it."""
        names = self.key if self.map.unique else (self.map.id,)
        return " || '/' || ".join(f"coalesce(i.{quote(name)}::text, '')" for name in names)

    def field(self, field: str, side: str) -> str:
        """Return a column as text, or a key of a column of JSON, named as records name it."""
        if field in {cell.name for cell in self.cells}:
            return f"{side}.{quote(field)}::text"
        column, _, key = field.partition(".")
        return f"{side}.{quote(column)}::jsonb ->> {text(key)}"


class Laid(NamedTuple):
    """What became of laying out rows."""

    pair: Pair | None  # None: they can't go in
    left: tuple[str, ...] = ()
    failed: tuple[FailedRow, ...] = ()


class Source(Protocol):
    """Has rows that are to go into live tables."""

    def lay(self, connection: "Connection", map_: TableMap, number: int) -> Laid | None:
        """Put the rows for a table into the temporary table `memkeep_rows_<number>`; None when there are none."""
        ...


def equal(column: Column, given: str) -> str:
    """Return the condition under which a given value is the one that is there."""
    there = f"l.{quote(column.name)}"
    cast = "" if column.kind in _EQUAL and column.form != "text" else "::text"
    return f"{given}{cast} IS NOT DISTINCT FROM {there}{cast}"


def settle(connection: "Connection", table: str) -> None:
    """Have the rows of a temporary table found by their number; all of them have been put in."""
    connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (memkeep_row)")
    connection.execute(f"ANALYZE {table} (memkeep_row)")


def attempt(
    connection: "Connection", table: str, statement: str, rows: Sequence[int], names: Mapping[int, str]
) -> tuple[int, dict[int, FailedRow]]:
    """Do something with some rows; return how many the server took, and those that it refused.

    A batch that it refuses is halved, until the row is found that it does not take.
    """
    pending = [list(rows[at : at + _BATCH]) for at in range(0, len(rows), _BATCH)][::-1]
    done, failed = 0, dict[int, FailedRow]()
    while pending:
        batch = pending.pop()
        try:
            with connection.transaction():
                connection.execute(statement, [batch])
        except library().DatabaseError as error:
            if connection.broken:
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                pending += [batch[half:], batch[:half]]
            else:
                reason = str(error).splitlines()[0]
                failed[batch[0]] = FailedRow(table=table, id=names[batch[0]], reason=reason)
        else:
            done += len(batch)
    return done, failed

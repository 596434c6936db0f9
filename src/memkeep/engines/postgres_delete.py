"""Delete rows of live tables, in one transaction; what their own keys take along goes too, and is counted."""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from memkeep.engines.postgres_freeze import SETTINGS
from memkeep.engines.postgres_tables import quote
from memkeep.engines.rows import Deleted, Gone

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
_HANGING = """
WITH RECURSIVE hanging (id) AS (
  SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY(%s::text[]::regclass[])
  UNION SELECT conrelid FROM pg_constraint JOIN hanging ON confrelid = hanging.id WHERE contype = 'f')
SELECT nspname || '.' || relname FROM hanging JOIN pg_class c ON c.oid = hanging.id
JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1
"""


class PostgresDelete:
    """One open transaction on a database."""

    def __init__(self, connection: "Connection", gone: Sequence[Gone]) -> None:
        """Delete; `result` says how many rows of which tables."""
        self._connection = connection
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
        for setting in (*SETTINGS, "SET CONSTRAINTS ALL IMMEDIATE"):
            connection.execute(setting)
        there = {one.table: self._columns(one.table) for one in gone}
        named = [table for table, columns in there.items() if columns]
        hanging = [row[0] for row in connection.execute(_HANGING, [list(map(_quoted, named))]).fetchall()]
        before = self._counts({*named, *hanging})
        for one in gone:
            self._delete(one, there[one.table])
        after = self._counts(before)
        lost = {table: before[table] - after[table] for table in sorted(before)}
        self.result = Deleted(
            tables={table: lost[table] for table in named},
            beside={table: number for table, number in lost.items() if number and table not in named},
        )

    def commit(self) -> None:
        """Make it last."""
        self._connection.execute("COMMIT")

    def _delete(self, gone: Gone, columns: Collection[str]) -> None:
        said = [_value(one) for one in gone.columns if one.partition(".")[0] in columns]
        if said:
            form = "{}" if gone.spelled else "replace(lower({}), '-', '')"
            where = " OR ".join(f"{form.format(one)} = ANY(%s)" for one in said)
            self._connection.execute(f"DELETE FROM {_quoted(gone.table)} WHERE {where}", [list(gone.ids)] * len(said))

    def _columns(self, table: str) -> frozenset[str]:
        return frozenset(row[0] for row in self._connection.execute(_COLUMNS, [_quoted(table)]).fetchall())

    def _counts(self, tables: Collection[str]) -> dict[str, int]:
        return {one: self._count(one) for one in sorted(tables)}

    def _count(self, table: str) -> int:
        found = self._connection.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()
        return int(found[0]) if found else 0


def _quoted(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{quote(schema)}.{quote(name)}"


def _value(column: str) -> str:
    """Return a column as text; a key of a JSON object is `column.key`."""
    name, _, key = column.partition(".")
    if not key:
        return f"{quote(name)}::text"
    literal = key.replace("'", "''").replace("%", "%%")
    return f"{quote(name)} ->> '{literal}'"

"""Delete rows of live tables, in one transaction; what their own keys take along goes too, and is counted."""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from memkeep.engines.postgres_catalogue import spelled
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
        known = [spelled(connection, table) for table in named]
        hanging = [row[0] for row in connection.execute(_HANGING, [known]).fetchall()]
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
        said = [_value(one, columns) for one in gone.columns if {one, one.partition(".")[0]} & {*columns}]
        if said:
            form = "{}" if gone.spelled else "replace(lower({}), '-', '')"
            where = " OR ".join(f"{form.format(one)} = ANY(%s)" for one in said)
            self._connection.execute(
                f"DELETE FROM {spelled(self._connection, gone.table)} WHERE {where}", [list(gone.ids)] * len(said)
            )

    def _columns(self, table: str) -> frozenset[str]:
        full = spelled(self._connection, table)
        return frozenset(row[0] for row in self._connection.execute(_COLUMNS, [full]).fetchall())

    def _counts(self, tables: Collection[str]) -> dict[str, int]:
        return {one: self._count(one) for one in sorted(tables)}

    def _count(self, table: str) -> int:
        found = self._connection.execute(f"SELECT count(*) FROM {spelled(self._connection, table)}").fetchone()
        return int(found[0]) if found else 0


def _value(column: str, columns: Collection[str]) -> str:
    """Return a column as text; a key of a JSON object is `column.key`."""
    if column in columns:
        return f"{quote(column)}::text"
    name, _, key = column.partition(".")
    literal = key.replace("'", "''").replace("%", "%%")
    return f"{quote(name)} ->> '{literal}'"

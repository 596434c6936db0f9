"""Merge rows of an image into a live database, in one transaction. Runs in the child process.

Rows go in one by one, each in a savepoint: one that the database refuses is named and leaves the others alone. The
database's own triggers run, so that full-text tables follow.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memkeep.engines.merging import Counts, FailedRow, Merged, Wanted, belongs, later, plain_id
from memkeep.engines.sqlite_sql import connect, query, quote, uri
from memkeep.errors import StoreError
from memkeep.model import TableMap

_NAMED = 20  # conflicts that are named


class SqliteMerge:
    """One open transaction on the live database."""

    def __init__(self, live: Path, image: Path, maps: Sequence[TableMap], wanted: Wanted, patience: float) -> None:
        """Merge; `result` says what was done. Raises `StoreError` when the database can't be written."""
        import apsw

        self._wanted = wanted
        self._failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []
        self._left: list[str] = []
        self._con = connect(live, "mode=rw", patience)
        try:
            self._con.execute("ATTACH ? AS image", (uri(image, "mode=ro&immutable=1"),))
            self._con.execute("BEGIN IMMEDIATE")
            tables = {each.table: self._table(each) for each in maps if each.table}
        except apsw.Error as error:
            self.close()
            raise StoreError(
                f"{live} could not be written: {error}", hint="stop the agent and run this again"
            ) from error
        self.result = Merged(
            tables=tables,
            failed=tuple(self._failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records),
            left=tuple(self._left),
        )

    def commit(self) -> None:
        """Make it last; `StoreError` when the database refuses, then nothing has changed."""
        import apsw

        try:
            self._con.execute("COMMIT")
        except apsw.Error as error:
            raise StoreError(f"the database refused the changes: {error}", hint="memkeep verify") from error

    def close(self) -> None:
        """Let go; what was not committed never was."""
        self._con.close()

    def _table(self, map_: TableMap) -> Counts:
        here, there = self._columns("main", map_.table), self._columns("image", map_.table)
        key = [*map_.unique] or [map_.id]
        if not there:
            return Counts()
        if not set(key) <= here.keys() or not set(key) <= there.keys():
            self._left.append(f"{map_.table} is left as it is: the live table has no {', '.join(key)}")
            return Counts()
        given = {map_.id} - set(map_.unique) if map_.unique else set()  # a number that each database gives itself
        columns = [name for name in there if name in here and name not in given]
        if lost := [name for name in there if name not in here]:
            self._left.append(f"{map_.table} has no column {', '.join(lost)} any more: left out")
        return self._rows(map_, key, columns)

    def _rows(self, map_: TableMap, key: list[str], columns: list[str]) -> Counts:
        done = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        for row in self._chosen(map_, columns):
            name = str(row[map_.id]) if map_.id in row else "/".join(str(row[column]) for column in key)
            if map_.primary:
                self._records.append(plain_id(name))
            try:
                self._con.execute("SAVEPOINT row")
                done[self._one(map_, key, row, name)] += 1
                self._con.execute("RELEASE row")
            except _refusals() as error:
                self._con.execute("ROLLBACK TO row")
                self._con.execute("RELEASE row")
                self._failed.append(FailedRow(table=map_.table, id=name, reason=str(error)))
        return Counts(**done)

    def _one(self, map_: TableMap, key: list[str], row: dict[str, Any], name: str) -> str:
        """Put one row in; return what that was."""
        where = " AND ".join(f"{quote(column)} IS ?" for column in key)
        wanted = tuple(row[column] for column in key)
        names = list(row)
        there = query(
            self._con,
            f"SELECT {', '.join(map(quote, names))} FROM main.{quote(map_.table)} WHERE {where}",  # noqa: S608 - quoted
            wanted,
        )
        if not there:
            marks = ", ".join("?" * len(names))
            self._con.execute(
                f"INSERT INTO main.{quote(map_.table)} ({', '.join(map(quote, names))}) VALUES ({marks})",  # noqa: S608
                tuple(row.values()),
            )
            return "inserted"
        before = dict(zip(names, there[0], strict=True))
        if before == row:
            return "same"
        if len(self._conflicts) < _NAMED:
            self._conflicts.append(f"{map_.table}:{name}")
        replace = self._wanted.conflict == "update" or (self._wanted.conflict == "newer" and later(map_, row, before))
        if not replace:
            return "skipped"
        changes = ", ".join(f"{quote(column)} = ?" for column in names)
        self._con.execute(
            f"UPDATE main.{quote(map_.table)} SET {changes} WHERE {where}",  # noqa: S608 - quoted
            (*row.values(), *wanted),
        )
        return "updated"

    def _chosen(self, map_: TableMap, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of the image that are wanted."""
        names = list(dict.fromkeys([*columns, *map_.links]))
        user = map_.fields.get("user") or map_.fields.get("scope")
        users = self._wanted.users
        sql = f"SELECT {', '.join(map(quote, names))} FROM image.{quote(map_.table)}"  # noqa: S608 - quoted
        for values in self._con.cursor().execute(sql):
            row = dict(zip(names, values, strict=True))
            if users is not None and user in row and str(row[user]) not in users:
                continue
            named = [str(row[column]) for column in map_.links if row[column] is not None]
            if users is not None and not (user in row or map_.links):
                continue
            if map_.links and not belongs(named, self._wanted.records):
                continue
            yield {column: row[column] for column in columns}

    def _columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the columns that can be written, and their types."""
        rows = query(self._con, f"PRAGMA {schema}.table_xinfo({quote(table)})")
        return {row[1]: row[2] for row in rows if row[6] == 0}


def _refusals() -> tuple[type[Exception], ...]:
    import apsw

    return (apsw.ConstraintError, apsw.MismatchError, apsw.SQLError, apsw.TooBigError)

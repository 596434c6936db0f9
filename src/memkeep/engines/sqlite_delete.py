"""Delete rows of a live database, in one transaction. Runs in the child process.

What the database's own keys and triggers take along goes too, whether the product turns its foreign keys on or not.
A full-text table that no trigger fills loses the rows that repeat those that go. What is deleted is overwritten.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep.engines.rows import Deleted, Gone
from memkeep.engines.sqlite_fulltext import copies, names
from memkeep.engines.sqlite_sql import connect, quote, tables, value, virtual
from memkeep.errors import StoreError

if TYPE_CHECKING:
    import apsw

_SPELLED = "CASE typeof({0}) WHEN 'blob' THEN lower(hex({0})) ELSE CAST({0} AS TEXT) END"
_PLAIN = "replace(lower(" + _SPELLED + "), '-', '')"


class SqliteDelete:
    """One open transaction on the live database."""

    def __init__(self, live: Path, patience: float) -> None:
        """Begin. Raises `StoreError` when the database can't be written."""
        self.result = Deleted()
        self._live = live
        with self._meant():
            self.con: apsw.Connection = connect(live, "mode=rw", patience)
            for pragma in (
                "temp_store = MEMORY",
                "secure_delete = ON",
                "foreign_keys = ON",
                "cache_spill = OFF",  # others can read what is there until it is made to last
            ):
                self.con.execute(f"PRAGMA {pragma}")
            self.con.execute("BEGIN IMMEDIATE")

    def delete(self, gone: Sequence[Gone]) -> None:
        """Delete the rows; `result` says how many of which tables. Raises `StoreError`."""
        with self._meant():
            columns = {table.name.lower(): [one.lower() for one in table.columns] for table in tables(self.con)}
            there = [one for one in gone if one.table.lower() in columns]
            searched = copies(self.con, [one.table for one in there])
            before = self._counts(searched)
            self.con.execute("CREATE TEMP TABLE gone (id TEXT PRIMARY KEY) WITHOUT ROWID")
            for one in there:
                self.con.execute("DELETE FROM temp.gone")
                self.con.executemany("INSERT OR IGNORE INTO temp.gone VALUES (?)", ((name,) for name in one.ids))
                which = _SPELLED if one.spelled else _PLAIN
                named = [
                    f"{which.format(quote(each))} IN temp.gone"
                    for each in one.columns
                    if each.lower() in (*columns[one.table.lower()], "rowid")
                ]
                if not named:
                    continue
                where = " OR ".join(named)
                for search, table in searched.items():
                    if table == one.table:
                        self._forget(search, table, where)
                self.con.execute(f"DELETE FROM main.{quote(one.table)} WHERE {where}")
            self.con.execute("DROP TABLE temp.gone")
            after = self._counts(searched)
        lost = {name: before[name] - after[name] for name in before if before[name] != after[name]}
        named_tables = dict.fromkeys(one.table for one in there)
        self.result = Deleted(
            tables={name: lost.get(name, 0) for name in named_tables},
            beside={name: number for name, number in lost.items() if name not in named_tables},
        )

    def commit(self) -> None:
        """Make it last; `StoreError` when the database refuses, then nothing has changed."""
        with self._meant():
            self.con.execute("COMMIT")

    def _forget(self, search: str, table: str, where: str) -> None:
        """Delete the rows of a full-text table that repeat rows that will go."""
        same = " AND ".join(f"t.{quote(one)} IS s.{quote(one)}" for one in names(self.con, search))
        here, there = f"main.{quote(search)}", f"main.{quote(table)}"
        rows = f"SELECT rowid AS memkeep_row, * FROM {there} WHERE {where}"
        going = f"SELECT s.rowid FROM {here} s JOIN ({rows}) t ON t.memkeep_row = s.rowid"
        self.con.execute(f"DELETE FROM {here} WHERE rowid IN ({going} AND {same})")

    def _counts(self, searched: Collection[str]) -> dict[str, int]:
        """Return how many rows each table has; what full-text tables keep for themselves is none."""
        kept = tuple(f"{name}_" for name in virtual(self.con))
        own = [one.name for one in tables(self.con) if not one.name.startswith(("sqlite_", *kept))]
        return {name: int(value(self.con, f"SELECT count(*) FROM main.{quote(name)}")) for name in (*own, *searched)}

    @contextmanager
    def _meant(self) -> Iterator[None]:
        """Say what an error means."""
        import apsw

        try:
            yield
        except apsw.Error as error:
            hint = "df -h" if isinstance(error, apsw.FullError | apsw.IOError) else "stop the agent and run this again"
            raise StoreError(f"{self._live} could not be written: {error}", hint=hint) from error

"""Merge rows, of an image or given, into a live database, in one transaction. Runs in the child process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from memkeep.engines.merging import Merged, Wanted, links_last, of_records
from memkeep.engines.sqlite_fulltext import follow
from memkeep.engines.sqlite_put import Putting, Values
from memkeep.engines.sqlite_rows import sent
from memkeep.engines.sqlite_sql import Table, connect, query, quote
from memkeep.errors import StoreError
from memkeep.model import TableMap

if TYPE_CHECKING:
    import apsw


class SqliteMerge:
    """One open transaction on the live database."""

    def __init__(
        self, live: Path, maps: Sequence[TableMap], wanted: Wanted, patience: float, image: Path | None = None
    ) -> None:
        """Begin. Raises `StoreError` when the database can't be written."""
        self._live = live
        self._wanted = wanted
        self._maps = {each.table: each for each in maps if each.table}
        self._tables: dict[str, Putting] = {}
        self._left: dict[str, None] = {}
        self._broken = False
        with self._meant():
            self.con: apsw.Connection = connect(live, "mode=rw", patience)
            self.con.execute("PRAGMA temp_store = MEMORY")
            # By a connection of its own: what is undone in this one may end the reading of what is attached to it.
            self._image = connect(image, "mode=ro&immutable=1", patience) if image is not None else self.con
            self.con.execute("BEGIN IMMEDIATE")

    @property
    def result(self) -> Merged:
        """What was done so far."""
        tables = self._tables.values()
        return Merged(
            tables={name: one.counts() for name, one in self._tables.items()},
            failed=tuple(row for one in tables for row in one.failed),
            conflicts=tuple(name for one in tables for name in one.conflicts),
            records=tuple(name for one in tables for name in one.records),
            left=tuple(self._left),
        )

    def columns(self) -> dict[str, dict[str, str]]:
        """Return, by table, the columns that can be written, and how they are declared."""
        return {table: _columns(self.con, table) for table in self._maps}

    def take_image(self) -> None:
        """Put in the rows of all tables of the image. Raises `StoreError`."""
        for map_ in links_last(self._maps.values()):
            self._take_table(map_)

    def take(self, table: str, runs: Sequence[tuple[Sequence[str], Sequence[Values]]]) -> None:
        """Put in rows that are given: of each run the columns, which the table has, and rows. Raises `StoreError`."""
        with self._meant():
            putting = self._putting(self._maps[table])
            for names, rows in runs:
                if putting is not None:
                    putting.put(names, rows)

    def commit(self) -> None:
        """Make it last; `StoreError` when the database refuses, then nothing has changed."""
        with self._meant():
            self.con.execute("COMMIT")

    def close(self) -> None:
        """Let go; what was not committed never was."""
        self.con.close()
        self._image.close()

    def _take_table(self, map_: TableMap) -> None:
        there = _columns(self._image, map_.table)
        with self._meant():
            putting = self._putting(map_) if there else None
            if putting is None:
                return
            here = _columns(self.con, map_.table)
            if lost := [name for name in there if name not in here]:
                self._left[f"{map_.table} has no column {', '.join(lost)} any more: left out"] = None
            names = [name for name in there if name in here]
            for packed, _ in sent(self._image, Table(map_.table, names, ""), ""):
                putting.put(names, msgspec.msgpack.decode(packed))

    def _putting(self, map_: TableMap) -> Putting | None:
        """Return what puts rows into a table; None when the table has no key to know them by."""
        if map_.table not in self._tables:
            here = _columns(self.con, map_.table)
            if lost := [name for name in map_.unique or (map_.id,) if name not in here]:
                self._left[f"{map_.table} is left as it is: the live table has no {', '.join(lost)}"] = None
                return None
            follow(self.con, map_.table)
            chosen = (name for one in self._tables.values() for name in one.records)
            self._tables[map_.table] = Putting(self.con, map_, here, of_records(self._wanted, chosen))
        return self._tables[map_.table]

    @contextmanager
    def _meant(self) -> Iterator[None]:
        """Say what an error means. After one nothing more is done: SQLite may have ended the transaction itself."""
        import apsw

        if self._broken:
            raise StoreError(f"{self._live} was not changed", hint="stop the agent and run this again")
        self._broken = True
        try:
            yield
        except apsw.Error as error:
            hint = "df -h" if isinstance(error, apsw.FullError | apsw.IOError) else "stop the agent and run this again"
            raise StoreError(f"{self._live} could not be written: {error}", hint=hint) from error
        else:
            self._broken = False


def _columns(con: "apsw.Connection", table: str) -> dict[str, str]:
    """Return the columns of a table that can be written, and how they are declared."""
    rows = query(con, f"PRAGMA main.table_xinfo({quote(table)})")
    return {row[1]: row[2] for row in rows if row[6] == 0}

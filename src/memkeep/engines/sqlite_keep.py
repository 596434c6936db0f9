"""A private copy of a database with the rows alone that go with some records, and nothing left of the others."""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

from memkeep.engines.merging import belongs
from memkeep.engines.sqlite_sql import connect, quote, tables
from memkeep.errors import StoreError
from memkeep.model import TableMap


def keep(file: Path, maps: Sequence[TableMap], records: Collection[str]) -> dict[str, int]:
    """Remove the rows that name none of the records, as `plain_id` spells them; of tables without links, all.

    Returns how many rows each table has lost. Raises `StoreError` when the copy can't be read.
    """
    import apsw

    links = {each.table: each.links for each in maps if each.links}
    lost = {}
    try:
        with closing(connect(file, "mode=rw")) as con:
            con.execute("PRAGMA journal_mode = DELETE")
            con.execute("PRAGMA foreign_keys = OFF")
            con.create_scalar_function("belongs", lambda *named: belongs([one for one in named if one], records))
            for table in tables(con):
                if table.name.startswith("sqlite_"):
                    continue
                named = ", ".join(quote(one) for one in links.get(table.name, ()))
                con.execute(f"DELETE FROM {quote(table.name)}" + (f" WHERE NOT belongs({named})" if named else ""))
                if con.changes():
                    lost[table.name] = con.changes()
            con.execute("VACUUM")
    except apsw.Error as error:
        raise StoreError(f"{file.name} can't be taken for one user: {error}", hint="memkeep backup") from error
    return lost

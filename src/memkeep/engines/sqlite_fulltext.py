"""Full-text tables that a product fills by hand, without triggers: whose rows they repeat, and how they follow them.

Such a table has texts of its own under the rowid of the row that they are of (so oc-memory's `mem_fts`).
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memkeep.engines.sqlite_sql import query, quote, value

if TYPE_CHECKING:
    import apsw

_TABLES = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%fts5%'"


def copies(con: "apsw.Connection", named: Sequence[str]) -> dict[str, str]:
    """Return the full-text tables that no trigger fills -> that one of the named tables whose rows they repeat.

    Told by their columns, which are all columns of that table too.
    """
    found = {}
    triggers = " ".join(row[0] or "" for row in query(con, "SELECT sql FROM sqlite_schema WHERE type = 'trigger'"))
    for name, said in query(con, _TABLES):
        if "content=" in said.replace(" ", "").lower() or name in triggers:
            continue
        columns = names(con, name)
        fitting = [table for table in dict.fromkeys(named) if columns and set(columns) <= set(names(con, table))]
        if len(fitting) == 1:
            found[name] = fitting[0]
    return found


def follow(con: "apsw.Connection", table: str) -> None:
    """Let the full-text tables that repeat a table's rows follow what this connection changes.

    The triggers are the connection's own: they are gone with it, and the schema stays as it was. A table whose rows
    are for the most part not those of the same rowid goes by other numbers, and is left alone.
    """
    for search in copies(con, [table]):
        columns = names(con, search)
        here, there = f"main.{quote(search)}", f"main.{quote(table)}"
        same = " AND ".join(f"t.{quote(one)} IS s.{quote(one)}" for one in columns)
        alike = value(con, f"SELECT count(*) FROM {here} s JOIN {there} t ON t.rowid = s.rowid AND {same}")
        if int(alike) * 2 < int(value(con, f"SELECT count(*) FROM {here}")):
            continue
        into = ", ".join(map(quote, columns))
        insert = f"INSERT INTO {quote(search)} (rowid, {into}) VALUES (new.rowid, {_new(columns)});"
        delete = f"DELETE FROM {quote(search)} WHERE rowid = old.rowid;"
        for event, body in (("INSERT", insert), ("DELETE", delete), ("UPDATE", f"{delete} {insert}")):
            name = quote(f"memkeep_{search}_{event.lower()}")
            con.execute(f"CREATE TEMP TRIGGER {name} AFTER {event} ON {there} BEGIN {body} END")


def names(con: "apsw.Connection", table: str) -> list[str]:
    """Return the columns of a table that can be written."""
    return [row[1] for row in query(con, f"PRAGMA main.table_xinfo({quote(table)})") if row[6] == 0]


def _new(columns: Sequence[str]) -> str:
    return ", ".join(f"new.{quote(one)}" for one in columns)

"""Keep a table of full text with its rows while they change, where the product does that itself and has no triggers.

The triggers are the connection's own: they are gone with it, and the schema stays as it was.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from typing import TYPE_CHECKING

from memkeep.engines.sqlite_sql import query, quote
from memkeep.model import TableMap

if TYPE_CHECKING:
    import apsw


def follow(con: "apsw.Connection", map_: TableMap) -> None:
    """Let a map's table of full text follow what this connection changes; nothing when there is no such table."""
    if not map_.fulltext:
        return
    copies = [row[1] for row in query(con, f"PRAGMA main.table_info({quote(map_.fulltext)})")]
    columns = {row[1] for row in query(con, f"PRAGMA main.table_info({quote(map_.table)})")}
    names = [name for name in copies if name in columns]
    if not names:
        return
    into = ", ".join(quote(name) for name in names)
    values = ", ".join(f"new.{quote(name)}" for name in names)
    text, key = quote(map_.fulltext), quote(map_.id)
    insert = f"INSERT INTO {text} (rowid, {into}) VALUES (new.{key}, {values});"
    delete = f"DELETE FROM {text} WHERE rowid = old.{key};"
    for event, body in (("INSERT", insert), ("DELETE", delete), ("UPDATE", delete + " " + insert)):
        name = quote(f"memkeep_{map_.fulltext}_{event.lower()}")
        con.execute(f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{quote(map_.table)} BEGIN {body} END")

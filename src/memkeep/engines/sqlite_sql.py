"""The few words of SQL and of SQLite's file names that the engine needs, quoted so that any name works."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep import clock

if TYPE_CHECKING:
    import apsw

MAGIC = b"SQLite format 3\0"
PATIENCE = 10.0  # seconds to wait for other processes
_STOPPING = 2.0  # seconds until a connection's other thread has heard that it is to stop
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-~")
_MODULE = re.compile(r"\bUSING\s+(?:\"([^\"]+)\"|\[([^\]]+)\]|`([^`]+)`|'([^']+)'|([^\s(;]+))", re.IGNORECASE)


class Table(NamedTuple):
    """A table with a b-tree of its own."""

    name: str
    columns: list[str]
    order: str  # what to order by for the order of its keys
    key: tuple[str, ...] = ()  # the columns of the key of a table WITHOUT ROWID


def quote(name: str) -> str:
    """Return an identifier that SQLite takes for exactly this name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def affinity(declared: str) -> str:
    """Return what a column that is declared so makes of values: sqlite.org/datatype3.html, 3.1."""
    said = declared.upper()
    rules = (("INT", "INTEGER"), ("CHAR", "TEXT"), ("CLOB", "TEXT"), ("TEXT", "TEXT"), ("BLOB", "BLOB"))
    reals = (("REAL", "REAL"), ("FLOA", "REAL"), ("DOUB", "REAL"))
    found = next((name for part, name in (*rules, *reals) if part in said), "NUMERIC")
    return found if said else "BLOB"


def uri(path: Path, parameters: str) -> str:
    """Return the `file:` URI of an absolute path: sqlite.org/uri.html; bytes that are not UTF-8 included."""
    return "file://" + "".join(chr(c) if c in _PLAIN else f"%{c:02X}" for c in os.fsencode(path)) + "?" + parameters


def connect(path: Path, parameters: str, patience: float = PATIENCE) -> "apsw.Connection":
    """Open a database with URI parameters such as `mode=ro`; wait so long for locks, trust no SQL of its schema."""
    import apsw

    write = "mode=rw" in parameters
    flags = apsw.SQLITE_OPEN_URI | (apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY)
    con = apsw.Connection(uri(path, parameters), flags=flags)
    con.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    con.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    start: list[float] = []

    def wait(tries: int) -> bool:
        if tries == 0 or not start:
            start[:] = [clock.monotonic()]
        clock.pause(min(0.001 * (tries + 1), 0.01))
        return clock.monotonic() - start[0] < patience

    con.set_busy_handler(wait)
    return con


def undo(con: "apsw.Connection") -> None:
    """Roll back what a connection has begun, whatever another thread is doing with it."""
    import apsw

    until = clock.monotonic() + _STOPPING
    while con.in_transaction and clock.monotonic() < until:
        con.interrupt()
        try:
            con.execute("ROLLBACK")
        except apsw.Error:  # not yet
            clock.pause(0.005)


def query(con: "apsw.Connection", sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
    """Return all rows of a query."""
    return list(con.execute(sql, bindings))


def value(con: "apsw.Connection", sql: str, bindings: tuple[Any, ...] = ()) -> Any:
    """Return the first column of the first row, None when there is no row."""
    rows = query(con, sql, bindings)
    return rows[0][0] if rows else None


def tables(con: "apsw.Connection") -> list[Table]:
    """Return all tables that have a b-tree (virtual ones have none), by name."""
    rowless = {name for schema, name, _, _, wr, _ in query(con, "PRAGMA table_list") if schema == "main" and wr}
    names = [
        r[0] for r in query(con, "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY 1")
    ]
    found = []
    for name in names:
        keys: tuple[str, ...] = ()
        info = query(con, f"PRAGMA table_xinfo({quote(name)})")
        columns = [row[1] for row in info]
        if name in rowless:
            # Binary, whatever the key's own collation: the order must not depend on what is installed.
            keys = tuple(column for _, column in sorted((row[5], row[1]) for row in info if row[5]))
            order = ", ".join(f"{quote(column)} COLLATE BINARY" for column in keys)
        else:
            taken = {column.lower() for column in columns}
            order = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken), "")
        found.append(Table(name, columns, order, keys))
    return found


def virtual(con: "apsw.Connection") -> dict[str, str]:
    """Return the module of each virtual table, lower case, known to this SQLite or not."""
    rows = query(
        con, "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND coalesce(rootpage, 0) = 0 ORDER BY 1"
    )
    found = {}
    for name, sql in rows:
        match = _MODULE.search(sql or "")
        found[name] = next(filter(None, match.groups()), "").lower() if match else ""
    return found

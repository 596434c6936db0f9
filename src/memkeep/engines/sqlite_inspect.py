"""A look at a database that may be live, for finding out what it is. Runs in the child process."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.engines.sqlite_held import Descriptors, Held
from memkeep.engines.sqlite_hold import hold_live
from memkeep.engines.sqlite_sql import query, tables, value, virtual
from memkeep.errors import MemkeepError
from memkeep.model import Value

if TYPE_CHECKING:
    import apsw


class Inspection(Value):
    """What a file is as a database. `error` says why it is not readable; then the rest is empty."""

    readable: bool
    error: str = ""
    journal: str = ""  # "wal" or "rollback"; empty for a file of 0 bytes
    user_version: int = 0
    page_size: int = 0
    tables: dict[str, list[str]] = {}  # tables with rows of their own -> column names
    keys: dict[str, tuple[str, ...]] = {}  # of tables that have no rowid -> the columns of their key
    virtual: dict[str, str] = {}  # virtual table -> module, known to this SQLite or not
    results: tuple[tuple[tuple[Any, ...], ...], ...] = ()  # the rows of each query; none where it failed


def inspect(path: Path, queries: Sequence[str], scratch: Path) -> Inspection:
    """Look at one file and ask it some questions, leaving nothing behind."""
    import apsw

    keep = Descriptors()
    held: Held | None = None
    try:
        held = hold_live(path, path.name, scratch, keep, copy=False)
        if held.con is None:
            return Inspection(readable=not held.findings, error=" ".join(one.message for one in held.findings))
        there = tables(held.con)
        return Inspection(
            readable=True,
            journal=held.journal,
            user_version=value(held.con, "PRAGMA user_version"),
            page_size=value(held.con, "PRAGMA page_size"),
            tables={table.name: table.columns for table in there},
            keys={table.name: table.key for table in there if table.key},
            virtual=virtual(held.con),
            results=tuple(_ask(held.con, sql) for sql in queries),
        )
    except (MemkeepError, apsw.Error, OSError) as error:
        return Inspection(readable=False, error=str(error))
    finally:
        if held is not None and held.con is not None:
            held.con.close()
        keep.close()


def _ask(con: "apsw.Connection", sql: str) -> tuple[tuple[Any, ...], ...]:
    import apsw

    try:
        return tuple(query(con, sql))
    except (apsw.Error, UnicodeDecodeError):
        return ()

"""Make a new SQLite database, whole or not at all."""

import os
from pathlib import Path

from memkeep.engines.sqlite_sql import connect, uri
from memkeep.errors import RefusedError, StoreError, quoted


def create(path: Path, schema: str, *, wal: bool = False) -> None:
    """Make a database with this schema where nothing is. Raises `RefusedError` (`target_exists`) and `StoreError`."""
    import apsw

    if path.exists():
        raise RefusedError(f"there is something at {path} already", hint=f"ls -l {quoted(path)}", code="target_exists")
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        con = apsw.Connection(uri(new.absolute(), "mode=rwc"), flags=flags)
        try:
            con.execute("BEGIN")
            con.execute(schema)
            con.execute("COMMIT")
            if wal:
                con.execute("PRAGMA journal_mode = WAL")
        finally:
            con.close()
        new.chmod(0o600)
        os.link(new, path)
        new.unlink()
    except FileExistsError:
        raise RefusedError(
            f"there is something at {path} already", hint=f"ls -l {quoted(path)}", code="target_exists"
        ) from None
    except (OSError, apsw.Error) as error:
        raise StoreError(f"{path} can't be made: {error}", hint=f"df -h {quoted(path.parent)}") from error


def side_table(name: str) -> str:
    """Return the schema of a table of texts by id."""
    return f"CREATE TABLE IF NOT EXISTS {name} (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;\n"


def add(path: Path, schema: str) -> None:
    """Add tables that are not there yet to a live database. Raises `StoreError`."""
    import apsw

    try:
        con = connect(path, "mode=rw")
        try:
            con.execute(schema)
        finally:
            con.close()
    except apsw.Error as error:
        raise StoreError(f"{path} can't be written: {error}", hint="stop the agent and run this again") from error

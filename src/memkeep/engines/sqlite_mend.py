"""Write ids into columns of a database that SQLite had made numbers of; the database is private, nobody's live one.

A column declared `UUID` has the affinity of numbers, and would make a number of such an id again. So the tables are
made anew with these columns declared `CHAR(32)`, by the steps of https://sqlite.org/lang_altertable.html#otheralter:
rows with their rowids, keys, constraints, indexes and triggers as they were. One transaction: all or nothing.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep.engines.sqlite_sql import connect, query, quote, value
from memkeep.errors import StoreError

if TYPE_CHECKING:
    import apsw

_NEW = "memkeep_mended"
_TEXT = "CHAR(32)"


def write_ids(file: Path, columns: Sequence[tuple[str, str]], ids: Mapping[int | float | str, str]) -> None:
    """Replace numbers by ids in some columns, (table, column), as far as there are such.

    Raises `StoreError` when the database would not be whole afterwards; then it is as it was.
    """
    import apsw

    mode = stat.S_IMODE(file.stat().st_mode)
    file.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)
    try:
        with closing(connect(file.absolute(), "mode=rw")) as con:
            con.pragma("foreign_keys", value=False)
            con.pragma("legacy_alter_table", value=True)  # so that what refers to a table goes on naming it
            with con:
                _write_ids(con, file.name, columns, ids)
    except apsw.Error as error:
        raise StoreError(f"the ids in {file.name} could not be mended: {error}") from error
    finally:
        file.chmod(mode)


def _write_ids(
    con: "apsw.Connection", name: str, columns: Sequence[tuple[str, str]], ids: Mapping[int | float | str, str]
) -> None:
    before = len(query(con, "PRAGMA foreign_key_check"))
    for table, named in groupby(sorted(columns), key=lambda pair: pair[0]):
        _make_anew(con, table, [column for _, column in named], ids)
    if (said := value(con, "PRAGMA integrity_check")) != "ok":
        raise StoreError(f"the ids in {name} could not be mended: {said}")
    if len(query(con, "PRAGMA foreign_key_check")) > before:
        raise StoreError(f"the ids in {name} could not be mended: rows would refer to nothing")


def _make_anew(
    con: "apsw.Connection", table: str, columns: Sequence[str], ids: Mapping[int | float | str, str]
) -> None:
    made = value(con, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,))
    there = [row[1] for row in query(con, f"PRAGMA table_info({quote(table)})")]
    wanted = [column for column in columns if column in there]
    if not wanted:
        return
    beside = query(
        con,
        "SELECT sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND tbl_name = ? AND sql NOT NULL",
        (table,),
    )
    con.execute(f"CREATE TABLE {quote(_NEW)} {_with_text_columns(str(made), wanted)}")
    names = ", ".join(map(quote, there))
    whens = " ".join("WHEN ? THEN ?" for _ in ids)
    bindings = [each for pair in ids.items() for each in pair]
    cells = [f"CASE {quote(one)} {whens} ELSE {quote(one)} END" if one in wanted else quote(one) for one in there]
    con.execute(
        f"INSERT INTO {quote(_NEW)}(rowid, {names}) SELECT rowid, {', '.join(cells)} FROM {quote(table)}",
        bindings * len(wanted),
    )
    con.execute(f"DROP TABLE {quote(table)}")
    con.execute(f"ALTER TABLE {quote(_NEW)} RENAME TO {quote(table)}")
    for (sql,) in beside:
        con.execute(sql)


def _with_text_columns(made: str, columns: Sequence[str]) -> str:
    """Return the definition of a table, from its first bracket on, with columns declared as texts."""
    body = made[made.index("(") :]
    for column in columns:
        spelled = rf"""(?:"{re.escape(column)}"|`{re.escape(column)}`|\[{re.escape(column)}\]|\b{re.escape(column)})"""
        body = re.sub(rf"""([(,]\s*{spelled}\s+)UUID\b""", rf"\g<1>{_TEXT}", body, count=1, flags=re.IGNORECASE)
    return body

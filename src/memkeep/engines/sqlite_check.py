"""SQLite's own checks of a database, and those of full-text indexes that it leaves out. Runs in the child process.

`PRAGMA integrity_check` covers an FTS5 index that keeps its own text (xIntegrity, from SQLite 3.44 on), but not
whether an external-content index says what its content table says: that takes `INSERT INTO fts(fts, rank) VALUES
('integrity-check', 1)` (fts5.html section 6.4), which needs a connection that may write. So it is asked of private
files only, and rolled back, which leaves every byte as it was; on a live database the row ids are compared.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memkeep.engines.sqlite_collect import id_of
from memkeep.engines.sqlite_sql import connect, query, quote, tables, value, virtual
from memkeep.model import Finding, Severity, TableMap

if TYPE_CHECKING:
    import apsw

_MOST = 100
_MALFORMED = re.compile(
    r"malformed inverted index for FTS\d table main\.(?P<name>.+)|fts\d: .* for table \"(?P<table>.+)\"", re.DOTALL
)
_UNCHECKED = re.compile(
    r"unable to validate the inverted index for FTS\d table main\.(?P<name>.+?): .*|no such tokenizer.*", re.DOTALL
)
_ARGUMENT = re.compile(
    r"""\s*((?:'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[^,'"`\[])*?)\s*(?:,|$)""", re.DOTALL
)
_ABOUT_CONTENT = re.compile(r"(content\w*|columnsize)\s*=", re.IGNORECASE)
_OPTION = re.compile(r"(\w+)\s*=\s*(.*)", re.DOTALL)


class Index(NamedTuple):
    """An FTS5 table and the table whose text it holds (itself, unless the content is external)."""

    name: str
    content: str
    rowid: str
    arguments: list[str]  # of its CREATE VIRTUAL TABLE, without those about the content

    @property
    def external(self) -> bool:
        """Whether the text lies in another table."""
        return self.content != self.name


def check(con: "apsw.Connection", private: Path | None, maps: Sequence[TableMap]) -> list[Finding]:
    """Run all checks; an empty list means that all is well. `private` is the file, if it may be opened for writing."""
    indexes = {index.name: index for index in fts5_indexes(con)}
    findings = []
    for asked, message in _integrity(con):
        malformed, unchecked = _MALFORMED.fullmatch(message), _UNCHECKED.fullmatch(message)
        if malformed:
            name = malformed["name"] or malformed["table"]
            findings.append(_misaligned(con, name, indexes.pop(name, None), maps, message))
        elif unchecked or asked:
            name = asked or (unchecked["name"] if unchecked else "")
            indexes.pop(name, None)
            findings.append(_unchecked(name, message))
        else:
            text = f"SQLite's integrity check says: {message}."
            findings.append(Finding(code="sqlite_integrity", severity=Severity.ERROR, message=text))
    for index in indexes.values():
        if index.external and (reason := _disagreement(con, index, private)):
            unknown = _UNCHECKED.fullmatch(reason)
            findings.append(
                _unchecked(index.name, reason) if unknown else _misaligned(con, index.name, index, maps, reason)
            )
    return findings + _foreign_keys(con, maps)


def _integrity(con: "apsw.Connection") -> list[tuple[str, str]]:
    """Return what `integrity_check` says; with a table's name, why that table could not be checked.

    An unknown collation, function or tokenizer ends the check of the whole database: then each table is asked alone.
    """
    import apsw

    try:
        rows = query(con, f"PRAGMA integrity_check({_MOST})")
    except apsw.Error:
        names = [table.name for table in tables(con)]
        names += [name for name, module in virtual(con).items() if module.startswith("fts")]
        return [said for name in names for said in _integrity_of(con, name)]
    return [("", str(row[0])) for row in rows if row[0] != "ok"]


def _integrity_of(con: "apsw.Connection", table: str) -> list[tuple[str, str]]:
    import apsw

    try:
        rows = query(con, f"PRAGMA integrity_check({quote(table)})")
    except apsw.SQLError as error:
        return [(table, str(error))]
    except apsw.Error as error:
        return [("", str(error))]
    return [("", str(row[0])) for row in rows if row[0] != "ok"]


def fts5_indexes(con: "apsw.Connection") -> list[Index]:
    """Return the full-text tables that can say what text they hold (contentless ones can't)."""
    found = []
    for name, module in virtual(con).items():
        if module == "fts5":
            sql = str(value(con, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)))
            arguments = [m[1] for m in _ARGUMENT.finditer(sql[sql.index("(") + 1 : sql.rindex(")")]) if m[1]]
            options = {m[1].lower(): unquote(m[2]) for argument in arguments if (m := _OPTION.fullmatch(argument))}
            kept = [argument for argument in arguments if not _ABOUT_CONTENT.match(argument)]
            content = options.get("content", name)
            if content:
                found.append(Index(name, content, options.get("content_rowid", "rowid"), kept))
    return found


def unquote(word: str) -> str:
    """Return what a quoted word of SQL says."""
    word = word.strip()
    if len(word) > 1 and word[0] in "'\"`" and word[-1] == word[0]:
        return word[1:-1].replace(word[0] * 2, word[0])
    return word[1:-1] if word[:1] == "[" and word[-1:] == "]" else word


def _disagreement(con: "apsw.Connection", index: Index, private: Path | None) -> str:
    """Say why an index does not hold the text of its content table; nothing when it does, as far as can be told."""
    import apsw

    if private is not None:
        with suppress(apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError):  # then as if it were not ours
            return _ask_index(private, index)
    try:
        return "" if _unpaired(con, index) is None else "rows of one are not in the other"
    except apsw.Error as error:
        return str(error)


def _ask_index(private: Path, index: Index) -> str:
    import apsw

    con = connect(private, "mode=rw")
    try:
        con.execute("BEGIN IMMEDIATE")
        name = quote(index.name)
        try:
            con.execute(f"INSERT INTO {name}({name}, rank) VALUES('integrity-check', 1)")
        except (apsw.CorruptError, apsw.SQLError) as error:
            return str(error)
        finally:
            con.execute("ROLLBACK")
    finally:
        con.close()
    return ""


def _misaligned(
    con: "apsw.Connection", name: str, index: Index | None, maps: Sequence[TableMap], reason: str
) -> Finding:
    row = None if index is None else _first_difference(con, index)
    record = None if index is None or row is None else _record(con, maps, index.content, row)
    where = "" if row is None else f" The first row that differs has rowid {row}."
    return Finding(
        code="fts_misaligned",
        severity=Severity.ERROR,
        message=f"The full-text index {name} does not say what its text says ({reason}).{where}",
        record=record,
        mend=f"INSERT INTO {name}({name}) VALUES('rebuild') in the live database, with its agent stopped",
    )


def _unchecked(name: str, reason: str) -> Finding:
    message = f"Table {name} could not be checked: {reason}."
    return Finding(code="sqlite_unchecked", severity=Severity.INFO, message=message)


def _unpaired(con: "apsw.Connection", index: Index) -> int | None:
    """Return the id of a row that is only in the index or only in its content table."""
    sizes = index.name + "_docsize"
    if sizes not in {table.name for table in tables(con)}:  # columnsize=0
        return None
    content, rowid = quote(index.content), quote(index.rowid)
    row = value(con, f"SELECT {rowid} FROM {content} WHERE {rowid} NOT IN (SELECT id FROM {quote(sizes)}) LIMIT 1")
    if row is None:
        row = value(con, f"SELECT id FROM {quote(sizes)} WHERE id NOT IN (SELECT {rowid} FROM {content}) LIMIT 1")
    return None if row is None else int(row)


def _first_difference(con: "apsw.Connection", index: Index) -> int | None:
    """Return the id of a row whose text the index has wrong, by making the index again in temporary space."""
    import apsw

    sizes = quote(index.name + "_docsize")
    columns = [row[1] for row in query(con, f"PRAGMA table_xinfo({quote(index.name)})") if not row[6]]
    listed = ", ".join(quote(column) for column in columns)
    try:
        if (row := _unpaired(con, index)) is not None:
            return row
        con.execute(f"CREATE VIRTUAL TABLE temp.memkeep_again USING fts5({', '.join(index.arguments)}, content='')")
        text = f"SELECT {quote(index.rowid)}, {listed} FROM {quote(index.content)}"
        con.execute(f"INSERT INTO temp.memkeep_again(rowid, {listed}) {text}")
        both = f"{sizes} AS a JOIN temp.memkeep_again_docsize AS b USING (id)"
        row = value(con, f"SELECT id FROM {both} WHERE a.sz IS NOT b.sz LIMIT 1")
        if row is None:
            named = index.name.replace("'", "''")
            con.execute(f"CREATE VIRTUAL TABLE temp.memkeep_has USING fts5vocab(main, '{named}', instance)")
            con.execute("CREATE VIRTUAL TABLE temp.memkeep_should USING fts5vocab(temp, memkeep_again, instance)")
            one, other = "SELECT * FROM temp.memkeep_has", "SELECT * FROM temp.memkeep_should"
            row = value(con, f"SELECT doc FROM ({one} EXCEPT {other}) LIMIT 1")
            row = value(con, f"SELECT doc FROM ({other} EXCEPT {one}) LIMIT 1") if row is None else row
    except apsw.Error:  # too damaged to say
        return None
    finally:
        for table in ("has", "should", "again"):
            con.execute(f"DROP TABLE IF EXISTS temp.memkeep_{table}")
    return None if row is None else int(row)


def _record(con: "apsw.Connection", maps: Sequence[TableMap], table: str, row: int) -> str:
    """Return the id of a record by its rowid, or the rowid itself when its table is not mapped."""
    import apsw

    for map_ in maps:
        if map_.table.lower() == table.lower():
            with suppress(apsw.Error, UnicodeDecodeError):
                rows = query(con, f"SELECT {quote(map_.id)} FROM {quote(table)} WHERE rowid = ?", (row,))
                return id_of(rows[0][0]) if rows else str(row)
    return str(row)


def _foreign_keys(con: "apsw.Connection", maps: Sequence[TableMap]) -> list[Finding]:
    import apsw

    try:
        rows = query(con, "PRAGMA foreign_key_check")
    except apsw.Error as error:
        message = f"The foreign keys could not be checked: {error}."
        return [Finding(code="foreign_key", severity=Severity.WARNING, message=message)]
    counts = Counter((table, parent) for table, _, parent, _ in rows)
    firsts = {(table, parent): row for table, row, parent, _ in reversed(rows)}
    return [
        Finding(
            code="foreign_key",
            severity=Severity.WARNING,
            message=f"{count} rows of {table} point to missing rows of {parent}; the first has rowid {first}.",
            record=None if first is None else _record(con, maps, table, first),
        )
        for (table, parent), count in counts.items()
        for first in (firsts[table, parent],)
    ]

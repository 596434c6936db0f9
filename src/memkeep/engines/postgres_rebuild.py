"""Put an image of tables into a Postgres database: all in one transaction, compared before it is committed.

What is replaced is dropped in that transaction, so that other sessions see either all of the old or all of the new;
until the end they wait. Owners and rights of replaced tables are kept.
"""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep.engines import postgres_sql
from memkeep.engines.base import Rebuilt
from memkeep.engines.postgres_connect import connected, library
from memkeep.engines.postgres_copy import HEADER, TRAILER, mark, message_fields
from memkeep.engines.postgres_freeze import SETTINGS, select
from memkeep.engines.postgres_image import Image
from memkeep.engines.postgres_rows import Digest, Row, rows
from memkeep.engines.postgres_tables import Table, Tables, quote, text
from memkeep.errors import RefusedError, StoreError, UnsupportedError
from memkeep.events import Events
from memkeep.model import Finding, Severity

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_ASIDE = "memkeep_rows"
_BUFFER = 1 << 18
_UNCHANGED = "Nothing was changed there."


def rebuild(image: Image, folder: Path, target: str, *, replace: bool, events: Events) -> Rebuilt:
    """Load the files under `folder` into the database at a URL.

    Raises `RefusedError`: `target_exists` without `replace`, `target_in_use` when something else there needs what
    would be replaced; `UnsupportedError` when the server lacks an extension or a type.
    """
    tables = image.tables
    findings: list[Finding] = []
    with connected(target) as connection:
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
        try:
            for setting in (*SETTINGS, "SET LOCAL check_function_bodies = off"):
                connection.execute(setting)
            rights = _clear(connection, tables, target, replace=replace)
            _prepare(connection, tables, target)
            made = [one for one in tables.sequences if not one.create or _missing(connection, one.name)]
            _run(connection, [one.create for one in made if one.create], target)
            _run(connection, _functions(connection, tables, "before"), target)
            _run(connection, [statement for table in tables.tables for statement in table.create], target)
            digests = {}
            for table in tables.tables:
                events.step(table.full, table.rows)
                digests[table.full] = _load(connection, table, folder / table.folder, events)
            events.step("indexes")
            findings += _finish(connection, image, target)
            _run(connection, [statement for one in made for statement in one.finish], target)
            events.step("comparing")
            for table in (one for one in tables.tables if not one.within):
                _compare(connection, table, digests[table.full], target)
            findings += _attempt(connection, image, _functions(connection, tables, "last"))
            findings += _attempt(connection, image, [one for table in tables.tables for one in table.extras])
            findings += _attempt(connection, image, rights)
            connection.execute("COMMIT")
        except BaseException:
            if not connection.broken:
                connection.execute("ROLLBACK")
            raise
    return Rebuilt(rows=sum(table.rows for table in tables.tables), findings=tuple(findings))


def _clear(connection: "Connection", tables: Tables, target: str, *, replace: bool) -> list[str]:
    """Drop the tables that are replaced; return what gives the new ones their owners and rights."""
    there = [table for table in tables.tables if not _missing(connection, table.sql)]
    if not there:
        return []
    names = ", ".join(table.full for table in there[:3]) + (", ..." if len(there) > 3 else "")  # noqa: PLR2004
    if not replace:
        raise RefusedError(
            f"{target} has {names} already", unchanged=_UNCHANGED, hint="memkeep restore --help", code="target_exists"
        )
    rights = [statement for table in there for statement in _rights(connection, table)]
    try:
        connection.execute(f"DROP TABLE {', '.join(table.sql for table in there)}")
    except library().errors.DependentObjectsStillExist as error:
        needing = "; ".join((error.diag.message_detail or "").splitlines())
        raise RefusedError(
            f"{names} of {target} cannot be replaced, others need it: {needing}",
            unchanged=_UNCHANGED,
            hint="drop what needs it, or restore into an empty database",
            code="target_in_use",
        ) from error
    return rights


def _rights(connection: "Connection", table: Table) -> list[str]:
    """Return what gives a new table the rights on the old one, its place in publications, and its owner."""
    owner, foreign = connection.execute(
        "SELECT quote_ident(pg_get_userbyid(relowner)), pg_get_userbyid(relowner) <> current_user "
        "FROM pg_class WHERE oid = %s::regclass",
        [table.sql],
    ).fetchone() or ("", False)
    found = [
        f"GRANT {row[0]} ON {table.sql} TO {row[1]}{' WITH GRANT OPTION' if row[2] else ''}"
        for row in connection.execute(
            """SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee))
                      END, a.is_grantable FROM pg_class c, aclexplode(c.relacl) a
               WHERE c.oid = %s::regclass AND a.grantee <> c.relowner ORDER BY 2, 1""",
            [table.sql],
        ).fetchall()
    ]
    found += [
        f"GRANT {row[0]} ({quote(row[1])}) ON {table.sql} TO {row[2]}{' WITH GRANT OPTION' if row[3] else ''}"
        for row in connection.execute(
            """SELECT g.privilege_type, a.attname, CASE g.grantee WHEN 0 THEN 'PUBLIC'
                      ELSE quote_ident(pg_get_userbyid(g.grantee)) END, g.is_grantable
               FROM pg_attribute a, aclexplode(a.attacl) g WHERE a.attrelid = %s::regclass AND NOT a.attisdropped
               ORDER BY 2, 3, 1""",
            [table.sql],
        ).fetchall()
    ]
    found += [
        f"ALTER PUBLICATION {row[0]} ADD TABLE ONLY {table.sql}{row[1]}"
        for row in connection.execute(
            """SELECT quote_ident(p.pubname), coalesce(' (' || (
                        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                        WHERE a.attrelid = r.prrelid AND a.attnum = ANY(r.prattrs)) || ')', '')
                      || coalesce(' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')', '')
               FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = %s::regclass
               ORDER BY 1""",
            [table.sql],
        ).fetchall()
    ]
    return [*found, f"ALTER TABLE {table.sql} OWNER TO {owner}"] if foreign else found


def _prepare(connection: "Connection", tables: Tables, target: str) -> None:
    """Make schemas, extensions, collations and types; refuse what this server cannot hold."""
    for schema in postgres_sql.schemas(tables):
        row = connection.execute("SELECT to_regnamespace(%s) IS NULL", [quote(schema)]).fetchone()
        if row and row[0] and schema in tables.schemas:
            _run(connection, [f"CREATE SCHEMA {quote(schema)}"], target)
    for name, one in tables.extensions.items():
        if _no_extension(connection, name):
            _make_extension(connection, name, one.version, target)
    connection.execute(
        f"""SELECT set_config('search_path', concat_ws(', ', nullif(array_to_string(array(
              SELECT DISTINCT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
              WHERE n.nspname <> 'pg_catalog' ORDER BY 1), ', '), ''), {text(postgres_sql.path(tables))}), true)"""
    )
    for ask, made in (("to_regcollation", tables.collations), ("to_regtype", tables.types)):
        for name, statement in made.items():
            if _unknown(connection, ask, name):
                _run(connection, [statement], target)
    _refuse_types(connection, tables, target)


def _refuse_types(connection: "Connection", tables: Tables, target: str) -> None:
    for table in tables.tables:
        for column in table.columns:
            if _unknown(connection, "to_regtype", column.type):
                had = ", ".join(f"{name} {one.version}" for name, one in tables.extensions.items())
                raise UnsupportedError(
                    f"{target} has no type {column.type}, which {table.full}.{column.name} needs"
                    + (f": the tables come from a server with {had}" if had else ""),
                    unchanged=_UNCHANGED,
                    hint="ask who runs the server for a newer version of the extension",
                    code="type_missing",
                )


def _make_extension(connection: "Connection", name: str, version: str, target: str) -> None:
    if connection.execute("SELECT FROM pg_available_extensions WHERE name = %s", [name]).fetchone() is None:
        raise UnsupportedError(
            f"{target} has no extension {name}, which the tables need (they had {version})",
            unchanged=_UNCHANGED,
            hint=f"ask who runs the server to install {name}",
            code="extension_missing",
        )
    try:
        with connection.transaction():
            connection.execute(f"CREATE EXTENSION {quote(name)}")
    except library().errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{target} lets this role make no extension {name}, which the tables need",
            unchanged=_UNCHANGED,
            hint=f"have an administrator run: CREATE EXTENSION {quote(name)}",
            code="store_denied",
        ) from error


def _load(connection: "Connection", table: Table, folder: Path, events: Events) -> Digest:
    """Copy a table's rows in; return their digest."""
    digest = Digest(table)
    columns = (*table.vectors, *table.others)
    odd = any(column.form == "text" for column in columns)
    into = table.sql
    if odd:
        kinds = [f"{quote(one.name)} {'text' if one.form == 'text' else one.type}" for one in columns]
        connection.execute(f"CREATE TEMP TABLE {_ASIDE} ({', '.join(kinds)}) ON COMMIT DROP")
        into = _ASIDE
    names = ", ".join(quote(one.name) for one in columns)
    if not columns:
        connection.execute(f"INSERT INTO {table.sql} SELECT FROM generate_series(1, %s)", [table.rows])
        for row in rows(table, folder):
            digest.add(row)
        return digest
    with connection.cursor() as cursor, cursor.copy(f"COPY {into} ({names}) FROM STDIN (FORMAT binary)") as copy:
        for piece in pieces(table, folder, digest, events):
            copy.write(piece)
    if digest.count != table.rows:
        raise StoreError(
            f"the image of {table.full} has {digest.count} rows, not {table.rows}", hint="memkeep verify --all"
        )
    if odd:
        values = ", ".join(
            f"{quote(one.name)}::{one.type}" if one.form == "text" else quote(one.name) for one in columns
        )
        connection.execute(f"INSERT INTO {table.sql} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {_ASIDE}")
        connection.execute(f"DROP TABLE {_ASIDE}")
    return digest


def pieces(table: Table, folder: Path, digest: Digest, events: Events) -> Iterator[bytes]:
    """Yield a table's rows as a binary COPY takes them, vectors first; `digest` takes them in on the way."""
    head = struct.pack(">h", len(table.columns))
    waiting: list[bytes | memoryview] = [HEADER]
    size, count = len(HEADER), 0
    for row in rows(table, folder):
        digest.add(row)
        pieces: list[bytes | memoryview] = [head]
        for vector in row.vectors:
            pieces += (b"\xff\xff\xff\xff",) if vector is None else (struct.pack(">i", len(vector)), vector)
        pieces.append(row.data[2:])
        waiting += pieces
        size += sum(map(len, pieces))
        count += 1
        if size >= _BUFFER:
            yield b"".join(waiting)
            events.advance(count)
            waiting, size, count = [], 0, 0
    yield b"".join([*waiting, TRAILER])


def _finish(connection: "Connection", image: Image, target: str) -> list[Finding]:
    """Make keys, indexes and foreign keys; an index whose extension is missing is left out and said."""
    tables = postgres_sql.children_first(image.tables)
    _run(connection, _functions(connection, image.tables, "rows"), target)
    _run(connection, [statement for table in tables for statement in table.finish], target)
    found = []
    for table in tables:
        for statement, extension in table.indexes:
            if extension and _no_extension(connection, extension):
                message = f"{target} has no extension {extension}: {table.full} has one index less: {statement}"
                found.append(image.finding("postgres_index_left_out", message, Severity.WARNING, statement))
            else:
                _run(connection, [statement], target)
    _run(connection, [statement for table in tables for statement in table.links], target)
    return found


def _compare(connection: "Connection", table: Table, wanted: Digest, target: str) -> None:
    """Read a table back; `StoreError` when the server has not what it was given."""
    digest = Digest(table)
    head = struct.pack(">h", len(table.others))
    with connection.cursor() as cursor, cursor.copy(f"COPY ({select(table)}) TO STDOUT (FORMAT binary)") as copy:
        for message in copy:
            fields = message_fields(bytes(message), len(table.columns), len(table.vectors))
            if fields is not None:
                digest.add(Row(head + fields[1], [], fields[0], list(map(mark, fields[0]))))
    if (digest.count, digest.hex()) != (wanted.count, wanted.hex()):
        raise StoreError(
            f"{target} did not keep {table.full} as it was given: {digest.count} rows of {wanted.count}",
            unchanged=_UNCHANGED,
            hint="memkeep restore into another database",
        )


def _attempt(connection: "Connection", image: Image, statements: list[str]) -> list[Finding]:
    """Do what the tables work without; what fails is a finding."""
    found = []
    for statement in statements:
        try:
            with connection.transaction():
                connection.execute(statement)
        except library().DatabaseError as error:
            if connection.broken:
                raise
            message = f"This could not be done again: {statement} ({str(error).splitlines()[0]})"
            found.append(image.finding("postgres_left_out", message, Severity.WARNING, statement))
    return found


def _run(connection: "Connection", statements: list[str], target: str) -> None:
    for statement in statements:
        with _named(statement, target):
            connection.execute(statement)


@contextmanager
def _named(statement: str, target: str) -> Iterator[None]:
    """Say which statement it was that a server does not take: as it is written, or what it names is not there."""
    psycopg = library()
    try:
        yield
    except psycopg.ProgrammingError as error:
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise
        raise UnsupportedError(
            f"{target} does not take {' '.join(statement.split())[:200]}: {str(error).splitlines()[0]}",
            unchanged=_UNCHANGED,
            hint="restore into another database or version",
            code="target_unfit",
        ) from error


def _missing(connection: "Connection", name: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NULL", [name]).fetchone()
    return bool(row and row[0])


def _functions(connection: "Connection", tables: Tables, when: str) -> list[str]:
    """Return what makes the functions that are wanted at a time and are not there; those that are there stay."""
    mine = [one for one in tables.functions if one.when == when]
    return [one.create for one in mine if _unknown(connection, "to_regprocedure", one.name)]


def _unknown(connection: "Connection", ask: str, name: str) -> bool:
    try:
        with connection.transaction():
            row = connection.execute(f"SELECT {ask}(%s) IS NULL", [name]).fetchone()
    except library().DatabaseError:
        return True
    return bool(row and row[0])


def _no_extension(connection: "Connection", name: str) -> bool:
    return connection.execute("SELECT FROM pg_extension WHERE extname = %s", [name]).fetchone() is None

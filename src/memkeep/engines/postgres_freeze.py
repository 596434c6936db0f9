"""Copy some tables out of a server as they are at one moment.

One read-only transaction sees the tables as of one instant. They are locked (against being altered or emptied, not
against being written) before it looks at anything: TRUNCATE would show in it otherwise. It ends as soon as all rows
are in a private folder, so that neither a pooler nor a vacuum waits for what is done with them.
"""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.engines import postgres_sql
from memkeep.engines.postgres_catalogue import Catalogue, Relation, describe, relations, search_extensions
from memkeep.engines.postgres_connect import PATIENCE, connected, library
from memkeep.engines.postgres_copy import Writer
from memkeep.engines.postgres_needs import large_objects
from memkeep.engines.postgres_tables import FILE, FORMAT, Column, Table, Tables, encode, quote, text
from memkeep.errors import StoreError, UnstableError
from memkeep.model import Part, Run, Value

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_TRIES = 5
SETTINGS = (  # of a transaction, so that values come in one form, and none is cut off by a limit of the role
    "SET LOCAL row_security = off",
    "SET LOCAL statement_timeout = 0",
    f"SET LOCAL lock_timeout = '{PATIENCE}s'",
    "SET LOCAL datestyle = 'ISO'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL extra_float_digits = 3",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL synchronize_seqscans = off",
    # Each is known to some versions only.
    """SELECT set_config(name, '0', true) FROM pg_settings
       WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')""",
)


class Left(Value):
    """Something of the part that the image has not."""

    name: str  # of a table
    reason: str
    lost: bool  # rows are missing that a backup should have
    mend: str = ""


class Taken(Value):
    """What was copied out of the server, beside the files."""

    server: str
    snapshot: str  # which transactions it has seen
    states: dict[str, tuple[int, int]]  # by table: how many rows, and the sum of the transactions that wrote them
    runs: dict[str, tuple[Run, ...]]  # by file, under the part's folder
    left: tuple[Left, ...]


def take(part: Part, folder: Path, marks: Path) -> Taken:
    """Write the image of a part, and the digests of its vectors, into new folders.

    Raises `StoreError`, `UnstableError` when tables come and go.
    """
    with connected(part.path) as connection:
        for _ in range(_TRIES):
            there = relations(connection)
            wanted, left = choose(part, there)
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                for setting in SETTINGS:
                    connection.execute(setting)
                if _locked(connection, wanted) and relations(connection) == there:
                    return _copy(connection, part, wanted, left, folder, marks)
            finally:
                if not connection.broken:
                    connection.execute("ROLLBACK")
    raise UnstableError(f"the tables of {part.path} come and go", hint="memkeep backup")


def states(connection: "Connection", wanted: list[Relation]) -> dict[str, tuple[int, int]]:
    """Return what shows any change of some tables: every write leaves the number of its transaction in a new row."""
    found = {}
    for relation in wanted:
        row = connection.execute(f"SELECT count(*), coalesce(sum(xmin::text::int8), 0)::text FROM {relation.source}")
        count, written = row.fetchone() or (0, "0")
        found[relation.full] = (count, int(written))
    return found


def snapshot(connection: "Connection") -> str:
    """Return which transactions the present one sees."""
    row = connection.execute("SELECT txid_current_snapshot()::text").fetchone()
    return str(row[0]) if row else ""


def choose(part: Part, there: list[Relation]) -> tuple[list[Relation], list[Left]]:
    """Return the tables of a part that can be read, and what of it is left out; `StoreError` when there is nothing."""
    roots = {one.oid: one for one in there}
    wanted, left = [], []
    for one in there:
        head = roots.get(one.root, one) if one.within else one
        if not (head.full in part.include if part.include else head.full not in part.exclude):
            if one.full in part.include:
                reason = f"it is a partition of {head.full}, which is taken as a whole or not at all"
                left.append(Left(name=one.full, reason=reason, lost=True))
        elif head is not one:
            if head.readable and not head.filtered:
                wanted.append(one)
        elif one.what:
            left.append(Left(name=one.full, reason=f"{one.what}: its rows are those of tables", lost=False))
        elif not one.readable:
            left.append(Left(name=one.full, reason="this role may not read it", lost=True))
        elif one.filtered:
            left.append(Left(name=one.full, reason="row-level security hides rows of it from this role", lost=True))
        else:
            wanted.append(one)
    missing = sorted(set(part.include) - {one.full for one in there})
    left += [Left(name=name, reason="there is no such table", lost=True) for name in missing]
    if not wanted and (left or part.include):
        said = "; ".join(f"{one.name}: {one.reason}" for one in left[:3])
        code = "store_missing" if len(missing) == len(left) else "store_denied"
        raise StoreError(f"no table of {part.path} can be read: {said}", hint="memkeep discover", code=code)
    return wanted, left


def select(table: Table, order: bool = False, only: str = "") -> str:  # noqa: FBT001, FBT002 - of one word
    """Return the query for a table's rows as the image has them: vectors first, then the other columns."""
    columns = ", ".join([*(quote(one.name) for one in table.vectors), *(value(one) for one in table.others)])
    by = f" ORDER BY {', '.join(quote(name) for name in table.key)}" if order and table.key else ""
    return f"SELECT {columns} FROM {table.source}{f' WHERE {only}' if only else ''}{by}"


def of_user(part: Part, table: Table) -> str:
    """Return the condition under which a row is of the user whose rows alone are taken; "" when all are.

    Raises `StoreError` when nothing tells.
    """
    if part.user is None:
        return ""
    columns = [map_.fields["user"] for map_ in part.maps if map_.table == table.full and "user" in map_.fields]
    names = {column.name for column in table.columns}
    for column in columns:
        outer, _, key = column.partition(".")
        if column in names:
            return f"{quote(column)}::text = {text(part.user)}"
        if outer in names and key:
            return f"{quote(outer)}::jsonb ->> {text(key)} = {text(part.user)}"
    raise StoreError(f"nothing tells whose the rows of {table.full} are", hint="memkeep backup   # of all users")


def value(column: Column) -> str:
    """Return a column as the image has it."""
    return f"{quote(column.name)}::text" if column.form == "text" else quote(column.name)


def _locked(connection: "Connection", wanted: list[Relation]) -> bool:
    """Lock the tables; False when one is gone."""
    if wanted:
        names = ", ".join(one.source for one in wanted if not one.within)
        try:
            connection.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
        except (library().errors.UndefinedTable, library().errors.InvalidSchemaName):
            return False
    return True


def _copy(
    connection: "Connection", part: Part, wanted: list[Relation], left: list[Left], folder: Path, marks: Path
) -> Taken:
    search_extensions(connection)
    server, number = connection.execute(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int"
    ).fetchone() or ("", 0)
    seen = snapshot(connection)
    sizes = _sizes(connection, wanted)
    plan = describe(connection, wanted)
    before = states(connection, [one for one in wanted if (one.whole or one.kind == "r") and not one.within])
    folder.mkdir(parents=True)
    tables: list[Table] = []
    runs: dict[str, tuple[Run, ...]] = {}
    for table in plan.tables:
        query = "" if table.within else select(table, order=True, only=of_user(part, table))
        written, found = _copy_table(connection, table, query, folder, marks, sizes[table.full])
        tables.append(written)
        runs |= {f"{table.folder}/{name}": one for name, one in found.items()}
    image = _image(plan, tables, server, number)
    (folder / FILE).write_bytes(encode(image))
    for name, said in postgres_sql.files(image).items():
        (folder / name).write_text(said, encoding="utf-8")
    left = [*left, *(Left(name=name, reason=reason, lost=False) for name, reason in plan.notes)]
    objects = large_objects(connection, plan.tables)
    left += [Left(name=name, reason=reason, lost=True, mend="pg_dump --large-objects") for name, reason in objects]
    return Taken(server=server, snapshot=seen, states=before, runs=runs, left=tuple(left))


def _copy_table(
    connection: "Connection", table: Table, query: str, folder: Path, marks: Path, expected: int
) -> tuple[Table, dict[str, tuple[Run, ...]]]:
    writer = Writer(table, folder / table.folder, marks / table.folder, expected)
    try:
        if query:
            with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as rows,
            ):
                add = writer.add
                for row in rows:
                    add(row)
        written = writer.finish()
    finally:
        writer.close()
    return msgspec.structs.replace(table, rows=written.rows, segments=written.segments), written.runs


def _sizes(connection: "Connection", wanted: list[Relation]) -> dict[str, int]:
    """Return about how many rows each table has."""
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT oid, greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = ANY(%s)", [[one.oid for one in wanted]]
    ).fetchall()
    known = dict(rows)
    return {
        one.full: max(known[one.oid], sum(known[each.oid] for each in wanted if each.within and each.root == one.oid))
        for one in wanted
    }


def _image(plan: Catalogue, tables: list[Table], server: str, number: int) -> Tables:
    return Tables(
        format=FORMAT,
        server=server,
        number=number,
        extensions=plan.extensions,
        schemas=tuple(sorted({table.schema for table in tables} | plan.schemas)),
        types=plan.types,
        collations=plan.collations,
        functions=plan.functions,
        sequences=plan.sequences,
        tables=tuple(tables),
    )

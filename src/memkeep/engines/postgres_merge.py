"""Merge rows of an image into live tables, in one transaction.

The image's rows are copied into temporary tables first; what is there already, and the same, is found by joins. Rows go
in by hundreds, each batch in a savepoint; one that is refused is halved until the row is found that the server does not
take, so that it is named and the others go in.
"""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.merging import Counts, FailedRow, Merged, Wanted, later, plain_id
from memkeep.engines.postgres_connect import library
from memkeep.engines.postgres_freeze import SETTINGS
from memkeep.engines.postgres_image import Image
from memkeep.engines.postgres_rebuild import pieces
from memkeep.engines.postgres_rows import Digest
from memkeep.engines.postgres_tables import Column, Table, quote, text
from memkeep.errors import StoreError
from memkeep.events import SILENT
from memkeep.model import Part, TableMap

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_BATCH = 500
_NAMED = 20  # conflicts that are named
# Types with an operator `=` that compares values whole; others are compared as text.
_NUMBERS = ("bool", "float4", "float8", "halfvec", "int2", "int4", "int8", "numeric", "sparsevec", "vector")
_EQUAL = frozenset((*_NUMBERS, "bytea", "date", "jsonb", "text", "time", "timestamp", "timestamptz", "uuid", "varchar"))


class _Pair(NamedTuple):
    """One table of the image beside its live one."""

    map: TableMap
    image: str  # the temporary table, quoted
    live: str  # quoted
    columns: tuple[Column, ...]
    key: tuple[str, ...]


class PostgresMerge:
    """One open transaction on a database."""

    def __init__(self, connection: "Connection", live: Part, image: Image, folder: Path, wanted: Wanted) -> None:
        """Merge; `result` says what was done."""
        self._connection = connection
        self._wanted = wanted
        self._failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []
        self._left: list[str] = []
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
        for setting in (*SETTINGS, "SET CONSTRAINTS ALL IMMEDIATE"):
            connection.execute(setting)
        tables = {}
        for number, map_ in enumerate(live.maps):
            table = _counterpart(map_, image)
            if table is not None and (pair := self._pair(map_, table, number)) is not None:
                self._fill(table, folder / table.folder, pair)
                tables[map_.table] = self._merge(pair)
        self.result = Merged(
            tables=tables,
            failed=tuple(self._failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records),
            left=tuple(self._left),
        )

    def commit(self) -> None:
        """Make it last."""
        self._connection.execute("COMMIT")

    def _pair(self, map_: TableMap, table: Table, number: int) -> _Pair | None:
        """Return how a table goes into its live one; None when it can't."""
        schema, _, name = map_.table.partition(".")
        live = f"{quote(schema)}.{quote(name)}"
        there = {
            row[0]
            for row in self._connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 "
                "AND NOT attisdropped AND attgenerated = ''",
                [live],
            ).fetchall()
        }
        key = map_.unique or (map_.id,)
        mine = {column.name for column in table.columns}
        if not there or not set(key) <= there & mine:
            self._left.append(f"{map_.table} is left as it is: it has no {', '.join(key)}")
            return None
        if lost := sorted(mine - there):
            self._left.append(f"{map_.table} has no column {', '.join(lost)} any more: left out")
        columns = tuple(
            column
            for column in (*table.vectors, *table.others)
            if column.name in there and (column.name != map_.id or not map_.unique or column.name in map_.unique)
        )
        return _Pair(map_, quote(f"memkeep_image_{number}"), live, columns, key)

    def _fill(self, table: Table, folder: Path, pair: _Pair) -> None:
        """Copy the image's rows into a temporary table."""
        every = (*table.vectors, *table.others)
        kinds = ", ".join(f"{quote(one.name)} {'text' if one.form == 'text' else one.type}" for one in every)
        names = ", ".join(quote(one.name) for one in every)
        self._connection.execute(f"CREATE TEMP TABLE {pair.image} (memkeep_row bigserial, {kinds}) ON COMMIT DROP")
        digest = Digest(table)
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {pair.image} ({names}) FROM STDIN (FORMAT binary)") as copy,
        ):
            for piece in pieces(table, folder, digest, SILENT):
                copy.write(piece)
        if digest.count != table.rows:
            raise StoreError(
                f"the image of {table.full} has {digest.count} rows, not {table.rows}", hint="memkeep verify --all"
            )

    def _merge(self, pair: _Pair) -> Counts:
        new: list[int] = []
        other: list[tuple[int, str]] = []
        same = 0
        names = {}
        for row, name, there, equal in self._look(pair):
            names[row] = name
            if pair.map.primary:
                self._records.append(plain_id(name))
            if not there:
                new.append(row)
            elif equal:
                same += 1
            else:
                other.append((row, name))
        self._conflicts += [f"{pair.map.table}:{name}" for _, name in other[: _NAMED - len(self._conflicts)]]
        replaced = self._replaced(pair, [row for row, _ in other])
        into = ", ".join(quote(one.name) for one in pair.columns)
        values = ", ".join(f"i.{_value(one)}" for one in pair.columns)
        insert = (
            f"INSERT INTO {pair.live} ({into}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {pair.image} i "
            "WHERE i.memkeep_row = ANY(%s) ORDER BY i.memkeep_row"
        )
        changes = ", ".join(f"{quote(one.name)} = i.{_value(one)}" for one in pair.columns if one.name not in pair.key)
        update = (
            f"UPDATE {pair.live} l SET {changes} FROM {pair.image} i WHERE {_joined(pair)} AND i.memkeep_row = ANY(%s)"
        )
        return Counts(
            inserted=self._apply(pair, insert, new, names),
            updated=self._apply(pair, update, replaced, names) if changes else 0,
            skipped=len(other) - len(replaced),
            same=same,
        )

    def _look(self, pair: _Pair) -> list[tuple[int, str, bool, bool]]:
        """Return the wanted rows: number, name, whether the key is there, and whether it all is the same."""
        equal = " AND ".join(_equal(column) for column in pair.columns) or "true"
        name = _name(pair)
        where, bound = self._filter(pair)
        return self._connection.execute(
            f"SELECT DISTINCT ON (i.memkeep_row) i.memkeep_row, {name}, l.ctid IS NOT NULL, "
            f"coalesce(l.ctid IS NOT NULL AND {equal}, false) "
            f"FROM {pair.image} i LEFT JOIN {pair.live} l ON {_joined(pair)} {where} ORDER BY i.memkeep_row",
            bound,
        ).fetchall()

    def _filter(self, pair: _Pair) -> tuple[str, list[Any]]:
        """Return the condition under which a row is wanted."""
        users = self._wanted.users
        user = pair.map.fields.get("user") or pair.map.fields.get("scope")
        said: list[str] = []
        bound: list[Any] = []
        if users is not None and user is not None:
            said.append(f"{_field(pair, user, 'i')} = ANY(%s)")
            bound.append(list(users))
        elif users is not None and not pair.map.links:
            said.append("false")
        if pair.map.links and self._wanted.records is not None:
            named = " OR ".join(f"replace(lower(i.{quote(one)}::text), '-', '') = ANY(%s)" for one in pair.map.links)
            said.append(f"({named})")
            bound += [list(self._wanted.records)] * len(pair.map.links)
        return (f"WHERE {' AND '.join(said)}" if said else ""), bound

    def _replaced(self, pair: _Pair, rows: list[int]) -> list[int]:
        """Return those of the rows that are there with other values that replace them."""
        if self._wanted.conflict == "update":
            return rows
        if self._wanted.conflict != "newer" or not rows:
            return []
        fields = [field for field in ("updated_at", "created_at") if field in pair.map.fields]
        times = [_field(pair, pair.map.fields[field], side) for field in fields for side in ("i", "l")]
        found = self._connection.execute(
            f"SELECT i.memkeep_row{''.join(f', {one}' for one in times)} FROM {pair.image} i "
            f"JOIN {pair.live} l ON {_joined(pair)} WHERE i.memkeep_row = ANY(%s) ORDER BY 1",
            [rows],
        ).fetchall()
        columns = [pair.map.fields[field] for field in fields]
        return [
            row
            for row, *values in found
            if later(
                pair.map, dict(zip(columns, values[::2], strict=True)), dict(zip(columns, values[1::2], strict=True))
            )
        ]

    def _apply(self, pair: _Pair, statement: str, rows: Sequence[int], names: dict[int, str]) -> int:
        """Do something with some rows; those that the server refuses are noted. Returns how many it took."""
        pending = [list(rows[at : at + _BATCH]) for at in range(0, len(rows), _BATCH)][::-1]
        done = 0
        while pending:
            batch = pending.pop()
            try:
                with self._connection.transaction():
                    self._connection.execute(statement, [batch])
            except library().DatabaseError as error:
                if self._connection.broken:
                    raise
                if len(batch) > 1:
                    half = len(batch) // 2
                    pending += [batch[half:], batch[:half]]
                else:
                    reason = str(error).splitlines()[0]
                    self._failed.append(FailedRow(table=pair.map.table, id=names[batch[0]], reason=reason))
            else:
                done += len(batch)
        return done


def _counterpart(map_: TableMap, image: Image) -> Table | None:
    """Return the image's table for a live one: the one of its name, else the one of its collection."""
    named = {table.full: table for table in image.tables.tables}
    alike = [one.table for one in image.part.maps if one.collection == map_.collection]
    return named.get(map_.table) or next((named[one] for one in alike if one in named), None)


def _value(column: Column) -> str:
    return f"{quote(column.name)}::{column.type}" if column.form == "text" else quote(column.name)


def _equal(column: Column) -> str:
    name = quote(column.name)
    if column.kind in _EQUAL and column.form != "text":
        return f"i.{name} IS NOT DISTINCT FROM l.{name}"
    return f"i.{name}::text IS NOT DISTINCT FROM l.{name}::text"


def _joined(pair: _Pair) -> str:
    kinds = {column.name: column for column in pair.columns}
    return " AND ".join(f"l.{quote(name)} = i.{_value(kinds[name])}" for name in pair.key)


def _name(pair: _Pair) -> str:
    """Return what names a row: its id, or what is unique in it."""
    names = pair.key if pair.map.unique else (pair.map.id,)
    return " || '/' || ".join(f"coalesce(i.{quote(name)}::text, '')" for name in names)


def _field(pair: _Pair, field: str, side: str) -> str:
    """Return a column as text, or a key of a column of JSON, named as records name it."""
    if field in {column.name for column in pair.columns}:
        return f"{side}.{quote(field)}::text"
    column, _, key = field.partition(".")
    return f"{side}.{quote(column)}::jsonb ->> {text(key)}"

"""Rows that come from elsewhere, to be merged into live tables.

They are copied into a temporary table in which all but vectors is text, so that the server says of each row what it
does not take. `memkeep_has` has a digit for each column: 0 where a row does not have it, 1 where it does, 2 where it
has keys of its JSON object.
"""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

import re
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.merging import FailedRow
from memkeep.engines.postgres_catalogue import columns_of, relations, spelled
from memkeep.engines.postgres_connect import library
from memkeep.engines.postgres_copy import HEADER, TRAILER
from memkeep.engines.postgres_given import JSON, VECTORS, Encode, encoder, is_known, json
from memkeep.engines.postgres_pairs import Cell, Laid, Pair, attempt, equal, settle
from memkeep.engines.postgres_tables import Column, quote
from memkeep.engines.rows import Columns, Rows
from memkeep.model import TableMap
from memkeep.records.shape import Row

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_BUFFER = 1 << 18
_NULL = struct.pack(">i", -1)
_SIZES = re.compile(r"\(\d+(,-?\d+)?\)")
_WITHOUT_SIZE = {"bit": "varbit", "bpchar": "bpchar"}  # types that mean a size of 1 when they are written without one
_ABSENT, _WHOLE, _KEYS = "0", "1", "2"


class _Target(NamedTuple):
    """A column of the live table."""

    column: Column
    default: str  # SQL
    dims: int  # of a vector, 0 for any
    raw: bool  # its values come in their binary form
    encode: Encode


class PostgresRows:
    """A `Source` of rows."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self._rows = rows

    def lay(self, connection: "Connection", map_: TableMap, number: int) -> Laid | None:
        """Put the rows of a table into a temporary one."""
        rows = self._rows.get(map_.table)
        if rows is None:
            return None
        targets = _targets(connection, map_.table)
        key = map_.unique or (map_.id,)
        if not set(key) <= {one.column.name for one in targets}:
            return Laid(None, (f"{map_.table} is left as it is: it has no {', '.join(key)}",))
        into = quote(f"memkeep_rows_{number}")
        laying = _Laying(map_, targets, key)
        laying.fill(connection, into, rows)
        pair = Pair(map_, into, spelled(connection, map_.table), tuple(laying.cells()), key)
        failed = [*laying.failed, *_cast(connection, pair, targets), *_repeated(connection, pair)]
        lost = sorted(laying.lost)
        left = (f"{map_.table} has no column {', '.join(lost)}: left out",) if lost else ()
        return Laid(pair, left, tuple(failed))


def columns(connection: "Connection", table: str) -> Columns | None:
    """Return what a live table takes; None when it is not there."""
    found = _targets(connection, table)
    vectors = {one.column.name: one.dims for one in found if one.column.kind in VECTORS}
    return Columns(names=tuple(one.column.name for one in found), vectors=vectors) if found else None


def _targets(connection: "Connection", table: str) -> list[_Target]:
    """Return the columns of a live table that take values; none when it is not there."""
    relation = next((one for one in relations(connection) if one.full == table and one.kind in "rp"), None)
    if relation is None:
        return []
    told = {row[0]: row[1:] for row in connection.execute(_TOLD, [relation.oid]).fetchall()}
    found = []
    for column in columns_of(connection, relation):
        default, size, enum = told[column.name]
        raw = not (enum or column.form == "text" or is_known(column.kind) or column.kind in VECTORS)
        dims = max(0, size) if column.kind in VECTORS else 0
        found.append(_Target(column, default, dims, raw, encoder(column, dims, raw=raw)))
    return found


_TOLD = """
SELECT a.attname,
  CASE WHEN a.attidentity <> '' THEN
    'nextval(' || quote_literal(pg_get_serial_sequence(a.attrelid::regclass::text, a.attname)) || ')'
  ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), 'NULL') END, a.atttypmod, t.typtype = 'e'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""


class _Laying:
    """Rows on their way into a temporary table."""

    def __init__(self, map_: TableMap, targets: list[_Target], key: tuple[str, ...]) -> None:
        self.failed: list[FailedRow] = []
        self.lost: set[str] = set()  # columns that the table does not have
        self._map = map_
        self._targets = targets
        self._key = key
        self._places: dict[str, tuple[int, str] | None] = {
            one.column.name: (place, "") for place, one in enumerate(targets)
        }
        self._had: set[str] = set()  # what `memkeep_has` is

    def fill(self, connection: "Connection", into: str, rows: Rows) -> None:
        """Make the temporary table and copy the rows."""
        kinds = ", ".join(f"{quote(one.column.name)} {_kind(one)}" for one in self._targets)
        names = ", ".join(quote(one.column.name) for one in self._targets)
        connection.execute(
            f"CREATE TEMP TABLE {into} (memkeep_row bigserial, memkeep_has text, {kinds}) ON COMMIT DROP"
        )
        waiting, size = [HEADER], 0
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {into} (memkeep_has, {names}) FROM STDIN (FORMAT binary)") as copy,
        ):
            for data in self._tuples(rows):
                waiting.append(data)
                size += len(data)
                if size >= _BUFFER:
                    copy.write(b"".join(waiting))
                    waiting, size = [], 0
            copy.write(b"".join([*waiting, TRAILER]))
        settle(connection, into)

    def cells(self) -> Iterator[Cell]:
        """Yield the columns that some row has."""
        for place, one in enumerate(self._targets):
            name = one.column.name
            if (name in self._key or any(has[place] != _ABSENT for has in self._had)) and (
                name != self._map.id or not self._map.unique or name in self._map.unique
            ):
                yield self._cell(place, one)

    def _cell(self, place: int, target: _Target) -> Cell:
        column = target.column
        value, same = _value(target), equal(column, _value(target, whole=True))
        change = value
        digits = {has[place] for has in self._had}
        has = f"substr(i.memkeep_has, {place + 1}, 1)"
        there = f"l.{quote(column.name)}"
        if _KEYS in digits:
            given = f"i.{quote(column.name)}::jsonb"
            both = (
                f"CASE WHEN {has} = '{_KEYS}' AND jsonb_typeof({there}::jsonb) = 'object' "
                f"THEN {there}::jsonb || {given} ELSE {given} END"
            )
            same = f"({both}) IS NOT DISTINCT FROM {there}::jsonb"
            change = f"({both})::{column.type}"
        if _ABSENT in digits:
            value = f"CASE WHEN {has} = '{_ABSENT}' THEN {target.default} ELSE {value} END"
            same = f"({has} = '{_ABSENT}' OR {same})"
            change = f"CASE WHEN {has} = '{_ABSENT}' THEN {there} ELSE {change} END"
        return Cell(column.name, value, same, change)

    def _tuples(self, rows: Rows) -> Iterator[bytes]:
        """Yield rows as the binary COPY format has them; those that have no such form are in `failed`."""
        count = struct.pack(">h", len(self._targets) + 1)
        for batch in rows():
            for row in batch:
                try:
                    fields, has = self._fields(row)
                except ValueError as error:
                    name = "/".join(str(row.get(each)) for each in self._key)
                    self.failed.append(FailedRow(table=self._map.table, id=name, reason=str(error)))
                    continue
                self._had.add(has)
                yield b"".join([count, _field(has.encode()), *fields])

    def _fields(self, row: Row) -> tuple[list[bytes], str]:
        named = tuple(row.get(each) for each in self._key)
        if any(each not in row for each in self._key) or all(one is None for one in named):
            raise ValueError(f"it has no {', '.join(self._key)}")
        fields = [_NULL] * len(self._targets)
        has = [_ABSENT] * len(self._targets)
        objects: dict[int, dict[str, Any]] = {}
        for column, value in row.items():
            found = self._places[column] if column in self._places else self._place(column)
            if found is None:
                self.lost.add(column)
                continue
            place, key = found
            if key or (isinstance(value, dict) and self._targets[place].column.kind in JSON):
                objects.setdefault(place, {}).update({key: value} if key else value)
                has[place] = _WHOLE if not key or has[place] == _WHOLE else _KEYS
                continue
            has[place] = _WHOLE
            fields[place] = _NULL if value is None else _field(self._encoded(place, value))
        for place, held in objects.items():
            fields[place] = _field(self._encoded(place, held))
        return fields, "".join(has)

    def _encoded(self, place: int, value: Any) -> bytes:
        target = self._targets[place]
        try:
            return json(value) if target.column.kind in JSON else target.encode(value)
        except ValueError as error:
            raise ValueError(f"{target.column.name}: {error}") from error

    def _place(self, name: str) -> tuple[int, str] | None:
        """Return the place of the column of JSON whose key a column is, and the key."""
        found = None
        for place, one in enumerate(self._targets):
            if one.column.kind in JSON and name.startswith(f"{one.column.name}."):
                found = place, name[len(one.column.name) + 1 :]
        self._places[name] = found
        return found


def _cast(connection: "Connection", pair: Pair, targets: list[_Target]) -> list[FailedRow]:
    """Take out the rows of which a value is none of its column's type, and return them."""
    taken = {cell.name for cell in pair.cells}
    mine = [one for one in targets if one.column.name in taken and one.column.kind not in VECTORS and not one.raw]
    statement = f"SELECT count(ROW({', '.join(_value(one, whole=True) for one in mine)})) FROM {pair.image} i"
    try:
        with connection.transaction():
            connection.execute(statement)
    except library().DatabaseError:
        if connection.broken:
            raise
    else:
        return []
    found = connection.execute(f"SELECT i.memkeep_row, {pair.name} FROM {pair.image} i ORDER BY 1").fetchall()
    names: dict[int, str] = dict(found)
    statement += " WHERE i.memkeep_row = ANY(%s)"
    _, failed = attempt(connection, pair.map.table, statement, list(names), names)
    connection.execute(f"DELETE FROM {pair.image} WHERE memkeep_row = ANY(%s)", [list(failed)])
    return [*failed.values()]


def _repeated(connection: "Connection", pair: Pair) -> list[FailedRow]:
    """Take out the rows whose key came before, and return them."""
    values = [cell.value for cell in pair.cells if cell.name in pair.key]
    known = " AND ".join(f"{value} IS NOT NULL" for value in values)
    found = connection.execute(
        f"WITH again AS (SELECT i.memkeep_row, row_number() OVER (PARTITION BY {', '.join(values)} "
        f"ORDER BY i.memkeep_row) AS time FROM {pair.image} i WHERE {known}) DELETE FROM {pair.image} i USING again a "
        f"WHERE i.memkeep_row = a.memkeep_row AND a.time > 1 RETURNING {pair.name}"
    ).fetchall()
    return [FailedRow(table=pair.map.table, id=row[0], reason="a row before it has the same id") for row in found]


def _kind(target: _Target) -> str:
    """Return the type of a column of the temporary table."""
    binary = target.raw or target.column.kind in VECTORS
    return _SIZES.sub("", target.column.type) if binary else "text"


def _value(target: _Target, *, whole: bool = False) -> str:
    """Return a given value in SQL; not `whole`, without the size of its type, to which a cast would cut it."""
    column = target.column
    given = f"i.{quote(column.name)}"
    if target.raw or column.kind in VECTORS:
        return given
    bare = _WITHOUT_SIZE.get(column.kind, _SIZES.sub("", column.type))
    return f"{given}::{column.type if whole else bare}"


def _field(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data

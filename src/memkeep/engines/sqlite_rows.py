"""Rows of a table as they leave: read in the child process, made rows of records in the parent.

Between the two a batch is the msgpack array of its rows, each the array of its values; text that is not valid in the
database's encoding is msgpack extension type 1 with its bytes.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.engines.rows import no_table
from memkeep.engines.sqlite_sql import Table, query, quote, tables, value
from memkeep.model import TableMap, Value
from memkeep.records.record import Vector
from memkeep.records.shape import Row

if TYPE_CHECKING:
    import apsw

_BATCH_ROWS = 1024
_BATCH_BYTES = 1 << 20
_FLOAT32, _FLOAT64 = 4, 8
_DIMS = "dims"  # the column that says, beside a vector, how many elements it has
_Packed = tuple[Any, bool]  # rows, and whether there is text among them that is none
_encode = msgspec.msgpack.Encoder().encode


class Form(Value):
    """How the rows of a table are sent."""

    columns: tuple[str, ...]
    vectors: tuple[int, ...]  # which of the columns are vectors
    dims: int | None = None  # which column says the dimensions of these


def read(con: "apsw.Connection", map_: TableMap, where: str) -> Iterator[Form | _Packed]:
    """Yield the form and then the rows, about 1 MiB at a time, in the order of the id if an index has that.

    Raises `StoreError` (`NO_TABLE`).
    """
    table = _table(con, map_)
    if table is None:
        raise no_table(map_.table, where)
    lower = [column.lower() for column in table.columns]
    vectors = tuple(lower.index(name.lower()) for name in map_.vectors if name.lower() in lower)
    yield Form(columns=_named(table, map_), vectors=vectors, dims=lower.index(_DIMS) if _DIMS in lower else None)
    yield from sent(con, table, _order(con, table, map_))


def sent(con: "apsw.Connection", table: Table, order: str) -> Iterator[_Packed]:
    """Yield the rows of a table as they are sent, about 1 MiB at a time."""
    stored = str(value(con, "PRAGMA encoding"))
    done = 0
    if stored == "UTF-8":  # from UTF-16 SQLite makes UTF-8 of anything
        try:
            for rows, packed in _batches(con, table, order, 0, ""):
                yield packed, False
                done += rows
        except UnicodeDecodeError:
            pass
        else:
            return
    for _, packed in _batches(con, table, order, done, stored):
        yield packed, True


def unpacked(form: Form, sent: Sequence[Any]) -> list[Row]:
    """Return the rows of a batch that was sent."""
    found, odd = sent
    if odd:
        found = [[_text(item) for item in row] for row in found]
    for at in form.vectors:
        for row in found:
            if row[at].__class__ is bytes:
                row[at] = _vector(row[at], None if form.dims is None else row[form.dims])
    return [dict(zip(form.columns, row, strict=True)) for row in found]


def _vector(data: bytes, dims: object) -> Vector | bytes:
    """Return a vector; of float64 when its size says so; bytes that are none as they are."""
    if data and isinstance(dims, int) and len(data) == _FLOAT64 * dims:
        return Vector(data=data, type="f64", dims=dims)
    return data if not data or len(data) % _FLOAT32 else Vector.f32(data)


def _text(item: Any) -> Any:
    return bytes(item.data).decode(errors="surrogateescape") if item.__class__ is msgspec.msgpack.Ext else item


def _table(con: "apsw.Connection", map_: TableMap) -> Table | None:
    from memkeep.engines.sqlite_scan import with_rowid

    there = next((table for table in tables(con) if table.name.lower() == map_.table.lower()), None)
    if there is None:
        return None
    there = with_rowid(there, [map_])
    return there if map_.id.lower() in {column.lower() for column in there.columns} else None


def _named(table: Table, map_: TableMap) -> tuple[str, ...]:
    """Return the names of the columns, spelled as the map does where it does."""
    said = {name.lower(): name for name in (*map_.fields.values(), *map_.vectors, *map_.links, *map_.unique, map_.id)}
    return tuple(said.get(column.lower(), column) for column in table.columns)


def _order(con: "apsw.Connection", table: Table, map_: TableMap) -> str:
    import apsw

    by_id = f" ORDER BY {quote(map_.id)}"
    try:
        plan = query(con, f"EXPLAIN QUERY PLAN SELECT * FROM {quote(table.name)}{by_id}")
    except apsw.SQLError:  # a collation that only the product has
        plan = [("TEMP B-TREE",)]
    sorts = any("TEMP B-TREE" in str(step[-1]) for step in plan)
    return by_id if not sorts else f" ORDER BY {table.order}" if table.order else ""


def _batches(
    con: "apsw.Connection", table: Table, order: str, after: int, encoding: str
) -> Iterator[tuple[int, msgspec.Raw]]:
    """Yield how many rows, and them, after so many; with an encoding texts are decoded here, whatever they are."""
    from memkeep.engines.sqlite_scan import as_bytes

    columns = [as_bytes(quote(column)) if encoding else quote(column) for column in table.columns]
    sql = f"SELECT {', '.join(columns)} FROM {quote(table.name)}{order} LIMIT -1 OFFSET {after}"
    cursor = con.execute(sql)
    size = 8
    while rows := list(islice(cursor, size)):
        packed = _encode([_decoded(row, encoding) for row in rows] if encoding else rows)
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * len(rows) // len(packed)))
        yield len(rows), msgspec.Raw(packed)


def _decoded(row: Sequence[Any], encoding: str) -> list[Any]:
    pairs = zip(row[::2], row[1::2], strict=True)
    return [_decoded_text(item, encoding) if is_text else item for item, is_text in pairs]


def _decoded_text(data: bytes, encoding: str) -> str | msgspec.msgpack.Ext:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "UTF-8":  # half of a pair, or of a unit, which SQLite leaves out
            data = data[: len(data) & ~1].decode(encoding, "surrogatepass").encode(errors="surrogatepass")
        return msgspec.msgpack.Ext(1, data)

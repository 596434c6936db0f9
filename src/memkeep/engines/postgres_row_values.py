"""Rows of a table's image with all of their values, vectors among them.

Values are those of records (see `postgres_values`), but for numbers, which are `int` or `float` where these are exact,
times of every year, text that is no UTF-8, which is decoded with `surrogateescape`, and what a record has only the
digest of. A value of a type that is not known here is its binary form.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from memkeep.engines.postgres_rows import rows
from memkeep.engines.postgres_tables import Column, Table
from memkeep.engines.postgres_values import decoder
from memkeep.errors import StoreError
from memkeep.records import moments
from memkeep.records.record import Vector
from memkeep.records.shape import Row

_BATCH = 256
_SIZE = 4 << 20  # bytes of a batch
_HEAD = 4  # bytes before a vector's elements: its dimensions and an unused number
_JSON = frozenset({"json", "jsonb"})
_TEXT = frozenset({"text", "varchar", "bpchar", "name", "char", "xml", "citext", "unknown"})
_SINCE = 946_684_800  # 2000-01-01 in seconds of Unix
_DAY = 86_400
_FOREVER = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}
_ALWAYS = {(1 << 31) - 1: "infinity", -(1 << 31): "-infinity"}
_EXACT = 15  # digits that a float keeps


def read(table: Table, folder: Path, enums: frozenset[str]) -> Iterator[list[Row]]:
    """Yield the rows of a table whose files lie under a folder; `enums` are the bare names of types that are words.

    Raises `StoreError` when the files can't be read or do not fit together.
    """
    cells = [
        _Cell(i, column.name, _decoder(column, enums), column.kind in _JSON) for i, column in enumerate(table.others)
    ]
    vectors = [(i, column.name, column.kind) for i, column in enumerate(table.vectors)]
    batch: list[Row] = []
    size = 0
    try:
        for stored in rows(table, folder):
            row = _row(stored.fields, cells)
            size += len(stored.data)
            for i, name, kind in vectors:
                data = stored.vectors[i]
                row[name] = None if data is None else _vector(data, kind)
                size += len(data or b"")
            batch.append(row)
            if len(batch) == _BATCH or size >= _SIZE:
                yield batch
                batch, size = [], 0
    except (OSError, ValueError, ArithmeticError, struct.error) as error:
        raise StoreError(f"{table.full} can't be read to its end: {error}", hint="memkeep verify --all") from error
    yield batch


class _Cell(NamedTuple):
    place: int
    name: str
    decode: Callable[[bytes], Any]
    spread: bool


def _row(fields: list[bytes | None], cells: list[_Cell]) -> Row:
    row: Row = {}
    for cell in cells:
        data = fields[cell.place]
        value = None if data is None else cell.decode(data)
        if cell.spread and isinstance(value, dict) and value:
            for key, item in value.items():
                row[f"{cell.name}.{key}"] = item
        else:
            row[cell.name] = value
    return row


def _decoder(column: Column, enums: frozenset[str]) -> Callable[[bytes], Any]:
    if column.form == "text" or column.kind in _TEXT or column.kind in enums:
        return _text
    return _DECODERS.get(column.kind) or decoder(column.kind)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _vector(data: bytes | memoryview, kind: str) -> Vector:
    """Return a vector of the COPY format, whose numbers are big-endian."""
    import numpy as np

    width, type_ = (2, "f16") if kind == "halfvec" else (4, "f32")
    elements = np.frombuffer(data, f">f{width}", offset=_HEAD)
    return Vector(data=elements.astype(f"<f{width}").tobytes(), type=type_, dims=len(elements))  # type: ignore[arg-type]


def _sparse(data: bytes) -> Vector:
    import numpy as np

    count = int.from_bytes(data[4:8], "big")
    elements = np.frombuffer(data, ">u4", 2 * count, 12)  # indices, and then the bits of the values
    return Vector(data=elements.astype("<u4").tobytes(), type="sparse", dims=count)


def _numeric(data: bytes) -> int | float | str:
    """Return a number that has as many digits as it was written with, else its text."""
    said = str(decoder("numeric")(data))
    if said.lstrip("-").isdecimal():
        return int(said)
    number = float(said)
    return number if repr(number) == said and len(said) <= _EXACT else said


def _moment(data: bytes, zone: str) -> str:
    microseconds = int.from_bytes(data, "big", signed=True)
    if microseconds in _FOREVER:
        return _FOREVER[microseconds]
    seconds, rest = divmod(microseconds, 1_000_000)
    date, _, clock = _every_year(_SINCE + seconds)
    return f"{date}T{clock}{f'.{rest:06}' if rest else ''}{zone}"


def _date(data: bytes) -> str:
    days = int.from_bytes(data, "big", signed=True)
    return _ALWAYS.get(days) or _every_year(_SINCE + days * _DAY)[0]


def _every_year(seconds: int) -> tuple[str, str, str]:
    told = moments.from_raw(seconds, "s") or ""
    return told.removesuffix("+00:00").partition("T")


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "date": _date,
    "numeric": _numeric,
    "sparsevec": _sparse,
    "timestamp": lambda data: _moment(data, ""),
    "timestamptz": lambda data: _moment(data, "+00:00"),
}

"""Values of rows that come from elsewhere, as the binary COPY format has them: mostly text, which the server casts.

A value that would break off the whole COPY is refused here; any other bad one the server refuses when it casts it, and
then it can be said which row has it.
"""

import re
import struct
from collections.abc import Callable
from json import JSONEncoder
from typing import Any

from memkeep.engines import postgres_values
from memkeep.engines.postgres_tables import Column
from memkeep.records.record import Vector

Encode = Callable[[Any], bytes]

JSON = frozenset({"json", "jsonb"})
VECTORS = frozenset({"vector", "halfvec", "sparsevec"})
_TIMES = frozenset({"timestamp", "timestamptz", "date"})
_YEAR = re.compile(r"([+-]\d{5,}|-?\d{4})(-\d\d-\d\d.*)", re.DOTALL)
_json = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_MOST = 16_000  # dimensions
_TYPES = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}
_NEEDS_QUOTES = re.compile(r'[{}",\\\s]|^$|^null$', re.IGNORECASE)


def encoder(column: Column, dims: int, *, raw: bool) -> Encode:
    """Return what encodes the values of a column, but for None. It raises `ValueError` for what the type has no form.

    `dims` are those of a vector's type, 0 for any; `raw` means that values are in the binary form of the type.
    """
    if column.kind in VECTORS:
        return lambda value: _vector(value, column.kind, dims)
    if raw:
        return _money if column.kind == "money" else _raw
    if column.kind.startswith("_") and column.form == "binary":
        return lambda value: _sent(_array(value, column.kind[1:]))
    return lambda value: _sent(_text(value, column.kind))


def json(value: Any) -> bytes:
    """Encode a value of JSON. Raises `ValueError`."""
    try:
        return _sent(_json(value))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def is_known(kind: str) -> bool:
    """Say whether the text of a type's values is known here; of others there is the binary form only."""
    return kind != "money" and (kind.startswith("_") or postgres_values.is_known(kind))


def _sent(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("it has a NUL, which Postgres takes in no text")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("it has text that is no Unicode") from None


def _text(value: Any, kind: str) -> str:
    """Return a value as the server reads it."""
    if kind in JSON:
        return json(value).decode()
    if isinstance(value, str):
        return _moment(value) if kind in _TIMES else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes) and kind == "bytea":
        return f"\\x{value.hex()}"
    raise ValueError(f"a column of {kind} takes no {type(value).__name__}")


def _moment(value: str) -> str:
    """Return a time as the server spells its year: no sign, and BC."""
    found = _YEAR.fullmatch(value.strip())
    if found is None:
        return value
    year = int(found[1])
    return f"{year:04}{found[2]}" if year > 0 else f"{1 - year:04}{found[2]} BC"


def _array(value: Any, kind: str) -> str:
    """Return an array as the server reads it; text is one already."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"an array takes no {type(value).__name__}")  # noqa: TRY004 - told as the others are
    return "{" + ",".join(_element(one, kind) for one in value) + "}"


def _element(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list) and kind not in JSON:
        return _array(value, kind)
    said = _text(value, kind)
    if not _NEEDS_QUOTES.search(said):
        return said
    return '"' + said.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _raw(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("the text of values of its type is not known, only their binary form")  # noqa: TRY004
    return value


def _money(value: Any) -> bytes:
    """Encode an amount, which is in the smallest unit of the currency."""
    try:
        return struct.pack(">q", int(value))
    except (TypeError, ValueError, struct.error):
        raise ValueError("an amount of money is a whole number of its smallest unit") from None


def _vector(value: Any, kind: str, dims: int) -> bytes:
    """Encode a vector, whose numbers are big-endian."""
    import numpy as np

    if not isinstance(value, Vector):
        raise ValueError(f"a column of vectors takes no {type(value).__name__}")  # noqa: TRY004
    if kind == "sparsevec":
        return _sparse(value, dims)
    if value.type not in _TYPES or len(value.data) != value.dims * int(_TYPES[value.type][2:]):
        raise ValueError(f"a column of {kind} takes no vector of {value.type} with {len(value.data)} bytes")
    numbers = np.frombuffer(value.data, _TYPES[value.type])
    if (dims and len(numbers) != dims) or not 0 < len(numbers) <= _MOST:
        raise ValueError(f"a vector has {len(numbers)} dimensions, the column takes {dims or f'1 to {_MOST}'}")
    wire = ">f2" if kind == "halfvec" else ">f4"
    if numbers.itemsize > int(wire[2:]):
        with np.errstate(over="ignore"):
            numbers = numbers.astype(wire)
    if not np.isfinite(numbers).all():
        raise ValueError("a vector has elements that are no numbers, or too large")
    return struct.pack(">hh", len(numbers), 0) + numbers.astype(wire).tobytes()


def _sparse(value: Vector, dims: int) -> bytes:
    import numpy as np

    if value.type != "sparse" or len(value.data) != 8 * value.dims:
        raise ValueError(f"a column of sparse vectors takes no vector of {value.type}")
    places, numbers = np.frombuffer(value.data, "<u4", value.dims), np.frombuffer(value.data, "<f4", -1, 4 * value.dims)
    order = np.argsort(places, kind="stable")
    places, numbers = places[order], numbers[order]
    wide = dims or int(places.max(initial=0)) + 1
    if (places >= wide).any() or (places[1:] == places[:-1]).any() or not (np.isfinite(numbers) & (numbers != 0)).all():
        raise ValueError(f"a sparse vector has elements that a column of {wide} dimensions does not take")
    head = struct.pack(">iii", wide, value.dims, 0)
    return head + places.astype(">i4").tobytes() + numbers.astype(">f4").tobytes()

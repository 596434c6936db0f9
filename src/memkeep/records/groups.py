"""Records at rest: rows in stable groups, each group one JSON object of columns.

A row belongs to the bucket that the low bits of the CRC-32 of its id (UTF-8) name, so that a changed row changes one
group and an added row moves no other. In a group rows are in ascending order of their id as text. Column-major JSON
compresses well and, against the same group of an earlier day, to little more than what changed.

JSON form: {"columns": [name, ...], "rows": n, "values": [[...], ...]}; values as in JSON, except

    bytes        {"bytes": n, "blake3": "<first 16 hex digits>"}     (the image has the bytes themselves)
    a vector     {"dims": n, "type": "f32", "blake3": "<first 16 hex digits>"}
    inf, nan     {"float": "inf" | "-inf" | "nan"}
    bad UTF-8    {"text": "<hex>"}
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from blake3 import blake3

from memkeep.errors import DamagedError

Cell: TypeAlias = bool | int | float | str | dict[str, Any] | list[Any] | None
TARGET_ROWS = 128


class Group(msgspec.Struct, frozen=True):
    """The rows of one bucket of one collection, encoded."""

    collection: str
    bits: int
    bucket: int
    rows: int
    data: bytes


class _Wire(msgspec.Struct):
    columns: list[str]
    rows: int
    values: list[list[Any]]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Wire)


def bits_for(rows: int) -> int:
    """Return how many bucket bits give about 128 rows a group (0 to 24)."""
    return min(24, max(0, math.ceil(math.log2(rows / TARGET_ROWS)))) if rows > TARGET_ROWS else 0


def bucket_of(record_id: str, bits: int) -> int:
    """Return the bucket of an id."""
    return zlib.crc32(record_id.encode("utf-8", "surrogatepass")) & ((1 << bits) - 1)


def short_digest(data: bytes) -> str:
    """Return the first 16 hex digits of the BLAKE3 of some bytes."""
    return blake3(data).hexdigest(8)


def vector_cell(data: bytes, *, dims: int, type_: str = "f32") -> dict[str, Any]:
    """Return the cell that stands for a vector."""
    return {"dims": dims, "type": type_, "blake3": short_digest(data)}


def cell(value: object) -> Cell:
    """Return a database value as a JSON value, without loss except that bytes become a digest."""
    if isinstance(value, bytes):
        return {"bytes": len(value), "blake3": short_digest(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value  # type: ignore[return-value]  # databases give None, int, float, str; Lance also lists and dicts


def id_text(value: object) -> str:
    """Return a record id as text: integers and strings as they are, bytes as hex."""
    return value.hex() if isinstance(value, bytes) else str(value)


def encode(
    collection: str, bits: int, bucket: int, columns: Sequence[str], rows: Iterable[Sequence[Any]], key: int
) -> Group:
    """Encode rows (already cells) of one bucket; `key` is the position of the id column."""
    ordered = sorted(rows, key=lambda row: id_text(row[key]))
    values = [list(column) for column in zip(*ordered, strict=True)] if ordered else [[] for _ in columns]
    wire = _Wire(columns=list(columns), rows=len(ordered), values=values)
    return Group(collection, bits, bucket, len(ordered), _encoder.encode(wire))


def decode(data: bytes) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and rows of an encoded group; raises `DamagedError` when it is not one."""
    try:
        wire = _decoder.decode(data)
        rows = list(zip(*wire.values, strict=True)) if wire.values else []
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"a group of records can't be read: {error}"
        raise DamagedError(message) from error
    if len(rows) != wire.rows or len(wire.columns) != len(wire.values):
        message = "a group of records does not hold the rows that it says"
        raise DamagedError(message)
    return wire.columns, rows

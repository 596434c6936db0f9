"""Points as rows, and rows as points: the names of their columns, and their vectors.

Columns are `id`, the keys of the payload, and `vector` or `vector.<name>`. A key that is called like one of the others
becomes `payload.<key>`, and so does one that then would be called like that.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from memkeep.engines import qdrant_edge
from memkeep.engines.merging import FailedRow
from memkeep.engines.qdrant_edge import Point, Sparse
from memkeep.engines.rows import Rows
from memkeep.records.record import Vector
from memkeep.records.shape import Row

_VECTOR = "vector"
_PAYLOAD = "payload."
_INTEGERS = range(-(1 << 63), 1 << 64)
_IDS = range(1 << 64)


def to_row(point: Point) -> Row:
    """Return a point as a row."""
    row: Row = {"id": point.id}
    for key, value in point.payload.items():
        row[_PAYLOAD + key if _is_taken(key) else key] = value
    for name, vector in point.vectors.items():
        row[f"{_VECTOR}.{name}" if name else _VECTOR] = _from_point(vector)
    return row


def points(rows: Rows, table: str, failed: list[FailedRow]) -> Iterator[list[Point]]:
    """Yield rows as points that Qdrant may take; the others, and those whose id came before, are added to `failed`."""
    seen: set[int | str] = set()
    for batch in rows():
        found = []
        for row in batch:
            try:
                point = to_point(row)
                point = point._replace(id=_good_id(point.id))
                if point.id in seen:
                    raise ValueError("a row before it has the same id")  # noqa: TRY301 - told as the others are
            except ValueError as error:
                failed.append(FailedRow(table=table, id=str(row.get("id")), reason=str(error)))
            else:
                seen.add(point.id)
                found.append(point)
        yield found


def together(point: Point, before: Point) -> Point:
    """Return a point with what it does not have as it was before."""
    return Point(point.id, before.payload | point.payload, before.vectors | point.vectors)


def unfit(value: Any) -> str:
    """Return why JSON, as servers read it, has no form for a value; "" when it has one."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return "" if is_text(value) else "it has text that is no Unicode"
    if isinstance(value, int | float):
        good = value in _INTEGERS if isinstance(value, int) else math.isfinite(value)
        return "" if good else f"it has the number {value}, which JSON has no form for"
    if isinstance(value, list):
        return next(filter(None, map(unfit, value)), "")
    if isinstance(value, dict):
        return next((why for key, one in value.items() if (why := _bad_key(key) or unfit(one))), "")
    return f"it has {type(value).__name__}, which JSON has no form for"


def to_point(row: Row) -> Point:
    """Return a row as a point. Raises `ValueError` for a vector of another type than points have."""
    payload: dict[str, Any] = {}
    vectors: dict[str, qdrant_edge.Vector] = {}
    for column, value in row.items():
        if isinstance(value, Vector):
            vectors[column.removeprefix(_VECTOR).removeprefix(".")] = _for_point(value)
        elif column != "id":
            bare = column.removeprefix(_PAYLOAD)
            payload[bare if bare != column and _is_taken(bare) else column] = value
    return Point(row.get("id", ""), payload, vectors)


def _is_taken(key: str) -> bool:
    while key.startswith(_PAYLOAD):
        key = key.removeprefix(_PAYLOAD)
    return key in {"id", _VECTOR} or key.startswith(f"{_VECTOR}.")


def _good_id(name: object) -> int | str:
    """Return an id as Qdrant spells it. Raises `ValueError` when it would not take it."""
    if isinstance(name, int) and not isinstance(name, bool) and name in _IDS:
        return name
    try:
        return str(UUID(str(name) if isinstance(name, str) else ""))
    except ValueError:
        raise ValueError("its id is neither a UUID nor an unsigned number, which is all that Qdrant takes") from None


def _bad_key(key: object) -> str:
    return "" if is_text(key) else "it has a key that is no text"


def is_text(value: object) -> bool:
    """Say whether a value is text that UTF-8 has a form for."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _from_point(vector: qdrant_edge.Vector) -> Vector:
    if isinstance(vector, bytes):
        return Vector.f32(vector)
    if isinstance(vector, Sparse):
        count = len(vector.indices)
        data = struct.pack(f"<{count}I{count}f", *vector.indices, *vector.values)
        return Vector(data=data, type="sparse", dims=count)
    return Vector(data=b"".join(vector), type="multi", dims=len(vector[0]) // 4 if vector else 0)


def _for_point(vector: Vector) -> qdrant_edge.Vector:
    import numpy as np

    data, dims = vector.data, vector.dims
    width = {"f16": 2, "f32": 4, "f64": 8, "sparse": 8}.get(vector.type, 0)
    if width and len(data) != dims * width:
        raise ValueError(f"a vector said to have {dims} dimensions has {len(data)} bytes")
    if vector.type == "f32":
        return data
    if vector.type == "sparse":
        indices = np.frombuffer(data, "<u4", dims).tolist()
        return Sparse(tuple(indices), tuple(np.frombuffer(data, "<f4", dims, 4 * dims).tolist()))
    if vector.type == "multi":
        if not dims or len(data) % (4 * dims):
            raise ValueError("a vector of several has rows of several lengths")
        return tuple(data[at : at + 4 * dims] for at in range(0, len(data), 4 * dims))
    rounded = np.frombuffer(data, "<f2" if vector.type == "f16" else "<f8").astype("<f4")
    return rounded.tobytes()

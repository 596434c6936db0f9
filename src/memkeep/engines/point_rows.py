"""Points as rows, and rows as points: the names of their columns, and their vectors.

Columns are `id`, the keys of the payload, and `vector` or `vector.<name>`. A key that is called like one of the others
becomes `payload.<key>`, and so does one that then would be called like that.
"""

import struct
from typing import Any

from memkeep.engines import qdrant_edge
from memkeep.engines.qdrant_edge import Point, Sparse
from memkeep.records.record import Vector
from memkeep.records.shape import Row

_VECTOR = "vector"
_PAYLOAD = "payload."


def to_row(point: Point) -> Row:
    """Return a point as a row."""
    row: Row = {"id": point.id}
    for key, value in point.payload.items():
        row[_PAYLOAD + key if _is_taken(key) else key] = value
    for name, vector in point.vectors.items():
        row[f"{_VECTOR}.{name}" if name else _VECTOR] = _from_point(vector)
    return row


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

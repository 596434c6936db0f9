"""Rows out of live collections and of their image, value for value."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines.qdrant.conftest import KINDS, Client, odd_point

from memkeep.engines.qdrant import QdrantEngine
from memkeep.engines.rows import RowReader
from memkeep.errors import StoreError
from memkeep.model import Part, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row


def both(engine: QdrantEngine, part: Part, scratch: Path) -> list[Row]:
    """Return the rows of a live part, which are those of its image."""
    [map_] = part.maps
    scratch.mkdir()
    with engine.freeze(part, Path(), scratch) as opened:
        assert isinstance(opened, RowReader)
        live = [row for batch in opened.rows(map_) for row in batch]
        with pytest.raises(StoreError, match="other"):
            list(opened.rows(TableMap(collection="other", table="other", id="id")))
    (scratch / "root" / part.name).parent.mkdir(parents=True)
    (scratch / "image").rename(scratch / "root" / part.name)
    with engine.open(part, scratch / "root") as again:
        assert [row for batch in again.rows(map_) for row in batch] == live
    return live


def told(vector: Any) -> Vector:
    """Return what a row has for a vector of the server's JSON."""
    if isinstance(vector, dict):
        count = len(vector["indices"])
        data = struct.pack(f"<{count}I{count}f", *vector["indices"], *vector["values"])
        return Vector(data=data, type="sparse", dims=count)
    if isinstance(vector[0], list):
        rows = [struct.pack(f"<{len(row)}f", *row) for row in vector]
        return Vector(data=b"".join(rows), type="multi", dims=len(vector[0]))
    return Vector.f32(struct.pack(f"<{len(vector)}f", *vector))


def test_points_of_every_kind_are_rows(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], tmp_path: Path
) -> None:
    name = client.make(**KINDS, shard_number=2)
    client.put(name, [odd_point(i) for i in range(60)])
    client.delete(name, [7, 21])
    rows = {row["id"]: row for row in both(engine, part(name), tmp_path / "one")}
    points = client.points(name)
    assert rows.keys() == points.keys()
    for id_, point in points.items():
        wanted = {"id": id_} | {f"vector.{one}": told(vector) for one, vector in point["vector"].items()}
        for key, value in (point["payload"] or {}).items():
            wanted[f"payload.{key}" if key in {"id", "vector.far"} else key] = value
        assert rows[id_] == wanted


def test_an_unnamed_vector_is_called_so(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], tmp_path: Path
) -> None:
    name = client.make(2)
    client.put(name, [{"id": 1, "vector": [0.6, 0.8], "payload": {"vector": "word", "payload.id": 2, "a": None}}])
    [row] = both(engine, part(name), tmp_path / "one")
    vector = Vector.f32(struct.pack("<2f", 0.6, 0.8))
    assert row == {"id": 1, "vector": vector, "payload.vector": "word", "payload.payload.id": 2, "a": None}

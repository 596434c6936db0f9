"""Rows into a folder of Qdrant's local mode, which qdrant-client then opens."""

import fcntl
import pickle
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient
from qdrant_client.http import models

from memkeep.engines import pickle_write, pickles
from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.qdrant_local import QdrantLocalEngine
from memkeep.engines.rows import Columns, RowEngine
from memkeep.errors import RefusedError, StoreError
from memkeep.model import Part, Role, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

MAP = TableMap(collection="mem0", table="mem0", id="id", fields={"text": "data", "user": "user_id", "updated_at": "at"})
UUID = "0f7e8a7e-1111-4222-8333-123456789abc"
ENGINE = QdrantLocalEngine()


def f32(*numbers: float) -> Vector:
    return Vector.f32(struct.pack(f"<{len(numbers)}f", *numbers))


ROWS: list[Row] = [
    {"id": 1, "data": "naïve 🙂", "user_id": "ana", "vector": f32(0.1, -3e38), "payload.id": 7},
    {"id": UUID, "data": None, "tags": ["a", {"b": [1.5, None, True]}], "empty": {}, "list": [], "vector": f32(1, 2)},
    {"id": (1 << 64) - 1, "big": -(1 << 63), "huge": 1 << 70, "inf": float("-inf"), "vector": f32(0, 1)},
    {
        "id": 4,
        "vector.words": Vector(data=struct.pack("<2I2f", 0, 9, 0.5, -1), type="sparse", dims=2),
        "vector.late": Vector(data=struct.pack("<4f", 1, 2, 3, 4), type="multi", dims=2),
    },
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an empty collection of one unnamed vector, and one of a sparse and several."""
    folder = tmp_path / "store"
    client = QdrantClient(path=str(folder))
    dense = models.VectorParams(size=2, distance=models.Distance.COSINE)
    client.create_collection("mem0", vectors_config=dense)
    late = models.VectorParams(
        size=2,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(
        "named", vectors_config={"late": late}, sparse_vectors_config={"words": models.SparseVectorParams()}
    )
    client.close()
    return folder


def part(folder: Path, name: str = "mem0") -> Part:
    inside = f"collection/{name}/storage.sqlite"
    map_ = TableMap(collection=name, table=name, id="id", fields=MAP.fields)
    return Part(name=inside, engine="qdrant-local", role=Role.CANONICAL, path=str(folder / inside), maps=(map_,))


def merged(live: Part, rows: list[Row], conflict: Conflict = "skip", **more: Any) -> Merged:
    with ENGINE.merge_rows(
        live, {live.maps[0].table: lambda: iter([rows[:1], rows[1:]])}, Wanted(conflict=conflict, **more)
    ) as one:
        one.commit()
        return one.result


def rows_of(live: Part, scratch: Path) -> dict[Any, Row]:
    scratch.mkdir()
    with ENGINE.freeze(live, Path(live.path).parents[2], scratch) as opened:
        return {row["id"]: row for batch in opened.rows(live.maps[0]) for row in batch}


def test_rows_are_points_for_the_client_and_the_same_rows_again(folder: Path, tmp_path: Path) -> None:
    for name, some in (("mem0", ROWS[:3]), ("named", ROWS[3:])):
        live = part(folder, name)
        assert merged(live, some).tables == {name: Counts(inserted=len(some))}
        assert rows_of(live, tmp_path / name) == {row["id"]: row for row in some}
        assert merged(live, some).tables == {name: Counts(same=len(some))}
    client = QdrantClient(path=str(folder))
    try:
        assert client.count("mem0").count == 3
        [one] = client.retrieve("mem0", [1], with_vectors=True)
        assert one.payload == {"data": "naïve 🙂", "user_id": "ana", "id": 7}
        assert client.query_points("mem0", query=[1.0, 2.0], limit=1).points[0].id == UUID
        [four] = client.retrieve("named", [4], with_vectors=True)
        assert isinstance(four.vector, dict)
        assert four.vector["words"] == models.SparseVector(indices=[0, 9], values=[0.5, -1.0])
        client.upsert("mem0", [models.PointStruct(id=1, vector=[1.0, 1.0], payload={"data": "again"})])
    finally:
        client.close()
    assert rows_of(part(folder), tmp_path / "again")[1] == {"id": 1, "data": "again", "vector": f32(1, 1)}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"id": "note"}, "neither a UUID nor"),
        ({"id": UUID.upper()}, "a row before it has the same id"),
        ({"id": 2, "vector": f32(1)}, "its vector has 1 dimensions, the collection takes 2"),
        ({"id": 2, "vector.x": f32(1, 2)}, "the collection has no vector x"),
        ({"id": 2, "data": object()}, "no plain data"),
        ({"id": 2, "data": {1: 2}}, "a key that is no text"),
        ({"id": 2, "data": 1 << 200}, "more digits"),
        ({"id": 2, "\ud800": 1}, "a key that is no text"),
        ({"id": 2, "data": ["\udcff"]}, "no Unicode"),
        ({"id": 2, "data": b"\xff"}, "bytes, which is no plain data"),
    ],
)
def test_a_bad_row_is_named_and_the_others_go_in(folder: Path, tmp_path: Path, bad: Row, why: str) -> None:
    done = merged(part(folder), [ROWS[1], bad, ROWS[0]])
    assert done.tables == {"mem0": Counts(inserted=2)}
    [failed] = done.failed
    assert (failed.table, failed.id, why in failed.reason) == ("mem0", str(bad["id"]), True)
    assert rows_of(part(folder), tmp_path / "after").keys() == {1, UUID}


@pytest.mark.parametrize(("conflict", "text"), [("skip", "old"), ("update", "new"), ("newer", "new")])
def test_what_a_row_does_not_have_stays_to_the_last_bit(folder: Path, conflict: Conflict, text: str) -> None:
    exact = [0.1, 1 / 3]  # not numbers of float32
    client = QdrantClient(path=str(folder))
    client.upsert("mem0", [models.PointStruct(id=1, vector=exact, payload={"data": "old", "at": "2026-01-01"})])
    client.close()
    live = part(folder)
    assert merged(live, [{"id": 1, "data": "old", "vector": f32(*exact)}], conflict).tables["mem0"] == Counts(same=1)
    done = merged(live, [{"id": 1, "data": "new", "at": "2026-02-01"}], conflict)
    assert done.tables["mem0"] == (Counts(skipped=1) if conflict == "skip" else Counts(updated=1))
    assert done.conflicts == ("mem0:1",)
    client = QdrantClient(path=str(folder))
    try:
        [point] = client.retrieve("mem0", [1])
        assert point.payload == {"data": text, "at": "2026-01-01" if conflict == "skip" else "2026-02-01"}
    finally:
        client.close()
    with closing(sqlite3.connect(live.path)) as con:
        [[stored]] = con.execute("SELECT point FROM points").fetchall()
    assert pickle.loads(stored).vector == exact  # noqa: S301 - written here


def test_nothing_is_there_without_commit_and_nobody_else_meanwhile(folder: Path, tmp_path: Path) -> None:
    live = part(folder)
    with ENGINE.merge_rows(live, {"mem0": lambda: iter([ROWS[:3]])}, Wanted(conflict="skip")) as one:
        assert one.result.tables == {"mem0": Counts(inserted=3)}
        with (folder / ".lock").open("rb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as the client does
    assert rows_of(live, tmp_path / "after") == {}
    client = QdrantClient(path=str(folder))
    try:
        with pytest.raises(RefusedError):
            merged(live, ROWS[:1])
    finally:
        client.close()


def test_columns_are_what_the_collection_takes(folder: Path) -> None:
    assert isinstance(ENGINE, RowEngine)
    assert ENGINE.columns(part(folder), "mem0") == Columns(names=("id", "vector"), vectors={"vector": 2})
    named = ENGINE.columns(part(folder, "named"), "named")
    assert named is not None
    assert named.vectors == {"vector.late": 2, "vector.words": 0}
    assert ENGINE.columns(part(folder), "other") is None
    assert ENGINE.columns(part(folder, "other"), "other") is None
    with pytest.raises(StoreError, match="no records that are known"):
        merged(Part(name="x", engine="qdrant-local", role=Role.CANONICAL, path="/nowhere/other/x", maps=(MAP,)), [])


def test_only_one_users_rows_go_in_and_unknown_tables_are_named(folder: Path) -> None:
    rows = [{"id": i, "user_id": f"u{i % 2}", "vector": f32(1, i)} for i in range(4)]
    assert merged(part(folder), rows, users=("u1",)).tables == {"mem0": Counts(inserted=2)}
    with ENGINE.merge_rows(part(folder), {"other": lambda: iter([rows])}, Wanted(conflict="skip")) as one:
        assert one.result.left == ("other is left out: the store has no such table",)


@pytest.mark.parametrize("value", [None, 1.5, "é\0🙂", 1 << 100, [], {}, [[1.0], {"a": []}], {"a": {"b": ["c", None]}}])
def test_what_is_written_python_and_the_own_reader_read(value: Any) -> None:
    data = pickle_write.dumps(value)
    assert pickle.loads(data) == value  # noqa: S301 - written here
    assert pickles.plain(pickles.loads(data)) == value

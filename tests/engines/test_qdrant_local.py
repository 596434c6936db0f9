import base64
import json
import pickle
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client.http import models

from memkeep.engines.qdrant_local import QdrantLocalEngine, QdrantLocalOpened
from memkeep.engines.rows import RowReader
from memkeep.errors import StoreError
from memkeep.model import Part, Role, TableMap
from memkeep.records.record import Vector
from memkeep.records.view import rows_by_id

MAP = TableMap(collection="things", table="things", id="id", fields={"text": "data", "scope": "user_id"})
NAME = "collection/things/storage.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that qdrant-client made, with points of every kind."""
    folder = tmp_path / "store"
    client = QdrantClient(path=str(folder))
    dense = models.VectorParams(size=8, distance=models.Distance.COSINE)
    many = models.VectorParams(
        size=2,
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(
        "things", vectors_config={"": dense, "many": many}, sparse_vectors_config={"bm25": models.SparseVectorParams()}
    )
    client.upsert(
        "things",
        [
            models.PointStruct(id=7, vector={"": [3.0, 4.0, 0, 0, 0, 0, 0, 0]}, payload={"data": "number", "n": 1.5}),
            models.PointStruct(
                id="0f7e8a7e-1111-4222-8333-123456789abc",
                vector={"": _vector(1), "bm25": models.SparseVector(indices=[9, 2], values=[0.5, 0.25])},
                payload={
                    "data": "naïve 🙂",
                    "user_id": "42",
                    "nested": {"a": [1.0, 2.0, 3.0, 4.0, None]},
                    "none": None,
                },
            ),
            models.PointStruct(id=2**63, vector={"many": [[1.0, 2.0], [3.0, 4.0]]}, payload=None),
            *(
                models.PointStruct(id=100 + n, vector={"": _vector(n)}, payload={"data": f"text {n}", "user_id": "u"})
                for n in range(40)
            ),
        ],
    )
    client.create_collection("plain", vectors_config=dense)
    client.upsert("plain", [models.PointStruct(id=1, vector=_vector(3), payload={"data": "unnamed"})])
    client.close()
    return folder


def _vector(seed: int) -> list[float]:
    return [((seed * 37 + place * 11) % 23 - 11) / 7 for place in range(8)]


def _part(folder: Path, collection: str = "things", *maps: TableMap) -> Part:
    name = f"collection/{collection}/storage.sqlite"
    return Part(name=name, engine="qdrant-local", role=Role.CANONICAL, path=str(folder / name), maps=maps or (MAP,))


@contextmanager
def _frozen(folder: Path, tmp_path: Path) -> Iterator[QdrantLocalOpened]:
    scratch = tmp_path / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with QdrantLocalEngine().freeze(_part(folder), folder, scratch) as opened:
        yield opened


def _records(opened: QdrantLocalOpened) -> dict[str, dict[str, Any]]:
    return {key: row for group in opened.scan({}) for key, row in rows_by_id(MAP, group.data).items()}


def test_every_kind_of_point_becomes_a_record(folder: Path, tmp_path: Path) -> None:
    with _frozen(folder, tmp_path) as opened:
        records = _records(opened)
        baseline = opened.baseline()
        assert opened.findings() == opened.check() == []
    assert len(records) == 43
    assert records["7"]["text"] == "number"
    assert records["7"]["n"] == 1.5
    assert records["7"]["vector"]["dims"] == 8
    uuid = records["0f7e8a7e-1111-4222-8333-123456789abc"]
    assert (uuid["text"], uuid["scope"], uuid["none"]) == ("naïve 🙂", "42", None)
    assert uuid["nested"] == {"a": [1.0, 2.0, 3.0, 4.0, None]}
    assert (uuid["vector.bm25"]["type"], uuid["vector.bm25"]["dims"]) == ("sparse", 2)
    assert records[str(2**63)]["vector.many"]["type"] == "multi"
    assert baseline.tables["things"].rows == 43
    assert baseline.facts["summary"]["things"]["scope"] == {"42": 1, "u": 40}
    assert baseline.facts["vectors"]["things.vector"] == {"count": 42, "dims": {"8": 42}, "missing": 1}


def test_the_image_is_read_as_the_live_collection_was(folder: Path, tmp_path: Path) -> None:
    with _frozen(folder, tmp_path) as opened:
        records, live = _records(opened), opened.baseline()
        image = tmp_path / "image" / NAME
        image.parent.mkdir(parents=True)
        image.write_bytes(b"".join(opened.stream(opened.entries()[0])))
    assert image.read_bytes() == (folder / NAME).read_bytes()
    with QdrantLocalEngine().open(_part(folder), tmp_path / "image") as again:
        assert {
            key: row for group in again.scan({}, live.probes) for key, row in rows_by_id(MAP, group.data).items()
        } == records
        assert again.baseline() == live


def test_the_nearest_are_those_that_the_client_finds(folder: Path, tmp_path: Path) -> None:
    with _frozen(folder, tmp_path) as opened:
        list(opened.scan({}))
        probes = opened.baseline().probes
    client = QdrantClient(path=str(folder))
    try:
        for probe in probes:
            asked = int(probe.question) if probe.question.isdecimal() else probe.question
            near = client.query_points("things", query=asked, using="", limit=10).points
            best = [round(1.0, 4), *(round(point.score, 4) for point in near)]  # the client leaves out the point itself
            assert [round(score, 4) for score in probe.scores] == best[: len(probe.scores)]
    finally:
        client.close()
    assert [probe.column for probe in probes] == ["vector"] * len(probes)
    assert len(probes) >= 2


@pytest.mark.parametrize("distance", ["Dot", "Euclid", "Manhattan"])
def test_questions_are_asked_by_the_distance_of_the_collection_and_so_again_of_its_image_alone(
    tmp_path: Path, distance: str
) -> None:
    folder, chance = tmp_path / "store", np.random.default_rng(7)
    client = QdrantClient(path=str(folder))
    try:
        client.create_collection("things", models.VectorParams(size=8, distance=models.Distance(distance)))
        client.upsert(
            "things",
            [models.PointStruct(id=n, vector=(chance.normal(size=8) * n).tolist(), payload={}) for n in range(1, 41)],
        )
        with _frozen(folder, tmp_path) as opened:
            list(opened.scan({}))
            live = opened.baseline()
            image = tmp_path / "image" / NAME
            image.parent.mkdir(parents=True)
            image.write_bytes(b"".join(opened.stream(opened.entries()[0])))
        assert len(live.probes) == 4
        for probe in live.probes:
            [asked] = client.retrieve("things", [int(probe.question)], with_vectors=True)
            near = client.query_points("things", query=asked.vector, limit=5).points
            assert list(probe.ids) == [str(point.id) for point in near]
            assert probe.scores == pytest.approx([point.score for point in near], rel=1e-5, abs=1e-3)
    finally:
        client.close()
    with QdrantLocalEngine().open(_part(folder), tmp_path / "image") as again:
        list(again.scan({}, live.probes))
        assert again.baseline() == live
        list(again.scan({}, tuple(msgspec.structs.replace(probe, metric="") for probe in live.probes)))
        assert {probe.metric for probe in again.baseline().probes} == {"Cosine"}  # as it was before it was said


def test_it_is_frozen_while_its_owner_has_it_locked(folder: Path, tmp_path: Path) -> None:
    client = QdrantClient(path=str(folder))
    try:
        with _frozen(folder, tmp_path) as opened:
            assert len(_records(opened)) == 43
            assert not opened.moved()
            client.upsert("things", [models.PointStruct(id=1, vector={"": _vector(5)}, payload={"data": "later"})])
            assert opened.moved()
            assert len(_records(opened)) == 43
        with _frozen(folder, tmp_path) as opened:
            assert _records(opened)["1"]["text"] == "later"
    finally:
        client.close()


def test_live_points_are_counted_by_the_name_of_the_collection(folder: Path) -> None:
    assert QdrantLocalEngine().count(_part(folder), "things") == 43
    assert QdrantLocalEngine().count(_part(folder), "points") is None


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_points_are_rows_value_for_value(folder: Path, tmp_path: Path) -> None:
    with _frozen(folder, tmp_path) as opened:
        assert isinstance(opened, RowReader)
        rows = {row["id"]: row for batch in opened.rows(MAP) for row in batch}
        with pytest.raises(StoreError, match="other"):
            list(opened.rows(TableMap(collection="other", table="other", id="id")))
    client = QdrantClient(path=str(folder))
    points = client.scroll("things", limit=100, with_vectors=True)[0]
    client.close()
    assert len(rows) == len(points) == 43
    for point in points:
        row = dict(rows[point.id])
        vectors = {name: row.pop(name) for name in list(row) if isinstance(row[name], Vector)}
        assert row == {"id": point.id} | (point.payload or {})
        named = point.vector if isinstance(point.vector, dict) else {"": point.vector}
        for name, vector in named.items():
            stored = vectors.pop(f"vector.{name}" if name else "vector")
            if isinstance(vector, models.SparseVector):
                assert struct.unpack(f"<{stored.dims}I{stored.dims}f", stored.data) == pytest.approx(
                    (*vector.indices, *vector.values)
                )
            else:
                assert np.frombuffer(stored.data, "<f4") == pytest.approx(np.asarray(vector, "f4").ravel())
        assert vectors == {}


def test_rows_have_what_json_has_not_and_say_which_could_not_be_read(folder: Path, tmp_path: Path) -> None:
    odd = {"inf": float("inf"), "blob": b"\x00", "huge": 1 << 70, "half": "\ud800"}
    _put(folder, (1, _pickled(1, payload=odd)), (2, b"\x80\x04"))
    found: dict[Any, Any] = {}
    with _frozen(folder, tmp_path) as opened:

        def read() -> None:
            for batch in opened.rows(MAP):
                found.update({row["id"]: row for row in batch})

        with pytest.raises(StoreError, match="1 points of things can't be read: 2: "):
            read()
    assert found[1] == {"id": 1} | odd
    assert len(found) > 40


def _put(folder: Path, *rows: tuple[Any, bytes]) -> None:
    with closing(sqlite3.connect(folder / NAME)) as connection, connection:
        for record, data in rows:
            key = base64.b64encode(pickle.dumps(record, protocol=4)).decode()
            connection.execute("INSERT OR REPLACE INTO points VALUES (?, ?)", (key, data))


def _pickled(record: Any, vector: Any = None, payload: Any = None) -> bytes:
    return pickle.dumps(models.PointStruct.model_construct(id=record, vector=vector, payload=payload))


def test_a_point_that_would_run_something_is_named_and_the_others_are_read(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    _put(folder, (1, pickle.dumps(Trap(mark))), (2, _pickled(2, payload={"data": Trap(mark)})), (7, b"\x80\x04"))
    with _frozen(folder, tmp_path) as opened:
        records = _records(opened)
        found = {one.record: one for one in opened.findings()}
    assert not mark.exists()
    assert len(records) == 42
    assert "7" not in records
    assert set(found) == {"1", "2", "7"}
    assert {one.code for one in found.values()} == {"qdrant_point_unreadable"}
    assert "which is not data" in found["1"].message


@pytest.mark.parametrize(
    "point",
    [
        _pickled(None),
        _pickled(True),
        _pickled(8.5),
        _pickled(9),  # under another id's key
        _pickled(1, vector=["a"]),
        _pickled(1, vector="abc"),
        _pickled(1, vector={"s": models.SparseVector.model_construct(indices=[1], values=[])}),
        _pickled(1, vector={"s": models.SparseVector.model_construct(indices=[-1], values=[1.0])}),
        _pickled(1, payload=[1]),
        _pickled(1, payload={1: 2}),
        _pickled(1, payload={"\ud800": 2}),
        pickle.dumps([1, 2]),
        b"",
    ],
)
def test_a_point_that_is_none_is_named(folder: Path, tmp_path: Path, point: bytes) -> None:
    _put(folder, (1, point))
    with _frozen(folder, tmp_path) as opened:
        assert len(_records(opened)) == 43
        assert [one.record for one in opened.findings()] == ["1"]


def test_odd_values_of_payloads_are_kept_as_far_as_json_goes(folder: Path, tmp_path: Path) -> None:
    odd = {"bytes": b"abc", "nan": float("nan"), "big": 2**70, "half": "\ud800", "id": "other", "key": {"\udfff": 1}}
    _put(folder, (1, _pickled(1, vector=[1, 2.0], payload=odd)))
    with _frozen(folder, tmp_path) as opened:
        record = _records(opened)["1"]
        assert opened.findings() == []
    assert record["bytes"]["bytes"] == 3
    assert record["nan"] == {"float": "nan"}
    assert record["big"] == str(2**70)
    assert record["half"] == {"text": "eda080"}
    assert record["payload.id"] == "other"
    assert record["vector"]["dims"] == 2


def test_of_a_point_that_is_there_twice_the_later_one_counts(folder: Path, tmp_path: Path) -> None:
    uuid = "0f7e8a7e-1111-4222-8333-123456789abc"
    _put(folder, (uuid.upper(), _pickled(uuid.upper(), payload={"data": "later"})))
    with _frozen(folder, tmp_path) as opened:
        records = _records(opened)
        assert [one.code for one in opened.findings()] == ["qdrant_outdated"]
    assert len(records) == 43
    assert records[uuid]["text"] == "later"


def test_vectors_are_hashed_as_float32(folder: Path, tmp_path: Path) -> None:
    from memkeep.records.groups import vector_cell

    with _frozen(folder, tmp_path) as opened:
        records = _records(opened)
    given = struct.pack("<8f", 3.0, 4.0, 0, 0, 0, 0, 0, 0)  # as given, not of unit length
    assert records["7"]["vector"] == vector_cell(given, dims=8)


def test_a_database_that_is_damaged_is_said_and_kept_as_it_is(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / NAME).read_bytes())
    data[4096:8192] = bytes(4096)
    (folder / NAME).write_bytes(data)
    with _frozen(folder, tmp_path) as opened:
        list(opened.scan({}))
        codes = {one.code for one in (*opened.findings(), *opened.check())}
        assert codes & {"qdrant_unreadable", "sqlite_integrity", "sqlite_unreadable"}
        assert b"".join(opened.stream(opened.entries()[0])) == bytes(data)


def test_every_part_of_meta_json_is_plain(folder: Path) -> None:
    assert set(json.loads((folder / "meta.json").read_text())["collections"]) == {"things", "plain"}


def test_a_writer_at_work_leaves_whole_batches_in_every_moment(
    folder: Path, tmp_path: Path, agent: Callable[..., Any]
) -> None:
    code = """
    import sys
    from qdrant_client import QdrantClient
    from qdrant_client.http import models
    client = QdrantClient(path=sys.argv[1])
    print("ready", flush=True)
    for n in range(1000, 100000):
        client.upsert("things", [models.PointStruct(id=n, vector={"": [1.0] * 8}, payload={"data": str(n)})])
    """
    assert agent(code, folder).hear() == "ready"
    last = 43
    for _ in range(3):
        with _frozen(folder, tmp_path) as opened:
            records = _records(opened)
            assert opened.held()
            assert opened.findings() == []
        new = sorted(int(one) for one in records if one.isdecimal() and 1000 <= int(one) < 100000)
        assert new == list(range(1000, 1000 + len(new)))
        assert len(records) >= last
        last = len(records)

"""What a collection is in a snapshot: every point, payload and vector that the server has, and nothing else."""

import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines.qdrant.conftest import KINDS, Client, odd_point, plain_points, rows_of, vector, write_out

from memkeep.engines import qdrant_edge
from memkeep.engines.qdrant import QdrantEngine
from memkeep.engines.qdrant_edge import Point, Sparse
from memkeep.engines.qdrant_http import address
from memkeep.engines.qdrant_ids import UnknownLayoutError
from memkeep.engines.qdrant_image import CollectionImage
from memkeep.engines.qdrant_rebuild import Rebuilder
from memkeep.errors import StoreError, UsageError
from memkeep.events import SILENT
from memkeep.model import Part, Probe
from memkeep.testing.qdrant_server import qdrant

Parts = Callable[..., Part]


def as_told(found: dict[str, Any]) -> Point:
    """Return a point as the server tells it in the form that the engine gives it."""
    told = found["vector"] if isinstance(found["vector"], dict) else {"": found["vector"]}
    return Point(found["id"], found["payload"], {name: _vector(one) for name, one in told.items()})


def _vector(told: Any) -> Any:
    if isinstance(told, dict):
        return Sparse(tuple(told["indices"]), tuple(told["values"]))
    if told and isinstance(told[0], list):
        return tuple(struct.pack(f"<{len(row)}f", *row) for row in told)
    return struct.pack(f"<{len(told)}f", *told)


def rounded(point: Point) -> Point:
    """Return a point whose sparse values are those that four bytes can hold."""
    vectors = {
        name: Sparse(one.indices, tuple(struct.unpack("<f", struct.pack("<f", value))[0] for value in one.values))
        if isinstance(one, Sparse)
        else one
        for name, one in point.vectors.items()
    }
    return Point(point.id, point.payload, vectors)


@pytest.mark.parametrize("plain", [True, False])
def test_every_point_of_every_kind_is_read_as_the_server_has_it(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, *, plain: bool
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(120)])
    client.put(name, [odd_point(i, seed=1000) for i in range(0, 40, 3)])
    client.delete(name, [1, 3, odd_point(4)["id"]])
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        read = {
            point.id: rounded(point) for stream in opened.streams(plain=plain) for batch in stream for point in batch
        }
    told = {ident: rounded(as_told(point)) for ident, point in client.points(name).items()}
    assert read == told
    assert len(read) == 117


@pytest.mark.parametrize("quantised", [True, False])
def test_an_indexed_collection_is_read_as_the_server_has_it(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, *, quantised: bool
) -> None:
    more = {"quantization_config": {"scalar": {"type": "int8", "always_ram": True}}} if quantised else {}
    name = client.make(64, optimizers_config={"indexing_threshold": 10, "default_segment_number": 2}, **more)
    points = plain_points(0, 300, 64)
    for point in points[1::2]:
        point["id"] = str(uuid.UUID(int=point["id"] * 2**70 + 7))
    client.put(name, points)
    client.wait_until_idle(name)
    client.ask("PUT", f"/collections/{name}/index?wait=true", {"field_name": "user_id", "field_schema": "keyword"})
    client.delete(name, list(range(10)))
    client.put(name, plain_points(20, 10, 64, batch=1))
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        read = {point.id: point for stream in opened.streams(plain=True) for batch in stream for point in batch}
        shard = opened._shard(0, plain=True)
        assert shard.plain, "vectors were not read from the files"
        shard.close()
        assert opened.image.indexes == {"user_id": "keyword"}
    assert read == {ident: as_told(point) for ident, point in client.points(name).items()}


def test_a_scan_finds_the_same_in_the_files_and_by_the_engine(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(900)])
    client.put(name, [odd_point(i, seed=1000) for i in range(0, 90, 3)])
    client.delete(name, [1, 3, odd_point(4)["id"]])
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        fast, by_files = rows_of(opened), opened.baseline()

        def unknown(_: object) -> None:
            raise UnknownLayoutError

        monkeypatch.setattr(qdrant_edge, "Shelf", unknown)
        slow, by_engine = rows_of(opened), opened.baseline()
    assert fast == slow
    assert len(fast) == 897
    assert by_files.tables == by_engine.tables
    assert by_files.facts["vectors"] == by_engine.facts["vectors"]
    assert by_files.probes


def test_records_have_payload_keys_as_columns_and_vectors_by_name(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(1, 10)])
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        rows = rows_of(opened)
        baseline = opened.baseline()
    assert rows["3"]["n"] == {"a": [1, 2, {"b": None}], "u": "žluťoučký 🐎"}
    assert rows["3"]["big"] == 2**63 - 1
    assert rows["9"]["payload.id"] == "its own"
    assert rows["9"]["payload.vector.far"] == 3
    assert rows["9"]["vector.far"]["dims"] == 48
    assert baseline.tables[name].rows == 9
    assert baseline.facts["vectors"][f"{name}.vector.cosine"] == {"count": 8, "dims": {"64": 8}, "missing": 1}
    assert baseline.facts["normalised"] == ["vector.cosine", "vector.late"]


def test_an_image_is_read_without_the_server_and_stays_as_it_is(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, tree_hash: Callable[[Path], Any]
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 300))
    root = tmp_path / "root"
    with engine.freeze(part(name), tmp_path, tmp_path / "scratch") as opened:
        rows, live = rows_of(opened), opened.baseline()
        write_out(opened, root)
    assert live.facts.pop("recall"), "the live server was not asked"
    before = tree_hash(root)
    with engine.open(part(name), root) as image:
        assert rows_of(image) == rows
        assert image.baseline() == live
        assert image.check() == []
        assert not image.moved()
    assert tree_hash(root) == before


def test_the_answers_are_those_of_the_server_s_own_exact_search(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(1, 200)])
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        rows_of(opened)
        probes = opened.baseline().probes
        again = opened.scan({}, probes)
        assert list(again)
        assert opened.baseline().probes == probes
    assert {probe.column for probe in probes} == {"vector.bytes", "vector.cosine", "vector.far", "vector.half"}
    for probe in probes:
        body = {
            "query": int(probe.question) if probe.question.isdecimal() else probe.question,
            "using": probe.column.removeprefix("vector."),
            "params": {"exact": True},
            "limit": 10,
        }
        asked = client.ask("POST", f"/collections/{name}/points/query", body)["points"]
        told = [(str(one["id"]), one["score"]) for one in asked]
        mine = [one for one in zip(probe.ids, probe.scores, strict=True) if one[0] != probe.question]
        for (_, score), (_, other) in zip(mine, told, strict=False):
            assert score == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_a_question_about_a_point_that_is_gone_has_no_answer(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 20))
    gone = Probe(kind="vector", table=name, column="vector", question="99", ids=("99",), scores=(1.0,))
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        assert list(opened.scan({}, (gone,)))
        assert [probe.ids for probe in opened.baseline().probes] == [()]


def test_an_empty_collection_is_a_snapshot_too(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make()
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        assert rows_of(opened) == {}
        assert opened.baseline().tables[name].rows == 0
        assert opened.findings() == []


def test_the_image_knows_aliases_indexes_and_settings(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make(hnsw_config={"m": 24})
    client.ask("POST", "/collections/aliases", {"actions": [{"create_alias": _alias(name, f"{name}-now")}]})
    text = {"type": "text", "tokenizer": "word", "lowercase": True}
    client.ask("PUT", f"/collections/{name}/index?wait=true", {"field_name": "data", "field_schema": text})
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        image = opened.image
    assert image.aliases == (f"{name}-now",)
    assert image.indexes["data"]["tokenizer"] == "word"
    assert image.config["hnsw_config"]["m"] == 24


def test_nothing_is_left_on_the_server(client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path) -> None:
    name = client.make()
    client.put(name, plain_points(0, 20))
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        rows_of(opened)
    assert client.ask("GET", f"/collections/{name}/snapshots") == []
    assert client.ask("GET", f"/collections/{name}/shards/0/snapshots") == []
    assert [one for one in (client.server.folder / "snapshots").rglob("*.snapshot") if name in one.name] == []


def test_a_write_after_the_moment_is_noticed(client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path) -> None:
    name = client.make()
    client.put(name, plain_points(0, 20))
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        assert not opened.moved()
        client.ask("POST", f"/collections/{name}/points/payload?wait=true", {"payload": {"x": 1}, "points": [3]})
        assert opened.moved()


def test_runs_tell_where_vectors_lie(client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path) -> None:
    name = client.make(256)
    client.put(name, plain_points(0, 50, 256))
    kept = {struct.pack("<256f", *point["vector"]) for point in client.points(name).values()}
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        found = set()
        for entry in opened.entries():
            data = b"".join(opened.stream(entry))
            for run in opened.runs(entry):
                blocks = [data[run.offset + i * run.stride :][: run.stride] for i in range(run.count)]
                found.update(blocks)
    assert found == kept


def test_a_look_at_the_server_tells_its_collections(client: Client, engine: QdrantEngine) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(30)])
    seen = engine.inspect(client.server.url(name))
    assert seen.version == "1.16.3"
    assert [(table.name, table.rows, table.key) for table in seen.tables] == [(name, 30, "id")]
    assert seen.tables[0].vectors == {
        "vector.cosine": 64,
        "vector.half": 32,
        "vector.bytes": 16,
        "vector.late": 0,
        "vector.far": 48,
        "vector.words": 0,
        "vector.bm25": 0,
    }
    assert seen.tables[0].columns["data"] == "text"
    assert seen.tables[0].columns["payload.id"] == "text"
    assert name in {table.name for table in engine.inspect(client.server.url()).tables}


def test_a_live_collection_is_counted(client: Client, engine: QdrantEngine, part: Parts) -> None:
    name = client.make()
    client.put(name, plain_points(0, 33))
    assert engine.count(part(name), name) == 33
    assert engine.count(part(name), "another") is None
    assert engine.count(part("nowhere"), "nowhere") is None


def test_a_missing_collection_is_said(engine: QdrantEngine, part: Parts, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as told, engine.freeze(part("nowhere"), tmp_path, tmp_path):
        pass
    assert told.value.code == "store_missing"


def test_a_server_that_is_not_there_is_said(engine: QdrantEngine, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as told:
        engine.inspect("qdrant://127.0.0.1:9/notes")
    assert told.value.code == "store_unreachable"


def test_another_url_is_refused(engine: QdrantEngine) -> None:
    with pytest.raises(UsageError):
        engine.inspect("http://127.0.0.1:6333/notes")


def test_the_key_comes_from_the_environment_or_a_file_and_is_shown_nowhere(
    engine: QdrantEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QDRANT_API_KEY", "QDRANT_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "server"
    folder.mkdir()
    keys = {"QDRANT__SERVICE__API_KEY": "sesame street", "QDRANT__SERVICE__READ_ONLY_API_KEY": "only looking"}
    with qdrant(folder, **keys) as running:
        with pytest.raises(StoreError) as told:
            engine.inspect(running.url())
        assert told.value.code == "store_denied"
        monkeypatch.setenv("QDRANT_API_KEY", "wrong wrong")
        with pytest.raises(StoreError) as told:
            engine.inspect(running.url())
        assert told.value.code == "store_denied"
        assert "wrong wrong" not in f"{told.value.message}{told.value.hint}"
        monkeypatch.setenv("QDRANT_API_KEY", "sesame street")
        assert engine.inspect(running.url()).tables == ()
        monkeypatch.setenv("QDRANT_API_KEY", "only looking")
        root = folder / "image"
        image = CollectionImage(collection="new", version="1.16.3", config={"params": {"vectors": {}}}, indexes={})
        with pytest.raises(StoreError, match="manage access is required") as told:
            Rebuilder(root, image, list, lambda *_: list, SILENT).rebuild(address(running.url("new")), replace=False)
        assert "of a key that may manage" in told.value.hint
        assert "left" not in told.value.unchanged


def _alias(name: str, alias: str) -> dict[str, str]:
    return {"collection_name": name, "alias_name": alias}


def test_payloads_with_a_thousand_different_keys_are_read(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make()
    client.put(name, [{"id": i, "vector": vector(8, i), "payload": {f"key-{i}": i}} for i in range(1000)])
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        rows = rows_of(opened)
    assert rows["777"]["key-777"] == 777
    assert len(rows) == 1000

"""What is put into a server is what was taken out of one, or what was there stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines.qdrant.conftest import KINDS, Client, odd_point, plain_points, write_out

from memkeep.engines import qdrant_rebuild, qdrant_write
from memkeep.engines.qdrant import QdrantEngine
from memkeep.errors import RefusedError, StoreError
from memkeep.events import SILENT
from memkeep.model import Part
from memkeep.testing.qdrant_server import qdrant

Parts = Callable[..., Part]


@pytest.fixture
def kept(engine: QdrantEngine, part: Parts, tmp_path: Path) -> Callable[[str], tuple[Part, Path]]:
    def keep(name: str) -> tuple[Part, Path]:
        root = tmp_path / f"root-{name}"
        with engine.freeze(part(name), root, tmp_path / f"scratch-{name}") as opened:
            write_out(opened, root)
        return part(name), root

    return keep


def names(client: Client, like: str) -> list[str]:
    found = client.ask("GET", "/collections")["collections"]
    return sorted(one["name"] for one in found if one["name"].startswith(like))


def test_a_collection_of_every_kind_comes_back_as_it_was(
    client: Client, engine: QdrantEngine, kept: Callable[[str], tuple[Part, Path]]
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(120)])
    client.ask("PUT", f"/collections/{name}/index?wait=true", {"field_name": "data", "field_schema": "keyword"})
    client.ask("POST", "/collections/aliases", {"actions": [_alias(name, f"{name}-now")]})
    before, told = client.points(name), client.ask("GET", f"/collections/{name}")
    saved, root = kept(name)
    client.ask("DELETE", f"/collections/{name}")
    rebuilt = engine.rebuild(saved, root, saved.path, replace=False, events=SILENT)
    assert (rebuilt.rows, rebuilt.findings) == (120, ())
    assert client.points(name) == before
    after = client.ask("GET", f"/collections/{name}")
    assert (after["config"], after["payload_schema"]) == (told["config"], told["payload_schema"])
    assert client.ask("GET", f"/collections/{name}/aliases")["aliases"][0]["alias_name"] == f"{name}-now"


def test_several_shards_come_back(
    client: Client, engine: QdrantEngine, kept: Callable[[str], tuple[Part, Path]]
) -> None:
    name = client.make(shard_number=3)
    client.put(name, plain_points(0, 300))
    before = client.points(name)
    saved, root = kept(name)
    rebuilt = engine.rebuild(saved, root, client.server.url(f"{name}-copy"), replace=False, events=SILENT)
    assert (rebuilt.rows, rebuilt.findings) == (300, ())
    assert client.points(f"{name}-copy") == before


def test_what_is_there_is_not_replaced_unasked(
    client: Client, engine: QdrantEngine, kept: Callable[[str], tuple[Part, Path]]
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 10))
    saved, root = kept(name)
    assert engine.exists(saved, saved.path)
    assert not engine.exists(saved, f"{saved.path}-other")
    with pytest.raises(RefusedError) as told:
        engine.rebuild(saved, root, saved.path, replace=False, events=SILENT)
    assert told.value.code == "target_exists"


@pytest.mark.parametrize("same", [True, False])
def test_a_collection_that_is_there_is_replaced_whole(
    client: Client, engine: QdrantEngine, kept: Callable[[str], tuple[Part, Path]], *, same: bool
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 100))
    client.ask("PUT", f"/collections/{name}/index?wait=true", {"field_name": "user_id", "field_schema": "keyword"})
    before = client.points(name)
    saved, root = kept(name)
    if same:
        client.put(name, plain_points(50, 200, batch=7))
        client.ask("PUT", f"/collections/{name}/index?wait=true", {"field_name": "batch", "field_schema": "integer"})
    else:
        client.ask("DELETE", f"/collections/{name}")
        client.ask("PUT", f"/collections/{name}", {"vectors": {"size": 3, "distance": "Dot"}})
    engine.rebuild(saved, root, saved.path, replace=True, events=SILENT)
    assert client.points(name) == before
    assert set(client.ask("GET", f"/collections/{name}")["payload_schema"]) == {"user_id"}
    assert names(client, name) == [name]


def test_a_server_that_refuses_the_files_is_given_the_points(
    client: Client,
    engine: QdrantEngine,
    kept: Callable[[str], tuple[Part, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(120)])
    before = client.points(name)
    saved, root = kept(name)

    def refuse(*_: object) -> None:
        raise StoreError("the version is another")

    monkeypatch.setattr(qdrant_write, "upload", refuse)
    rebuilt = engine.rebuild(saved, root, client.server.url(f"{name}-copy"), replace=False, events=SILENT)
    assert rebuilt.rows == 120
    assert "qdrant_as_points" in {finding.code for finding in rebuilt.findings}
    assert client.points(f"{name}-copy").keys() == before.keys()
    assert {i: p["payload"] for i, p in client.points(f"{name}-copy").items()} == {
        i: p["payload"] for i, p in before.items()
    }


def test_damaged_files_leave_what_is_there(
    client: Client, engine: QdrantEngine, kept: Callable[[str], tuple[Part, Path]]
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 100))
    saved, root = kept(name)
    client.put(name, plain_points(200, 10))
    before = client.points(name)
    for path in root.rglob("segment.json"):
        path.write_bytes(b"{}")
    with pytest.raises(StoreError):
        engine.rebuild(saved, root, saved.path, replace=True, events=SILENT)
    assert client.points(name) == before
    assert names(client, name) == [name]


def test_what_reads_back_otherwise_does_not_count(
    client: Client,
    engine: QdrantEngine,
    kept: Callable[[str], tuple[Part, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 100))
    saved, root = kept(name)
    index = qdrant_write.index

    def meddle(server: Any, image: Any) -> None:
        index(server, image)
        server.send("POST", f"{server.where.path}/points/delete", {"points": [5]}, wait="true")

    monkeypatch.setattr(qdrant_rebuild.qdrant_write, "index", meddle)
    with pytest.raises(StoreError) as told:
        engine.rebuild(saved, root, client.server.url(f"{name}-copy"), replace=False, events=SILENT)
    assert told.value.code == "target_differs"
    assert names(client, name) == [name]


def test_when_the_last_step_fails_all_is_in_the_collection_beside(
    client: Client,
    engine: QdrantEngine,
    kept: Callable[[str], tuple[Part, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 100))
    before = client.points(name)
    saved, root = kept(name)
    upload = qdrant_write.upload

    def fail_in_place(server: Any, *more: Any) -> None:
        if server.where.collection == name:
            raise StoreError("unplugged", code="store_unreachable")
        upload(server, *more)

    monkeypatch.setattr(qdrant_write, "upload", fail_in_place)
    with pytest.raises(StoreError) as told:
        engine.rebuild(saved, root, saved.path, replace=True, events=SILENT)
    beside = [one for one in names(client, name) if one != name]
    assert len(beside) == 1
    assert beside[0] in told.value.unchanged
    assert client.points(beside[0]) == client.points(name) == before


def test_what_a_killed_server_may_have_left_is_named(
    client: Client,
    engine: QdrantEngine,
    kept: Callable[[str], tuple[Part, Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 10))
    saved, root = kept(name)
    with qdrant(tmp_path) as other:
        upload = qdrant_write.upload

        def unplugged(*words: Any) -> None:
            other.kill()
            upload(*words)

        monkeypatch.setattr(qdrant_write, "upload", unplugged)
        with pytest.raises(StoreError) as told:
            engine.rebuild(saved, root, other.url("begun"), replace=False, events=SILENT)
    assert told.value.code == "store_unreachable"
    assert "The collection begun may be left, half made" in told.value.unchanged
    assert f"curl -X DELETE {other.base}/collections/begun" in told.value.hint


def test_points_that_had_been_deleted_are_deleted_again(
    client: Client, engine: QdrantEngine, kept: Callable[[str], tuple[Part, Path]]
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 100))
    saved, root = kept(name)
    told = root / saved.name / "collection.json"
    told.write_text(told.read_text().replace('"deleted": []', '"deleted": [3, 4]'))
    rebuilt = engine.rebuild(saved, root, client.server.url(f"{name}-copy"), replace=False, events=SILENT)
    assert rebuilt.rows == 98
    assert set(range(100)) - set(client.points(f"{name}-copy")) == {3, 4}


def test_a_target_is_a_collection_named_or_one_of_the_same_name(engine: QdrantEngine, part: Parts) -> None:
    notes = part("notes")
    assert engine.aim(notes, "qdrant://there:1/other") == "qdrant://there:1/other"
    assert engine.aim(notes, "qdrant://there:1") == "qdrant://there:1/notes"


def _alias(name: str, alias: str) -> dict[str, Any]:
    return {"create_alias": {"collection_name": name, "alias_name": alias}}

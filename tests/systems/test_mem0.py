import base64
import json
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from memkeep.engines.base import ServerInspection, ServerTable
from memkeep.errors import StoreError
from memkeep.model import Store
from memkeep.systems.detect import discover
from memkeep.systems.look import Look

HISTORY = """
CREATE TABLE history(id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, new_memory TEXT, event TEXT,
  created_at DATETIME, updated_at DATETIME, is_deleted INTEGER, actor_id TEXT, role TEXT);
CREATE TABLE messages(id TEXT PRIMARY KEY, session_scope TEXT, role TEXT, content TEXT, name TEXT, created_at DATETIME);
"""
TYPESCRIPT = """
CREATE TABLE vectors(id TEXT PRIMARY KEY, vector BLOB NOT NULL, payload TEXT NOT NULL);
CREATE TABLE memory_migrations(id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL UNIQUE);
INSERT INTO vectors VALUES('a', x'0000803f0000803f', '{"data": "tea", "userId": "u"}');
"""
TYPESCRIPT_HISTORY = """
CREATE TABLE memory_history(id INTEGER PRIMARY KEY AUTOINCREMENT, memory_id TEXT NOT NULL, previous_value TEXT,
  new_value TEXT, action TEXT NOT NULL, created_at TEXT, updated_at TEXT, is_deleted INTEGER DEFAULT 0);
CREATE TABLE messages(id TEXT PRIMARY KEY, session_scope TEXT, role TEXT, content TEXT, name TEXT, created_at TEXT);
"""
SEGMENT = "5228cab3-a2f5-49a7-ad0f-ed91f278f3c7"
CHROMA = f"""
CREATE TABLE databases(id, name, tenant_id);
CREATE TABLE collections(id, name, dimension, database_id);
CREATE TABLE segments(id, type, scope, collection);
CREATE TABLE embeddings(id INTEGER PRIMARY KEY, segment_id, embedding_id, seq_id, created_at);
CREATE TABLE embedding_metadata(id INTEGER, key, string_value, int_value, float_value, bool_value);
CREATE TABLE embeddings_queue(seq_id INTEGER PRIMARY KEY, operation, topic, id, vector, encoding, metadata);
INSERT INTO databases VALUES('d', 'default_database', 'default_tenant');
INSERT INTO collections VALUES('c', 'mem0', 3, 'd');
INSERT INTO segments VALUES('{SEGMENT}', '', 'VECTOR', 'c'), ('m', '', 'METADATA', 'c');
INSERT INTO embeddings VALUES(1, 'm', 'one', 1, '');
INSERT INTO embedding_metadata(id, key, string_value) VALUES(1, 'data', 'tea'), (1, 'hash', 'h'), (1, 'user_id', 'u');
"""
PYTHON = {"data": "text", "hash": "h", "user_id": "u", "agent_id": "a", "created_at": "2026-03-01T08:14:52+00:00"}
CAMEL = {"data": "text", "hash": "h", "user_id": "u", "createdAt": "2026-03-01T08:14:52Z", "textLemmatized": "text"}
Databases = Callable[..., Path]


@pytest.fixture
def qdrant(make: Any) -> Callable[..., Path]:
    """Return `qdrant(folder, name=[payload, ...], ..., settings={})`: a folder of Qdrant's local mode."""

    def made(folder: Path, settings: dict[str, Any] | None = None, **collections: list[dict[str, Any]]) -> Path:
        from qdrant_client.http import models

        for name, payloads in collections.items():
            file = folder / "collection" / name / "storage.sqlite"
            make.database(file, "CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB);")
            with closing(sqlite3.connect(file)) as connection, connection:
                for number, payload in enumerate(payloads):
                    key = base64.b64encode(pickle.dumps(number, protocol=4)).decode()
                    point = models.PointStruct(id=number, vector=[1.0, float(number)], payload=payload)
                    connection.execute("INSERT INTO points VALUES (?, ?)", (key, pickle.dumps(point)))
        said = {name: {"vectors": {"size": 2, "distance": "Cosine", "on_disk": True}} for name in collections}
        (folder / "meta.json").write_text(json.dumps({"collections": said | (settings or {}), "aliases": {}}))
        (folder / ".lock").write_text("tmp lock file")
        return folder

    return made


def _only(path: Path) -> Store:
    [store] = discover([path])
    return store


def _maps(store: Store) -> dict[str, dict[str, str]]:
    return {each.collection: each.fields for part in store.parts for each in part.maps}


def test_a_history_with_a_qdrant_folder_below_it_is_one_store(
    tmp_path: Path, make: Any, qdrant: Callable[..., Path], complete: Callable[..., None]
) -> None:
    root = tmp_path / "app"
    make.database(root / "history.db", HISTORY)
    entity = {"data": "Marta", "entity_type": "person", "linked_memory_ids": ["0"], "user_id": "u"}
    qdrant(root / "qdrant", mem0=[PYTHON, PYTHON], mem0_entities=[entity], mem0migrations=[{"user_id": "x"}])
    make.files(root, "main.py")
    store = _only(root)
    complete(store)
    assert (store.system, store.path, store.records) == ("mem0", str(root), 2)
    assert store.fingerprint == {"embedding": {"dims": 2}}
    assert store.findings == ()
    assert [each.part for each in store.omitted] == ["main.py"]
    assert {part.name: part.engine for part in store.parts} == {
        "history.db": "sqlite",
        "qdrant": "files",
        "qdrant/.lock": "files",
        "qdrant/collection/mem0/storage.sqlite": "qdrant-local",
        "qdrant/collection/mem0_entities/storage.sqlite": "qdrant-local",
        "qdrant/collection/mem0migrations/storage.sqlite": "qdrant-local",
    }
    assert _maps(store)["mem0"] == {
        "text": "data",
        "user": "user_id",
        "scope": "agent_id",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }
    assert _maps(store)["mem0_entities"]["category"] == "entity_type"
    assert [each.collection for part in store.parts for each in part.maps if each.primary] == ["mem0"]


def test_memories_in_faiss_are_kept_as_files_and_that_is_said(tmp_path: Path, make: Any) -> None:
    make.database(tmp_path / "data/history.db", HISTORY)
    (tmp_path / "data/faiss").mkdir()
    for each in ("mem0.faiss", "mem0.json"):
        (tmp_path / "data/faiss" / each).write_bytes(b"memories")
    (store,) = discover([tmp_path / "data"])
    assert {part.name: part.engine for part in store.parts} == {"history.db": "sqlite", "faiss": "files"}
    assert store.omitted == ()
    assert [(one.code, one.part) for one in store.findings] == [("faiss_as_files", "faiss")]


def test_of_mem0s_own_folder_all_is_taken(
    home: Path, make: Any, qdrant: Callable[..., Path], complete: Callable[..., None]
) -> None:
    root = home / ".mem0"
    make.database(root / "history.db", HISTORY)
    make.database(root / "other.db")
    qdrant(root / "storage" / "qdrant", memories=[CAMEL])
    (root / "config.json").write_text('{"user_id": "x", "api_key": "sk-secret-secret-secret"}')
    (root / ".env").write_text("KEY=1")
    store = _only(root)
    complete(store)
    assert [each.part for each in store.omitted] == [".env"]
    assert store.records == 1
    [config] = [part for part in store.parts if part.name == "config.json"]
    assert config.secrets == ("api_key",)
    fields = _maps(store)["memories"]
    assert (fields["created_at"], fields["updated_at"]) == ("createdAt", "updatedAt")


def test_a_qdrant_folder_alone_is_mem0s_by_the_keys_of_its_points(
    tmp_path: Path, qdrant: Callable[..., Path], complete: Callable[..., None]
) -> None:
    mine = qdrant(tmp_path / "qdrant", mem0=[PYTHON])
    store = _only(mine)
    complete(store)
    assert (store.system, store.path, store.records) == ("mem0", str(mine), 1)
    assert _only(tmp_path).path == str(mine)
    theirs = qdrant(tmp_path / "other" / "qdrant", facts=[{"text": "a fact"}])
    store = _only(theirs)
    complete(store)
    assert (store.system, store.records) == ("custom", 1)
    assert _maps(store)["facts"] == {"text": "text"}


def test_openmemorys_points_are_not_a_store_of_their_own(
    tmp_path: Path, make: Any, qdrant: Callable[..., Path]
) -> None:
    tables = """
    CREATE TABLE memories(id, user_id, app_id, content, state, created_at, updated_at);
    CREATE TABLE memory_status_history(id, memory_id, changed_at);
    CREATE TABLE apps(id, owner_id, name);
    """
    make.database(tmp_path / "om" / "api" / "openmemory.db", tables)
    make.database(tmp_path / "om" / "history.db", HISTORY)
    qdrant(tmp_path / "om" / "qdrant", openmemory=[PYTHON])
    assert "mem0" not in {store.system for store in discover([tmp_path / "om"])}
    assert _only(tmp_path / "om" / "qdrant").system == "mem0"


def test_the_databases_of_typescript_are_found(tmp_path: Path, make: Any, complete: Callable[..., None]) -> None:
    make.database(tmp_path / "a" / "vector_store.db", TYPESCRIPT)
    make.database(tmp_path / "a" / "memory.db", TYPESCRIPT_HISTORY)
    store = _only(tmp_path / "a")
    complete(store)
    assert (store.system, store.records) == ("mem0", 1)
    assert set(_maps(store)) == {"history", "messages", "memories"}


def test_points_in_a_directory_of_chroma_are_mem0s_by_their_keys(
    tmp_path: Path, make: Any, complete: Callable[..., None]
) -> None:
    make.database(tmp_path / "app" / "history.db", HISTORY)
    make.database(tmp_path / "app" / "chroma" / "chroma.sqlite3", CHROMA)
    make.files(tmp_path / "app" / "chroma", f"{SEGMENT}/header.bin")
    store = _only(tmp_path / "app")
    complete(store)
    assert (store.system, store.records) == ("mem0", 1)
    assert {part.name: part.engine for part in store.parts} == {"chroma": "chroma", "history.db": "sqlite"}
    assert _maps(store)["mem0"]["text"] == "data"
    assert store.fingerprint == {"embedding": {"dims": 3}}
    alone = _only(tmp_path / "app" / "chroma")
    assert (alone.system, [part.name for part in alone.parts]) == ("mem0", ["."])


def test_the_usual_places_are_looked_into(
    home: Path, make: Any, qdrant: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    make.database(home / ".mem0" / "history.db", HISTORY)
    points = qdrant(tmp_path / "tmp" / "qdrant", mem0=[PYTHON])
    assert {store.path for store in discover()} == {str(home / ".mem0"), str(points)}
    monkeypatch.setenv("MEM0_DIR", str(tmp_path / "elsewhere"))
    assert {store.path for store in discover()} == {str(points)}


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (lambda folder: (folder / "meta.json").write_text("{"), "qdrant_meta"),
        (lambda folder: (folder / "meta.json").write_text("[]"), "qdrant_meta"),
        (lambda folder: (folder / "collection" / "gone" / "storage.sqlite").unlink(), "qdrant_collection_missing"),
        (
            lambda folder: (folder / "collection" / "gone" / "storage.sqlite").rename(
                folder / "collection" / "gone" / "storage.dbm"
            ),
            "qdrant_old_form",
        ),
        (
            lambda folder: (folder / "meta.json").write_text('{"collections": {"mem0": {}}}'),
            "qdrant_collection_unnamed",
        ),
    ],
)
def test_what_is_wrong_with_the_folder_is_found(
    tmp_path: Path, qdrant: Callable[..., Path], broken: Callable[[Path], Any], code: str
) -> None:
    folder = qdrant(tmp_path / "qdrant", mem0=[PYTHON], gone=[PYTHON])
    broken(folder)
    assert [finding.code for finding in _only(folder).findings] == [code]


def test_a_folder_that_older_versions_would_remove_is_said(tmp_path: Path, qdrant: Callable[..., Path]) -> None:
    off = {"mem0": {"vectors": {"size": 2, "on_disk": False}}}
    folder = qdrant(tmp_path / "qdrant", off, mem0=[PYTHON])
    assert [finding.code for finding in _only(folder).findings] == ["mem0_on_disk_off"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return `server(*tables)`: what any server has from now on."""

    def has(*tables: ServerTable) -> None:
        def seen(_: Look, url: str) -> ServerInspection:
            chosen = [
                one for one in tables if not url.startswith("qdrant:") or urlsplit(url).path in ("", f"/{one.name}")
            ]
            return ServerInspection(url=url, version="1", tables=tuple(chosen))

        monkeypatch.setattr(Look, "server", seen)

    return has


def test_a_collection_in_a_server_is_mem0s_by_its_keys(server: Callable[..., None]) -> None:
    keys = dict.fromkeys(("id", *PYTHON, "vector", "vector.bm25"), "x")
    entities = dict.fromkeys(("id", "data", "entity_type", "vector"), "x")
    server(
        ServerTable(name="mem0", columns=keys, vectors={"vector": 1536, "vector.bm25": 0}, key="id", rows=7),
        ServerTable(name="mem0_entities", columns=entities, vectors={"vector": 1536}, key="id", rows=2),
        ServerTable(name="mem0migrations", columns={"id": "id", "user_id": "x"}, key="id", rows=1),
        ServerTable(name="others", columns={"id": "id", "n": "x"}, key="id", rows=1),
    )
    [store] = discover(["qdrant://127.0.0.1:6333"])
    assert (store.system, store.records) == ("mem0", 7)
    assert [part.name for part in store.parts] == ["qdrant/mem0", "qdrant/mem0_entities"]
    assert store.fingerprint == {"embedding": {"dims": 1536}}
    assert [finding.code for finding in store.findings] == ["history_elsewhere"]


def test_a_table_of_pgvector_is_mem0s_by_its_keys(server: Callable[..., None]) -> None:
    keys = {"id": "uuid", "vector": "vector(3)", "payload": "jsonb", **{f"payload.{key}": "x" for key in PYTHON}}
    server(
        ServerTable(name="public.memories", columns=keys, vectors={"vector": 3}, key="id", rows=4),
        ServerTable(name="public.orders", columns={"id": "int", "amount": "int"}, key="id", rows=9),
    )
    [store] = discover(["mem0:postgresql://u@h/d"])
    [part] = store.parts
    assert (store.system, store.records, part.include) == ("mem0", 4, ("public.memories",))
    [each] = part.maps
    assert (each.collection, each.table, each.fields["text"]) == ("memories", "public.memories", "payload.data")
    assert each.vectors == ("vector",)


def test_a_server_without_mem0s_keys_is_not_mem0s(server: Callable[..., None]) -> None:
    server(ServerTable(name="things", columns={"id": "id", "text": "x"}, key="id", rows=1))
    assert [store.system for store in discover(["qdrant://127.0.0.1:6333"])] == ["custom"]
    with pytest.raises(StoreError):
        discover(["mem0:qdrant://127.0.0.1:6333"])

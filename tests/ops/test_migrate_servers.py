"""Memory moved into and out of real servers, and opened afterwards by the products' own classes."""

import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psycopg
import pytest

from memkeep.engines import qdrant_write
from memkeep.errors import RefusedError, StoreError, UsageError
from memkeep.library import OpenVault
from memkeep.ops import imports, records
from memkeep.ops.migrate import MigrateResult, change_of, migrate
from memkeep.records.record import Record, Relationship, Vector
from memkeep.testing.postgres import PostgresServer, postgres
from memkeep.testing.qdrant_server import QdrantServer, qdrant

pytestmark = pytest.mark.real

Copy = Callable[..., Path]
NUMBERS = itertools.count(1)
COMPOSE = """
services:
  mem0_store: {image: qdrant/qdrant, ports: ["PORT:6333"], volumes: ["mem0_storage:/qdrant/storage"]}
  openmemory-mcp: {image: mem0/openmemory-mcp, build: api/}
"""
RELATIONSHIPS = """
CREATE TABLE relationships (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL, target_id TEXT NOT NULL,
  rel_type TEXT NOT NULL, strength REAL DEFAULT 1.0, metadata TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
  UNIQUE (source_id, target_id, rel_type));
"""
FIRST, SECOND = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with qdrant(tmp_path_factory.mktemp("qdrant"), QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as running:
        yield running


@pytest.fixture(scope="session")
def tables() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@pytest.fixture
def database(tables: PostgresServer) -> str:
    """Return the URL of an empty database."""
    name = f"db{next(NUMBERS)}"
    with psycopg.connect(tables.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return tables.url(name)


@pytest.fixture
def collection(points: QdrantServer) -> Iterator[str]:
    """Return the URL of a collection that is not there."""
    name = f"memory{next(NUMBERS)}"
    yield points.url(name)
    httpx.delete(f"{points.base}/collections/{name}", timeout=60)


@pytest.fixture
def openmemory(copy_store: Copy, points: QdrantServer, home: Path) -> Iterator[Path]:
    """Return the folder of a store whose vectors are in the server."""
    folder = copy_store("openmemory")
    shutil.rmtree(folder / "qdrant-local")
    (folder / "docker-compose.yml").write_text(COMPOSE.replace("PORT", str(points.port)))
    with next((folder / "qdrant-snapshots").iterdir()).open("rb") as file:
        path = "/collections/openmemory/snapshots/upload?priority=snapshot&wait=true"
        httpx.post(points.base + path, files={"snapshot": file}, timeout=60).raise_for_status()
    yield folder
    httpx.delete(f"{points.base}/collections/openmemory", timeout=60)


@pytest.fixture
def thanos(database: str, tmp_path: Path, home: Path) -> Path:
    """Return a folder of Thanos with two memories in a database, which one relationship joins."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE thanos_memories (id uuid PRIMARY KEY, vector vector(3), payload jsonb)")
        for name, text in ((FIRST, "she likes tea"), (SECOND, "he likes naïve cafés")):
            payload = {"data": text, "user_id": "jeremy", "client": "Acme", "heat": 0.7, "topic": ["tea", None]}
            payload |= {"created_at": "2026-02-03T04:05:06.789", "access_count": 2, "pinned": True}
            vector = "[1,2,2]" if name == FIRST else "[0,-1,0]"
            connection.execute("INSERT INTO thanos_memories VALUES (%s, %s, %s)", (name, vector, json.dumps(payload)))
    return thanos_folder(tmp_path / "thanos", database)


def thanos_folder(folder: Path, database: str) -> Path:
    (folder / "State").mkdir(parents=True)
    (folder / ".env").write_text(f"THANOS_MEMORY_DATABASE_URL={database}\n")
    with closing(sqlite3.connect(folder / "State" / "relationships.db")) as con, con:
        con.executescript(RELATIONSHIPS)
        con.execute(
            "INSERT INTO relationships VALUES (1, ?, ?, 'supports', 0.5, '{\"why\": \"both drink\"}', ?, ?)",
            (FIRST, SECOND, "2026-02-03T04:05:07", "2026-02-03T04:05:08"),
        )
    return folder


def read(place: str | Path) -> tuple[list[Record], list[Relationship]]:
    with records.of(None, str(place)) as source:
        return [one for one in source.records() if one.primary], list(source.relationships())


def moved(source: str | Path, to: str | Path, vault: OpenVault | None = None, **more: Any) -> MigrateResult:
    return migrate(vault._vault if vault else None, str(source), str(to), **more)


def pgvector(url: str, table: str = "memories", dims: int = 32) -> Any:
    from mem0.vector_stores.pgvector import PGVector

    return PGVector(
        dbname=None, collection_name=table, embedding_model_dims=dims, user=None, password=None, host=None, port=None,
        diskann=False, hnsw=True, connection_string=url,
    )  # fmt: skip


def numbers(vector: Vector) -> list[float]:
    return np.frombuffer(vector.data, "<f4").tolist()  # type: ignore[no-any-return]


def same(after: list[Record], before: list[Record], *, rounded: bool = False) -> None:
    """Compare records; vectors too, byte for byte unless `rounded`: a cosine collection gives them back so."""
    assert [plain(one) for one in after] == [plain(one) for one in before]
    for one, other in zip(after, before, strict=True):
        assert one.vectors.keys() == other.vectors.keys()
        for name, vector in one.vectors.items():
            there = other.vectors[name]
            if rounded and vector.type == "f32":
                unit = np.array(numbers(there)) / np.linalg.norm(numbers(there))
                assert np.allclose(numbers(vector), unit, atol=1e-6)
            else:
                assert vector == there


def plain(made: Record) -> Record:
    return msgspec.structs.replace(made, vectors={})


def test_openmemory_goes_to_the_mem0_server_and_back(
    openmemory: Path, database: str, points: QdrantServer, tmp_path: Path
) -> None:
    before, _ = read(openmemory)
    planned = moved(openmemory, f"mem0:{database}", dry_run=True)
    result = moved(openmemory, f"mem0:{database}")
    assert planned.merged == result.merged
    assert (planned.fields, planned.vectors) == (result.fields, result.vectors)
    store = pgvector(database)
    try:
        one = next(each for each in before if each.status == "active" and each.vectors and each.user)
        found = store.get(vector_id=one.id)
        assert found.payload["data"] == one.text
        assert {"data", "hash", "user_id", "created_at", "updated_at", "text_lemmatized"} <= found.payload.keys()
        mine = {each.id for each in before if each.user == one.user}
        listed = store.list(filters={"user_id": one.user}, top_k=100)[0]
        assert {each.id.replace("-", "") for each in listed} == mine
        nearest = store.search("", numbers(one.vectors[""]), top_k=3, filters={"user_id": one.user})
        assert nearest[0].id.replace("-", "") == one.id
        assert nearest[0].score == pytest.approx(1)
        gone = [each for each in before if each.status in {"archived", "deleted", "paused"}]
        assert len(gone) == 7
        hidden = {store.get(vector_id=each.id).payload["expiration_date"] for each in gone}
        assert hidden == {"1970-01-01"}
        names = {row[0] for row in tell(database, "SELECT indexname FROM pg_indexes WHERE tablename = 'memories'")}
        assert names >= {"memories_hnsw_idx", "memories_text_lemmatized_idx"}
    finally:
        store.connection_pool.close()
    same(read(f"mem0:{database}")[0], before)
    back = moved(f"mem0:{database}", f"openmemory:{tmp_path / 'back'}")
    assert back.merged.failed == ()
    same(read(tmp_path / "back")[0], before, rounded=True)
    with closing(sqlite3.connect(tmp_path / "back" / "api" / "openmemory.db")) as con:
        lost = con.execute(
            "SELECT count(*) FROM memories m LEFT JOIN users u ON u.id = m.user_id LEFT JOIN apps a ON a.id = m.app_id "
            "WHERE u.id IS NULL OR a.id IS NULL"
        ).fetchone()
    assert lost == (0,)


def tell(url: str, sql: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(sql).fetchall()


def test_a_table_that_is_named_is_the_one_that_is_made_and_read(openmemory: Path, database: str) -> None:
    moved(openmemory, f"mem0:{database}")
    user = next(one.user for one in read(openmemory)[0] if one.vectors)
    result = moved(openmemory, f"mem0:{database}?table=other", user=user)
    assert result.created
    assert result.merged.inserted == tell(database, "SELECT count(*) FROM other")[0][0] > 0
    assert {one.user for one in read(f"mem0:{database}?table=other")[0]} == {user}
    assert tell(database, "SELECT count(*) FROM memories") == [(60,)]
    with pytest.raises(UsageError, match="several tables") as raised:
        moved(openmemory, f"mem0:{database}")
    assert "?table=" in raised.value.hint


def test_a_second_run_changes_nothing_and_undo_takes_away_what_was_made(
    openmemory: Path, database: str, new_vault: Callable[..., OpenVault]
) -> None:
    first = moved(openmemory, f"mem0:{database}", changes=[change_of("agent=cli")])
    assert first.undo == f"psql {database} -c 'DROP TABLE public.memories'"
    vault = new_vault()
    again = moved(openmemory, f"mem0:{database}", vault, changes=[change_of("agent=cli")], conflict="update")
    assert (again.merged.inserted, again.merged.updated, again.merged.same) == (0, 0, 60)
    assert again.kept is not None
    assert {one.agent for one in read(f"mem0:{database}")[0]} == {"cli"}
    changed = moved(openmemory, f"mem0:{database}", vault, changes=[change_of("agent=web")], conflict="update")
    assert changed.merged.updated == 60
    assert changed.undo is not None
    assert changed.undo.startswith(f"memkeep restore {changed.kept[:12] if changed.kept else ''} --in-place")
    vault.restore(changed.kept or "", in_place=True, confirm="mem0")
    assert {one.agent for one in read(f"mem0:{database}")[0]} == {"cli"}


@pytest.mark.parametrize("place", ["folder", "server"])
def test_thanos_goes_to_openmemory_and_back(
    place: str, thanos: Path, points: QdrantServer, tables: PostgresServer, tmp_path: Path
) -> None:
    before, joined = read(thanos)
    folder = tmp_path / "openmemory"
    if place == "server":
        folder.mkdir()
        (folder / "docker-compose.yml").write_text(COMPOSE.replace("PORT", str(points.port)))
    planned = moved(thanos, f"openmemory:{folder}", dry_run=True)
    assert (folder / "api").exists() is False
    result = moved(thanos, f"openmemory:{folder}")
    try:
        assert planned.merged.inserted == result.merged.inserted
        assert planned.fields == result.fields
        assert result.undo is not None
        assert ("curl -X DELETE" in result.undo) == (place == "server")
        with closing(sqlite3.connect(folder / "api" / "openmemory.db")) as con:
            rows = con.execute(
                "SELECT m.id, m.content, m.state, u.user_id, a.name FROM memories m JOIN users u ON u.id = m.user_id "
                "JOIN apps a ON a.id = m.app_id ORDER BY m.id"
            ).fetchall()
        assert rows == [(one.id.replace("-", ""), one.text, "active", "jeremy", "openmemory") for one in before]
        assert asked(folder, points if place == "server" else None) == [(FIRST, "jeremy"), (SECOND, "jeremy")]
        same(read(folder)[0], before, rounded=place == "server")
        said = [one.message for one in result.findings if one.code == "vectors_normalised"]
        assert ["not all vectors are of length one" in each for each in said] == [True] * (place == "server")
        assert read(folder)[1] == joined
        name = f"db{next(NUMBERS)}"
        tell_all(tables.url(), f"CREATE DATABASE {name}")
        tell_all(tables.url(name), "CREATE EXTENSION vector", "CREATE TABLE thanos_memories (id uuid PRIMARY KEY, "
                 "vector vector(3), payload jsonb)")  # fmt: skip
        back = thanos_folder(tmp_path / "back", tables.url(name))
        moved(folder, back)
        same(read(back)[0], before, rounded=place == "server")
        assert read(back)[1] == joined
        assert tell(tables.url(name), "SELECT id, payload FROM thanos_memories ORDER BY id") == tell(
            Path(thanos / ".env").read_text().partition("=")[2].strip(),
            "SELECT id, payload FROM thanos_memories ORDER BY id",
        )
    finally:
        httpx.delete(f"{points.base}/collections/openmemory", timeout=60)


def tell_all(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for each in statements:
            connection.execute(each)


def asked(folder: Path, server: QdrantServer | None) -> list[tuple[object, object]]:
    """Return what Qdrant's own client finds for the vector of the first memory."""
    from qdrant_client import QdrantClient

    client = (
        QdrantClient(url=server.base, check_compatibility=False)
        if server
        else QdrantClient(path=str(folder / "qdrant-local"))
    )
    try:
        found = client.query_points("openmemory", query=[1.0, 2.0, 2.0], limit=5).points
        assert found[0].score == pytest.approx(1)
        return [(one.id, (one.payload or {})["user_id"]) for one in found]
    finally:
        client.close()


def test_hybrid_goes_to_mem0_on_a_qdrant_server_and_back(
    copy_store: Copy, collection: str, points: QdrantServer, tmp_path: Path
) -> None:
    from mem0.vector_stores.qdrant import Qdrant
    from qdrant_client import QdrantClient

    source = copy_store("hybrid-2026.4.273") / "memory"
    before, joined = read(source)
    planned = moved(source, f"mem0:{collection}", dry_run=True)
    name = collection.rpartition("/")[2]
    assert httpx.get(f"{points.base}/collections/{name}").status_code == 404
    result = moved(source, f"mem0:{collection}")
    assert (planned.merged, planned.fields) == (result.merged, result.fields)
    assert result.undo == f"curl -X DELETE {points.base}/collections/{name}"
    with closing(QdrantClient(url=points.base, check_compatibility=False)) as client:
        store = Qdrant(collection_name=name, embedding_model_dims=16, client=client)
        one = next(each for each in before if each.status == "active" and each.vectors)
        assert store.get(one.id).payload["data"] == one.text
        assert store.search(query="", vectors=numbers(one.vectors[""]), top_k=1)[0].id == one.id
        assert len(store.list(top_k=100)[0]) == len(before)
    moved(f"mem0:{collection}", f"hybrid:{tmp_path / 'back'}")
    after, joined_after = read(tmp_path / "back")
    same(after, before, rounded=True)
    assert joined_after == joined


def test_mem0_in_qdrant_in_pgvector_and_in_a_folder_are_the_same_records(
    copy_store: Copy, collection: str, database: str, tmp_path: Path
) -> None:
    source = copy_store("mem0-local")
    before, _ = read(source)
    assert any("payload" not in key for one in before for key in one.metadata)
    moved(source, f"mem0:{collection}")
    moved(f"mem0:{collection}", f"mem0:{database}")
    moved(f"mem0:{database}", f"mem0:{tmp_path / 'back'}")
    wanted = [msgspec.structs.replace(one, vectors={}) for one in before]
    for place in (f"mem0:{collection}", f"mem0:{database}", tmp_path / "back"):
        found = [msgspec.structs.replace(one, vectors={}, collection=before[0].collection) for one in read(place)[0]]
        assert found == [msgspec.structs.replace(one, collection=before[0].collection) for one in wanted]


def test_hybrid_goes_into_thanos_with_what_joins_it(
    copy_store: Copy, thanos: Path, database: str, new_vault: Callable[..., OpenVault]
) -> None:
    source = copy_store("hybrid-2026.4.273") / "memory"
    before, joined = read(source)
    vault = new_vault()
    planned = moved(source, thanos, vault, dry_run=True)
    result = moved(source, thanos, vault)
    assert planned.fields == result.fields
    assert planned.merged == result.merged
    assert result.merged.failed == ()
    assert not result.created
    after, joined_after = read(thanos)
    assert [one for one in after if one.system == "thanos"] == [one for one in after if one.id in (FIRST, SECOND)]
    assert [plain(one) for one in after if one.system != "thanos"] == [plain(one) for one in before]
    assert [one for one in joined_after if one.system != "thanos"] == joined
    assert tell(database, "SELECT count(*) FROM thanos_memories WHERE vector IS NOT NULL") == [(2,)]
    assert [one.code for one in result.findings if one.code == "vectors_left"]


def test_a_new_table_of_thanos_is_found_by_thanos(copy_store: Copy, database: str, home: Path) -> None:
    source = copy_store("hybrid-2026.4.273") / "memory"
    planned = moved(source, f"thanos:{database}", dry_run=True)
    assert tell(database, "SELECT to_regclass('thanos_memories')") == [(None,)]
    result = moved(source, f"thanos:{database}")
    assert (planned.merged, planned.fields) == (result.merged, result.fields)
    assert tell(database, "SELECT count(*), min((payload->>'heat')::float) FROM thanos_memories") == [(40, 1.0)]


def test_what_is_there_already_is_refused(openmemory: Path, database: str, collection: str, tmp_path: Path) -> None:
    tell_all(database, "CREATE TABLE memories (id int)", "INSERT INTO memories VALUES (1)")
    tell_all(database, "CREATE TABLE empty (id int, other text)")
    for dry_run in (True, False):
        for table in ("memories", "empty"):
            with pytest.raises(RefusedError, match="another kind"):
                moved(openmemory, f"mem0:{database}?table={table}", dry_run=dry_run)
        with pytest.raises(UsageError, match="hybrid"):
            moved(openmemory, f"hybrid:{database}", dry_run=dry_run)
        (tmp_path / "file").write_text("mine")
        with pytest.raises((RefusedError, UsageError), match="file"):
            moved(openmemory, f"oc-memory:{tmp_path / 'file'}", dry_run=dry_run)
    assert tell(database, "SELECT * FROM memories") == [(1,)]


def test_an_openmemory_has_its_points_in_pgvector_where_its_settings_say_so(
    thanos: Path, database: str, tmp_path: Path
) -> None:
    before, joined = read(thanos)
    folder, settings = tmp_path / "openmemory", dict(psycopg.conninfo.conninfo_to_dict(database))
    folder.mkdir()
    names = {"PG_HOST": "host", "PG_PORT": "port", "PG_DB": "dbname", "PG_USER": "user"}
    variables = ", ".join(f"{name}: '{settings[key]}'" for name, key in names.items())
    (folder / "docker-compose.yml").write_text(
        f"services:\n  openmemory-mcp: {{image: mem0/openmemory-mcp, build: api/, environment: {{{variables}}}}}\n"
    )
    planned = moved(thanos, f"openmemory:{folder}", dry_run=True)
    assert tell(database, "SELECT to_regclass('openmemory')") == [(None,)]
    result = moved(thanos, f"openmemory:{folder}")
    assert (planned.merged.inserted, planned.fields) == (result.merged.inserted, result.fields)
    store = pgvector(database, "openmemory", 3)
    try:
        assert [one.id for one in store.search("", [1.0, 2.0, 2.0], filters={"user_id": "jeremy"})] == [FIRST, SECOND]
    finally:
        store.connection_pool.close()
    same(read(folder)[0], before)
    assert read(folder)[1] == joined
    (folder / "api" / "openmemory.db").unlink()
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="not empty"):
            moved(thanos, f"openmemory:{folder}", dry_run=dry_run)
    tell_all(database, "DROP TABLE openmemory", "CREATE TABLE openmemory (id uuid, vector vector(5), payload jsonb)")
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="of 5 dimensions, not of 3"):
            moved(thanos, f"openmemory:{folder}", dry_run=dry_run)
    assert list((folder / "api").iterdir()) == []


def test_what_is_valid_only_until_a_day_is_found_by_mem0_until_then(
    copy_store: Copy, database: str, tmp_path: Path
) -> None:
    source = copy_store("hybrid-2026.4.273") / "memory"
    with closing(sqlite3.connect(source / "facts.db")) as con, con:
        names = [row[0] for row in con.execute("SELECT id FROM facts WHERE superseded_at IS NULL ORDER BY id LIMIT 2")]
        con.execute("UPDATE facts SET expires_at = NULL, valid_until = 1700000000 WHERE id = ?", names[:1])
        con.execute("UPDATE facts SET expires_at = 1700000000, valid_until = 1800000000 WHERE id = ?", names[1:])
    before, _ = read(source)
    unowned = sum(not (one.user or one.agent or one.session) for one in before)
    result = moved(source, f"mem0:{database}")
    said = [one.message for one in result.findings if one.code == "of_nobody"]
    assert said == [f"{unowned} records are of no user, agent or session: mem0 finds memories by one of these only"]
    hidden = tell(
        database, "SELECT id::text FROM memories WHERE payload ->> 'expiration_date' = '2023-11-14' ORDER BY 1"
    )
    assert [row[0] for row in hidden] == names
    moved(f"mem0:{database}", f"hybrid:{tmp_path / 'back'}")
    same(read(tmp_path / "back")[0], before)


def test_a_server_that_fails_leaves_nothing_behind(
    openmemory: Path, collection: str, points: QdrantServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, calls = qdrant_write.put, []

    def failing(*words: Any) -> Any:
        calls.append(words)
        if len(calls) == 1:
            raise StoreError("it fell over", hint="start it")
        return real(*words)

    monkeypatch.setattr(qdrant_write, "put", failing)
    with pytest.raises(StoreError, match="it fell over") as raised:
        moved(openmemory, f"mem0:{collection}")
    assert raised.value.unchanged == "Nothing was changed."
    assert httpx.get(f"{points.base}/collections/{collection.rpartition('/')[2]}").status_code == 404
    calls.clear()
    with pytest.raises(StoreError, match="it fell over"):
        moved(f"{openmemory}", f"mem0:{collection}")
    calls.clear()
    monkeypatch.setenv("QDRANT_HOST", "127.0.0.1")
    monkeypatch.setenv("QDRANT_PORT", "1")
    with pytest.raises(StoreError):
        moved(copy_of(openmemory, tmp_path), f"openmemory:{tmp_path / 'new'}")
    assert not (tmp_path / "new").exists()


def copy_of(store: Path, tmp_path: Path) -> str:
    """Return a source that is in no server."""
    target = tmp_path / "memory.db"
    moved(store, f"oc-memory:{target}")
    return str(target)


def test_a_server_that_is_gone_is_said_with_what_stays(copy_store: Copy, tmp_path: Path, home: Path) -> None:
    source = copy_store("hybrid-2026.4.273") / "memory"
    (tmp_path / "server").mkdir()
    with pytest.MonkeyPatch.context() as patch, qdrant(tmp_path / "server") as server:

        def unplugged(*_: Any) -> Any:
            server.kill()
            raise StoreError("it does not answer", hint="start it")

        patch.setattr(qdrant_write, "put", unplugged)
        with pytest.raises(StoreError) as raised:
            moved(source, f"mem0:{server.url('mem0')}")
        assert raised.value.unchanged == (
            f"What was made for this stays: {server.url('mem0')}. The same command again goes on with it."
        )
        assert raised.value.hint


def test_a_database_that_is_gone_leaves_no_table(copy_store: Copy, database: str, home: Path) -> None:
    from memkeep.engines.postgres_merge import PostgresMerge

    source = copy_store("hybrid-2026.4.273") / "memory"
    with pytest.MonkeyPatch.context() as patch:

        def cut_off(self: Any) -> None:
            tell_all(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                     " AND datname = current_database()")  # fmt: skip
            real(self)

        real = PostgresMerge.commit
        patch.setattr(PostgresMerge, "commit", cut_off)
        with pytest.raises(StoreError) as raised:
            moved(source, f"mem0:{database}")
    assert raised.value.unchanged == "Nothing was changed."
    assert raised.value.hint
    assert tell(database, "SELECT to_regclass('memories')") == [(None,)]
    assert moved(source, f"mem0:{database}").merged.inserted == 41


def test_openmemorys_own_zip_finds_its_records_where_they_were(
    openmemory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    """The ids are 32 digits in the database and dashed in the zip."""
    import zipfile

    with closing(sqlite3.connect(openmemory / "api" / "openmemory.db")) as con:
        con.row_factory = sqlite3.Row
        user = dict(con.execute("SELECT * FROM users ORDER BY user_id LIMIT 1").fetchone())
        rows = [dict(row) for row in con.execute("SELECT * FROM memories WHERE user_id = ?", (user["id"],))]
        apps = [dict(row) for row in con.execute("SELECT * FROM apps WHERE owner_id = ?", (user["id"],))]
    exported = {"user": dashed(user), "apps": [dashed(one) for one in apps], "memories": [dashed(one) for one in rows]}
    with zipfile.ZipFile(tmp_path / "memories_export_one.zip", "w") as archive:
        archive.writestr("memories.json", json.dumps(exported))
    before = read(openmemory)[0]
    result = imports.import_(
        new_vault()._vault, str(tmp_path / "memories_export_one.zip"), str(openmemory), conflict="skip"
    )
    counts = {one.table: one for one in result.merged.tables}
    assert counts["memories"].inserted == 0
    assert counts["memories"].same + counts["memories"].skipped == len(rows)
    assert result.merged.inserted == 0
    assert read(openmemory)[0] == before


def dashed(row: dict[str, Any]) -> dict[str, Any]:
    from uuid import UUID

    ids = {
        name: str(UUID(row[name])) for name in ("id", "user_id", "app_id", "owner_id") if len(row.get(name) or "") == 32
    }
    times = {name: f"{row[name].replace(' ', 'T')}+00:00" for name in row if name.endswith("_at") and row[name]}
    metadata = {"metadata": json.loads(row["metadata"])} if row.get("metadata") else {}
    return {name: value for name, value in row.items() if name != "vector"} | ids | times | metadata

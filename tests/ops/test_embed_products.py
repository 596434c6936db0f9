"""Each product finds its new vectors where it looks for them, beside all that was there."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Ran

from memkeep.engines.sqlite import SqliteEngine
from memkeep.errors import StoreError
from memkeep.library import discover
from memkeep.ops.embed import EmbedOptions, embed
from memkeep.ops.embed_write import Writing
from memkeep.ops.embedder import Embedder
from memkeep.ops.vectors import look
from memkeep.testing.embedder import Embedder as Endpoint
from memkeep.testing.embedder import embedder

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("home")]
MODEL = "nomic-embed-text"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with embedder(dims=768, models=(MODEL,)) as server:
        yield server


def ask(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as con, con:
        return con.execute(sql).fetchall()


def _forget_vectors(store: Path) -> None:
    ask(store, "UPDATE mem_cells SET embedding = NULL")
    ask(store, "UPDATE mem_scenes SET summary_embedding = NULL")


def test_oc_memory_gets_its_vectors_back_after_a_restore_as_its_guide_says(
    copy_store: Callable[..., Path], endpoint: Endpoint, run_cli: Callable[..., Ran]
) -> None:
    store = copy_store("oc-memory") / "memory.db"
    kept = "SELECT id, scene, cell_type, salience, content, source, tags, access_count, created_at, updated_at"
    before, words = ask(store, f"{kept} FROM mem_cells"), ask(store, "SELECT rowid, * FROM mem_fts")
    ask(store, "UPDATE mem_cells SET embedding = NULL")
    ask(store, "DELETE FROM mem_scenes")
    done = run_cli("embed", store, "--json", env={"OLLAMA_URL": endpoint.url})
    assert done.code == 0, done.stdout
    assert (done.result["provider"], done.result["model"], done.result["dims"]) == ("ollama", MODEL, 768)
    texts = [row[4] for row in before]
    blobs = [row[0] for row in ask(store, "SELECT embedding FROM mem_cells")]
    assert blobs == [row.tobytes() for row in endpoint.vectors(MODEL, texts)]
    assert ask(store, f"{kept} FROM mem_cells") == before
    assert ask(store, "SELECT rowid, * FROM mem_fts") == words


def test_its_export_is_read_back_and_embedded_by_two_commands(
    stores: Path, endpoint: Endpoint, run_cli: Callable[..., Ran], tmp_path: Path
) -> None:
    file, made = stores / "oc-memory" / "memory-export" / "memory-export.json", tmp_path / "memory.db"
    assert run_cli("import", file, "--into", f"oc-memory:{made}").code == 0
    assert run_cli("embed", made, env={"OLLAMA_URL": endpoint.url}).code == 0
    cells = ask(made, "SELECT content, embedding FROM mem_cells")
    assert [blob for _, blob in cells] == [
        row.tobytes() for row in endpoint.vectors(MODEL, [text for text, _ in cells])
    ]


def test_a_cell_that_is_written_while_another_program_waits_gets_no_vector_of_its_old_text(
    copy_store: Callable[..., Path], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_store("oc-memory") / "memory.db"
    _forget_vectors(store)
    real = Writing._vectors

    def late(*args: Any, **more: Any) -> Any:
        rows = real(*args, **more)

        def given() -> Any:
            with pytest.raises(sqlite3.OperationalError, match="locked"), closing(sqlite3.connect(store, 0)) as con:
                con.execute("UPDATE mem_cells SET content = 'too late'")
            return rows()

        return given

    monkeypatch.setattr(Writing, "_vectors", late)
    result = embed(None, discover(store)[0], Embedder(url=endpoint.url))
    assert result.written == result.wanted
    assert ask(store, "SELECT count(*) FROM mem_cells WHERE embedding IS NULL OR content = 'too late'") == [(0,)]


def test_a_database_that_stays_locked_costs_nothing_that_was_paid_for(
    copy_store: Callable[..., Path], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteEngine, "__init__", lambda self: setattr(self, "_patience", 0.1))
    store = copy_store("oc-memory") / "memory.db"
    _forget_vectors(store)
    with closing(sqlite3.connect(store, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as caught:
            embed(None, discover(store)[0], Embedder(url=endpoint.url))
        assert "vectors are kept" in caught.value.unchanged
    again = embed(None, discover(store)[0], Embedder(url=endpoint.url))
    assert (again.embedded, again.written) == (0, again.wanted)


@pytest.fixture
def hybrid(copy_store: Callable[..., Path]) -> Path:
    return copy_store("hybrid-2026.4.273", "memory")


def lance_rows(folder: Path) -> dict[str, dict[str, Any]]:
    import lance

    found = lance.dataset(str(folder / "lancedb" / "memories.lance")).to_table().to_pylist()
    return {row["id"]: row for row in found}


def test_hybrid_gets_the_rows_of_facts_that_have_none_in_lancedb(hybrid: Path) -> None:
    import lance

    table = lance.dataset(str(hybrid / "lancedb" / "memories.lance"))
    before = lance_rows(hybrid)
    active = {row[0] for row in ask(hybrid / "facts.db", "SELECT id FROM facts WHERE superseded_at IS NULL")}
    gone = sorted(active & before.keys())[:3]
    old = sorted(before.keys() - active)[:1]
    with embedder(dims=16) as server:
        asked = Embedder(provider="ollama", model="fake-hash-embed", url=server.url)
        embed(None, discover(hybrid)[0], asked, EmbedOptions(every=True, snapshot=False))
        whole = lance_rows(hybrid)
        table = lance.dataset(str(hybrid / "lancedb" / "memories.lance"))
        table.delete(" OR ".join(f"id = '{one}'" for one in gone + old))
        result = embed(None, discover(hybrid)[0], asked)
    after = lance_rows(hybrid)
    assert (result.wanted, result.written) == (3, 3)
    assert after.keys() == whole.keys() - set(old)
    for one in gone:
        assert {**after[one], "why": ""} == {**whole[one], "why": ""}
        assert after[one]["vector"] == whole[one]["vector"]


def test_hybrid_is_told_the_model_where_it_keeps_it(hybrid: Path) -> None:
    times = ask(hybrid / "facts.db", "SELECT id, text, created_at, recall_count FROM facts")
    with embedder(dims=16) as server:
        asked = Embedder(provider="openai", model="new-model", url=f"{server.url}/v1")
        result = embed(None, discover(hybrid)[0], asked, EmbedOptions(every=True, snapshot=False))
    meta = ask(hybrid / "facts.db", "SELECT id, provider, model FROM embedding_meta")
    assert meta == [(1, "openai", "new-model")]
    named = ask(hybrid / "facts.db", "SELECT DISTINCT embedding_model FROM facts WHERE superseded_at IS NULL")
    assert named == [("new-model",)]
    assert ask(hybrid / "facts.db", "SELECT id, text, created_at, recall_count FROM facts") == times
    assert discover(hybrid)[0].fingerprint["embedding"]["model"] == "new-model"
    assert result.written == result.wanted
    aliases = ask(hybrid / "aliases.db", "SELECT aliasText, embedding FROM fact_aliases")
    assert [blob for _, blob in aliases] == [
        row.tobytes() for row in server.vectors("new-model", [text for text, _ in aliases])
    ]


def test_mem0_finds_its_memories_by_the_new_vectors(copy_store: Callable[..., Path]) -> None:
    from qdrant_client import QdrantClient

    store = copy_store("mem0-local")
    with embedder(dims=32) as server:
        asked = Embedder(provider="openai", model="m", url=f"{server.url}/v1")
        result = embed(None, discover(store)[0], asked, EmbedOptions(every=True, snapshot=False))
        assert result.written == result.wanted > 0
        client = QdrantClient(path=str(store / "qdrant"))
        points, _ = client.scroll("mem0", limit=500, with_payload=True)
        texts = [str((point.payload or {})["data"]) for point in points]
        for point, vector in zip(points, server.vectors("m", texts), strict=True):
            best = client.query_points("mem0", vector.tolist(), limit=3).points
            assert best[0].score == pytest.approx(1, abs=1e-5)
            assert point.id in [one.id for one in best if one.score > 1 - 1e-5]
        client.close()


def test_a_key_comes_from_a_file_and_a_refused_text_is_no_success(
    copy_store: Callable[..., Path], endpoint: Endpoint, run_cli: Callable[..., Ran], tmp_path: Path
) -> None:
    store = copy_store("oc-memory") / "memory.db"
    (tmp_path / "key").write_text("sk-secret\n")
    endpoint.key = "sk-secret"
    endpoint.longest = max(len(row[0]) for row in ask(store, "SELECT content FROM mem_cells")) - 1
    words = ["embed", store, "--all", "--no-snapshot", "--provider", "openai", "--url", f"{endpoint.url}/v1"]
    done = run_cli(*words, "--key-file", tmp_path / "key", "--json")
    assert (done.code, len(done.result["refused"])) == (4, 1)
    assert "sk-secret" not in done.stdout + done.stderr


def test_openmemory_gets_the_points_of_memories_that_have_none(
    copy_store: Callable[..., Path], endpoint: Endpoint, run_cli: Callable[..., Ran], tmp_path: Path
) -> None:
    from qdrant_client import QdrantClient

    source, made = copy_store("oc-memory") / "memory.db", tmp_path / "openmemory"
    ask(source, "UPDATE mem_cells SET embedding = NULL WHERE id = 1")
    assert run_cli("migrate", source, "--to", f"openmemory:{made}").code == 0
    asked = Embedder(provider="ollama", model=MODEL, url=endpoint.url)
    result = embed(None, discover(made)[0], asked, EmbedOptions(every=True, snapshot=False))
    texts = [text for (text,) in ask(made / "api" / "openmemory.db", "SELECT content FROM memories")]
    assert result.written == result.wanted == len(texts)
    assert not look(None, str(made), asked).findings
    client = QdrantClient(path=str(made / "qdrant-local"))
    points, _ = client.scroll("openmemory", limit=100, with_payload=True)
    assert sorted(str((point.payload or {})["data"]) for point in points) == sorted(texts)
    assert all((point.payload or {}).keys() >= {"user_id", "hash", "data"} for point in points)
    client.close()

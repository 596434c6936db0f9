"""Stores that the products themselves wrote: found, backed up, proven equal, brought back, and the truth holds."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.real

# Of a LanceDB table only the latest version is kept: the others' manifests, transactions and data files stay behind.
OLD_VERSIONS = ("*.lance/_versions/*", "*.lance/_transactions/*", "*.lance/data/*", "*.lance/_deletions/*")


class Brought(NamedTuple):
    """One store of a real folder: the report of its backup, and where it was restored to."""

    report: dict[str, Any]
    live: Path
    root: Path  # of the live store: the folder that it is, or that its one file lies in
    at: Path


Bring = Callable[..., list[Brought]]


@pytest.fixture
def bring(
    copy_store: Callable[..., Path],
    tree_hash: Callable[[Path], dict[str, str]],
    run_cli: Callable[..., Any],
    home: Path,
    private_tmp: Path,
) -> Bring:
    """Return `bring(name, sub, systems)`: all that a user would do with a copy of that store, as processes."""
    vault = home / "vault"

    def run(live: Path, *words: Any) -> Any:
        before = tree_hash(live)
        ran = run_cli(*words, "--json", env={"MEMKEEP_VAULT": str(vault), "MEMKEEP_PASSWORD": "correct horse"})
        assert ran.code == 0, ran
        assert tree_hash(live) == before, f"{words[0]} changed the live store"
        return ran.result

    def brought(name: str, sub: str, systems: list[str]) -> list[Brought]:
        live = copy_store(name, sub)
        for about in ("README.md", "truth.json"):  # not of the store
            (live / about).unlink(missing_ok=True)
        run(live, "init")
        found = run(live, "discover", live)["stores"]
        assert [store["system"] for store in found] == systems
        reports = run(live, "backup", live)["snapshots"]
        assert [report["system"] for report in reports] == systems
        done = []
        for store, report in zip(found, reports, strict=True):
            assert report["path"] == store["path"]
            assert report["records"] == store["records"]
            assert (report["rung"], report["consistent"]) == ("readable", True)
            assert (report["findings"], report["omitted"]) == ([], [])
            proven = run(live, "verify", report["id"], "--rung", "equivalent")
            assert proven == {"snapshot": report["id"], "rung": "equivalent", "findings": []}
            at = home / "restored" / report["system"]
            run(live, "restore", report["id"], "--to", at)
            told = run(live, "diff", report["id"], at)
            assert told.pop("collections")
            assert told == {"added": [], "removed": [], "changed": []}
            path = Path(store["path"])
            done.append(Brought(report, path, path if path.is_dir() else path.parent, at))
        _same_bytes(live, done)
        return done

    return brought


def _same_bytes(live: Path, brought: list[Brought]) -> None:
    """Check that every restored file is its source in bytes, mode and time, and that every source was restored."""
    back = {one.root / path.relative_to(one.at): path for one in brought for path in one.at.rglob("*")}
    for source, path in back.items():
        assert path.is_dir() == source.is_dir()
        if path.is_file():
            assert path.read_bytes() == source.read_bytes()
            assert path.stat().st_mode == source.stat().st_mode
            assert path.stat().st_mtime_ns == source.stat().st_mtime_ns
    for source in _files(live):
        theirs = any(source.is_relative_to(one.live) for one in brought)
        if theirs and source not in back and not source.name.endswith("-shm"):
            assert any(fnmatchcase(source.as_posix(), pattern) for pattern in OLD_VERSIONS), f"{source} was lost"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _truth(stores: Path, name: str) -> Any:
    return json.loads((stores / name / "truth.json").read_text())


def _rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def _hybrid_holds(at: Path, truth: dict[str, Any], check: Any) -> None:
    """Check a restored openclaw-hybrid against its truth."""
    check.sqlite(at, truth["sqlite"])
    facts = _rows(
        at / "facts.db", "SELECT id, text, category, scope, tier, superseded_at, created_at, scope_target FROM facts"
    )
    want = truth["facts"]
    assert sorted(row[0] for row in facts) == truth["ids"]
    assert check.text_digest(row[:2] for row in facts) == want["text_digest_all"]
    assert check.text_digest(row[:2] for row in facts if row[5] is None) == want["text_digest_not_superseded"]
    assert check.counts(row[2] for row in facts) == want["categories"]
    assert check.counts(":".join(filter(None, (row[3], row[7]))) for row in facts) == want["scopes"]
    assert check.counts(row[4] for row in facts) == want["tiers"]
    assert {row[6] for row in facts} == {want["created_at_min"], want["created_at_max"]}
    meta = _rows(at / "facts.db", "SELECT * FROM embedding_meta")
    assert [list(row) for row in meta] == want["embedding_meta"]
    with closing(sqlite3.connect(at / "facts.db")) as connection:
        connection.execute("INSERT INTO facts_fts(facts_fts, rank) VALUES ('integrity-check', 1)")
    entries = _rows(at / "credentials.db", "SELECT service, type FROM credentials")
    assert [list(row) for row in entries] == truth["credentials"]["entries"]
    operations = [json.loads(line) for line in (at / "memory.wal").read_text().splitlines()]
    named = check.counts(line.get("operation") or line["op"] for line in operations)
    assert named == truth["memory.wal"]["operations"]
    for table, known in truth["lance"].items():
        rows = check.lance(at / f"{table}.lance", known)
        if table == "lancedb/memories":
            assert sorted(row["id"] for row in rows) == truth["ids"]
            assert check.counts(row["category"] for row in rows) == want["categories"]


def test_oc_memory_comes_back_as_it_was(bring: Bring, check: Any, stores: Path) -> None:
    truth = _truth(stores, "oc-memory")
    [one] = bring("oc-memory", "", ["oc-memory"])
    check.sqlite(one.at, truth["sqlite"])
    cells = _rows(one.at / "memory.db", "SELECT id, content, cell_type, scene, embedding FROM mem_cells")
    want = truth["cells"]
    assert [row[0] for row in cells] == truth["ids"]
    assert check.text_digest(row[:2] for row in cells) == want["text_digest"]
    assert check.counts(row[2] for row in cells) == want["types"]
    assert check.counts(row[3] for row in cells) == want["scenes_in_cells"]
    assert check.vectors_digest((row[0], row[4]) for row in cells if row[4]) == want["embeddings_sha256"]
    assert [row[0] for row in _rows(one.at / "memory.db", "SELECT rowid FROM mem_fts")] == truth["ids"]
    scenes = _rows(one.at / "memory.db", "SELECT scene FROM mem_scenes ORDER BY scene")
    assert [row[0] for row in scenes] == truth["scenes"]["names"]


MEM0 = """
import json, os, sys
at = sys.argv[1]
os.environ.update(MEM0_DIR=at + "-home", MEM0_TELEMETRY="False", OPENAI_API_KEY="none", HOME=at + "-home")
from mem0 import Memory

class Embedder:
    def embed(self, text, *_):
        return [1.0] + [0.0] * 31

where = {"path": at + "/qdrant", "on_disk": True, "embedding_model_dims": 32, "collection_name": "mem0"}
memory = Memory.from_config(
    {"vector_store": {"provider": "qdrant", "config": where}, "history_db_path": at + "/history.db"}
)
memory.embedding_model = Embedder()
users = json.loads(sys.argv[2])
found = [one for user in users for one in memory.get_all(filters={"user_id": user}, top_k=1000)["results"]]
print(json.dumps([[one["id"], one["memory"], len(memory.history(one["id"]))] for one in found]))
memory.vector_store.client.close()
"""


def test_mem0_comes_back_as_it_was(bring: Bring, check: Any, stores: Path) -> None:
    import struct

    from qdrant_client import QdrantClient

    truth = _truth(stores, "mem0-local")
    [mem0] = bring("mem0-local", "", ["mem0"])
    assert mem0.report["records"] == 60
    client = QdrantClient(path=str(mem0.at / "qdrant"))
    try:
        for name, want in truth["qdrant_local"].items():
            points = client.scroll(name, limit=1000, with_vectors=True)[0]
            assert check.text_digest((one.id, one.payload["data"]) for one in points) == want["text_digest"]
            assert check.counts(one.payload["user_id"] for one in points) == want["by_user"]
            assert check.counts(key for one in points for key in one.payload) == want["payload_keys"]
    finally:
        client.close()
    rows = _rows(mem0.at / "history.db", "SELECT event FROM history")
    assert check.counts(row[0] for row in rows) == truth["history_db"]["events"]
    for name, want in truth["qdrant_local"].items():  # as the engine reads them, value for value
        points = _points(mem0.at / "qdrant" / "collection" / name / "storage.sqlite")
        dense = [(one.id, one.vectors[""]) for one in points]
        sparse = [(one.id, one.vectors["bm25"]) for one in points if "bm25" in one.vectors]
        assert check.vectors_digest(dense) == want["vectors_sha256"]
        packed = [(key, struct.pack(f"<{len(v.indices)}I{len(v.values)}f", *v.indices, *v.values)) for key, v in sparse]
        assert check.vectors_digest(packed) == want["sparse_sha256"]
        assert check.text_digest((one.id, one.payload["data"]) for one in points) == want["text_digest"]
    users = json.dumps(list(truth["qdrant_local"]["mem0"]["by_user"]))
    ran = subprocess.run(
        [sys.executable, "-c", MEM0, mem0.at, users], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(ran.stdout)
    texts = {one.id: one.payload["data"] for one in _points(mem0.at / "qdrant/collection/mem0/storage.sqlite")}
    assert len(found) >= len(texts) - 4  # those with an expiration date are not shown when that is past
    assert all(texts[record] == text and history for record, text, history in found)


def _points(database: Path) -> list[Any]:
    from memkeep.engines.qdrant_local_read import read_points

    return list(read_points(_rows(database, "SELECT rowid, id, point FROM points")))


def test_openclaw_hybrid_comes_back_as_it_was(bring: Bring, check: Any, stores: Path) -> None:
    [hybrid] = bring("hybrid-2026.4.273", "memory", ["openclaw-hybrid"])
    assert hybrid.report["records"] == 41
    _hybrid_holds(hybrid.at, _truth(stores, "hybrid-2026.4.273"), check)


def test_legacy_memory_lancedb_comes_back_as_it_was(bring: Bring, check: Any, stores: Path) -> None:
    truth = _truth(stores, "memory-lancedb-2026.3.13")
    [legacy] = bring("memory-lancedb-2026.3.13", "lancedb", ["openclaw-lancedb"])
    rows = check.lance(legacy.at / "memories.lance", truth["lance"]["memories"])
    assert sorted(row["id"] for row in rows) == truth["ids"]
    assert check.text_digest((row["id"], row["text"]) for row in rows) == truth["records"]["text_digest"]
    assert check.counts(row["category"] for row in rows) == truth["records"]["categories"]
    assert min(row["createdAt"] for row in rows) == truth["records"]["time_min"]
    assert max(row["createdAt"] for row in rows) == truth["records"]["time_max"]


def test_memory_lancedb_pro_comes_back_as_it_was(bring: Bring, check: Any, stores: Path) -> None:
    truth = _truth(stores, "pro-1.1.0-beta.11")
    [pro] = bring("pro-1.1.0-beta.11", "lancedb-pro", ["openclaw-lancedb"])
    rows = check.lance(pro.at / "memories.lance", truth["lance"]["memories"])
    assert sorted(row["id"] for row in rows) == truth["ids"]
    assert check.text_digest((row["id"], row["text"]) for row in rows) == truth["records"]["text_digest"]
    assert check.counts(row["category"] for row in rows) == truth["records"]["categories"]
    assert check.counts(row["scope"] for row in rows) == truth["records"]["scopes"]
    tiers = check.counts(json.loads(row["metadata"])["tier"] for row in rows)
    assert tiers == truth["records"]["metadata_tiers"]


def test_the_two_systems_of_an_openclaw_state_folder_come_back_as_they_were(
    bring: Bring, check: Any, stores: Path
) -> None:
    truth = _truth(stores, "openclaw-core-2026.9.6")
    core, hybrid = bring("openclaw-core-2026.9.6", "state-dir", ["openclaw-core", "openclaw-hybrid"])
    known = {
        name: dict(want, journal_mode="wal", user_version=23) if "stock_sqlite_3.40.1" in want else want
        for name, want in truth["sqlite_read_with_python"].items()
        if not name.startswith("memory/")
    }
    check.sqlite(core.at, known, stock=False)  # its schema has functions that stock SQLite may lack
    agent = core.at / "agents/main/agent/openclaw-agent.sqlite"
    want = truth["sqlite_read_with_3.53.4"]["openclaw-agent.sqlite"]
    rows = {table: count for table, count in want["rows_of_non_empty_tables"].items() if not table.endswith("_vec")}
    check.sqlite(agent.parent, {agent.name: want | {"rows": rows}}, stock=False)
    [chunks] = check.query(agent, "SELECT id, text, length(embedding) FROM memory_index_chunks")
    assert check.text_digest(row[:2] for row in chunks) == truth["records"]["text_digest"]
    assert {row[2] for row in chunks} == {128}
    files = {name: hashlib.sha256((core.at / "workspace" / name).read_bytes()) for name in truth["workspace_files"]}
    assert {name: digest.hexdigest() for name, digest in files.items()} == truth["workspace_files"]
    _hybrid_holds(hybrid.at, _truth(stores, "hybrid-2026.4.273"), check)

"""mem0 itself, on Chroma and on servers: backed up, lost, brought back, and mem0 says the same.

Its default, Qdrant's local mode, is in `test_bring_back`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from memkeep.engines.chroma import ChromaEngine
from memkeep.engines.merging import Counts, Merged, Wanted
from memkeep.engines.postgres import PostgresEngine
from memkeep.engines.qdrant import QdrantEngine
from memkeep.engines.qdrant_local import QdrantLocalEngine
from memkeep.model import Part, Role, TableMap
from memkeep.testing.postgres import postgres
from memkeep.testing.qdrant_server import qdrant

pytestmark = pytest.mark.real

MEM0 = """
import hashlib, json, os, sys
verb, provider, where, home = sys.argv[1:]
os.environ.update(MEM0_DIR=home, MEM0_TELEMETRY="False", OPENAI_API_KEY="none", ANONYMIZED_TELEMETRY="False")
from mem0 import Memory

class Embedder:
    config = None

    def embed(self, text, *_):
        return [byte / 128 - 1 for byte in hashlib.sha256(text.encode()).digest()]

    def embed_batch(self, texts, *_):
        return [self.embed(text) for text in texts]

store = {"provider": provider, "config": json.loads(where)}
memory = Memory.from_config({"vector_store": store, "history_db_path": home + "/history.db"})
memory.embedding_model = Embedder()
if verb == "make":
    made = []
    for n in range(12):
        user = ("alice", "user/with:odd+chars")[n % 2]
        said = memory.add(f"naïve fact {n} 🙂", user_id=user, metadata={"topic": f"t{n % 3}", "n": n}, infer=False)
        made.append(said["results"][0]["id"])
    memory.update(made[4], "a fact that was changed")
    memory.delete(made[5])
found = []
for user in ("alice", "user/with:odd+chars"):
    for one in memory.get_all(filters={"user_id": user}, top_k=100)["results"]:
        found.append([one["id"], one["memory"], one["metadata"], one["created_at"], len(memory.history(one["id"]))])
    asked = memory.search("naïve fact 3 🙂", filters={"user_id": user}, top_k=3)["results"]
    found.append([one["id"] for one in asked])
print(json.dumps(sorted(found, key=str)))
if hasattr(memory.vector_store, "client") and hasattr(memory.vector_store.client, "close"):
    memory.vector_store.client.close()
"""
DIMS = {"embedding_model_dims": 32}


@pytest.fixture
def mem0(home: Path) -> Callable[..., Any]:
    """Return `mem0("make" or "tell", provider, settings)`: what mem0 says of all memories."""

    def run(verb: str, provider: str, where: dict[str, Any]) -> Any:
        (home / ".mem0").mkdir(exist_ok=True)
        words = [sys.executable, "-c", MEM0, verb, provider, json.dumps(where), str(home / ".mem0")]
        ran = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=200, env=os.environ | {"HOME": str(home)}
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    return run


@pytest.fixture
def run(run_cli: Callable[..., Any], home: Path) -> Callable[..., Any]:
    """Return `run(*words)`: memkeep, with a vault that is there."""

    def words(*said: Any) -> Any:
        ran = run_cli(*said, "--json", env={"MEMKEEP_VAULT": str(home / "vault"), "MEMKEEP_PASSWORD": "x"})
        assert ran.code == 0, ran
        return ran.result

    words("init")
    return words


def test_a_folder_of_mem0s_with_chroma_comes_back(
    mem0: Callable[..., Any], run: Callable[..., Any], home: Path
) -> None:
    where = {"path": str(home / ".mem0" / "points"), "collection_name": "mem0"}
    told = mem0("make", "chroma", where)
    [report] = run("backup", home / ".mem0")["snapshots"]
    assert (report["system"], report["records"], report["rung"]) == ("mem0", 11, "readable")
    assert (report["findings"], report["omitted"]) == ([], [])
    assert run("verify", report["id"], "--rung", "equivalent")["rung"] == "equivalent"
    shutil.rmtree(home / ".mem0")
    run("restore", report["id"], "--to", home / ".mem0")
    found = run("diff", report["id"], home / ".mem0")
    assert found.pop("collections")
    assert found == {"added": [], "removed": [], "changed": []}
    assert mem0("tell", "chroma", where) == told


@pytest.fixture
def qdrant_url(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a Qdrant server."""
    (tmp_path / "server").mkdir()
    with qdrant(tmp_path / "server", QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as server:
        yield f"qdrant://127.0.0.1:{urlsplit(server.base).port}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """Return the URL of a Postgres."""
    with postgres() as server:
        yield server.url()


def test_collections_of_mem0s_in_a_server_come_back(
    mem0: Callable[..., Any], run: Callable[..., Any], qdrant_url: str
) -> None:
    import httpx

    port = urlsplit(qdrant_url).port
    where = {"host": "127.0.0.1", "port": port, "collection_name": "mem0", "path": None, **DIMS}
    told = mem0("make", "qdrant", where)
    [report] = run("backup", qdrant_url)["snapshots"]
    assert (report["system"], report["records"], report["rung"]) == ("mem0", 11, "readable")
    assert run("verify", report["id"], "--rung", "equivalent")["rung"] == "equivalent"
    assert httpx.delete(f"http://127.0.0.1:{port}/collections/mem0").status_code == 200
    run("restore", report["id"], "--to", qdrant_url, "--part", "qdrant/mem0")
    assert mem0("tell", "qdrant", where) == told


def test_a_table_of_mem0s_in_a_server_comes_back(
    mem0: Callable[..., Any], run: Callable[..., Any], postgres_url: str
) -> None:
    import psycopg

    where = {"connection_string": postgres_url, "collection_name": "memories", **DIMS}
    told = mem0("make", "pgvector", where)
    [report] = run("backup", postgres_url)["snapshots"]
    assert (report["system"], report["records"], report["rung"]) == ("mem0", 11, "readable")
    assert run("verify", report["id"], "--rung", "equivalent")["rung"] == "equivalent"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for [table] in tables:
            connection.execute(f'DROP TABLE "{table}"')
    run("restore", report["id"], "--to", postgres_url)
    assert mem0("tell", "pgvector", where) == told


def rows_between(source: Part, target: Part, spread: str = "") -> Merged:
    """Take the rows of one part into another; `spread` is what a key of the payload is called there."""
    engines = {"qdrant-local": QdrantLocalEngine(), "qdrant": QdrantEngine(), "postgres": PostgresEngine()}
    engines |= {"chroma": ChromaEngine()}
    scratch = Path(tempfile.mkdtemp())
    with engines[source.engine].freeze(source, Path(source.path), scratch) as opened:
        rows = [row for batch in opened.rows(source.maps[0]) for row in batch]
    shutil.rmtree(scratch)
    own = {"id", "vector"}
    rows = [{name if name in own else f"{spread}{name}": one for name, one in row.items()} for row in rows]
    given = {target.maps[0].table: lambda: iter([rows])}
    with engines[target.engine].merge_rows(target, given, Wanted(conflict="fail")) as one:
        one.commit()
        return one.result


def part_of(engine: str, path: str, table: str = "mem0") -> Part:
    map_ = TableMap(collection="memories", table=table, id="id", fields={"text": "data"}, vectors=("vector",))
    return Part(name="part", engine=engine, role=Role.CANONICAL, path=path, maps=(map_,))


def test_mem0_reads_rows_that_came_from_another_of_its_stores(
    mem0: Callable[..., Any], home: Path, qdrant_url: str, postgres_url: str
) -> None:
    local = {"path": str(home / "one"), "collection_name": "mem0", "on_disk": True, **DIMS}
    told = mem0("make", "qdrant", local)
    source = part_of("qdrant-local", str(home / "one/collection/mem0/storage.sqlite"))
    server = {"host": "127.0.0.1", "port": urlsplit(qdrant_url).port, "collection_name": "mem0", "path": None, **DIMS}
    again = local | {"path": str(home / "two")}
    table = {"connection_string": postgres_url, "collection_name": "mem0", **DIMS}
    for provider, where, target, spread in (
        ("qdrant", server, part_of("qdrant", f"{qdrant_url}/mem0"), ""),
        ("qdrant", again, part_of("qdrant-local", str(home / "two/collection/mem0/storage.sqlite")), ""),
        ("pgvector", table, part_of("postgres", postgres_url, "public.mem0"), "payload."),
    ):
        assert mem0("tell", provider, where) == [[], []]  # which makes it
        done = rows_between(source, target, spread)
        assert (done.tables[target.maps[0].table], done.failed) == (Counts(inserted=11), ())
        assert mem0("tell", provider, where) == told


def test_mem0_reads_rows_in_another_chroma(mem0: Callable[..., Any], home: Path) -> None:
    one, two = ({"path": str(home / name), "collection_name": "mem0"} for name in ("one", "two"))
    told = mem0("make", "chroma", one)
    assert mem0("tell", "chroma", two) == [[], []]
    done = rows_between(part_of("chroma", one["path"]), part_of("chroma", two["path"]))
    assert (done.tables["mem0"], done.failed) == (Counts(inserted=11), ())
    assert mem0("tell", "chroma", two) == told

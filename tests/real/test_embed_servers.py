"""Vectors in servers: those of mem0's table in Postgres, of its collection in Qdrant, and of a Chroma directory."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from memkeep.errors import RefusedError
from memkeep.library import discover
from memkeep.ops.embed import EmbedOptions, EmbedResult, embed
from memkeep.ops.embedder import Embedder
from memkeep.testing.embedder import Embedder as Endpoint
from memkeep.testing.embedder import embedder
from memkeep.testing.postgres import postgres
from memkeep.testing.qdrant_server import qdrant

pytestmark = pytest.mark.usefixtures("home")
COUNT = 150
TEXTS = {str(uuid.UUID(int=number + 1)): f"memory {number}" for number in range(COUNT)}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with embedder(dims=64) as server:
        yield server


def payload(text: str) -> dict[str, Any]:
    return {"data": text, "hash": "h", "user_id": "ann", "created_at": "2026-01-02T03:04:05+00:00"}


def run(url: str, endpoint: Endpoint, *, every: bool) -> EmbedResult:
    asked = Embedder(provider="ollama", model="m", url=endpoint.url)
    return embed(None, discover(url)[0], asked, EmbedOptions(every=every, snapshot=False))


def test_a_table_of_pgvector_gets_its_vectors(endpoint: Endpoint) -> None:
    with postgres() as server, psycopg.connect(server.url(), autocommit=True) as con:
        con.execute("CREATE EXTENSION vector")
        con.execute("CREATE TABLE memories (id uuid PRIMARY KEY, vector vector(64), payload jsonb)")
        with con.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO memories (id, payload) VALUES (%s, %s)",
                [(key, psycopg.types.json.Jsonb(payload(text))) for key, text in TEXTS.items()],
            )
        result = run(server.url(), endpoint, every=False)
        assert (result.wanted, result.written, result.dims) == (COUNT, COUNT, 64)
        rows = con.execute("SELECT id::text, vector::real[], payload FROM memories").fetchall()
        for key, vector, said in rows:
            assert said == payload(TEXTS[key])
            assert np.array_equal(np.array(vector, np.float32), endpoint.vectors("m", [TEXTS[key]])[0])
        with embedder(dims=65) as other, pytest.raises(RefusedError, match="65 dimensions, not of 64"):
            run(server.url(), other, every=True)


def test_a_collection_of_qdrant_gets_its_vectors(endpoint: Endpoint, tmp_path: Path) -> None:
    with qdrant(tmp_path, QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as server:
        with httpx.Client(base_url=server.base, timeout=60) as client:
            client.put("/collections/mem0", json={"vectors": {"size": 64, "distance": "Cosine"}}).raise_for_status()
            points = [{"id": key, "vector": [1.0] * 64, "payload": payload(text)} for key, text in TEXTS.items()]
            client.put("/collections/mem0/points?wait=true", json={"points": points}).raise_for_status()
            url = f"qdrant://127.0.0.1:{client.base_url.port}/mem0"
            _lose(client, next(iter(TEXTS)))
            with pytest.raises(RefusedError, match="did not make the vectors"):
                run(url, endpoint, every=False)
            result = run(url, endpoint, every=True)
            assert (result.wanted, result.written) == (COUNT, COUNT)
            body = {"limit": 1000, "with_payload": True, "with_vector": True}
            found = client.post("/collections/mem0/points/scroll", json=body).json()["result"]["points"]
        for point in found:
            assert point["payload"] == payload(TEXTS[point["id"]])
            right = endpoint.vectors("m", [TEXTS[point["id"]]])[0]
            assert np.allclose(point["vector"], right, atol=1e-6)


def _lose(client: httpx.Client, key: str) -> None:
    body = {"points": [key], "vector": [""]}
    client.post("/collections/mem0/points/vectors/delete?wait=true", json=body).raise_for_status()


def test_a_chroma_directory_gets_its_vectors(endpoint: Endpoint, tmp_path: Path) -> None:
    import chromadb

    folder = tmp_path / "chroma"
    client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
    made = client.create_collection("notes", embedding_function=None)
    made.add(list(TEXTS), embeddings=np.ones((COUNT, 64), np.float32), documents=list(TEXTS.values()))
    client._system.stop()
    result = run(str(folder), endpoint, every=True)
    assert (result.wanted, result.written) == (COUNT, COUNT)
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
    found = client.get_collection("notes", embedding_function=None).get(include=["embeddings", "documents"])
    assert found["documents"] is not None
    assert np.allclose(found["embeddings"], endpoint.vectors("m", found["documents"]), atol=1e-6)
    client._system.stop()

"""What the tests of Chroma share: a directory that chromadb itself wrote, and what chromadb says is in it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Collections below and above the number of records from which on vectors go into files, cosine and l2.
MAKE = """
import sys
import chromadb
import numpy as np
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
random = np.random.default_rng(1)
for name, space, count, batch in (
    ("queue", "cosine", 20, 0), ("files", "cosine", 150, 50), ("squares", "l2", 130, 50), ("dots", "ip", 60, 50)
):
    hnsw = {"space": space} | ({"sync_threshold": batch, "batch_size": 10} if batch else {})
    one = client.create_collection(name, configuration={"hnsw": hnsw}, embedding_function=None)
    vectors = random.normal(size=(count, 8)).astype("f4")
    ids = [f"{name}-{n}" for n in range(count)]
    metadatas = [{"n": n, "half": n / 2, "even": n % 2 == 0, "said": f"naïve {n} 🙂"} for n in range(count)]
    for start in range(0, count, 25):
        end = min(count, start + 25)
        one.add(
            ids=ids[start:end], embeddings=vectors[start:end], metadatas=metadatas[start:end],
            documents=[f"document {n}" for n in range(start, end)],
        )
    one.delete(ids=ids[3:6])
    one.update(ids=ids[7:8], embeddings=random.normal(size=(1, 8)), documents=["new"], metadatas=[{"n": None, "k": 1}])
    one.upsert(ids=[ids[9], ids[3], f"{name}-new"], embeddings=random.normal(size=(3, 8)), documents=["a", "b", "c"])
    one.update(ids=ids[10:11], metadatas=[{"said": "other"}])
one = client.create_collection("bare", embedding_function=None)
one.add(ids=["1", "é"], embeddings=[[1.0, 2.0], [3.0, 4.0]])
client.create_collection("empty", embedding_function=None)
"""
TELL = """
import json, sys
import chromadb
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
told = {}
for one in client.list_collections():
    one = client.get_collection(one.name, embedding_function=None)
    got = one.get(include=["documents", "metadatas", "embeddings"])
    vectors = [list(map(float, vector)) for vector in got["embeddings"]]
    asked = one.query(query_embeddings=vectors[:4], n_results=5) if vectors else {"ids": [], "distances": []}
    told[one.name] = {
        "records": {
            id: {"document": document, "metadata": metadata, "vector": vector}
            for id, document, metadata, vector in zip(got["ids"], got["documents"], got["metadatas"], vectors)
        },
        "asked": got["ids"][:4],
        "answers": [asked["ids"], asked["distances"]],
    }
print(json.dumps(told))
"""


def run(code: str, folder: Path) -> str:
    """Run chromadb in a process of its own."""
    environment = os.environ | {"ANONYMIZED_TELEMETRY": "False", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=False, timeout=240, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a directory that chromadb wrote, never to be changed, and what chromadb says of a copy."""
    folder = tmp_path_factory.mktemp("chroma") / "db"
    run(MAKE, folder)
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    return folder, json.loads(run(TELL, copy))


@pytest.fixture
def folder(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """Return a copy of the directory."""
    return Path(shutil.copytree(made[0], tmp_path / "db"))


@pytest.fixture
def truth(made: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """Return what chromadb says of it."""
    return made[1]


@pytest.fixture
def tell() -> Callable[[Path], dict[str, Any]]:
    """Return what asks chromadb what a directory holds."""

    def told(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(TELL, folder))
        return found

    return told

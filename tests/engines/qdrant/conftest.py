"""A real server, collections of every kind in it, and what the server itself says of them."""

import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from memkeep.engines.qdrant import QdrantEngine, QdrantOpened
from memkeep.model import Part, Role, TableMap
from memkeep.records import groups
from memkeep.testing.qdrant_server import QdrantServer, qdrant

NUMBERS = itertools.count()


class Client:
    """The server's own interface, as its users have it."""

    def __init__(self, server: QdrantServer, key: str = "") -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.base, timeout=60, headers={"api-key": key} if key else {})

    def ask(self, method: str, path: str, body: object = None) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def make(self, size: int = 8, **more: Any) -> str:
        name = f"memory-{next(NUMBERS)}"
        self.ask("PUT", f"/collections/{name}", {"vectors": {"size": size, "distance": "Cosine"}, **more})
        return name

    def put(self, name: str, points: list[dict[str, Any]]) -> None:
        self.ask("PUT", f"/collections/{name}/points?wait=true", {"points": points})

    def delete(self, name: str, ids: list[Any]) -> None:
        self.ask("POST", f"/collections/{name}/points/delete?wait=true", {"points": ids})

    def wait_until_idle(self, name: str) -> None:
        end = time.monotonic() + 60
        while self.ask("GET", f"/collections/{name}")["status"] != "green":
            assert time.monotonic() < end
            time.sleep(0.02)

    def points(self, name: str) -> dict[Any, dict[str, Any]]:
        found: dict[Any, dict[str, Any]] = {}
        offset = None
        while True:
            body = {"limit": 1000, "with_payload": True, "with_vector": True, "offset": offset}
            page = self.ask("POST", f"/collections/{name}/points/scroll", body)
            found |= {point["id"]: point for point in page["points"]}
            if (offset := page["next_page_offset"]) is None:
                return found


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with qdrant(tmp_path_factory.mktemp("qdrant"), QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: QdrantServer) -> Iterator[Client]:
    made = Client(server)
    with made.http:
        yield made


@pytest.fixture
def engine() -> QdrantEngine:
    return QdrantEngine()


@pytest.fixture
def part(server: QdrantServer) -> Callable[..., Part]:
    def make(name: str, **fields: str) -> Part:
        map_ = TableMap(collection="memories", table=name, id="id", fields=fields or {"text": "data"})
        return Part(name=f"qdrant/{name}", engine="qdrant", role=Role.CANONICAL, path=server.url(name), maps=(map_,))

    return make


def vector(size: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(0, 1) for _ in range(size)]


def plain_points(start: int, count: int, size: int = 8, batch: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": i, "vector": vector(size, i), "payload": {"data": f"memory {i}", "user_id": "ana", "batch": batch}}
        for i in range(start, start + count)
    ]


KINDS: dict[str, Any] = {
    "vectors": {
        "cosine": {"size": 64, "distance": "Cosine"},
        "half": {"size": 32, "distance": "Dot", "datatype": "float16", "on_disk": True},
        "bytes": {"size": 16, "distance": "Euclid", "datatype": "uint8"},
        "late": {"size": 8, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}},
        "far": {"size": 48, "distance": "Manhattan", "on_disk": True},
    },
    "sparse_vectors": {"words": {}, "bm25": {"modifier": "idf"}},
}
PAYLOADS: list[dict[str, Any] | None] = [
    {"data": "plain"},
    {},
    None,
    {"n": {"a": [1, 2, {"b": None}], "u": "žluťoučký 🐎"}, "big": 2**63 - 1, "f": 1.5e300, "neg": -(2**63)},
    {"null": None, "empty": [], "yes": True, "id": "its own", "vector.far": 3, "big": 2**64 - 1},
]


def odd_point(i: int, seed: int = 0) -> dict[str, Any]:
    """Return a point of the collection of all kinds: some lack some vectors, some lack all."""
    vectors: dict[str, Any] = {
        "cosine": vector(64, i + seed),
        "half": vector(32, i + 1 + seed),
        "bytes": [(i * k + seed) % 256 for k in range(16)],
        "late": [vector(8, i * 10 + row + seed) for row in range(1 + i % 3)],
        "far": vector(48, i + 2 + seed),
        "words": {"indices": [1, i + 5], "values": [0.5, i / 7]},
    }
    if i % 5 == 0:
        del vectors["cosine"]
    if i % 7 == 0:
        del vectors["late"], vectors["words"], vectors["far"]
    if i % 11 == 0:
        vectors = {}
    ident: Any = i if i % 2 else str(uuid.UUID(int=i * 2**90 + 5))
    payload = PAYLOADS[i % len(PAYLOADS)]
    return {"id": ident, "vector": vectors, **({"payload": payload} if payload is not None else {})}


def rows_of(opened: QdrantOpened) -> dict[str, dict[str, Any]]:
    """Scan; return the records by id."""
    found = {}
    for group in opened.scan({}):
        columns, rows = groups.decode(group.data)
        for row in rows:
            record = {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            found[str(record["id"])] = record
    return found


def write_out(opened: QdrantOpened, root: Path) -> None:
    """Put an image under a root, as a restored snapshot lies there."""
    for entry in opened.entries():
        target = root / entry.path
        if entry.kind == "dir":
            target.mkdir(parents=True, exist_ok=True)
        else:
            with target.open("xb") as file:
                for buffer in opened.stream(entry):
                    if buffer.count(0) == len(buffer):
                        file.seek(len(buffer), os.SEEK_CUR)
                    else:
                        file.write(buffer)
                file.truncate(entry.size)

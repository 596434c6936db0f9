"""Memory in servers that the benchmark makes and ages: a collection as mem0 has it, a table as Thanos has it."""

import json
import struct
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg

from memkeep import clock
from memkeep.engines.qdrant_http import Server, address
from memkeep.testing.postgres import postgres
from memkeep.testing.qdrant_server import qdrant

DIMS = 1536
_BATCH = 1000
_WORDS = [
    "user",
    "likes",
    "green",
    "tea",
    "before",
    "work",
    "asked",
    "to",
    "be",
    "reminded",
    "of",
    "dentist",
    "in",
    "May",
]
_PATIENCE = 1200  # seconds


class Place(Protocol):
    """A store in a server; `url` is what memkeep is given."""

    url: str
    dump: str  # the server's own program for backups, "" when it has none

    def put(self, ids: list[str], vectors: Any, payloads: list[dict[str, Any]]) -> None:
        """Add memories, or rewrite them."""

    def remove(self, ids: list[str]) -> None:
        """Delete memories."""

    def settle(self) -> None:
        """Wait until the server has nothing left to do, and has indexed all."""


class Filled:
    """A store in a server that ages; the same memories every time."""

    def __init__(self, place: Place, rows: int) -> None:
        self.place = place
        self._random = np.random.default_rng(7)
        self._ids: list[str] = []
        self._new = 0
        self.add(rows)

    def add(self, rows: int) -> None:
        """Add memories."""
        for first in range(0, rows, _BATCH):
            self._ids += self._put([self._id() for _ in range(min(_BATCH, rows - first))])
        self.place.settle()

    def day(self) -> int:
        """Add, rewrite or delete one memory of a hundred (a quarter, a half, a quarter).

        Returns the bytes of new information: of those added and rewritten the vectors, four bytes a float, and the
        payloads as JSON.
        """
        self._new = 0
        old = self._ids[:: 200 if len(self._ids) < 400 else 100]
        some = len(old) // 4
        gone = set(old[:some])
        self._put(old[some : 3 * some])
        self._put(added := [self._id() for _ in range(some)])
        self.place.remove(sorted(gone))
        self._ids = [one for one in self._ids if one not in gone] + added
        self.place.settle()
        return self._new

    def _put(self, ids: list[str]) -> list[str]:
        vectors = self._random.standard_normal((len(ids), DIMS), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        payloads = [self._payload() for _ in ids]
        self._new += vectors.nbytes + sum(len(json.dumps(one)) for one in payloads)
        self.place.put(ids, vectors, payloads)
        return ids

    def _id(self) -> str:
        return str(uuid.UUID(bytes=self._random.bytes(16), version=4))

    def _payload(self) -> dict[str, Any]:
        words = self._random.choice(_WORDS, int(self._random.integers(8, 40)))
        return {
            "data": " ".join(words),
            "hash": self._random.bytes(16).hex(),
            "user_id": f"user-{self._random.integers(5)}",
            "created_at": f"2026-0{self._random.integers(1, 10)}-11T08:15:30.{self._random.integers(10**6):06}+00:00",
            "heat": round(float(self._random.random()), 3),
        }


class QdrantPlace:
    """A collection."""

    dump = ""

    def __init__(self, url: str) -> None:
        self.url = url
        self._server = Server(address(url))
        self._path = address(url).path
        self._server.send("PUT", self._path, {"vectors": {"size": DIMS, "distance": "Cosine"}})
        for key in ("user_id", "agent_id", "run_id"):
            self._server.send("PUT", f"{self._path}/index", {"field_name": key, "field_schema": "keyword"})

    def put(self, ids: list[str], vectors: Any, payloads: list[dict[str, Any]]) -> None:
        """Add memories, or rewrite them."""
        batch = {"ids": ids, "vectors": vectors.tolist(), "payloads": payloads}
        self._server.send("PUT", f"{self._path}/points", {"batch": batch}, wait="true")

    def remove(self, ids: list[str]) -> None:
        """Delete memories."""
        self._server.send("POST", f"{self._path}/points/delete", {"points": ids}, wait="true")

    def settle(self) -> None:
        """Wait for the optimiser, which pauses between its tasks."""
        start, quiet = clock.monotonic(), 0
        while quiet < 5:
            quiet = quiet + 1 if self._server.get(self._path)["status"] == "green" else 0
            if clock.monotonic() - start > _PATIENCE:
                sys.exit("Qdrant is still optimising")
            clock.pause(0.2)


class PostgresPlace:
    """A table."""

    def __init__(self, url: str, programs: Path) -> None:
        self.url = url
        self.dump = str(programs / "pg_dump")
        self._connection = psycopg.connect(url, autocommit=True)
        self._run("CREATE EXTENSION vector")
        self._run(f"CREATE TABLE thanos_memories (id uuid PRIMARY KEY, vector vector({DIMS}), payload jsonb)")
        self._run("CREATE TEMP TABLE coming (LIKE thanos_memories)")
        self._indexed = False

    def put(self, ids: list[str], vectors: Any, payloads: list[dict[str, Any]]) -> None:
        """Add memories, or rewrite them."""
        with self._connection.cursor() as cursor, cursor.copy("COPY coming FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for one, vector, payload in zip(ids, vectors, payloads, strict=True):
                floats = struct.pack(">HH", DIMS, 0) + vector.astype(">f4").tobytes()
                fields = (uuid.UUID(one).bytes, floats, b"\x01" + json.dumps(payload).encode())
                copy.write(struct.pack(">h", 3) + b"".join(struct.pack(">i", len(field)) + field for field in fields))
            copy.write(b"\xff\xff")
        self._run(
            "INSERT INTO thanos_memories SELECT * FROM coming ON CONFLICT (id) DO UPDATE SET "
            "vector = excluded.vector, payload = excluded.payload"
        )
        self._run("TRUNCATE coming")

    def remove(self, ids: list[str]) -> None:
        """Delete memories."""
        self._connection.execute("DELETE FROM thanos_memories WHERE id = ANY(%s::uuid[])", [ids])

    def settle(self) -> None:
        """Make the index once there is something to index, and write back all."""
        if not self._indexed:
            self._run("CREATE INDEX ON thanos_memories USING ivfflat (vector vector_cosine_ops) WITH (lists = 20)")
            self._indexed = True
        self._run("VACUUM ANALYZE thanos_memories")
        self._run("CHECKPOINT")

    def _run(self, statement: str) -> None:
        self._connection.execute(statement)


@contextmanager
def qdrant_place(folder: Path) -> Iterator[QdrantPlace]:
    """Run a Qdrant with an empty collection."""
    folder.mkdir(parents=True)
    with qdrant(folder) as server:
        yield QdrantPlace(server.url("mem0"))


@contextmanager
def postgres_place(_: Path) -> Iterator[PostgresPlace]:
    """Run a Postgres with an empty table."""
    with postgres() as server:
        yield PostgresPlace(server.url(), server.programs)

"""What the tests of the Postgres engine share: a real server a worker, a database a test, and ways to freeze it."""

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest

from memkeep.engines.postgres import Frozen, PostgresEngine
from memkeep.events import SILENT
from memkeep.model import Baseline, Part, Role, TableMap
from memkeep.records.groups import decode
from memkeep.testing.postgres import OLD, PostgresServer, postgres

MEMORIES = TableMap(
    collection="memories",
    table="public.memories",
    id="id",
    fields={"text": "payload.data", "scope": "payload.user_id", "created_at": "payload.created_at"},
    vectors=("vector",),
)
ANN = "00000000-0000-0000-0000-00000000000"
RELATIONSHIPS = """
CREATE TABLE relationships (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL, target_id TEXT NOT NULL,
  rel_type TEXT NOT NULL, strength REAL DEFAULT 1.0, metadata TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
  UNIQUE (source_id, target_id, rel_type));
"""
_numbers = itertools.count(1)


class Database(NamedTuple):
    """An empty database with pgvector, and a connection of its owner."""

    server: PostgresServer
    name: str
    url: str
    connection: "psycopg.Connection[Any]"

    def part(self, *maps: TableMap, **more: Any) -> Part:
        return Part(
            **{"name": "postgres", "engine": "postgres", "role": Role.CANONICAL, "path": self.url, "maps": maps} | more
        )

    def run(self, sql: str) -> list[Any]:
        cursor = self.connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def fill(self, rows: int = 300) -> None:
        self.run(
            f"""CREATE TABLE memories (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), vector vector(64), payload jsonb);
            INSERT INTO memories (vector, payload) SELECT (SELECT array_agg(random())::vector
            FROM generate_series(1, 64) WHERE i > 0),
            jsonb_build_object('data', 'text ' || i, 'user_id', 'user-' || i % 3, 'created_at',
            '2025-01-0' || 1 + i % 9) FROM generate_series(1, {rows}) i"""
        )


class Snap(NamedTuple):
    """A moment that was read to its end; its files stay in `root`."""

    root: Path
    opened: Frozen
    baseline: Baseline
    records: dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def old_server() -> Iterator[PostgresServer]:
    with postgres(OLD) as running:
        yield running


@contextmanager
def new_database(server: PostgresServer) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        yield Database(server, name, server.url(name), connection)


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    with new_database(server) as made:
        yield made


@pytest.fixture
def other(server: PostgresServer) -> Iterator[Database]:
    """Another database, to restore into."""
    with new_database(server) as made:
        yield made


@pytest.fixture
def snap(tmp_path: Path) -> Callable[..., Snap]:
    """Freeze a part and read all of it."""

    def take(part: Part, **options: Any) -> Snap:
        scratch = tmp_path / f"scratch-{next(_numbers)}"
        scratch.mkdir()
        with frozen(part, scratch) as opened:
            return read(opened, scratch / "image", **options)

    return take


def frozen(part: Part, scratch: Path) -> AbstractContextManager[Frozen]:
    return PostgresEngine().freeze(part, Path(), scratch)


def read(opened: Any, root: Path, **options: Any) -> Snap:
    records: dict[str, dict[str, Any]] = {}
    for group in opened.scan(options.get("bits", {}), options.get("probes")):
        columns, rows = decode(group.data)
        records |= {str(row[columns.index("id")]): dict(zip(columns, row, strict=True)) for row in rows}
    return Snap(root, opened, opened.baseline(), records)


def rebuild(part: Part, root: Path, target: str, *, replace: bool = False) -> Any:
    return PostgresEngine().rebuild(part, root, target, replace=replace, events=SILENT)


def at(part: Part, url: str) -> Part:
    return msgspec.structs.replace(part, path=url)


@pytest.fixture
def thanos(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a Thanos folder: five memories of two users, and three relationships."""
    database.run(
        """CREATE TABLE thanos_memories (id uuid PRIMARY KEY, vector vector(3),
           payload jsonb CHECK (payload ->> 'data' <> 'forbidden'))"""
    )
    for number in range(1, 6):
        payload = {
            "data": f"memory {number}",
            "user_id": "ann" if number < 4 else "bob",
            "created_at": "2025-01-01T00:00:00",
            "heat": 1.0,
        }
        database.run(f"INSERT INTO thanos_memories VALUES ('{ANN}{number}', '[{number},0,1]', '{json.dumps(payload)}')")
    folder = tmp_path / "Thanos"
    (folder / "State").mkdir(parents=True)
    con = sqlite3.connect(folder / "State" / "relationships.db")
    con.executescript(RELATIONSHIPS)
    for source, target in ((1, 2), (2, 3), (4, 5)):
        con.execute(
            "INSERT INTO relationships (source_id, target_id, rel_type, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            (f"{ANN}{source}", f"{ANN}{target}", "caused", "2025-01-01", "2025-01-01"),
        )
    con.commit()
    con.close()
    monkeypatch.setenv("THANOS_MEMORY_DATABASE_URL", database.url)
    return folder

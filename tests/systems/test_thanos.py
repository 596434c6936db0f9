"""Thanos: a table in Postgres and relationships beside the program, one store."""

import sqlite3
from pathlib import Path

import pytest

from memkeep.engines.base import ServerInspection, ServerTable
from memkeep.errors import StoreError
from memkeep.systems.detect import discover
from memkeep.systems.look import Look

URL = "postgresql://me@127.0.0.1:5999/neon"
RELATIONSHIPS = """
CREATE TABLE relationships (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL, target_id TEXT NOT NULL,
  rel_type TEXT NOT NULL, strength REAL DEFAULT 1.0, metadata TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
  UNIQUE (source_id, target_id, rel_type));
CREATE TABLE pattern_cache (id INTEGER PRIMARY KEY AUTOINCREMENT, pattern_key TEXT NOT NULL UNIQUE,
  memory_ids TEXT NOT NULL, pattern_type TEXT NOT NULL, last_hit TEXT NOT NULL, created_at TEXT NOT NULL);
"""


@pytest.fixture
def folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("THANOS_MEMORY_DATABASE_URL", raising=False)
    path = tmp_path / "Thanos"
    (path / "State").mkdir(parents=True)
    con = sqlite3.connect(path / "State" / "relationships.db")
    con.executescript(RELATIONSHIPS)
    con.close()
    return path


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every URL name a database with the product's table, and note which were asked."""
    asked = []
    keys = ("data", "user_id", "client", "created_at", "heat", "importance", "type")
    columns = {"id": "uuid", "vector": "vector(1024)", "payload": "jsonb"} | {f"payload.{key}": "json" for key in keys}
    table = ServerTable(name="public.thanos_memories", columns=columns, vectors={"vector": 1024}, key="id", rows=38_624)
    other = ServerTable(name="public.invoices", columns={"id": "int"}, key="id", rows=3)

    def server(_: Look, url: str) -> ServerInspection:
        asked.append(url)
        return ServerInspection(url=url, version="18.4", tables=(table, other))

    monkeypatch.setattr(Look, "server", server)
    return asked


def test_the_folder_says_where_the_memories_are_and_both_are_one_store(folder: Path, database: list[str]) -> None:
    (folder / ".env").write_text("OTHER=1\nTHANOS_MEMORY_DATABASE_URL='postgresql://me:s3cret@127.0.0.1:5999/neon'\n")
    [store] = discover([folder])
    assert (store.system, store.path, store.records) == ("thanos", str(folder), 38_624)
    assert [part.name for part in store.parts] == ["postgres", "State/relationships.db"]
    memories, relationships = store.parts
    assert (memories.path, memories.include) == (URL, ("public.thanos_memories",))
    assert memories.maps[0].fields["text"] == "payload.data"
    assert relationships.maps[0].links == ("source_id", "target_id")
    assert store.fingerprint == {"embedding": {"dims": 1024}}
    assert "s3cret" not in repr(store)
    assert set(database) == {URL}


@pytest.mark.parametrize("below", ["State", "State/relationships.db"])
def test_what_lies_in_the_folder_names_the_same_store(
    folder: Path, database: list[str], monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    monkeypatch.setenv("THANOS_MEMORY_DATABASE_URL", URL)
    [store] = discover([folder / below])
    assert (store.system, store.path) == ("thanos", str(folder))
    assert database


def test_a_folder_that_does_not_say_where_the_memories_are_is_told_so(folder: Path) -> None:
    [store] = discover([folder])
    assert [part.name for part in store.parts] == ["State/relationships.db"]
    assert [finding.code for finding in store.findings] == ["memories_elsewhere"]
    assert store.records is None


def test_a_database_that_cannot_be_asked_stays_a_part_so_that_a_backup_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THANOS_MEMORY_DATABASE_URL", URL)

    def down(_: Look, url: str) -> ServerInspection:
        raise StoreError(f"{url} does not answer", hint="pg_isready", code="store_unreachable")

    monkeypatch.setattr(Look, "server", down)
    [store] = discover([folder])
    assert [part.name for part in store.parts] == ["postgres", "State/relationships.db"]
    assert [finding.code for finding in store.findings] == ["store_unreachable"]


def test_a_url_alone_is_a_store_that_says_what_it_lacks(database: list[str]) -> None:
    [store] = discover([f"thanos:{URL}"])
    assert (store.system, store.path, [part.name for part in store.parts]) == ("thanos", URL, ["postgres"])
    assert [finding.code for finding in store.findings] == ["relationships_elsewhere"]
    assert discover([URL])[0].system == "thanos"
    assert database


def test_another_relationships_database_is_not_taken_for_it(tmp_path: Path, home: Path) -> None:
    (tmp_path / "x" / "State").mkdir(parents=True)
    con = sqlite3.connect(tmp_path / "x" / "State" / "relationships.db")
    con.execute("CREATE TABLE relationships (id, who, whom)")
    con.close()
    assert [store.system for store in discover([tmp_path / "x"])] == ["custom"]

"""OpenMemory is found by its tables, and its servers by what its own files say."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memkeep.engines import logins
from memkeep.model import Role, Severity, Store

pytestmark = pytest.mark.real

Find = Callable[..., list[Store]]
DEAD = "127.0.0.1:1"  # nobody listens there
COMPOSE = """
services:
  mem0_store:
    image: qdrant/qdrant
    ports: ["{port}:6333"]
    volumes: ["mem0_storage:{mount}"]
  openmemory-mcp:
    image: mem0/openmemory-mcp
    build: api/
    env_file: [api/.env]
    environment: {environment}
"""


@pytest.fixture
def root(copy_store: Callable[..., Path]) -> Path:
    """Return a folder of OpenMemory whose vectors are in no folder."""
    folder = copy_store("openmemory")
    shutil.rmtree(folder / "qdrant-local")
    return folder


def write_compose(root: Path, *, port: str = "1", mount: str = "/qdrant/storage", environment: str = "{}") -> None:
    (root / "docker-compose.yml").write_text(COMPOSE.format(port=port, mount=mount, environment=environment))


def urls(store: Store) -> list[str]:
    return [part.path for part in store.parts if "://" in part.path]


def codes(store: Store) -> list[str]:
    return [one.code for one in store.findings]


def set_config(root: Path, **config: Any) -> None:
    with closing(sqlite3.connect(root / "api" / "openmemory.db")) as con, con:
        con.execute("UPDATE configs SET value = ?", (json.dumps(config),))


def test_a_store_is_found_by_its_folder_its_database_and_its_compose_file(
    root: Path, find: Find, complete: Callable[[Store], None]
) -> None:
    write_compose(root)
    (root / "ui").mkdir()
    (root / "ui" / "page.tsx").write_text("source")
    (root / "api" / "main.py").write_text("source")
    (root / "api" / ".env").write_text("OPENAI_API_KEY=never")
    (root / "api" / "openmemory.db-journal").touch()
    (store,) = find(root)
    for path in (root.parent, root / "api", root / "api" / "openmemory.db", root / "docker-compose.yml"):
        assert find(path) == [store]
    assert (store.system, store.path, store.root) == ("openmemory", str(root), str(root))
    assert store.records == 60
    assert store.fingerprint == {
        "embedding": {"provider": "openai", "model": "text-embedding-3-small"},
        "versions": {"alembic": "afd00efbd06b"},
    }
    assert [(part.name, part.engine, part.role) for part in store.parts] == [
        ("api/openmemory.db", "sqlite", Role.CANONICAL),
        ("api/config.json", "files", Role.CONFIG),
        ("history.db", "sqlite", Role.CANONICAL),
        ("qdrant/openmemory", "qdrant", Role.CANONICAL),
    ]
    assert store.parts[0].secrets == ("configs.value",)
    assert store.parts[1].secrets == ()  # `env:NAME` is no key
    assert {one.part for one in store.omitted} >= {"ui", "api/main.py", "api/.env", "qdrant-snapshots"}
    complete(store)


def test_a_database_elsewhere_is_the_store_of_its_folder(root: Path, find: Find, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.move(root / "api" / "openmemory.db", folder / "memories.sqlite")
    (store,) = find(folder)
    assert (store.path, [part.name for part in store.parts]) == (str(folder), ["memories.sqlite"])
    assert find(folder / "memories.sqlite") == [store]


def test_other_tables_called_memories_are_not_it(make: Any, find: Find, tmp_path: Path) -> None:
    make.database(tmp_path / "openmemory.db", "CREATE TABLE memories(id TEXT PRIMARY KEY, content TEXT, state TEXT)")
    make.files(tmp_path, "docker-compose.yml")
    (store,) = find(tmp_path)
    assert store.system == "custom"


@pytest.mark.parametrize(
    ("dotenv", "environment", "given", "path"),
    [
        ("", "{}", {}, f"qdrant://{DEAD}/openmemory"),
        ("QDRANT_HOST=mem0_store\nQDRANT_PORT=6333\n", "{}", {}, f"qdrant://{DEAD}/openmemory"),
        ("QDRANT_HOST=127.0.0.2\nQDRANT_PORT=2\n", "{}", {}, "qdrant://127.0.0.2:2/openmemory"),
        ("QDRANT_HOST=wrong\n", "[QDRANT_HOST=localhost, QDRANT_PORT=2]", {}, "qdrant://127.0.0.1:2/openmemory"),
        ("", "{QDRANT_URL: 'http://127.0.0.3:3'}", {}, "qdrant://127.0.0.3:3/openmemory"),
        ("", "{QDRANT_URL: 'https://127.0.0.3:3/'}", {}, "qdrants://127.0.0.3:3/openmemory"),
        (
            "QDRANT_HOST=wrong\n",
            "{}",
            {"QDRANT_HOST": "127.0.0.4", "QDRANT_PORT": "4"},
            "qdrant://127.0.0.4:4/openmemory",
        ),
        (
            "PG_HOST=localhost\nPG_PORT=5\nPG_PASSWORD=pw\n",
            "{}",
            {},
            "postgresql://mem0@127.0.0.1:5/mem0",
        ),
    ],
)
def test_the_vectors_are_where_the_products_own_settings_say(
    dotenv: str, environment: str, given: dict[str, str], path: str, root: Path, find: Find
) -> None:
    write_compose(root, environment=environment)
    (root / "api" / ".env").write_text(dotenv)
    (store,) = find(root, env=given)
    assert urls(store) == [path]
    assert codes(store) == ["part_unread"]
    assert "pw" not in repr(store)


def test_the_key_of_the_qdrant_that_the_compose_file_starts_is_read_from_beside_it(root: Path, find: Find) -> None:
    write_compose(root)
    (root / "api" / ".env").write_text("QDRANT_API_KEY=a literal key\n")
    (store,) = find(root)
    assert logins.password(f"qdrant://{DEAD}/openmemory") == "a literal key"
    assert "a literal key" not in repr(store)


def test_the_settings_in_the_database_win(root: Path, find: Find) -> None:
    write_compose(root)
    vectors = {"provider": "qdrant", "config": {"host": "mem0_store", "port": 6333, "collection_name": "mine"}}
    set_config(root, mem0={"vector_store": vectors})
    (store,) = find(root)
    assert urls(store) == [f"qdrant://{DEAD}/mine"]
    vectors["config"] = {"url": "http://127.0.0.2:2", "api_key": "a literal key"}
    set_config(root, mem0={"vector_store": vectors})
    (store,) = find(root)
    assert urls(store) == ["qdrant://127.0.0.2:2/openmemory"]
    assert logins.password("qdrant://127.0.0.2:2/openmemory") == "a literal key"
    assert "a literal key" not in repr(store)
    set_config(root, mem0={"vector_store": {"provider": "weaviate", "config": {}}})
    (store,) = find(root)
    assert (urls(store), codes(store)) == ([], ["vectors_elsewhere"])
    assert "weaviate" in store.findings[0].message


@pytest.mark.parametrize("port", ["", "127.0.0.1:"])
def test_a_port_that_is_not_published_is_said(port: str, root: Path, find: Find) -> None:
    write_compose(root, port=port)
    (store,) = find(root)
    assert (urls(store), codes(store)) == ([], ["vectors_elsewhere"])


def test_when_nothing_says_where_the_vectors_are_that_is_a_warning(root: Path, find: Find) -> None:
    (store,) = find(root)
    [finding] = store.findings
    assert (finding.code, finding.severity) == ("vectors_elsewhere", Severity.WARNING)
    assert str(finding.mend).startswith("QDRANT_HOST=")
    assert str(root) in str(finding.mend)


@pytest.mark.parametrize(
    ("mount", "lost"),
    [
        ("/mem0/storage", True),
        ("/qdrant/storage", False),
        ("/qdrant/storage/", False),
        ("/qdrant", False),
        ("/qdrant/storage2", True),
    ],
)
def test_a_volume_that_qdrant_does_not_write_to_is_a_finding(mount: str, lost: bool, root: Path, find: Find) -> None:  # noqa: FBT001 - a table's column
    write_compose(root, mount=mount)
    (store,) = find(root)
    found = [one for one in store.findings if one.code == "vectors_not_in_volume"]
    assert len(found) == int(lost)
    assert all("docker compose down" in one.message and "/qdrant/storage" in str(one.mend) for one in found)


def test_tables_in_a_postgres_are_a_part_though_it_does_not_answer(root: Path, find: Find) -> None:
    shutil.rmtree(root / "api")
    (root / "api").mkdir()
    write_compose(root, environment="{DATABASE_URL: 'postgresql://me:hunter2@127.0.0.1:1/memories'}")
    (store,) = find(root)
    parts = {part.name: part for part in store.parts}
    assert parts["postgres"].path == "postgresql://me@127.0.0.1:1/memories"
    assert "public.memories" in parts["postgres"].include
    assert "public.configs" not in parts["postgres"].include
    assert (parts["postgres-settings"].role, parts["postgres-settings"].include) == (Role.SECRET, ("public.configs",))
    assert "hunter2" not in repr(store)


def test_the_database_url_of_some_other_program_moves_nothing(root: Path, find: Find) -> None:
    write_compose(root)
    (store,) = find(root, env={"DATABASE_URL": "postgresql://me@127.0.0.1:1/other"})
    assert urls(store) == [f"qdrant://{DEAD}/openmemory"]

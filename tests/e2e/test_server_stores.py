"""Stores that lie in servers, from backup to restore, as a person uses them: settings, secrets from files, URLs."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from memkeep.testing.postgres import PostgresServer, postgres
from memkeep.testing.qdrant_server import QdrantServer, qdrant

KEY = "a-key-of-nobody"
ENV = {"MEMKEEP_PASSWORD": "pw", "MEMKEEP_VAULT": "vault"}
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running, psycopg.connect(running.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE guarded LOGIN CREATEDB PASSWORD 'secret'")
        yield running


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    folder = tmp_path_factory.mktemp("qdrant")
    with qdrant(folder, QDRANT__SERVICE__API_KEY=KEY, QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as running:
        yield running


@pytest.fixture
def run(run_cli: Run, home: Path) -> Run:
    """Return `run(exit status, *words)`, with a vault whose password costs nothing to try."""

    def memkeep(status: int, *words: str | Path, **env: str) -> Any:
        done = run_cli(*words, env=ENV | env)
        assert done.code == status, done.stdout + done.stderr
        return done

    memkeep(0, "init", "--no-encryption")
    (home / ".config" / "memkeep").mkdir(parents=True)
    return memkeep


def settings(home: Path, text: str) -> None:
    (home / ".config" / "memkeep" / "config.toml").write_text(text)


def database(server: PostgresServer, name: str) -> str:
    """Make an empty database of the user who needs a password; return its URL."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER guarded")
    return server.url(name, "guarded")


def ask(server: QdrantServer, method: str, path: str, body: object = None) -> Any:
    answer = httpx.request(method, server.base + path, json=body, headers={"api-key": KEY}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def test_a_database_behind_a_password_goes_and_comes_back_by_the_name_of_its_store(
    run: Run, home: Path, server: PostgresServer
) -> None:
    url, other = database(server, "notes"), database(server, "carried")
    with psycopg.connect(server.url("notes"), autocommit=True) as con:
        con.execute("CREATE TABLE notes (id int PRIMARY KEY, body text); ALTER TABLE notes OWNER TO guarded")
        con.execute("INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 20) i")
        assert "no password supplied" in run(1, "backup", url).stderr
        (home / "password").write_text("secret\n")
        hook = f"echo %s >> {home}/hooks"
        settings(
            home,
            f'[stores.notes]\npath = "{url}"\npassword_file = "~/password"\n'
            f'stop = "{hook % "stop"}"\nstart = "{hook % "start"}"\n',
        )
        run(0, "backup", "notes")
        assert (home / "hooks").read_text() == "stop\nstart\n"
        con.execute("DELETE FROM notes WHERE id > 15")
        assert "0 added, 5 removed" in run(0, "diff", "latest", "notes").stdout
        run(0, "restore", "latest", "--in-place", "--confirm=custom")
        assert run(0, "diff", "latest", "notes").stdout == "No difference.\n"
    run(0, "pack", "latest", "-o", "notes.tar.zst")
    assert "20 records" in run(0, "restore", "notes.tar.zst", "--to", other).stdout  # with the password of that server
    assert run(0, "diff", "latest", other).stdout == "No difference.\n"
    assert "target_exists" in run(13, "restore", "notes.tar.zst", "--to", other, "--json").stdout


def test_what_a_folder_has_in_a_qdrant_behind_a_key_is_parked_before_it_is_replaced(
    run: Run, home: Path, points: QdrantServer
) -> None:
    ask(points, "PUT", "/collections/notes", {"vectors": {"size": 2, "distance": "Dot"}})
    some = [{"id": i, "vector": [i, 1], "payload": {"whatever": i}} for i in range(1, 6)]
    ask(points, "PUT", "/collections/notes/points?wait=true", {"points": some})
    (home / "work").mkdir()
    (home / "work" / "a.md").write_text("# A note\n")
    (home / "key").write_text(KEY + "\n")
    url = points.url("notes")
    settings(home, f'[stores.work]\npath = "~/work"\nservers = ["{url}"]\npassword_file = "~/key"\n')
    assert "6 records" in run(0, "backup").stdout  # five points whose payload says nothing that is known, and a note
    good = run(0, "show", "latest", "--json").result["id"]
    ask(points, "POST", "/collections/notes/points/delete?wait=true", {"points": [1, 2]})
    assert "2 removed" in run(0, "diff", "latest", "work").stdout

    done = run(0, "restore", "latest", "--in-place", "--confirm=custom", "--json").result
    assert ask(points, "GET", "/collections/notes")["points_count"] == 5
    parked = next(one for one in run(0, "snapshots", "--json").result["snapshots"] if one["tag"] == "before-restore")
    assert parked["id"][:12] in done["undo"]
    assert parked["records"] == 4

    [store] = [one for one in run(0, "status", "--json").result["stores"] if one["path"] == str(home / "work")]
    assert store["last"] == good
    judged = run(0, "forget", "--keep-last", "1", "--dry-run", "--json").result
    assert {one["snapshot"] for one in judged["kept"]} == {good, parked["id"]}
    assert judged["forgotten"] == []

    there = run(0, "restore", good, "--to", "there")
    assert "shards" in there.stdout
    assert f"Next: memkeep restore {good[:12]} --to URL" in there.stdout
    settings(home, "")  # nothing says any more that the collection is part of it: then it can't be kept
    refused = run(13, "restore", good, "--in-place", "--confirm=custom", "--json", QDRANT_API_KEY=KEY)
    assert refused.json["error"]["code"] == "not_parked"
    run(
        0, "restore", good, "--part", "qdrant/notes", "--to", points.url("again"), QDRANT_API_KEY_FILE=str(home / "key")
    )
    assert ask(points, "GET", "/collections/again")["points_count"] == 5


def test_a_part_that_is_not_to_be_reached_is_named_and_the_exit_status_says_so(
    run: Run, home: Path, server: PostgresServer
) -> None:
    folder = home / "Thanos"
    (folder / "State").mkdir(parents=True)
    con = sqlite3.connect(folder / "State" / "relationships.db")
    con.execute("CREATE TABLE relationships (id INTEGER PRIMARY KEY, source_id, target_id, rel_type, strength)")
    con.close()
    gone = f"postgresql://guarded:secret@127.0.0.1:1/{server.port}"
    done = run(3, "backup", folder, THANOS_MEMORY_DATABASE_URL=gone)
    assert "left out: postgres" in done.stdout
    assert "secret" not in done.stdout + done.stderr

    (home / "work").mkdir()
    (home / "work" / "a.md").write_text("# A note\n")
    settings(home, '[stores.work]\npath = "~/work"\nservers = ["qdrant://127.0.0.1:1/notes"]\n')
    done = run(3, "backup", "work")
    assert "1 record" in done.stdout
    assert "left out: qdrant/notes" in done.stdout
    assert done.stdout.count("error: qdrant/notes") == 1

    database(server, "memories")
    with psycopg.connect(server.url("memories"), autocommit=True) as admin:
        admin.execute(
            "CREATE EXTENSION vector; CREATE TABLE thanos_memories (id uuid, vector vector(2), payload jsonb)"
        )
        admin.execute("ALTER TABLE thanos_memories OWNER TO guarded")
    url = server.url("memories", "guarded")
    run(0, "backup", folder, THANOS_MEMORY_DATABASE_URL=url, PGPASSWORD="secret")


def test_only_the_tables_that_a_url_names_are_kept(run: Run, server: PostgresServer) -> None:
    url = database(server, "tables")
    with psycopg.connect(server.url("tables"), autocommit=True) as con:
        con.execute("CREATE TABLE a (id int PRIMARY KEY, body text); CREATE TABLE b (id int PRIMARY KEY, body text)")
        con.execute("ALTER TABLE a OWNER TO guarded; ALTER TABLE b OWNER TO guarded; INSERT INTO a VALUES (1, 'x')")
        con.execute("INSERT INTO b VALUES (1, 'y'), (2, 'z')")
    found = run(0, "discover", f"{url}?table=b", PGPASSWORD="secret")
    assert "2 records" in found.stdout
    assert f"memkeep backup '{url}?table=b'" in found.stdout
    kept = run(0, "backup", f"{url}?table=b", "--json", PGPASSWORD="secret").result["snapshots"][0]
    run(0, "restore", kept["id"], "--to", "there")
    assert (run(0, "show", kept["id"], "--json").result["records"]) == 2

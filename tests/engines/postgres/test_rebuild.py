"""Putting tables back into a server: all or nothing, compared, and only where nobody else is hurt."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, Snap, new_database, rebuild

from memkeep.engines import postgres_rebuild
from memkeep.engines.postgres import PostgresEngine
from memkeep.errors import MemkeepError, RefusedError, StoreError, UnsupportedError
from memkeep.testing.postgres import PostgresServer

_RIGHTS = """SELECT relname, relowner, array(SELECT a::text FROM unnest(relacl) a ORDER BY 1) FROM pg_class
             WHERE relname IN ('memories', 'theirs') ORDER BY 1"""


def _state(database: Database) -> Any:
    names = "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    return database.run(names), database.run("SELECT * FROM memories ORDER BY id")


def test_what_is_there_is_replaced_only_when_asked(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(50)
    part = database.part(MEMORIES, include=("public.memories",))
    taken = snap(part)
    database.run("DELETE FROM memories WHERE payload ->> 'user_id' = 'user-1'; CREATE INDEX later ON memories (id)")
    before = _state(database)
    engine = PostgresEngine()
    assert engine.exists(part, engine.aim(part, database.url))
    with pytest.raises(RefusedError) as told:
        rebuild(part, taken.root, database.url)
    assert told.value.code == "target_exists"
    assert _state(database) == before
    assert rebuild(part, taken.root, database.url, replace=True).rows == 50
    assert snap(part).baseline == taken.baseline


def test_others_that_need_what_is_replaced_are_named(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(20)
    part = database.part(include=("public.memories",))
    taken = snap(part)
    database.run("CREATE TABLE child (m uuid REFERENCES memories (id)); CREATE VIEW seen AS SELECT id FROM memories")
    before = _state(database)
    with pytest.raises(RefusedError, match=r"view seen(.|\n)*child_m_fkey|child_m_fkey(.|\n)*view seen") as told:
        rebuild(part, taken.root, database.url, replace=True)
    assert told.value.code == "target_in_use"
    assert _state(database) == before


def test_owners_and_rights_of_what_is_replaced_stay(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(20)
    role = f"agent_{database.name}"
    database.run(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON memories TO {role}; GRANT SELECT ON memories TO PUBLIC"
    )
    database.run(f"CREATE TABLE theirs (id int); ALTER TABLE theirs OWNER TO {role}")
    before = database.run(_RIGHTS)
    taken = snap(database.part())
    rebuild(database.part(), taken.root, database.url, replace=True)
    after = database.run(_RIGHTS)
    assert after == before


@pytest.mark.parametrize("step", ["_clear", "_prepare", "_load", "_finish", "_compare", "_attempt"])
def test_a_failure_anywhere_leaves_all_as_it_was(
    database: Database, snap: Callable[..., Snap], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    database.fill(30)
    part = database.part(MEMORIES)
    taken = snap(part)
    database.run("UPDATE memories SET payload = '{}'")
    before = _state(database)
    real = getattr(postgres_rebuild, step)

    def fail(*args: Any, **options: Any) -> Any:
        real(*args, **options)
        raise StoreError("unplugged")

    monkeypatch.setattr(postgres_rebuild, step, fail)
    with pytest.raises(StoreError, match="unplugged"):
        rebuild(part, taken.root, database.url, replace=True)
    assert _state(database) == before


def test_other_sessions_see_the_old_or_the_new(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(30)
    taken = snap(database.part(MEMORIES))
    database.run("DELETE FROM memories WHERE payload ->> 'user_id' = 'user-1'")
    seen: set[int] = set()
    finish = postgres_rebuild._finish

    def look(*args: Any) -> Any:
        with psycopg.connect(database.url, autocommit=True) as watcher:
            watcher.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                watcher.execute("SELECT count(*) FROM memories")
            seen.add(1)
        return finish(*args)

    postgres_rebuild._finish = look  # type: ignore[assignment]
    try:
        rebuild(database.part(MEMORIES), taken.root, database.url, replace=True)
    finally:
        postgres_rebuild._finish = finish
    assert seen
    assert database.run("SELECT count(*) FROM memories") == [(30,)]


def test_a_damaged_image_is_not_loaded(database: Database, other: Database, snap: Callable[..., Snap]) -> None:
    database.fill(60)
    part = database.part(MEMORIES)
    taken = snap(part)
    for file in [next(taken.root.rglob("rows/first.copy")), next(taken.root.rglob("vectors/*.copy"))]:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(MemkeepError):
            rebuild(part, taken.root, other.url)
        file.write_bytes(whole)
        assert other.run("SELECT to_regclass('memories')") == [(None,)]
    assert rebuild(part, taken.root, other.url).rows == 60


def test_a_server_that_keeps_something_else_is_found_out(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(20)
    part = database.part(include=("public.memories",))
    taken = snap(part)
    copy = taken.root.parent / "changed"
    shutil.copytree(taken.root, copy)
    described = copy / "postgres/tables.json"
    told = described.read_text()
    key = r"ADD CONSTRAINT \"memories_pkey\" PRIMARY KEY (id)"
    described.write_text(told.replace(key, "ALTER payload TYPE jsonb USING '{}'"))
    assert described.read_text() != told
    before = _state(database)
    with pytest.raises(StoreError, match="did not keep"):
        rebuild(part, copy, database.url, replace=True)
    assert _state(database) == before


def test_an_older_server_takes_what_it_can_hold(
    database: Database, old_server: PostgresServer, snap: Callable[..., Snap]
) -> None:
    database.fill(50)
    database.run("CREATE INDEX ON memories USING hnsw (vector vector_cosine_ops)")
    part = database.part(MEMORIES, include=("public.memories",))
    taken = snap(part)
    with new_database(old_server) as old:
        old.run("DROP EXTENSION vector")
        rebuild(part, taken.root, old.url)
        again = snap(old.part(MEMORIES), probes=taken.baseline.probes)
        assert (again.baseline.tables, again.baseline.probes) == (taken.baseline.tables, taken.baseline.probes)
        assert old.run("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%hnsw%'") == [(1,)]


def test_an_older_server_is_refused_before_anything_is_made(
    database: Database, old_server: PostgresServer, snap: Callable[..., Snap]
) -> None:
    database.run("CREATE TABLE halves (id int PRIMARY KEY, v halfvec(3)); INSERT INTO halves VALUES (1, '[1,2,3]')")
    taken = snap(database.part())
    with new_database(old_server) as old:
        old.run("DROP EXTENSION vector")
        with pytest.raises(UnsupportedError, match="halfvec") as told:
            rebuild(database.part(), taken.root, old.url)
        assert told.value.code == "type_missing"
        assert old.run("SELECT to_regclass('halves') IS NULL, to_regtype('vector') IS NULL") == [(True, True)]


def test_a_role_that_may_make_nothing_is_told_who_must(
    database: Database, other: Database, snap: Callable[..., Snap]
) -> None:
    database.fill(5)
    taken = snap(database.part())
    role = f"poor_{other.name}"
    other.run(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(MemkeepError) as told:
        rebuild(database.part(), taken.root, other.server.url(other.name, role))
    assert told.value.code == "store_denied"


def test_the_extension_may_lie_in_another_schema(
    database: Database, other: Database, snap: Callable[..., Snap]
) -> None:
    database.fill(20)
    database.run("CREATE INDEX ON memories USING hnsw (vector vector_cosine_ops)")
    taken = snap(database.part(MEMORIES))
    other.run("DROP EXTENSION vector; CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    rebuild(database.part(MEMORIES), taken.root, other.url)
    again = snap(other.part(MEMORIES), probes=taken.baseline.probes)
    assert again.baseline.tables == taken.baseline.tables
    with_it = snap(other.part(MEMORIES))
    database.run("DROP TABLE memories")
    rebuild(other.part(MEMORIES), with_it.root, database.url)
    assert database.run("SELECT count(*) FROM memories") == [(20,)]


def test_a_database_without_any_extension_takes_tables_that_need_none(
    database: Database, other: Database, snap: Callable[..., Snap]
) -> None:
    database.run("CREATE TABLE plain (id integer PRIMARY KEY, text varchar); INSERT INTO plain VALUES (1, 'one')")
    kept = snap(database.part(include=("public.plain",)))
    other.run("DROP EXTENSION vector")
    rebuild(kept.opened.part, kept.root, other.url)
    assert other.run("SELECT * FROM plain") == [(1, "one")]


def test_a_full_disk_of_the_server_leaves_all_as_it_was(
    database: Database, snap: Callable[..., Snap], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.fill(200)
    part = database.part(MEMORIES)
    taken = snap(part)
    before = _state(database)
    load = postgres_rebuild._load

    def fill_up(connection: Any, *rest: Any) -> Any:
        # What a server says when a file of it cannot grow, whoever runs this; a really full one is below.
        digest = load(connection, *rest)
        connection.execute("DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$")
        return digest

    monkeypatch.setattr(postgres_rebuild, "_load", fill_up)
    with pytest.raises(StoreError) as told:
        rebuild(part, taken.root, database.url, replace=True)
    assert told.value.code == "store_full"
    assert _state(database) == before


@pytest.fixture
def small(server: PostgresServer) -> Iterator[Database]:
    """Return a database on a file system of its own, which is small. Needs the right to mount one."""
    place = server.folder / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "memkeep", place], check=False)
    if mounted.returncode:
        place.rmdir()
        pytest.skip("who runs this may not mount a file system")
    try:
        (place / "space").mkdir()
        shutil.chown(place / "space", "nobody")
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{place / 'space'}'")
            admin.execute("CREATE DATABASE on_small TABLESPACE small")
            with psycopg.connect(server.url("on_small"), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
                yield Database(server, "on_small", server.url("on_small"), connection)
            admin.execute("DROP DATABASE on_small WITH (FORCE)")
            admin.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def test_a_file_system_of_the_server_that_is_really_full_leaves_all_as_it_was(
    database: Database, small: Database, snap: Callable[..., Snap]
) -> None:
    database.fill(20_000)
    small.fill(20)
    taken = snap(database.part(MEMORIES))
    before = _state(small)
    with pytest.raises(StoreError, match="No space left on device") as told:
        rebuild(database.part(MEMORIES), taken.root, small.url, replace=True)
    assert told.value.code == "store_full"
    assert small.url in told.value.message
    assert _state(small) == before
    small.run("INSERT INTO memories (payload) VALUES ('{}')")  # it goes on

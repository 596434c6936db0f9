"""Freezing tables while others write, lock, deny and unplug."""

import builtins
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, Snap, at, frozen, new_database, read, rebuild

from memkeep.engines import logins, postgres_connect, postgres_freeze
from memkeep.engines.postgres import PostgresEngine
from memkeep.errors import StoreError, UnstableError, UnsupportedError, UsageError
from memkeep.model import TableMap
from memkeep.records.groups import decode
from memkeep.testing.postgres import postgres


@contextmanager
def _writing(url: str, sql: str) -> Iterator[None]:
    """Run a statement again and again, on a connection of its own."""
    stop, failed = threading.Event(), []

    def work() -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while not stop.is_set():
                    connection.execute(sql)
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failed == []


def test_each_snapshot_is_one_moment_of_all_tables(database: Database, snap: Callable[..., Snap]) -> None:
    database.run("CREATE TABLE plus (id serial PRIMARY KEY, v int); CREATE TABLE minus (id serial PRIMARY KEY, v int)")
    database.run(
        "INSERT INTO plus (v) SELECT 0 FROM generate_series(1, 2000); INSERT INTO minus (v) SELECT v FROM plus"
    )
    move = """DO $$ DECLARE a int := random() * 100; BEGIN
        UPDATE plus SET v = v + a WHERE id <= 2000 AND id % 7 = a % 7;
        UPDATE minus SET v = v - a WHERE id <= 2000 AND id % 7 = a % 7;
        INSERT INTO plus (v) VALUES (a); INSERT INTO minus (v) VALUES (-a); END $$"""
    maps = [TableMap(collection=one, table=f"public.{one}", id="id") for one in ("plus", "minus")]
    digests = set()
    with _writing(database.url, move), _writing(database.url, move):
        for _ in range(6):
            taken = snap(database.part(*maps))
            opened = taken.opened
            sums = {"plus": 0, "minus": 0}
            for group in opened.scan({}):
                columns, rows = decode(group.data)
                sums[group.collection] += sum(row[columns.index("v")] for row in rows)
            assert sums["plus"] + sums["minus"] == 0
            states = taken.baseline.tables
            assert states["public.plus"].rows == states["public.minus"].rows
            digests.add(states["public.plus"].digest)
    assert len(digests) > 1


def test_a_write_to_the_tables_is_noticed_and_one_elsewhere_is_not(database: Database, tmp_path: Path) -> None:
    database.fill(20)
    database.run("CREATE TABLE elsewhere (id int)")
    part = database.part(MEMORIES, include=("public.memories",))
    for number, (sql, moved) in enumerate([
        ("SELECT 1", False),
        ("INSERT INTO elsewhere VALUES (1)", False),
        ("UPDATE memories SET payload = payload WHERE id = (SELECT id FROM memories LIMIT 1)", True),
        ("DELETE FROM memories WHERE id = (SELECT id FROM memories LIMIT 1)", True),
        ("INSERT INTO memories (payload) VALUES ('{}')", True),
        ("TRUNCATE memories", True),
    ]):  # fmt: skip
        scratch = tmp_path / str(number)
        scratch.mkdir()
        with frozen(part, scratch) as opened:
            database.run(sql)
            assert opened.moved() is moved, sql


def test_a_table_that_is_emptied_meanwhile_is_not_seen_empty(
    database: Database, snap: Callable[..., Snap], monkeypatch: pytest.MonkeyPatch
) -> None:
    database.fill(20)
    copy = postgres_freeze._copy
    blocked = []

    def meddle(connection: Any, *rest: Any) -> Any:
        database.run("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.run("TRUNCATE memories")
        blocked.append(True)
        return copy(connection, *rest)

    monkeypatch.setattr(postgres_freeze, "_copy", meddle)
    assert snap(database.part()).baseline.tables["public.memories"].rows == 20
    assert blocked


def test_a_table_that_is_altered_for_long_is_said(
    database: Database, snap: Callable[..., Snap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_freeze, "SETTINGS", ("SET LOCAL lock_timeout = '50ms'",))
    database.fill(5)
    with psycopg.connect(database.url) as altering:
        altering.execute("ALTER TABLE memories ADD COLUMN more int")
        with pytest.raises(UnstableError):
            snap(database.part())


def test_a_role_that_may_only_read_is_enough(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(20)
    database.run(
        "CREATE TABLE hidden (id serial, t text); CREATE SEQUENCE s; CREATE TABLE drawn (id int DEFAULT nextval('s'))"
    )
    database.run("INSERT INTO drawn DEFAULT VALUES")
    database.run(f"CREATE ROLE reader_{database.name} LOGIN; GRANT SELECT ON memories, drawn TO reader_{database.name}")
    part = at(database.part(MEMORIES), database.server.url(database.name, f"reader_{database.name}"))
    taken = snap(part)
    assert set(taken.baseline.tables) == {"public.memories", "public.drawn"}
    assert "postgres/public.hidden" in {one.part for one in taken.opened.omitted()}
    found = [one for one in taken.opened.findings() if one.code == "postgres_table_unread"]
    assert [one.severity for one in found] == ["error"]
    assert "may not see" in " ".join(one.reason for one in taken.opened.omitted())
    with pytest.raises(StoreError) as told:
        snap(at(database.part(include=("public.hidden",)), part.path))
    assert told.value.code == "store_denied"


def test_rows_that_row_level_security_hides_are_said_not_lost(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(20)
    database.run("CREATE TABLE open (id int PRIMARY KEY); ALTER TABLE memories ENABLE ROW LEVEL SECURITY")
    database.run("CREATE POLICY mine ON memories FOR SELECT USING (payload ->> 'user_id' = 'user-1')")
    role = f"some_{database.name}"
    database.run(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    taken = snap(at(database.part(), database.server.url(database.name, role)))
    assert set(taken.baseline.tables) == {"public.open"}
    assert any("row-level security" in one.message for one in taken.opened.findings())
    whole = snap(database.part())  # its owner sees all rows, and keeps the policy
    assert whole.baseline.tables["public.memories"].rows == 20
    with new_database(database.server) as other:
        rebuild(database.part(), whole.root, other.url)
        assert other.run("SELECT policyname FROM pg_policies") == [("mine",)]
        assert other.run("SELECT relrowsecurity FROM pg_class WHERE relname = 'memories'") == [(True,)]


def test_a_wrong_password_is_said_without_the_password(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(database.server.url(), autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS guarded; CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'secret'")
    url = database.server.url(database.name, "guarded")
    monkeypatch.setattr(logins, "_known", {})
    with pytest.raises(StoreError, match="no password supplied") as told:
        PostgresEngine().inspect(url)
    assert told.value.code == "store_denied"
    with pytest.raises(StoreError, match="authentication failed") as told:
        PostgresEngine().inspect(url.replace("guarded@", "guarded:hunter2@"))
    assert told.value.code == "store_denied"
    assert "hunter2" not in f"{told.value.message}{told.value.hint}"
    assert PostgresEngine().inspect(url.replace("guarded@", "guarded:secret@")).tables == ()
    monkeypatch.setattr(logins, "_known", {})
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert PostgresEngine().inspect(url).tables == ()


def test_what_is_not_there_is_told_apart(database: Database) -> None:
    engine = PostgresEngine()
    with pytest.raises(StoreError) as told:
        engine.inspect(f"{database.url}_none")
    assert told.value.code == "store_missing"
    with pytest.raises(StoreError) as told:
        engine.inspect("postgresql://postgres@127.0.0.1:1/none")
    assert told.value.code == "store_unreachable"
    with pytest.raises(StoreError) as told:
        engine.inspect(database.server.url(database.name, "nobody_here"))
    assert told.value.code == "store_denied"
    with pytest.raises(UsageError):
        engine.inspect(f"{database.url}?nonsense=1")


def test_the_urls_word_on_encryption_is_honoured(database: Database) -> None:
    with pytest.raises(StoreError, match="SSL"):
        PostgresEngine().inspect(f"{database.url}?sslmode=require")
    assert PostgresEngine().inspect(f"{database.url}?sslmode=prefer").tables == ()


def test_what_drivers_and_pools_put_into_urls_is_left_aside(database: Database) -> None:
    url = f"{database.url}?pgbouncer=true&connection_limit=1&schema=public&application_name=mine"
    assert PostgresEngine().inspect(url).tables == ()
    assert PostgresEngine().inspect(url.replace("postgresql://", "postgresql+psycopg2://")).tables == ()


def test_nothing_outlives_a_transaction(
    database: Database, snap: Callable[..., Snap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler gives the session to somebody else afterwards: no setting and no statement may stay."""
    database.fill(20)
    kept: list[Any] = []
    connect = psycopg.connect

    def spy(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **options)
        close = connection.close

        def look() -> None:
            if not connection.closed:
                kept.append(connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0])
                kept.append(connection.execute("SHOW row_security").fetchone()[0] == "off")
                kept.append(connection.execute("SHOW lock_timeout").fetchone()[0] != "0")
            close()

        connection.close = look
        return connection

    monkeypatch.setattr(psycopg, "connect", spy)
    taken = snap(database.part(MEMORIES))
    monkeypatch.setattr(psycopg, "connect", connect)
    assert kept
    assert not any(kept)
    assert taken.baseline.tables["public.memories"].rows == 20


class _Wire:
    """A TCP proxy that cuts every connection after some bytes from the server."""

    def __init__(self, port: int, limit: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self._port, self._limit = port, limit
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pump, args=(client, upstream, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(upstream, client, self._limit), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with source, sink:
            try:
                while data := source.recv(4096):
                    passed += len(data)
                    if limit is not None and passed > limit:
                        return
                    sink.sendall(data)
            except OSError:
                return
            finally:
                for one in (source, sink):
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("limit", [10, 2000, 30_000, 200_000])
def test_a_connection_that_is_cut_is_an_error_and_no_image(
    database: Database, snap: Callable[..., Snap], limit: int
) -> None:
    database.fill(2000)
    wire = _Wire(database.server.port, limit)
    with wire.listener:
        url = database.url.replace(str(database.server.port), str(wire.listener.getsockname()[1]))
        with pytest.raises(StoreError) as told:
            snap(at(database.part(), url))
    assert told.value.code == "store_unreachable"


def test_a_server_that_dies_in_the_middle_is_an_error_and_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = postgres_freeze._copy_table
    with postgres() as server, new_database(server) as database:
        database.fill(500)
        part = database.part(MEMORIES)

        def die(connection: Any, table: Any, *rest: Any) -> Any:
            server.kill()
            return copy(connection, table, *rest)

        monkeypatch.setattr(postgres_freeze, "_copy_table", die)
        with pytest.raises(StoreError) as told, frozen(part, tmp_path):
            pass
        assert told.value.code == "store_unreachable"
        monkeypatch.undo()
        server.start()
        (tmp_path / "again").mkdir()
        with frozen(part, tmp_path / "again") as opened:
            server.kill()
            assert opened.moved()  # it can't say, so it is frozen again, and said to be gone
            assert read(opened, tmp_path).baseline.tables["public.memories"].rows == 500


def test_no_room_for_the_rows_is_said(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.fill(20)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(postgres_freeze.Writer, "finish", full)
    with pytest.raises(StoreError, match="No space left") as told, frozen(database.part(), tmp_path):
        pass
    assert told.value.code == "scratch_full"


def test_without_its_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "psycopg":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedError) as told:
        postgres_connect.library()
    assert "memkeep[postgres]" in told.value.hint

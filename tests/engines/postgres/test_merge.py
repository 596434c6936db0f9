"""Rows of a snapshot among those of live tables; with Thanos's relationships, which go with their memories."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines.postgres.conftest import ANN, Database

from memkeep.errors import RefusedError, StoreError
from memkeep.library import OpenVault
from memkeep.ops.merged import MergeResult


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault], thanos: Path) -> OpenVault:
    made = new_vault()
    [report] = made.backup(thanos).snapshots
    assert (report.system, report.records, report.findings) == ("thanos", 5, ())
    return made


def joins(thanos: Path, sql: str = "SELECT source_id, target_id FROM relationships ORDER BY 1") -> list[Any]:
    con = sqlite3.connect(thanos / "State" / "relationships.db")
    try:
        found = con.execute(sql).fetchall()
        con.commit()
        return [(one[0][-1], one[1][-1]) for one in found]
    finally:
        con.close()


def memories(database: Database) -> dict[str, str]:
    return {row[0][-1]: row[1] for row in database.run("SELECT id::text, payload ->> 'data' FROM thanos_memories")}


def merged(vault: OpenVault, thanos: Path, **more: Any) -> MergeResult:
    """Rehearse and do it; both must say the same."""
    rehearsed = vault.restore_into(thanos, dry_run=True, **more).merged
    done = vault.restore_into(thanos, **more).merged
    assert done is not None
    assert done == rehearsed
    return done


def spoil(database: Database, thanos: Path) -> None:
    database.run(f"DELETE FROM thanos_memories WHERE id IN ('{ANN}1', '{ANN}4')")
    database.run(
        f"""UPDATE thanos_memories SET payload = payload || '{{"data": "later", "updated_at": "2026-01-01T00:00:00"}}'
            WHERE id = '{ANN}2'"""
    )
    database.run(f"UPDATE thanos_memories SET vector = '[9,9,9]' WHERE id = '{ANN}3'")
    joins(thanos, "DELETE FROM relationships")


@pytest.mark.parametrize(
    ("conflict", "kept", "numbers"),
    [
        ("skip", ("later", "[9,9,9]"), (5, 0, 2, 1)),
        ("update", ("memory 2", "[3,0,1]"), (5, 2, 0, 1)),
        ("newer", ("later", "[9,9,9]"), (5, 0, 2, 1)),
    ],
)
def test_what_is_lost_comes_back_with_its_relationships(
    vault: OpenVault, thanos: Path, database: Database, conflict: Any, kept: tuple[str, str], numbers: tuple[int, ...]
) -> None:
    spoil(database, thanos)
    done = merged(vault, thanos, conflict=conflict)
    assert (done.inserted, done.updated, done.skipped, done.same) == numbers
    assert memories(database) == {"1": "memory 1", "2": kept[0], "3": "memory 3", "4": "memory 4", "5": "memory 5"}
    assert database.run(f"SELECT vector::text FROM thanos_memories WHERE id = '{ANN}3'") == [(kept[1],)]
    assert joins(thanos) == [("1", "2"), ("2", "3"), ("4", "5")]


def test_only_what_is_of_one_user_and_the_relationships_of_that(
    vault: OpenVault, thanos: Path, database: Database
) -> None:
    spoil(database, thanos)
    done = merged(vault, thanos, user="bob")
    assert (done.inserted, done.same) == (2, 1)
    assert sorted(memories(database)) == ["2", "3", "4", "5"]
    assert joins(thanos) == [("4", "5")]


def test_relationships_of_one_user_are_not_guessed_when_the_memories_are_away(
    vault: OpenVault, thanos: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(database, thanos)
    monkeypatch.delenv("THANOS_MEMORY_DATABASE_URL")
    with pytest.raises(StoreError, match="without the memories"):
        vault.restore_into(thanos, user="bob")
    assert joins(thanos) == []


def test_a_conflict_refuses_it_all_in_both_databases(vault: OpenVault, thanos: Path, database: Database) -> None:
    spoil(database, thanos)
    before = memories(database)
    with pytest.raises(RefusedError, match="thanos_memories:0000"):
        vault.restore_into(thanos, conflict="fail")
    assert memories(database) == before
    assert joins(thanos) == []


def test_a_row_that_the_server_refuses_is_named_and_the_others_go_in(
    vault: OpenVault, thanos: Path, database: Database
) -> None:
    database.run("DELETE FROM thanos_memories")
    database.run("ALTER TABLE thanos_memories ADD CHECK (payload ->> 'data' <> 'memory 2')")
    done = merged(vault, thanos)
    assert [(row.table, row.id) for row in done.failed] == [("public.thanos_memories", f"{ANN}2")]
    assert "violates check constraint" in done.failed[0].reason
    assert sorted(memories(database)) == ["1", "3", "4", "5"]


def test_a_server_that_goes_away_in_between_leaves_the_other_database_as_it_was(
    vault: OpenVault, thanos: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memkeep.engines.postgres_merge import PostgresMerge
    from memkeep.errors import StoreError

    spoil(database, thanos)
    commit = PostgresMerge.commit

    def cut(self: PostgresMerge) -> None:
        database.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'memkeep' AND "
            f"datname = '{database.name}'"
        )
        commit(self)

    monkeypatch.setattr(PostgresMerge, "commit", cut)
    with pytest.raises(StoreError):
        vault.restore_into(thanos)
    assert joins(thanos) == []
    assert sorted(memories(database)) == ["2", "3", "5"]


def test_names_with_dots_are_found_and_tables_without_records_named(
    new_vault: Callable[..., OpenVault], database: Database
) -> None:
    database.run('CREATE SCHEMA "a.b"; CREATE TABLE "a.b"."notes" (id int PRIMARY KEY, text text)')
    database.run("""INSERT INTO "a.b".notes VALUES (1, 'one'), (2, 'two'); CREATE TABLE loose AS SELECT 1 AS n""")
    vault = new_vault()
    vault.backup(database.url)
    database.run('DELETE FROM "a.b".notes WHERE id = 1')
    done = vault.restore_into(database.url)
    assert done.merged is not None
    assert (done.merged.inserted, done.merged.same) == (1, 1)
    assert database.run('SELECT text FROM "a.b".notes ORDER BY id') == [("one",), ("two",)]
    assert [one.message for one in done.findings] == ["public.loose: no records, left as they are"]


def test_a_role_that_looks_for_types_elsewhere_is_merged_into(
    vault: OpenVault, thanos: Path, database: Database
) -> None:
    database.run("CREATE SCHEMA extensions; ALTER EXTENSION vector SET SCHEMA extensions")
    database.run(f"ALTER DATABASE {database.name} SET search_path = public, nowhere")
    database.run(
        """CREATE TABLE seen (id uuid); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END';
        CREATE TRIGGER see AFTER INSERT ON thanos_memories FOR EACH ROW EXECUTE FUNCTION see();
        DELETE FROM thanos_memories"""
    )
    assert merged(vault, thanos).inserted == 5
    assert database.run("SELECT count(*) FROM seen") == [(5,)]

"""A snapshot of what one user of Thanos has: nothing of the others is in it, and nothing of it takes their place."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from tests.engines.postgres.conftest import ANN, Database

from memkeep.errors import RefusedError, StoreError, UsageError
from memkeep.library import OpenVault
from memkeep.model import Rung
from memkeep.ops.retention import Retention

NewVault = Callable[..., OpenVault]
MINE = [f"{ANN}{n}" for n in (1, 2, 3)]


def told(database: Database) -> list[str]:
    return [row[0] for row in database.run("SELECT id::text FROM thanos_memories ORDER BY 1")]


def extend(thanos: Path, database: Database) -> None:
    """Add what a user alone must not have: other tables, and a name that SQL would take apart."""
    with closing(sqlite3.connect(thanos / "State" / "relationships.db")) as con:
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("CREATE TABLE pattern_cache (id INTEGER PRIMARY KEY, pattern_key TEXT, memory_ids TEXT)")
        con.execute("INSERT INTO pattern_cache (pattern_key) VALUES ('a secret of bob')")
        con.execute("CREATE TABLE unknown (text TEXT)")
        con.execute("INSERT INTO unknown VALUES ('another secret of bob')")
        con.commit()
    database.run("CREATE TABLE mem0migrations (user_id text); INSERT INTO mem0migrations VALUES ('bob')")


def test_a_snapshot_of_one_user_has_nothing_of_the_others(
    new_vault: NewVault, thanos: Path, database: Database, tmp_path: Path
) -> None:
    extend(thanos, database)
    vault = new_vault()
    [report] = vault.backup(thanos, user="ann").snapshots
    assert (report.user, report.records, report.rung, report.consistent) == ("ann", 3, Rung.READABLE, True)
    assert {(one.part, one.reason) for one in report.omitted} == {
        ("postgres/public.thanos_memories", "2 rows that are not of ann"),
        ("State/relationships.db", "1 rows of relationships that do not go with memories of ann"),
        ("State/relationships.db", "1 rows of pattern_cache that do not go with memories of ann"),
        ("State/relationships.db", "1 rows of unknown that do not go with memories of ann"),
    }
    assert vault.snapshots().snapshots[0].user == "ann"
    assert vault.show(report.id).omitted == report.omitted
    verified = vault.verify(rung=Rung.EQUIVALENT).snapshots[0]
    assert (verified.rung, verified.findings) == (Rung.EQUIVALENT, ())
    vault.restore(report.id, to=tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out" / "State" / "relationships.db")) as con:
        found = con.execute("SELECT source_id, target_id FROM relationships ORDER BY 1").fetchall()
        assert found == [(MINE[0], MINE[1]), (MINE[1], MINE[2])]
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    whole = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"memory 1" in whole
    assert not [one for one in (b"memory 4", b"bob", f"{ANN}4".encode()) if one in whole]


def test_of_a_url_the_memories_of_one_user_are_taken(
    new_vault: NewVault, thanos: Path, database: Database, other: Database
) -> None:
    vault = new_vault()
    [report] = vault.backup(f"thanos:{database.url}", user="bob").snapshots
    assert (report.records, [one.reason for one in report.omitted]) == (2, ["3 rows that are not of bob"])
    assert vault.restore(report.id, to=other.url).findings == ()  # its search answers what it would have answered
    assert told(other) == [f"{ANN}4", f"{ANN}5"]


def test_what_the_search_of_the_server_finds_of_others_is_not_in_it(
    new_vault: NewVault, thanos: Path, database: Database, other: Database
) -> None:
    database.run("CREATE INDEX ON thanos_memories USING hnsw (vector vector_cosine_ops)")
    vault = new_vault()
    [report] = vault.backup(f"thanos:{database.url}", user="bob").snapshots
    inner = vault._vault
    images = [inner.image(part) for part in inner.resolve(report.id).parts]
    probes = [probe for image in images for probe in image.baseline.probes]
    assert {one for probe in probes for one in probe.ids} == {f"{ANN}4", f"{ANN}5"}
    assert not [mine for mine in MINE if mine in repr(images)]
    assert vault.restore(report.id, to=other.url).findings == ()
    assert "hnsw" in other.run("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")[0][0]
    [whole] = vault.backup(f"thanos:{database.url}").snapshots
    [image] = [inner.image(part) for part in inner.resolve(whole.id).parts]
    assert MINE[0] in repr(image.baseline.facts["recall"])  # as it would be found in that of all


def test_a_snapshot_of_one_user_does_not_take_the_place_of_all(
    new_vault: NewVault, thanos: Path, database: Database
) -> None:
    vault = new_vault()
    vault.backup(thanos, user="ann")
    for dry_run in (False, True):
        with pytest.raises(RefusedError, match="of ann alone") as caught:
            vault.restore(in_place=True, confirm="thanos", dry_run=dry_run)
        assert (caught.value.code, f"--into {thanos}" in caught.value.hint) == ("one_user", True)
    assert len(told(database)) == 5
    database.run(f"DELETE FROM thanos_memories WHERE id = '{ANN}1'")
    done = vault.restore_into(thanos)
    assert done.merged is not None
    assert (done.merged.inserted, done.merged.same) == (1, 4)
    assert len(told(database)) == 5


def test_it_is_compared_with_what_that_user_has_now(new_vault: NewVault, thanos: Path, database: Database) -> None:
    vault = new_vault()
    snapshot = vault.backup(thanos, user="ann").snapshots[0].id
    same = vault.diff(snapshot, str(thanos))
    assert (same.added, same.removed, same.changed) == ((), (), ())
    assert same.collections > 1
    database.run(f"DELETE FROM thanos_memories WHERE id IN ('{ANN}1', '{ANN}4')")
    assert [one for one in vault.diff(snapshot, str(thanos)).removed if ":" not in one] == [f"{ANN}1"]


def test_it_counts_for_no_backup_of_the_whole(new_vault: NewVault, thanos: Path) -> None:
    vault = new_vault()
    whole = vault.backup(thanos).snapshots[0]
    part = vault.backup(thanos, user="ann").snapshots[0]
    [row] = [one for one in vault.status(thanos).stores if one.system == "thanos"]
    assert row.last == whole.id
    kept = vault.forget(retention=Retention(keep_last=1), dry_run=True).kept
    assert {one.snapshot for one in kept} == {whole.id, part.id}
    assert [one.event for one in vault.history(f"{ANN}4").moments] == ["added"]
    again = vault.backup(thanos).snapshots[0]
    assert again.added_bytes < whole.added_bytes


@pytest.mark.parametrize("name", ["nobody", "ann' OR 'a'='a", "ann\\", ""])
def test_a_user_who_has_nothing_is_no_backup(new_vault: NewVault, thanos: Path, name: str) -> None:
    vault = new_vault()
    with pytest.raises(StoreError, match="no memory of a user") as caught:
        vault.backup(thanos, user=name)
    assert caught.value.code == "no_such_user"
    assert vault.snapshots().snapshots == ()


def test_relationships_are_not_guessed_when_the_memories_are_away(
    new_vault: NewVault, thanos: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.server.url(), autocommit=True) as admin:
        database.connection.close()
        admin.execute(f"ALTER DATABASE {database.name} RENAME TO {database.name}_gone")
    vault = new_vault()
    with pytest.raises(StoreError):
        vault.backup(thanos, user="ann")
    assert vault.snapshots().snapshots == ()


def test_a_product_that_does_not_tell_its_users_apart_is_refused(new_vault: NewVault, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "notes.db")) as con:
        con.executescript("CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT); INSERT INTO notes VALUES ('1', 'one')")
    with pytest.raises(UsageError, match="thanos only"):
        new_vault().backup(tmp_path / "notes.db", user="ann")

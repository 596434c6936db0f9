"""`latest` is the latest snapshot of the store that is named beside it."""

import sqlite3
from pathlib import Path

import pytest

import memkeep
from memkeep.errors import RefusedError, UsageError


def _notes(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT, created_at INTEGER)")
        connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, 1)", [(text, text) for text in texts])
    connection.close()
    return path.parent


@pytest.fixture
def vault(tmp_path: Path, memory: Path) -> memkeep.OpenVault:
    """Return a vault whose latest snapshot is of another store than `memory`."""
    made = tmp_path / "vault"
    memkeep.init_vault(made, encrypt=False)
    vault = memkeep.open_vault(made)
    vault.backup(memory)
    vault.backup(_notes(tmp_path / "notes" / "notes.db", "a"))
    return vault


def test_a_live_store_is_compared_with_its_own_latest_snapshot(vault: memkeep.OpenVault, memory: Path) -> None:
    told = vault.diff("latest", memory)
    assert (told.added, told.removed, told.changed) == ((), (), ())


def test_without_a_snapshot_of_its_own_a_store_is_compared_with_nothing_of_another_system(
    vault: memkeep.OpenVault, tmp_path: Path, memory: Path
) -> None:
    kept = vault.snapshots().snapshots[0].id
    with pytest.raises(UsageError, match="can't be compared") as caught:
        vault.diff(kept, tmp_path / "notes")
    assert caught.value.hint == f"memkeep backup {tmp_path / 'notes'}"
    assert memory.exists()


def test_a_restore_in_place_takes_the_latest_of_the_system_that_confirms_it(
    vault: memkeep.OpenVault, memory: Path
) -> None:
    done = vault.restore("latest", in_place=True, confirm="openclaw-hybrid")
    assert (done.system, done.to) == ("openclaw-hybrid", str(memory))


def test_a_system_of_which_nothing_is_kept_confirms_nothing(vault: memkeep.OpenVault) -> None:
    with pytest.raises(RefusedError, match="by the name of its system, custom"):
        vault.restore("latest", in_place=True, confirm="thanos")


def test_records_go_into_a_store_from_its_own_latest_snapshot(vault: memkeep.OpenVault, memory: Path) -> None:
    done = vault.restore_into(memory, dry_run=True)
    assert done.system == "openclaw-hybrid"

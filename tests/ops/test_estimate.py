"""What an estimate says is what then happens; nothing happens before."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from memkeep.config import Config
from memkeep.library import OpenVault
from memkeep.ops.estimate import estimate_restore
from memkeep.storage.memory import MemoryStorage
from memkeep.testing import agent
from memkeep.vault import opening

CLOSE = 300  # bytes: the manifest and the seal hold times and durations, compressed


def listing(folder: Path) -> dict[str, int]:
    """Return all files of a vault, and their sizes."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def grow(store: Path, batch: int = agent.KEPT + 2) -> None:
    """Let the agent write two batches."""
    with closing(agent._connect(store, "wal")) as connection:
        agent.write_batch(store, connection, batch)


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_backup_adds_what_was_estimated_and_the_estimate_nothing(
    memory: Path, new_vault: Callable[..., OpenVault], home: Path, *, encrypted: bool
) -> None:
    vault = new_vault(encrypted=encrypted)
    for day in range(2):
        before = listing(home / "vault")
        said = vault.estimate(memory)
        assert listing(home / "vault") == before
        (report,) = vault.backup(memory).snapshots
        (row,) = said.stores
        assert (row.system, row.path, row.records) == (report.system, report.path, report.records)
        assert row.source_bytes == report.source_bytes
        assert abs(row.added_bytes - report.added_bytes) <= CLOSE
        grown = sum(listing(home / "vault").values()) - sum(before.values())
        assert abs(said.added_bytes - grown) <= CLOSE
        grow(memory, agent.KEPT + 2 + day)


def test_a_rehearsed_vault_stays_as_it_was_for_who_has_it_open(
    memory: Path, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault()
    vault.estimate(memory)
    assert vault.snapshots().snapshots == ()
    assert not vault._vault.index.packs


def test_room_is_judged_where_the_vault_lies(
    memory: Path, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = new_vault()
    assert vault.estimate(memory).fits is True
    monkeypatch.setattr("memkeep.ops.estimate.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    said = vault.estimate(memory)
    assert (said.free_bytes, said.fits) == (100, False)


def test_where_room_cannot_be_known_nothing_is_said(memory: Path) -> None:
    vault, _ = opening.create(MemoryStorage(), None)
    said = OpenVault(vault, Config()).estimate(memory)
    assert (said.free_bytes, said.fits, said.seconds) == (None, None, None)


def test_of_a_restore_all_that_is_read_and_written_is_counted(
    memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    vault.backup(memory)
    grow(memory)
    vault.backup(memory)
    said = vault.estimate_restore("latest", to=tmp_path / "not" / "there")
    done = vault.restore("latest", to=tmp_path / "back")
    assert (said.bytes, said.files, said.records) == (done.bytes, done.files, done.records)
    assert said.fits is True
    assert 0 < said.fetch_bytes < sum(vault._vault.index.packs.values())
    assert estimate_restore(vault._vault, "latest", speed=1000).seconds == round(said.fetch_bytes / 1000, 3)
    assert vault.estimate_restore().free_bytes is None

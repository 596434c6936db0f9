"""A backup ends at any of its writes: earlier snapshots are whole, nothing half-made is listed, the next one works."""

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memkeep
from memkeep.errors import StorageError
from memkeep.model import Rung
from memkeep.testing.strikes import strike

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("private_tmp")]


@pytest.fixture
def aged(tmp_path: Path, new_vault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """Return a store that has changed since its last backup, and the vault."""
    monkeypatch.setattr("memkeep.vault.writer.PACK_SIZE", 1 << 16)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power fails here
    store, vault, chance = tmp_path / "notes", new_vault(), random.Random(1)
    store.mkdir()
    for day in range(2):
        (store / f"day-{day}.md").write_text(f"# What was done on day {day}\n")
        (store / f"blob-{day}.bin").write_bytes(chance.randbytes(100_000))
        if day == 0:
            vault.backup(store)
    return store, vault


def test_a_backup_killed_at_every_write_costs_nothing_but_itself(
    aged: tuple[Path, Any], home: Path, run_script: Callable[..., int]
) -> None:
    store, _ = aged
    kills = run_script("killed_backups.py", store, home / "vault")
    assert kills > 30  # packs, index segment, manifest, seal: each made, written, synced, linked, and its folder synced


@pytest.mark.parametrize("blow", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=lambda number: errno.errorcode[number])
def test_a_disk_that_says_no_at_any_write_costs_nothing_but_that_backup(
    blow: int, aged: tuple[Path, Any], home: Path
) -> None:
    store, first = aged
    [earlier] = [row.id for row in first.snapshots().snapshots]
    at, fell = 0, True
    while fell:
        at += 1
        copy = home / f"vault-{at}"
        shutil.copytree(home / "vault", copy)
        vault = memkeep.open_vault(copy, "pw")
        error = None
        with strike(copy, at, blow) as struck:
            try:
                vault.backup(store)
            except StorageError as caught:
                error = caught
        fell = struck.fell is not None
        now = memkeep.open_vault(copy, "pw")
        listed = now.snapshots()
        assert listed.snapshots[0].id == earlier
        assert listed.unreadable == ()
        report = now.verify(rung=Rung.INTACT, all=True)
        assert [one.rung for one in report.snapshots] == [Rung.INTACT] * len(listed.snapshots)
        assert {finding.code for finding in report.all_findings} <= {"unsealed"}
        if error is not None:
            made = len(listed.snapshots) > 1
            codes = {errno.ENOSPC: "disk_full", errno.EIO: "storage", errno.EACCES: "storage_denied"}
            assert (error.exit, error.code) == (1, codes[blow])
            assert error.hint
            assert "whole" in error.unchanged
            assert made or "was made" not in error.unchanged
        else:
            assert len(listed.snapshots) == 2
            # What is not removed is swept by the next writer, or is a lease, which ends by itself.
            assert struck.fell in {None, "unlink", "fsync"}
        now.backup(store)
        assert now.verify(rung=Rung.INTACT, all=True).all_findings == ()
        assert list((copy / "tmp").iterdir()) == []
        shutil.rmtree(copy)
    assert at > 30

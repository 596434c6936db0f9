"""Kill a backup at every change that it makes to the vault; print how many that were.

killed_backups.py STORE VAULT      the vault has snapshots; the store has changed since
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import memkeep
from memkeep.model import Rung
from memkeep.testing.strikes import killed
from memkeep.vault import writer

writer.PACK_SIZE = 1 << 16  # several packs
os.fsync = lambda _: None  # no power fails here


def main(store: Path, vault: Path) -> int:
    earlier = [row.id for row in memkeep.open_vault(vault, "pw").snapshots().snapshots]
    at = 0
    while True:
        at += 1
        copy = vault.parent / f"vault-{at}"
        shutil.copytree(vault, copy)
        opened = memkeep.open_vault(copy, "pw")
        was_killed = killed(copy, at, lambda: opened.backup(store))  # noqa: B023 - called at once
        survived(copy, store, earlier)
        shutil.rmtree(copy)
        if not was_killed:
            return at - 1


def survived(copy: Path, store: Path, earlier: list[str]) -> None:
    """Check the vault as its owner finds it: nothing half-made is listed, the next backup works and leaves it clean."""
    vault = memkeep.open_vault(copy, "pw")
    listed = vault.snapshots()
    ids = [row.id for row in listed.snapshots]
    assert ids[: len(earlier)] == earlier
    assert len(ids) <= len(earlier) + 1
    assert listed.unreadable == ()
    report = vault.verify(rung=Rung.INTACT, all=True)
    assert [one.rung for one in report.snapshots] == [Rung.INTACT] * len(ids)
    assert {finding.code for finding in report.all_findings} <= {"unsealed"}
    after = vault.backup(store).snapshots[0]
    assert after.rung is Rung.READABLE
    report = memkeep.open_vault(copy, "pw").verify(rung=Rung.INTACT, all=True)
    assert [one.snapshot for one in report.snapshots] == [*ids, after.id]
    assert report.all_findings == ()
    assert list((copy / "tmp").iterdir()) == []
    assert not list(Path(tempfile.gettempdir()).iterdir())  # what the killed run had in scratch


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))  # noqa: T201 - what the test reads

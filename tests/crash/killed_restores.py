"""Kill a restore in place at every rename, removal and new folder; print how many those were.

killed_restores.py STORE VAULT NEWER      the vault has a snapshot of STORE; NEWER is what the agent made of it since
"""

import os
import shutil
import sys
from pathlib import Path

import memkeep
from memkeep.errors import MemkeepError
from memkeep.testing import agent
from memkeep.testing.strikes import killed

KINDS = frozenset({"rename", "replace", "unlink", "mkdir", "rmdir"})
os.fsync = lambda _: None  # no power fails here


def main(store: Path, vault: Path, newer: Path) -> int:
    opened = memkeep.open_vault(vault, "pw")
    snapshot = opened.show().id
    shutil.rmtree(store)
    shutil.copytree(newer, store)
    old = agent.read_moment(newer)
    opened.restore(snapshot, in_place=True, confirm="openclaw-hybrid")
    new = agent.read_moment(store)
    assert new != old
    at, mixed = 0, 0
    while True:
        at += 1
        shutil.rmtree(store)
        shutil.copytree(newer, store)
        was_killed = killed(store, at, lambda: restore(opened, snapshot), kinds=KINDS)
        if (store / ".memkeep-restore.json").exists():
            mixed += 1
            refused(opened, store)
        else:
            assert agent.read_moment(copy_of(store)) in (old, new)
        restore(opened, snapshot)
        assert agent.read_moment(copy_of(store)) == new
        left = [path.name for path in store.iterdir() if path.name.startswith(".memkeep-")]
        assert all(name.startswith(".memkeep-parked-") for name in left), left
        assert sum(1 for name in left if (store / name / "facts.db").exists()) == len(left)
        if not was_killed:
            assert mixed > 4  # the journal was there at some of the blows
            return at - 1


def restore(vault: memkeep.OpenVault, snapshot: str) -> None:
    vault.restore(snapshot, in_place=True, confirm="openclaw-hybrid")


def refused(vault: memkeep.OpenVault, store: Path) -> None:
    """Check that a mix is not backed up: there is no store at all, or one that an interrupted restore has mixed."""
    error = None
    try:
        vault.backup(store)
    except MemkeepError as caught:
        error = caught
    assert error is not None
    assert (error.exit, error.code) in {(1, "restore_interrupted"), (1, "store_empty")}, error


def copy_of(store: Path) -> Path:
    """Return a copy, which may be opened with the plain libraries without changing the store."""
    copy = store.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy)
    return copy


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))  # noqa: T201 - what the test reads

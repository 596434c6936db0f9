"""Kill a restore in place at every rename, removal and new folder; print how many those were.

killed_restores.py STORE VAULT NEWER      the vault has a snapshot of STORE; NEWER is what the agent made of it since
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import memkeep
from memkeep.errors import MemkeepError
from memkeep.testing.strikes import killed

KINDS = frozenset({"rename", "replace", "unlink", "mkdir", "rmdir"})
os.fsync = lambda _: None  # no power fails here


def main(store: Path, vault: Path, newer: Path) -> int:
    opened = memkeep.open_vault(vault, "pw")
    snapshot = opened.show().id
    shutil.rmtree(store)
    shutil.copytree(newer, store)
    old = content(store)
    restore(opened, snapshot)
    new = content(store)
    assert new["facts.db"] != old["facts.db"]
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
            assert content(store) in (old, new)
        restore(opened, snapshot)
        assert content(store) == new
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


def content(store: Path) -> dict[str, str]:
    """Return what lies in a store, less what restores leave beside it."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and not path.relative_to(store).parts[0].startswith(".memkeep-")
    }


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))  # noqa: T201 - what the test reads

"""Kill a forgetting of snapshots at every change that it makes to the vault; print how many those were.

killed_forgets.py FOLDER      for new vaults
"""

import sys
from pathlib import Path

from memkeep.config import Retention
from memkeep.ops.forget import forget
from memkeep.ops.survey import survey
from memkeep.storage.local import LocalStorage
from memkeep.testing.snapshots import read, take
from memkeep.testing.strikes import killed
from memkeep.vault import opening
from memkeep.vault.vault import Vault

DAYS = [f"2026-01-0{number}T00:00:00+00:00" for number in range(1, 5)]
RULES = Retention(keep_last=2)


def main(folder: Path) -> int:
    at, halves = 0, 0
    while True:
        at += 1
        vault = opening.create(LocalStorage(folder / f"{at}"), None)[0]
        made = [take(vault, content(day), created=day).id for day in DAYS]
        was_killed = killed(folder / f"{at}", at, lambda vault=vault: forget(vault, retention=RULES))
        left = check(at, folder)
        assert made[-2:] == left[-2:]
        assert set(left) <= set(made)
        halves += 2 < len(left) < len(made)
        again = opened(at, folder)
        forget(again, retention=RULES)
        assert check(at, folder) == made[-2:]
        take(again, content("later"), created="2026-02-01")
        assert len(check(at, folder)) == 3
        if not was_killed:
            assert halves
            return at - 1


def check(at: int, folder: Path) -> list[str]:
    """Check that the log agrees with what is there, and all of it is whole; return the snapshots that are listed."""
    vault = opened(at, folder)
    assert [finding for finding in survey(vault) if finding.object] == []
    listed = vault.snapshots()
    for one in listed:
        assert read(vault, one) == content(one.created if one.created in DAYS else "later")
    return [one.id for one in listed]


def opened(at: int, folder: Path) -> Vault:
    return opening.open_vault(LocalStorage(folder / f"{at}"), None)


def content(day: str) -> dict[str, bytes]:
    return {"a": day.encode() * 500}


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))  # noqa: T201 - what the test reads

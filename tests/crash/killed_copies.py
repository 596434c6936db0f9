"""Kill a copy at every change that it makes to the target vault; print how many that were.

killed_copies.py SOURCE TARGET      vaults with the password `pw`; the source has snapshots that the target lacks
"""

import os
import shutil
import sys
from pathlib import Path

import memkeep
from memkeep.model import Rung
from memkeep.testing.strikes import killed
from memkeep.vault import writer

writer.PACK_SIZE = 1 << 16  # several packs
os.fsync = lambda _: None  # no power fails here


def main(source: Path, target: Path) -> int:
    wanted = [row.id for row in memkeep.open_vault(source, "pw").snapshots().snapshots]
    earlier = [row.id for row in memkeep.open_vault(target, "pw").snapshots().snapshots]
    at, size = 0, float("inf")
    while True:
        at += 1
        copy = target.parent / f"target-{at}"
        shutil.copytree(target, copy)
        opened, other = memkeep.open_vault(source, "pw"), memkeep.open_vault(copy, "pw")
        # The first is not killed, and shows what is enough.
        was_killed = killed(copy, at - 1, lambda: opened.copy(other))  # noqa: B023 - called at once
        last = survived(source, copy, wanted, earlier, size)
        shutil.rmtree(copy)
        if at == 1:
            size = last
        elif not was_killed:
            return at - 2


def survived(source: Path, copy: Path, wanted: list[str], earlier: list[str], size: float) -> float:
    """Check the target as its owner finds it: what is listed is whole, and a second copy brings the rest."""
    vault = memkeep.open_vault(copy, "pw")
    ids = [row.id for row in vault.snapshots().snapshots]
    assert set(earlier) <= set(ids)
    report = vault.verify(rung=Rung.INTACT, all=True)
    assert [one.rung for one in report.snapshots] == [Rung.INTACT] * len(ids)
    assert {finding.code for finding in report.all_findings} <= {"unsealed"}
    result = memkeep.open_vault(source, "pw").copy(vault)
    assert len(result.copied) + len(result.present) == len(wanted)
    after = memkeep.open_vault(copy, "pw")
    assert len(after.snapshots().snapshots) == len(wanted) + len(earlier)
    assert [one.rung for one in after.verify(rung=Rung.INTACT, all=True).snapshots] == [Rung.INTACT] * (
        len(wanted) + len(earlier)
    )
    # What a segment named was not sent again.
    assert sum(after._vault.index.packs.values()) < 1.05 * size
    if result.copied:
        assert list((copy / "tmp").iterdir()) == []
    return sum(after._vault.index.packs.values())


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))  # noqa: T201 - what the test reads

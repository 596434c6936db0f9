"""Kill a prune or a repair at every change that it makes to the vault; print how many those were.

killed_removals.py ACTION FOLDER      ACTION is a name from ACTIONS; FOLDER is for new vaults
"""

import random
import shutil
import sys
from pathlib import Path

from memkeep.errors import DamagedError
from memkeep.ops.forget import forget
from memkeep.ops.prune import prune
from memkeep.ops.repair import repair
from memkeep.ops.survey import survey
from memkeep.storage.local import LocalStorage
from memkeep.testing.faults import cut
from memkeep.testing.snapshots import read, take
from memkeep.testing.strikes import killed
from memkeep.vault import opening, writer
from memkeep.vault import prune as pruning
from memkeep.vault.vault import Vault

DAYS = [f"2026-01-0{number}T00:00:00+00:00" for number in range(1, 5)]
Contents = dict[str, dict[str, bytes]]


def forgotten(vault: Vault, root: Path) -> None:
    """Leave packs of which nothing is needed, or little."""
    forget(vault, [one.id for one in vault.snapshots()[:2]])


def hurt(vault: Vault, root: Path) -> None:
    """Lose an index segment, cut off another, an entry of the log and a pack that no snapshot needs any more."""
    there = files(root / "data")
    forget(vault, [take(vault, {"c": random.Random(2).randbytes(20_000)}, created="2026-01-05").id])
    for unneeded in files(root / "data") - there:
        cut(unneeded, -1)
    lost, torn, *_ = sorted((root / "index").iterdir())
    lost.unlink()
    cut(torn, -1)
    cut(sorted((root / "seals").iterdir())[2], -1)


ACTIONS = {
    "prune": (forgotten, prune),
    "repair": (hurt, repair),
}


def main(action: str, folder: Path) -> int:
    writer.PACK_SIZE = pruning.PACK_SIZE = 40_000
    prepare, do = ACTIONS[action]
    made = folder / "made"
    vault = opening.create(LocalStorage(made), None)[0]
    for day in DAYS:
        take(vault, content(day), created=day)
    prepare(opened(made), made)
    before = readable(made)
    clean = folder / "clean"
    shutil.copytree(made, clean)
    do(opened(clean))
    wanted, left = readable(clean), told(clean)
    assert before.items() <= wanted.items()
    prune(opened(clean))
    size = used(clean)
    assert size < used(made)
    at = 0
    while True:
        at += 1
        root = folder / f"{at}"
        shutil.copytree(made, root)
        was_killed = killed(root, at, lambda root=root: do(opened(root)))
        assert before.items() <= readable(root).items(), at
        if action == "prune":
            assert [finding for finding in survey(opened(root)) if finding.object] == [], at
        do(opened(root))
        assert readable(root) == wanted, at
        assert told(root) == left, at
        prune(opened(root))  # what a repair had written when the blow fell may have been written again
        assert abs(used(root) - size) < size / 20, (at, used(root), size, was_killed)
        take(opened(root), content("later"), created="2026-02-01")
        assert readable(root) == wanted | {"2026-02-01": content("later")}, at
        shutil.rmtree(root)
        if not was_killed:
            return at - 1


def opened(root: Path) -> Vault:
    return opening.open_vault(LocalStorage(root), None)


def readable(root: Path) -> Contents:
    """Return what can be read of the snapshots, each of which must be as it was taken."""
    found = {}
    vault = opened(root)
    for one in vault.snapshots():
        try:
            found[one.created] = read(vault, one)
        except DamagedError:
            continue
        assert found[one.created] == content(one.created if one.created in DAYS else "later")
    return found


def told(root: Path) -> set[str | None]:
    return {finding.object for finding in survey(opened(root))}


def used(root: Path) -> int:
    return sum(path.stat().st_size for path in files(root / "data"))


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def content(day: str) -> dict[str, bytes]:
    fixed = random.Random(1).randbytes(150_000)
    return {"a": fixed[:140_000] + day.encode() * 500, "b": random.Random(day).randbytes(20_000)}


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))  # noqa: T201 - what the test reads

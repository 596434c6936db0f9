"""Kill `init` and backups, as processes, at every write; then open, verify and go on."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import memkeep
from memkeep.ops.survey import survey
from memkeep.storage.local import LocalStorage
from memkeep.testing.faults import Kind
from memkeep.testing.snapshots import read, take
from memkeep.vault import opening

KILLS = [kind for kind in get_args(Kind) if kind.startswith("kill")]

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
from memkeep.storage.local import LocalStorage
from memkeep.testing.faults import Fault, FaultyStorage
from memkeep.testing.snapshots import take
from memkeep.vault import crypto, opening, writer

root, number, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
crypto.ARGON.update(memory_kib=32, iterations=1, lanes=1)
writer.PACK_SIZE = 100_000
faults = [Fault(call="put_new", number=number, kind=kind)] if number else []
storage = FaultyStorage(LocalStorage(root), *faults)
if not opening.exists(storage):
    opening.create(storage, "pw")
opened = opening.open_vault(storage, "pw")
day = len(opened.snapshots())
noise = np.random.default_rng(1).bytes(300_000)
take(opened, {"a.db": noise + b"%d" % day, "b": b"text " * (9000 + day)}, created=f"{day}")
print(sum(call == "put_new" for call, _ in storage.calls))
"""


def day(number: int) -> dict[str, bytes]:
    return {"a.db": np.random.default_rng(1).bytes(300_000) + b"%d" % number, "b": b"text " * (9000 + number)}


def run(root: Path, number: int, kind: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(number), kind],
        env={"PYTHONPATH": str(Path(memkeep.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_sound(root: Path) -> int:
    """Check all that is listed; return how many snapshots that are."""
    storage = LocalStorage(root)
    if not opening.exists(storage):
        return 0
    vault = opening.open_vault(storage, "pw")
    listed = vault.snapshots()
    assert [read(vault, one) for one in listed] == [day(number) for number in range(len(listed))]
    assert [finding for finding in survey(vault) if finding.object] == []
    return len(listed)


@pytest.mark.crash
@pytest.mark.parametrize("kind", KILLS)
def test_killed_at_any_write_of_init_and_backup_all_that_was_is_whole_and_the_next_works(
    tmp_path: Path, kind: str
) -> None:
    clean = run(tmp_path / "clean", 0, "refuse")
    assert clean.stderr == ""
    writes = int(clean.stdout)
    assert writes >= 9  # two keys, a seal, the config, two packs or more, a segment, the manifest, its seal
    for number in range(1, writes + 1):
        root = tmp_path / f"killed at write {number}"
        killed = run(root, number, kind)
        assert (killed.returncode, killed.stdout, killed.stderr) == (-signal.SIGKILL, "", "")
        storage = LocalStorage(root)
        listed = assert_sound(root)
        # The manifest is the last but one write, the seal the last.
        assert listed == (number == writes or (number == writes - 1 and kind == "kill_after"))
        if not opening.exists(storage):
            opening.create(storage, "pw")
        take(opening.open_vault(storage, "pw"), day(listed), created=f"{listed}")
        assert assert_sound(root) == listed + 1
        assert list((root / "tmp").iterdir()) == []


@pytest.mark.crash
@pytest.mark.parametrize("kind", KILLS)
def test_killed_again_and_again_a_backup_never_harms_the_one_before(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "vault"
    assert run(root, 0, "refuse").returncode == 0
    listed = 1
    for number in (1, 3, 5):
        killed = run(root, number, kind)
        assert killed.returncode in {-signal.SIGKILL, 0}, killed.stderr
        assert assert_sound(root) in {listed, listed + 1}
        listed = assert_sound(root)
    take(opening.open_vault(LocalStorage(root), "pw"), day(listed), created=f"{listed}")
    assert assert_sound(root) == listed + 1

"""Several at once: two backups into one vault, a backup under a restore, and nothing of any is left in scratch."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memkeep
from memkeep.library import OpenVault
from memkeep.model import Rung
from memkeep.ops.scratch import scratch
from memkeep.testing import agent

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]

TAKE = """
import sys, memkeep
vault = memkeep.open_vault(sys.argv[1], "pw")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    [report] = vault.backup(sys.argv[2]).snapshots
    print(report.id, report.rung, report.consistent, flush=True)
"""


def taking(vault: Path, store: Path, times: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(vault), str(store), str(times)],
        env={**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_back_up_into_one_vault(tmp_path: Path, new_vault: Callable[..., OpenVault], home: Path) -> None:
    new_vault()
    stores = [agent.build(tmp_path / name / "memory") for name in ("one", "two")]
    processes = [taking(home / "vault", store, 3) for store in (*stores, stores[0])]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    lines = [line.split() for each in told for line in each]
    assert {tuple(rest) for _, *rest in lines} == {("readable", "True")}
    vault = memkeep.open_vault(home / "vault", "pw")
    assert {row.id for row in vault.snapshots().snapshots} == {line[0] for line in lines}
    assert len(lines) == 9
    report = vault.verify(rung=Rung.EQUIVALENT, all=True)
    assert [one.rung for one in report.snapshots] == [Rung.EQUIVALENT] * 9
    assert report.all_findings == ()
    for number, row in enumerate(vault.snapshots().snapshots):
        vault.restore(row.id, to=tmp_path / "back" / str(number))
        assert agent.read_moment(tmp_path / "back" / str(number)).whole


def test_an_interrupted_backup_cleans_up_after_itself(
    tmp_path: Path, new_vault: Callable[..., OpenVault], home: Path, private_tmp: Path
) -> None:
    """Ctrl-C, or a service that is stopped: the status says so, and nothing is left in scratch or half-made."""
    new_vault()
    store = agent.build(tmp_path / "memory")
    with subprocess.Popen(
        [sys.executable, "-m", "memkeep", "backup", str(store), "--json"],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
            "MEMKEEP_VAULT": str(home / "vault"),
            "MEMKEEP_PASSWORD": "pw",
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not any("run-" in base for base, _, _ in os.walk(private_tmp)):
            pass
        process.send_signal(signal.SIGTERM)
        out = process.communicate()[0]
    made = memkeep.open_vault(home / "vault", "pw").snapshots().snapshots
    if process.returncode == 0:  # it had finished in that instant
        assert len(made) == 1
    else:
        assert process.returncode == 130
        error = json.loads(out)["error"]
        assert (error["code"], error["exit"]) == ("interrupted", 130)
        assert made == ()
    assert list(private_tmp.iterdir()) == []


def test_scratch_of_the_killed_is_removed_and_of_the_living_is_not(private_tmp: Path) -> None:
    code = (
        "import sys\nfrom memkeep.ops.scratch import scratch\n"
        "with scratch() as folder:\n (folder / 'file').write_text('x')\n print(folder, flush=True)\n sys.stdin.read()"
    )
    both: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    killed, living = both
    folders = [Path(process.stdout.readline().strip()) for process in both]
    killed.kill()
    killed.communicate()
    assert all((folder / "file").exists() for folder in folders)
    with scratch() as mine:
        assert [folder.exists() for folder in folders] == [False, True]
        assert mine.stat().st_mode & 0o777 == 0o700
        assert list(mine.iterdir()) == []
    living.communicate("")
    assert list(private_tmp.iterdir()) == []

"""A product that is stopped while its store is frozen is always started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep
from memkeep import config as settings
from memkeep.clock import monotonic, pause
from memkeep.errors import MemkeepError, UsageError
from memkeep.model import Finding, Hooks
from memkeep.ops import backup as backing_up
from memkeep.ops.hooks import stopped

STOP, START = "echo stop >> log", "echo start >> log"


@pytest.fixture
def configured(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., memkeep.OpenVault]:
    """Return `vault(stop, start)`: a vault whose settings give a store those hooks."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "note.md").write_text("remember")

    def vault(stop: str = STOP, start: str = START) -> memkeep.OpenVault:
        file = home / "config.toml"
        file.write_text(f'[stores.one]\npath = "{store}"\nexclude = ["log"]\nstop = "{stop}"\nstart = "{start}"\n')
        monkeypatch.setenv("MEMKEEP_CONFIG", str(file))
        memkeep.init_vault(home / "vault", encrypt=False)
        return memkeep.open_vault(home / "vault")

    return vault


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def test_a_store_is_stopped_once_and_started_once(configured: Callable, tmp_path: Path) -> None:
    report = configured().backup("one")
    assert log(tmp_path / "store") == ["stop", "start"]
    assert report.snapshots[0].findings == ()


def test_it_is_started_when_the_backup_fails(
    configured: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = configured()

    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(backing_up, "freeze", fail)
    with pytest.raises(OSError, match="no room"):
        vault.backup("one")
    assert log(tmp_path / "store") == ["stop", "start"]


def test_what_cannot_be_stopped_is_started_all_the_same_and_not_backed_up(configured: Callable, tmp_path: Path) -> None:
    vault = configured(stop="echo stop >> log; echo no daemon >&2; false")
    with pytest.raises(MemkeepError, match="no daemon"):
        vault.backup("one")
    assert log(tmp_path / "store") == ["stop", "start"]
    assert vault.snapshots().snapshots == ()


def test_what_does_not_start_again_is_a_finding_with_the_command(configured: Callable) -> None:
    [report] = configured(start="false").backup("one").snapshots
    assert [(one.code, one.mend) for one in report.findings] == [("not_started", "false")]


def test_it_is_started_when_memkeep_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from memkeep.model import Hooks; from memkeep.ops.hooks import stopped\n"
        f"with stopped(Hooks(stop={STOP!r}, start={START!r}), Path({str(tmp_path)!r}), []):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert log(tmp_path) == ["stop"]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = monotonic() + 60
    while log(tmp_path) != ["stop", "start"]:
        assert monotonic() < deadline
        pause(0.01)


def test_nothing_is_run_where_nothing_was_asked_for(tmp_path: Path) -> None:
    findings: list[Finding] = []
    with stopped(None, tmp_path, findings):
        pass
    with stopped(Hooks(stop="true", start="true"), tmp_path, findings):
        pass
    assert findings == []


def test_settings_that_stop_and_never_start_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "config.toml"
    file.write_text('[stores.one]\npath = "/x"\nstop = "docker compose stop"\n')
    monkeypatch.setenv("MEMKEEP_CONFIG", str(file))
    with pytest.raises(UsageError, match="`stop` and `start`"):
        settings.load()


def test_an_estimate_stops_nothing(configured: Callable, tmp_path: Path) -> None:
    vault = configured()
    assert vault.estimate("one").added_bytes > 0
    assert not (tmp_path / "store" / "log").exists()

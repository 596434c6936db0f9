"""`memkeep run`: its steps, what a failed one keeps from being done, the lock, the log and the last run."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep
from memkeep.config import Config, RunSettings, StoreSettings
from memkeep.errors import StorageError, UsageError, VaultLeasedError, WrongKeyError
from memkeep.library import OpenVault
from memkeep.model import Finding, Severity
from memkeep.ops import run as module
from memkeep.ops import run_state
from memkeep.ops.discover import discover
from memkeep.ops.run import Done, RunResult, Step, planned, run
from memkeep.vault.vault import Vault

SECRET = "the cat sleeps on the third shelf"


@pytest.fixture
def config(home: Path) -> Config:
    """Return settings with two stores of notes."""
    for name in ("one", "two"):
        (home / name).mkdir()
        (home / name / "note.md").write_text(f"# {name}\n\n{SECRET}\n")
    return Config(stores={name: StoreSettings(path=str(home / name)) for name in ("one", "two")})


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault]) -> Vault:
    return new_vault()._vault


def _run(config: Config, vault: Vault) -> RunResult:
    return run(config, lambda: vault, lambda _: vault, lambda unfound: discover(None, config, unfound=unfound))


def _with(config: Config, **more: object) -> Config:
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    return Config(**values | more)


def _log() -> list[str]:
    return (run_state.folder() / "run.log").read_text(encoding="utf-8").splitlines()


def test_backup_and_verify_are_done_and_told(config: Config, vault: Vault) -> None:
    result = _run(config, vault)
    assert [(step.name, step.ok, step.exit) for step in result.steps] == [("backup", True, 0), ("verify", True, 0)]
    assert result.exit == 0
    assert len(result.steps[0].result.snapshots) == 2
    assert {one.rung.value for one in result.steps[1].result.snapshots} == {"intact"}
    last = run_state.last_run()
    assert last is not None
    assert (last.exit, last.step, last.running) == (0, "", False)


def test_only_the_newest_snapshot_of_each_store_is_verified(config: Config, vault: Vault) -> None:
    _run(config, vault)
    result = _run(_with(config, run=RunSettings(verify="readable")), vault)
    assert len(vault.snapshots()) == 4
    newest = {one.id for one in vault.snapshots()[2:]}
    assert {one.snapshot for one in result.steps[1].result.snapshots} == newest
    assert {one.rung.value for one in result.steps[1].result.snapshots} == {"readable"}


def test_the_settings_choose_the_steps_and_their_order_is_fixed() -> None:
    assert planned(Config()) == [("backup", None), ("verify", None)]
    chosen = Config(run=RunSettings(steps=("verify", "backup")))
    assert planned(chosen) == [("backup", None), ("verify", None)]


@pytest.mark.parametrize("step", ["forget", "copy"])
def test_a_step_that_the_settings_say_too_little_for_is_a_mistake_in_them(step: str) -> None:
    with pytest.raises(UsageError, match=step):
        planned(Config(run=RunSettings(steps=(step,))))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return `steps(**{name: status or error})`: replace steps; the list gets the names of those that are begun."""

    def arrange(**outcomes: int | Exception) -> list[str]:
        begun: list[str] = []

        def make(name: str, outcome: int | Exception) -> Callable[..., Done]:
            def do(*_: object) -> Done:
                begun.append(name)
                if isinstance(outcome, Exception):
                    raise outcome
                return Done(None, outcome, name)

            return do

        usual = {name: Step(make(name, outcomes.get(name, 0)), step.after) for name, step in module.STEPS.items()}
        monkeypatch.setattr(module, "STEPS", usual)
        return begun

    return arrange


def test_an_error_of_one_step_is_told_and_its_memory_is_not(config: Config, vault: Vault, steps: Callable) -> None:
    steps(backup=StorageError("the disk is full", hint="df", code="disk_full"), verify=ValueError(SECRET))
    result = _run(config, vault)
    first, second = result.steps
    assert (first.ok, first.exit, first.error) == (
        False,
        1,
        module.StepError(code="disk_full", message="the disk is full", hint="df"),
    )
    assert second.error is not None
    assert second.error.code == "internal"
    assert SECRET not in "\n".join(_log())
    last = run_state.last_run()
    assert last is not None
    assert (last.exit, last.step, last.code) == (1, "backup", "disk_full")


def test_the_log_has_a_line_for_each_step_and_no_memory_and_only_its_user_can_read_it(
    config: Config, vault: Vault
) -> None:
    old = os.umask(0)
    try:
        _run(config, vault)
    finally:
        os.umask(old)
    lines = _log()
    assert len(lines) == 4
    assert [line.split()[2] for line in lines] == ["run", "backup:", "verify:", "run"]
    assert all(line.split()[0].endswith("Z") for line in lines)
    for path in run_state.folder().rglob("*"):
        if path.is_file() and path.parent == run_state.folder():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert SECRET.encode() not in path.read_bytes()
    assert stat.S_IMODE(run_state.folder().stat().st_mode) == 0o700


def test_the_log_is_turned_over_and_old_ones_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "LOG_BYTES", 1000)
    log = run_state.Log()
    for number in range(200):
        log.line(f"line {number}\nwith \x1b[2J in it")
    log.close()
    files = sorted(run_state.folder().glob("run.log*"))
    assert len(files) == 1 + run_state.LOG_FILES
    assert all(path.stat().st_size <= 1000 for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert _log()[-1].endswith("line 199 with [2J in it")


def test_a_vault_that_can_t_be_opened_is_in_the_log_and_the_last_run(config: Config) -> None:
    def refuse() -> Vault:
        raise WrongKeyError("no password")

    with pytest.raises(WrongKeyError):
        run(config, refuse, lambda _: refuse(), lambda _: [])
    last = run_state.last_run()
    assert last is not None
    assert (last.exit, last.code) == (12, "wrong_key")
    assert "wrong_key" in _log()[-1]


def test_a_store_that_is_gone_makes_the_run_end_with_3_and_the_others_are_kept(
    config: Config, vault: Vault, home: Path
) -> None:
    gone = {**config.stores, "gone": StoreSettings(path=str(home / "gone"))}
    result = _run(_with(config, stores=gone), vault)
    assert (result.exit, result.steps[0].exit, result.steps[0].ok) == (3, 3, False)
    assert len(result.steps[0].result.snapshots) == 2
    assert result.steps[0].result.failed[0].code == "store_missing"


@pytest.mark.damage
def test_damage_that_verify_finds_gives_20(config: Config, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(config, vault)
    hurt = Finding(code="damaged", severity=Severity.ERROR, message="m", object="data/ab/cd")
    real = module.verify
    monkeypatch.setattr(module, "verify", lambda *a, **k: type(real(*a, **k))(snapshots=(), findings=(hurt,)))
    assert _run(config, vault).exit == 20


PROGRAM = """
import sys
from memkeep.config import Config
from memkeep.ops.run import run
def opening():
    print("holding", flush=True)
    sys.stdin.read()
run(Config(), opening, None, lambda _: [])
"""


def test_a_second_run_ends_at_once_and_says_who_is_at_work_and_a_killed_one_holds_nothing(
    config: Config, vault: Vault
) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            with pytest.raises(VaultLeasedError, match=f"process {process.pid}, since 2") as raised:
                _run(config, vault)
            assert (raised.value.exit, raised.value.code) == (11, "already_running")
            assert vault.snapshots() == []
            last = run_state.last_run()
            assert last is not None
            assert (last.exit, last.running) == (None, True)
        finally:
            process.send_signal(signal.SIGKILL)
    last = run_state.last_run()
    assert last is not None
    assert (last.exit, last.running) == (None, False)
    assert _run(config, vault).exit == 0


def test_what_is_running_is_not_hurt_by_being_asked_for(config: Config, vault: Vault) -> None:
    with run_state.only_one(), pytest.raises(VaultLeasedError):
        _run(config, vault)
    assert _run(config, vault).exit == 0

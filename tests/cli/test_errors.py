"""What a failure looks like: three lines or one document, and the exit status."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import memkeep
from memkeep import errors
from memkeep.cli import main as entry
from memkeep.cli.errors import explain
from memkeep.cli.face import Face, Reply
from memkeep.cli.table import VERBS

VAULT_VERBS = {
    "backup": ["backup", "."],
    "diff": ["diff", "latest", "latest"],
    "history": ["history", "some-id"],
    "restore": ["restore", "latest", "--to", "somewhere"],
    "search": ["search", "word"],
    "show": ["show", "latest"],
    "snapshots": ["snapshots"],
    "verify": ["verify"],
}


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make the next run of any verb end with an exception."""

    def arrange(error: BaseException) -> None:
        def broken(face: Face) -> tuple[Reply, str]:
            face.verb = "status"
            raise error

        monkeypatch.setattr(entry, "_reply", broken)

    return arrange


@pytest.mark.parametrize("words", VAULT_VERBS.values(), ids=VAULT_VERBS)
def test_without_a_vault_every_verb_that_needs_one_says_so(words: list[str], run_cli: Callable, home: Path) -> None:
    ran = run_cli(*words, "--json")
    assert ran.code == 10
    assert ran.json["schema"] == f"memkeep/{words[0]}/1"
    assert ran.json["ok"] is False
    error = ran.json["error"]
    assert set(error) == {"code", "message", "hint", "exit", "unchanged"}
    assert (error["code"], error["exit"]) == ("vault_missing", 10)
    assert error["hint"].startswith("memkeep init")
    assert ran.stderr == ""
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_option_is_one_document_for_programs(verb: str, run_cli: Callable) -> None:
    ran = run_cli(verb, "--no-such-option", "--json")
    assert (ran.code, ran.stderr) == (2, "")
    assert ran.json["schema"] == f"memkeep/{verb}/1"
    assert ran.json["error"]["code"] == "usage"
    assert ran.json["error"]["hint"] == f"memkeep {verb} --help"


def test_a_wrong_option_is_three_lines_for_people_and_names_the_nearest(run_cli: Callable) -> None:
    ran = run_cli("backup", "--lable", "x")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.splitlines() == [
        "Error: no such option '--lable'. Did you mean '--label'?",
        "Nothing was changed.",
        "Next: memkeep backup --help",
    ]


def test_an_unknown_verb_names_the_nearest(run_cli: Callable) -> None:
    ran = run_cli("retsore")
    assert ran.code == 2
    assert ran.stderr.splitlines() == [
        "Error: no such command 'retsore'. Did you mean 'restore'?",
        "Nothing was changed.",
        "Next: memkeep restore --help",
    ]
    assert run_cli("retsore", "--json").json["schema"] == "memkeep/error/1"


@pytest.mark.parametrize("words", [["--vault", "", "status"], ["restore"], ["verify", "--rung", "best"], ["diff", "a"]])
def test_wrong_words_are_three_lines(words: list[str], run_cli: Callable) -> None:
    ran = run_cli(*words)
    assert (ran.code, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 3


def test_what_stands_behind_two_dashes_is_no_option(run_cli: Callable) -> None:
    ran = run_cli("retsore", "--", "--json")
    assert ran.stdout == ""
    assert ran.stderr.startswith("Error: ")


def _classes(base: type[errors.MemkeepError]) -> list[type[errors.MemkeepError]]:
    return [base, *(below for sub in base.__subclasses__() for below in _classes(sub))]


@pytest.mark.parametrize("kind", _classes(errors.MemkeepError), ids=lambda kind: kind.__name__)
def test_every_error_class_gives_its_own_status_and_code(
    kind: type[errors.MemkeepError], fail_with: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    fail_with(kind("the reason", unchanged="All is as it was.", hint="memkeep status --quiet"))
    assert entry.run(["status"]) == kind.exit
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == "Error: the reason\nAll is as it was.\nNext: memkeep status --quiet\n"
    assert entry.run(["status", "--json"]) == kind.exit
    told = capfd.readouterr()
    assert told.err == ""
    assert json.loads(told.out)["error"] == {
        "code": kind.code,
        "message": "the reason",
        "hint": "memkeep status --quiet",
        "exit": kind.exit,
        "unchanged": "All is as it was.",
    }


def test_a_message_of_several_lines_stays_three_lines(fail_with: Callable, capfd: pytest.CaptureFixture[str]) -> None:
    fail_with(errors.StoreError("first\n  second\x1b[2J", hint=""))
    assert entry.run(["status"]) == 1
    assert capfd.readouterr().err.splitlines() == [
        "Error: first second\\x1b[2J",
        "Nothing was changed.",
        "Next: memkeep status --help",
    ]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ZeroDivisionError("x"), "internal", 1),
        (RecursionError(), "internal", 1),
        (KeyboardInterrupt(), "interrupted", 130),
        (click.Abort(), "interrupted", 130),
        (PermissionError(13, "Permission denied", "/some/file"), "system", 1),
        (BrokenPipeError(32, "Broken pipe"), "system", 1),
        (UnicodeEncodeError("utf-8", "\udc80", 0, 1, "surrogates"), "internal", 1),
    ],
)
def test_what_nobody_expected_is_told_in_the_same_form(
    error: BaseException, code: str, status: int, fail_with: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    fail_with(error)
    assert entry.run(["status", "--json"]) == status
    told = capfd.readouterr()
    assert told.err == ""
    document = json.loads(told.out)
    assert (document["ok"], document["error"]["code"], document["error"]["exit"]) == (False, code, status)
    assert entry.run(["status"]) == status
    assert len(capfd.readouterr().err.splitlines()) == 3


def test_the_traceback_of_a_fault_is_one_variable_away(
    fail_with: Callable, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ZeroDivisionError("x")
    fail_with(fault)
    assert explain(Face(["show", "my id"]), fault).hint == "MEMKEEP_TRACEBACK=1 memkeep show 'my id'"
    monkeypatch.setenv("MEMKEEP_TRACEBACK", "1")
    entry.run(["status", "--json"])
    told = capfd.readouterr()
    assert "Traceback" in told.err
    assert json.loads(told.out)["error"]["code"] == "internal"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_verb_with_one_document_and_130(number: signal.Signals, home: Path) -> None:
    from memkeep.ops.open import init_vault

    url = str(home / "vault")
    init_vault(url, "word", encrypt=True)
    pipe = home / "password"  # one that nobody writes to stands for any long work
    os.mkfifo(pipe)
    words = [sys.executable, "-m", "memkeep", "snapshots", "--json", "--vault", url, "--password-file", str(pipe)]
    # Also where whoever runs the tests ignores the signal, and so would what they start.
    with subprocess.Popen(
        ["env", "--default-signal", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environ()
    ) as process:
        writer = _open_for(process, pipe)
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        os.close(writer)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert err == b""


def test_a_reader_that_goes_away_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "memkeep", "--help"], stdout=write, stderr=subprocess.PIPE, env=_environ(), check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [["--help"], ["--version", "--json"]])
def test_a_full_disk_under_the_output_is_told_on_the_other_stream(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "memkeep", *words], stdout=full, stderr=subprocess.PIPE, env=_environ(), check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == b"Error: the answer could not be written: No space left on device"


def test_closed_streams_do_no_harm() -> None:
    command = f"'{sys.executable}' -m memkeep --version >&- 2>&-"
    done = subprocess.run(["sh", "-c", command], env=_environ(), check=False)
    assert done.returncode == 0


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)}


def _open_for(process: subprocess.Popen[bytes], pipe: Path) -> int:
    """Open a named pipe for writing as soon as a process reads from it; fail when it ends before."""
    for _ in range(6_000):
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
            break
    pytest.fail(f"the process never read its password: {process.communicate()}")

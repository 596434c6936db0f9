"""What happens on a terminal, and what must not happen without one."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import memkeep
from memkeep.ops.open import init_vault

TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'memkeep', *sys.argv[1:]])\n"
)


class Session(NamedTuple):
    code: int
    text: str


@pytest.fixture
def on_terminal(home: Path) -> Callable[..., Session]:
    """Return `on_terminal(*words, answers=[(question, answer), ...])`: memkeep with a terminal and someone at it."""

    def run(*words: str, answers: Sequence[tuple[str, str]] = (), env: dict[str, str] | None = None) -> Session:
        ours, theirs = pty.openpty()
        environ = {
            **os.environ,
            "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
            "TERM": "xterm",
            **(env or {}),
        }
        with subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            cwd=home,
        ) as process:
            os.close(theirs)
            text, left, seen = "", list(answers), 0
            while more := _read(ours):
                text += more
                if left and left[0][0] in text[seen:]:
                    seen = len(text)
                    os.write(ours, f"{left.pop(0)[1]}\n".encode())
            code = process.wait(timeout=60)
        os.close(ours)
        assert not left, f"never asked: {left}\n{text}"
        return Session(code, text)

    return run


def _read(terminal: int) -> str:
    """Read what there is; an empty text at the end, or when nothing more comes."""
    ready, _, _ = select.select([terminal], [], [], 60)
    if not ready:
        pytest.fail("the program waits for something that nobody expected")
    try:
        return os.read(terminal, 65536).decode("utf-8", "replace")
    except OSError:  # how Linux says that the other side is closed
        return ""


@pytest.fixture
def vault(home: Path) -> str:
    url = str(home / "vault")
    init_vault(url, "the word", encrypt=True)
    return url


@pytest.fixture
def store(home: Path) -> Path:
    """Return a small store of notes and a database."""
    import sqlite3

    folder = home / "agent"
    folder.mkdir()
    with sqlite3.connect(folder / "memory.db") as connection:
        connection.execute("CREATE TABLE memories (id TEXT PRIMARY KEY, text TEXT)")
        connection.execute("INSERT INTO memories VALUES ('one', 'the cat sleeps')")
    connection.close()
    return folder


def test_the_password_is_asked_for_and_not_echoed(vault: str, on_terminal: Callable) -> None:
    session = on_terminal("snapshots", "--vault", vault, answers=[("Password for the vault", "the word")])
    assert session.code == 0, session.text
    assert "the word" not in session.text


def test_a_wrong_password_is_wrong(vault: str, on_terminal: Callable) -> None:
    session = on_terminal("snapshots", "--vault", vault, answers=[("Password for the vault", "another word")])
    assert session.code == 12


def test_a_new_password_is_asked_for_twice(home: Path, on_terminal: Callable) -> None:
    answers = [("New password for the vault", "a b c"), ("The same again", "a b c")]
    session = on_terminal("init", "--vault", "new", answers=answers)
    assert session.code == 0
    assert "Recovery key: " in session.text
    answers = [("New password for the vault", "a b c"), ("The same again", "a b d")]
    assert on_terminal("init", "--vault", "other", answers=answers).code == 2
    assert not (home / "other").exists()


def test_the_first_backup_offers_to_make_the_vault(home: Path, store: Path, on_terminal: Callable) -> None:
    answers = [
        ("There is no vault yet", "y"),
        ("New password for the vault", "a b c"),
        ("The same again", "a b c"),
    ]
    session = on_terminal("backup", str(store), answers=answers)
    assert session.code == 0, session.text
    assert "Recovery key: " in session.text
    assert (home / ".local/share/memkeep/vault/config").is_file()


def test_who_declines_the_offer_has_no_vault(home: Path, store: Path, on_terminal: Callable) -> None:
    session = on_terminal("backup", str(store), answers=[("There is no vault yet", "n")])
    assert session.code == 10
    assert not (home / ".local").exists()


def test_a_vault_that_was_named_is_not_made_by_accident(store: Path, on_terminal: Callable) -> None:
    assert on_terminal("backup", str(store), "--vault", "mistyped").code == 10
    assert on_terminal("backup", str(store), env={"MEMKEEP_VAULT": "mistyped"}).code == 10
    assert on_terminal("backup", str(store), "--json").code == 10


def test_without_a_terminal_nothing_is_asked(vault: str, store: Path, home: Path, run_cli: Callable) -> None:
    before = sorted(home.rglob("*"))
    ran = run_cli("backup", store, input="y\nthe word\n")
    assert ran.code == 10
    assert "Next: memkeep init" in ran.stderr
    ran = run_cli("snapshots", "--vault", vault, input="the word\n")
    assert ran.code == 12
    assert "--password-file" in ran.stderr
    assert run_cli("init", "--vault", "new", input="the word\nthe word\n").code == 12
    assert sorted(home.rglob("*")) == before


def test_progress_is_seen_on_a_terminal_only_and_not_when_quiet(
    vault: str, store: Path, on_terminal: Callable, run_cli: Callable
) -> None:
    environ = {"MEMKEEP_PASSWORD": "the word", "MEMKEEP_VAULT": vault}
    hide_cursor = "\x1b[?25l"
    assert hide_cursor in on_terminal("backup", str(store), env=environ).text
    for flag in ("--quiet", "--json"):
        assert "\x1b" not in on_terminal("verify", flag, env={**environ, "NO_COLOR": "1"}).text
    assert run_cli("verify", env=environ).stderr == ""


def test_colours_are_seen_unless_refused(vault: str, store: Path, on_terminal: Callable) -> None:
    environ = {"MEMKEEP_PASSWORD": "the word", "MEMKEEP_VAULT": vault}
    assert on_terminal("backup", str(store), "--quiet", env=environ).text == ""
    assert "\x1b[32m" in on_terminal("snapshots", env=environ).text
    assert "\x1b" not in on_terminal("snapshots", env={**environ, "NO_COLOR": "1"}).text
    assert "\x1b" not in on_terminal("snapshots", env={**environ, "TERM": "dumb"}).text


def test_waiting_for_a_server_that_does_not_answer_is_told_on_a_terminal_and_is_short(
    on_terminal: Callable[..., Session],
) -> None:
    env = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "x",
        "MEMKEEP_CACHE_DIR": "cache",
    }
    done = on_terminal("snapshots", "--vault", "s3://memkeep-nowhere/vault", env=env)
    assert "trying again (2 of 4)" in done.text
    assert "(tried 4 times in " in " ".join(done.text.split())

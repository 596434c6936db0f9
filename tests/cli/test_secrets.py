"""Where a password comes from."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.cli.face import Face
from memkeep.cli.secrets import from_command, from_file, password
from memkeep.config import VaultSettings
from memkeep.errors import UsageError, WrongKeyError


@pytest.fixture
def word(tmp_path: Path) -> Callable[[str], str]:
    """Return the name of a file that holds a word."""

    def write(text: str) -> str:
        path = tmp_path / text.strip()
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_flag_then_environment_then_settings(word: Callable) -> None:
    settings = VaultSettings(url="v", password_file=word("settings-file"), password_command="echo settings-command")
    environ = {
        "MEMKEEP_PASSWORD": "environment",
        "MEMKEEP_PASSWORD_FILE": word("environment-file"),
        "MEMKEEP_PASSWORD_COMMAND": "echo environment-command",
    }
    face = Face([])
    face.password_file = word("flag-file")
    assert password(face, settings, environ=environ) == "flag-file"
    face.password_file, face.password_command = None, "echo flag-command"
    assert password(face, settings, environ=environ) == "flag-command"
    face.password_command = None
    for name, expected in (
        ("MEMKEEP_PASSWORD", "environment"),
        ("MEMKEEP_PASSWORD_FILE", "environment-file"),
        ("MEMKEEP_PASSWORD_COMMAND", "environment-command"),
    ):
        assert password(face, settings, environ=environ) == expected
        del environ[name]
    assert password(face, settings, environ=environ) == "settings-file"
    assert password(face, VaultSettings(url="v", password_command="echo x"), environ=environ) == "x"


def test_two_flags_are_one_too_many() -> None:
    face = Face([])
    face.password_file, face.password_command = "a", "b"
    with pytest.raises(UsageError):
        password(face, VaultSettings(url="v"), environ={})


@pytest.mark.parametrize("text", ["word", "word\n", "word\r\n"])
def test_the_newline_at_the_end_of_a_file_is_no_part_of_the_password(text: str, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(text.encode())
    assert from_file(str(path)) == "word"


def test_everything_else_in_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" two words \nand a line\n\n", encoding="utf-8")
    assert from_file(str(path)) == " two words \nand a line\n"


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from the pipe\n"))
    assert from_file("-") == "from the pipe"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_password_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "pass word"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongKeyError, match="pass word") as raised:
        from_file(str(path))
    assert raised.value.hint == f"ls -l '{path}'"


def test_a_command_is_run_without_a_shell() -> None:
    assert from_command("printf '%s\\n' '$HOME; two words'") == "$HOME; two words"


@pytest.mark.parametrize("command", ["false", "no-such-program-here x", "printf ''", "'unclosed", " "])
def test_a_command_that_gives_no_password_is_named(command: str) -> None:
    with pytest.raises(WrongKeyError, match="the password command"):
        from_command(command)

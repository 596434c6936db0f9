"""Where a password comes from."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import keyring.backends.fail
import pytest
from keyrings.alt.file import PlaintextKeyring

from memkeep.cli import keyrings
from memkeep.cli.face import Face
from memkeep.cli.secrets import from_command, from_file, password
from memkeep.config import VaultSettings
from memkeep.errors import UnsupportedError, UsageError, WrongKeyError


@pytest.fixture(autouse=True)
def _keyring(tmp_path: Path) -> Iterator[None]:
    """Use a keyring that is a plain file, so that it needs no desktop."""
    real = PlaintextKeyring()
    real.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(real)
    yield
    keyring.set_keyring(before)


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
    settings = VaultSettings(url="v", password_command="echo x", password_credential="mine")
    credentials = Path(word("mine")).parent
    word("memkeep-password\n")
    environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    assert password(face, settings, environ=environ) == "x"
    assert password(face, VaultSettings(url="v", password_credential="mine"), environ=environ) == "mine"
    keyrings.store("v", "in the keyring")
    assert password(face, VaultSettings(url="v"), environ=environ) == "memkeep-password"
    (credentials / "memkeep-password").unlink()
    assert password(face, VaultSettings(url="v"), environ=environ) == "in the keyring"
    keyrings.remove("v")
    with pytest.raises(WrongKeyError, match="no terminal to ask on"):
        password(face, VaultSettings(url="v"), environ=environ)


@pytest.mark.parametrize("name", ["../mine", "/etc/passwd", "a/b", ".."])
def test_a_credential_is_named_not_a_path(name: str, tmp_path: Path) -> None:
    settings = VaultSettings(url="v", password_credential=name)
    with pytest.raises(UsageError):
        password(Face([]), settings, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_an_empty_credential_is_named(tmp_path: Path) -> None:
    (tmp_path / "memkeep-password").touch()
    with pytest.raises(WrongKeyError, match="memkeep-password is empty"):
        password(Face([]), VaultSettings(url="v"), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_the_keyring_knows_a_vault_by_its_whole_path_or_url(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "v").mkdir()
    monkeypatch.chdir(home)
    keyrings.store("~/v", "of a folder")
    keyrings.store("s3://bucket/v", "of a bucket")
    assert keyrings.find("v") == keyrings.find(str(home / "v")) == "of a folder"
    assert keyrings.find("s3://bucket/v") == "of a bucket"
    assert keyrings.remove("v")
    assert not keyrings.remove("v")
    assert keyrings.find("s3://bucket/v") == "of a bucket"


def test_a_machine_without_a_keyring_has_no_password_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.set_keyring(keyring.backends.fail.Keyring())
    assert keyrings.find("v") is None
    assert not keyrings.remove("v")
    with pytest.raises(UnsupportedError, match="does not take the password"):
        keyrings.store("v", "word")
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert keyrings.find("v") is None
    with pytest.raises(UnsupportedError, match="extra `keyring`"):
        keyrings.store("v", "word")


def test_a_new_password_is_never_the_one_that_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    keyrings.store("v", "of an older vault")
    with pytest.raises(WrongKeyError):
        password(Face([]), VaultSettings(url="v"), new=True, environ={})


def test_a_remembered_password_opens_the_vault_without_a_question(home: Path, run_cli: Callable) -> None:
    env = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
    given = ["--password-command", "echo pw"]
    run_cli("init", "--vault", "v", *given)
    assert run_cli("snapshots", "--vault", "v", env=env).code == 12
    assert run_cli("key", "remember", "--vault", "v", *given, env=env).code == 0
    assert run_cli("snapshots", "--vault", "v", env=env).code == 0
    assert run_cli("key", "remember", "--vault", "v", "--password-command", "echo no", env=env).code == 12
    assert run_cli("key", "unremember", "--vault", "v", env=env).code == 0
    assert run_cli("snapshots", "--vault", "v", env=env).code == 12


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

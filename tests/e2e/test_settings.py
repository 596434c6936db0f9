"""The settings file in use: vaults by name, stores by path, and who wins when several say where the vault is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.cli.main import run
from memkeep.library import OpenVault
from memkeep.testing import agent

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return `ask(*words)`: the exit status and the document of a command line."""
    monkeypatch.setattr("os.fsync", lambda _: None)

    def asked(*words: Any) -> tuple[int, dict[str, Any]]:
        status = run([*map(str, words), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return asked


@pytest.fixture
def settings(home: Path, tmp_path: Path, new_vault: Callable[..., OpenVault]) -> Path:
    """Return a settings file with three vaults, two stores and how long to keep."""
    for name in ("first", "second", "third"):
        new_vault(name)
    (home / "password").write_text("pw\n")
    (home / ".config" / "memkeep").mkdir(parents=True)
    file = home / ".config" / "memkeep" / "config.toml"
    agent.build(tmp_path / "memory", lance=False)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.md").write_text("# One\n")
    (tmp_path / "notes" / "one.log").write_text("log")
    file.write_text(
        f"""
vault = "home"
[vaults.home]
url = "~/first"
password_file = "~/password"
[vaults.away]
url = "{home / "second"}"
password_command = "printf pw"
[stores.agent]
path = "{tmp_path / "memory"}"
[stores.notes]
path = "{tmp_path / "notes"}"
exclude = ["*.log"]
[retention]
keep_last = 7
keep_within = "30d"
"""
    )
    return file


def test_the_file_says_which_vault_which_stores_and_where_the_password_is(settings: Path, ask: Ask) -> None:
    status, said = ask("backup")
    assert status == 0, said
    reports = {report["system"]: report for report in said["result"]["snapshots"]}
    assert set(reports) == {"openclaw-hybrid", "custom"}
    assert {"part": "one.log", "reason": "excluded by the settings"} in reports["custom"]["omitted"]
    status, said = ask("status")
    assert said["result"]["vault"] == str(settings.parents[2] / "first")
    assert {store["system"] for store in said["result"]["stores"]} == set(reports)
    assert all(store["protected"] for store in said["result"]["stores"])


def test_the_flag_wins_over_the_environment_and_that_over_the_file(
    settings: Path, ask: Ask, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vault(*words: Any) -> str:
        status, said = ask("status", *words)
        assert status == 0, said
        return Path(said["result"]["vault"]).name

    assert settings.is_file()
    assert vault() == "first"
    monkeypatch.setenv("MEMKEEP_VAULT", "away")
    assert vault() == "second"
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
    assert vault("--vault", home / "third") == "third"
    assert vault("--vault", "home") == "first"
    monkeypatch.setenv("MEMKEEP_PASSWORD", "wrong")
    assert ask("status")[0] == 12  # the environment's password wins over the file's, right or wrong
    assert vault("--password-file", home / "password") == "second"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("vualt = 'x'", "vault"),
        ("[vaults.x]\nurl='y'\npasword_file='z'", "password_file"),
        ("[retention]\nkeep_lst=1", "keep_last"),
    ],
)
def test_an_unknown_key_names_the_nearest(wrong: str, near: str, home: Path, ask: Ask) -> None:
    file = home / "settings.toml"
    file.write_text(wrong)
    status, said = ask("status", "--config", file)
    assert (status, said["ok"], said["error"]["code"]) == (2, False, "config_unknown_key")
    assert f"`{near}`" in said["error"]["message"]
    assert str(file) in said["error"]["message"]

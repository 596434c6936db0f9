"""`memkeep copy` as it is typed: where the other vault and its password come from, and what it says."""

from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep
from memkeep.library import OpenVault
from memkeep.testing import agent


@pytest.fixture
def two(new_vault: Callable[..., OpenVault], home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return a vault with a snapshot (password `pw`) and an empty one (password `other`)."""
    new_vault("here").backup(agent.build(home / "agent" / "memory", lance=False))
    memkeep.init_vault(home / "there", "other")
    monkeypatch.setenv("MEMKEEP_VAULT", str(home / "here"))
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
    return home / "here", home / "there"


def test_the_other_password_comes_from_its_flags_its_variables_or_its_settings(
    two: tuple[Path, Path], run_cli: Callable, home: Path
) -> None:
    (home / "secret").write_text("other\n")
    config = home / "settings.toml"
    config.write_text(f'[vaults.mirror]\nurl = "{two[1]}"\npassword_file = "{home / "secret"}"\n')
    ways = [
        (("--to", two[1], "--to-password-file", home / "secret"), {}),
        (("--to", two[1], "--to-password-command", "echo other"), {}),
        (("--to", two[1]), {"MEMKEEP_TO_PASSWORD": "other"}),
        (("--to", two[1]), {"MEMKEEP_TO_PASSWORD_FILE": str(home / "secret")}),
        (("--to", two[1]), {"MEMKEEP_TO_PASSWORD_COMMAND": "echo other"}),
        (("--to", "mirror", "--config", config), {}),
        (("--to", two[1], "--config", config), {}),
    ]
    for number, (words, env) in enumerate(ways):
        ran = run_cli("copy", *words, "--json", env=env)
        assert ran.code == 0, ran.stdout
        assert (len(ran.result["copied"]), len(ran.result["present"])) == ((0, 1) if number else (1, 0))


def test_a_wrong_or_missing_password_of_the_other_vault_says_which_flag_to_use(
    two: tuple[Path, Path], run_cli: Callable
) -> None:
    for env in ({}, {"MEMKEEP_TO_PASSWORD": "pw"}):
        ran = run_cli("copy", "--to", two[1], "--json", env=env)
        assert ran.code == 12
        assert f"--to {two[1]} --to-password-file FILE" in ran.json["error"]["hint"]


def test_what_a_copy_says(two: tuple[Path, Path], run_cli: Callable) -> None:
    env = {"MEMKEEP_TO_PASSWORD": "other"}
    tried = run_cli("copy", "--to", two[1], "--dry-run", env=env)
    assert tried.code == 0
    assert tried.stdout.splitlines()[-2].startswith(f"Would copy 1 snapshot to {two[1]}; at most ")
    done = run_cli("copy", "--to", two[1], env=env)
    assert f"Copied 1 snapshot to {two[1]}; added " in done.stdout
    assert f"memkeep verify --all --vault {two[1]}" in done.stdout
    again = run_cli("copy", "--to", two[1], env=env)
    assert f"Copied 0 snapshots to {two[1]}, 1 there already; added 0 B." in again.stdout
    assert run_cli("copy", "--to", two[0], env={"MEMKEEP_TO_PASSWORD": "pw"}).code == 13
    assert run_cli("copy", "--to", two[1].parent / "nowhere").code == 10
    assert run_cli("copy").code == 2


def test_a_damaged_source_ends_with_status_20_and_names_the_snapshot(two: tuple[Path, Path], run_cli: Callable) -> None:
    for pack in (two[0] / "data").rglob("*/*"):
        pack.write_bytes(b"")
    ran = run_cli("copy", "--to", two[1], "--json", env={"MEMKEEP_TO_PASSWORD": "other"})
    assert ran.code == 20
    assert ran.result["failed"] == list(ran.result["findings"][0]["snapshots"])
    assert ran.result["copied"] == []


def test_the_same_vault_by_another_name_is_refused_before_its_password_is_asked_for(
    two: tuple[Path, Path], run_cli: Callable, home: Path
) -> None:
    (home / "link").symlink_to(two[0])
    for name in ("here", "./there/../here", "link", f"file://{two[0]}"):
        ran = run_cli("copy", "--to", name, "--json", env={"MEMKEEP_PASSWORD": ""})
        assert ran.json["error"]["code"] == "same_vault", name

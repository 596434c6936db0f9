"""`memkeep run` as a process: all five steps over two vaults with two passwords, and what failures keep back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import memkeep
from memkeep.library import OpenVault

pytestmark = pytest.mark.e2e

STEPS = ["backup", "verify", "forget", "prune", "copy"]


class World(NamedTuple):
    """Two stores of notes, a vault, its mirror with another password, and `memkeep` in that home."""

    home: Path
    run: Callable[..., Any]

    def snapshots(self, name: str) -> list[str]:
        """Return the stores whose snapshots are in a vault."""
        vault = memkeep.open_vault(self.home / name, {"vault": "pw", "mirror": "other"}[name])
        return [Path(row.path).name for row in vault.snapshots().snapshots]

    def write(self, name: str, text: str) -> None:
        """Write a note of a store."""
        (self.home / name).mkdir(exist_ok=True)
        (self.home / name / "note.md").write_text(text, encoding="utf-8")


@pytest.fixture
def world(home: Path, run_cli: Callable, new_vault: Callable[..., OpenVault]) -> World:
    new_vault()
    memkeep.init_vault(home / "mirror", "other")
    made = World(home, run_cli)
    for name in ("one", "two"):
        made.write(name, f"# {name}\n")
    for name, word in (("vault", "pw"), ("mirror", "other")):
        (home / f"{name}.word").write_text(word)
        (home / f"{name}.word").chmod(0o600)
    settings = home / ".config" / "memkeep" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        """
vault = "home"
[vaults.home]
url = "~/vault"
password_file = "~/vault.word"
[vaults.away]
url = "~/mirror"
password_file = "~/mirror.word"
[stores.one]
path = "~/one"
[stores.two]
path = "~/two"
[retention]
keep_last = 2
[run]
verify = "readable"
verify_all = true
copy_to = ["away"]
"""
    )
    return made


def test_five_steps_over_two_vaults_day_after_day(world: World) -> None:
    for day in range(4):
        world.write("one", f"# day {day}\n" * 200)
        ran = world.run("run", "--json")
        assert (ran.code, ran.stderr) == (0, ""), ran.stdout
        result = ran.result
        assert [(step["name"], step["ok"], step["exit"]) for step in result["steps"]] == [
            (name, True, 0) for name in STEPS
        ]
        assert {"started", "seconds", "exit", "steps"} == set(result)
    assert result["steps"][4]["to"] == "away"
    assert len(result["steps"][2]["result"]["forgotten"]) == 2
    assert sorted(world.snapshots("vault")) == ["one", "one", "two", "two"]
    assert len(world.snapshots("mirror")) == 8  # a mirror forgets by itself
    for words in (["--vault", "home"], ["--vault", "away"]):
        assert world.run("verify", "--all", *words).code == 0
    status = world.run("status", "--json").result
    assert status["last_run"]["exit"] == 0
    shown = world.run("run")
    assert shown.code == 0
    assert "copy to away" in shown.stdout
    quiet = world.run("run", "--quiet")
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_nothing_is_forgotten_or_pruned_after_a_backup_that_failed_but_copies_are_made(world: World) -> None:
    for _ in range(2):
        assert world.run("run").code == 0
    (world.home / "two" / "note.md").unlink()
    (world.home / "two").rmdir()
    ran = world.run("run", "--json")
    assert ran.code == 3
    steps = {step["name"]: step for step in ran.result["steps"]}
    assert [one["code"] for one in steps["backup"]["result"]["failed"]] == ["store_missing"]
    assert steps["verify"]["ok"]
    assert steps["forget"]["skipped"] == steps["prune"]["skipped"] == "backup did not go well"
    assert steps["copy"]["ok"]
    assert sorted(world.snapshots("vault")) == ["one", "one", "one", "two", "two"]
    assert world.snapshots("mirror") == world.snapshots("vault")
    shown = world.run("run", "--quiet")
    assert "two" in shown.stdout
    assert "skipped" in shown.stdout


@pytest.mark.damage
def test_nothing_is_forgotten_or_pruned_after_damage_was_found(world: World) -> None:
    for _ in range(2):
        assert world.run("run").code == 0
    before = {path for path in (world.home / "vault").rglob("*") if path.is_file()}
    for pack in (world.home / "vault" / "data").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[len(data) // 2] ^= 1
            pack.write_bytes(data)
    ran = world.run("run", "--json")
    assert ran.code == 20, ran.stdout
    steps = {step["name"]: step for step in ran.result["steps"]}
    assert steps["verify"]["exit"] == 20
    assert steps["forget"]["skipped"]
    assert steps["prune"]["skipped"]
    assert {path for path in (world.home / "vault").rglob("*") if path.is_file()} >= before
    last = world.run("status", "--json").result["last_run"]
    assert last["exit"] == 20
    assert last["step"] in ("backup", "verify")


def test_a_mirror_that_can_t_be_opened_fails_that_copy_alone(world: World) -> None:
    (world.home / "mirror.word").write_text("wrong")
    ran = world.run("run", "--json")
    assert ran.code == 12
    steps = ran.result["steps"]
    assert [step["ok"] for step in steps] == [True, True, True, True, False]
    assert steps[4]["error"]["code"] == "wrong_key"


def test_the_log_names_every_step_and_no_memory(world: World) -> None:
    world.write("one", "the cat sleeps on the third shelf\n")
    assert world.run("run", "--json").code == 0
    lines = (world.home / ".local" / "state" / "memkeep" / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 3)[2].rstrip(":") for line in lines] == ["run", *STEPS, "run"]
    assert not [line for line in lines if "cat" in line or json.dumps("shelf")[1:-1] in line]

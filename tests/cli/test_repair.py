"""`memkeep repair` as it is typed."""

from collections.abc import Callable
from pathlib import Path

import memkeep
from memkeep.library import OpenVault
from memkeep.testing import agent


def test_what_a_repair_says_and_how_it_ends(new_vault: Callable[..., OpenVault], home: Path, run_cli: Callable) -> None:
    new_vault("vault").backup(agent.build(home / "agent" / "memory", lance=False))
    words = ("repair", "--vault", home / "vault")
    env = {"MEMKEEP_PASSWORD": "pw"}
    assert run_cli(*words, env=env).stdout.splitlines()[0] == "1 snapshot whole, 0 not; there is nothing to mend."
    for segment in (home / "vault" / "index").iterdir():
        segment.unlink()
    tried = run_cli(*words, "--dry-run", env=env)
    assert tried.stdout.startswith("Would describe 1 pack anew, ")
    done = run_cli(*words, env=env)
    assert (done.code, done.stdout.startswith("Described 1 pack anew, ")) == (0, True)
    for pack in (home / "vault" / "data").rglob("*/*"):
        pack.unlink()
    lost = run_cli(*words, "--json", env=env)
    assert lost.code == 20
    assert {part["part"] for part in lost.result["hurt"][0]["lost"]} >= {"facts.db"}
    assert "can't be made whole" in run_cli(*words, env=env).stdout


def test_what_is_lost_comes_from_a_mirror_with_its_own_password(
    new_vault: Callable[..., OpenVault], home: Path, run_cli: Callable
) -> None:
    vault = new_vault("vault")
    vault.backup(agent.build(home / "agent" / "memory", lance=False))
    memkeep.init_vault(home / "mirror", "other")
    vault.copy(memkeep.open_vault(home / "mirror", "other"))
    for pack in (home / "vault" / "data").rglob("*/*"):
        pack.unlink()
    words = ("repair", "--vault", home / "vault", "--from", home / "mirror")
    wrong = run_cli(*words, env={"MEMKEEP_PASSWORD": "pw", "MEMKEEP_FROM_PASSWORD": "no"})
    assert (wrong.code, "memkeep repair --from" in wrong.stderr) == (12, True)
    env = {"MEMKEEP_PASSWORD": "pw", "MEMKEEP_FROM_PASSWORD": "other"}
    assert "Would bring" in run_cli(*words, "--dry-run", env=env).stdout
    done = run_cli(*words, env=env)
    assert (done.code, "from the mirror" in done.stdout) == (0, True)
    assert run_cli("verify", "--all", "--vault", home / "vault", env=env).code == 0

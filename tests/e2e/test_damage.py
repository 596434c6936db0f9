"""Every object of a vault is broken in every way: the command line names it, and wrong bytes are never restored."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import memkeep
from memkeep.cli.main import run
from memkeep.testing import faults

pytestmark = [pytest.mark.damage, pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]


class Answer(NamedTuple):
    """What a command line answered, and its exit status."""

    exit: int
    said: dict[str, Any]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The findings; of a failure that names an object, that one."""
        if self.said["ok"]:
            found: list[dict[str, Any]] = self.said["result"]["findings"]
            return found
        return [
            {"object": word, "snapshots": [], "severity": "error"} for word in self.said["error"]["message"].split()
        ]


class World(NamedTuple):
    """A vault with three snapshots of two stores, and what each of them restores to."""

    vault: Path
    ask: Callable[..., Answer]
    truth: dict[str, dict[str, str]]
    recovery: str


@pytest.fixture
def world(
    tmp_path: Path,
    home: Path,
    new_vault: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> World:
    monkeypatch.setattr("os.fsync", lambda _: None)
    new_vault("unused")  # makes keys cheap to derive
    recovery = memkeep.init_vault(home / "vault", "pw").recovery_key
    assert recovery
    vault = memkeep.open_vault(home / "vault", "pw")
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
    truth = {}
    for number, name in enumerate(("notes", "notes", "other")):
        store = tmp_path / name
        store.mkdir(exist_ok=True)
        (store / f"{number}.md").write_text(f"# The memory number {number} of {name}\n" * 50)
        [report] = vault.backup(store).snapshots
        vault.restore(report.id, to=tmp_path / "truth" / report.id)
        truth[report.id] = tree_hash(tmp_path / "truth" / report.id)

    def ask(*words: Any) -> Answer:
        status = run([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        assert err == ""
        return Answer(status, json.loads(out))

    return World(home / "vault", ask, truth, recovery)


def objects(vault: Path) -> list[str]:
    found = sorted(path.relative_to(vault).as_posix() for path in vault.rglob("*") if path.is_file())
    return [key for key in found if not key.startswith("tmp/")]


def flips(world: World) -> Iterator[tuple[list[str], Callable[[Path], None]]]:
    for key in objects(world.vault):
        size = (world.vault / key).stat().st_size
        for offset in (0, size // 2, size - 1):
            yield [key], lambda vault, key=key, offset=offset: faults.flip(vault / key, offset, offset % 8)


def cuts(world: World) -> Iterator[tuple[list[str], Callable[[Path], None]]]:
    for key in objects(world.vault):
        yield [key], lambda vault, key=key: faults.cut(vault / key, -1)
        yield [key], lambda vault, key=key: (vault / key).write_bytes((vault / key).read_bytes() + b"\0") and None


def empties(world: World) -> Iterator[tuple[list[str], Callable[[Path], None]]]:
    for key in objects(world.vault):
        yield [key], lambda vault, key=key: faults.cut(vault / key, 0)


def removals(world: World) -> Iterator[tuple[list[str], Callable[[Path], None]]]:
    for key in objects(world.vault):
        yield [key], lambda vault, key=key: (vault / key).unlink()


def swaps(world: World) -> Iterator[tuple[list[str], Callable[[Path], None]]]:
    keys = objects(world.vault)
    for one, other in zip(keys, [*keys[1:], keys[0]], strict=True):
        yield [one, other], lambda vault, one=one, other=other: faults.swap(vault / one, vault / other)


@pytest.mark.parametrize("ways", [flips, cuts, empties, removals, swaps])
def test_verify_names_what_is_broken_and_no_wrong_byte_is_restored(
    ways: Callable[[World], Iterator[tuple[list[str], Callable[[Path], None]]]],
    world: World,
    tmp_path: Path,
    tree_hash: Callable[[Path], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = 0
    last_seal = max(key for key in objects(world.vault) if key.startswith("seals/"))  # no other names it
    for broken, break_it in ways(world):
        tried += 1
        copy = tmp_path / f"vault-{tried}"
        shutil.copytree(world.vault, copy)
        break_it(copy)
        monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
        answer = world.ask("verify", "--all", "--rung", "intact", "--vault", copy)
        if any(key.startswith("keys/") for key in broken) and not answer.said["ok"]:  # the password's own key slot
            assert answer.exit == 20 or (answer.exit == 12 and not (copy / broken[0]).exists()), answer
            monkeypatch.setenv("MEMKEEP_PASSWORD", world.recovery)
            answer = world.ask("verify", "--all", "--rung", "intact", "--vault", copy)
            if all(key.startswith("keys/") for key in broken) and len(broken) == 2:  # nothing opens it any more
                assert (answer.exit, answer.said["ok"]) == (20, False)
                assert any(key in answer.said["error"]["message"] for key in broken)
                continue
            assert answer.said["ok"]
        assert answer.exit == 20 or (answer.exit == 4 and broken[0] == last_seal), (broken, answer)
        named = {finding["object"] or finding["message"] for finding in answer.findings}
        for key in ["config"] if "config" in broken else broken:  # without it nothing else can be told
            assert any(key in name for name in named) or (key == last_seal and "no seal" in str(named)), (key, answer)
        hurt = {snapshot for finding in answer.findings for snapshot in finding["snapshots"]}
        for snapshot, want in world.truth.items():
            target = tmp_path / "restored"
            back = world.ask("restore", snapshot, "--to", target, "--vault", copy)
            if back.exit == 0:
                assert tree_hash(target) == want
                shutil.rmtree(target)
            else:
                assert back.exit in {20, 1}, back  # 1: no snapshot is called so any more
                assert back.said["error"]["hint"].startswith("memkeep ") or "config" in broken
                assert not target.exists()
                assert snapshot in hurt or "config" in broken, (broken, snapshot, answer, back)
        shutil.rmtree(copy)
    assert tried >= len(objects(world.vault)) > 12


def test_a_sound_vault_has_no_findings(world: World) -> None:
    answer = world.ask("verify", "--all", "--rung", "equivalent", "--vault", world.vault)
    assert (answer.exit, answer.findings) == (0, [])


def test_damage_is_told_to_a_person_too(world: World, run_cli: Callable[..., Any]) -> None:
    pack = next(key for key in objects(world.vault) if key.startswith("data/"))
    faults.flip(world.vault / pack, 100)
    told = run_cli("verify", "--all", "--vault", world.vault, env={"MEMKEEP_PASSWORD": "pw"})
    assert told.code == 20
    assert pack in told.stdout
    assert "hurts" in told.stdout

"""A restore in place: what was there is parked and can come back, and old and new parts are never mixed."""

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from memkeep.errors import DamagedError, MemkeepError, RefusedError, StorageError
from memkeep.library import OpenVault
from memkeep.testing import agent
from memkeep.testing.strikes import strike

Tree = Callable[[Path], dict[str, str]]
HYBRID = "openclaw-hybrid"
LAST = agent.KEPT + 1  # the last batch that `agent.build` writes
RENAMES = frozenset({"rename", "replace"})


@pytest.fixture
def vault(memory: Path, new_vault: Callable[..., OpenVault]) -> OpenVault:
    made = new_vault()
    made.backup(memory)
    return made


def go_on(memory: Path) -> None:
    """Let the agent write on, and die with what it wrote last in the WAL."""
    aside = memory.parent / "aside"
    with closing(agent._connect(memory, "wal")) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for batch in range(LAST + 1, LAST + 4):
            agent.write_batch(memory, connection, batch)
        shutil.copytree(memory, aside)  # while it is open: the WAL is there
    shutil.rmtree(memory)
    aside.rename(memory)
    assert (memory / "facts.db-wal").stat().st_size > 0


def live(tree: dict[str, str]) -> dict[str, str]:
    """Return a tree without what restores leave beside the store."""
    return {name: what for name, what in tree.items() if not name.split("/")[0].startswith(".memkeep-parked-")}


def undo(result: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", result.undo], capture_output=True, text=True, check=False)


@contextmanager
def holding(path: Path) -> Iterator[int]:
    """Let another process hold a file open; give its id."""
    code = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate("")


def test_what_was_there_is_parked_with_its_wal_and_comes_back_by_the_script(
    memory: Path, vault: OpenVault, tree_hash: Tree
) -> None:
    go_on(memory)
    before = tree_hash(memory)
    result = vault.restore(in_place=True, confirm=HYBRID)
    assert not (memory / "facts.db-wal").exists()
    [parked] = memory.glob(".memkeep-*")
    assert str(parked) == result.parked
    assert (parked / "facts.db-wal").stat().st_size > 0
    restored = live(tree_hash(memory))
    assert agent.read_moment(memory) == (LAST, LAST, LAST)
    assert live(tree_hash(memory)).keys() == restored.keys()

    done = undo(result)
    assert done.returncode == 0, done.stderr
    assert live(tree_hash(memory)) == before
    again = undo(result)
    assert again.returncode == 1
    assert "undone already" in again.stderr
    assert live(tree_hash(memory)) == before
    assert agent.read_moment(memory) == (LAST + 3, LAST + 3, LAST + 3)
    replaced = list(parked.glob("replaced/*/facts.db"))
    assert len(replaced) == 1


def test_the_script_changes_nothing_when_something_parked_is_gone(
    memory: Path, vault: OpenVault, tree_hash: Tree
) -> None:
    result = vault.restore(in_place=True, confirm=HYBRID)
    (Path(result.parked or "") / "memory.wal").unlink()
    before = tree_hash(memory)
    done = undo(result)
    assert done.returncode == 1
    assert "memory.wal is not there any more; nothing was changed" in done.stderr
    assert tree_hash(memory) == before


def test_permissions_and_times_come_back(memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path) -> None:
    vault = new_vault()
    for number, path in enumerate(sorted(memory.rglob("*"))):
        path.chmod(0o750 if path.is_dir() else 0o640)
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_600_000_000_000_000_000 + number))
    known = {path.relative_to(memory): (path.stat().st_mode, path.stat().st_mtime_ns) for path in memory.rglob("*")}
    vault.backup(memory)
    vault.restore(to=tmp_path / "target")
    for path in (tmp_path / "target").rglob("*"):
        mode, mtime = known[path.relative_to(tmp_path / "target")]
        assert (path.stat().st_mode, path.stat().st_mtime_ns) == (mode, mtime)
    for path in memory.rglob("*"):
        path.chmod(0o700)
    vault.restore(in_place=True, confirm=HYBRID)
    for name in ("facts.db", "memory.wal"):
        assert ((memory / name).stat().st_mode, (memory / name).stat().st_mtime_ns) == known[Path(name)]


@pytest.mark.parametrize("confirm", [None, "", "openclaw-core", "yes"])
def test_it_must_be_confirmed_by_the_name_of_the_system(
    confirm: str | None, memory: Path, vault: OpenVault, tree_hash: Tree
) -> None:
    before = tree_hash(memory)
    with pytest.raises(RefusedError) as caught:
        vault.restore(in_place=True, confirm=confirm)
    assert caught.value.code == "not_confirmed"
    assert f"--confirm={HYBRID}" in caught.value.hint
    assert tree_hash(memory) == before


@pytest.mark.parametrize("held", ["facts.db", "facts.db-wal", "memory.wal", "lancedb"])
def test_it_is_refused_while_a_process_has_a_file_open_unless_told(
    held: str, memory: Path, vault: OpenVault, tree_hash: Tree
) -> None:
    go_on(memory)
    path = next((memory / held).rglob("*.lance/data/*")) if held == "lancedb" else memory / held
    before = tree_hash(memory)
    with holding(path) as pid:
        with pytest.raises(RefusedError) as caught:
            vault.restore(in_place=True, confirm=HYBRID)
        assert caught.value.code == "store_open"
        assert f"pid {pid}" in str(caught.value)
        assert str(path) in str(caught.value)
        assert tree_hash(memory) == before
        vault.restore(in_place=True, confirm=HYBRID, even_if_open=True)
    assert agent.read_moment(memory) == (LAST, LAST, LAST)


def test_one_part_alone_can_be_restored(memory: Path, vault: OpenVault, tree_hash: Tree) -> None:
    go_on(memory)
    before = tree_hash(memory)
    vault.restore(in_place=True, confirm=HYBRID, parts=["facts.db"])
    after = live(tree_hash(memory))
    others = {name for name in before if not name.startswith("facts.db")}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert agent.read_moment(memory) == (LAST, LAST + 3, LAST + 3)


def test_a_dry_run_changes_nothing(memory: Path, vault: OpenVault, tree_hash: Tree) -> None:
    before = tree_hash(memory)
    result = vault.restore(in_place=True, dry_run=True)
    assert result.dry_run
    assert result.to == str(memory)
    assert tree_hash(memory) == before


def test_a_store_that_is_gone_comes_back(memory: Path, vault: OpenVault) -> None:
    shutil.rmtree(memory)
    result = vault.restore(in_place=True, confirm=HYBRID)
    assert agent.read_moment(memory) == (LAST, LAST, LAST)
    assert undo(result).returncode == 0
    assert not (memory / "facts.db").exists()


def test_a_store_that_is_torn_comes_back(memory: Path, vault: OpenVault) -> None:
    (memory / "facts.db").write_bytes(b"not a database " * 1000)
    shutil.rmtree(memory / "lancedb")
    result = vault.restore(in_place=True, confirm=HYBRID)
    assert agent.read_moment(memory) == (LAST, LAST, LAST)
    assert undo(result).returncode == 0
    assert (memory / "facts.db").read_bytes().startswith(b"not a database")
    assert not (memory / "lancedb" / "memories.lance").exists()


def test_a_part_that_is_younger_than_the_snapshot_is_parked_too(
    memory: Path, vault: OpenVault, tree_hash: Tree
) -> None:
    with closing(sqlite3.connect(memory / "aliases.db")) as connection:
        connection.execute("CREATE TABLE fact_aliases(id TEXT)")
    shutil.copytree(memory / "lancedb" / "memories.lance", memory / "lancedb" / "fact_aliases.lance")
    before = tree_hash(memory)
    result = vault.restore(in_place=True, confirm=HYBRID)
    assert not (memory / "aliases.db").exists()
    assert not (memory / "lancedb" / "fact_aliases.lance").exists()
    assert undo(result).returncode == 0
    assert live(tree_hash(memory)) == before


def test_what_the_snapshot_left_out_stays_where_it_is(
    memory: Path, new_vault: Callable[..., OpenVault], copy_store: Callable[..., Path]
) -> None:
    shutil.copy(copy_store("hybrid-2026.4.273", "memory") / "credentials.db", memory)
    (memory / ".env").write_text("KEY=1")
    (memory / "backups").mkdir()
    (memory / "backups" / "old.db").write_bytes(b"old")
    vault = new_vault()
    vault.backup(memory, secrets="exclude")
    before = (memory / "credentials.db").read_bytes()
    vault.restore(in_place=True, confirm=HYBRID)
    assert (memory / "credentials.db").read_bytes() == before
    assert (memory / ".env").read_text() == "KEY=1"
    assert (memory / "backups" / "old.db").read_bytes() == b"old"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return an agent's workspace, which is under version control."""
    folder = tmp_path / "my workspace"
    for name, text in {
        "MEMORY.md": "# Memory\n- the cat\n",
        "USER.md": "# User\n",
        "memory/2026-11-20.md": "# A day\n",
        "skills/deep/down.txt": "skill",
        ".git/HEAD": "ref: refs/heads/main\n",
        ".env": "TOKEN=1\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_workspace_keeps_its_git_and_env(
    workspace: Path, new_vault: Callable[..., OpenVault], tree_hash: Tree
) -> None:
    vault, then = new_vault(), tree_hash(workspace)
    [report] = vault.backup(workspace).snapshots
    assert report.system == "openclaw-core"
    (workspace / "MEMORY.md").write_text("# Memory\n- the dog\n")
    (workspace / ".git" / "HEAD").write_text("ref: refs/heads/other\n")
    (workspace / ".env").write_text("TOKEN=2\n")
    (workspace / "memory" / "2026-11-21.md").write_text("# A later day\n")
    (workspace / "skills" / "deep" / "down.txt").unlink()
    before = tree_hash(workspace)
    result = vault.restore(in_place=True, confirm="openclaw-core")
    after = live(tree_hash(workspace))
    kept = {".git/HEAD", ".env"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name: what for name, what in after.items() if name not in kept} == {
        name: what for name, what in then.items() if name not in kept
    }
    assert undo(result).returncode == 0
    assert {name: what for name, what in live(tree_hash(workspace)).items() if what[0] != "d"} == {
        name: what for name, what in before.items() if what[0] != "d"
    }


def test_a_link_that_has_come_in_the_way_is_parked_and_never_followed(
    workspace: Path, new_vault: Callable[..., OpenVault], tmp_path: Path, tree_hash: Tree
) -> None:
    vault, then = new_vault(), tree_hash(workspace)
    vault.backup(workspace)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(workspace / "memory", elsewhere)
    (workspace / "memory").symlink_to(elsewhere)
    shutil.rmtree(workspace / "skills")
    (workspace / "skills").write_text("a file now")
    (elsewhere / "2026-11-20.md").unlink()
    before, there = tree_hash(workspace), tree_hash(elsewhere)
    result = vault.restore(in_place=True, confirm="openclaw-core")
    assert tree_hash(elsewhere) == there
    assert live(tree_hash(workspace)) == then
    done = undo(result)
    assert done.returncode == 0, done.stderr
    assert live(tree_hash(workspace)) == before
    assert tree_hash(elsewhere) == there


def test_a_folder_of_notes_and_databases_comes_back(
    tmp_path: Path, new_vault: Callable[..., OpenVault], tree_hash: Tree
) -> None:
    folder = tmp_path / "any thing"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.md").write_text("# One\n")
    (folder / "sub" / "two.md").write_text("# Two\n")
    with closing(sqlite3.connect(folder / "some.db")) as connection, connection:
        connection.execute("CREATE TABLE memories(id TEXT PRIMARY KEY, text TEXT)")
        connection.execute("INSERT INTO memories VALUES ('a', 'one')")
    vault, then = new_vault(), tree_hash(folder)
    vault.backup(folder)
    (folder / "one.md").unlink()
    (folder / "three.md").write_text("# Three\n")
    with closing(sqlite3.connect(folder / "some.db")) as connection, connection:
        connection.execute("DELETE FROM memories")
    before = tree_hash(folder)
    result = vault.restore(in_place=True, confirm="custom")
    assert live(tree_hash(folder)) == then
    assert undo(result).returncode == 0
    assert live(tree_hash(folder)) == before


def test_beside_a_store_of_one_file_nothing_is_touched(
    copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault], tree_hash: Tree
) -> None:
    folder = copy_store("oc-memory")
    vault, then = new_vault(), tree_hash(folder)
    vault.backup(folder / "memory.db")
    with closing(sqlite3.connect(folder / "memory.db")) as connection, connection:
        connection.execute("DELETE FROM mem_cells")
    (folder / "truth.json").write_text("{}")
    vault.restore(in_place=True, confirm="oc-memory")
    assert live(tree_hash(folder)) == then | {"truth.json": tree_hash(folder)["truth.json"]}


def test_parts_that_lie_outside_of_the_store_go_back_there(
    home: Path, new_vault: Callable[..., OpenVault], tree_hash: Tree, tmp_path: Path
) -> None:
    memory = agent.build(home / ".openclaw" / "memory")
    vectors = tmp_path / "fast disk" / "vectors"
    vectors.parent.mkdir()
    shutil.move(memory / "lancedb", vectors)
    config = {"plugins": {"entries": {"openclaw-hybrid-memory": {"config": {"lanceDbPath": str(vectors)}}}}}
    (home / ".openclaw" / "openclaw.json").write_text(json.dumps(config))
    vault = new_vault()
    vault.backup(memory)
    shown = vault.show()
    assert "lancedb/memories.lance" in [part.name for part in shown.parts]
    then = {"memory": tree_hash(memory), "vectors": tree_hash(vectors)}
    (memory / "facts.db").write_bytes(b"")
    shutil.rmtree(vectors / "memories.lance" / "data")
    with pytest.raises(RefusedError) as caught:  # no live store says any more where the vectors belong
        vault.restore(in_place=True, confirm=HYBRID)
    assert caught.value.code == "part_elsewhere"
    assert "--to DIR" in caught.value.hint

    vault.restore(to=tmp_path / "whole", parts=["facts.db"])
    shutil.copy2(tmp_path / "whole" / "facts.db", memory / "facts.db")
    vault.restore(in_place=True, confirm=HYBRID)
    assert live(tree_hash(memory)) == then["memory"]
    assert live(tree_hash(vectors)).items() <= then["vectors"].items()  # less what only old versions need
    assert agent._lance_moment(vectors / "memories.lance") == LAST
    assert len(list(vectors.glob(".memkeep-parked-*"))) == 1


def test_damage_in_the_vault_changes_nothing(memory: Path, vault: OpenVault, home: Path, tree_hash: Tree) -> None:
    before = tree_hash(memory)
    for pack in (home / "vault" / "data").rglob("*"):
        if pack.is_file():
            pack.write_bytes(pack.read_bytes()[:-1000] + bytes(1000))
    with pytest.raises(DamagedError):
        vault.restore(in_place=True, confirm=HYBRID)
    assert tree_hash(memory) == before


def test_a_rename_that_fails_takes_all_others_back(memory: Path, vault: OpenVault, tree_hash: Tree) -> None:
    go_on(memory)
    before = tree_hash(memory)
    at, fell = 0, True
    while fell:
        at += 1
        with strike(memory, at, errno.EIO, kinds=RENAMES) as struck:
            try:
                vault.restore(in_place=True, confirm=HYBRID)
            except StorageError:
                assert struck.fell
                assert tree_hash(memory) == before
        fell = struck.fell is not None
    assert at > 7  # the script, the journal, four parked and three brought home
    assert agent.read_moment(memory) == (LAST, LAST, LAST)


def test_two_restores_do_not_meet(memory: Path, vault: OpenVault, tree_hash: Tree) -> None:
    before = tree_hash(memory)
    descriptor = os.open(memory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RefusedError) as caught:
        vault.restore(in_place=True, confirm=HYBRID)
    os.close(descriptor)
    assert caught.value.code == "restore_running"
    assert tree_hash(memory) == before


def test_a_backup_of_a_mix_is_refused(memory: Path, vault: OpenVault) -> None:
    move = {"source": str(memory / "facts.db"), "target": str(memory / ".memkeep-parked-x" / "facts.db")}
    journal = {"snapshot": "x", "staging": [], "moves": [move]}
    (memory / ".memkeep-restore.json").write_text(json.dumps(journal))
    with pytest.raises(MemkeepError) as caught:
        vault.backup(memory)
    assert (caught.value.code, caught.value.exit) == ("restore_interrupted", 1)
    assert "memkeep restore" in caught.value.hint
    assert len(vault.snapshots().snapshots) == 1
    vault.restore(in_place=True, confirm=HYBRID)
    vault.backup(memory)


def test_a_backup_of_what_holds_a_mix_is_refused(
    copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault]
) -> None:
    state, vault = copy_store("openclaw-core-2026.9.6", "state-dir"), new_vault()
    (state / "memory" / "facts.db").unlink()
    (state / "memory" / ".memkeep-restore.json").write_text('{"snapshot": "x", "staging": [], "moves": []}')
    with pytest.raises(MemkeepError) as caught:
        vault.backup(state)
    assert caught.value.code == "restore_interrupted"
    assert str(state / "memory") in str(caught.value)


def test_a_journal_that_is_none_is_refused(memory: Path, vault: OpenVault, tree_hash: Tree) -> None:
    (memory / ".memkeep-restore.json").write_text("{")
    before = tree_hash(memory)
    with pytest.raises(RefusedError):
        vault.restore(in_place=True, confirm=HYBRID)
    assert tree_hash(memory) == before

"""A restore into a folder: it appears whole or not at all, and never where something is."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.errors import RefusedError, StorageError, StoreError, UsageError
from memkeep.library import OpenVault
from memkeep.testing import agent
from memkeep.testing.strikes import strike

Tree = Callable[[Path], dict[str, str]]
LAST = agent.KEPT + 1


@pytest.fixture
def vault(memory: Path, new_vault: Callable[..., OpenVault]) -> OpenVault:
    made = new_vault()
    made.backup(memory)
    return made


def test_an_empty_folder_and_a_path_that_is_not_there_are_taken(vault: OpenVault, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "deep/er/new", "with space, ünïcode & 'quotes'"):
        result = vault.restore(to=tmp_path / name)
        assert agent.read_moment(tmp_path / name) == (LAST, LAST, LAST)
        assert result.to == str(tmp_path / name)
        assert (result.records, result.rung, result.parked, result.undo) == (31, "restorable", None, None)
        assert set(result.parts) == {"facts.db", "lancedb/memories.lance", "memory.wal"}


@pytest.mark.parametrize("kind", ["folder", "hidden", "file", "link", "dangling"])
def test_where_something_is_nothing_is_written(kind: str, vault: OpenVault, tmp_path: Path, tree_hash: Tree) -> None:
    target = tmp_path / "target"
    if kind in {"folder", "hidden"}:
        target.mkdir()
        (target / {"folder": "mine", "hidden": ".mine"}[kind]).write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "elsewhere")
        if kind == "link":
            (tmp_path / "elsewhere").mkdir()
    before = tree_hash(tmp_path)
    with pytest.raises(RefusedError) as caught:
        vault.restore(to=target)
    assert (caught.value.exit, caught.value.code) == (13, "target_exists")
    assert "memkeep restore" in caught.value.hint
    assert tree_hash(tmp_path) == before


def test_the_live_store_and_the_vault_are_no_place_to_restore_to(
    vault: OpenVault, memory: Path, home: Path, tree_hash: Tree, tmp_path: Path
) -> None:
    before = tree_hash(tmp_path)
    (tmp_path / "by").symlink_to(memory.parent)
    for target in (memory / "restored", home / "vault" / "restored", tmp_path / "by" / "memory" / "deep" / "er"):
        with pytest.raises(RefusedError) as caught:
            vault.restore(to=target)
        assert caught.value.code == "target_inside"
    (tmp_path / "by").unlink()
    assert tree_hash(tmp_path) == before


def test_some_parts_lie_as_they_lay(vault: OpenVault, tmp_path: Path) -> None:
    result = vault.restore(to=tmp_path / "target", parts=["lancedb/memories.lance"])
    assert result.parts == ("lancedb/memories.lance",)
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["lancedb"]
    assert agent._lance_moment(tmp_path / "target" / "lancedb" / "memories.lance") == LAST


def test_a_part_that_is_not_there_names_the_nearest(vault: OpenVault, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no part called fact\.db; did you mean facts\.db\?") as caught:
        vault.restore(to=tmp_path / "target", parts=["fact.db"])
    assert caught.value.hint.startswith("memkeep show")
    assert not (tmp_path / "target").exists()


def test_it_must_be_said_where_to(vault: OpenVault, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        vault.restore()
    with pytest.raises(UsageError):
        vault.restore(to=tmp_path / "target", in_place=True, confirm="openclaw-hybrid")


def test_an_unknown_snapshot_is_said_to_be_unknown(vault: OpenVault, tmp_path: Path) -> None:
    for name in ("0000", "nonsense", "latest2", ""):
        with pytest.raises(StoreError) as caught:
            vault.restore(name or "zz", to=tmp_path / "target")
        assert caught.value.code == "no_snapshot"
    assert not (tmp_path / "target").exists()


def test_a_dry_run_says_what_it_would_do(vault: OpenVault, tmp_path: Path, tree_hash: Tree) -> None:
    before = tree_hash(tmp_path)
    result = vault.restore(to=tmp_path / "a" / "target", dry_run=True)
    assert (result.dry_run, result.records, result.rung) == (True, 31, "none")
    assert result.files > 3
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize("blow", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=lambda number: errno.errorcode[number])
def test_a_disk_that_says_no_leaves_nothing(blow: int, vault: OpenVault, tmp_path: Path, tree_hash: Tree) -> None:
    before = tree_hash(tmp_path)
    at, failed, fell = 0, 0, True
    while fell:
        at += 1
        with strike(tmp_path / "new", at, blow, kinds=frozenset({"mkdir", "open", "write", "rename"})) as struck:
            try:
                vault.restore(to=tmp_path / "new" / "target")
            except StorageError:
                failed += 1
                assert tree_hash(tmp_path) == before
            else:  # a folder that is there need not be made
                assert struck.fell in {None, "mkdir"}
                shutil.rmtree(tmp_path / "new")
        fell = struck.fell is not None
    assert failed > 15


def test_what_a_killed_restore_left_is_removed_by_the_next(vault: OpenVault, tmp_path: Path) -> None:
    left = tmp_path / ".target.memkeep-0123abcd"
    shutil.copytree(tmp_path / "agent", left)
    (tmp_path / ".other.memkeep-0123abcd").mkdir()
    vault.restore(to=tmp_path / "target")
    assert not left.exists()
    assert (tmp_path / ".other.memkeep-0123abcd").exists()


def test_a_file_of_little_more_than_nothing_takes_little_room(
    new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with (store / "sparse.bin").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(5_000_001)
        file.write(b"something")
        file.seek((64 << 20) - 1)
        file.write(b"\0")
    vault = new_vault()
    vault.backup(store)
    vault.restore("latest", to=tmp_path / "back")
    back = tmp_path / "back" / "sparse.bin"
    assert back.read_bytes() == (store / "sparse.bin").read_bytes()
    assert back.stat().st_blocks * 512 < 2 << 20

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep import clock
from memkeep.config import Rate, VaultSettings
from memkeep.errors import DamagedError, StorageError, StorageUnreachableError
from memkeep.model import Rung
from memkeep.ops import open as opening
from memkeep.ops.backup import backup
from memkeep.ops.discover import discover
from memkeep.ops.verify import verify
from memkeep.storage.cache import CachedStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing import agent
from memkeep.testing.faults import Call, Fault, FaultyStorage, Kind

Place = Callable[..., FaultyStorage]


@pytest.fixture
def far(home: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return `far(*faults)`: what every place names from then on, a storage of its own that is far away."""
    monkeypatch.setattr("memkeep.vault.crypto.ARGON", {"memory_kib": 1024, "iterations": 1, "lanes": 1})
    monkeypatch.setattr(clock, "pause", lambda _: None)
    beneath = MemoryStorage()
    beneath.capabilities = beneath.capabilities._replace(near=False)

    def place(*faults: tuple[Call, int, Kind]) -> FaultyStorage:
        faulty = FaultyStorage(beneath, *(Fault(call=call, number=n, kind=kind) for call, n, kind in faults))
        monkeypatch.setattr(opening, "storage_at", lambda _: faulty)
        return faulty

    return place


def test_a_vault_is_made_and_opened_although_answers_are_late_and_lost(far: Place) -> None:
    far(("stat", 1, "timeout"), ("list", 2, "lost"), ("put_new", 1, "lost"), ("put_new", 4, "timeout"))
    opening.init_vault("far://", "pw")
    for call in ("get", "list"):
        for number in (1, 2, 3):
            far((call, number, "timeout"))
            assert opening.open_vault("far://", "pw").snapshots() == []


def test_a_place_that_never_answers_is_told_with_the_next_command(far: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FaultyStorage(MemoryStorage(), Fault(call="get", number=1, kind="timeout", lasting=True))
    monkeypatch.setattr(opening, "storage_at", lambda _: storage)
    with pytest.raises(StorageUnreachableError, match=r"config.*tried 4 times") as error:
        opening.open_vault("far://", "pw")
    assert error.value.hint.startswith("memkeep ")


def test_an_append_only_vault_takes_snapshots_and_gives_nothing_up(far: Place) -> None:
    beneath = far()
    settings = VaultSettings(url="far://", append_only=True)
    opening.init_vault("far://", "pw", settings=settings)
    vault = opening.open_vault("far://", "pw", settings=settings)
    vault.storage.put_new("snapshots/new", [b"x"])
    with pytest.raises(StorageError) as error:
        vault.storage.delete("snapshots/new")
    assert error.value.code == "append_only"
    assert ("delete", "snapshots/new") not in beneath.calls


def test_limits_hold_also_for_what_is_sent_again(far: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(clock, "monotonic", lambda: 0.0)
    monkeypatch.setattr(clock, "pause", waited.append)
    far()
    opening.init_vault("far://", None, encrypt=False)
    far(("put_new", 1, "partial"), ("put_new", 2, "lost"))
    slow = VaultSettings(url="far://", upload_limit=Rate(1000), download_limit=Rate(1000))
    storage = opening.open_vault("far://", None, settings=slow).storage
    waited.clear()
    with pytest.raises(StorageError):
        storage.put_new("data/1", [bytes(4000)])
    assert max(waited) == pytest.approx(4, abs=0.2)
    storage.put_new("data/1", [bytes(4000)])
    assert max(waited) >= 12


def reads(storage: FaultyStorage) -> list[str]:
    """Return what was read whole or in part, but for `config`."""
    return [key for call, key in storage.calls if call in {"get", "get_range"} and key != "config"]


def test_a_far_vault_is_read_once_and_then_from_the_cache(
    far: Place, home: Path, copy_store: Callable[..., Path]
) -> None:
    far()
    opening.init_vault("far://", "pw")
    backup(opening.open_vault("far://", "pw"), discover([copy_store("oc-memory")]))
    for again in (False, True):
        asked = far()
        assert len(opening.open_vault("far://", "pw").snapshots()) == 1
        assert reads(asked) == []
        asked = far()
        off = VaultSettings(url="far://", cache=False)
        assert len(opening.open_vault("far://", "pw", settings=off).snapshots()) == 1
        assert len(reads(asked)) >= 3
        if not again:
            shutil.rmtree(home / ".cache")
            opening.open_vault("far://", "pw").snapshots()


def test_the_cache_lies_where_it_is_told_and_is_one_for_each_place(home: Path, tmp_path: Path) -> None:
    one, other = (opening.cache_folder(url, {}) for url in ("s3://a/b", "s3://a/c"))
    assert one != other
    assert one.parent == other.parent == home / ".cache" / "memkeep"
    assert opening.cache_folder("s3://a/b", {"MEMKEEP_CACHE_DIR": str(tmp_path)}).parent == tmp_path


@pytest.mark.parametrize("prefix", ["data/", "index/", "snapshots/", "seals/", "keys/"])
def test_what_is_damaged_in_a_far_vault_is_found_though_the_cache_has_it_whole(
    far: Place, copy_store: Callable[..., Path], prefix: str
) -> None:
    beneath = far().beneath
    assert isinstance(beneath, MemoryStorage)
    opening.init_vault("far://", "pw")
    vault = opening.open_vault("far://", "pw")
    backup(vault, discover([copy_store("oc-memory")]))
    key = next(key for key in beneath.objects if key.startswith(prefix))
    beneath.objects[key] = beneath.objects[key][:-1] + bytes([beneath.objects[key][-1] ^ 1])
    vault = opening.open_vault("far://", "pw")
    assert key in {finding.object for finding in verify(vault, rung=Rung.INTACT).all_findings}


def test_a_near_vault_is_not_cached(home: Path, copy_store: Callable[..., Path]) -> None:
    opening.init_vault(str(home / "vault"), None, encrypt=False)
    backup(opening.open_vault(str(home / "vault")), discover([copy_store("oc-memory")]))
    assert not (home / ".cache").exists()


def test_a_second_backup_to_a_far_vault_reads_no_pack_that_was_there(far: Place, home: Path) -> None:
    far()
    store = agent.build(home / "memory", lance=False)
    opening.init_vault("far://", "pw")
    backup(opening.open_vault("far://", "pw"), discover([store]))
    for cold in (False, True):
        if cold:
            shutil.rmtree(home / ".cache")
        with sqlite3.connect(store / "facts.db") as database:
            database.execute("UPDATE facts SET text = text || '!'")
        database.close()
        asked = far()
        (made,) = backup(opening.open_vault("far://", "pw"), discover([store])).snapshots
        assert made.rung is Rung.READABLE
        written = [key for call, key in asked.calls if call == "put_new"]
        assert all(key in written for key in reads(asked)) is not cold
        assert cold or len(asked.calls) <= 30


def test_a_backup_does_not_take_the_cache_for_the_storage_when_it_reads_back(far: Place, home: Path) -> None:
    store = agent.build(home / "memory", lance=False)
    far()
    opening.init_vault("far://", "pw")
    storage = far()
    lying = FaultyStorage(storage.beneath, Fault(call="put_new", number=1, kind="corrupt", prefix="data/"))
    vault = opening.open_vault("far://", "pw")
    assert isinstance(vault.storage, CachedStorage)
    vault.storage.beneath = lying
    with pytest.raises(DamagedError, match="is not what was written"):
        backup(vault, discover([store]))


def test_an_append_only_machine_backs_up_again_and_again(
    far: Place, home: Path, copy_store: Callable[..., Path]
) -> None:
    far()
    settings = VaultSettings(url="far://", append_only=True)
    opening.init_vault("far://", "pw", settings=settings)
    store = discover([copy_store("oc-memory")])
    for number in (1, 2):
        vault = opening.open_vault("far://", "pw", settings=settings)
        backup(vault, store)
        assert len(vault.snapshots()) == number
    with pytest.raises(StorageError) as error:
        vault.forget([vault.snapshots()[0].id])
    assert error.value.code == "append_only"
    assert len(opening.open_vault("far://", "pw").snapshots()) == 2


def test_a_backup_is_made_though_every_list_is_stale_and_answers_are_lost(far: Place, home: Path) -> None:
    far()
    store = agent.build(home / "memory", 2, lance=False)
    opening.init_vault("far://", "pw")
    backup(opening.open_vault("far://", "pw"), discover([store]))
    asked = far()
    (store / "new.md").write_text("a new note " * 50)
    backup(opening.open_vault("far://", "pw"), discover([store]))
    counts = Counter(call for call, _ in asked.calls)
    kinds: list[Kind] = ["timeout", "lost", "stale"]
    for kind in kinds:
        for call in counts if kind != "stale" else ("list",):
            far(*((call, number, kind) for number in range(1, 3 * counts[call], 2 if kind != "stale" else 1)))
            (store / "new.md").write_text(f"a note {kind} {call} " * 50)
            backup(opening.open_vault("far://", "pw"), discover([store]))
    far()
    vault = opening.open_vault("far://", "pw", cached=False)
    assert len(vault.snapshots()) == 2 + 2 * len(counts) + 1
    assert verify(vault, rung=Rung.INTACT, all=True, remember=False).all_findings == ()


def test_verify_fetches_each_pack_of_a_far_vault_once_and_not_from_what_was_kept(far: Place, home: Path) -> None:
    store = home / "store"
    agent.build(store)
    far()
    opening.init_vault("far://", "pw")
    backup(opening.open_vault("far://", "pw"), discover([store]))
    counted = far()
    report = verify(opening.open_vault("far://", "pw"), rung=Rung.EQUIVALENT, all=True)
    assert (report.all_findings, report.snapshots[0].rung) == ((), Rung.EQUIVALENT)
    whole = Counter(key for call, key in counted.calls if call == "get" and key.startswith("data/"))
    assert set(whole.values()) == {1}
    assert set(whole) == {stat.key for stat in counted.beneath.list("data/")}

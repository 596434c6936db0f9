from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep import clock
from memkeep.config import Rate, VaultSettings
from memkeep.errors import StorageError, StorageUnreachableError
from memkeep.ops import open as opening
from memkeep.storage.memory import MemoryStorage
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
    with pytest.raises(StorageUnreachableError, match=r"config.*tried 7 times") as error:
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

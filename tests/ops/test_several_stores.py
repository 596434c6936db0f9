"""A backup of several stores of which one can't be taken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.config import Config, StoreSettings
from memkeep.errors import DamagedError, StoreError
from memkeep.library import OpenVault
from memkeep.model import Store
from memkeep.ops import backup as module
from memkeep.ops.backup import FailedStore, backup
from memkeep.ops.discover import discover
from memkeep.ops.outcome import status_of_backup, worst


@pytest.fixture
def notes(home: Path) -> Config:
    """Return settings with three stores of notes."""
    for name in ("one", "two", "three"):
        (home / name).mkdir()
        (home / name / "note.md").write_text(f"# {name}\n")
    return Config(stores={name: StoreSettings(path=str(home / name)) for name in ("one", "two", "three")})


def _failing(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.refuse_interrupted

    def refuse(store: Store) -> None:
        if Path(store.path).name == name:
            raise error
        real(store)

    monkeypatch.setattr(module, "refuse_interrupted", refuse)


def test_the_others_are_done_and_the_result_tells_of_both(
    notes: Config, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    vault = new_vault()._vault
    _failing("one", StoreError("it broke", hint="mend it", code="store_missing"), monkeypatch)
    result = backup(vault, discover(None, notes))
    assert [Path(one.path).name for one in result.snapshots] == ["two", "three"]
    assert result.failed == (
        FailedStore(
            system="custom", path=str(home / "one"), code="store_missing", message="it broke", hint="mend it", exit=1
        ),
    )
    assert len(vault.snapshots()) == 2
    assert status_of_backup(result) == 3


def test_a_failure_that_is_worse_gives_the_status(
    notes: Config, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    _failing("two", DamagedError("bits"), monkeypatch)
    result = backup(new_vault()._vault, discover(None, notes))
    assert len(result.snapshots) == 2
    assert status_of_backup(result) == 20


def test_when_none_could_be_taken_that_is_raised(
    notes: Config, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    _failing("one", StoreError("it broke"), monkeypatch)
    with pytest.raises(StoreError, match="it broke"):
        backup(new_vault()._vault, discover(None, notes)[:1])


def test_a_store_of_the_settings_that_is_gone_or_empty_is_told_and_the_others_are_found(
    notes: Config, new_vault: Callable[..., OpenVault], home: Path
) -> None:
    (home / "one" / "note.md").unlink()
    (home / "one").rmdir()
    (home / "two" / "note.md").unlink()
    config = Config(stores={**notes.stores, "two": StoreSettings(path=str(home / "two"), system="oc-memory")})
    unfound: list[FailedStore] = []
    found = discover(None, config, unfound=unfound)
    assert [Path(one.path).name for one in found] == ["three"]
    assert {(Path(one.path).name, one.code) for one in unfound} == {("one", "store_missing"), ("two", "store_empty")}
    result = backup(new_vault()._vault, found, unfound=unfound)
    assert len(result.snapshots) == 1
    assert set(result.failed) == set(unfound)
    with pytest.raises(StoreError):
        discover(None, config)  # without a list to put it in


def test_when_all_stores_of_the_settings_are_gone_the_backup_fails(
    new_vault: Callable[..., OpenVault], home: Path
) -> None:
    config = Config(stores={"one": StoreSettings(path=str(home / "gone"))})
    unfound: list[FailedStore] = []
    with pytest.raises(StoreError, match="gone"):
        backup(new_vault()._vault, discover(None, config, unfound=unfound), unfound=unfound)


def test_the_worst_of_several_statuses_is_the_failure_with_the_highest_number() -> None:
    order = [0, 4, 3, 1, 2, 10, 11, 12, 13, 14, 20, 130]
    for place, status in enumerate(order):
        assert worst(order[: place + 1]) == worst([status, *order[:place]]) == status
    assert worst([]) == 0

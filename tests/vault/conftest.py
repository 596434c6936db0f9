"""Vaults that cost little to make."""

from collections.abc import Callable

import pytest

from memkeep.storage.memory import MemoryStorage
from memkeep.vault import crypto, opening
from memkeep.vault.vault import Vault

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Argon2id as cheap as it can be."""
    for name, value in {"memory_kib": 32, "iterations": 1, "lanes": 1}.items():
        monkeypatch.setitem(crypto.ARGON, name, value)


@pytest.fixture
def storage() -> MemoryStorage:
    """Return the storage that `vault` lies in."""
    return MemoryStorage()


@pytest.fixture
def vault(storage: MemoryStorage) -> Vault:
    """Return a new encrypted vault; its password is `correct horse`."""
    return opening.create(storage, PASSWORD)[0]


@pytest.fixture
def reopen(storage: MemoryStorage) -> Callable[[], Vault]:
    """Return `reopen()`: the vault as another process would find it now."""
    return lambda: opening.open_vault(storage, PASSWORD)

import pytest

from memkeep.storage.memory import MemoryStorage
from memkeep.testing.storage_contract import StorageContract


@pytest.mark.contract
class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()

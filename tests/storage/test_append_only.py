import pytest

from memkeep.errors import StorageError
from memkeep.storage.append_only import AppendOnlyStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.storage_contract import KEY, StorageContract


@pytest.mark.contract
class TestAppendOnlyStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> AppendOnlyStorage:
        return AppendOnlyStorage(MemoryStorage())

    def test_a_deleted_object_is_gone(self, storage: AppendOnlyStorage) -> None:
        storage.put_new(KEY, [b"x"])
        with pytest.raises(StorageError, match="append_only") as error:
            storage.delete(KEY)
        assert storage.get(KEY) == b"x"
        assert error.value.code == "append_only"
        assert error.value.unchanged == "Nothing was changed."
        assert error.value.hint == "memkeep prune --vault memory:   # on a machine whose settings let it delete"

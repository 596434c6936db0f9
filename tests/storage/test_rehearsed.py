"""A rehearsal sees all that is there and all that it wrote, and changes nothing."""

import pytest

from memkeep.errors import StorageError
from memkeep.storage.base import ObjectExistsError, ObjectMissingError
from memkeep.storage.memory import MemoryStorage
from memkeep.storage.rehearsed import KEPT, RehearsedStorage


@pytest.fixture
def beneath() -> MemoryStorage:
    storage = MemoryStorage()
    storage.put_new("a/old", [b"old"])
    return storage


def test_what_is_put_can_be_read_and_is_not_beneath(beneath: MemoryStorage) -> None:
    storage = RehearsedStorage(beneath)
    assert storage.put_new("a/new", [b"n", memoryview(b"ew!")]) == 4
    assert (storage.get("a/new"), storage.get_range("a/new", 1, 2), storage.stat("a/new").size) == (b"new!", b"ew", 4)
    assert (storage.get("a/old"), storage.get_range("a/old", 1, 2), storage.stat("a/old").size) == (b"old", b"ld", 3)
    assert sorted(storage.list("a/")) == [("a/new", 4), ("a/old", 3)]
    assert storage.put_bytes == 4
    assert list(beneath.objects) == ["a/old"]


def test_nothing_is_put_twice_and_nothing_beneath_is_removed(beneath: MemoryStorage) -> None:
    storage = RehearsedStorage(beneath)
    storage.put_new("a/new", [b"new"])
    for key in ("a/new", "a/old"):
        with pytest.raises(ObjectExistsError):
            storage.put_new(key, [b"other"])
    with pytest.raises(StorageError):
        storage.delete("a/old")
    storage.delete("a/new")
    assert [stat.key for stat in storage.list("a/")] == ["a/old"]
    assert (storage.put_bytes, beneath.objects) == (3, {"a/old": b"old"})
    with pytest.raises(ObjectMissingError):
        storage.get("a/none")


def test_only_small_objects_are_kept(beneath: MemoryStorage) -> None:
    storage = RehearsedStorage(beneath)
    storage.put_new("a/large", [bytes(KEPT), b"x"])
    assert storage.stat("a/large").size == KEPT + 1
    with pytest.raises(StorageError, match="not kept"):
        storage.get("a/large")

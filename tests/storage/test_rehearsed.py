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


def test_nothing_is_put_twice_and_what_is_deleted_is_only_hidden(beneath: MemoryStorage) -> None:
    storage = RehearsedStorage(beneath)
    storage.put_new("a/new", [b"new"])
    for key in ("a/new", "a/old"):
        with pytest.raises(ObjectExistsError):
            storage.put_new(key, [b"other"])
    storage.delete("a/new")
    assert [stat.key for stat in storage.list("a/")] == ["a/old"]
    storage.delete("a/old")
    assert list(storage.list("a/")) == []
    for key in ("a/none", "a/new", "a/old"):
        for ask in (storage.get, storage.stat, storage.delete):
            with pytest.raises(ObjectMissingError):
                ask(key)
    storage.put_new("a/old", [b"another"])
    assert (storage.get("a/old"), storage.stat("a/old").size) == (b"another", 7)
    assert (storage.put_bytes, beneath.objects) == (10, {"a/old": b"old"})


def test_only_small_objects_are_kept(beneath: MemoryStorage) -> None:
    storage = RehearsedStorage(beneath)
    storage.put_new("a/large", [bytes(KEPT), b"x"])
    assert storage.stat("a/large").size == KEPT + 1
    with pytest.raises(StorageError, match="not kept"):
        storage.get("a/large")
    storage.delete("a/large")
    assert [stat.key for stat in storage.list("a/")] == ["a/old"]


def test_all_is_kept_where_there_is_a_place_for_it(beneath: MemoryStorage) -> None:
    storage = RehearsedStorage(beneath, MemoryStorage())
    assert storage.put_new("a/large", [bytes(KEPT), b"x"]) == KEPT + 1
    assert storage.get_range("a/large", KEPT, 9) == b"x"
    storage.delete("a/large")
    with pytest.raises(ObjectMissingError):
        storage.get("a/large")

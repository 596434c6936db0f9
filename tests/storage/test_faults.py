import pytest

from memkeep.errors import StorageUnreachableError
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import Fault, FaultyStorage


def listed(storage: FaultyStorage, prefix: str = "") -> list[str]:
    return sorted(stat.key for stat in storage.list(prefix))


def test_a_call_that_times_out_does_nothing_and_one_whose_answer_is_lost_is_done() -> None:
    beneath = MemoryStorage()
    storage = FaultyStorage(
        beneath,
        Fault(call="put_new", number=1, kind="timeout"),
        Fault(call="put_new", number=2, kind="lost"),
        Fault(call="delete", number=1, kind="timeout"),
        Fault(call="delete", number=2, kind="lost"),
    )
    for there in (False, True):
        with pytest.raises(StorageUnreachableError):
            storage.put_new("key", [b"x"])
        assert ("key" in beneath.objects) == there
    for there in (True, False):
        with pytest.raises(StorageUnreachableError):
            storage.delete("key")
        assert ("key" in beneath.objects) == there


def test_a_list_whose_answer_is_lost_breaks_off_in_the_middle() -> None:
    storage = FaultyStorage(MemoryStorage(), Fault(call="list", number=1, kind="lost"))
    for key in "abcd":
        storage.put_new(key, [b"x"])
    seen = []
    with pytest.raises(StorageUnreachableError):
        seen.extend(stat.key for stat in storage.list(""))
    assert listed(storage) == ["a", "b", "c", "d"]


def test_a_stale_list_lacks_the_last_changes_under_its_prefix() -> None:
    storage = FaultyStorage(
        MemoryStorage(),
        Fault(call="list", number=1, kind="stale", behind=2),
        Fault(call="list", number=2, kind="stale", behind=3),
    )
    assert not storage.capabilities.fresh
    for key in ("a/1", "a/2", "b/1"):
        storage.put_new(key, [b"12"])
    storage.delete("a/1")
    storage.put_new("b/2", [b"x"])
    assert listed(storage, "a/") == ["a/1"]
    assert {stat.key: stat.size for stat in storage.list("")} == {"a/1": 2, "a/2": 2}
    assert listed(storage) == ["a/2", "b/1", "b/2"]


def test_what_is_read_corrupt_is_stored_as_it_was() -> None:
    beneath = MemoryStorage()
    beneath.put_new("key", [b"abc"])
    storage = FaultyStorage(
        beneath, Fault(call="get", number=1, kind="corrupt"), Fault(call="get_range", number=2, kind="corrupt")
    )
    assert [storage.get("key"), storage.get("key")] == [b"abb", b"abc"]
    assert [storage.get_range("key", 0, 2), storage.get_range("key", 0, 2)] == [b"ab", b"ac"]
    assert beneath.get("key") == b"abc"

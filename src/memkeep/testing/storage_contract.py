"""What every storage must do. A backend's test file is a subclass that says how to make an empty one.

class TestMyStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return MyStorage(tmp_path)
"""
# A contract is made of assertions.
# ruff: noqa: S101

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from memkeep.errors import StorageError
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Stat, Storage
from memkeep.storage.retry import RetryingStorage

KEY = "data/ab/abcd"
NOT_KEYS = [
    "",
    "/",
    "/data",
    "data/",
    "data//a",
    "../data",
    "data/../../a",
    "data/.",
    ".hidden",
    "data/.hidden",
    "data/a b",
    "data/ä",
    "data/a\n",
    "data/a\0b",
    "data\\a",
    "tmp",
    "tmp/a",
    "data/" + "a" * 300,
]


class StorageContract:
    """Subclass with a `storage` fixture that gives an empty storage."""

    @pytest.fixture
    def storage(self) -> Storage:
        """Return an empty storage."""
        raise NotImplementedError

    def test_an_object_comes_back_as_it_was_put(self, storage: Storage) -> None:
        """Buffers are joined, whatever kind they are."""
        whole = b"one two" + bytes(70000)
        assert storage.put_new(KEY, [b"one ", memoryview(b"xtwox")[1:4], b"", bytes(70000)]) == len(whole)
        assert storage.get(KEY) == whole
        assert storage.stat(KEY) == Stat(KEY, len(whole))

    def test_an_object_may_be_empty(self, storage: Storage) -> None:
        """With no buffers, or with empty ones."""
        assert storage.put_new("a", []) == 0
        assert storage.put_new("b", [b""]) == 0
        assert (storage.get("a"), storage.get_range("b", 0, 10)) == (b"", b"")

    def test_an_object_is_never_replaced(self, storage: Storage) -> None:
        """The second `put_new` of a key says so and changes nothing, even with the same bytes."""
        storage.put_new(KEY, [b"first"])
        for data in (b"second", b"first"):
            with pytest.raises(ObjectExistsError):
                storage.put_new(KEY, [data])
        assert storage.get(KEY) == b"first"

    def test_of_many_who_put_one_key_at_once_one_wins(self, storage: Storage) -> None:
        """And what is there is one whole object. Where puts are not exclusive, several may believe to have won."""
        barrier = threading.Barrier(8)
        retrying = RetryingStorage(storage, lambda: 0.0)  # some servers answer 500 to puts of one key at once

        def put(number: int) -> int | None:
            barrier.wait()
            try:
                retrying.put_new(KEY, [bytes([number]) * 4096] * 16)
            except ObjectExistsError:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(put, range(8)) if number is not None]
        assert len(winners) == 1 or (winners and not storage.capabilities.exclusive)
        assert storage.get(KEY) in [bytes([winner]) * 65536 for winner in winners]

    def test_many_keys_can_be_put_at_once(self, storage: Storage) -> None:
        """From several threads, none is lost."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: storage.put_new(f"data/{n % 7:02x}/{n}", [b"%d" % n]), range(100)))
        found = {stat.key for stat in storage.list("data/")}
        assert found == {f"data/{n % 7:02x}/{n}" for n in range(100)}
        assert storage.get("data/01/99") == b"99"

    def test_what_is_being_written_is_not_seen(self, storage: Storage) -> None:
        """Before `put_new` returns there is no object."""
        seen: list[object] = []

        def buffers() -> Iterator[bytes]:
            yield bytes(1 << 20)
            seen.extend(storage.list(""))
            with pytest.raises(ObjectMissingError):
                storage.get(KEY)
            yield b"end"

        storage.put_new(KEY, buffers())
        assert seen == []
        assert storage.stat(KEY).size == (1 << 20) + 3

    def test_what_was_begun_and_failed_leaves_nothing(self, storage: Storage) -> None:
        """And the key can be put afterwards."""

        class SourceError(Exception):
            pass

        def buffers() -> Iterator[bytes]:
            yield b"half"
            raise SourceError

        with pytest.raises(SourceError):
            storage.put_new(KEY, buffers())
        assert list(storage.list("")) == []
        storage.put_new(KEY, [b"whole"])
        assert storage.get(KEY) == b"whole"

    def test_a_range_is_exact_and_ends_with_the_object(self, storage: Storage) -> None:
        """Fewer bytes only where the object ends."""
        storage.put_new(KEY, [bytes(range(100))])
        assert storage.get_range(KEY, 10, 5) == bytes(range(10, 15))
        assert storage.get_range(KEY, 98, 5) == bytes([98, 99])
        assert storage.get_range(KEY, 100, 5) == b""
        assert storage.get_range(KEY, 500, 5) == b""
        assert storage.get_range(KEY, 7, 0) == b""

    def test_what_is_not_there_is_missing(self, storage: Storage) -> None:
        """Every operation says so with the same error; a folder of objects is no object."""
        storage.put_new("data/ab/other", [b"x"])
        for key in (KEY, "data/ab", "nothing"):
            for ask in (storage.get, storage.stat, storage.delete, lambda key: storage.get_range(key, 0, 1)):
                with pytest.raises(StorageError) as error:
                    ask(key)
                assert key in error.value.message
        with pytest.raises(ObjectMissingError):
            storage.stat(KEY)

    def test_objects_are_listed_by_prefix(self, storage: Storage) -> None:
        """A prefix is the beginning of a key, not a folder; nothing is listed twice."""
        sizes = {"config": 1, "data/aa/1": 2, "data/ab/2": 3, "data/ab/3": 4, "database": 5, "index/x": 6}
        assert list(storage.list("")) == []
        for key, size in sizes.items():
            storage.put_new(key, [bytes(size)])

        def listed(prefix: str) -> dict[str, int]:
            found = list(storage.list(prefix))
            assert len({stat.key for stat in found}) == len(found)
            return {stat.key: stat.size for stat in found}

        assert listed("") == sizes
        assert listed("data") == {key: sizes[key] for key in sizes if key.startswith("data")}
        assert listed("data/") == {key: sizes[key] for key in sizes if key.startswith("data/")}
        assert listed("data/ab/") == {"data/ab/2": 3, "data/ab/3": 4}
        assert listed("data/a") == listed("data/")
        assert listed("index/x") == {"index/x": 6}
        for nothing in ("nothing", "nothing/", "../", "tmp/", "data/ab/2/"):
            assert listed(nothing) == {}

    def test_a_deleted_object_is_gone(self, storage: Storage) -> None:
        """Its key can be put again; others stay."""
        storage.put_new(KEY, [b"x"])
        storage.put_new("data/ab/other", [b"y"])
        storage.delete(KEY)
        assert [stat.key for stat in storage.list("")] == ["data/ab/other"]
        with pytest.raises(ObjectMissingError):
            storage.delete(KEY)
        storage.put_new(KEY, [b"z"])
        assert storage.get(KEY) == b"z"

    @pytest.mark.parametrize("key", NOT_KEYS)
    def test_what_is_no_key_is_refused(self, storage: Storage, key: str) -> None:
        """By every operation, so that no key ever leaves the storage's own place."""
        for ask in (
            storage.get,
            storage.stat,
            storage.delete,
            lambda key: storage.get_range(key, 0, 1),
            lambda key: storage.put_new(key, [b"x"]),
        ):
            with pytest.raises(StorageError, match="is not a key"):
                ask(key)
        assert list(storage.list("")) == []

    def test_a_storage_has_a_name(self, storage: Storage) -> None:
        """For messages."""
        assert storage.url

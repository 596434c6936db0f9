import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memkeep.errors import StorageError
from memkeep.storage import cache
from memkeep.storage.base import ObjectExistsError, ObjectMissingError
from memkeep.storage.cache import CachedStorage
from memkeep.storage.local import LocalStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import FaultyStorage, flip
from memkeep.testing.storage_contract import StorageContract

MB = 1 << 20
SMALL = ("keys/", "index/", "snapshots/", "seals/00000001-")


@pytest.mark.contract
class TestCachedStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> CachedStorage:
        return CachedStorage(MemoryStorage(), tmp_path / "cache", 1 << 30)


@pytest.fixture
def beneath() -> FaultyStorage:
    return FaultyStorage(MemoryStorage())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"


@pytest.fixture
def opened(beneath: FaultyStorage, folder: Path) -> Callable[..., CachedStorage]:
    """Return `opened(limit=...)`: the storage through the cache, as a new process has it; calls begin anew."""

    def open_(limit: int = 1 << 30) -> CachedStorage:
        beneath.calls.clear()
        return CachedStorage(beneath, folder, limit)

    return open_


Opened = Callable[..., CachedStorage]


def named(prefix: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"data/{digest[:2]}/{digest}" if prefix == "data/" else prefix + digest


def packed(number: int, size: int = 8 * MB) -> tuple[str, bytes]:
    data = random.Random(number).randbytes(size)
    return named("data/", data), data


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("prefix", [*SMALL, "data/"])
def test_what_was_written_or_read_once_is_not_fetched_again(
    beneath: FaultyStorage, folder: Path, opened: Opened, prefix: str
) -> None:
    written, read = (named(prefix, data) for data in (b"written", b"read"))
    beneath.put_new(read, [b"read"])
    assert opened().put_new(written, iter([memoryview(b"writ"), b"ten"])) == 7
    assert opened().get(read) == b"read"
    assert beneath.calls == [("get", read)]
    storage = opened()
    assert (storage.get(written), storage.get(read)) == (b"written", b"read")
    assert beneath.calls == []
    assert files(folder) == sorted([written, read])
    assert (folder / read).stat().st_mode & 0o077 == 0


def test_config_and_whatever_does_not_name_its_bytes_is_asked_of_the_storage_each_time(
    beneath: FaultyStorage, folder: Path, opened: Opened
) -> None:
    for key in ("config", "leases/abcd", "data/ab/short", "keys/" + "a" * 63, "other/" + "a" * 64):
        storage = opened()
        storage.put_new(key, [b"one"])
        storage.delete(key)
        storage.put_new(key, [b"other"])
        assert storage.get(key) == b"other"
        assert len(beneath.calls) == 4
    assert files(folder) == []


def test_listings_and_sizes_always_come_from_the_storage(beneath: FaultyStorage, opened: Opened) -> None:
    key = named("snapshots/", b"x")
    opened().put_new(key, [b"x"])
    storage = opened()
    beneath.beneath.delete(key)
    assert list(storage.list("snapshots/")) == []
    with pytest.raises(ObjectMissingError):
        storage.stat(key)


@pytest.mark.parametrize("prefix", [*SMALL, "data/"])
@pytest.mark.parametrize("how", ["delete", "list", "stat"])
def test_what_has_gone_from_the_storage_goes_from_the_cache(
    beneath: FaultyStorage, folder: Path, opened: Opened, prefix: str, how: str
) -> None:
    gone, stays = (named(prefix, data) for data in (b"gone", b"stays"))
    storage = opened()
    storage.put_new(gone, [b"gone"])
    storage.put_new(stays, [b"stays"])
    if how == "delete":
        storage.delete(gone)
    else:
        beneath.beneath.delete(gone)
        if how == "list":
            assert len(list(storage.list(prefix.partition("/")[0] + "/"))) == 1
        else:
            with pytest.raises(ObjectMissingError):
                storage.stat(gone)
    assert files(folder) == [stays]
    with pytest.raises(ObjectMissingError):
        storage.get(gone)


def test_a_listing_that_may_be_stale_throws_no_pack_away(beneath: FaultyStorage, folder: Path, opened: Opened) -> None:
    beneath.capabilities = beneath.capabilities._replace(fresh=False)
    storage = opened()
    key, data = packed(1, 100)
    storage.put_new(key, [data])
    beneath.beneath.delete(key)
    assert list(storage.list("data/")) == []
    assert files(folder) == [key]


def test_little_of_a_pack_is_fetched_as_ranges(beneath: FaultyStorage, folder: Path, opened: Opened) -> None:
    key, data = packed(1)
    beneath.put_new(key, [data])
    storage = opened()
    for offset in range(0, 10_000, 1000):
        assert storage.get_range(key, offset, 70) == data[offset : offset + 70]
    assert beneath.calls == [("get_range", key)] * 10
    assert files(folder) == []


@pytest.mark.parametrize(("length", "ranges"), [(MB, 0), (900_000, 4), (100_000, 15), (10, 15)])
def test_a_pack_of_which_much_is_wanted_is_fetched_once(
    beneath: FaultyStorage, folder: Path, opened: Opened, length: int, ranges: int
) -> None:
    key, data = packed(1)
    beneath.put_new(key, [data])
    storage = opened()
    for number in range(40):
        offset = number * 150_000
        assert storage.get_range(key, offset, length) == data[offset : offset + length]
    assert [call for call, _ in beneath.calls] == ["get_range"] * ranges + ["get"]
    assert files(folder) == [key]
    assert opened().get_range(key, len(data) - 5, 10) == data[-5:]
    assert opened().get_range(key, len(data) + 5, 10) == b""
    assert beneath.calls == []


def test_threads_that_want_one_pack_fetch_it_once(beneath: FaultyStorage, opened: Opened) -> None:
    key, data = packed(1)
    beneath.put_new(key, [data])
    storage = opened()
    barrier = threading.Barrier(8)

    def ask(number: int) -> bool:
        barrier.wait()
        return storage.get_range(key, number * 1000, MB) == data[number * 1000 : number * 1000 + MB]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert beneath.calls == [("get", key)]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: flip(path, 700_000, 3),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "replaced": lambda path: path.write_bytes(packed(9)[1]),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("prefix", ["data/", "index/"])
def test_a_kept_file_that_is_damaged_is_fetched_again_and_never_returned(
    beneath: FaultyStorage, folder: Path, opened: Opened, prefix: str, damage: str
) -> None:
    data = packed(1, 2 * MB)[1]
    key = named(prefix, data)
    for ask in (lambda: opened().get(key), lambda: opened().get_range(key, 0, 2 * MB)):
        shutil.rmtree(folder, ignore_errors=True)
        if key in beneath.beneath.objects:  # type: ignore[attr-defined]
            beneath.beneath.delete(key)
        opened().put_new(key, [data])
        DAMAGE[damage](folder / key)
        assert ask() == data
        assert len(beneath.calls) == 1
        if prefix == "data/" or beneath.calls[0][0] == "get":
            assert (folder / key).read_bytes() == data


@pytest.mark.parametrize("damage", ["cut", "replaced"])
def test_a_kept_pack_that_changes_while_it_is_in_use_is_seen(
    beneath: FaultyStorage, folder: Path, opened: Opened, damage: str
) -> None:
    key, data = packed(1, 2 * MB)
    storage = opened()
    storage.put_new(key, [data])
    assert storage.get_range(key, 5, 5) == data[5:10]
    DAMAGE[damage](folder / key)
    assert storage.get_range(key, 6, MB) == data[6 : 6 + MB]
    assert beneath.calls[1:] == [("get", key)]


def test_damage_in_the_storage_is_passed_on_and_not_kept(beneath: FaultyStorage, folder: Path, opened: Opened) -> None:
    key, data = packed(1)
    beneath.put_new(key, [b"not " + data[4:]])
    storage = opened()
    assert storage.get(key)[:6] == b"not " + data[4:6]
    assert storage.get_range(key, 0, 2 * MB)[:6] == b"not " + data[4:6]
    assert storage.get_range(key, 0, 6) == b"not " + data[4:6]
    assert beneath.calls == [("get", key), ("get_range", key), ("get_range", key)]
    assert files(folder) == []
    assert opened().get_range(key, 0, 2 * MB)[:6] == b"not " + data[4:6]


def test_an_object_that_was_not_put_is_not_kept(beneath: FaultyStorage, folder: Path, opened: Opened) -> None:
    key, data = packed(1, 100)
    beneath.put_new(key, [b"other"])
    with pytest.raises(ObjectExistsError):
        opened().put_new(key, [data])
    assert files(folder) == []


def test_packs_that_were_not_used_for_longest_go_when_there_are_too_many(
    beneath: FaultyStorage, folder: Path, opened: Opened
) -> None:
    packs = [packed(number, MB) for number in range(5)]
    manifest = named("snapshots/", bytes(2 * MB))
    storage = opened(limit=3 * MB)
    storage.put_new(manifest, [bytes(2 * MB)])
    for number, (key, data) in enumerate(packs[:3]):
        storage.put_new(key, [data])
        os.utime(folder / key, (number, number))
    assert opened(limit=3 * MB).get_range(packs[0][0], 0, 9) == packs[0][1][:9]  # used now
    storage.put_new(packs[3][0], [packs[3][1]])
    assert files(folder) == sorted([manifest, *(packs[number][0] for number in (0, 2, 3))])
    big, data = packed(7, 4 * MB)
    storage.put_new(big, [data])
    assert storage.get(big) == data
    assert files(folder) == sorted([manifest, *(packs[number][0] for number in (0, 2, 3))])


def test_a_pack_that_had_to_go_is_not_fetched_whole_again_for_a_little(beneath: FaultyStorage, opened: Opened) -> None:
    (one, data), (other, more) = packed(1, 2 * MB), packed(2, 2 * MB)
    beneath.put_new(one, [data])
    storage = opened(limit=3 * MB)
    storage.get_range(one, 0, cache.ENOUGH)
    storage.put_new(other, [more])
    beneath.calls.clear()
    assert storage.get_range(one, 7, 7) == data[7:14]
    assert beneath.calls == [("get_range", one)]


def test_the_folder_may_be_deleted_at_any_moment(beneath: FaultyStorage, folder: Path, opened: Opened) -> None:
    packs = [packed(number, 2 * MB) for number in range(6)]
    storage = opened(limit=8 * MB)
    for key, data in packs:
        storage.put_new(key, [data])
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            shutil.rmtree(folder, ignore_errors=True)

    def ask(number: int) -> bool:
        key, data = packs[number % 6]
        at = random.Random(number).randrange(MB)
        small = named("index/", b"%d" % number)
        storage.put_new(small, [b"%d" % number])
        return (
            storage.get_range(key, at, MB) == data[at : at + MB]
            and storage.get(key) == data
            and storage.get(small) == b"%d" % number
            and len(list(storage.list("data/"))) == 6
        )

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(60)))
    finally:
        stop.set()
        deleter.join()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "link", "mkdir", "fsync"])
def test_where_nothing_can_be_written_nothing_is_kept(
    beneath: FaultyStorage, folder: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    key, data = packed(1, 2 * MB)
    storage = opened()
    storage.put_new(key, [data])
    assert (storage.get(key), storage.get_range(key, 1, MB)) == (data, data[1 : MB + 1])
    assert storage.get_range(key, 1, MB) == data[1 : MB + 1]
    assert [call for call, _ in beneath.calls] == ["put_new", "get", "get_range", "get_range"]
    storage.delete(key)
    monkeypatch.undo()
    assert [name for name in files(folder) if not name.startswith("tmp/")] == []


def test_a_disk_that_is_nearly_full_is_left_alone(
    beneath: FaultyStorage, folder: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().put_new(named("index/", b"x"), [b"x"])
    disk = os.statvfs(folder)
    monkeypatch.setattr(cache, "RESERVE", disk.f_blocks * disk.f_frsize)
    key, data = packed(1, 1000)
    opened().put_new(key, [data])
    assert files(folder) == [named("index/", b"x")]


def test_a_file_that_is_bad_and_cannot_be_removed_is_passed_by(
    beneath: FaultyStorage, folder: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, data = packed(1, 2 * MB)
    beneath.put_new(key, [data])
    (folder / key).parent.mkdir(parents=True)
    (folder / key).write_bytes(b"of another user")

    def refuse(self: LocalStorage, key: str) -> None:
        raise StorageError("may not")

    monkeypatch.setattr(LocalStorage, "delete", refuse)
    storage = opened()
    assert (storage.get(key), storage.get_range(key, 3, MB)) == (data, data[3 : MB + 3])
    assert (folder / key).read_bytes() == b"of another user"


def test_a_folder_that_is_a_file_is_passed_by(beneath: FaultyStorage, folder: Path, opened: Opened) -> None:
    folder.parent.mkdir()
    folder.write_bytes(b"a file")
    key, data = packed(1, 2 * MB)
    storage = opened()
    storage.put_new(key, [data])
    assert (storage.get(key), storage.get_range(key, 3, MB)) == (data, data[3 : MB + 3])
    assert next(iter(storage.list("data/"))).key == key
    assert folder.read_bytes() == b"a file"


def write_and_die(folder: Path, key: str, data: bytes) -> None:
    real = os.write

    def write(descriptor: int, buffer: bytes) -> int:
        real(descriptor, buffer[: len(buffer) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    os.write = write  # type: ignore[assignment]
    CachedStorage(MemoryStorage(), folder, 1 << 30).put_new(key, [data])


@pytest.mark.crash
def test_killed_in_the_middle_of_a_write_it_keeps_nothing_and_the_next_one_cleans_up(
    beneath: FaultyStorage, folder: Path, opened: Opened
) -> None:
    key, data = packed(1, 100_000)
    process = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(folder, key, data))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [name.split("/")[0] for name in files(folder)] == ["tmp"]
    beneath.put_new(key, [data])
    assert opened().get(key) == data
    assert files(folder) == [key]


def keep_many(root: Path, folder: Path, seed: int) -> None:
    storage = CachedStorage(LocalStorage(root), folder, 3 * MB)
    packs = [packed(number, MB) for number in range(6)]
    dice = random.Random(seed)
    for _ in range(100):
        key, data = packs[dice.randrange(6)]
        at = dice.randrange(MB)
        if storage.get_range(key, at, MB) != data[at:] or storage.get(key) != data:
            os._exit(9)


def test_two_processes_may_use_one_folder(tmp_path: Path, folder: Path) -> None:
    for key, data in (packed(number, MB) for number in range(6)):
        LocalStorage(tmp_path / "vault").put_new(key, [data])
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=keep_many, args=(tmp_path / "vault", folder, seed)) for seed in (1, 2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 4 * MB


def test_a_source_that_fails_keeps_nothing(folder: Path, opened: Opened) -> None:
    def buffers() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened().put_new(named("index/", b"halfwhole"), buffers())
    assert files(folder) == []

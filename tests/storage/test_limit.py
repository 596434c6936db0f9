from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from memkeep.storage import limit
from memkeep.storage.limit import LimitedStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import FaultyStorage
from memkeep.testing.storage_contract import StorageContract

if TYPE_CHECKING:
    from conftest import FakeClock

MB = 1_000_000
KEY = "data/ab/abcd"


@pytest.mark.contract
class TestLimitedStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> LimitedStorage:
        return LimitedStorage(MemoryStorage(), up=1 << 40, down=1 << 40)


@pytest.mark.contract
class TestStorageWithoutLimits(StorageContract):
    @pytest.fixture
    def storage(self) -> LimitedStorage:
        return LimitedStorage(MemoryStorage(), up=None, down=None)


def test_an_upload_takes_as_long_as_the_limit_says(time: "FakeClock") -> None:
    storage = LimitedStorage(MemoryStorage(), up=2 * MB, down=None)
    began = time.now
    storage.put_new(KEY, [bytes(10 * MB)])
    storage.get(KEY)
    assert time.now - began == pytest.approx(5, abs=limit.CREDIT)


def test_an_upload_is_even_within_an_object(time: "FakeClock") -> None:
    came: list[tuple[float, int]] = []

    class Watching(MemoryStorage):
        def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
            came.extend((time.now, len(piece)) for piece in data)
            return super().put_new(key, ())

    began = time.now
    LimitedStorage(Watching(), up=MB, down=None).put_new(KEY, [bytes(3 * MB), bytes(MB)])
    for at, _ in came:
        sent = sum(size for when, size in came if when <= at)
        assert sent <= (at - began + limit.CREDIT) * MB + 1
    assert max(time.waits) <= limit.PIECE / MB + 1e-6


def test_a_download_takes_as_long_and_comes_in_pieces(time: "FakeClock") -> None:
    beneath = FaultyStorage(MemoryStorage())
    data = bytes(range(256)) * 40_000
    beneath.put_new(KEY, [data])
    storage = LimitedStorage(beneath, up=None, down=2 * MB)
    began = time.now
    assert storage.get(KEY) == data
    assert time.now - began == pytest.approx(len(data) / (2 * MB), abs=limit.CREDIT)
    assert storage.get_range(KEY, 77, 5 * MB) == data[77 : 77 + 5 * MB]
    assert time.now - began == pytest.approx((len(data) + 5 * MB) / (2 * MB), abs=limit.CREDIT)
    assert [call for call, _ in beneath.calls] == ["put_new"] + ["get_range"] * (6 + 3)
    assert storage.get_range(KEY, len(data) - 2, 5 * MB) == data[-2:]


def test_a_small_object_is_one_request(time: "FakeClock") -> None:
    beneath = FaultyStorage(MemoryStorage())
    beneath.put_new(KEY, [b"small"])
    assert LimitedStorage(beneath, up=1000, down=1000).get(KEY) == b"small"
    assert beneath.calls[1:] == [("get_range", KEY)]


def test_all_threads_share_one_limit(time: "FakeClock") -> None:
    storage = LimitedStorage(MemoryStorage(), up=MB, down=None)
    began = time.now
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: storage.put_new(f"data/{number}", [bytes(MB)]), range(8)))
    assert time.now - began >= 8 - limit.CREDIT - 1e-6


def test_time_in_which_nothing_was_sent_is_not_saved_up(time: "FakeClock") -> None:
    storage = LimitedStorage(MemoryStorage(), up=MB, down=None)
    time.now += 3600
    began = time.now
    storage.put_new(KEY, [bytes(2 * MB)])
    assert time.now - began >= 2 - limit.CREDIT - 1e-6

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

from memkeep.errors import StorageError, StorageUnreachableError
from memkeep.storage import retry
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Stat
from memkeep.storage.memory import MemoryStorage
from memkeep.storage.retry import RetryingStorage
from memkeep.testing.faults import Call, Fault, FaultyStorage, Kind
from memkeep.testing.storage_contract import StorageContract

if TYPE_CHECKING:
    from conftest import FakeClock

KEY = "data/ab/abcd"


@pytest.mark.contract
class TestRetryingStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> RetryingStorage:
        return RetryingStorage(MemoryStorage(), lambda: 0.0)


def faulty(*faults: tuple[Call, int, Kind], lasting: bool = False) -> tuple[RetryingStorage, FaultyStorage]:
    beneath = FaultyStorage(
        MemoryStorage(), *(Fault(call=call, number=n, kind=kind, lasting=lasting) for call, n, kind in faults)
    )
    return RetryingStorage(beneath, lambda: 1.0), beneath


ASKS: dict[str, Callable[[RetryingStorage], object]] = {
    "get": lambda storage: storage.get(KEY),
    "get_range": lambda storage: storage.get_range(KEY, 1, 2),
    "stat": lambda storage: storage.stat(KEY),
    "list": lambda storage: list(storage.list("data/")),
    "delete": lambda storage: storage.delete(KEY),
}


@pytest.mark.parametrize("kind", ["timeout", "lost"])
@pytest.mark.parametrize("call", ASKS)
def test_what_was_not_answered_is_asked_again(time: "FakeClock", call: Call, kind: Kind) -> None:
    storage, beneath = faulty((call, 1, kind), (call, 2, kind))
    storage.put_new(KEY, [b"bytes"])
    expected = ASKS[call](RetryingStorage(copy_of(beneath), lambda: 1.0))
    assert ASKS[call](storage) == expected
    assert [one for one, _ in beneath.calls].count(call) == 3 - (call == "delete" and kind == "lost")
    assert time.waits[:1] == [0.5]
    assert (KEY in beneath.beneath.objects) == (call != "delete")  # type: ignore[attr-defined]


def copy_of(beneath: FaultyStorage) -> MemoryStorage:
    copy = MemoryStorage()
    copy.objects = dict(beneath.beneath.objects)  # type: ignore[attr-defined]
    return copy


@pytest.mark.parametrize("kind", ["timeout", "lost"])
@pytest.mark.parametrize("size", [0, 5, retry.COMPARED, 3 * retry.COMPARED + 1])
def test_an_object_whose_answer_was_lost_counts_as_put(time: "FakeClock", kind: Kind, size: int) -> None:
    storage, beneath = faulty(("put_new", 1, kind))
    data = bytes(size // 2) + b"\1" * (size - size // 2)
    assert storage.put_new(KEY, iter([memoryview(data)[:3], data[3:]])) == size
    assert beneath.beneath.get(KEY) == data


@pytest.mark.parametrize("theirs", [b"other", b"longer than ours", b""])
def test_an_object_that_another_put_meanwhile_is_left_and_told(time: "FakeClock", theirs: bytes) -> None:
    storage, beneath = faulty(("put_new", 1, "timeout"))
    beneath.beneath.put_new(KEY, [theirs])
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [b"ours!"])
    assert beneath.beneath.get(KEY) == theirs


def test_a_large_object_of_the_same_size_and_another_end_is_not_ones_own(time: "FakeClock") -> None:
    storage, beneath = faulty(("put_new", 1, "timeout"))
    size = 2 * retry.COMPARED
    beneath.beneath.put_new(KEY, [bytes(size)])
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [bytes(size - 1), b"\1"])


def test_an_object_that_was_there_at_the_first_try_is_told_even_if_it_is_the_same(time: "FakeClock") -> None:
    storage, _ = faulty()
    storage.put_new(KEY, [b"bytes"])
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [b"bytes"])
    assert time.waits == []


def test_an_object_that_was_missing_at_the_first_try_is_told(time: "FakeClock") -> None:
    storage, _ = faulty()
    for ask in (storage.get, storage.stat, storage.delete):
        with pytest.raises(ObjectMissingError):
            ask(KEY)
    assert time.waits == []


def test_what_was_refused_is_not_asked_again(time: "FakeClock") -> None:
    storage, beneath = faulty(("put_new", 1, "full"), ("get", 1, "denied"))
    for ask in (lambda: storage.put_new(KEY, [b"x"]), lambda: storage.get(KEY)):
        with pytest.raises(StorageError):
            ask()
    assert len(beneath.calls) == 2
    assert time.waits == []


def test_a_storage_that_never_answers_is_given_up_and_the_error_says_how_often_it_was_asked(time: "FakeClock") -> None:
    storage, beneath = faulty(("put_new", 1, "timeout"), lasting=True)
    list(storage.list(""))  # it has answered once
    beneath.calls.clear()
    with pytest.raises(StorageUnreachableError) as error:
        storage.put_new(KEY, [b"x"])
    assert len(beneath.calls) == retry.TRIES
    assert time.waits == [0.5, 1, 2, 4, 8, 16]
    assert f"could not reach {KEY}" in error.value.message
    assert error.value.message.endswith("(tried 7 times in 32 s)")
    assert "whether this last step was done is not known" in error.value.unchanged
    assert error.value.hint.startswith("memkeep ")
    assert error.value.code == "storage_unreachable"


def test_pauses_differ_by_chance_and_are_never_shorter_than_half(time: "FakeClock") -> None:
    numbers = iter([0.0, 0.25, 0.5, 1.0, 0.0, 0.0, 0.0])
    beneath = FaultyStorage(MemoryStorage(), Fault(call="get", number=1, kind="timeout", lasting=True))
    storage = RetryingStorage(beneath, lambda: next(numbers))
    list(storage.list(""))
    with pytest.raises(StorageUnreachableError):
        storage.get(KEY)
    assert time.waits == [0.25, 0.625, 1.5, 4, 4, 8]


def test_no_try_begins_when_two_minutes_have_passed_since_the_first_failure(time: "FakeClock") -> None:
    class Slow(MemoryStorage):
        def get(self, key: str) -> bytes:
            time.now += 50
            raise StorageUnreachableError(f"{key} timed out", hint="ping host")

    storage = RetryingStorage(Slow(), lambda: 1.0)
    list(storage.list(""))
    with pytest.raises(StorageUnreachableError, match=r"tried 4 times in 15\d s") as error:
        storage.get(KEY)
    assert error.value.hint == "ping host"
    assert error.value.unchanged == "Nothing was changed."


def test_a_list_that_breaks_off_starts_over_and_yields_nothing_twice(time: "FakeClock") -> None:
    beneath = MemoryStorage()
    for number in range(20):
        beneath.put_new(f"data/{number:02}", [bytes(number)])

    class Breaking(MemoryStorage):
        asked = 0

        def list(self, prefix: str) -> Iterator[Stat]:
            self.asked += 1
            for number, stat in enumerate(sorted(beneath.list(prefix), reverse=self.asked % 2 == 0)):
                if number == 7 and self.asked < 4:
                    raise StorageUnreachableError("broke off")
                yield stat

    found = list(RetryingStorage(Breaking(), lambda: 1.0).list("data/"))
    assert sorted(found) == sorted(beneath.list("data/"))
    assert time.waits == [0.5, 1, 2]


def test_buffers_that_can_be_had_only_once_are_sent_again_as_they_were(time: "FakeClock") -> None:
    storage, beneath = faulty(("put_new", 1, "timeout"))
    buffer = bytearray(4)

    def refilled() -> Iterable[memoryview]:
        for number in range(5):
            buffer[:] = bytes([number]) * 4
            yield memoryview(buffer)

    storage.put_new(KEY, refilled())
    assert beneath.beneath.get(KEY) == b"".join(bytes([number]) * 4 for number in range(5))


@pytest.mark.parametrize("call", [*ASKS, "put_new"])
def test_who_has_never_been_answered_is_told_soon_and_of_each_try(time: "FakeClock", call: Call) -> None:
    beneath = FaultyStorage(MemoryStorage(), Fault(call=call, number=1, kind="timeout", lasting=True))
    heard: list[str] = []
    storage = RetryingStorage(beneath, lambda: 1.0, heard.append)
    ask = ASKS.get(call, lambda storage: storage.put_new(KEY, [b"x"]))
    with pytest.raises(StorageUnreachableError, match="tried 4 times in 4 s"):
        ask(storage)
    assert time.waits == [0.5, 1, 2]
    assert [text.rpartition("; ")[2] for text in heard] == [f"trying again ({number} of 4)" for number in (2, 3, 4)]


def test_an_object_that_is_not_there_is_an_answer(time: "FakeClock") -> None:
    storage, _ = faulty(("get", 2, "timeout"), lasting=True)
    with pytest.raises(ObjectMissingError):
        storage.get(KEY)
    with pytest.raises(StorageUnreachableError, match="tried 7 times"):
        storage.get(KEY)

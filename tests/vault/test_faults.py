"""Every write of a backup fails in every way; then everything of before is whole, and the next backup works."""

import itertools
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from memkeep.errors import MemkeepError, StorageError
from memkeep.ops.survey import survey
from memkeep.storage.base import Storage
from memkeep.storage.local import LocalStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import Call, Fault, FaultyStorage, Kind
from memkeep.testing.snapshots import read, take
from memkeep.vault import opening, writer
from memkeep.vault.vault import Vault

NOISE = np.random.default_rng(1).bytes(400_000)
DAYS = [
    {"a.db": NOISE[:300_000], "b": b"text " * 9000},
    {"a.db": NOISE[:100_000] + b"\1" + NOISE[:250_000], "b": b"text " * 9000 + b"more", "c": b"new" * 99},
    {"a.db": NOISE[:20_000], "b": b"text " * 5},
]
KINDS: list[Kind] = ["refuse", "full", "io", "denied", "partial"]


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_SIZE", 100_000)


@pytest.fixture(params=["memory", "local"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    """Return `empty()`: an empty storage for the faults to lie over."""
    if request.param == "memory":
        return MemoryStorage
    numbers = itertools.count()
    return lambda: LocalStorage(tmp_path / f"vault {next(numbers)}")


def opened(storage: Storage) -> Vault:
    return opening.open_vault(storage, "pw")


def calls_of_a_backup(call: Call) -> int:
    """Count the calls of a kind that the second backup makes."""
    storage = MemoryStorage()
    take(opening.create(storage, "pw")[0], DAYS[0], created="0")
    vault = opened(storage)
    vault.storage = watched = FaultyStorage(storage)
    vault.reader._storage = watched
    take(vault, DAYS[1], created="1")
    return sum(one == call for one, _ in watched.calls)


def assert_whole(vault: Vault, days: Iterable[int]) -> None:
    """Check that exactly these days are listed, each with its bytes, and that nothing is damaged or lost."""
    assert [(one.created, read(vault, one)) for one in vault.snapshots()] == [(f"{day}", DAYS[day]) for day in days]
    assert [finding for finding in survey(vault) if finding.object] == []


def test_a_backup_makes_enough_writes_to_try() -> None:
    assert calls_of_a_backup("put_new") >= 5  # packs, segment, manifest, seal
    assert calls_of_a_backup("get_range") >= 3


@pytest.mark.crash
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_whichever_write_of_a_backup_fails_earlier_snapshots_stay_and_the_next_backup_works(
    empty: Callable[[], Storage],
    kind: Kind,
    lasting: bool,  # noqa: FBT001 - a parameter
) -> None:
    writes = calls_of_a_backup("put_new")
    for number in range(1, writes + 1):
        beneath = empty()
        take(opening.create(beneath, "pw")[0], DAYS[0], created="0")
        faulty = FaultyStorage(beneath, Fault(call="put_new", number=number, kind=kind, lasting=lasting))
        with pytest.raises(StorageError) as error:
            take(opened(faulty), DAYS[1], created="1")
        assert error.value.code == {"full": "disk_full", "partial": "disk_full"}.get(kind, "storage")
        # The last write is the seal: by then the snapshot is made, and the error says so.
        sealed = number < writes
        assert ("was made and is whole" in error.value.unchanged) != sealed
        assert_whole(opened(beneath), [0] if sealed else [0, 1])
        take(opened(beneath), DAYS[2], created="2")
        assert_whole(opened(beneath), [0, 2] if sealed else [0, 1, 2])


@pytest.mark.crash
@pytest.mark.parametrize("kind", KINDS)
def test_whichever_write_of_an_init_fails_there_is_no_vault_and_the_next_init_works(
    empty: Callable[[], Storage], kind: Kind
) -> None:
    beneath = empty()
    for number in range(1, 5):
        faulty = FaultyStorage(beneath, Fault(call="put_new", number=number, kind=kind))
        with pytest.raises(StorageError):
            opening.create(faulty, "pw")
        assert not opening.exists(beneath)
    vault, recovery = opening.create(beneath, "pw")
    take(vault, DAYS[0], created="0")
    for secret in ("pw", recovery):
        assert_whole(opening.open_vault(beneath, secret), [0])


@pytest.mark.parametrize("kind", ["io", "denied"])
def test_whichever_read_of_a_backup_fails_it_is_an_error_of_storage_or_does_without(kind: Kind) -> None:
    storage = MemoryStorage()
    take(opening.create(storage, "pw")[0], DAYS[0], created="0")
    before = dict(storage.objects)
    calls: list[Call] = ["get", "get_range", "list"]
    for call in calls:
        for number in range(1, 40):
            storage.objects = dict(before)
            faulty = FaultyStorage(storage, Fault(call=call, number=number, kind=kind))
            with suppress(StorageError):
                take(opened(faulty), DAYS[1], created="1")
            found = opened(storage)
            assert [read(found, one) for one in found.snapshots()] == DAYS[: len(found.snapshots())]
            if sum(one == call for one, _ in faulty.calls) < number:
                break
        else:
            pytest.fail("a backup reads without end")


def test_a_base_that_cannot_be_read_costs_space_and_not_the_backup() -> None:
    storage = MemoryStorage()
    take(opening.create(storage, "pw")[0], DAYS[0], created="0")
    vault = opened(storage)
    vault.image(vault.snapshots()[0].parts[0])
    before = vault.snapshots()[0]
    image = vault.image(before.parts[0])
    vault.reader._storage = FaultyStorage(storage, Fault(call="get_range", number=1, kind="io", lasting=True))
    with vault.writer() as one:
        recipes = [one.put_stream([DAYS[1][stored.entry.path]], stored.recipe) for stored in image.entries]
        one.flush()
    found = opened(storage)
    assert [found.reader.read(recipe) for recipe in recipes] == [DAYS[1]["a.db"], DAYS[1]["b"]]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_writer_that_failed_refuses_to_go_on(number: int) -> None:
    storage = MemoryStorage()
    vault, _ = opening.create(storage, "pw")
    vault.storage = FaultyStorage(storage, Fault(call="put_new", prefix="data/", number=number, kind="full"))
    snapshot = take(opened(MemoryStorageCopy(storage)), DAYS[0], created="x")
    with vault.writer() as one:

        def fill() -> None:
            for start in range(256):
                one.put_stream([bytes([start]) * 70_000])
                one.flush()

        with pytest.raises(StorageError, match="No space left"):
            fill()
        for again in (
            one.flush,
            lambda: one.commit(snapshot, *vault.next_seal()),
        ):
            with pytest.raises(StorageError, match="No space left"):
                again()
    assert opened(storage).snapshots() == []


class MemoryStorageCopy(MemoryStorage):
    """A storage that begins as another is."""

    def __init__(self, other: MemoryStorage) -> None:
        super().__init__()
        self.objects = dict(other.objects)


class CalculationError(Exception):
    pass


def test_an_error_while_encoding_surfaces_and_the_writer_never_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    vault, _ = opening.create(storage, "pw")
    snapshot = take(opened(MemoryStorageCopy(storage)), DAYS[0], created="x")

    def fail(*_: object) -> None:
        raise CalculationError

    with vault.writer() as one:
        with monkeypatch.context() as patch:
            patch.setattr(writer.Writer, "_encode", fail)
            one.put_stream([NOISE])
            with pytest.raises(CalculationError):
                one.flush()
        for again in (one.flush, lambda: one.put_stream([NOISE * 9]), lambda: one.commit(snapshot, *vault.next_seal())):
            with pytest.raises(CalculationError):
                again()
    assert opened(storage).snapshots() == []
    assert len(opened(storage).index) == 0


def test_a_machine_that_computes_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    vault, _ = opening.create(storage, "pw")
    monkeypatch.setattr("memkeep.vault.codec.Coder.decode", lambda *_: b"something else")
    with pytest.raises(MemkeepError, match="computes wrongly"):
        take(vault, DAYS[0], created="0", check=True)
    monkeypatch.undo()
    assert opened(storage).snapshots() == []


@pytest.mark.parametrize("stored", [1, 2, 9, 20, 39])
def test_what_a_broken_run_has_sent_is_not_sent_again(stored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_SIZE", 1 << 17)
    monkeypatch.setattr(writer, "BATCH_BYTES", 1 << 17)
    storage = MemoryStorage()
    opening.create(storage, "pw")
    files = {f"{number}": random.Random(number).randbytes(1 << 17) for number in range(40)}
    faulty = FaultyStorage(storage, Fault(call="put_new", prefix="data/", number=stored + 1, kind="io", lasting=True))
    with pytest.raises(StorageError):
        take(opened(faulty), files, created="0")
    again = FaultyStorage(storage)
    take(opened(again), files, created="1")
    sent = sum(call == "put_new" and key.startswith("data/") for call, key in again.calls)
    assert sent <= 42 - stored + stored // 8 + 1  # packs; the last two hold what the snapshot says of itself
    found = opened(storage)
    assert read(found, found.snapshots()[0]) == files

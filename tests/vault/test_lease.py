"""Who may be at work in a vault at once."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from memkeep import clock
from memkeep.errors import StorageError, VaultLeasedError
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import Fault, FaultyStorage
from memkeep.vault import format as layout
from memkeep.vault import lease as leasing
from memkeep.vault.crypto import Keys
from memkeep.vault.lease import LIFETIME, Held, leases, sweep_leases

KEYS = Keys(b"k" * 32, "0" * 32)
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[timedelta]]:
    passed = [timedelta(0)]
    monkeypatch.setattr(clock, "now", lambda: START + passed[0])
    monkeypatch.setattr(clock, "monotonic", lambda: timedelta.total_seconds(passed[0]))
    monkeypatch.setattr(clock, "pause", lambda _: None)
    return passed


def held(storage: MemoryStorage, what: str = "prune", *, exclusive: bool = True) -> Held:
    return Held(storage, KEYS, what, exclusive=exclusive)


def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "_machine", lambda: "another")


def test_a_second_exclusive_lease_is_refused_and_the_error_names_the_holder(
    storage: MemoryStorage, time: list[timedelta]
) -> None:
    with held(storage, "prune"):
        with pytest.raises(VaultLeasedError) as caught, held(storage, "forget"):
            pass
        assert caught.value.exit == 11
        for word in ("prune", str(os.getpid()), "2026-11-21T12:00:00", "2026-11-21T12:15:00"):
            assert word in caught.value.message
        assert len(storage.objects) == 1
    assert storage.objects == {}
    with held(storage, "forget"):
        pass


def test_backups_exclude_nobody_and_are_seen(storage: MemoryStorage) -> None:
    with held(storage, "backup", exclusive=False), held(storage, "backup", exclusive=False), held(storage) as prune:
        assert [one.what for one in prune.others()] == ["backup", "backup"]


def test_a_lease_that_was_lost_ends_by_itself(storage: MemoryStorage, time: list[timedelta]) -> None:
    lost = held(storage)
    lost.__enter__()
    time[0] = LIFETIME - timedelta(seconds=1)
    with pytest.raises(VaultLeasedError), held(storage):
        pass
    time[0] = LIFETIME
    with held(storage):
        sweep_leases(storage, KEYS)
        assert len(storage.objects) == 1


def test_a_lease_that_is_renewed_does_not_end(storage: MemoryStorage, time: list[timedelta]) -> None:
    with held(storage) as mine:
        for _ in range(10):
            time[0] += LIFETIME / 2
            mine.renew()
            assert len(storage.objects) == 1
            with pytest.raises(VaultLeasedError), held(storage):
                pass
        before = dict(storage.objects)
        mine.renew()
        assert storage.objects == before


def test_the_lease_of_a_process_that_died_on_this_machine_holds_nobody_up(storage: MemoryStorage) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lost = held(storage)
    lost.__enter__()
    [key] = storage.objects
    found = leases(storage, KEYS)[key]
    assert found is not None
    for pid, machine, refused in (
        (dead.pid, found.machine, False),
        (dead.pid, "another", True),
        (1, found.machine, True),
    ):
        data = KEYS.envelope(b"H", msgspec.json.encode(msgspec.structs.replace(found, pid=pid, machine=machine)))
        storage.objects = {layout.LEASES + layout.digest_of(data): data}
        if refused:
            with pytest.raises(VaultLeasedError), held(storage):
                pass
        else:
            with held(storage):
                pass


@pytest.mark.parametrize("expires", ["2099-01-01T00:00:00+00:00", "no time at all", "2026-11-21T12:05:00"])
def test_a_lease_that_makes_no_sense_holds_nobody_up(
    storage: MemoryStorage, time: list[timedelta], expires: str
) -> None:
    lost = held(storage)
    lost.__enter__()
    [key] = storage.objects
    found = leases(storage, KEYS)[key]
    assert found is not None
    data = KEYS.envelope(b"H", msgspec.json.encode(msgspec.structs.replace(found, expires=expires)))
    storage.objects = {layout.LEASES + layout.digest_of(data): data, layout.LEASES + "0" * 64: b"no lease"}
    with held(storage):
        sweep_leases(storage, KEYS)
        assert len(storage.objects) == 1


def test_of_many_at_once_never_two_hold_it(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "pause", lambda _: None)
    inside, most, won = 0, 0, 0
    lock, barrier = threading.Lock(), threading.Barrier(8)

    def work(_: int) -> None:
        nonlocal inside, most, won
        barrier.wait()
        for _ in range(5):
            try:
                with held(storage):
                    with lock:
                        inside += 1
                        most, won = max(most, inside), won + 1
                    with lock:
                        inside -= 1
            except VaultLeasedError:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most == 1 <= won
    assert storage.objects == {}


@pytest.mark.parametrize("call", ["put_new", "list", "get", "delete"])
def test_a_storage_that_fails_leaves_no_lease_that_does_not_end(storage: MemoryStorage, call: str) -> None:
    with held(storage, "backup", exclusive=False):
        for number in (1, 2):
            faulty = FaultyStorage(storage, Fault(call=call, number=number, kind="io"))  # type: ignore[arg-type]
            with suppress(StorageError, VaultLeasedError), Held(faulty, KEYS, "prune", exclusive=True):
                pass
    sweep_leases(storage, KEYS)
    assert storage.objects == {} or call == "delete"


def test_a_lease_says_nothing_to_those_without_the_key(storage: MemoryStorage) -> None:
    with held(storage, "prune"):
        assert not any(b"prune" in data or os.uname().nodename.encode() in data for data in storage.objects.values())


def test_a_killed_process_that_nobody_has_waited_for_holds_nobody_up(storage: MemoryStorage) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as zombie:
        assert os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT) is not None
        lost = held(storage)
        lost.__enter__()
        [key] = storage.objects
        found = leases(storage, KEYS)[key]
        assert found is not None
        data = KEYS.envelope(b"H", msgspec.json.encode(msgspec.structs.replace(found, pid=zombie.pid)))
        storage.objects = {layout.LEASES + layout.digest_of(data): data}
        with held(storage):
            pass


def test_a_lease_is_renewed_after_a_machine_slept_though_its_other_clock_stood_still(
    storage: MemoryStorage, time: list[timedelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 0.0)
    with held(storage) as mine:
        before = dict(storage.objects)
        time[0] = LIFETIME * 4
        mine.renew()
        assert len(storage.objects) == 1
        assert storage.objects != before
        with pytest.raises(VaultLeasedError), held(storage):
            pass


@pytest.mark.parametrize("ask", ["renew", "check"])
def test_who_slept_longer_than_its_lease_lasts_finds_out_that_another_has_taken_the_vault(
    ask: str, storage: MemoryStorage, time: list[timedelta]
) -> None:
    with held(storage) as mine, held(storage, "backup", exclusive=False) as backup:
        assert backup.kept()
        time[0] = LIFETIME
        with held(storage, "forget"):
            with pytest.raises(VaultLeasedError) as caught:
                getattr(mine, ask)()
            assert (caught.value.code, caught.value.exit) == ("lease_lost", 11)
            assert not backup.kept()
            backup.renew()
            assert not backup.kept()
    assert storage.objects == {}


def test_a_lease_that_ended_and_that_nobody_minded_is_kept(storage: MemoryStorage, time: list[timedelta]) -> None:
    with held(storage) as mine:
        time[0] = LIFETIME * 2
        mine.check()
        mine.renew()
        assert mine.kept()


@pytest.mark.parametrize("number", [1, 2])
def test_a_storage_that_fails_while_a_lease_is_taken_leaves_none(storage: MemoryStorage, number: int) -> None:
    failing = FaultyStorage(storage, Fault(call="get", number=number, kind="io"))
    with pytest.raises(StorageError), Held(failing, KEYS, "prune", exclusive=True):
        pass
    assert list(storage.list(layout.LEASES)) == []

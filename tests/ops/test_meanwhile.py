"""Whatever others do between any two calls of a verb, it gives the same answer, and calls nothing damaged that is not.

Each test does a verb once for every call that it makes to its storage, and before that call another process comes,
forgets and prunes, or commits a snapshot: all at once, so that nothing depends on time.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from memkeep import clock
from memkeep.errors import DamagedError, VaultLeasedError
from memkeep.model import Entry, Part, PartImage, PartSummary, Role, Rung, Snapshot, StoredEntry
from memkeep.ops.copy import copy
from memkeep.ops.prove import chunks_of, commit, pruned
from memkeep.ops.prune import prune
from memkeep.ops.repair import repair
from memkeep.ops.survey import survey
from memkeep.ops.verify import verify
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import FaultyStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import lease as leasing
from memkeep.vault import opening, writer
from memkeep.vault import prune as pruning
from memkeep.vault.vault import Vault

PART = Part(name="files", engine="files", role=Role.CANONICAL, path="/nowhere")
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
Deed = Callable[[MemoryStorage], object]
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_SIZE", 1 << 15)
    monkeypatch.setattr(pruning, "MANY", 2)
    monkeypatch.setattr(clock, "pause", lambda _: None)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[timedelta]]:
    """Return the time that has gone by, in a list."""
    time = [timedelta(0)]
    monkeypatch.setattr(clock, "now", lambda: START + time[0])
    return time


class Visited(FaultyStorage):
    """A storage that lets another process do a deed before the n-th call, of those that begin after `arm`."""

    def __init__(self, beneath: MemoryStorage) -> None:
        super().__init__(beneath)
        self.number = 0
        self.deed: Deed | None = None

    def arm(self, number: int, deed: Deed) -> None:
        self.calls.clear()
        self.number, self.deed = number, deed

    def _note(self, call: Any, key: str) -> None:
        with self._lock:
            self.calls.append((call, key))
            deed, mine = self.deed, len(self.calls) == self.number
        if mine and deed is not None and isinstance(self.beneath, MemoryStorage):
            deed(self.beneath)


def opened(storage: MemoryStorage | FaultyStorage) -> Vault:
    return opening.open_vault(storage, None)


def days() -> list[dict[str, bytes]]:
    """Return what a store was on some days: part of it stays, so that packs are half needed when some go."""
    chance = random.Random(1)
    stays = {f"files/stays-{n}": chance.randbytes(9000) for n in range(3)}
    return [{**stays, "files/goes": chance.randbytes(20_000), "files/log": b"a line\n" * 500 * day} for day in range(3)]


def filled() -> MemoryStorage:
    storage = MemoryStorage()
    opening.create(storage, None)
    for number, files in enumerate(days()):
        take(opened(storage), files, created=f"{number:04}")
    return storage


def forget_and_prune(storage: MemoryStorage) -> None:
    """Forget the two oldest snapshots and give their space back at once."""
    vault = opened(storage)
    vault.forget([one.id for one in vault.snapshots()[:1]])
    prune(opened(storage))


def one_more(storage: MemoryStorage) -> None:
    take(opened(storage), {"files/new": random.Random(2).randbytes(30_000)}, created="0009")


def every_call(deed: Deed, verb: Callable[[Vault], Any], step: int = 1) -> Iterator[tuple[MemoryStorage, Any]]:
    """Yield what a verb gives when a deed is done before its first call, or one of those after it, up to its last."""
    number, calls = 1 - step, 1
    start = filled()
    while number <= calls:
        number += step
        beneath = MemoryStorage()
        beneath.objects = dict(start.objects)
        storage = Visited(beneath)
        storage.arm(number, deed)
        yield beneath, verb(opened(storage))
        calls = len(storage.calls)
    assert number > 10


@pytest.mark.parametrize("deed", [forget_and_prune, one_more])
def test_nothing_is_called_damaged_because_others_are_at_work(deed: Deed) -> None:
    for _, report in every_call(deed, lambda vault: verify(vault, all=True, rung=Rung.INTACT, remember=False)):
        assert [one for one in report.all_findings if one.object] == []
        assert {one.rung for one in report.snapshots} == {Rung.INTACT}


@pytest.mark.parametrize("deed", [forget_and_prune, one_more])
def test_a_snapshot_comes_back_whatever_is_pruned_meanwhile(deed: Deed) -> None:
    def latest(vault: Vault) -> dict[str, bytes]:
        return read(vault, vault.resolve("latest"))

    for _, got in every_call(deed, latest):
        assert got in (days()[-1], {"files/new": random.Random(2).randbytes(30_000)})


@pytest.mark.parametrize("deed", [forget_and_prune, one_more])
def test_a_repair_beside_others_finds_nothing_to_mend(deed: Deed) -> None:
    def quietly(storage: MemoryStorage) -> None:
        with suppress(VaultLeasedError):  # the repair holds it
            deed(storage)

    for _, done in every_call(quietly, repair, step=3):
        assert (done.hurt, done.damaged_packs, [one for one in done.findings if one.object]) == ((), (), [])


@pytest.mark.parametrize("deed", [forget_and_prune, one_more])
def test_a_prune_beside_others_takes_nothing_that_is_needed(deed: Deed) -> None:
    def quietly(storage: MemoryStorage) -> None:
        with suppress(VaultLeasedError):
            deed(storage)

    for storage, _ in every_call(quietly, prune, step=3):
        everything_is_whole(storage)


@pytest.mark.parametrize("deed", [forget_and_prune, one_more])
def test_a_copy_beside_others_copies_what_stays_and_calls_nothing_damaged(deed: Deed) -> None:
    def mirrored(vault: Vault) -> tuple[Any, Vault]:
        target = opening.create(MemoryStorage(), None)[0]
        return copy(vault, target), opened(target.storage)

    for storage, (done, target) in every_call(deed, mirrored, step=3):
        assert (done.failed, done.findings) == ((), ())
        there = {one.created for one in target.snapshots()}
        assert {one.created for one in opened(storage).snapshots()} - {"0009"} <= there
        everything_is_whole(target.storage)


def everything_is_whole(storage: Any) -> None:
    vault = opened(storage)
    contents = {f"{number:04}": files for number, files in enumerate(days())}
    for one in vault.snapshots():
        want = contents.get(one.created)
        assert want is None or read(vault, one) == want
        read(vault, one)
    assert [one for one in survey(vault) if one.object] == []


# -- a process that sleeps longer than its lease lasts --------------------------------------------------------------


def as_another(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    """Do a deed as a process of another machine, which can't see whether ours still runs."""
    with monkeypatch.context() as other:
        other.setattr(leasing, "_machine", lambda: "another")
        deed()


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch, passed: list[timedelta]) -> Callable[[Callable[[], object]], None]:
    """Return `asleep(deed)`: what another machine does while this one sleeps for an hour."""

    def sleep(deed: Callable[[], object]) -> None:
        passed[0] += timedelta(hours=1)
        as_another(monkeypatch, deed)

    return sleep


def committed(vault: Vault, files: dict[str, bytes], asleep: Callable[[], object], at: str) -> Snapshot:
    """Commit a snapshot as a backup does, by a process that falls asleep at some point of it."""
    with vault.writer() as held:
        recipe = held.put_stream([files["files/goes"]])
        entry = StoredEntry(entry=Entry(path="files/goes", size=recipe.size), recipe=recipe)
        image = PartImage(part=PART, how="held still", entries=(entry,))
        data = msgspec.msgpack.encode(image)
        summary = PartSummary(
            name="files", engine="files", role=Role.CANONICAL, how="", files=1, bytes=1, image=held.put_stream([data])
        )
        held.flush()
        snapshot = Snapshot(created="0008", system="test", path="/nowhere", host="here", parts=(summary,))
        if at == "before it looks":
            asleep()
        if at == "before the manifest":
            put = held.commit
            held.commit = lambda *words: (asleep(), put(*words))[1]  # type: ignore[method-assign]
        return commit(vault, held, snapshot, chunks_of((summary,), [image]))


@pytest.mark.parametrize("at", ["before it looks", "before the manifest"])
def test_a_snapshot_whose_writer_slept_through_a_prune_is_not_listed(
    at: str, asleep: Callable[[Callable[[], object]], None]
) -> None:
    storage = filled()
    vault = opened(storage)
    with pytest.raises(DamagedError) as caught:
        committed(vault, days()[0] | {"files/goes": b"new" * 9999}, lambda: asleep(lambda: prune(opened(storage))), at)
    assert pruned(vault, caught.value)
    assert [one.created for one in opened(storage).snapshots()] == ["0000", "0001", "0002"]
    everything_is_whole(storage)


def test_a_writer_that_slept_while_nobody_pruned_commits(asleep: Callable[[Callable[[], object]], None]) -> None:
    storage = filled()
    made = committed(opened(storage), days()[0], lambda: asleep(lambda: None), "before the manifest")
    assert made.id in {one.id for one in opened(storage).snapshots()}
    everything_is_whole(storage)


@pytest.mark.parametrize("number", range(1, 60, 3))
def test_a_prune_that_slept_through_another_takes_nothing_that_is_needed(
    number: int, asleep: Callable[[Callable[[], object]], None]
) -> None:
    beneath = filled()
    opened(beneath).forget([one.id for one in opened(beneath).snapshots()[:1]])
    storage = Visited(beneath)
    storage.arm(number, lambda _: asleep(lambda: prune(opened(beneath))))
    with suppress(VaultLeasedError):
        prune(opened(storage))
    everything_is_whole(beneath)
    assert len(opened(beneath).snapshots()) == 2
    prune(opened(beneath))
    everything_is_whole(beneath)
    assert [key for key in beneath.objects if key.startswith(("leases/", "marks/"))] == []


def test_a_clock_that_is_far_off_does_not_make_a_writer_lose_its_packs(
    monkeypatch: pytest.MonkeyPatch, passed: list[timedelta]
) -> None:
    """Its lease has ended as soon as it is written, by the clock of who prunes."""
    storage = filled()
    vault = opened(storage)

    def pruned_elsewhere() -> None:
        passed[0] += timedelta(hours=3)
        as_another(monkeypatch, lambda: prune(opened(storage)))
        passed[0] -= timedelta(hours=3)

    with pytest.raises(DamagedError):
        committed(vault, days()[0] | {"files/goes": b"new" * 9999}, pruned_elsewhere, "before the manifest")
    everything_is_whole(storage)

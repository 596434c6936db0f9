"""Space is given back, and nothing that a snapshot needs ever goes: whatever runs beside it, wherever it is killed."""

import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from memkeep import clock
from memkeep.errors import DamagedError, MemkeepError, StorageError, VaultLeasedError
from memkeep.events import SILENT
from memkeep.ops.prove import Packs
from memkeep.ops.prune import GRACE, prune
from memkeep.ops.survey import survey
from memkeep.storage.append_only import AppendOnlyStorage
from memkeep.storage.base import Capabilities
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import Call, Fault, FaultyStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import crypto, opening, writer
from memkeep.vault import format as layout
from memkeep.vault import prune as pruning
from memkeep.vault.vault import Vault

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("home")


class Far(MemoryStorage):
    """A storage whose lists may be stale: a running backup can't be seen for sure."""

    capabilities = Capabilities(fresh=False, near=True)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "ARGON", {"memory_kib": 32, "iterations": 1, "lanes": 1})
    monkeypatch.setattr(writer, "PACK_SIZE", 1 << 17)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[timedelta]]:
    passed = [timedelta(0)]
    monkeypatch.setattr(clock, "now", lambda: START + passed[0])
    return passed


def days(count: int = 6, seed: int = 1) -> list[dict[str, bytes]]:
    """Return what a store was on some days: a file that changes in places, one that is new, one that grows."""
    chance = random.Random(seed)
    big = bytearray(chance.randbytes(300_000))
    found = []
    for day in range(count):
        for _ in range(20):
            big[chance.randrange(len(big))] ^= 1
        found.append({"big": bytes(big), "new": chance.randbytes(90_000), "log": b"a line\n" * 999 * day})
    return found


def opened(storage: MemoryStorage | FaultyStorage) -> Vault:
    return opening.open_vault(storage, "pw")


def filled(storage: MemoryStorage, contents: list[dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Make a vault with a snapshot of each day; return what each snapshot must give."""
    opening.create(storage, "pw")
    return {take(opened(storage), files, created=f"{n:04}").id: files for n, files in enumerate(contents)}


def whole(storage: MemoryStorage, expected: dict[str, dict[str, bytes]]) -> None:
    """Fail unless all expected snapshots, and no others, are there, and everything is as it must be."""
    vault = opened(storage)
    assert {one.id: read(vault, one) for one in vault.snapshots()} == expected
    assert survey(vault) == []
    assert Packs(vault).intact([key for key in storage.objects if key.startswith(layout.DATA)], SILENT) == []


def size(storage: MemoryStorage) -> int:
    return sum(map(len, storage.objects.values()))


def expire(storage: MemoryStorage) -> None:
    """Let what a dead process held be over."""
    for key in [key for key in storage.objects if key.startswith(layout.LEASES)]:
        del storage.objects[key]


def test_what_forgotten_snapshots_alone_needed_is_removed_and_the_others_are_as_they_were() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days())
    before = size(storage)
    gone = list(expected)[:4]
    opened(storage).forget(gone)
    kept = {name: files for name, files in expected.items() if name not in gone}
    rehearsed = prune(opened(storage), dry_run=True)
    result = prune(opened(storage))
    assert (rehearsed.removed_bytes, rehearsed.removed_objects, rehearsed.copied_bytes) == (
        result.removed_bytes,
        result.removed_objects,
        result.copied_bytes,
    )
    assert result.removed_bytes > 4 * 90_000  # the file that was new every day
    assert size(storage) == result.kept_bytes < before - 4 * 85_000
    assert (result.marked_bytes, result.marked_until, result.held) == (0, None, ())
    whole(storage, kept)
    again = prune(opened(storage))
    assert (again.removed_objects, again.copied_bytes) == (0, 0)


def test_a_dry_run_writes_nothing() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(3))
    opened(storage).forget(list(expected)[:2])
    before = dict(storage.objects)
    for grace in (None, timedelta(0), GRACE):
        prune(opened(storage), dry_run=True, grace=grace)
    assert storage.objects == before


def test_where_nothing_may_be_removed_it_refuses_before_it_writes_a_lease() -> None:
    storage = MemoryStorage()
    filled(storage, days(2))
    vault = opened(storage)
    vault.storage = AppendOnlyStorage(storage)
    before = [stat.key for stat in storage.list("")]
    with pytest.raises(StorageError) as error:
        prune(vault)
    assert error.value.code == "append_only"
    assert [stat.key for stat in storage.list("")] == before
    assert prune(vault, dry_run=True).dry_run


def test_a_chunk_that_a_delta_needs_stays() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(5))
    last = list(expected)[-1]
    opened(storage).forget([name for name in expected if name != last])
    places = opened(storage).reader.closure({chunk for chunk, _ in opened(storage).index.entries(AllPacks())})
    assert max(place.depth for place in places.values()) >= 3
    prune(opened(storage))
    whole(storage, {last: expected[last]})


class AllPacks:
    def __contains__(self, _: object) -> bool:
        return True


def lacking_a_base(vault: Vault) -> list[bytes]:
    index = vault.index
    return [one for one, place in index.entries(AllPacks()) if place.base and index.find(place.base) is None]


def test_a_delta_that_lost_its_base_is_stored_again_and_not_found_any_more() -> None:
    storage = MemoryStorage()
    chance = random.Random(5)
    base, other = chance.randbytes(120_000), chance.randbytes(50_000)
    delta = base[:60_000] + b"x" + base[60_001:]
    opening.create(storage, "pw")
    gone = [
        take(opened(storage), {"a": base}, created="1").id,
        take(opened(storage), {"a": delta, "b": other}, created="2").id,
    ]
    kept = take(opened(storage), {"b": other}, created="3")
    opened(storage).forget(gone)
    running = opened(storage)
    assert prune(opened(storage)).removed_bytes > 100_000
    assert {place.pack for _, place in opened(storage).index.entries(AllPacks())} & {*running.index.packs}
    assert lacking_a_base(opened(storage)) == []
    files = {"a": delta, "b": other}
    for number, vault in enumerate([opened(storage), running]):
        made = take(vault, files, created=f"4{number}")
        whole(storage, {kept.id: {"b": other}, made.id: files})
        opened(storage).forget([made.id])
        prune(opened(storage))


def test_what_needs_a_damaged_base_is_stored_again() -> None:
    storage = MemoryStorage()
    chance = random.Random(5)
    base = chance.randbytes(120_000)
    delta = base[:60_000] + b"x" + base[60_001:]
    opening.create(storage, "pw")
    take(opened(storage), {"a": base}, created="1")
    [pack] = opened(storage).index.packs
    take(opened(storage), {"a": delta}, created="2")
    storage.objects[pack] = storage.objects[pack][:1000]
    vault = opened(storage)
    vault.index.distrust(pack)
    made = take(vault, {"b": delta}, created="3")
    assert read(opened(storage), made) == {"b": delta}


def test_everything_goes_when_no_snapshot_is_left() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(3))
    opened(storage).forget(list(expected))
    prune(opened(storage))
    assert not [key for key in storage.objects if key.startswith((layout.DATA, layout.INDEX, layout.MARKS))]
    files = days(1, seed=7)[0]
    whole(storage, {take(opened(storage), files, created="1").id: files})


def test_what_a_killed_backup_left_is_removed() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(2))
    before = size(storage)
    faulty = FaultyStorage(storage, Fault(call="put_new", number=1, kind="refuse", prefix=layout.SNAPSHOTS))
    with suppress(StorageError):
        take(opened(faulty), days(1, seed=9)[0], created="9999")
    assert size(storage) > before + 300_000
    result = prune(opened(storage))
    assert result.removed_bytes > 300_000
    whole(storage, expected)


def test_where_lists_may_be_stale_nothing_goes_before_the_grace_period_is_over(now: list[timedelta]) -> None:
    storage = Far()
    expected = filled(storage, days())
    gone = list(expected)[:4]
    opened(storage).forget(gone)
    kept = {name: files for name, files in expected.items() if name not in gone}
    before = set(storage.objects)
    first = prune(opened(storage))
    assert first.removed_objects == 0
    assert first.marked_bytes > 4 * 85_000
    assert first.marked_until == (START + GRACE).isoformat()
    assert before <= set(storage.objects)
    now[0] = GRACE - timedelta(seconds=1)
    copies = set(storage.objects)
    second = prune(opened(storage))
    assert (second.removed_objects, second.copied_bytes, second.marked_bytes) == (0, 0, first.marked_bytes)
    assert set(storage.objects) == copies
    whole(storage, kept)
    now[0] = GRACE
    third = prune(opened(storage))
    assert third.removed_bytes == first.marked_bytes
    whole(storage, kept)


def test_a_backup_that_sees_the_mark_stores_again_what_it_needs(now: list[timedelta]) -> None:
    storage = Far()
    contents = days(3)
    expected = filled(storage, contents)
    opened(storage).forget(list(expected)[:2])
    prune(opened(storage))
    expected = {list(expected)[2]: contents[2], take(opened(storage), contents[0], created="1").id: contents[0]}
    now[0] = GRACE
    assert prune(opened(storage)).removed_objects
    whole(storage, expected)


def test_a_backup_that_did_not_see_the_mark_keeps_what_it_leans_on(
    now: list[timedelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Far()
    contents = days(3)
    expected = filled(storage, contents)
    running = opened(storage)  # has read the index before the mark is there
    opened(storage).forget(list(expected)[:2])
    prune(opened(storage))
    monkeypatch.setattr(running, "refresh", set)  # lists do not show it the mark
    late = take(running, contents[0], created="1")
    expected = {list(expected)[2]: contents[2], late.id: contents[0]}
    now[0] = GRACE
    prune(opened(storage))
    whole(storage, expected)
    now[0] = 2 * GRACE
    prune(opened(storage))
    whole(storage, expected)


def test_a_backup_that_runs_while_a_prune_comes_by_loses_nothing() -> None:
    storage = MemoryStorage()
    contents = days(4)
    expected = filled(storage, contents)
    vault = opened(storage)
    with vault.writer() as running:
        recipe = running.put_stream([contents[0]["big"]])
        opened(storage).forget(list(expected)[:3])
        result = prune(opened(storage))
        assert result.removed_objects == 0
        assert result.marked_bytes > 0
        running.flush()
        assert b"".join(vault.reader.stream(recipe)) == contents[0]["big"]
    assert prune(opened(storage)).removed_objects > 0
    whole(storage, {list(expected)[3]: contents[3]})


def test_who_commits_between_the_first_look_and_the_sweep_keeps_what_it_leans_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = MemoryStorage()
    contents = days(3)
    expected = filled(storage, contents)
    opened(storage).forget(list(expected)[:2])
    running = opened(storage)
    real = pruning.condemn
    late = {}

    def condemn(*args: object, **more: object) -> None:
        late[take(running, contents[0], created="1").id] = contents[0]  # begins and ends before the mark is there
        real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pruning, "condemn", condemn)
    prune(opened(storage))
    whole(storage, {list(expected)[2]: contents[2], **late})


def test_two_prunes_at_once_are_refused() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(2))
    with opened(storage).lease("prune", exclusive=True):
        for act in (lambda: prune(opened(storage)), lambda: opened(storage).forget(list(expected)[:1])):
            with pytest.raises(VaultLeasedError):
                act()
    whole(storage, expected)


def test_a_reader_that_was_there_before_the_prune_finds_what_was_moved() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days())
    reader = opened(storage)
    last = reader.snapshots()[-1]
    opened(storage).forget(list(expected)[:4])
    assert prune(opened(storage)).copied_bytes > 0
    assert read(reader, last) == expected[last.id]


@pytest.mark.parametrize("prefix", [layout.SNAPSHOTS, layout.INDEX, layout.DATA])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_nothing_is_removed_while_something_is_damaged(prefix: str, how: str) -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(3))
    opened(storage).forget(list(expected)[:1])
    key = max(key for key in storage.objects if key.startswith(prefix))
    if how == "gone":
        del storage.objects[key]
    else:
        storage.objects[key] = storage.objects[key][:-1] + bytes([storage.objects[key][-1] ^ 1])
    before = {key for key in storage.objects if not key.startswith(layout.LEASES)}
    if (prefix, how) in {(layout.SNAPSHOTS, "gone"), (layout.DATA, "flipped")}:
        # Nobody needs what a lost snapshot needed; a flipped pack of which nothing is read stays as it is.
        with suppress(DamagedError):
            prune(opened(storage))
    else:
        with pytest.raises(DamagedError) as caught:
            prune(opened(storage))
        assert caught.value.obj
        assert before <= set(storage.objects)


CALLS: list[Call] = ["put_new", "get", "get_range", "list", "delete"]


@pytest.mark.crash
@pytest.mark.parametrize("call", CALLS)
def test_failed_at_any_call_nothing_is_lost_and_the_next_prune_finishes(call: Call) -> None:
    origin = MemoryStorage()
    expected = filled(origin, days(4))
    gone = list(expected)[:2]
    kept = {name: files for name, files in expected.items() if name not in gone}
    opened(origin).forget(gone)
    clean = MemoryStorage()
    clean.objects = dict(origin.objects)
    prune(opened(clean))
    for number in range(1, 500):
        storage = MemoryStorage()
        storage.objects = dict(origin.objects)
        faulty = FaultyStorage(storage, Fault(call=call, number=number, kind="refuse", lasting=True))
        with suppress(MemkeepError):
            prune(opened(faulty))
        if sum(one == call for one, _ in faulty.calls) < number:
            break
        expire(storage)
        vault = opened(storage)
        assert {one.id: read(vault, one) for one in vault.snapshots()} == kept
        prune(opened(storage))
        whole(storage, kept)
        assert abs(size(storage) - size(clean)) < 4000  # seals
    else:
        pytest.fail("a prune calls without end")
    assert number > 2


@pytest.mark.crash
def test_forgetting_that_failed_at_any_call_leaves_each_snapshot_whole_or_gone() -> None:
    origin = MemoryStorage()
    expected = filled(origin, days(4))
    gone = list(expected)[:2]
    for call in ("put_new", "delete"):
        for number in range(1, 10):
            storage = MemoryStorage()
            storage.objects = dict(origin.objects)
            faulty = FaultyStorage(storage, Fault(call=call, number=number, kind="refuse", lasting=True))  # type: ignore[arg-type]
            with suppress(MemkeepError):
                opened(faulty).forget(gone)
            expire(storage)
            left = {one.id: expected[one.id] for one in opened(storage).snapshots()}
            assert set(expected) - set(gone) <= set(left)
            whole(storage, left)
            opened(storage).forget([name for name in gone if name in left])
            whole(storage, {name: files for name, files in expected.items() if name not in gone})


def test_what_the_storage_does_not_give_up_is_told_and_tried_again() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days(4))
    gone = list(expected)[:2]
    kept = {name: files for name, files in expected.items() if name not in gone}
    opened(storage).forget(gone)
    faulty = FaultyStorage(storage, Fault(call="delete", number=1, kind="refuse", prefix=layout.DATA, lasting=True))
    result = prune(opened(faulty))
    assert result.held
    assert all(message for message in result.held)
    whole(storage, kept)
    assert prune(opened(storage)).removed_bytes > 85_000
    whole(storage, kept)
    assert not [key for key in storage.objects if key.startswith(layout.MARKS)]


def test_a_long_log_becomes_one_seal(now: list[timedelta]) -> None:
    storage = MemoryStorage()
    opening.create(storage, "pw")
    files = {"a": b"small"}
    expected = {take(opened(storage), files, created=f"{n:04}").id: files for n in range(pruning.LOG + 4)}
    opened(storage).forget(list(expected)[:1])
    kept = dict.fromkeys(list(expected)[1:], files)
    now[0] = 2 * pruning.RECENT
    prune(opened(storage))
    assert len([key for key in storage.objects if key.startswith(layout.SEALS)]) < 4
    whole(storage, kept)
    del storage.objects[layout.SNAPSHOTS + list(kept)[3]]
    assert [one.object for one in survey(opened(storage))] == [layout.SNAPSHOTS + list(kept)[3]]


def test_many_small_packs_and_segments_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    opening.create(storage, "pw")
    chance = random.Random(3)
    contents = [{"a": chance.randbytes(2000)} for _ in range(pruning.MANY_SMALL)]
    expected = {take(opened(storage), one, created=f"{n:04}").id: one for n, one in enumerate(contents)}
    result = prune(opened(storage))
    assert result.copied_bytes > 60_000
    assert len([key for key in storage.objects if key.startswith((layout.DATA, layout.INDEX))]) <= 4
    whole(storage, expected)


def test_marks_that_are_lies_cost_space_and_no_snapshot() -> None:
    storage = MemoryStorage()
    contents = days(2)
    expected = filled(storage, contents)
    vault = opened(storage)
    everything = tuple(key for key in storage.objects if key.startswith((layout.DATA, layout.INDEX)))
    mark = layout.Mark(created="2020-01-01T00:00:00+00:00", ready="2020-01-01T00:00:00+00:00", objects=everything)
    for data in (vault.keys.envelope(crypto.MARK, msgspec.json.encode(mark)), b"no mark"):
        storage.objects[layout.MARKS + layout.digest_of(data)] = data
    third = take(opened(storage), contents[1], created="9")
    expected[third.id] = contents[1]
    prune(opened(storage))
    whole(storage, expected)


@pytest.mark.parametrize("prefix", [layout.DATA, layout.INDEX])
def test_a_disk_that_stores_other_bytes_is_found_out_before_anything_is_removed(prefix: str) -> None:
    storage = MemoryStorage()
    expected = filled(storage, days())
    gone = list(expected)[:4]
    opened(storage).forget(gone)
    before = dict(storage.objects)
    lying = FaultyStorage(storage, Fault(call="put_new", number=1, kind="corrupt", prefix=prefix, lasting=True))
    with pytest.raises(DamagedError) as error:
        prune(opened(lying))
    assert error.value.obj.startswith(prefix)
    assert before.items() <= storage.objects.items()


def test_a_dry_run_works_while_another_prunes_and_where_nothing_may_be_written() -> None:
    storage = MemoryStorage()
    expected = filled(storage, days())
    opened(storage).forget(list(expected)[:4])
    denied = FaultyStorage(storage, Fault(call="put_new", number=1, kind="denied", lasting=True))
    with opened(storage).lease("prune", exclusive=True):
        assert prune(opened(denied), dry_run=True).removed_bytes > 4 * 85_000

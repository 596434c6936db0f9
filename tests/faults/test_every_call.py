"""Every storage call of every operation fails in every way: nothing is lost, nothing is doubled, nothing is claimed.

All of it is `pytest -m exhaustive tests/faults`, which takes half an hour; else a sample is tried: of each operation
the first and the last call of each kind, and some between.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import pytest
from tests.faults.conftest import Worlds
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import State, World, state, told

from memkeep.errors import MemkeepError
from memkeep.testing.faults import Call, Fault, Kind
from memkeep.vault import format as layout

CALLS: dict[Call, tuple[Kind, ...]] = {
    "put_new": ("refuse", "full", "io", "denied", "partial", "timeout", "lost", "corrupt"),
    "get": ("refuse", "io", "denied", "timeout", "corrupt"),
    "get_range": ("refuse", "io", "denied", "timeout", "corrupt"),
    "stat": ("refuse", "io", "denied", "timeout"),
    "list": ("refuse", "io", "denied", "timeout", "lost", "stale"),
    "delete": ("refuse", "io", "denied", "timeout", "lost"),
}
UNREACHABLE = {"timeout", "lost"}
LIES = {"corrupt", "stale"}
SAMPLE = 1  # calls of each kind, beside the first and the last
# The last two are said of keys and snapshots when those beside them can't be read.
CODES = {"storage", "storage_unreachable", "disk_full", "damaged", "last_key", "last_good"}


class Clean(NamedTuple):
    """What an operation does when nothing fails."""

    before: dict[str, State | None]
    after: dict[str, State | None]
    told: Any
    calls: Counter[str]


def clean(world: World, operation: Operation) -> Clean:
    world.reset(operation.start)
    before = states(world)
    result = operation.do(world)
    return Clean(before, states(world), told(result), Counter(call for call, _ in world.faulty[operation.faulty].calls))


def faults(found: Clean) -> Iterator[Fault]:
    for call, kinds in CALLS.items():
        for number in range(1, found.calls[call] + 1):
            for kind in kinds:
                for lasting in (False, True):
                    yield Fault(call=call, number=number, kind=kind, lasting=lasting)


def sampled(found: Clean, operation: Operation) -> list[Fault]:
    chance = random.Random(operation.name)
    chosen: list[Fault] = []
    for call, kinds in CALLS.items():
        last = found.calls[call]
        numbers = sorted({1, last, *(chance.randint(1, max(last, 1)) for _ in range(SAMPLE))} - {0}) if last else []
        # No kind twice before each had its turn.
        turns = chance.sample(kinds, len(kinds)) * len(numbers)
        chosen += [
            Fault(call=call, number=number, kind=kind, lasting=chance.random() < 0.4)
            for number, kind in zip(numbers, turns, strict=False)
        ]
    return chosen


def admits(result: Any) -> bool:
    """Say whether a result tells that something was not done, or is not as it was."""
    said = result if isinstance(result, dict) else {}
    rows = said.get("snapshots") if isinstance(said.get("snapshots"), list) else []
    return any(
        [
            any(said.get(name) for name in ("held", "failed", "findings", "exit", "damaged", "hurt", "unreadable")),
            any(isinstance(row, dict) and row.get("findings") for row in rows),
            any(row["state"] == "damaged" for row in said.get("slots", ())),
        ]
    )


def check(world: World, operation: Operation, found: Clean, fault: Fault) -> None:
    world.reset(operation.start)
    untouched = {name: dict(storage.objects) for name, storage in world.storages.items()}
    world.fail(operation.faulty, fault)
    result, error = attempt(world, operation)
    assert fault.call == "delete" or not left_leases(world), "a lease has stayed"
    assert len(world.calls) < 40 * sum(found.calls.values())
    if fault.kind in UNREACHABLE and not fault.lasting:
        assert error is None, repr(error)
        # Threads may ask once more or less than they did when nothing failed.
        asked = world.faulty[operation.faulty].calls  # of the other vault nothing fails
        fell = Counter(call for call, _ in asked)[fault.call] >= fault.number
        assert world.time.waits or not fell
    if operation.reads:
        assert {name: storage.objects for name, storage in world.storages.items()} == untouched
        less = fault.kind == "stale" or (fault.kind == "corrupt" and (operation.over_all or admits(result)))
        assert error or less or result == found.told, result
        return
    between = states(world)
    for name, one in between.items():
        check_between(one, name, found, failed=error is not None, corrupt=fault.kind == "corrupt")
    if error is None and fault.kind not in LIES:
        assert like(between, found.after) or admits(result), result
    if fault.kind == "corrupt" and fault.call == "put_new":
        return  # what was stored wrong without a word may lie there: verify names it, repair mends it
    world.heal()
    with suppress(MemkeepError) if operation.once else nullcontext():  # it was done, or is by now
        result = told(operation.do(world))
    # What a storage gave wrong all the time may have been stored once more: that costs space, which a prune gives back.
    tight = not (fault.kind == "corrupt" and fault.lasting)
    check_finished(states(world), operation, found, result, tight=tight)


def left_leases(world: World) -> list[str]:
    return [key for storage in world.storages.values() for key in storage.objects if key.startswith(layout.LEASES)]


def attempt(world: World, operation: Operation) -> tuple[Any, MemkeepError | None]:
    """Do it; return what it says, or the error that it raises."""
    try:
        result = told(operation.do(world))
    except MemkeepError as raised:
        error = raised
    else:
        assert "internal" not in str(result)
        return result, None
    assert error.code in CODES, repr(error)
    assert error.message
    assert error.unchanged
    return None, error


def check_between(one: State | None, name: str, found: Clean, *, failed: bool, corrupt: bool) -> None:
    """Fail if the vault has lost, doubled or spoiled anything."""
    before, after = found.before[name], found.after[name]
    if one is None:
        assert before is None
        assert failed or after is None
        return
    old, new = (known.snapshots if known else Counter() for known in (before, after))
    assert not (old & new) - one.snapshots, "a snapshot is lost"
    strange = one.snapshots - known_to(found)
    if corrupt:  # what is new may be lost
        strange = Counter({name: many for name, many in strange.items() if name[2] != "lost"})
    assert not strange, "a snapshot is not what it was"
    if not corrupt:
        assert one.damage <= (before.damage if before else set())


def check_finished(
    finished: dict[str, State | None], operation: Operation, found: Clean, result: Any, *, tight: bool
) -> None:
    """Fail unless all is as if nothing had ever failed."""
    if operation.name == "run":  # which keeps the last two backups, whatever those are by now
        assert result["exit"] == 0
        assert not any(one.damage for one in finished.values() if one)
        return
    assert like(finished, found.after), (finished, found.after)
    if tight and operation.name in {"prune", "repair"}:
        there, expected = finished["here"], found.after["here"]
        assert there
        assert expected
        assert abs(there.packs - expected.packs) < expected.packs / 10


def states(world: World) -> dict[str, State | None]:
    return {name: state(storage) for name, storage in world.storages.items()}


def known_to(found: Clean) -> Counter[tuple[str, str, str]]:
    """Return what snapshots any vault may hold: those of before, and those that the operation makes."""
    known: Counter[tuple[str, str, str]] = Counter()
    for one in (*found.before.values(), *found.after.values()):
        known |= one.snapshots if one else known
    return known


def like(found: dict[str, State | None], expected: dict[str, State | None]) -> bool:
    """Say whether vaults hold what they should, no matter how often a backup was made or how it is packed."""

    def same(one: State | None, other: State | None) -> bool:
        if one is None or other is None:
            return one is other
        return (one.snapshots.keys(), one.keys, one.damage) == (other.snapshots.keys(), other.keys, other.damage)

    return all(same(found[name], one) for name, one in expected.items())


def world_of(operation: Operation, both: Worlds, monkeypatch: pytest.MonkeyPatch) -> World:
    world = both[operation.far]
    monkeypatch.setattr("memkeep.ops.open.storage_at", world.connect)
    return world


NAMES = [one.name for one in OPERATIONS]


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_whichever_call_fails_nothing_is_lost_and_the_same_again_does_it(
    operation: Operation, both: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(operation, both, monkeypatch)
    found = clean(world, operation)
    for fault in sampled(found, operation):
        told_by(world, operation, found, fault)


@pytest.mark.parametrize("name", ["verify", "verify readable", "verify restorable"])
def test_of_a_vault_that_goes_bad_while_its_packs_are_read_nothing_is_called_good(
    name: str, both: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = next(one for one in OPERATIONS if one.name == name)
    world = world_of(operation, both, monkeypatch)
    found = clean(world, operation)
    read = [key for call, key in world.faulty[operation.faulty].calls if call == "get"]
    first = next(number for number, key in enumerate(read, 1) if key.startswith(layout.DATA))
    told_by(world, operation, found, Fault(call="get", number=first, kind="corrupt", lasting=True))


@pytest.mark.exhaustive
@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_every_call_in_every_way(
    operation: Operation,
    both: Worlds,
    monkeypatch: pytest.MonkeyPatch,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    world = world_of(operation, both, monkeypatch)
    found = clean(world, operation)
    failed = []
    cases = list(faults(found))
    record_testsuite_property(f"cases of {operation.name}", len(cases))
    for fault in cases:
        try:
            check(world, operation, found, fault)
        except Exception as error:  # noqa: BLE001 - all of them are told, not only the first
            failed.append(f"{fault}: {error!r}"[:300])
    assert not failed


def told_by(world: World, operation: Operation, found: Clean, fault: Fault) -> None:
    """Check, and let a failure say by which fault."""
    try:
        check(world, operation, found, fault)
    except Exception as error:
        error.add_note(f"{operation.name}: {fault}")
        raise

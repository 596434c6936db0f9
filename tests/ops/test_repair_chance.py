"""Whatever befalls some objects, a repair makes nothing worse, says what is so, and has nothing left to do after it."""

import random

import pytest

from memkeep.errors import DamagedError
from memkeep.ops.repair import RepairResult, repair
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import opening, writer
from memkeep.vault import vault as vaults

Objects = dict[str, bytes]


def days(number: int) -> list[dict[str, bytes]]:
    base = random.Random(1).randbytes(300_000)
    return [
        {"a.db": base[:70_000] + b"day %d" % day + base[70_006:], "log": b"a line, " * (3000 + 900 * day)}
        for day in range(number)
    ]


@pytest.fixture(scope="module")
def objects() -> Objects:
    """Return the objects of a vault with four days in many packs, some chunks of which two writers stored at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PACK_SIZE", 100_000)
        storage = MemoryStorage()
        first = opening.create(storage, None)[0]
        take(first, days(1)[0], created="0")
        second = opening.open_vault(storage, None)
        for day, files in enumerate(days(4)[1:], 1):
            take(second if day % 2 else first, files, created=f"{day}")
        return storage.objects


def opened(objects: Objects) -> vaults.Vault:
    storage = MemoryStorage()
    storage.objects = objects
    return opening.open_vault(storage, None)


def readable(objects: Objects) -> dict[str, dict[str, bytes]]:
    vault = opened(dict(objects))
    found = {}
    for one in vault.snapshots():
        try:
            found[one.id] = read(vault, one)
        except DamagedError:
            continue
    return found


def hurt_at_random(objects: Objects, chance: random.Random) -> None:
    keys = sorted(key for key in objects if key.startswith(("data/", "index/", "snapshots/", "seals/")))
    for _ in range(chance.choice((1, 1, 2, 3, 5))):
        one, other = chance.choice(keys), chance.choice(keys)
        data = bytearray(objects.get(one, b""))
        match chance.randrange(6):
            case 0:
                objects.pop(one, None)
            case 1 if data:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
                objects[one] = bytes(data)
            case 2:
                objects[one] = bytes(data[: chance.randrange(len(data) + 1)])
            case 3 if data:
                start = chance.randrange(len(data))
                data[start : start + 4096] = bytes(len(data[start : start + 4096]))
                objects[one] = bytes(data)
            case 4 if one in objects and other in objects:
                objects[one], objects[other] = objects[other], objects[one]
            case 5:
                for key in [key for key in objects if key.startswith("index/")]:
                    del objects[key]


def whole(result: RepairResult) -> set[str]:
    assert not set(result.whole) & {one.snapshot for one in result.hurt}
    return set(result.whole)


@pytest.mark.parametrize("seed", range(40))
def test_chance_damage_is_mended_or_told_and_nothing_gets_worse(objects: Objects, seed: int) -> None:
    hurt = dict(objects)
    hurt_at_random(hurt, random.Random(seed))
    before = readable(hurt)
    tried = repair(opened(dict(hurt)), dry_run=True)
    result = repair(opened(hurt))
    after = readable(hurt)
    assert before.items() <= after.items()
    assert whole(result) == after.keys()
    assert whole(tried) == after.keys()
    everything = readable(objects)
    assert after.items() <= everything.items()
    if all(hurt.get(key) == objects[key] for key in objects if key.startswith("seals/")):  # who else knew of them?
        assert everything.keys() == after.keys() | {one.snapshot for one in result.hurt} | set(result.lost)
    left = dict(hurt)
    again = repair(opened(hurt))
    assert hurt == left
    assert (again.hurt, again.lost, again.rebuilt_chunks, again.saved_chunks) == (result.hurt, result.lost, 0, 0)

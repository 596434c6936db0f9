"""Single objects are put back as they once were, leases and marks are broken: found or harmless, as the docs say."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from memkeep.errors import DamagedError
from memkeep.ops import keys
from memkeep.ops.forget import forget
from memkeep.ops.prune import prune
from memkeep.ops.repair import repair
from memkeep.ops.survey import survey
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import crypto, opening
from memkeep.vault import prune as pruning
from memkeep.vault.vault import Vault

pytestmark = pytest.mark.damage
DAYS = [f"2026-01-0{day}T00:00:00+00:00" for day in range(1, 4)]
Break = Callable[[bytes], bytes]
BREAKS: dict[str, Break] = {
    "first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "salt": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "cut": lambda data: data[:-1],
    "header only": lambda data: data[:48],
    "empty": lambda data: data[:0],
}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStorage]:
    """Return a vault with three days; its password is `pw`."""
    for name, value in {"memory_kib": 32, "iterations": 1, "lanes": 1}.items():
        monkeypatch.setitem(crypto.ARGON, name, value)
    made = MemoryStorage()
    vault = opening.create(made, "pw")[0]
    for day in DAYS:
        take(vault, content(day), created=day)
    yield made
    assert set(DAYS[1:]) <= {one.created for one in opened(made).snapshots()}


def content(day: str) -> dict[str, bytes]:
    return {"a": random.Random(day).randbytes(5000)}


def opened(storage: MemoryStorage, secret: str = "pw") -> Vault:  # noqa: S107 - of a vault of this test
    return opening.open_vault(storage, secret)


def all_is_well(storage: MemoryStorage) -> None:
    """Check that what is there can be read, and that every verb does its work."""
    vault = opened(storage)
    assert survey(vault) == []
    for one in vault.snapshots():
        assert read(vault, one) == content(one.created)
    take(opened(storage), content("later"), created="later")
    later = next(one.id for one in opened(storage).snapshots() if one.created == "later")
    forget(opened(storage), [later])
    prune(opened(storage))
    assert survey(opened(storage)) == []
    assert repair(opened(storage)).findings == ()
    for one in opened(storage).snapshots():
        assert read(opened(storage), one) == content(one.created)


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("kind", ["leases/", "marks/"])
def test_a_broken_lease_or_mark_is_none(storage: MemoryStorage, kind: str, how: str) -> None:
    forget(opened(storage), [opened(storage).snapshots()[0].id])
    with opened(storage).lease("prune", exclusive=True):
        lease = {key: data for key, data in storage.objects.items() if key.startswith("leases/")}
    prune(opened(storage), grace=timedelta(days=1))
    marks = {key: data for key, data in storage.objects.items() if key.startswith("marks/")}
    assert marks
    for key, data in (lease if kind == "leases/" else marks).items():
        storage.objects[key] = BREAKS[how](data)
    all_is_well(storage)


def test_an_old_mark_put_back_takes_nothing_that_is_needed(storage: MemoryStorage) -> None:
    forget(opened(storage), [opened(storage).snapshots()[0].id])
    prune(opened(storage), grace=timedelta(0))
    before = dict(storage.objects)
    vault = opened(storage)
    with vault.lease("prune", exclusive=True) as held:
        needed = dict(vault.index.packs)
        wrong = pruning.Condemned(drop=needed, repack={}, copied={}, segments={})
        pruning.condemn(vault, wrong, held, grace=timedelta(0))
    assert storage.objects.keys() - before.keys()
    all_is_well(storage)


def test_a_revoked_slot_put_back_opens_the_vault_and_is_named_and_goes_with_the_next_change(
    storage: MemoryStorage,
) -> None:
    old = {key: data for key, data in storage.objects.items() if key.startswith("keys/")}
    keys.change_password(opened(storage), "pw", "two")
    [slot] = old.keys() - storage.objects.keys()
    storage.objects[slot] = old[slot]
    assert [row.state for row in keys.list_keys(opened(storage, "two"), "two").slots].count("revoked") == 1
    [found] = survey(opened(storage, "two"))
    assert (found.code, found.mend) == ("key_revoked", "memkeep key list")
    assert slot in found.message
    assert opened(storage, "pw").snapshots()
    keys.add_password(opened(storage, "two"), "two", "pw")
    assert slot not in storage.objects
    assert survey(opened(storage, "two")) == []


@pytest.mark.parametrize("pruned", ["whole", "pruned"])
def test_a_forgotten_manifest_put_back_is_a_snapshot_again_and_named_if_it_lacks_something(
    storage: MemoryStorage, pruned: str
) -> None:
    first = opened(storage).snapshots()[0]
    key = f"snapshots/{first.id}"
    manifest = storage.objects[key]
    forget(opened(storage), [first.id])
    if pruned == "pruned":
        prune(opened(storage))
    storage.objects[key] = manifest
    vault = opened(storage)
    assert len(vault.snapshots()) == 3
    assert vault.resolve("latest").created == DAYS[-1]
    if pruned == "whole":
        all_is_well(storage)
        return
    with pytest.raises(DamagedError):
        read(vault, first)
    result = repair(opened(storage))
    assert [one.snapshot for one in result.hurt] == [first.id]
    forget(opened(storage), [first.id])
    all_is_well(storage)


def test_old_seals_segments_and_packs_put_back_hurt_nothing_and_a_repair_takes_them_away(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "LOG", 1)
    monkeypatch.setattr(pruning, "RECENT", timedelta(seconds=-1))
    old = dict(storage.objects)
    first = opened(storage).snapshots()[0].id
    forget(opened(storage), [first])
    prune(opened(storage))
    gone = sorted(key for key in old.keys() - storage.objects.keys() if not key.startswith("snapshots/"))
    assert {key.partition("/")[0] for key in gone} == {"seals", "index", "data"}
    for one in gone:
        storage.objects[one] = old[one]
        assert [read(opened(storage), made) for made in opened(storage).snapshots()] == [content(d) for d in DAYS[1:]]
        # A segment names packs that are gone: as long as it is there they are told to be missing.
        told = survey(opened(storage))
        if any(first in finding.snapshots for finding in told):
            assert one.startswith("seals/")
            forget(opened(storage), [first])
            told = survey(opened(storage))
        assert {finding.mend for finding in told} <= {"memkeep repair"}
        assert repair(opened(storage)).findings == ()
        all_is_well(storage)

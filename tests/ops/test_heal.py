"""What one vault has lost comes back from another that has it; what neither has is told."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from memkeep.errors import DamagedError
from memkeep.ops.copy import copy
from memkeep.ops.prune import prune
from memkeep.ops.repair import repair
from memkeep.ops.survey import survey
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import opening, writer
from memkeep.vault.crypto import ARGON
from memkeep.vault.vault import Vault

Objects = dict[str, bytes]


def days(number: int) -> list[dict[str, bytes]]:
    base = random.Random(1).randbytes(300_000)
    return [
        {"a.db": base[:70_000] + b"day %d" % day + base[70_006:], "log": b"a line, " * (3000 + 900 * day)}
        for day in range(number)
    ]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"memory_kib": 32, "iterations": 1, "lanes": 1}.items():
        monkeypatch.setitem(ARGON, name, value)
    monkeypatch.setattr(writer, "PACK_SIZE", 100_000)


@pytest.fixture
def source() -> Vault:
    made = opening.create(MemoryStorage(), None)[0]
    for day, files in enumerate(days(3)):
        take(made, files, created=f"{day}")
    return made


@pytest.fixture
def target(source: Vault) -> Objects:
    """Return the objects of an encrypted mirror."""
    storage = MemoryStorage()
    copy(source, opening.create(storage, PASSWORD)[0])
    return storage.objects


PASSWORD = "pw"


def opened(objects: Objects, secret: str | None = PASSWORD) -> Vault:
    storage = MemoryStorage()
    storage.objects = objects
    return opening.open_vault(storage, secret)


def contents(vault: Vault) -> list[dict[str, bytes]]:
    return [read(vault, one) for one in vault.snapshots()]


def harms(objects: Objects) -> Iterator[Objects]:
    """Yield the objects with each pack and segment lost or cut off."""
    for key in objects:
        if key.startswith(("data/", "index/")):
            lost = dict(objects)
            del lost[key]
            yield lost
            yield {**objects, key: objects[key][:-1]}


def test_a_copy_again_heals_what_went_missing_or_was_cut_off_in_the_target(source: Vault, target: Objects) -> None:
    names = {one.id for one in source.snapshots()}
    healed = 0
    for hurt in harms(target):
        before = dict(hurt)
        tried = copy(source, opened(hurt), dry_run=True)
        assert hurt == before
        result = copy(source, opened(hurt))
        assert (result.copied, result.failed, set(result.present)) == ((), (), names)
        assert tried.healed == result.healed
        assert contents(opened(hurt)) == days(3)
        healed += len(result.healed)
        again = copy(source, opened(hurt))
        assert (again.healed, again.findings, again.added_bytes) == ((), (), 0)
        assert repair(opened(hurt)).findings == ()
        assert contents(opened(hurt)) == days(3)
        assert survey(opened(hurt)) == []
    assert healed > 5


def test_a_hurt_copy_that_the_source_can_not_heal_is_named(source: Vault, target: Objects) -> None:
    ours: Objects = source.storage.objects  # type: ignore[attr-defined]
    for objects in (ours, target):
        for key in [key for key in objects if key.startswith("data/")]:
            del objects[key]
    result = copy(opened(ours, None), opened(target))
    assert result.healed == ()
    assert set(result.failed) == {one.id for one in source.snapshots()}
    assert all("lacks" in one.message and one.mend == "memkeep repair" for one in result.findings)


def test_a_repair_takes_from_a_mirror_what_is_lost_whichever_was_first(source: Vault, target: Objects) -> None:
    ours: Objects = source.storage.objects  # type: ignore[attr-defined]
    for objects, secret, other in ((ours, None, opened(dict(target))), (target, PASSWORD, opened(dict(ours), None))):
        for key in [key for key in objects if key.startswith("data/")]:
            hurt = dict(objects)
            middle = len(hurt[key]) // 2
            hurt[key] = hurt[key][:middle] + bytes([hurt[key][middle] ^ 1]) + hurt[key][middle + 1 :]
            before = dict(hurt)
            tried = repair(opened(hurt, secret), mirror=other, dry_run=True)
            assert hurt == before
            result = repair(opened(hurt, secret), mirror=other)
            assert (result.hurt, result.findings) == ((), ())
            assert (tried.hurt, bool(tried.brought_bytes)) == ((), bool(result.brought_bytes))
            assert contents(opened(hurt, secret)) == days(3)
            left = dict(hurt)
            assert repair(opened(hurt, secret), mirror=other).brought_bytes == 0
            assert hurt == left


# -- a prune beside a copy --------------------------------------------------------------------------------------


class Interrupted(MemoryStorage):
    """A storage that does something else before the `number`th call that reads or writes an object."""

    def __init__(self, objects: Objects, number: int, act: Callable[[], None]) -> None:
        super().__init__()
        self.objects = objects
        self._left = number
        self._act = act

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()

    def put_new(self, key, data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        self._count()
        return super().put_new(key, data)

    def get(self, key: str) -> bytes:
        self._count()
        return super().get(key)

    def done(self) -> bool:
        return self._left <= 0


def ageing(objects: Objects, secret: str | None) -> Callable[[], None]:
    """Return what forgets a vault's first snapshot and prunes the rest, as another process."""

    def act() -> None:
        vault = opened(objects, secret)
        if len(vault.snapshots()) > 1:
            vault.forget([vault.snapshots()[0].id])
        prune(vault, grace=timedelta(0))
        prune(opened(objects, secret), grace=timedelta(0))

    return act


@pytest.mark.parametrize("where", ["source", "target"])
def test_a_prune_at_any_moment_of_a_copy_loses_nothing_here_or_there(source: Vault, where: str) -> None:
    ours: Objects = source.storage.objects  # type: ignore[attr-defined]
    storage = MemoryStorage()
    first = opening.create(storage, PASSWORD)[0]
    copy(source, first, [source.snapshots()[0].id])
    number = 0
    while True:
        number += 3
        mine, theirs = dict(ours), dict(storage.objects)
        one = MemoryStorage()
        one.objects = mine
        other = MemoryStorage()
        other.objects = theirs
        if where == "source":
            one = Interrupted(mine, number, ageing(mine, None))
        else:
            other = Interrupted(theirs, number, ageing(theirs, PASSWORD))
        try:
            result = copy(opening.open_vault(one, None), opening.open_vault(other, PASSWORD))
        except DamagedError:
            assert where == "source"  # it was forgotten while it was looked at
        else:
            assert where == "source" or not result.failed
        for objects, secret in ((mine, None), (theirs, PASSWORD)):
            vault = opened(objects, secret)
            assert all(read(vault, snapshot) in days(3) for snapshot in vault.snapshots())
            assert [finding for finding in survey(vault) if finding.code != "unsealed"] == []
        copy(opened(mine, None), opened(theirs, PASSWORD))
        assert contents(opened(theirs))[-2:] == days(3)[1:]
        chosen = one if where == "source" else other
        if not chosen.done():  # type: ignore[attr-defined]
            assert number > 20
            return

"""Anything happens to two vaults, in any order, by several at once, with crashes: nothing is lost."""

import os
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.vault.machine import HOW, LAG, Files, Late, Running, Site, Time, Watched, back_up, changed

from memkeep import clock
from memkeep.errors import MemkeepError, VaultLeasedError
from memkeep.ops import keys
from memkeep.ops.copy import copy
from memkeep.ops.prune import GRACE, prune
from memkeep.ops.repair import repair
from memkeep.storage.memory import MemoryStorage
from memkeep.vault import codec, crypto, transfer, writer
from memkeep.vault import format as layout
from memkeep.vault import prune as pruning

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "7"))  # set it to do many by hand, never the same
STEPS = int(os.environ.get("MACHINE_STEPS", "40"))
BY_HAND = "MACHINE_EXAMPLES" in os.environ
PHASES = [Phase.generate, Phase.shrink] if BY_HAND else [Phase.generate]
SEEDS = st.integers(0, 1 << 16)
MOST = 9  # snapshots in a vault, so that a step stays cheap

pytestmark = [pytest.mark.property, pytest.mark.crash]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, home: object) -> None:
    """Make everything small, so that all that happens to large vaults happens soon."""
    monkeypatch.setattr(crypto, "ARGON", {"memory_kib": 32, "iterations": 1, "lanes": 1})
    monkeypatch.setattr(codec, "CHUNK", 8192)
    monkeypatch.setattr(writer, "PACK_SIZE", 40_000)
    monkeypatch.setattr(writer, "MAX_DEPTH", 18)
    monkeypatch.setattr(transfer, "MAX_DEPTH", 18)
    monkeypatch.setattr(pruning, "PACK_SIZE", 40_000)
    for name, value in {"SMALL": 6000, "MANY_SMALL": 5, "MANY": 4, "LOG": 6}.items():
        monkeypatch.setattr(pruning, name, value)


@pytest.fixture(autouse=True)
def _repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing depend on anything but what was drawn, so that what fails can be made small."""
    monkeypatch.setattr(clock, "pause", lambda _: None)
    for module, name in ((clock, "now"), (clock, "monotonic"), (crypto, "random_source")):
        monkeypatch.setattr(module, name, None)  # each machine has its own
    monkeypatch.setattr(ThreadPoolExecutor, "submit", at_once)


def at_once(_: object, do: Callable[..., object], /, *args: object) -> Future[object]:
    """Do what a thread would do, before anything else happens."""
    future: Future[object] = Future()
    try:
        future.set_result(do(*args))
    except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
        future.set_exception(error)
    return future


class Machine(RuleBasedStateMachine):
    """Two vaults; `late` says whether lists of the first lag behind."""

    late = False

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        clock.now, clock.monotonic = self.time.now, self.time.monotonic
        crypto.random_source = SimpleNamespace(token_bytes=random.Random(2).randbytes)
        storage = Late(random.Random(1)) if self.late else MemoryStorage()
        self.sites = [Site(storage, "pw"), Site(MemoryStorage(), "other")]
        self.files: Files = {"a": random.Random(1).randbytes(30_000), "log": b""}
        self.history: list[Files] = []
        self.number = 0

    # -- what may happen ------------------------------------------------------------------------------------------

    @rule(how=st.lists(st.sampled_from(HOW), min_size=1, max_size=3), seed=SEEDS)
    def the_store_changes(self, how: list[str], seed: int) -> None:
        chance = random.Random(seed)
        for one in how:
            self.files = changed(self.files, self.history, one, chance)

    @rule(where=st.integers(0, 3), crash=st.integers(-30, 12), left=st.booleans(), seed=SEEDS)
    def backup(self, where: int, crash: int, left: bool, seed: int) -> None:  # noqa: FBT001 - a drawn value
        self.act("backup", self.sites[where == 0], crash, seed, left=left)

    @rule(where=st.integers(0, 3), crash=st.integers(-30, 6), left=st.booleans(), seed=SEEDS)
    def forget(self, where: int, crash: int, left: bool, seed: int) -> None:  # noqa: FBT001
        self.act("forget", self.sites[where == 0], crash, seed, left=left)

    @rule(where=st.integers(0, 3), crash=st.integers(-15, 15), left=st.booleans(), seed=SEEDS)
    def prune(self, where: int, crash: int, left: bool, seed: int) -> None:  # noqa: FBT001
        self.act("prune", self.sites[where == 0], crash, seed, left=left)

    @rule(where=st.booleans(), crash=st.integers(-15, 15), left=st.booleans(), seed=SEEDS)
    def copy(self, where: bool, crash: int, left: bool, seed: int) -> None:  # noqa: FBT001
        self.act("copy", self.sites[where], crash, seed, left=left)

    @rule(where=st.integers(0, 3), seed=SEEDS)
    def key(self, where: int, seed: int) -> None:
        self.act("key", self.sites[where == 0], 0, seed)

    @rule(where=st.integers(0, 3), crash=st.integers(-15, 8), left=st.booleans(), seed=SEEDS)
    def an_index_segment_is_lost_and_repaired(self, where: int, crash: int, left: bool, seed: int) -> None:  # noqa: FBT001
        self.act("repair", self.sites[where == 0], crash, seed, left=left)

    @rule(
        one=st.sampled_from(["backup", "forget", "prune", "prune", "copy", "key"]),
        other=st.sampled_from(["backup", "backup", "forget", "prune", "prune", "copy", "key", "late backup"]),
        at=st.integers(1, 60),
        where=st.integers(0, 3),
        seed=SEEDS,
    )
    def two_at_once(self, one: str, other: str, at: int, where: int, seed: int) -> None:
        """Another process does something between two calls of the first."""
        self.act(one, self.sites[where == 0], 0, seed, other=other, at=at)

    @precondition(lambda self: len(self.sites[0].running) < 3)
    @rule(where=st.integers(0, 3), seed=SEEDS)
    def a_slow_backup_begins(self, where: int, seed: int) -> None:
        site = self.sites[where == 0]
        self.files = changed(self.files, self.history, random.Random(seed).choice(HOW), random.Random(seed))
        self.tolerant(lambda: site.running.append(Running(site.open(), self.files, self.name())))
        self.history.append(self.files)

    @precondition(lambda self: any(site.running for site in self.sites))
    @rule(seed=SEEDS)
    def a_slow_backup_ends(self, seed: int) -> None:
        site = next(site for site in self.sites if site.running)
        self.late_backup(site, seed)

    @rule(minutes=st.sampled_from([1, 6, 20, 90, 600, 1500, 3000]))
    def time_passes(self, minutes: int) -> None:
        self.time.passed += timedelta(minutes=minutes)
        for site in self.sites:
            for one in [one for one in site.running if clock.now() - one.since > GRACE - 3 * LAG]:
                site.running.remove(one)  # no backup takes so long
                one.close()

    @invariant()
    def nothing_is_lost(self) -> None:
        for site in self.sites:
            site.check()

    def teardown(self) -> None:
        for site in self.sites:
            for one in site.running:
                one.close()

    # -- how it is done -------------------------------------------------------------------------------------------

    def act(
        self, what: str, site: Site, crash: int, seed: int, *, other: str = "", at: int = 0, left: bool = False
    ) -> None:
        """Let a process do something: it may die at a change, and another may do something between two of its calls."""
        before = {key for key in site.storage.objects if key.startswith(layout.LEASES)}
        watched = Watched(site.storage, dies_at=max(crash, 0), done=seed % 2 == 0)
        watched.between_at = at
        if other:
            watched.between = lambda: self.do(other, site, None, seed + 1, strict=False)
        self.do(what, site, watched, seed, strict=crash <= 0 and not other)
        watched.between = None
        if crash > 0 and not left:
            site.drop_leases(before)

    def do(self, what: str, site: Site, storage: Watched | None, seed: int, *, strict: bool) -> None:
        chance = random.Random(seed)
        leased = what in {"forget", "prune", "key", "repair"}
        try:
            getattr(self, "do_" + what.replace(" ", "_"))(site, storage, chance)
        except VaultLeasedError:
            assert leased
        except MemkeepError:
            # Where lists are late a process may see what makes no sense, and says so.
            if strict and not self.late:
                raise

    def do_backup(self, site: Site, storage: Watched | None, chance: random.Random) -> None:
        if len(site.expected) + len(site.maybe_new) >= MOST:
            return
        self.files = changed(self.files, self.history, chance.choice(HOW), chance)
        files, created = self.files, self.name()
        self.history.append(files)
        site.maybe_new[created] = files
        made = back_up(site.open(storage), files, created)
        site.expected[made.id] = files

    def do_forget(self, site: Site, storage: Watched | None, chance: random.Random) -> None:
        names = [name for name in site.expected if chance.random() < 0.4]
        vault = site.open(storage)
        site.maybe_gone.update(names)
        vault.forget(names)
        for name in names:
            site.expected.pop(name, None)

    def do_prune(self, site: Site, storage: Watched | None, _: random.Random) -> None:
        result = prune(site.open(storage))
        assert result.held == () or storage is None or storage._dead

    def do_copy(self, site: Site, storage: Watched | None, _: random.Random) -> None:
        target = self.sites[site is self.sites[0]]
        # One that is being committed is there before its process says so.
        twins = {
            one.created: site.expected.get(one.id, site.maybe_new.get(one.created)) for one in site.fresh().snapshots()
        }
        target.maybe_new.update({created: files for created, files in twins.items() if files is not None})
        result = copy(site.open(), target.open(storage and Watched(target.storage, dies_at=storage._dies_at)))
        if not self.late:
            assert result.findings == () or storage is None or storage.between_at
        for one in result.copied:
            target.expected[one.snapshot] = target.maybe_new[one.created]

    def do_key(self, site: Site, storage: Watched | None, _: random.Random) -> None:
        vault = site.open(storage)
        secret, new = site.passwords[0], f"password {self.number}"
        self.number += 1
        if len(site.passwords) < 3:
            keys.add_password(site.fresh() if self.late else vault, secret, new)
            site.passwords.append(new)
            return
        old = site.passwords[-1]
        [slot] = [one.id for one in keys.list_keys(site.fresh(), old).slots if one.yours]
        keys.remove_key(site.fresh() if self.late else vault, secret, slot, confirm=slot)
        site.passwords.remove(old)
        with pytest.raises(MemkeepError):
            Site.open(site_with(site, old))

    def do_repair(self, site: Site, storage: Watched | None, chance: random.Random) -> None:
        segments = sorted(key for key in site.storage.objects if key.startswith(layout.INDEX))
        if not segments or any(key.startswith(layout.LEASES) for key in site.storage.objects):
            return
        key = chance.choice(segments)
        saved = site.storage.objects[key]
        if chance.random() < 0.5:
            del site.storage.objects[key]
        else:
            site.storage.objects[key] = saved[:60] + bytes([saved[60] ^ 1]) + saved[61:]
        try:
            repair(site.open(storage))
        except MemkeepError:
            site.storage.objects[key] = saved  # put back from a copy
            raise
        if isinstance(site.storage, Late):
            repair(site.fresh())  # by one who sees everything

    def do_late_backup(self, site: Site, _: Watched | None, chance: random.Random) -> None:
        if site.running:
            self.late_backup(site, chance.randrange(1 << 16))

    def late_backup(self, site: Site, seed: int) -> None:
        one = site.running.pop(seed % len(site.running))
        site.maybe_new[one.created] = one.files
        # What it leans on may have gone meanwhile: then it says so, and makes no snapshot.
        self.tolerant(one.finish)

    def tolerant(self, do: Callable[[], object]) -> None:
        try:
            do()
        except VaultLeasedError:
            raise
        except MemkeepError:
            pass

    def name(self) -> str:
        self.number += 1
        return f"{self.number:06}"


class LateMachine(Machine):
    late = True


def site_with(site: Site, password: str) -> Site:
    other = Site.__new__(Site)
    other.storage, other.passwords = site.storage, [password]
    return other


@pytest.mark.parametrize("machine", [Machine, LateMachine])
def test_whatever_happens_every_snapshot_is_what_it_was(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not BY_HAND,
            database=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )

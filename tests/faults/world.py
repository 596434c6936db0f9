"""A world in which a vault's storage can be made to fail: two vaults in memory, stores on disk, a clock of its own."""

import functools
import hashlib
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from memkeep import clock
from memkeep.errors import DamagedError, MemkeepError
from memkeep.model import Snapshot
from memkeep.ops import keys
from memkeep.ops import open as opening
from memkeep.ops.backup import backup
from memkeep.ops.discover import discover
from memkeep.ops.forget import forget
from memkeep.ops.prune import prune
from memkeep.ops.survey import survey
from memkeep.storage.base import Capabilities, Storage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import Fault, FaultyStorage
from memkeep.vault import format as layout
from memkeep.vault import opening as vaults
from memkeep.vault.vault import Vault

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PASSWORD = "pw"
CHANGE = "update mem_cells set content = content || ' and more' where id % 3 = 0"
Objects = dict[str, bytes]


class FarStorage(MemoryStorage):
    """A storage that is far: reading costs, lists may be stale, and several may put one key."""

    capabilities = Capabilities(exclusive=False, fresh=False, near=False)


class Clock:
    """Time that passes when somebody waits, and at no other time."""

    def __init__(self) -> None:
        self.passed = timedelta(0)
        self.waits = 0

    def now(self) -> datetime:
        return START + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()

    def pause(self, seconds: float) -> None:
        self.waits += 1
        self.passed += timedelta(seconds=seconds)


class Start(NamedTuple):
    """What lies in both vaults before an operation, and when it is."""

    here: Objects
    there: Objects
    passed: timedelta = timedelta(0)
    ids: tuple[str, ...] = ()  # of the snapshots here, oldest first, or of the second key


class World:
    """Both vaults as a process finds them that opens them by the product's own stack of wrappers."""

    def __init__(self, folder: Path, starts: dict[str, Start], time: Clock, *, far: bool = False) -> None:
        self.folder = folder
        self.time = time
        self.notes, self.oc = folder / "notes", folder / "oc"
        self._starts = starts
        self._kind = FarStorage if far else MemoryStorage
        self._number = 0
        self._faults: dict[str, tuple[Fault, ...]] = {}
        self.faulty: dict[str, FaultyStorage] = {}
        self.storages: dict[str, MemoryStorage] = {}
        self.ids: tuple[str, ...] = ()

    def reset(self, start: str) -> None:
        """Put everything as it was at the beginning."""
        found = self._starts[start]
        self.time.passed = found.passed
        self.time.waits = 0
        self.ids = found.ids
        for name, objects in (("here", found.here), ("there", found.there)):
            self.storages[name] = self._kind()
            self.storages[name].objects = dict(objects)
        self._faults = {}
        self._new_process()

    def fail(self, name: str, *faults: Fault) -> None:
        """Let the next process that opens a vault meet these faults."""
        self._faults = {name: faults}
        self._new_process()

    def heal(self) -> None:
        """Let there be no fault any more, and every lease be over."""
        self._faults = {}
        self.time.passed += HOUR
        self._new_process()

    def open(self, name: str = "here", secret: str = PASSWORD) -> Vault:
        """Open a vault as `memkeep` does."""
        return opening.open_vault(f"{name}:{self._number}", secret)

    def init(self) -> opening.InitResult:
        """Make a vault as `memkeep init` does."""
        return opening.init_vault(f"here:{self._number}", PASSWORD)

    def connect(self, url: str) -> Storage:
        """Stand in for `storage_at`."""
        name = url.partition(":")[0]
        return self.faulty[name]

    def new(self, name: str) -> Path:
        """Return a path at which nothing is."""
        self._number += 1
        return self.folder / f"{name} {self._number}{' far' * (self._kind is FarStorage)}"

    @property
    def calls(self) -> list[tuple[str, str]]:
        """What was asked of both vaults since they were opened."""
        return [call for one in self.faulty.values() for call in one.calls]

    def _new_process(self) -> None:
        self._number += 1  # the cache is another's
        self.faulty = {name: FaultyStorage(one, *self._faults.get(name, ())) for name, one in self.storages.items()}


def contents(vault: Vault) -> Counter[tuple[str, str, str]]:
    """Return what the snapshots of a vault hold, by digest; those that can't be read are `lost`."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in vault.snapshots():
        try:
            digest = hashlib.sha256(repr(sorted(_files(vault, one).items())).encode()).hexdigest()
        except DamagedError:
            digest = "lost"
        found[one.system, one.path, digest] += 1
    return found


def _files(vault: Vault, snapshot: Snapshot) -> dict[str, bytes]:
    files = {}
    for part in snapshot.parts:
        image = vault.image(part)
        for entry in image.entries:
            if entry.recipe is not None:
                files[f"{part.name} {entry.entry.path}"] = vault.reader.read(entry.recipe)
        for table in image.collections:
            for group in table.groups:
                files[f"{part.name} {table.map.collection} {group.bucket}"] = vault.reader.chunk(group.chunk)
    return files


class State(NamedTuple):
    """What a person would say is in a vault."""

    snapshots: Counter[tuple[str, str, str]]
    keys: set[tuple[str, str]]  # kind, and the password that opens it or what it is else
    damage: set[str]
    packs: int  # bytes


def state(storage: MemoryStorage) -> State | None:
    """Return what is in a vault, None when there is none; leases end, so they are no part of it."""
    return _state(frozenset(item for item in storage.objects.items() if not item[0].startswith(layout.LEASES)))


@functools.cache
def _state(objects: frozenset[tuple[str, bytes]]) -> State | None:
    storage = copied(dict(objects))
    if not vaults.exists(storage):
        return None
    vault = next(found for secret in (PASSWORD, "two") if (found := _opened(storage, secret)) is not None)
    rows = keys.list_keys(vault, PASSWORD).slots
    others = keys.list_keys(vault, "two").slots
    slots = {
        (row.kind, "pw" if row.yours else "two" if other.yours else row.state)
        for row, other in zip(rows, others, strict=True)
    }
    packs = sum(len(data) for key, data in storage.objects.items() if key.startswith(layout.DATA))
    return State(contents(vault), slots, {one.object or "" for one in survey(vault) if one.object}, packs)


def _opened(storage: MemoryStorage, secret: str) -> Vault | None:
    try:
        return vaults.open_vault(storage, secret)
    except MemkeepError:
        return None


def told(result: object) -> Any:
    """Return what a result says, save what no two runs agree in."""
    names = {
        "to",
        "file",
        "duration_s",
        "seconds",
        "started",
        "recovery_key",
        "id",
        "added",
        "age_s",
        "added_bytes",
        "parked",
        "undo",
    }

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(one) for key, one in value.items() if key not in names}
        return [without(one) for one in value] if isinstance(value, list | tuple) else value

    return without(msgspec.to_builtins(result, enc_hook=str))


def make_starts(folder: Path, oc_memory: Path, time: Clock) -> dict[str, Start]:
    """Return the beginnings that operations have: vaults that are empty, filled, forgotten in, marked, hurt."""
    notes, oc = folder / "notes", folder / "oc"
    notes.mkdir()
    shutil.copytree(oc_memory, oc)
    for path in (oc, *oc.rglob("*")):
        path.chmod(0o700)
    storage, other = MemoryStorage(), MemoryStorage()
    vault = vaults.create(storage, PASSWORD)[0]
    target = vaults.create(other, PASSWORD)[0]
    backup(vault, discover([oc]))
    with closing(sqlite3.connect(oc / "memory.db")) as connection, connection:
        connection.execute(CHANGE)
    backup(vault, discover([oc]))
    for day in range(4):
        write_notes(notes, day)
        time.passed += HOUR
        backup(vault, discover([notes]))
        if day == 0:
            from memkeep.ops.copy import copy

            copy(vault, target)
    there = dict(other.objects)
    vault = vaults.open_vault(storage, PASSWORD)
    ids = tuple(one.id for one in vault.snapshots())
    starts = {
        "empty": Start({}, {}, time.passed),
        "filled": Start(dict(storage.objects), there, time.passed, ids),
    }
    forget(vault, ids[2:4])
    starts["forgotten"] = Start(dict(storage.objects), there, time.passed)
    prune(vaults.open_vault(storage, PASSWORD), grace=HOUR)
    starts["marked"] = Start(dict(storage.objects), there, time.passed + 2 * HOUR)
    hurt = dict(starts["filled"].here)
    del hurt[sorted(key for key in hurt if key.startswith("index/"))[1]]
    two = keys.add_password(vaults.open_vault(other := copied(starts["filled"].here), PASSWORD), PASSWORD, "two").added
    starts["keys"] = Start(other.objects, there, starts["filled"].passed, (two or "",))
    spoiled = dict(starts["filled"].here)
    pack = sorted(key for key in spoiled if key.startswith(layout.DATA))[1]
    # Another bit than the one that a storage flips which gives other bytes: or that would mend it.
    spoiled[pack] = spoiled[pack][:-1] + bytes([spoiled[pack][-1] ^ 2])
    starts["spoiled"] = Start(spoiled, there, starts["filled"].passed)
    starts["hurt"] = Start(hurt, there, starts["filled"].passed)
    write_notes(notes, 5)
    return starts


def copied(objects: Objects) -> MemoryStorage:
    """Return a storage that has these objects."""
    storage = MemoryStorage()
    storage.objects = dict(objects)
    return storage


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_notes(folder: Path, day: int) -> None:
    """Let a day pass for the notes: one is new, one grows, one changes."""
    (folder / f"{day}.md").write_text(f"# day {day}\n\nwhat it has brought\n")
    (folder / "log.md").write_text("# log\n\n" + "".join(f"line {n} of a long log\n" for n in range(40 * day + 9)))
    (folder / "now.md").write_text("# now\n\n" + hashlib.shake_256(b"%d" % day).hexdigest(9000) + "\n")


def patch(monkeypatch: pytest.MonkeyPatch, folder: Path, time: Clock) -> None:
    """Let keys be cheap, packs small, a home empty, and time stand still."""
    monkeypatch.setattr("memkeep.vault.crypto.ARGON", {"memory_kib": 32, "iterations": 1, "lanes": 1})
    for module in ("writer", "prune"):
        monkeypatch.setattr(f"memkeep.vault.{module}.PACK_SIZE", 20_000)
    monkeypatch.setattr("os.fsync", lambda _: None)
    for name in ("now", "monotonic", "pause"):
        monkeypatch.setattr(clock, name, getattr(time, name))
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(folder / "home" / name))
    monkeypatch.setenv("MEMKEEP_CACHE_DIR", str(folder / "cache"))


def make_worlds(folder: Path, oc_memory: Path) -> tuple[World, World]:
    """Return a world whose vaults are near, and one whose vaults are far; they share the stores."""
    time = Clock()
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch, folder, time)
        starts = make_starts(folder, oc_memory, time)
    return World(folder, starts, time), World(folder, starts, time, far=True)

"""Vaults in which anything happens, side by side with a dictionary that says what must be in them."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta

from memkeep import clock
from memkeep.errors import DamagedError, StorageError
from memkeep.events import SILENT
from memkeep.model import Entry, Snapshot, StoredEntry
from memkeep.ops.prove import MARKED, Packs, chunks_of, still_there
from memkeep.ops.survey import survey
from memkeep.storage.base import Capabilities, ObjectMissingError, Stat, Storage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing import snapshots
from memkeep.testing.snapshots import read, take
from memkeep.vault import format as layout
from memkeep.vault import opening, writer
from memkeep.vault.vault import Vault

Files = dict[str, bytes]

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
LAG = timedelta(hours=1)  # how late a list may be, where lists are late


class Time:
    """A clock that only moves when it is told to, and a little whenever somebody looks."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        self.passed += timedelta(milliseconds=1)
        return START + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()


class Late(MemoryStorage):
    """A storage whose lists may lack what was put in the last hour, and show what was deleted in it."""

    capabilities = Capabilities(fresh=False)

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._changed: dict[str, tuple[datetime, int | None]] = {}  # when, and the size that it had before

    def put_new(self, key: str, data: "object") -> int:
        size = super().put_new(key, data)  # type: ignore[arg-type]
        self._changed[key] = (clock.now(), None)
        return size

    def delete(self, key: str) -> None:
        size = self.stat(key).size
        super().delete(key)
        self._changed[key] = (clock.now(), size)

    def list(self, prefix: str) -> Iterator[Stat]:
        found = {stat.key: stat for stat in super().list(prefix)}
        now = clock.now()
        for key, (when, before) in list(self._changed.items()):
            if key.startswith(prefix) and now - when < LAG and self._chance.random() < 0.3:
                found.pop(key, None)
                if before is not None:
                    found[key] = Stat(key, before)
        yield from found.values()


class Watched:
    """A storage that a process uses: it may die at a change, and others may do something between any two calls."""

    def __init__(self, beneath: Storage, *, dies_at: int = 0, done: bool = False) -> None:
        self.beneath = beneath
        self.url = beneath.url
        self.folder = beneath.folder
        self.capabilities = beneath.capabilities
        self.between: Callable[[], None] | None = None
        self.between_at = 0
        self._dies_at = dies_at
        self._done = done  # whether the change at which it dies is made
        self._calls = 0
        self._changes = 0
        self._dead = False
        self._lock = threading.RLock()

    def put_new(self, key: str, data: "object") -> int:
        return self._change(lambda: self.beneath.put_new(key, data))  # type: ignore[arg-type]

    def delete(self, key: str) -> None:
        self._change(lambda: self.beneath.delete(key))

    def get(self, key: str) -> bytes:
        self._call()
        return self.beneath.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._call()
        return self.beneath.get_range(key, offset, length)

    def stat(self, key: str) -> Stat:
        self._call()
        return self.beneath.stat(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        self._call()
        return self.beneath.list(prefix)

    def _change(self, do: Callable[[], object]) -> "int":
        self._call()
        with self._lock:
            self._changes += 1
            if self._changes == self._dies_at:
                self._dead = True
                if self._done:
                    do()
                raise _dead()
        return do()  # type: ignore[return-value]

    def _call(self) -> None:
        with self._lock:
            if self._dead:
                raise _dead()
            self._calls += 1
            if self.between is not None and self._calls == self.between_at:
                between, self.between = self.between, None
                between()


def _dead() -> StorageError:
    return StorageError("this process is dead", code="dead")


class Running:
    """A backup by another process, half done."""

    def __init__(self, vault: Vault, files: Files, created: str) -> None:
        self.since = clock.now()
        self.created = created
        self.files = files
        self._vault = vault
        self._parent = vault.latest_of(snapshots.SYSTEM, snapshots.PATH)
        before = vault.image(self._parent.parts[0]) if self._parent else None
        self._old = {one.entry.path: one.recipe for one in before.entries} if before else {}
        self._stack = ExitStack()
        self._writer = self._stack.enter_context(vault.writer())
        self._todo = sorted(files)
        self._entries: list[StoredEntry] = []
        try:
            for _ in range(len(self._todo) // 2):
                self._store()
            self._writer.flush()
        except BaseException:
            self.close()
            raise

    def finish(self) -> Snapshot:
        try:
            while self._todo:
                self._store()
            entries = tuple(self._entries)
            image = self._parent.parts[0].image if self._parent else None
            summary = snapshots._summary(self._writer, entries, image)
            self._writer.flush()
            still_there(self._vault, chunks_of([summary], [self._vault.image(summary)]))
            snapshot = Snapshot(
                created=self.created, system=snapshots.SYSTEM, path=snapshots.PATH, host="here", parts=(summary,)
            )
            return self._writer.commit(snapshot, *self._vault.next_seal())
        finally:
            self.close()

    def close(self) -> None:
        self._stack.close()

    def _store(self) -> None:
        path = self._todo.pop()
        recipe = self._writer.put_stream([self.files[path]], self._old.get(path))
        self._entries.append(StoredEntry(entry=Entry(path=path, size=len(self.files[path])), recipe=recipe))


def back_up(vault: Vault, files: Files, created: str) -> Snapshot:
    """Make a snapshot as `ops.backup` does: what is marked or turns out to be gone is stored again."""
    seen: set[str] = set()
    while True:
        try:
            return take(vault, files, created=created)
        except DamagedError as error:
            if error.code != MARKED and (error.obj in seen or not vault.index.distrust(error.obj)):
                raise
            seen |= {error.obj} if error.code != MARKED else set()


class Site:
    """One vault, and what must be in it: the ids of its snapshots, and what each of them gives."""

    def __init__(self, storage: MemoryStorage, password: str) -> None:
        self.storage = storage
        self.passwords = [password]
        self.expected: dict[str, Files] = {}
        self.maybe_new: dict[str, Files] = {}  # created -> what a snapshot may be made of, or not
        self.maybe_gone: set[str] = set()  # ids that may be gone, or not
        self.running: list[Running] = []
        self._checked: set[str] = set()  # objects that were there at the last look
        opening.create(storage, password)

    def open(self, storage: Storage | None = None) -> Vault:
        return opening.open_vault(storage or self.storage, self.passwords[0])

    def fresh(self) -> Vault:
        """Return the vault as it is, whatever lists say."""
        now = MemoryStorage()
        now.objects = self.storage.objects
        return self.open(now)

    def check(self) -> None:
        """Fail unless all that must be there is there, byte for byte, and nothing else; then that is what must be."""
        there = {key for key in self.storage.objects if not key.startswith(layout.LEASES)}
        if there == self._checked and not self.maybe_new and not self.maybe_gone:
            return
        self._checked = there
        vault = self.fresh()
        listed = {one.id: one for one in vault.snapshots()}
        assert vault.damaged == []
        gone = self.expected.keys() - listed.keys()
        assert gone <= self.maybe_gone, f"lost {gone}"
        for name in listed.keys() - self.expected.keys():
            assert listed[name].created in self.maybe_new, f"nobody made {listed[name]}"
            self.expected[name] = self.maybe_new[listed[name].created]
        for name in gone:
            del self.expected[name]
        self.maybe_new.clear()
        self.maybe_gone.clear()
        for name, files in self.expected.items():
            assert read(vault, listed[name]) == files, f"{name} is not what it was"
        self._check_chains(vault, list(listed.values()))
        findings = [one for one in survey(vault) if one.code != "unsealed"]
        assert not findings, findings
        packs = [key for key in self.storage.objects if key.startswith(layout.DATA)]
        assert Packs(vault).intact(packs, SILENT) == []

    def _check_chains(self, vault: Vault, listed: list[Snapshot]) -> None:
        chunks = set().union(*(chunks_of(one.parts, [vault.image(part) for part in one.parts]) for one in listed))
        places = vault.reader.closure(chunks)
        there = self.storage.objects
        for one in places:
            at, length = one, 0
            while (base := places[at].base) is not None:
                at, length = base, length + 1
                assert length <= writer.MAX_DEPTH, "a chain is too long"
        assert all(place.pack in there for place in places.values())

    def drop_leases(self, before: set[str]) -> None:
        """Let what a dead process held be over."""
        for key in [key for key in self.storage.objects if key.startswith(layout.LEASES) and key not in before]:
            with_missing(lambda: self.storage.delete(key))  # noqa: B023 - called at once


def with_missing(do: Callable[[], object]) -> None:
    with suppress(ObjectMissingError):
        do()


def changed(files: Files, before: list[Files], how: str, chance: random.Random) -> Files:  # noqa: C901 - a table
    """Return files that differ from others in one of the ways in which stores do."""
    files = dict(files)
    name = chance.choice(sorted(files) or ["a"])
    data = bytearray(files.get(name, b""))
    match how:
        case "edit":
            for _ in range(min(len(data), chance.choice([1, 5, 40]))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            files[name] = bytes(data)
        case "grow":
            files[name] = bytes(data) + chance.randbytes(chance.randrange(20_000))
        case "text":
            files["log"] = files.get("log", b"") + b"a line of a log, much like the others\n" * chance.randrange(300)
        case "cut":
            files[name] = bytes(data[: chance.randrange(len(data) + 1)])
        case "new":
            files[chance.choice("abcdef")] = chance.randbytes(chance.randrange(40_000))
        case "twice":
            files[chance.choice("abcdef")] = bytes(data)
        case "remove":
            files.pop(name, None)
        case "mix" if before:
            files |= chance.choice(before)
        case "again" if before:
            files = dict(chance.choice(before))
        case "one again" if before:
            old = chance.choice(before)
            if old:
                path = chance.choice(sorted(old))
                files[path] = old[path]
    return {path: data[:60_000] for path, data in files.items()}


HOW = ["edit", "edit", "grow", "text", "cut", "new", "twice", "remove", "mix", "again", "one again"]

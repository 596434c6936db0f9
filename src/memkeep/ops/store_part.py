"""Put one frozen part into the vault: its records in groups, its files as chunks, its tables as digests."""

import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from queue import SimpleQueue

import msgspec
from blake3 import blake3

from memkeep.events import Events
from memkeep.model import (
    Entry,
    Finding,
    Omission,
    PartImage,
    Recipe,
    StoredCollection,
    StoredEntry,
    StoredGroup,
    TableMap,
    is_url,
)
from memkeep.ops.blocks import known_blocks
from memkeep.ops.freeze import Held
from memkeep.records.groups import Group
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Writer

Redact = Callable[[bytes], bytes]
SCANNED_FIRST = frozenset({"lance"})


class Scan:
    """Reads all rows of a part and runs the checks, on a thread of `pool`.

    With `check` the engine's own checks (integrity, full-text indexes) are run on the moment too.
    """

    def __init__(self, held: Held, parent: PartImage | None, *, check: bool, pool: ThreadPoolExecutor) -> None:
        self._held = held
        self._check = check
        self._bits = {one.map.collection: one.bits for one in parent.collections} if parent else {}
        self._stopped = False
        self._groups: SimpleQueue[Group | None] = SimpleQueue()
        self.findings: list[Finding] = []
        self._done = pool.submit(self._run)

    def groups(self) -> Iterator[Group]:
        """Yield the groups of records as they are made; then raise what went wrong, if something did. Once only."""
        while (group := self._groups.get()) is not None:
            yield group
        self._done.result()

    def stop(self) -> None:
        """Read no further than the present group."""
        self._stopped = True

    def _run(self) -> None:
        try:
            for group in self._held.opened.scan(self._bits) if not self._stopped else ():
                if self._stopped:
                    return
                self._groups.put(group)
            if self._check:
                self.findings = self._held.opened.check()
        finally:
            self._groups.put(None)


def store_part(
    vault: Vault,
    writer: Writer,
    held: Held,
    scan: Scan,
    *,
    parent: PartImage | None,
    redact: Redact | None,
    events: Events,
) -> tuple[PartImage, list[Finding], list[Omission]]:
    """Store a part against its parent image; return its image, findings and omissions.

    Its bytes are streamed while the scan goes on, except where the scan must have ended: it finds the vectors that
    the bytes are cut at.
    """
    if held.part.engine in SCANNED_FIRST:
        collections = _store_groups(writer, held.part.maps, scan.groups(), parent)
        entries = _store_entries(vault, writer, held, parent=parent, redact=redact, events=events)
    else:
        entries = _store_entries(vault, writer, held, parent=parent, redact=redact, events=events)
        collections = _store_groups(writer, held.part.maps, scan.groups(), parent)
    baseline = held.opened.baseline()
    if redact is not None:  # the digests are of what was there, not of what is stored
        tables = {name: msgspec.structs.replace(state, digest="") for name, state in baseline.tables.items()}
        baseline = msgspec.structs.replace(baseline, tables=tables)
    image = PartImage(
        part=held.part, how=held.opened.how, entries=tuple(entries), collections=collections, baseline=baseline
    )
    return image, [*scan.findings, *held.opened.findings()], held.opened.omitted()


def _store_entries(
    vault: Vault, writer: Writer, held: Held, *, parent: PartImage | None, redact: Redact | None, events: Events
) -> list[StoredEntry]:
    old = {one.entry.path: one.recipe for one in parent.entries if one.recipe} if parent else {}
    entries = [*_folders_above(held), *held.opened.entries()]
    events.step(held.part.name, sum(entry.size for entry in entries))
    same = _unchanged(held, entries, old)
    changed = [entry for entry in entries if entry.path not in same]
    blocks = known_blocks(vault, held.opened, changed, parent)
    stored = []
    for entry in entries:
        if entry.kind != "file":
            stored.append(StoredEntry(entry=entry))
            continue
        buffers = _counted(held.opened.stream(entry), events)
        runs = held.opened.runs(entry)
        before = old.get(entry.path)
        if redact is not None:
            recipe = writer.put_stream([redact(b"".join(buffers))], before)
        elif runs:
            recipe = same.get(entry.path) or writer.put_blocks(buffers, runs, blocks)
        else:
            recipe = writer.put_stream(buffers, before)
        stored.append(StoredEntry(entry=msgspec.structs.replace(entry, size=recipe.size), recipe=recipe))
    return stored


def _folders_above(held: Held) -> list[Entry]:
    """Return the folders between the store's root and the part, so that their permissions come back too."""
    found: list[Entry] = []
    for folder in () if is_url(held.part.path) else PurePosixPath(held.part.name).parents:
        live = held.root / folder
        if folder != PurePosixPath() and live in Path(held.part.path).parents:
            with suppress(FileNotFoundError):
                now = live.stat()
                found.append(
                    Entry(path=str(folder), kind="dir", mode=stat.S_IMODE(now.st_mode), mtime_ns=now.st_mtime_ns)
                )
    return found


def _store_groups(
    writer: Writer, maps: tuple[TableMap, ...], groups: Iterable[Group], parent: PartImage | None
) -> tuple[StoredCollection, ...]:
    """Store record groups as they come, each as a delta against the parent's group of the same bucket."""
    bases = {
        (one.map.collection, one.bits, group.bucket): group.chunk
        for one in (parent.collections if parent else ())
        for group in one.groups
    }
    bits: dict[str, int] = {}
    stored: dict[str, list[StoredGroup]] = {table.collection: [] for table in maps}
    for group in groups:
        chunk = writer.put_blob(group.data, bases.get((group.collection, group.bits, group.bucket)))
        bits[group.collection] = group.bits
        stored[group.collection].append(StoredGroup(bucket=group.bucket, rows=group.rows, chunk=chunk))
    return tuple(
        StoredCollection(
            map=table,
            bits=bits.get(table.collection, 0),
            rows=sum(group.rows for group in stored[table.collection]),
            groups=tuple(stored[table.collection]),
        )
        for table in maps
    )


def _unchanged(held: Held, entries: Iterable[Entry], old: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return the parent's recipes of the files with vectors that are, byte for byte, as it has them."""
    there = [(entry, old[entry.path]) for entry in entries if entry.path in old and held.opened.runs(entry)]
    return {entry.path: before for entry, before in there if _equal(held, entry, before)}


def _equal(held: Held, entry: Entry, before: Recipe) -> bool:
    """Say whether a file is, byte for byte, what the parent has under its name."""
    if before.size != entry.size:
        return False
    hasher = blake3()
    for buffer in held.opened.stream(entry):
        hasher.update(buffer)
    return hasher.digest() == before.digest


def _counted(buffers: Iterable[bytes], events: Events) -> Iterator[bytes]:
    for buffer in buffers:
        events.advance(len(buffer))
        yield buffer

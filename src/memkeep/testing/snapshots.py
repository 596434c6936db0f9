"""The smallest snapshots: named bytes, with neither a store nor an engine, for tests of the vault alone."""

from collections.abc import Mapping
from contextlib import suppress

import msgspec

from memkeep.errors import DamagedError
from memkeep.model import Entry, Part, PartImage, PartSummary, Recipe, Role, Snapshot, StoredEntry
from memkeep.ops.prove import chunks_of, still_there
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Writer

SYSTEM, PATH, PART = "test", "/nowhere", "files"


def take(vault: Vault, files: Mapping[str, bytes], *, created: str, check: bool = False) -> Snapshot:
    """Commit a snapshot of some files against the latest one; `DamagedError` when what it leans on has gone."""
    parent = vault.latest_of(SYSTEM, PATH)
    before = None
    with suppress(DamagedError):  # as in a real backup: a damaged parent costs space, never the backup
        before = vault.image(parent.parts[0]) if parent else None
    old = {one.entry.path: one.recipe for one in before.entries} if before else {}
    with vault.writer(check=check) as writer:
        entries = tuple(
            StoredEntry(entry=Entry(path=path, size=len(data)), recipe=writer.put_stream(_buffers(data), old.get(path)))
            for path, data in files.items()
        )
        summary = _summary(writer, entries, parent.parts[0].image if parent else None)
        writer.flush()
        still_there(vault, chunks_of([summary], [vault.image(summary)]))
        snapshot = Snapshot(
            created=created,
            system=SYSTEM,
            path=PATH,
            host="here",
            parent=parent.id if parent else None,
            parts=(summary,),
        )
        return writer.commit(snapshot, *vault.next_seal())


def read(vault: Vault, snapshot: Snapshot) -> dict[str, bytes]:
    """Return the files of a snapshot; `DamagedError` when one is not what was written."""
    image = vault.image(snapshot.parts[0])
    return {one.entry.path: vault.reader.read(one.recipe) for one in image.entries if one.recipe is not None}


def _summary(writer: Writer, entries: tuple[StoredEntry, ...], before: Recipe | None) -> PartSummary:
    part = Part(name=PART, engine="files", role=Role.CANONICAL, path=PATH)
    data = msgspec.msgpack.encode(PartImage(part=part, how="held still", entries=entries))
    return PartSummary(
        name=PART,
        engine=part.engine,
        role=part.role,
        how="held still",
        files=len(entries),
        bytes=sum(one.entry.size for one in entries),
        image=writer.put_stream([data], before, text=True),
    )


def _buffers(data: bytes) -> list[bytes]:
    """Cut bytes where no chunk ends, as a source may do."""
    size = 100_001
    return [data[at : at + size] for at in range(0, len(data), size)]

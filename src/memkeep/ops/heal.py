"""Heal snapshots that have lost chunks with what their twins in another vault have."""

from collections.abc import Collection
from contextlib import suppress

import msgspec

from memkeep.errors import DamagedError
from memkeep.events import SILENT, Events
from memkeep.model import PartImage, Snapshot
from memkeep.ops.prove import chunks_of
from memkeep.ops.survey import survey
from memkeep.ops.twins import identity, twins, with_ids
from memkeep.vault import format
from memkeep.vault.transfer import Transfer
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Writer


def wounds(vault: Vault) -> set[str] | None:
    """Return the packs that are missing or cut off, as far as lists tell; None when no index segment is lost either.

    What such a pack has is looked for elsewhere from now on.
    """
    found = {key for one in survey(vault) if (key := one.object or "").startswith((format.DATA, format.INDEX))}
    if not found:
        return None
    packs = {key for key in found if key.startswith(format.DATA)}
    for pack in packs:
        vault.index.distrust(pack)
    return packs


def heal(source: Vault, target: Vault, names: Collection[str], *, events: Events = SILENT) -> list[str]:
    """Store again what those snapshots of the target lack and their twins in the source have.

    Chunks are named by what they hold, so with them the snapshots are whole again as they are. The target's damaged
    packs must be distrusted before. Values that are taken out of configurations stay out of a target without
    encryption. Returns the keys of what was written, which no seal names yet.
    """
    theirs = twins(source)
    hurt = [one for one in target.snapshots() if one.id in names]
    pairs = [(theirs[identity(target, one)], one) for one in hurt if identity(target, one) in theirs]
    run = _Healing(source, target, events)
    with target.writer(check=True) as writer:
        for twin, one in pairs:
            run.bring(writer, twin, {part.name for part in one.parts})
        return list(writer.objects)


class _Healing:
    """The bringing of chunks, each once."""

    def __init__(self, source: Vault, target: Vault, events: Events) -> None:
        self._source = source
        self._events = events
        self._clear = not target.keys.encrypted
        self._transfer = Transfer(source, target)

    def bring(self, writer: Writer, twin: Snapshot, parts: Collection[str]) -> None:
        """Bring what a snapshot of the source has of those parts, their images too."""
        self._events.step(f"healing by {twin.id[:8]}")
        for part in twin.parts:
            if part.name in parts:
                with suppress(DamagedError):  # what the source lacks too is lost
                    self._bring(writer, self._source.image(part))
        writer.flush()

    def _bring(self, writer: Writer, image: PartImage) -> None:
        secret = self._clear and bool(image.part.secrets)
        if secret:
            image = msgspec.structs.replace(image, entries=())
        places = self._source.reader.closure(self._transfer.missing(chunks_of((), [image])))
        self._transfer.carry(places, writer, self._events)
        named = chunks_of((), [image])
        if not secret and named <= self._transfer.ids.keys():
            told = with_ids(image, self._transfer.ids.__getitem__)
            writer.put_stream([msgspec.msgpack.encode(told)], text=True)

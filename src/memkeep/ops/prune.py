"""Give back the space of what no snapshot needs any more."""

from contextlib import ExitStack
from datetime import timedelta

import msgspec

from memkeep import clock
from memkeep.errors import DamagedError, StorageError
from memkeep.events import SILENT, Events
from memkeep.ops.hold import held_until
from memkeep.ops.prove import chunks_of
from memkeep.vault import format
from memkeep.vault import prune as pruning
from memkeep.vault.lease import sweep_leases
from memkeep.vault.vault import Vault

GRACE = timedelta(hours=24)  # longer than any backup takes


class PruneResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune did, or in a dry run would do; sizes in bytes.

    `marked_bytes` go with the first prune after `marked_until`. `held` names what the storage did not give up, and why.
    Of what was removed, `locked_bytes` are hidden only, and take space until `locked_until` at most: Object Lock.
    """

    dry_run: bool
    removed_bytes: int
    removed_objects: int
    copied_bytes: int
    marked_bytes: int
    marked_until: str | None
    kept_bytes: int
    locked_bytes: int
    locked_objects: int
    locked_until: str | None
    held: tuple[str, ...]


def prune(
    vault: Vault, *, grace: timedelta | None = None, dry_run: bool = False, events: Events = SILENT
) -> PruneResult:
    """Mark what no snapshot needs, and remove what was marked for longer than the grace period; backups may go on.

    The default grace is none where lists are fresh, since a running backup is seen there by its lease, and a day
    elsewhere. A dry run writes nothing, not even a lease. Raises `VaultLeasedError` while another prune is at work, and
    `DamagedError`, with nothing changed, when what a snapshot needs can't be told.
    """
    if grace is None:
        grace = timedelta(0) if vault.storage.capabilities.fresh else GRACE
    if not dry_run:
        vault.check_removes()
    held = vault.lease("prune", exclusive=True)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(held)
        vault.refresh()
        known: dict[str, set[bytes]] = {}
        events.step("looking what is needed")
        found = pruning.judge(vault, _needed(vault, known))
        if not dry_run:
            events.step("marking", sum(found.objects.values()))
            pruning.condemn(vault, found, held, grace=grace)
        marks = pruning.due(vault, held)
        # Listed again after the marks: who committed without having seen them is among these now.
        due = pruning.condemned_by(vault, marks, _needed(vault, known))
        locked = held_until(vault, due.objects | (found.objects if dry_run and not grace else {}))
        refused: list[StorageError] = []
        if not dry_run:
            events.step("removing", sum(due.objects.values()))
            refused = pruning.sweep(vault, due, held)
            sweep_leases(vault.storage, vault.keys)
        there = {stat.key: stat.size for stat in vault.storage.list("") if not stat.key.startswith(format.LEASES)}
        waiting = [mark for key, mark in vault.marks().items() if key not in marks]
    gone = {key: size for key, size in due.objects.items() if dry_run or key not in there}
    marked = {key for mark in waiting for key in mark.objects}
    until = max((mark.ready for mark in waiting), default=None)
    if dry_run:
        if grace:
            marked |= found.objects.keys()
            until = (clock.now() + grace).isoformat() if found.objects else until
        else:
            gone |= found.objects
    locked = {key: day for key, day in locked.items() if key in gone}
    return PruneResult(
        dry_run=dry_run,
        removed_bytes=sum(gone.values()),
        removed_objects=len(gone),
        copied_bytes=sum(place.length for place in found.copied.values()),
        marked_bytes=sum(there.get(key, 0) for key in marked),
        marked_until=until,
        kept_bytes=sum(size for key, size in there.items() if key not in gone),
        locked_bytes=sum(gone[key] for key in locked),
        locked_objects=len(locked),
        locked_until=max(locked.values()).isoformat() if locked else None,
        held=tuple(error.message for error in refused),
    )


def _needed(vault: Vault, known: dict[str, set[bytes]]) -> set[bytes]:
    """Return every chunk that a snapshot names; those of `known` snapshots are not read again.

    Raises `DamagedError` for a snapshot or an index segment that can't be read: what it needs can't be told.
    """
    listed = vault.snapshots()
    damaged = [error for error in vault.damaged if error.obj.startswith((format.SNAPSHOTS, format.INDEX))]
    if damaged:
        raise DamagedError(
            f"{damaged[0].message}; as long as what it needs can't be told, nothing can be removed",
            obj=damaged[0].obj,
            hint="memkeep repair",
        )
    for one in listed:
        if one.id not in known:
            known[one.id] = chunks_of(one.parts, [vault.image(part) for part in one.parts])
    return set().union(*(known[one.id] for one in listed))

"""Bring a snapshot back: into a new folder, or in place of the live store."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from memkeep.errors import MemkeepError, RefusedError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Omission, PartImage, Rung, Snapshot, Store
from memkeep.ops import in_place as replacing
from memkeep.ops.discover import discover
from memkeep.ops.entries import check_entries
from memkeep.ops.materialise import materialise
from memkeep.ops.new_folder import new_folder, refuse_inside, refuse_taken
from memkeep.vault.vault import Vault


class RestoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was (or in a dry run: would be) restored, and for an in-place restore how to undo it."""

    snapshot: str
    system: str
    to: str
    parts: tuple[str, ...]
    files: int
    bytes: int
    records: int | None
    rung: Rung
    dry_run: bool
    parked: str | None
    undo: str | None
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...] = ()


def restore(
    vault: Vault,
    snapshot: str,
    *,
    to: Path | None = None,
    parts: Sequence[str] = (),
    in_place: bool = False,
    confirm: str | None = None,
    even_if_open: bool = False,
    dry_run: bool = False,
    events: Events = SILENT,
) -> RestoreResult:
    """Restore a snapshot, or some of its parts, and check the result before it is called done.

    With `to`, a folder that does not exist or is empty, the parts lie under it as they lay under the store's root.
    With `in_place` what is there is parked beside it first; `confirm` must be the name of the system. Raises
    `RefusedError` (target exists, store open, not confirmed), `DamagedError` (the vault can't give the bytes back).
    """
    chosen = vault.resolve(snapshot)
    if (to is None) == (not in_place):
        raise UsageError("say where to: --to DIR, or --in-place", hint=f"memkeep restore {chosen.id[:8]} --to DIR")
    images = _choose(vault, chosen, parts)
    if in_place:
        return _in_place(vault, chosen, images, confirm, even_if_open=even_if_open, dry_run=dry_run, events=events)
    target = Path(to or "").expanduser().absolute()
    refuse_taken(target, chosen.id[:8])
    refuse_inside(target, chosen.id[:8], {"the live store": Path(chosen.path), "the vault": vault.storage.folder})
    check_entries(images)  # before anything is written: a path that leaves the target is the vault's lie
    if not dry_run:
        with new_folder(target) as staging:
            events.step("restoring", sum(one.entry.size for image in images for one in image.entries))
            materialise(vault, images, staging, events)
    return _result(chosen, images, str(target), dry_run=dry_run)


def _choose(vault: Vault, snapshot: Snapshot, parts: Sequence[str]) -> list[PartImage]:
    names = [part.name for part in snapshot.parts]
    unknown = [name for name in parts if name not in names]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], names, 1, 0.3)
        raise UsageError(
            f"snapshot {snapshot.id[:8]} has no part called {unknown[0]}"
            + (f"; did you mean {near[0]}?" if near else ""),
            hint=f"memkeep show {snapshot.id[:8]}",
        )
    return [vault.image(part) for part in snapshot.parts if not parts or part.name in parts]


def _in_place(
    vault: Vault,
    snapshot: Snapshot,
    images: list[PartImage],
    confirm: str | None,
    *,
    even_if_open: bool,
    dry_run: bool,
    events: Events,
) -> RestoreResult:
    if confirm != snapshot.system and not dry_run:
        raise RefusedError(
            f"restoring over {snapshot.path} must be confirmed by the name of its system",
            hint=f"memkeep restore {snapshot.id[:8]} --in-place --confirm={snapshot.system}",
            code="not_confirmed",
        )
    check_entries(images)
    plan = replacing.plan(snapshot, images, _live(snapshot))
    if not even_if_open:
        replacing.refuse_if_open(plan)
    if dry_run:
        return _result(snapshot, images, str(plan.root), dry_run=True)
    parked = replacing.apply(vault, plan, images, events)
    return _result(
        snapshot, images, str(plan.root), parked=str(parked), undo=f"sh {replacing.quoted(parked / 'undo.sh')}"
    )


def _live(snapshot: Snapshot) -> Store | None:
    """Return the live store that the snapshot is of, if something of it is still there."""
    try:
        found = discover([Path(snapshot.path)])
    except MemkeepError:
        return None
    return next((one for one in found if (one.system, one.path) == (snapshot.system, snapshot.path)), None)


def _result(
    snapshot: Snapshot,
    images: list[PartImage],
    to: str,
    *,
    dry_run: bool = False,
    parked: str | None = None,
    undo: str | None = None,
) -> RestoreResult:
    files = [stored for image in images for stored in image.entries if stored.entry.kind == "file"]
    primary = [one for image in images for one in image.collections if one.map.primary]
    return RestoreResult(
        snapshot=snapshot.id,
        system=snapshot.system,
        to=to,
        parts=tuple(image.part.name for image in images),
        files=len(files),
        bytes=sum(stored.entry.size for stored in files),
        records=sum(one.rows for one in primary) if primary else None,
        rung=Rung.RESTORABLE if not dry_run else Rung.NONE,
        dry_run=dry_run,
        parked=parked,
        undo=undo,
        omitted=snapshot.omitted,
    )

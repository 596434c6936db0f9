"""Bring a snapshot back: into a new folder, or in place of the live store."""

import os
import shlex
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import msgspec

from memkeep.config import Config
from memkeep.engines.merging import Conflict
from memkeep.errors import MemkeepError, RefusedError, UsageError, quoted
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Omission, PartImage, Rung, Snapshot, Store, is_url
from memkeep.ops import in_place as replacing
from memkeep.ops import in_server as serving
from memkeep.ops.discover import discover
from memkeep.ops.drift import mending
from memkeep.ops.entries import check_entries
from memkeep.ops.materialise import materialise
from memkeep.ops.merge import merge
from memkeep.ops.merged import MergeResult
from memkeep.ops.new_folder import new_folder, refuse_inside, refuse_taken
from memkeep.ops.sides import of_stores, one_store
from memkeep.vault.vault import Vault


class RestoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was (or in a dry run: would be) restored, and how to undo it where something was changed."""

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
    merged: MergeResult | None = None
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...] = ()


def restore(
    vault: Vault,
    snapshot: str,
    *,
    to: str | PathLike[str] | None = None,
    parts: Sequence[str] = (),
    in_place: bool = False,
    confirm: str | None = None,
    even_if_open: bool = False,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> RestoreResult:
    """Restore a snapshot, or some of its parts, and check the result before it is called done.

    With `to`, a folder that does not exist or is empty, the parts lie under it as they lay under the store's root;
    with `to` the URL of a server, the parts that such a server keeps are put into it.
    With `in_place` what is there is parked beside it first, and what is in a server in a snapshot of its own;
    `confirm` must be the name of the system, and `latest` is the latest of that system. Raises
    `RefusedError` (target exists, store open, not confirmed), `DamagedError` (the vault can't give the bytes back).
    """
    chosen = vault.resolve(snapshot, of=lambda one: in_place and one.system == confirm)
    if (to is None) == (not in_place):
        raise UsageError("say where to: --to DIR, or --in-place", hint=f"memkeep restore {chosen.id[:12]} --to DIR")
    images = _choose(vault, chosen, parts)
    if in_place:
        return _in_place(
            vault, chosen, images, confirm, even_if_open=even_if_open, dry_run=dry_run, config=config, events=events
        )
    if is_url(os.fspath(to or "")):
        url = serving.address(os.fspath(to or ""), config)
        return _into_server(vault, chosen, images, url, dry_run=dry_run, events=events)
    target = Path(to or "").expanduser().absolute()
    refuse_taken(target, chosen.id[:12])
    refuse_inside(target, chosen.id[:12], {"the live store": Path(chosen.path), "the vault": vault.storage.folder})
    check_entries(images)  # before anything is written: a path that leaves the target is the vault's lie
    mends = mending(vault, chosen)
    if not dry_run:
        with new_folder(target) as staging:
            events.step("restoring", sum(one.entry.size for image in images for one in image.entries))
            materialise(vault, images, staging, events)
            mends.mend(staging)
    findings = [*mends.findings(images), *serving.as_files(images, target)]
    return _result(chosen, images, str(target), dry_run=dry_run, findings=findings)


def restore_into(
    vault: Vault,
    snapshot: str,
    into: str,
    *,
    conflict: Conflict = "skip",
    user: str | None = None,
    parts: Sequence[str] = (),
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> RestoreResult:
    """Put the records of a snapshot, or of one user in it, among those of a live store; see `merge`."""
    found = discover([into], config)
    chosen = vault.resolve(snapshot, of=of_stores(found))
    images = _choose(vault, chosen, parts)
    check_entries(images)
    store = one_store(found, into, chosen)
    done = merge(vault, chosen, images, store, conflict=conflict, user=user, dry_run=dry_run, events=events)
    undo = f"memkeep restore {done.kept[:12]} --in-place --confirm={store.system}" if done.kept else None
    result = _result(
        chosen,
        [image for image in images if image.part.name in done.images],
        store.path,
        dry_run=dry_run,
        parked=f"snapshot {done.kept[:12]}" if done.kept else None,
        undo=undo,
        findings=done.findings,
        left=done.omitted,
    )
    return msgspec.structs.replace(result, merged=done.result, rung=Rung.NONE)


def _choose(vault: Vault, snapshot: Snapshot, parts: Sequence[str]) -> list[PartImage]:
    names = [part.name for part in snapshot.parts]
    unknown = [name for name in parts if name not in names]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], names, 1, 0.3)
        raise UsageError(
            f"snapshot {snapshot.id[:12]} has no part called {unknown[0]}"
            + (f"; did you mean {near[0]}?" if near else ""),
            hint=f"memkeep show {snapshot.id[:12]}",
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
    config: Config | None,
    events: Events,
) -> RestoreResult:
    if confirm != snapshot.system and not (dry_run and confirm is None):
        raise RefusedError(
            f"restoring over {snapshot.path} must be confirmed by the name of its system, {snapshot.system}",
            hint=f"memkeep restore {snapshot.id[:12]} --in-place --confirm={snapshot.system}",
            code="not_confirmed",
        )
    if snapshot.user is not None:
        raise RefusedError(
            f"snapshot {snapshot.id[:12]} holds the memory of {snapshot.user} alone: in place of all it would be the "
            "end of everybody else's",
            hint=f"memkeep restore {snapshot.id[:12]} --into {shlex.quote(snapshot.path)}",
            code="one_user",
        )
    check_entries(images)
    live = _live(snapshot, config)
    served = [image for image in images if is_url(image.part.path)]
    filed = [image for image in images if not is_url(image.part.path)]
    plan = replacing.plan(snapshot, filed, live) if filed else None
    mends = mending(vault, snapshot)
    if plan is not None and not even_if_open:
        replacing.refuse_if_open(plan)
    if dry_run:
        return _result(snapshot, images, str(plan.root) if plan is not None else snapshot.path, dry_run=True)
    findings = mends.findings(filed)
    parked: list[str] = []
    undo: list[str | None] = []
    homes = serving.at_home(served, live)
    serving.refuse_unkept(homes, live)
    names = [image.part.name for image in served]
    before = serving.park(vault, live, events, served=names) if served else None
    done: list[serving.Aimed] = []
    try:
        for one in homes:
            findings += serving.rebuild(vault, [one], replace=True, events=events)
            done.append(one)
        if plan is not None:
            folder = replacing.apply(vault, msgspec.structs.replace(plan, mending=mends), filed, events)
            parked.append(str(folder))
            undo.append(f"sh {quoted(folder / 'undo.sh')}")
    except BaseException:
        serving.put_back(vault, before, done, events)
        raise
    if before is not None:
        parked.append(f"snapshot {before[:12]}")
        undo.append(serving.undo(vault, before, homes, snapshot.system))
    return _result(
        snapshot,
        images,
        str(plan.root) if plan is not None else snapshot.path,
        parked=" and ".join(parked) or None,
        undo=" && ".join(filter(None, undo)) or None,
        findings=findings,
    )


def _into_server(
    vault: Vault, snapshot: Snapshot, images: list[PartImage], url: str, *, dry_run: bool, events: Events
) -> RestoreResult:
    """Put what fits into a server where nothing of it is yet; the other parts are said to be left out."""
    aimed = serving.aimed(images, url, snapshot.id[:8])
    check_entries([image for image, _ in aimed])
    serving.refuse_taken(aimed)
    findings = [] if dry_run else serving.rebuild(vault, aimed, replace=False, events=events)
    chosen = [image for image, _ in aimed]
    left = serving.left(images, aimed)
    return _result(snapshot, chosen, url, dry_run=dry_run, findings=findings, left=left)


def _live(snapshot: Snapshot, config: Config | None) -> Store | None:
    """Return the live store that the snapshot is of, if something of it is still there."""
    try:
        found = discover([snapshot.path], config)
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
    findings: Sequence[Finding] = (),
    left: Sequence[Omission] = (),
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
        omitted=(*snapshot.omitted, *left),
        findings=tuple(findings),
    )

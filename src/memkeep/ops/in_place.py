"""Put a snapshot in the place of the live store, so that there is never a mix of old and new parts.

    1. all parts are written and checked in a staging folder beside the store;
    2. a journal in the store's root says which moves are to come;
    3. what is there (with its -wal, -shm and -journal) is moved into a parking folder beside it;
    4. the new parts are moved into their places; the journal is removed.

Moves are renames on one file system. If anything fails, what was moved is moved back. If the machine dies between 2
and 4 the journal stays; the next in-place restore moves everything back first, and a backup refuses until then.
"""

import contextlib
import errno
import os
import secrets
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from memkeep import clock
from memkeep.errors import MemkeepError, RefusedError, StorageError
from memkeep.events import Events
from memkeep.model import PartImage, Snapshot, Store
from memkeep.ops.engines import engine
from memkeep.ops.live import SIDECARS, holders
from memkeep.ops.materialise import materialise, place
from memkeep.ops.scratch import scratch
from memkeep.vault.vault import Vault

JOURNAL = ".memkeep-restore.json"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of a snapshot go: part name -> live path, and the folder that it is staged and parked in."""

    snapshot: str
    system: str
    root: Path
    targets: dict[str, Path]
    anchors: dict[str, Path]


class _Move(msgspec.Struct, frozen=True):
    source: str
    target: str


class _Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The moves of steps 3 and 4, in order."""

    snapshot: str
    staging: list[str]
    moves: list[_Move]


def plan(snapshot: Snapshot, images: Sequence[PartImage], live: Store | None) -> Plan:
    """Say where each part belongs: under the store's root, or where the live store itself keeps that part.

    A snapshot's own word for a place outside of the root is not enough; then `RefusedError` says how to go on.
    """
    names = {image.part.name for image in images}
    path = Path(live.root if live is not None else snapshot.path)
    root = path.parent if live is None and path.name in names and not path.is_dir() else path
    known = {part.name: Path(part.path) for part in live.parts} if live is not None else {}
    targets, anchors = {}, {}
    for image in images:
        name = image.part.name
        inside = place(root, name)
        recorded = Path(image.part.path)
        targets[name] = known.get(name, inside)
        if name not in known and recorded != inside and root not in recorded.parents:
            raise RefusedError(
                f"{name} was kept at {recorded}, outside of {root}, and no live store says so any more",
                hint=f"memkeep restore {snapshot.id[:8]} --to DIR",
                code="part_elsewhere",
            )
        anchors[name] = root if root in targets[name].parents else targets[name].parent
    return Plan(snapshot=snapshot.id, system=snapshot.system, root=root, targets=targets, anchors=anchors)


def refuse_if_open(plan: Plan) -> None:
    """Raise `RefusedError` while another process has one of the targets open."""
    found = holders(list(plan.targets.values()))
    if found:
        who = ", ".join(f"{one.name} (pid {one.pid})" for one in found[:3])
        raise RefusedError(
            f"{found[0].path} is open in {who}",
            hint="stop the agent and run this again, or add --even-if-open",
            code="store_open",
        )


def interrupted(root: Path) -> bool:
    """Say whether an in-place restore of the store at `root` was interrupted."""
    return (root / JOURNAL).exists()


def apply(vault: Vault, plan: Plan, images: Sequence[PartImage], events: Events) -> Path:
    """Do it; return the parking folder, which holds what was there and `undo.sh`."""
    plan.root.mkdir(parents=True, exist_ok=True)
    recover(plan.root)
    token = f"{clock.now().strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"
    anchors = list(dict.fromkeys((plan.root, *plan.anchors.values())))
    staging = {anchor: anchor / f".memkeep-staging-{token}" for anchor in anchors}
    parked = {anchor: anchor / f".memkeep-parked-{token}" for anchor in anchors}
    try:
        events.step("restoring", sum(one.entry.size for image in images for one in image.entries))
        for anchor in anchors:
            staging[anchor].mkdir(mode=0o700, parents=True)
            mine = [image for image in images if plan.anchors[image.part.name] == anchor]
            materialise(vault, mine, staging[anchor], events)
            parked[anchor].mkdir(mode=0o700)
        away, home = _moves(plan, images, staging, parked)
        _write_undo(parked[plan.root], away, home)
        journal = _Journal(
            snapshot=plan.snapshot, staging=[str(folder) for folder in staging.values()], moves=away + home
        )
        _durable(plan.root / JOURNAL, msgspec.json.encode(journal))
        try:
            for move in journal.moves:
                _move(move.source, move.target)
            _sync_all(journal.moves)
        except BaseException:
            recover(plan.root)
            raise
        (plan.root / JOURNAL).unlink()
        _sync(plan.root)
    except OSError as error:
        raise StorageError(
            f"could not replace {plan.root}: {error.strerror} ({error.filename})",
            unchanged="The store is as it was.",
            hint=f"ls -ld {plan.root}",
        ) from error
    finally:
        if not interrupted(plan.root):
            for folder in staging.values():
                shutil.rmtree(folder, ignore_errors=True)
            for folder in parked.values():
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only where nothing was parked
    return parked[plan.root]


def recover(root: Path) -> bool:
    """Undo an interrupted in-place restore, if there was one; return whether there was."""
    path = root / JOURNAL
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=_Journal)
    except FileNotFoundError:
        return False
    except msgspec.MsgspecError as error:
        raise RefusedError(f"{path} is not a journal of memkeep", hint=f"cat {shlex.quote(str(path))}") from error
    for move in reversed(journal.moves):
        if os.path.lexists(move.target) and not os.path.lexists(move.source):
            Path(move.source).parent.mkdir(parents=True, exist_ok=True)
            _move(move.target, move.source)
    _sync_all(journal.moves)
    path.unlink()
    _sync(root)
    for folder in journal.staging:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def refuse_interrupted(root: Path) -> None:
    """Raise while an interrupted restore has left a mix: it must not be backed up."""
    if interrupted(root):
        raise MemkeepError(
            f"an in-place restore of {root} was interrupted: old and new parts are mixed",
            unchanged="Nothing was backed up.",
            hint="memkeep restore latest --in-place --confirm=SYSTEM   (it first puts the old parts back)",
            code="restore_interrupted",
        )


def quoted(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def _moves(
    plan: Plan, images: Sequence[PartImage], staging: dict[Path, Path], parked: dict[Path, Path]
) -> tuple[list[_Move], list[_Move]]:
    """Return the moves that park what is there, and those that place the new.

    A database's sidecars go with it, even when the database itself is gone. Of a folder of files only what the part
    holds is moved: what it leaves out (.git, .env) stays where it is.
    """
    away, home = [], []
    for image in images:
        name = image.part.name
        target, anchor = plan.targets[name], plan.anchors[name]
        new, old = staging[anchor], parked[anchor]
        if image.part.engine == "files" and (target.is_dir() or (new / name).is_dir()):
            away += [_Move(str(target / path), str(old / name / path)) for path in _files_in(image, plan)]
            home += [
                _Move(str(new / stored.entry.path), str(target / PurePosixPath(stored.entry.path).relative_to(name)))
                for stored in image.entries
                if stored.entry.kind != "dir"
            ]
            continue
        for tail in ("", *SIDECARS):
            live = target.with_name(target.name + tail)
            if os.path.lexists(live):
                away.append(_Move(str(live), str(old / (name + tail))))
        if os.path.lexists(new / name):
            home.append(_Move(str(new / name), str(target)))
    return away, home


def _files_in(image: PartImage, plan: Plan) -> list[PurePosixPath]:
    """Return the files and links that a folder part holds now, relative to the folder."""
    name = image.part.name
    part = msgspec.structs.replace(image.part, path=str(plan.targets[name]))
    if not plan.targets[name].is_dir():
        return []
    with scratch() as folder, engine("files").freeze(part, plan.root, folder) as opened:
        return [PurePosixPath(one.path).relative_to(name) for one in opened.entries() if one.kind != "dir"]


def _move(source: str, target: str) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "something is in the way", target)
    Path(source).rename(target)


def _sync_all(moves: Sequence[_Move]) -> None:
    for folder in {Path(end).parent for move in moves for end in (move.source, move.target)}:
        if folder.is_dir():
            _sync(folder)


def _write_undo(parked: Path, away: Sequence[_Move], home: Sequence[_Move]) -> None:
    """Write the script that puts back what was parked; what the restore had placed is kept under `replaced/`."""
    lines = ["#!/bin/sh", "# Puts back what this restore parked; what it had placed goes into replaced/.", "set -e"]
    for number, move in enumerate(home):
        kept = parked / "replaced" / str(number)
        lines.append(f"mkdir -p {quoted(kept)}")
        for tail in ("", *SIDECARS):
            path = shlex.quote(move.target + tail)
            lines.append(f"if [ -e {path} ]; then mv {path} {quoted(kept)}; fi")
    lines += [f"mv {shlex.quote(move.target)} {shlex.quote(move.source)}" for move in away]
    _durable(parked / "undo.sh", ("\n".join(lines) + "\n").encode())


def _durable(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Put a snapshot in the place of the live store, so that there is never a mix of old and new parts.

    1. all parts are written and checked in a staging folder beside the store;
    2. a journal in the store's root says which moves are to come;
    3. what is there (with its -wal, -shm and -journal) is moved into a parking folder beside it;
    4. the new parts are moved into their places; the journal is removed.

Moves are renames on one file system. If anything fails, what was moved is moved back. If the machine dies between 2
and 4 the journal stays; the next in-place restore moves everything back first, and a backup refuses until then.
"""

import os
import secrets
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from memkeep import clock
from memkeep.errors import MemkeepError, RefusedError, StorageError
from memkeep.events import Events
from memkeep.model import PartImage, Snapshot
from memkeep.ops.live import SIDECARS, holders
from memkeep.ops.materialise import materialise, place
from memkeep.vault.vault import Vault

JOURNAL = ".memkeep-restore.json"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of a snapshot go: part name -> live path; all of it is on one root."""

    snapshot: str
    system: str
    root: Path
    targets: dict[str, Path]


class _Move(msgspec.Struct, frozen=True):
    source: str
    target: str


class _Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The moves of steps 3 and 4, in order."""

    snapshot: str
    staging: str
    moves: list[_Move]


def plan(snapshot: Snapshot, images: Sequence[PartImage]) -> Plan:
    """Say where each part belongs. The root is the store's own path; no part may lie outside of it."""
    path = Path(snapshot.path)
    names = {image.part.name for image in images}
    root = path.parent if path.name in names and not path.is_dir() else path
    return Plan(
        snapshot=snapshot.id,
        system=snapshot.system,
        root=root,
        targets={image.part.name: place(root, image.part.name) for image in images},
    )


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
    stamp = clock.now().strftime("%Y%m%dT%H%M%S")
    staging = plan.root / f".memkeep-staging-{secrets.token_hex(4)}"
    parked = plan.root / f".memkeep-parked-{stamp}-{secrets.token_hex(2)}"
    try:
        staging.mkdir(mode=0o700)
        events.step("restoring", sum(one.entry.size for image in images for one in image.entries))
        materialise(vault, images, staging, events)
        parked.mkdir(mode=0o700)
        moves = _moves(plan, staging, parked)
        _write_undo(parked, moves, staging)
        journal = _Journal(snapshot=plan.snapshot, staging=str(staging), moves=moves)
        _durable(plan.root / JOURNAL, msgspec.json.encode(journal))
        try:
            for move in moves:
                _move(move.source, move.target)
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
            shutil.rmtree(staging, ignore_errors=True)
    return parked


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
    path.unlink()
    _sync(root)
    shutil.rmtree(journal.staging, ignore_errors=True)
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


def _moves(plan: Plan, staging: Path, parked: Path) -> list[_Move]:
    """Park what is there, then place the new. A part's sidecars go with it, even when the part itself is gone."""
    away, home = [], []
    for name, target in plan.targets.items():
        for tail in ("", *SIDECARS):
            old = target.with_name(target.name + tail)
            if os.path.lexists(old):
                away.append(_Move(str(old), str(parked / (name + tail))))
        if os.path.lexists(staging / name):
            home.append(_Move(str(staging / name), str(target)))
    return away + home


def _move(source: str, target: str) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise FileExistsError(17, "something is in the way", target)
    Path(source).rename(target)
    _sync(Path(target).parent)


def _write_undo(parked: Path, moves: Sequence[_Move], staging: Path) -> None:
    """Write the script that puts back what was parked; what the restore had placed is kept under `replaced/`."""
    lines = ["#!/bin/sh", "# Puts back what this restore parked; what it had placed goes into replaced/.", "set -e"]
    for number, move in enumerate(one for one in moves if one.source.startswith(str(staging))):
        kept = parked / "replaced" / str(number) / Path(move.target).name
        lines += [f"mkdir -p {quoted(kept.parent)}", f"mv {shlex.quote(move.target)} {quoted(kept)}"]
        lines += [
            f"if [ -e {shlex.quote(move.target + tail)} ]; then mv {shlex.quote(move.target + tail)} {quoted(kept.parent)}; fi"
            for tail in SIDECARS
        ]
    for move in moves:
        if move.target.startswith(str(parked)):
            lines.append(f"mv {shlex.quote(move.target)} {shlex.quote(move.source)}")
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

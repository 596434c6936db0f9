"""Put a snapshot in the place of the live store, so that there is never a mix of old and new parts.

    1. all parts are written and checked in a staging folder beside the store;
    2. a journal in the store's root says which moves are to come;
    3. what is there (with its -wal, -shm and -journal) is moved into a parking folder beside it;
    4. the new parts are moved into their places; the journal is removed.

Moves are renames on one file system. If anything fails, what was moved is moved back. If the machine dies between 2
and 4 the journal stays; the next in-place restore moves everything back first, and a backup refuses until then.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from memkeep import clock
from memkeep.engines.catalog import SCHEMES
from memkeep.errors import MemkeepError, RefusedError, StorageError, quoted
from memkeep.events import Events
from memkeep.model import Part, PartImage, Snapshot, Store, is_url
from memkeep.ops import moves
from memkeep.ops.drift import Mending
from memkeep.ops.entries import place
from memkeep.ops.live import holders
from memkeep.ops.materialise import materialise
from memkeep.ops.moves import Move, Place
from memkeep.vault.vault import Vault

JOURNAL = ".memkeep-restore.json"
_STAGING, _PARKED = ".memkeep-staging-", ".memkeep-parked-"
_UNDO = "undo.sh"
_NEW = ".new"  # what is being written before it gets its name


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of a snapshot go: part name -> live path, and the folder that it is staged and parked in."""

    snapshot: str
    system: str
    root: Path
    targets: dict[str, Path]
    anchors: dict[str, Path]
    others: tuple[Part, ...] = ()  # live parts that the snapshot does not have, and did not leave out
    mending: Mending = Mending()


class _Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The moves of steps 3 and 4, in order."""

    snapshot: str
    staging: list[str]
    parked: list[str] = []
    moves: list[Move]


def plan(snapshot: Snapshot, images: Sequence[PartImage], live: Store | None) -> Plan:
    """Say where each part belongs: under the store's root, or where the live store itself keeps that part.

    A snapshot's own word for a place outside of the root is not enough; then `RefusedError` says how to go on. When
    all parts of the snapshot are restored, live parts that it does not have are of another moment, and go.
    """
    names = {image.part.name for image in images}
    path = Path(live.root if live is not None else snapshot.path)
    root = path.parent if live is None and path.name in names and not path.is_dir() else path
    known = {part.name: Path(part.path) for part in live.parts} if live is not None else {}
    targets = {}
    for image in images:
        name = image.part.name
        inside = place(root, name)
        recorded = Path(image.part.path)
        targets[name] = known.get(name, inside)
        if name not in known and recorded != inside and root not in recorded.parents:
            raise RefusedError(
                f"{name} was kept at {recorded}, outside of {root}, and no live store says so any more",
                hint=f"memkeep restore {snapshot.id[:12]} --to DIR",
                code="part_elsewhere",
            )
    left_out = {omission.part for omission in snapshot.omitted} | {part.name for part in snapshot.parts}
    served = frozenset(SCHEMES.values())  # what lies in servers goes another way, see `in_server`
    whole = names == {part.name for part in snapshot.parts if part.engine not in served}
    others = [
        part
        for part in (live.parts if live is not None and whole else ())
        if part.name not in left_out and not is_url(part.path)
    ]
    targets |= {part.name: Path(part.path) for part in others}
    anchors = {
        name: root if target == root or root in target.parents else target.parent for name, target in targets.items()
    }
    return Plan(
        snapshot=snapshot.id,
        system=snapshot.system,
        root=root,
        targets=targets,
        anchors=anchors,
        others=tuple(others),
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
    token = f"{clock.now().strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"
    anchors = list(dict.fromkeys((plan.root, *plan.anchors.values())))
    try:
        with _made(anchors), _alone(anchors):
            recover(plan.root)
            _sweep(anchors)
            return _replace(vault, plan, images, events, anchors, token)
    except OSError as error:
        raise StorageError(
            f"could not replace {plan.root}: {error.strerror} ({error.filename})",
            unchanged="The store is as it was.",
            hint=f"ls -ld {quoted(plan.root)}",
        ) from error


def recover(root: Path) -> bool:
    """Undo an interrupted in-place restore, if there was one; return whether there was."""
    path = root / JOURNAL
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=_Journal)
    except FileNotFoundError:
        return False
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _no_journal(path) from error
    if not all(map(_could_be_ours, journal.moves)):
        raise _no_journal(path)
    moves.undo(journal.moves)
    moves.sync(journal.moves)
    path.unlink()
    moves.sync_folder(root)
    for folder in journal.staging:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in journal.parked:
        _discard(Path(folder))
    return True


def _no_journal(path: Path) -> RefusedError:
    return RefusedError(f"{path} is not a journal of memkeep", hint=f"cat {quoted(path)}")


def _could_be_ours(move: Move) -> bool:
    """Say whether a move leads into or out of a folder that restores make, and stays where that folder lies.

    A store may come from elsewhere, its journal with it: that must not move anything about in the user's files.
    """
    for own, other in ((move.source, move.target), (move.target, move.source)):
        path = Path(own)
        for folder in path.parents:
            if folder.name.startswith((_STAGING, _PARKED)):
                fits = Path(other).is_relative_to(folder.parent) and path.is_absolute()
                return fits and "\0" not in own + other and ".." not in (*path.parts, *Path(other).parts)
    return False


def refuse_interrupted(store: Store) -> None:
    """Raise while an interrupted restore has left a mix, in the store or in another one in it: no backup of that."""
    if not store.root:
        return
    root = Path(store.root)
    below = [Path(omission.part) for omission in store.omitted if Path(omission.part).name == JOURNAL]
    if below:
        root /= below[0].parent
    if interrupted(root):
        raise MemkeepError(
            f"an in-place restore of {root} was interrupted: old and new parts are mixed",
            unchanged="Nothing was backed up.",
            hint="memkeep restore latest --in-place --confirm=SYSTEM   # it first puts the old parts back",
            code="restore_interrupted",
        )


def _replace(
    vault: Vault, plan: Plan, images: Sequence[PartImage], events: Events, anchors: list[Path], token: str
) -> Path:
    staging = {anchor: anchor / (_STAGING + token) for anchor in anchors}
    parked = {anchor: anchor / (_PARKED + token) for anchor in anchors}
    try:
        events.step("restoring", sum(one.entry.size for image in images for one in image.entries))
        for anchor in anchors:
            staging[anchor].mkdir(mode=0o700)
            mine = [image for image in images if plan.anchors[image.part.name] == anchor]
            materialise(vault, mine, staging[anchor], events)
            plan.mending.mend(staging[anchor])
            parked[anchor].mkdir(mode=0o700)
        places = {
            name: Place(target=target, anchor=anchor, staging=staging[anchor], parked=parked[anchor])
            for name, target in plan.targets.items()
            for anchor in [plan.anchors[name]]
        }
        away, home = moves.moves_of(images, plan.others, places, plan.root)
        _durable(parked[plan.root] / _UNDO, moves.undo_script(parked[plan.root], away, home).encode())
        journal = _Journal(
            snapshot=plan.snapshot,
            staging=[str(folder) for folder in staging.values()],
            parked=[str(folder) for folder in parked.values()],
            moves=away + home,
        )
        _durable(plan.root / JOURNAL, msgspec.json.encode(journal))
        try:
            moves.do(journal.moves)
            moves.sync(journal.moves)
        except BaseException:
            recover(plan.root)
            raise
        (plan.root / JOURNAL).unlink()
        moves.sync_folder(plan.root)
    except BaseException:
        if not interrupted(plan.root):
            for folder in parked.values():
                _discard(folder)
        raise
    finally:
        if not interrupted(plan.root):
            for folder in staging.values():
                shutil.rmtree(folder, ignore_errors=True)
    for anchor in anchors[1:]:
        moves.prune(parked[anchor])  # only where nothing was parked
    return parked[plan.root]


@contextmanager
def _made(folders: Sequence[Path]) -> Iterator[None]:
    """Make folders that are not there, and remove them again when what follows fails."""
    new = [one for one in folders if not one.is_dir()]
    for one in new:
        one.mkdir(parents=True)
    try:
        yield
    except BaseException:
        for one in new:
            with suppress(OSError):
                one.rmdir()
        raise


@contextmanager
def _alone(folders: Sequence[Path]) -> Iterator[None]:
    """Hold a lock on folders, so that no two restores work in one; `RefusedError` when another does."""
    with ExitStack() as stack:
        for one in sorted(folders):
            descriptor = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(
                    f"another restore is at work in {one}",
                    hint=f"ls -la {quoted(one)}",
                    code="restore_running",
                ) from None
        yield


def _sweep(anchors: Sequence[Path]) -> None:
    """Remove what killed restores left that had moved nothing, or had moved everything."""
    for anchor in anchors:
        (anchor / (JOURNAL + _NEW)).unlink(missing_ok=True)
        for folder in anchor.glob(_STAGING + "*"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in anchor.glob(_PARKED + "*"):
            _discard(folder)


def _discard(parked: Path) -> None:
    """Remove a parking folder in which nothing is parked."""
    with suppress(OSError):
        own = {parked / _UNDO, parked / (_UNDO + _NEW)}
        if own.issuperset(path for path in parked.rglob("*") if not path.is_dir() or path.is_symlink()):
            for path in own:
                path.unlink(missing_ok=True)
            moves.prune(parked)


def _durable(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + _NEW)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    moves.sync_folder(path.parent)

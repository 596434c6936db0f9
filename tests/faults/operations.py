"""Every operation on a vault, as one row each: what it begins with, what it does, what it may change."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from tests.faults.world import PASSWORD, World, tree

from memkeep.config import Config, Retention, RunSettings, StoreSettings
from memkeep.model import Rung
from memkeep.ops import keys
from memkeep.ops.backup import backup
from memkeep.ops.copy import copy
from memkeep.ops.diff import diff
from memkeep.ops.discover import discover
from memkeep.ops.estimate import estimate_backup, estimate_restore
from memkeep.ops.forget import forget
from memkeep.ops.history import history
from memkeep.ops.pack import pack
from memkeep.ops.prune import prune
from memkeep.ops.repair import repair
from memkeep.ops.restore import restore
from memkeep.ops.run import run
from memkeep.ops.search import search
from memkeep.ops.snapshots import list_snapshots, show
from memkeep.ops.status import status
from memkeep.ops.verify import verify

KEEP_ONE = Retention(keep_last=1)


class Operation(NamedTuple):
    """A row. `reads`: it changes nothing in any vault. `faulty`: the vault whose storage fails. `makes`: files."""

    name: str
    do: Callable[[World], object]
    start: str = "filled"
    reads: bool = False
    faulty: str = "here"
    far: bool = False
    once: bool = False  # what is done can't be done again
    over_all: bool = False  # it looks over all snapshots or marks, and leaves out those that can't be read


def _restore(world: World) -> object:
    target = world.new("restored")
    try:
        return restore(world.open(), "latest", to=target)
    except BaseException:
        assert not target.exists()
        raise


def _restore_in_place(world: World) -> object:
    kept = world.new("kept")
    shutil.copytree(world.notes, kept)
    try:
        vault = world.open()
        return restore(vault, "latest", in_place=True, confirm=vault.resolve("latest").system, even_if_open=True)
    except BaseException:
        assert tree(world.notes) == tree(kept)
        raise
    finally:
        shutil.rmtree(world.notes)
        kept.rename(world.notes)


def _pack(world: World) -> object:
    target = world.new("packed")
    try:
        return pack(world.open(), "latest", target)
    except BaseException:
        assert not target.exists()
        raise


def _key_remove(world: World) -> object:
    return keys.remove_key(world.open(), PASSWORD, world.ids[0], confirm=world.ids[0])


def _notes(world: World) -> object:
    return backup(world.open(), discover([world.notes]))


def _run(world: World) -> object:
    config = Config(
        stores={"notes": StoreSettings(path=str(world.notes))},
        retention=Retention(keep_last=2),
        run=RunSettings(copy_to=("there",)),
    )
    return run(config, world.open, world.open, lambda unfound: discover(None, config, unfound=unfound))


def _forget_by_name(world: World) -> object:
    names = [name for name in world.ids[2:4] if f"snapshots/{name}" in world.storages["here"].objects]
    return forget(world.open(), names) if names else None


OPERATIONS = (
    Operation("init", lambda world: world.init(), start="empty", once=True),
    Operation("init far", lambda world: world.init(), start="empty", once=True, far=True),
    Operation("backup", _notes),
    Operation("backup far", _notes, far=True),
    Operation("forget by rules", lambda world: forget(world.open(), retention=KEEP_ONE)),
    Operation("forget by name", _forget_by_name),
    Operation("forget far", lambda world: forget(world.open(), retention=KEEP_ONE), far=True),
    Operation("prune", lambda world: prune(world.open()), start="forgotten"),
    Operation("prune to mark", lambda world: prune(world.open(), grace=timedelta(hours=1)), start="forgotten"),
    Operation("prune marked", lambda world: prune(world.open(), grace=timedelta(hours=1)), start="marked"),
    Operation("prune far", lambda world: prune(world.open()), start="marked", far=True),
    Operation("key add", lambda world: keys.add_password(world.open(), PASSWORD, "two")),
    Operation("key change", lambda world: keys.change_password(world.open(), PASSWORD, "two"), once=True),
    Operation("key change far", lambda world: keys.change_password(world.open(), PASSWORD, "two"), once=True, far=True),
    Operation("key remove", _key_remove, start="keys", once=True),
    Operation("key recovery", lambda world: keys.new_recovery(world.open(), PASSWORD)),
    Operation("copy from", lambda world: copy(world.open(), world.open("there"))),
    Operation("copy to", lambda world: copy(world.open(), world.open("there")), faulty="there"),
    Operation("copy to far", lambda world: copy(world.open(), world.open("there")), faulty="there", far=True),
    Operation("repair", lambda world: repair(world.open()), start="hurt"),
    Operation("repair far", lambda world: repair(world.open()), start="hurt", far=True),
    Operation("repair spoiled", lambda world: repair(world.open()), start="spoiled"),
    Operation("run", _run),
    Operation("verify", lambda world: verify(world.open(), all=True, rung=Rung.INTACT), reads=True),
    Operation("verify readable", lambda world: verify(world.open(), rung=Rung.READABLE), reads=True),
    Operation("verify far", lambda world: verify(world.open(), all=True, rung=Rung.INTACT), reads=True, far=True),
    Operation("restore", _restore, reads=True),
    Operation("verify restorable", lambda world: verify(world.open(), rung=Rung.RESTORABLE), reads=True),
    Operation("restore in place", _restore_in_place, reads=True),
    Operation("restore far", _restore, reads=True, far=True),
    Operation("pack", _pack, reads=True),
    Operation("snapshots", lambda world: list_snapshots(world.open()), reads=True),
    Operation("snapshots far", lambda world: list_snapshots(world.open()), reads=True, far=True),
    Operation("show", lambda world: show(world.open(), "latest"), reads=True),
    Operation("status", lambda world: status(world.open(), discover([world.notes])), reads=True, over_all=True),
    Operation("diff", lambda world: diff(world.open(), world.ids[0], world.ids[1]), reads=True),
    Operation("search", lambda world: search(world.open(), "a"), reads=True, over_all=True),
    Operation("history", lambda world: history(world.open(), "1"), reads=True, over_all=True),
    Operation("key list", lambda world: keys.list_keys(world.open(), PASSWORD), reads=True),
    Operation("estimate", lambda world: estimate_backup(world.open(), discover([world.notes])), reads=True),
    Operation("estimate restore", lambda world: estimate_restore(world.open(), "latest"), reads=True),
    Operation(
        "forget --dry-run",
        lambda world: forget(world.open(), retention=KEEP_ONE, dry_run=True),
        reads=True,
        over_all=True,
    ),
    Operation("prune --dry-run", lambda world: prune(world.open(), dry_run=True), start="forgotten", reads=True),
    Operation(
        "prune --dry-run marked",
        lambda world: prune(world.open(), dry_run=True),
        start="marked",
        reads=True,
        far=True,
        over_all=True,
    ),
    Operation("copy --dry-run", lambda world: copy(world.open(), world.open("there"), dry_run=True), reads=True),
    Operation("repair --dry-run", lambda world: repair(world.open(), dry_run=True), start="hurt", reads=True),
)

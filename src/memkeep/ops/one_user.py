"""Take of a store only what is of one of its users."""

import os
from collections.abc import Sequence
from pathlib import Path

from memkeep.engines import sqlite_keep
from memkeep.engines.merging import plain_id
from memkeep.engines.rows import RowReader
from memkeep.errors import StoreError, UnstableError, UsageError, quoted
from memkeep.model import Omission, Store
from memkeep.ops.freeze import Held, Moment
from memkeep.systems.detect import MANY_USER_SYSTEMS


def of_user(store: Store, user: str) -> Store:
    """Return a store as one from which only what is of one user is taken. `UsageError` where that can't be told."""
    for known in MANY_USER_SYSTEMS:
        if known.name == store.system:
            return known.of_user(store, user)
    names = ", ".join(one.name for one in MANY_USER_SYSTEMS)
    raise UsageError(
        f"one user alone is kept of {names} only, and {store.path} is a store of {store.system}",
        hint=f"memkeep backup {quoted(store.path)}   # restore --into STORE --user brings back one of it",
    )


def narrow(moment: Moment, user: str, scratch: Path) -> None:
    """Leave of a moment what is of one user; servers gave no more than that, databases are copied without the rest.

    Raises `StoreError` when the store has nothing of the user, or the memories that tell whose it is are away.
    """
    records = _records(moment.held)
    if records is None:
        unknown = StoreError(f"without the memories nobody can tell what is of {user}", hint="memkeep discover")
        raise moment.errors[0] if moment.errors else unknown
    if not records:
        raise StoreError(
            f"there is no memory of a user called {user}", hint="memkeep backup   # of all users", code="no_such_user"
        )
    for held in moment.held:
        if held.part.user is not None and held.part.engine == "sqlite":
            moment.findings += held.opened.findings()
            _copy(held, scratch)
            lost = sqlite_keep.keep(scratch / held.part.name, held.part.maps, records)
            held.turn_to(scratch)
            moment.omitted += [
                Omission(part=held.part.name, reason=f"{count} rows of {table} that do not go with memories of {user}")
                for table, count in lost.items()
            ]


def _records(held: Sequence[Held]) -> frozenset[str] | None:
    """Return the ids of the user's memories; None when no part that has memories is there."""
    found: set[str] = set()
    seen = False
    for one in held:
        for map_ in one.part.maps:
            if map_.primary and one.part.user is not None and isinstance(one.opened, RowReader):
                seen = True
                found |= {plain_id(row[map_.id]) for rows in one.opened.rows(map_) for row in rows}
    return frozenset(found) if seen else None


def _copy(held: Held, scratch: Path) -> None:
    """Write the files of a moment into a folder, with their modes and times."""
    for entry in held.opened.entries():
        place = scratch / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            for piece in held.opened.stream(entry):
                file.write(piece)
        place.chmod(entry.mode | 0o600)
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))
    if not held.opened.held():
        raise UnstableError(f"{held.part.path} kept changing while it was read", hint="memkeep backup")

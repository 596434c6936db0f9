"""What this machine has proven of which snapshot, and when: a small file in the user's state folder.

A vault is not written to by `verify`, so that a vault that can only be read can be verified too.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from memkeep import clock
from memkeep.model import Rung


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The last verification of a snapshot: the rung reached, when (ISO-8601, UTC), and whether all was well."""

    rung: Rung
    at: str
    good: bool


def _path(vault_id: str) -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("memkeep")) / "checks" / f"{vault_id}.json"


def read(vault_id: str) -> dict[str, Check]:
    """Return the last check of each snapshot; empty when none is known or the file is unreadable."""
    try:
        return msgspec.json.decode(_path(vault_id).read_bytes(), type=dict[str, Check])
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return {}


def note(vault_id: str, snapshot: str, rung: Rung, *, good: bool) -> None:
    """Remember a check. A state folder that can't be written costs only the memory of it."""
    path = _path(vault_id)
    checks = read(vault_id) | {snapshot: Check(rung=rung, at=clock.now().isoformat(timespec="seconds"), good=good)}
    temporary = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode(checks))
        temporary.replace(path)

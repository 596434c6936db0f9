"""Who has the files of a store open right now."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

SIDECARS = ("-wal", "-shm", "-journal")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has a file open."""

    pid: int
    name: str
    path: str


def holders(paths: Sequence[Path]) -> list[Holder]:
    """Return the processes, other than this one, that have one of the paths (or something under it) open.

    Reads `/proc`; sees the processes of other users only as root. Empty on systems without `/proc`.
    """
    wanted = [str(path.resolve()) for path in paths]
    exact = {name + tail for name in wanted for tail in ("", *SIDECARS)}
    found = []
    for process in Path("/proc").glob("[0-9]*") if Path("/proc").is_dir() else ():
        if process.name == str(os.getpid()):
            continue
        for target in _open_files(process):
            if target in exact or any(target.startswith(name + "/") for name in wanted):
                found.append(Holder(pid=int(process.name), name=_name(process), path=target))
                break
    return found


def _open_files(process: Path) -> set[str]:
    targets = set()
    try:
        for descriptor in (process / "fd").iterdir():
            try:
                targets.add(str(descriptor.readlink()).removesuffix(" (deleted)"))
            except OSError:
                continue
    except OSError:
        return targets
    return targets


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"

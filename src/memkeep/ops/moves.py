"""The renames of a restore in place: which there are, how they are done and undone, and the script that undoes them."""

import errno
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from memkeep.engines.files_walk import Walk
from memkeep.errors import StoreError
from memkeep.model import Part, PartImage
from memkeep.ops.live import SIDECARS

_FOLDERS = frozenset({"files", "chroma"})  # engines whose parts are some of the files of a folder


class Move(msgspec.Struct, frozen=True):
    """One rename on one file system; nothing may lie at the target."""

    source: str
    target: str


class Place(NamedTuple):
    """Where one part goes: its live path, and the folders beside the store that it is staged and parked in."""

    target: Path
    anchor: Path  # the folder that both of these lie in: the store's root, or where the part lies outside of it
    staging: Path
    parked: Path


def moves_of(
    images: Sequence[PartImage], others: Sequence[Part], places: dict[str, Place], root: Path
) -> tuple[list[Move], list[Move]]:
    """Return the moves that park what is there, and those that bring home what is staged, in the order to do them.

    `others` are the live parts that the snapshot does not have: they are parked too. A database's sidecars go with
    it, even when the database itself is gone. Of a folder of files only what the part holds is moved: what it leaves
    out (.git, .env) stays where it is. A link or a file where a folder must be is parked, never followed.
    """
    away: dict[Path, Path] = {}
    home: list[tuple[Path, Path]] = []
    for image in images:
        name, to = image.part.name, places[image.part.name]
        away |= _away(image.part, to, root)
        if _is_folder(image.part, to):
            home += [
                (to.staging / stored.entry.path, to.target / _under(stored.entry.path, name))
                for stored in image.entries
                if stored.entry.kind != "dir"
            ]
        else:
            home += [
                (to.staging / (name + tail), _beside(to.target, tail))
                for tail in ("", *SIDECARS)
                if os.path.lexists(to.staging / (name + tail))
            ]
        for _, target in home:
            if (obstacle := _obstacle(target, to.anchor)) and to.anchor in obstacle.parents:
                away.setdefault(obstacle, to.parked / obstacle.relative_to(to.anchor))
    for part in others:
        away |= _away(part, places[part.name], root)
    whole = {path: there for path, there in away.items() if away.keys().isdisjoint(path.parents)}
    return [Move(str(a), str(b)) for a, b in whole.items()], [Move(str(a), str(b)) for a, b in home]


def do(moves: Iterable[Move]) -> None:
    """Do the moves in order; `FileExistsError` when something is in the way."""
    for move in moves:
        Path(move.target).parent.mkdir(parents=True, exist_ok=True)
        _rename(move.source, move.target)


def undo(moves: Sequence[Move]) -> None:
    """Undo those of the moves that were done, the last first; to be done again when it is interrupted."""
    for move in reversed(moves):
        source = Path(move.source)
        if not os.path.lexists(move.target):
            continue
        if source.is_dir() and not source.is_symlink():
            prune(source)
        if not os.path.lexists(source):
            source.parent.mkdir(parents=True, exist_ok=True)
            _rename(move.target, move.source)


def sync(moves: Sequence[Move]) -> None:
    """Make the moves durable."""
    for folder in {Path(end).parent for move in moves for end in (move.source, move.target)}:
        if folder.is_dir():
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(folder: Path) -> None:
    """Remove a folder and those in it, as far as they are empty."""
    with suppress(OSError):
        for below in sorted(folder.iterdir()):
            if below.is_dir() and not below.is_symlink():
                prune(below)
        folder.rmdir()


def undo_script(parked: Path, away: Sequence[Move], home: Sequence[Move]) -> str:
    """Return the shell script that puts back what was parked; what the restore had placed goes into `replaced/`.

    It changes nothing unless all that was parked is still there, so that it can be run only once.
    """
    replaced = shlex.quote(str(parked / "replaced"))
    lines = [
        "#!/bin/sh",
        "# Puts back what this restore parked; what it had placed goes into replaced/.",
        "set -e",
        f'if [ -e {replaced} ]; then echo "this restore was undone already; nothing was changed" >&2; exit 1; fi',
    ]
    for move in away:
        path = shlex.quote(move.target)
        gone = f"echo {shlex.quote(f'{move.target} is not there any more; nothing was changed')} >&2; exit 1"
        lines.append(f"if [ ! -e {path} ] && [ ! -L {path} ]; then {gone}; fi")
    lines.append(f"mkdir {replaced}")
    for number, move in enumerate(home):
        kept = shlex.quote(str(parked / "replaced" / str(number)))
        lines.append(f"mkdir {kept}")
        for tail in ("", *SIDECARS):
            path = shlex.quote(move.target + tail)
            lines.append(f"if [ -e {path} ] || [ -L {path} ]; then mv {path} {kept}/; fi")
    for move in away:
        path = shlex.quote(move.source)
        lines.append(f"if [ -d {path} ] && [ ! -L {path} ]; then find {path} -depth -type d -empty -delete; fi")
        busy = f"echo {shlex.quote(f'{move.source} is in the way; it stays parked')} >&2; exit 1"
        lines.append(f"if [ -e {path} ] || [ -L {path} ]; then {busy}; fi")
        lines.append(f"mkdir -p {shlex.quote(str(Path(move.source).parent))}")
        lines.append(f"mv {shlex.quote(move.target)} {path}")
    return "\n".join(lines) + "\n"


def _away(part: Part, to: Place, root: Path) -> dict[Path, Path]:
    """Return what lies there of a part, and where it is parked."""
    if part.engine in _FOLDERS and to.target.is_dir() and not to.target.is_symlink():
        return {to.target / under: to.parked / part.name / under for under in _files_in(part, to.target, root)}
    return {
        _beside(to.target, tail): to.parked / (part.name + tail)
        for tail in ("", *SIDECARS)
        if os.path.lexists(_beside(to.target, tail))
    }


def _files_in(part: Part, target: Path, root: Path) -> Iterator[PurePosixPath]:
    """Yield the files and links that a folder part holds now, relative to the folder."""
    with suppress(StoreError):  # gone meanwhile
        for seen in Walk(msgspec.structs.replace(part, path=str(target)), root, target).look():
            if seen.kind != "dir":
                yield PurePosixPath(seen.path).relative_to(part.name)


def _is_folder(part: Part, to: Place) -> bool:
    there = to.target.is_dir() and not to.target.is_symlink()
    return part.engine in _FOLDERS and (there or (to.staging / part.name).is_dir())


def _obstacle(target: Path, anchor: Path) -> Path | None:
    """Return the first thing on the way from the anchor to a target that is not a folder."""
    for folder in reversed(target.parents):
        if anchor in folder.parents and os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            return folder
    return None


def _under(path: str, part: str) -> PurePosixPath:
    return PurePosixPath(path).relative_to(part)


def _beside(path: Path, tail: str) -> Path:
    return path.with_name(path.name + tail) if tail else path


def _rename(source: str, target: str) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "something is in the way", target)
    Path(source).rename(target)

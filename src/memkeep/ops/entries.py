"""Whether what a vault says of files, folders and links may be written under a folder. A vault is not trusted.

Whoever can write to a vault can say anything in an image that they have the key for (in a vault without encryption:
anyone). So, before a byte is written: every path stays under the root and is spelled in one way only; nothing lies
below a file or a link; nothing is named twice; no link leads out, through other links either; and sizes add up.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from memkeep.errors import DamagedError
from memkeep.model import Entry, PartImage, StoredEntry
from memkeep.ops.live import SIDECARS

_LINKS = 40  # that one path may lead through, as for the kernel
_TIMES = range(-(1 << 62), 1 << 63)  # nanoseconds that a file system can be told


def check_entries(images: Sequence[PartImage]) -> None:
    """Raise `DamagedError` unless all entries of these parts can be written under one folder, and only there."""
    known: dict[str, Entry] = {}
    for image in images:
        _check_name(image.part.name, root=True)
        for stored in image.entries:
            entry = stored.entry
            _check_name(entry.path)
            _check_values(stored)
            _check_part(image.part.name, entry)
            if entry.path in known and not entry.kind == known[entry.path].kind == "dir":
                raise DamagedError(f"the vault has two entries called {entry.path!r}")
            known[entry.path] = entry
    for path, entry in known.items():
        for parent in PurePosixPath(path).parents:
            above = known.get(str(parent))
            if above is not None and above.kind != "dir":
                raise DamagedError(f"the vault has an entry below a file or a link: {path!r}")
        if entry.kind == "link":
            _check_link(entry, known)


def place(root: Path, name: str) -> Path:
    """Return where an entry, or a part (`.` is the root), lies; `DamagedError` for a path that would leave the root."""
    _check_name(name, root=True)
    return root / name


def _check_name(name: str, *, root: bool = False) -> None:
    pure = PurePosixPath(name)
    if root and name == ".":
        return
    if not pure.parts or "\0" in name or pure.is_absolute() or ".." in pure.parts or str(pure) != name:
        raise DamagedError(f"the vault names a path that leaves the target folder: {name!r}")


def _check_part(part: str, entry: Entry) -> None:
    path = entry.path
    own = part == "." or path.startswith(f"{part}/") or path in {part + end for end in ("", *SIDECARS)}
    if not own and not (entry.kind == "dir" and part.startswith(f"{path}/")):
        raise DamagedError(f"the vault has an entry of {part!r} outside of it: {path!r}")


def _check_values(stored: StoredEntry) -> None:
    entry = stored.entry
    if entry.kind == "file" and (stored.recipe is None or stored.recipe.size != entry.size):
        raise DamagedError(f"the vault has no bytes for {entry.path!r}")
    if entry.mtime_ns not in _TIMES:
        raise DamagedError(f"the vault has no possible time for {entry.path!r}")


def _check_link(link: Entry, known: dict[str, Entry]) -> None:
    """Follow a link as the kernel would in a folder that holds just these entries."""
    if not link.target or "\0" in link.target:
        raise DamagedError(f"the link {link.path!r} leads nowhere")
    at = list(PurePosixPath(link.path).parts[:-1])
    todo = list(reversed(_pieces(link.target)))
    for _ in range(_LINKS):
        follow = None
        while todo and follow is None:
            piece = todo.pop()
            if piece == "/" or (piece == ".." and not at):
                raise DamagedError(f"the link {link.path!r} would lead out of the target folder")
            if piece == "..":
                at.pop()
                continue
            at.append(piece)
            entry = known.get("/".join(at))
            follow = entry if entry is not None and entry.kind == "link" else None
        if follow is None:
            return
        at.pop()
        todo += reversed(_pieces(follow.target))
    # A loop of links leads nowhere, and not out.


def _pieces(target: str) -> tuple[str, ...]:
    return ("/",) if target.startswith("/") else PurePosixPath(target).parts

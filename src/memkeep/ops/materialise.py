"""Write parts of a snapshot into a folder that nobody else uses, and check what was written.

A vault is not trusted with paths: every one must stay under the target. Files are created new and never through a
link; links come last, after all files of all parts, so that nothing is ever written through one.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from blake3 import blake3

from memkeep.errors import DamagedError, StorageError
from memkeep.events import Events
from memkeep.model import PartImage, StoredEntry
from memkeep.vault.vault import Vault

_PERMISSIONS = 0o7777


def materialise(vault: Vault, images: Sequence[PartImage], root: Path, events: Events, *, durable: bool = True) -> None:
    """Write all parts under `root` (which exists and is private), with their permissions and times.

    Every file is read again and compared with its digest. Raises `DamagedError` when the vault's bytes are not what
    was written, or name a path outside `root`; the caller removes `root` then.
    """
    entries = [stored for image in images for stored in image.entries]
    places = [(stored, place(root, stored.entry.path)) for stored in entries]
    for stored, path in places:
        if stored.entry.kind == "dir":
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stored, path in places:
        if stored.entry.kind == "file":
            _write_file(vault, stored, path, events, durable=durable)
    links = [(stored, path) for stored, path in places if stored.entry.kind == "link"]
    for stored, path in links:
        if not _stays_inside(stored.entry.path, stored.entry.target):
            raise DamagedError(f"the link {stored.entry.path} would lead out of the target folder")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() or path.is_symlink():
            raise DamagedError(f"the vault has two entries called {stored.entry.path}")
        path.symlink_to(stored.entry.target)
    folders = [(stored, path) for stored, path in places if stored.entry.kind == "dir"]
    for stored, path in sorted(folders, key=lambda pair: len(pair[1].parts), reverse=True):
        path.chmod(stored.entry.mode & _PERMISSIONS)
        os.utime(path, ns=(stored.entry.mtime_ns, stored.entry.mtime_ns))


def place(root: Path, name: str) -> Path:
    """Return where an entry lies under the root; `DamagedError` for a path that would leave it."""
    pure = PurePosixPath(name)
    if not name or "\0" in name or pure.is_absolute() or ".." in pure.parts or pure == PurePosixPath("."):
        raise DamagedError(f"the vault names a path that leaves the target folder: {name!r}")
    return root / pure


def _stays_inside(path: str, target: str) -> bool:
    if not target or "\0" in target or target.startswith("/"):
        return False
    depth = len(PurePosixPath(path).parts) - 1
    for piece in PurePosixPath(target).parts:
        depth += -1 if piece == ".." else 1
        if depth < 0:
            return False
    return True


def _write_file(vault: Vault, stored: StoredEntry, path: Path, events: Events, *, durable: bool) -> None:
    entry = stored.entry
    if stored.recipe is None or stored.recipe.size != entry.size:
        raise DamagedError(f"the vault has no bytes for {entry.path}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise DamagedError(f"the vault has two entries called {entry.path}") from None
    with os.fdopen(descriptor, "w+b", buffering=0) as file:
        try:
            for piece in vault.reader.stream(stored.recipe):
                _write_all(file.fileno(), piece)
                events.advance(len(piece))
            if durable:
                os.fsync(descriptor)
        except OSError as error:
            raise StorageError(
                f"could not write {path}: {error.strerror}", unchanged="The live store was not touched.", hint="df -h"
            ) from error
        if _digest(file.fileno()) != stored.recipe.digest:
            raise StorageError(f"{path} does not read back as it was written", hint=f"check the disk that holds {path}")
        os.fchmod(descriptor, stat.S_IMODE(entry.mode))
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _digest(descriptor: int) -> bytes:
    hasher = blake3()
    offset = 0
    while piece := os.pread(descriptor, 1 << 20, offset):
        hasher.update(piece)
        offset += len(piece)
    return hasher.digest()

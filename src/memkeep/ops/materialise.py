"""Write parts of a snapshot into a folder that nobody else uses, and check what was written.

What the vault says of paths is checked before the first byte is written. Files are created new, and links come last,
after all files of all parts, so that nothing is ever written through one.
"""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self

from blake3 import blake3

from memkeep import amounts
from memkeep.errors import DamagedError, StorageError
from memkeep.events import Events
from memkeep.model import PartImage, StoredEntry
from memkeep.ops.entries import check_entries, place
from memkeep.vault.vault import Vault

Stream = Callable[[StoredEntry], Iterator[bytes]]
"""Yields the bytes of a file's entry, and raises when they are not what was written."""

# Never the powers of the owner: a file that runs as who restored it is no memory.
_FILE_MODE = 0o777
_FOLDER_MODE = 0o3777

_AHEAD = 8 << 20  # bytes
_PIECE = 1 << 20  # bytes that are read at once
_HOLE = 4096  # bytes of zeros that need not be written
_LOOK = 32


def materialise(vault: Vault, images: Sequence[PartImage], root: Path, events: Events, *, durable: bool = True) -> None:
    """Write all parts under `root` (which exists and is private), with their permissions and times.

    Every file is read again and compared with its digest. Raises `DamagedError` when the vault's bytes are not what
    was written, or name a path outside `root`, `StorageError` when they do not fit; the caller removes `root` then.
    """
    check_entries(images)

    def stream(stored: StoredEntry) -> Iterator[bytes]:
        if stored.recipe is None:
            raise DamagedError(f"the vault has no bytes for {stored.entry.path}")
        return vault.reader.stream(stored.recipe)

    lay_out(stream, images, root, events, durable=durable)


def lay_out(stream: Stream, images: Sequence[PartImage], root: Path, events: Events, *, durable: bool = True) -> None:
    """Do so with bytes from anywhere: they are asked for once, file by file, in the order of the images' entries.

    What the images say of paths has been checked.
    """
    entries = [stored for image in images for stored in image.entries]
    _refuse_without_room(root, sum(stored.entry.size for stored in entries))
    places = [(stored, place(root, stored.entry.path)) for stored in entries]
    for stored, path in places:
        if stored.entry.kind == "dir":
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ThreadPoolExecutor(1, "memkeep-read-back") as pool:
        for stored, path in places:
            if stored.entry.kind == "file":
                _write_file(stream, stored, path, events, pool, durable=durable)
    for stored, path in places:
        if stored.entry.kind == "link":
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.symlink_to(stored.entry.target)
    folders = [(stored, path) for stored, path in places if stored.entry.kind == "dir"]
    for stored, path in sorted(folders, key=lambda pair: len(pair[1].parts), reverse=True):
        path.chmod(stored.entry.mode & _FOLDER_MODE)
        os.utime(path, ns=(stored.entry.mtime_ns, stored.entry.mtime_ns))


def _refuse_without_room(root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if size > free:
        raise StorageError(
            f"{amounts.size(free)} are free at {root.parent}, and {amounts.size(size)} are needed",
            hint=f"df -h {shlex.quote(str(root.parent))}",
            code="disk_full",
        )


def _write_file(
    stream: Stream, stored: StoredEntry, path: Path, events: Events, pool: ThreadPoolExecutor, *, durable: bool
) -> None:
    entry = stored.entry
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise DamagedError(f"the vault has two entries called {entry.path}") from None
    with os.fdopen(descriptor, "w+b", buffering=0) as file, _ReadBack(descriptor, pool) as back:
        try:
            done = begun = 0
            for piece in stream(stored):
                _write_all(file.fileno(), piece)
                done += len(piece)
                events.advance(len(piece))
                if done - begun >= _AHEAD:
                    if durable and hasattr(os, "posix_fadvise"):
                        # On Linux this begins to write back what is dirty: the sync at the end has little to do.
                        os.posix_fadvise(descriptor, begun, done - begun, os.POSIX_FADV_DONTNEED)
                    back.follow(done)
                    begun = done
            if durable:
                os.fsync(descriptor)
        except OSError as error:
            raise StorageError(
                f"could not write {path}: {error.strerror}", unchanged="The live store was not touched.", hint="df -h"
            ) from error
        if stored.recipe is None or back.digest() != stored.recipe.digest:
            raise StorageError(
                f"{path} does not read back as it was written", hint="dmesg | tail   # what the disk says"
            )
        os.fchmod(descriptor, entry.mode & _FILE_MODE)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _write_all(descriptor: int, data: bytes) -> None:
    """Write bytes; what is nothing but zeros becomes a hole: databases make files far larger than what is in them."""
    # The first bytes tell almost always, and counting takes longer than writing.
    if len(data) >= _HOLE and not any(data[:_LOOK]) and data.count(0) == len(data):
        size = os.lseek(descriptor, len(data), os.SEEK_CUR)
        os.ftruncate(descriptor, size)
        return
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class _ReadBack:
    """Reads a file again, a long one on a thread of `pool` while more of it is written; done with it when left."""

    def __init__(self, descriptor: int, pool: ThreadPoolExecutor) -> None:
        self._descriptor = descriptor
        self._pool = pool
        self._hasher = blake3()
        self._at = 0
        self._jobs: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        wait(self._jobs)

    def follow(self, end: int) -> None:
        """Read on to a byte that is written."""
        self._jobs.append(self._pool.submit(self._read, end))

    def digest(self) -> bytes:
        """Read on to the end, and return the digest of the whole file."""
        for job in self._jobs:
            job.result()
        self._read(os.fstat(self._descriptor).st_size)
        return self._hasher.digest()

    def _read(self, end: int) -> None:
        while self._at < end and (piece := os.pread(self._descriptor, min(_PIECE, end - self._at), self._at)):
            self._hasher.update(piece)
            self._at += len(piece)

"""A folder as storage. Objects are written beside the vault's own files, synced, linked into place, and synced again."""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from memkeep.errors import StorageError
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Stat

TMP = "tmp"


class LocalStorage:
    """Objects as files under a folder; file permissions 0600, folders 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self._swept = False

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object: temporary file, fsync, link (which never replaces), fsync of the folder."""
        target = self._path(key)
        with _explained("write", key):
            self._sweep()
            _make_folder(target.parent, stop=self.root)
            _make_folder(self.root / TMP, stop=self.root)
            temporary = self.root / TMP / f"{os.getpid()}-{secrets.token_hex(8)}"
            size = 0
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # says: still being written
                for buffer in data:
                    size += _write_all(descriptor, buffer)
                os.fsync(descriptor)
                _publish(temporary, target, key)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()
                os.close(descriptor)
            _sync_folder(target.parent)
            return size

    def get(self, key: str) -> bytes:
        """Read a whole object."""
        with _explained("read", key):
            return self._path(key).read_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read a piece of an object."""
        with _explained("read", key):
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
            try:
                pieces = []
                while length > 0 and (piece := os.pread(descriptor, length, offset)):
                    pieces.append(piece)
                    offset += len(piece)
                    length -= len(piece)
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            finally:
                os.close(descriptor)

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        with _explained("read", key):
            return Stat(key, self._path(key).stat().st_size)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Walk the folder that the prefix names."""
        folder = self.root / prefix.rpartition("/")[0]
        for base, folders, names in os.walk(folder, onerror=_walk_error):
            folders[:] = [name for name in folders if not (Path(base) == self.root and name == TMP)]
            for name in names:
                path = Path(base, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError):
                        yield Stat(key, path.stat().st_size)

    def delete(self, key: str) -> None:
        """Remove an object's file."""
        with _explained("delete", key):
            self._path(key).unlink()
            _sync_folder(self._path(key).parent)

    def _path(self, key: str) -> Path:
        pieces = key.split("/")
        if not key.isascii() or any(piece in {"", ".", ".."} for piece in pieces) or pieces[0] == TMP:
            message = f"{key!r} is not a key"
            raise StorageError(message)
        return self.root.joinpath(*pieces)

    def _sweep(self) -> None:
        """Remove what killed writers left behind: temporary files that nobody holds locked."""
        if self._swept:
            return
        self._swept = True
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((self.root / TMP).iterdir()):
                with contextlib.suppress(OSError):
                    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                    finally:
                        os.close(descriptor)


def _write_all(descriptor: int, buffer: bytes | memoryview) -> int:
    view = memoryview(buffer)
    written = 0
    while written < len(view):
        written += os.write(descriptor, view[written:])
    return written


def _publish(temporary: Path, target: Path, key: str) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        message = f"{key} is there already"
        raise ObjectExistsError(message) from None
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}:
            raise
        if target.exists():  # a file system without hard links: keys are content names, so a race writes the same bytes
            message = f"{key} is there already"
            raise ObjectExistsError(message) from None
        temporary.rename(target)


def _make_folder(folder: Path, *, stop: Path) -> None:
    if folder.is_dir():
        return
    if folder != stop:
        _make_folder(folder.parent, stop=stop)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=folder == stop)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk_error(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        message = f"could not list {error.filename}: {error.strerror}"
        raise StorageError(message, hint=f"ls -ld {error.filename}") from error


@contextlib.contextmanager
def _explained(verb: str, key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        message = f"there is no {key} in the vault"
        raise ObjectMissingError(message) from error
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        message = f"could not {verb} {key}: {error.strerror or error}"
        raise StorageError(
            message,
            unchanged="Earlier snapshots are whole; nothing half-made is listed.",
            hint="df -h" if full else "memkeep status",
            code="disk_full" if full else "storage",
        ) from error

"""A folder as storage: objects are written into its `tmp`, synced, linked into place, and their folder is synced."""

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Stat, check_key, is_key

TMP = "tmp"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalStorage:
    """Objects as files under a folder, which is made when the first is written; files have 0600, folders 0700."""

    capabilities = Capabilities()

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder: Path | None = root
        self.url = str(root)
        self._swept = False

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object: temporary file, fsync, link (which never replaces), fsync of the folder."""
        target = self._path(key)
        with self._explained("write", key):
            _make_folder(target.parent, stop=self.root)
            _make_folder(self.root / TMP, stop=self.root)
            self._sweep()
            with _temporary(self.root / TMP) as (path, descriptor):
                size = 0
                for buffer in data:
                    size += _write_all(descriptor, buffer)
                os.fsync(descriptor)
                _publish(path, target, key)
            _sync_folder(target.parent)
            return size

    def get(self, key: str) -> bytes:
        """Read a whole object."""
        path = self._path(key)
        with self._explained("read", key):
            return path.read_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read a piece of an object."""
        path = self._path(key)
        with self._explained("read", key):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
        path = self._path(key)
        with self._explained("read", key):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return Stat(key, found.st_size)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Walk the folder that the prefix names."""
        folder = prefix.rpartition("/")[0]
        if folder and not is_key(folder):
            return
        for base, _, names in os.walk(self.root / folder, onerror=self._walk_error):
            for name in names:
                path = Path(base, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix) and is_key(key):
                    with contextlib.suppress(ObjectMissingError):  # removed since, or no file
                        yield self.stat(key)

    def delete(self, key: str) -> None:
        """Remove an object's file."""
        path = self._path(key)
        with self._explained("delete", key):
            path.unlink()
            _sync_folder(path.parent)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key

    def _sweep(self) -> None:
        if not self._swept:
            self._swept = True
            _sweep((self.root / TMP).iterdir())

    def _walk_error(self, error: OSError) -> None:
        if isinstance(error, NotADirectoryError) and self.root.is_dir():
            return  # an object's key with a slash behind it
        with self._explained("list", str(error.filename)), contextlib.suppress(FileNotFoundError):
            raise error

    @contextlib.contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            with explained(verb, key, self.url):
                yield
        except FileNotFoundError as error:
            message = f"there is no {key} in the vault"
            raise ObjectMissingError(message) from error


@contextlib.contextmanager
def explained(verb: str, name: str, place: str) -> Iterator[None]:
    """Raise what the system says as an error of the storage, with what can be done about it.

    A `FileNotFoundError` while something is read goes through: who asked knows what is missing.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and verb != "write":
            raise
        message = f"could not {verb} {name} in {place}: {error.strerror or error}"
        code, hint = "storage", f"ls -ld {shlex.quote(place)}"
        if error.errno in _FULL:
            code, hint = "disk_full", f"df -h {shlex.quote(place)}"
        elif error.errno in _DENIED:
            code = "storage_denied"
        unchanged = "Earlier snapshots are whole; nothing half-made is listed."
        raise StorageError(message, unchanged=unchanged, hint=hint, code=code) from error


class Writing(NamedTuple):
    """A file that is being written."""

    descriptor: int

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it; return how much that was."""
        return _write_all(self.descriptor, data)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Writing]:
    """Lend a file to be written, which gets its name at the end as an object does: whole, synced and never replacing.

    Raises `ObjectExistsError` when the name is taken by then, and `StorageError` for what the system says.
    """
    with explained("write", target.name, str(target.parent)):
        prefix = f".{target.name}.memkeep-"
        _sweep(path for path in target.parent.iterdir() if path.name.startswith(prefix))
        with _temporary(target.parent, prefix) as (path, descriptor):
            yield Writing(descriptor)
            os.fsync(descriptor)
            _publish(path, target, target.name)
        _sync_folder(target.parent)


def _sweep(paths: Iterable[Path]) -> None:
    """Remove what killed writers left behind: temporary files that nobody holds locked."""
    for path in sorted(paths):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _temporary(folder: Path, prefix: str = "") -> Iterator[tuple[Path, int]]:
    """Lend a new file, locked to say that it is being written, and remove its name at the end."""
    while True:
        path = folder / f"{prefix}{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # where there are no locks, nobody sweeps either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between the two calls another process may have taken the file for one that was left behind.
            if os.fstat(descriptor).st_nlink:
                yield path, descriptor
                return
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # the next sweep removes it; what went wrong before matters more
                path.unlink()


def _write_all(descriptor: int, buffer: bytes | memoryview) -> int:
    view = memoryview(buffer)
    written = 0
    while written < len(view):
        written += os.write(descriptor, view[written:])
    return written


def _publish(temporary: Path, target: Path, key: str) -> None:
    try:
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _rename_new(temporary, target)
    except FileExistsError:
        message = f"{key} is there already"
        raise ObjectExistsError(message) from None


def _rename_new(temporary: Path, target: Path) -> None:
    """Move a file to a name that is free, on a file system without hard links: one process at a time."""
    folder = os.open(temporary.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # without locks too, a race could only be won by the same bytes or a vault
            fcntl.flock(folder, fcntl.LOCK_EX)
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        temporary.rename(target)
    finally:
        os.close(folder)


def _make_folder(folder: Path, *, stop: Path) -> None:
    if folder.is_dir():
        return
    if folder != stop:
        _make_folder(folder.parent, stop=stop)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=folder == stop)
    with contextlib.suppress(PermissionError):  # one may write into a folder that one may not read
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems can't, and sync names at once
            raise
    finally:
        os.close(descriptor)

"""Files as SQLite's own locks do not cover them: stamps that tell a change, and private copies."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from memkeep import clock
from memkeep.engines.sqlite_io import BUFFER, read_at, write_all
from memkeep.errors import StorageError, StoreError, UnstableError, quoted

TRIES = 40
_QUIET_NS = 50_000_000  # a timestamp may lag a write by a clock tick; one this old can hide no second write
_NO_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


class Stamp(NamedTuple):
    """What of a file's metadata changes when its content does."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file, None when there is none."""
    try:
        s = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Stamp(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)


def stamps(paths: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Return the stamps of several files."""
    return {path: stamp(path) for path in paths}


def quiet_stamps(paths: Sequence[Path]) -> dict[Path, Stamp | None]:
    """Return stamps that any later write will change: wait out the clock tick of a write that was just made."""
    found = stamps(paths)
    now = clock.now().timestamp() * 1e9
    newest = max((s.mtime_ns for s in found.values() if s is not None), default=0)
    if abs(now - newest) < _QUIET_NS:
        clock.pause(_QUIET_NS / 1e9)
        found = stamps(paths)
    return found


def buffers(fd: int, size: int, path: Path) -> Iterator[memoryview]:
    """Yield the first `size` bytes of a file, each buffer valid until the next is asked for."""
    buffer = memoryview(bytearray(min(BUFFER, max(size, 1))))
    for start in range(0, size, BUFFER):
        length = min(BUFFER, size - start)
        if read_at(fd, buffer[:length], start) != length:
            raise UnstableError(f"{path} became shorter while it was read.", hint=f"memkeep backup {quoted(path)}")
        yield buffer[:length]


def copy_bytes(source: int, path: Path, target: Path) -> int:
    """Copy the open file `path` into a new one, in the kernel where it can; return the size."""
    try:
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return _copy(source, out)
        finally:
            os.close(out)  # a private file: nobody has locks on it
    except OSError as error:
        message = f"{path} could not be copied to {target}: {error.strerror}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "Free some space, or set TMPDIR to a folder that has it."
            raise StorageError(message, hint=hint) from error
        raise StoreError(message, hint=f"ls -l {quoted(path)}") from error


def _copy(source: int, out: int) -> int:
    done = 0
    while hasattr(os, "copy_file_range"):
        try:
            count = os.copy_file_range(source, out, 1 << 30, done, done)
        except OSError as error:
            if error.errno in _NO_RANGE:
                break
            raise
        if count == 0:
            return done
        done += count
    os.lseek(out, done, os.SEEK_SET)
    buffer = memoryview(bytearray(BUFFER))
    while count := read_at(source, buffer, done):
        write_all(out, buffer[:count])
        done += count
    return done


def copy_stable(paths: Sequence[Path], targets: Sequence[Path]) -> dict[Path, Stamp | None]:
    """Copy several files (those that exist) as they were at one moment, and return their stamps then.

    Raises `UnstableError` when they changed each time. Only for files that this process has no SQLite locks on.
    """
    for attempt in range(TRIES):
        before = quiet_stamps(paths)
        for path, target in zip(paths, targets, strict=True):
            target.unlink(missing_ok=True)
            if before[path] is not None:
                try:
                    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    break
                try:
                    copy_bytes(source, path, target)
                finally:
                    os.close(source)
        if stamps(paths) == before:
            return before
        clock.pause(min(0.01 * (attempt + 1), 0.1))
    raise UnstableError(
        f"{paths[0]} could not be locked, and it changed each of the {TRIES} times it was copied.",
        hint="Stop the process that writes it, then run the backup again.",
    )

"""Private folders for what must lie on disk for a while; those that killed processes left are removed."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from memkeep.errors import StoreError

_LOCK = ".in-use"
_ATTEMPTS = 20


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder of mode 0700 under the system's temporary folder (`TMPDIR`), gone at exit."""
    base = Path(tempfile.gettempdir()) / f"memkeep-{os.getuid()}"
    try:
        folder, lock = _make(base)
    except OSError as error:
        raise StoreError(
            f"there is no room for scratch files in {base}: {error.strerror}", hint="export TMPDIR=/some/other/folder"
        ) from error
    try:
        work = folder / "work"
        work.mkdir(mode=0o700)
        yield work
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        with contextlib.suppress(OSError):
            base.rmdir()  # only when nobody else is in it


def _make(base: Path) -> tuple[Path, int]:
    """Make a folder and lock it; it gets a name that `_sweep` looks at only when it is locked."""
    for attempt in range(_ATTEMPTS):
        try:
            base.mkdir(mode=0o700, exist_ok=True)
            if base.is_symlink() or base.lstat().st_uid != os.getuid():
                raise StoreError(f"{base} belongs to someone else", hint="export TMPDIR=/some/private/folder")
            _sweep(base)
            new = Path(tempfile.mkdtemp(prefix="new-", dir=base))
        except (FileNotFoundError, FileExistsError):
            if attempt == _ATTEMPTS - 1:
                raise
            continue  # another process has just tidied up the base
        lock = os.open(new / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return new.rename(base / new.name.replace("new-", "run-", 1)), lock
    raise FileNotFoundError(errno.ENOENT, "it vanishes again and again", str(base))


def _sweep(base: Path) -> None:
    for folder in base.glob("run-*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)

"""Private folders for what must lie on disk for a while; those that killed processes left are removed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from memkeep.errors import StoreError

_LOCK = ".in-use"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder of mode 0700 under the system's temporary folder (`TMPDIR`), gone at exit."""
    base = Path(tempfile.gettempdir()) / f"memkeep-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        stat = base.lstat()
        if base.is_symlink() or stat.st_uid != os.getuid():
            raise StoreError(f"{base} belongs to someone else", hint="export TMPDIR=/some/private/folder")
        _sweep(base)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=base))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"there is no room for scratch files in {base}: {error.strerror}", hint="export TMPDIR=/some/other/folder"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = folder / "work"
        work.mkdir(mode=0o700)
        yield work
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        with contextlib.suppress(OSError):
            base.rmdir()  # only when nobody else is in it


def _sweep(base: Path) -> None:
    for folder in base.glob("run-*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)

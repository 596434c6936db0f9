"""What it takes to hold a database: the descriptors, the files that lie there, and what is held in the end."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memkeep.engines.sqlite_copy import stamp
from memkeep.model import Entry, Finding

if TYPE_CHECKING:
    import apsw

TOUCH = "SELECT 1 FROM sqlite_schema LIMIT 1"


class Source(NamedTuple):
    """A file of the image and where its bytes come from."""

    entry: Entry
    buffers: Callable[[], Iterator[memoryview]]


@dataclass(frozen=True, kw_only=True)
class Held:
    """One moment. `con` is None when there is nothing to ask; `private` is a file that may be opened for writing."""

    how: str
    sources: list[Source]
    con: "apsw.Connection | None" = None
    private: Path | None = None
    journal: str = ""
    moved: Callable[[], bool] = lambda: False
    held: Callable[[], bool] = lambda: True
    findings: list[Finding] = field(default_factory=list)


class Descriptors:
    """Raw descriptors of databases, which stay open as long as any SQLite connection of this process may.

    POSIX locks belong to a process: closing any descriptor of a file drops the locks that SQLite has on it.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], int] = {}

    def open(self, path: Path) -> int:
        """Return a descriptor of the file that lies at a path now; `FileNotFoundError` when there is none."""
        there = path.stat()
        if (there.st_dev, there.st_ino) not in self._open:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            opened = os.fstat(fd)
            self._open[(opened.st_dev, opened.st_ino)] = fd
            return fd
        return self._open[(there.st_dev, there.st_ino)]

    def close(self) -> None:
        """Close all, after the last connection."""
        while self._open:
            os.close(self._open.popitem()[1])


@dataclass(frozen=True)
class Live:
    """A database file, by path and by descriptor, and its place in the store."""

    path: Path
    name: str
    scratch: Path
    keep: Descriptors
    fd: int
    patience: float  # seconds to wait for other processes

    def side(self, suffix: str) -> Path:
        """Return the path of a side file."""
        return self.path.with_name(self.path.name + suffix)

    def entry(self, size: int, suffix: str = "") -> Entry:
        """Describe the file, or a side file, as one of the image with so many bytes."""
        info = self.side(suffix).stat() if suffix else os.fstat(self.fd)
        mode = stat.S_IMODE(info.st_mode)
        return Entry(path=self.name + suffix, size=size, mode=mode, mtime_ns=info.st_mtime_ns)

    def still_here(self) -> bool:
        """Say whether the path still names the file that was opened."""
        there = stamp(self.path)
        return there is not None and there[:2] == (os.fstat(self.fd).st_dev, os.fstat(self.fd).st_ino)

    def has_wal(self) -> bool:
        """Say whether there is a WAL with something in it, or one that somebody uses."""
        wal = stamp(self.side("-wal"))
        return wal is not None and (wal.size > 0 or stamp(self.side("-shm")) is not None)

    def is_wal_mode(self) -> bool:
        """Say whether the header asks for a WAL."""
        return b"\2" in os.pread(self.fd, 2, 18)  # file format write and read version

    def counter(self) -> bytes:
        """Return the file change counter, which every commit without a WAL raises."""
        return os.pread(self.fd, 4, 24)

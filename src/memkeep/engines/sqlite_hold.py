"""Hold one consistent moment of a SQLite database, in the way that what lies there allows. Runs in the child process.

1. A WAL is there: a read transaction, held; the image is the file overlaid with the WAL (proof in `sqlite_wal`).
2. WAL mode, but no WAL: nobody has it open, and opening it in the usual way would leave a `-wal` and a `-shm` behind.
   It is opened as immutable, which makes no files and takes no locks; a shared lock of our own keeps the last writer
   that closes from rewriting the file, and `held` compares the file's stamps.
3. Rollback journal: a shared lock would keep a writer from committing, so it is held only while the bytes are copied.

Where no lock can be had (a hot journal that only a writer may roll back, a folder that is read-only, a writer in
exclusive mode), the file and its journal are copied while their stamps stand still, and SQLite recovers the copy. What
is no readable database is taken as bytes. SQLite deletes the WAL beside a database of 0 bytes, even when opened
read-only (pagerOpenWalIfPresent), so an empty file is never opened.
"""

import fcntl
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep import clock
from memkeep.engines import sqlite_wal
from memkeep.engines.sqlite_copy import buffers, copy_bytes, quiet_stamps, stamp, stamps
from memkeep.engines.sqlite_held import TOUCH, Descriptors, Held, Live, Source
from memkeep.engines.sqlite_sql import MAGIC, PATIENCE, connect, query, value
from memkeep.engines.sqlite_unlocked import COPY, NO_MAGIC, as_bytes, as_copy, as_empty, as_private
from memkeep.errors import StoreError, UnstableError, quoted

if TYPE_CHECKING:
    import apsw

# os_unix.c: PENDING_BYTE + 2 and SHARED_SIZE; and where the "dead man's switch" of a -shm lies
_SHARED_AT, _SHARED_SIZE = 0x40000002, 510
_SWITCH_AT = 128
_FLOCK = struct.Struct("hhqqi4x")  # Linux, 64 bits
_HOT_TRIES = 20


class _MovedError(Exception):
    """What lies there changed its kind between looking and locking."""


def hold_live(
    path: Path, name: str, scratch: Path, keep: Descriptors, *, copy: bool = True, patience: float = PATIENCE
) -> Held:
    """Hold a live database. Without `copy` a rollback-journal one stays locked, for a question or two.

    Raises `StoreError` when it is gone or may not be read, `UnstableError` when it never held still.
    """
    until = clock.monotonic() + patience
    while True:
        try:
            return _hold(Live(path, name, scratch, keep, _open(path, keep), patience), copy=copy)
        except (_MovedError, FileNotFoundError):  # or a side file that was there a moment ago; `_open` tells the rest
            if clock.monotonic() > until:
                message = f"{path} was opened, closed or replaced each time it was about to be read."
                raise UnstableError(message, hint="Run the backup again when its agent is less busy.") from None
            clock.pause(0.002)
        except PermissionError as error:
            raise StoreError(f"{error.filename or path} may not be read.", hint=f"ls -l {quoted(path)}") from error


def hold_private(path: Path, name: str, keep: Descriptors) -> Held:
    """Hold an image that lies in a folder of our own."""
    live = Live(path, name, path.parent, keep, _open(path, keep), PATIENCE)
    size = os.fstat(live.fd).st_size
    if os.pread(live.fd, len(MAGIC), 0) != MAGIC:
        return as_bytes(live, NO_MAGIC) if size else as_empty(live)
    return as_private(live, path, live.entry(size), how="image")


def _open(path: Path, keep: Descriptors) -> int:
    try:
        fd = keep.open(path)
    except FileNotFoundError:
        raise _gone(path) from None
    except OSError as error:
        raise StoreError(f"{path} may not be read: {error.strerror}.", hint=f"ls -l {quoted(path)}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise StoreError(f"{path} is not a file.", hint=f"memkeep discover {quoted(path)}")
    return fd


def _gone(path: Path) -> StoreError:
    return StoreError(f"{path} is not there any more.", hint=f"memkeep discover {quoted(path.parent)}")


def _hold(live: Live, *, copy: bool) -> Held:
    head = os.pread(live.fd, 100, 0)
    if not head:
        wal = stamp(live.side("-wal"))
        return as_bytes(live, "it is empty beside a WAL that is not") if wal and wal.size else as_empty(live)
    return _lock(live, copy=copy) if head.startswith(MAGIC) else as_bytes(live, NO_MAGIC)


def _lock(live: Live, *, copy: bool) -> Held:
    import apsw

    try:
        if live.has_wal():
            return as_copy(live, hot=False) if _shm_is_out_of_reach(live) else _in_wal(live)
        return _closed(live) if live.is_wal_mode() else _in_rollback(live, copy=copy)
    except apsw.ReadOnlyError:
        return as_copy(live, hot=live.side("-journal").exists())
    except (apsw.BusyError, apsw.LockedError, apsw.ProtocolError, apsw.CantOpenError, apsw.PermissionsError):
        return as_copy(live, hot=False)
    except apsw.IOError as error:
        raise StoreError(f"{live.path} could not be read: {error}.", hint=f"ls -l {quoted(live.path)}") from error
    except apsw.Error as error:
        return as_bytes(live, f"SQLite says: {error}")


def _in_wal(live: Live) -> Held:
    con = connect(live.path, "mode=ro", live.patience)
    with _closed_on_error(con):
        query(con, TOUCH)
        _insist(value(con, "PRAGMA journal_mode") == "wal" and live.still_here())
        # The connection holds a shared lock from here on, so neither file can be deleted or replaced.
        shm, wal = (live.keep.open(live.side(suffix)) for suffix in ("-shm", "-wal"))
        header = _begin(con, shm, live.patience)
        step = sqlite_wal.page_size(int.from_bytes(os.pread(live.fd, 2, 16), "big"))
        count = header.pages or os.fstat(live.fd).st_size // step
        laid_over = header.backfilled < header.frames
        _insist(value(con, "PRAGMA page_count") == count)
        _insist(not laid_over or sqlite_wal.wal_salts(wal) == header.salts)
        pages = sqlite_wal.frame_pages(shm, header.frames) if laid_over else []
    image = sqlite_wal.Overlay(live.fd, wal, size=count * step, step=step, salts=header.salts, pages=pages)
    frozen = os.fstat(live.fd)

    def moved() -> bool:
        now = sqlite_wal.read_index(shm)
        return now is None or now.raw != header.raw or not live.still_here()

    def held() -> bool:
        if not con.in_transaction:  # a full disk or an input/output error ends a transaction on its own
            return False
        if laid_over:
            return sqlite_wal.wal_salts(wal) == header.salts
        now = os.fstat(live.fd)
        return (now.st_size, now.st_mtime_ns) == (frozen.st_size, frozen.st_mtime_ns)

    sources = [Source(live.entry(image.size), image.buffers)]
    return Held(how="read transaction (WAL)", sources=sources, con=con, journal="wal", moved=moved, held=held)


@contextmanager
def _closed_on_error(con: "apsw.Connection") -> Iterator[None]:
    try:
        yield
    except BaseException:
        con.close()
        raise


def _insist(so: bool) -> None:  # noqa: FBT001 - reads as a sentence
    """Look again when what lies there is not what was seen before it was locked."""
    if not so:
        raise _MovedError


def _begin(con: "apsw.Connection", shm: int, patience: float) -> sqlite_wal.IndexHeader:
    until = clock.monotonic() + patience
    while clock.monotonic() < until:
        before = sqlite_wal.read_index(shm)
        con.execute("BEGIN")
        query(con, TOUCH)
        header = sqlite_wal.snapshot_of(before, sqlite_wal.read_index(shm))
        if header is not None:
            return header
        con.execute("END")
    raise _MovedError


def _shm_is_out_of_reach(live: Live) -> bool:
    """Say whether the `-shm` may only be read and nobody vouches for what is in it, so that SQLite would not use it."""
    path = live.side("-shm")
    if stamp(path) is None or os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return False
    if not sys.platform.startswith("linux") or struct.calcsize("P") < 8:  # noqa: PLR2004 - another struct flock there
        return True
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _SWITCH_AT, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(live.keep.open(path), fcntl.F_GETLK, asked))[0]
    return kind == fcntl.F_UNLCK


def _closed(live: Live) -> Held:
    try:
        fcntl.lockf(live.fd, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_AT)
    except (BlockingIOError, PermissionError):  # the last writer is closing: it is about to write the file
        raise _MovedError from None
    except OSError:  # a file system without locks: the stamps have to do
        pass
    before = quiet_stamps([live.path])
    _insist(live.still_here() and not live.has_wal())
    con = connect(live.path, "immutable=1&mode=ro")
    with _closed_on_error(con):
        query(con, TOUCH)

    def held() -> bool:
        return stamps([live.path]) == before and not live.has_wal()

    size = os.fstat(live.fd).st_size
    sources = [Source(live.entry(size), partial(buffers, live.fd, size, live.path))]
    how = "closed database (WAL), unchanged while read"
    return Held(how=how, sources=sources, con=con, journal="wal", moved=lambda: not held(), held=held)


def _in_rollback(live: Live, *, copy: bool) -> Held:
    con = connect(live.path, "mode=ro", live.patience)
    with _closed_on_error(con):
        _begin_shared(con)
        _insist(value(con, "PRAGMA journal_mode") != "wal" and live.still_here() and not live.has_wal())
        entry = live.entry(os.fstat(live.fd).st_size)
        if not copy:
            sources = [Source(entry, partial(buffers, live.fd, entry.size, live.path))]
            return Held(how="read transaction", sources=sources, con=con, journal="rollback")
        counter = live.counter()
        target = live.scratch / COPY
        target.unlink(missing_ok=True)
        copy_bytes(live.fd, live.path, target)
    con.close()  # a writer may commit again

    def moved() -> bool:
        return not live.still_here() or live.counter() != counter

    return as_private(live, target, entry, how="private copy under a shared lock", moved=moved)


def _begin_shared(con: "apsw.Connection") -> None:
    import apsw

    for tries_left in reversed(range(_HOT_TRIES)):
        con.execute("BEGIN")
        try:
            query(con, TOUCH)
        except apsw.ReadOnlyError:  # a hot journal, or one that a busy writer is just deleting (hasHotJournal says so)
            con.execute("ROLLBACK")
            if not tries_left:
                raise
            clock.pause(0.01)
        else:
            return

"""Hold a database without a lock on it: a private copy that SQLite recovers, or mere bytes."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from memkeep.engines.sqlite_copy import buffers, copy_stable, quiet_stamps, stamps
from memkeep.engines.sqlite_held import TOUCH, Held, Live, Source
from memkeep.engines.sqlite_sql import connect, query
from memkeep.model import Entry, Finding, Severity

NO_MAGIC = "it does not begin as an SQLite file does"
COPY = "image.db"
_SUFFIXES = ("", "-wal", "-journal")


def as_empty(live: Live) -> Held:
    """Hold a file of 0 bytes, which is a database without tables."""
    return Held(
        how="empty file",
        sources=[Source(live.entry(0), lambda: iter(()))],
        moved=lambda: not live.still_here() or os.fstat(live.fd).st_size > 0,
    )


def as_copy(live: Live, *, hot: bool) -> Held:
    """Copy without a lock and let SQLite recover the copy: roll back a hot journal, or take in the WAL."""
    import apsw

    paths = [live.side(suffix) for suffix in _SUFFIXES]
    target = live.scratch / COPY
    frozen = copy_stable(paths, [live.scratch / (COPY + suffix) for suffix in _SUFFIXES])
    try:
        con = connect(target, "mode=rw")
        try:
            query(con, TOUCH)
            query(con, "PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            con.close()
    except apsw.Error as error:
        return as_bytes(live, f"SQLite says: {error}")
    findings = []
    if not hot:
        message = f"{live.name} could not be locked and was copied while it stood still."
        findings.append(
            Finding(code="sqlite_copied_without_lock", severity=Severity.INFO, message=message, part=live.name)
        )
    how = "private copy, hot journal rolled back" if hot else "private copy, unchanged while copied"
    entry = live.entry(target.stat().st_size)
    return as_private(live, target, entry, how=how, moved=lambda: stamps(paths) != frozen, findings=findings)


def as_private(
    live: Live,
    path: Path,
    entry: Entry,
    *,
    how: str,
    moved: Callable[[], bool] = lambda: False,
    findings: list[Finding] | None = None,
) -> Held:
    """Hold a file of our own, `path`, as what lies at the live place."""
    import apsw

    fd = live.keep.open(path)
    try:
        con = connect(path, "immutable=1&mode=ro")
        query(con, TOUCH)
    except apsw.Error as error:
        return as_bytes(live, f"SQLite says: {error}")
    return Held(
        how=how,
        sources=[Source(entry, partial(buffers, fd, entry.size, path))],
        con=con,
        private=path,
        journal="wal" if live.is_wal_mode() else "rollback",
        moved=moved,
        findings=findings or [],
    )


def as_bytes(live: Live, reason: str) -> Held:
    """Hold what is no readable database as the bytes that it is, side files included."""
    paths = [live.side(suffix) for suffix in _SUFFIXES]
    frozen = quiet_stamps(paths)
    sources = []
    for suffix, path in zip(_SUFFIXES, paths, strict=True):
        there = frozen[path]
        if there is not None and (there.size or not suffix):
            fd = live.keep.open(path)
            sources.append(Source(live.entry(there.size, suffix), partial(buffers, fd, there.size, path)))

    def held() -> bool:
        return stamps(paths) == frozen

    finding = Finding(
        code="sqlite_unreadable",
        severity=Severity.WARNING,
        message=f"{live.name} is not a readable database ({reason}) and was copied as bytes.",
        part=live.name,
        mend="If it is encrypted, this is as it should be: only its owner can check it.",
    )
    how = "bytes, unchanged while read"
    return Held(how=how, sources=sources, moved=lambda: not held(), held=held, findings=[finding])

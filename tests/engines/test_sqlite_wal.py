"""The WAL and its index, read from their files, against what SQLite itself says is there."""

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep import clock
from memkeep.engines import sqlite_copy, sqlite_wal
from memkeep.engines.sqlite_copy import copy_stable, quiet_stamps, stamps
from memkeep.engines.sqlite_wal import IndexHeader, Overlay, WalChangedError
from memkeep.errors import UnstableError

HEADER = IndexHeader(change=3, page_size=4096, frames=7, pages=5, salts=b"12345678", backfilled=2, raw=b"raw")


def test_a_snapshot_is_sure_only_when_nothing_happened_around_its_first_read() -> None:
    assert sqlite_wal.snapshot_of(HEADER, HEADER) == HEADER
    assert sqlite_wal.snapshot_of(HEADER, HEADER._replace(raw=b"new")) is None
    assert sqlite_wal.snapshot_of(HEADER, HEADER._replace(backfilled=7)) is None
    assert sqlite_wal.snapshot_of(None, HEADER) is None
    assert sqlite_wal.snapshot_of(HEADER, None) is None
    assert sqlite_wal.snapshot_of(None, None) is None


def test_a_page_size_of_65536_is_stored_as_one() -> None:
    assert [sqlite_wal.page_size(n) for n in (1, 512, 4096, 32768)] == [65536, 512, 4096, 32768]


@pytest.fixture
def live(make_db: Callable[..., Path]) -> Any:
    """Make a WAL-mode database with a few commits in its WAL, open in this process; give its path."""
    path = make_db("CREATE TABLE t(b);")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA wal_autocheckpoint = 0")
    for n in range(4):
        con.execute("INSERT INTO t VALUES (?)", (bytes([n]) * 3000,))
    yield path
    con.close()


def test_the_header_of_the_index_says_what_the_files_say(live: Path) -> None:
    shm = os.open(f"{live}-shm", os.O_RDONLY)
    header = sqlite_wal.read_index(shm)
    assert header is not None
    wal = Path(f"{live}-wal").read_bytes()
    assert header.frames == (len(wal) - 32) // (24 + 4096)
    assert header.page_size == 4096
    assert header.salts == wal[16:24]
    assert header.backfilled == 0
    last = 32 + (header.frames - 1) * 4120
    assert header.pages == int.from_bytes(wal[last + 4 : last + 8], "big")
    pages = [int.from_bytes(wal[at : at + 4], "big") for at in range(32, len(wal), 4120)]
    assert sqlite_wal.frame_pages(shm, header.frames) == pages
    os.close(shm)


def test_an_index_that_is_torn_short_or_unmade_says_nothing(live: Path, tmp_path: Path) -> None:
    good = Path(f"{live}-shm").read_bytes()
    file = tmp_path / "index"
    for content in (b"", good[:99], bytes(len(good)), good[:50] + b"\xff" + good[51:]):
        file.write_bytes(content)
        fd = os.open(file, os.O_RDONLY)
        assert sqlite_wal.read_index(fd) is None
        os.close(fd)
    file.write_bytes(good[:140])
    fd = os.open(file, os.O_RDONLY)
    with pytest.raises(WalChangedError):
        sqlite_wal.frame_pages(fd, 4)
    os.close(fd)


@pytest.mark.parametrize("change", ["page", "salt", "cut"])
def test_a_frame_of_another_generation_is_never_taken_for_ours(change: str, live: Path, tmp_path: Path) -> None:
    shm = os.open(f"{live}-shm", os.O_RDONLY)
    header = sqlite_wal.read_index(shm)
    assert header is not None
    wal = bytearray(Path(f"{live}-wal").read_bytes())
    at = 32 + (header.frames - 1) * 4120
    if change == "cut":
        del wal[at + 2000 :]
    else:
        wal[at + (3 if change == "page" else 12)] ^= 1
    copy = tmp_path / "wal"
    copy.write_bytes(wal)
    database, other = os.open(live, os.O_RDONLY), os.open(copy, os.O_RDONLY)
    size, pages = header.pages * 4096, sqlite_wal.frame_pages(shm, header.frames)
    overlay = Overlay(database, other, size=size, step=4096, salts=header.salts, pages=pages)
    with pytest.raises(WalChangedError, match=f"frame {header.frames} "):
        list(overlay.buffers())
    for fd in (shm, database, other):
        os.close(fd)


@pytest.mark.property
@pytest.mark.parametrize("seed", range(12))
def test_the_image_is_page_for_page_what_sqlite_backs_up(
    seed: int, make_db: Callable[..., Path], freeze: Callable[..., Any], tmp_path: Path
) -> None:
    r = random.Random(seed)
    size = r.choice([512, 1024, 4096, 65536])
    path = make_db("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);", page_size=size)
    con = sqlite3.connect(path, isolation_level=None, timeout=0)
    con.execute("PRAGMA synchronous = OFF")
    con.execute(f"PRAGMA wal_autocheckpoint = {r.choice([0, 7, 100])}")
    con.execute(f"PRAGMA cache_size = {r.choice([5, 500])}")
    reader = sqlite3.connect(path, isolation_level=None)
    for step in range(8):
        for _ in range(r.randrange(12)):
            con.execute("BEGIN")
            for _ in range(r.randrange(1, 9)):
                sql = r.choice(
                    [
                        "INSERT INTO t(b) VALUES (randomblob(:n))",
                        "UPDATE t SET b = randomblob(:n) WHERE id % 7 = :n % 7",
                        "DELETE FROM t WHERE id % 5 = :n % 5",
                    ]
                )
                con.execute(sql, {"n": r.randrange(size * 3)})
            con.execute(r.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        if r.random() < 0.5:  # an old reader keeps a checkpoint from going all the way
            if not reader.in_transaction:
                reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM t").fetchone()
        elif reader.in_transaction:
            reader.execute("COMMIT")
        if r.random() < 0.6:
            con.execute(f"PRAGMA wal_checkpoint({r.choice(['PASSIVE', 'FULL'])})").fetchone()
        with freeze(path) as opened:
            image = b"".join(opened.stream(opened.entries()[0]))
            target = tmp_path / f"backup-{step}.db"
            other = sqlite3.connect(target)
            con.backup(other)
            other.close()
        backup = target.read_bytes()
        assert len(image) == len(backup)
        # A backup has its own change counter (offset 24), schema cookie (40) and "version valid for" and library (92).
        for data in (image, backup):
            assert data[:16] == b"SQLite format 3\0"
        mask = [*range(24, 28), *range(40, 44), *range(92, 100)]
        one, two = bytearray(image), bytearray(backup)
        for at in mask:
            one[at] = two[at] = 0
        assert one == two
    reader.close()
    con.close()


def test_files_that_never_hold_still_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copy = tmp_path / "busy", tmp_path / "copy"
    path.write_bytes(b"x")
    writes = []

    def pause(_: float) -> None:
        writes.append(path.write_bytes(os.urandom(100 + len(writes))))

    monkeypatch.setattr(clock, "pause", pause)
    real = sqlite_copy.copy_bytes
    monkeypatch.setattr(sqlite_copy, "copy_bytes", lambda *args: (real(*args), pause(0))[0])
    with pytest.raises(UnstableError, match="busy"):
        copy_stable([path], [copy])
    assert len(writes) > 40


def test_a_file_that_was_written_a_moment_ago_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pauses = tmp_path / "fresh", []
    path.write_bytes(b"x")
    monkeypatch.setattr(clock, "pause", lambda seconds: (pauses.append(seconds), path.write_bytes(b"xy")))
    assert quiet_stamps([path])[path].size == 2
    assert pauses == [pytest.approx(0.05)]
    os.utime(path, ns=(0, 1_600_000_000_000_000_000))
    assert quiet_stamps([path, tmp_path / "none"]) == stamps([path, tmp_path / "none"])
    assert len(pauses) == 1

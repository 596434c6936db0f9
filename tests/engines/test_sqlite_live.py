"""Databases that somebody is writing: every image is one moment, and the writer is left in peace."""

import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.engines.sqlite_held import Descriptors
from memkeep.engines.sqlite_hold import hold_live
from memkeep.errors import UnstableError
from memkeep.model import TableMap


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FREEZES = 15


@pytest.mark.parametrize(
    ("mode", "checkpoint", "page_size"),
    [("wal", 5, 4096), ("wal", 300, 1024), ("delete", 0, 4096), ("truncate", 0, 512)],
)
def test_no_image_is_torn_while_a_writer_works_at_full_rate(  # noqa: PLR0917 - fixtures
    mode: str,
    checkpoint: int,
    page_size: int,
    make_db: Callable[..., Path],
    writer: Callable[..., Any],
    take: Callable[..., Any],
    reopen: Callable[..., Any],
    assert_whole: Callable[[Path], int],
    notes_map: TableMap,
) -> None:
    path = make_db(journal=mode, page_size=page_size)
    writer(path, mode, checkpoint)
    newest = []
    for _ in range(FREEZES):
        frozen = take(path, notes_map)
        assert frozen.held
        assert frozen.how.startswith("read transaction (WAL)" if mode == "wal" else "private copy under a shared lock")
        assert frozen.checked == []
        assert frozen.findings == []
        with reopen(frozen.image, notes_map) as image:
            again = list(image.scan({}, frozen.baseline.probes))
            assert image.check() == []
            assert image.baseline().tables == frozen.baseline.tables
            assert image.baseline().probes == frozen.baseline.probes
            assert again == frozen.groups
        newest.append(assert_whole(frozen.image))
        frozen.image.unlink()
    assert newest == sorted(set(newest)), "the writer stood still"


def test_streaming_beside_a_scan_gives_the_same_moment(
    make_db: Callable[..., Path],
    writer: Callable[..., Any],
    freeze: Callable[..., Any],
    reopen: Callable[..., Any],
    tmp_path: Path,
    assert_whole: Callable[[Path], int],
) -> None:
    path = make_db()
    writer(path, "wal", 10)
    for number in range(5):
        image = tmp_path / f"image-{number}" / path.name
        image.parent.mkdir()
        with freeze(path) as opened:
            entry = opened.entries()[0]
            poured: list[bytes] = []
            pour = threading.Thread(target=poured.extend, args=[opened.stream(entry)])
            pour.start()
            list(opened.scan({}))
            pour.join()
            baseline = opened.baseline()
            again = b"".join(opened.stream(entry))
            assert opened.held()
        image.write_bytes(b"".join(poured))
        assert image.read_bytes() == again
        with reopen(image) as restored:
            list(restored.scan({}))
            assert restored.baseline().tables == baseline.tables
        assert_whole(image)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_no_image_is_torn_while_an_agent_opens_and_closes_for_every_write(
    mode: str, make_db: Callable[..., Path], agent: Callable[..., Any], take: Callable[..., Any]
) -> None:
    path = make_db(
        "CREATE TABLE a(n); CREATE TABLE b(n); INSERT INTO a VALUES (0); INSERT INTO b VALUES (0);", journal=mode
    )
    busy = agent(
        """
        import sqlite3, sys
        print("ready", flush=True)
        while True:
            con = sqlite3.connect(sys.argv[1], timeout=60)
            con.execute("UPDATE a SET n = n + 1")
            con.execute("UPDATE b SET n = n + 1")
            con.commit()
            con.close()
        """,
        path,
    )
    assert busy.hear() == "ready"
    whole, seen = 0, set()
    for _ in range(60):
        frozen = take(path)
        if not frozen.held:
            continue
        con = sqlite3.connect(f"file:{frozen.image}?immutable=1", uri=True)
        (one,), (other,) = (con.execute(f"SELECT n FROM {table}").fetchone() for table in "ab")
        con.close()
        assert one == other
        seen.add(one)
        whole += 1
        if whole == FREEZES:
            break
    assert whole == FREEZES
    assert len(seen) > 1, "the writer stood still"


def test_a_last_writer_that_closes_neither_takes_the_wal_away_nor_writes_into_the_file(
    make_db: Callable[..., Path], agent: Callable[..., Any], freeze: Callable[..., Any]
) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    path = make_db(f"CREATE TABLE t(n, pad); {rows} INSERT INTO t SELECT i, zeroblob(500) FROM n; CREATE TABLE u(n);")
    before = path.read_bytes()
    busy = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None)
        con.execute("INSERT INTO u VALUES (1)")
        print("written", flush=True)
        sys.stdin.readline()
        con.execute("UPDATE t SET n = -n")
        con.close()
        """,
        path,
    )
    assert busy.hear() == "written"
    with freeze(path) as opened:
        assert not opened.moved()
        image = b"".join(opened.stream(opened.entries()[0]))
        busy.say()
        busy.finish()
        assert path.read_bytes() == before
        assert opened.held()
        assert opened.moved()
        assert b"".join(opened.stream(opened.entries()[0])) == image
        list(opened.scan({}))
        assert opened.baseline().tables["u"].rows == 1
    con = sqlite3.connect(path)
    assert con.execute("SELECT sum(n) FROM t").fetchone() == (-sum(range(501)),)
    con.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_moved_tells_a_commit_from_quiet(mode: str, make_db: Callable[..., Path], freeze: Callable[..., Any]) -> None:
    path = make_db("CREATE TABLE t(n);", journal=mode)
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1)")
    with freeze(path) as opened:
        assert not opened.moved()
        con.execute("SELECT * FROM t").fetchall()
        assert not opened.moved()
        con.execute("INSERT INTO t VALUES (2)")
        assert opened.moved()
        assert opened.held()
    con.close()


def test_rows_of_a_killed_process_that_were_never_checkpointed_are_all_there(
    make_db: Callable[..., Path],
    agent: Callable[..., Any],
    take: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    path = make_db("CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);")
    killed = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None)
        con.execute("PRAGMA wal_autocheckpoint = 0")
        for n in range(300):
            con.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 400))
        con.execute("BEGIN")
        con.executemany("INSERT INTO t VALUES (?, ?)", [(n, "never committed" * 99) for n in range(1000, 9000)])
        print("written", flush=True)
        sys.stdin.readline()
        """,
        path,
    )
    assert killed.hear() == "written"
    killed.kill()
    before = tree_hash(path.parent)
    files = names_in(path.parent)
    frozen = take(path)
    assert tree_hash(path.parent) == before
    assert names_in(path.parent) == files == ["facts.db", "facts.db-shm", "facts.db-wal"]
    assert frozen.how == "read transaction (WAL)"
    assert frozen.baseline.tables["t"].rows == 300
    assert names_in(frozen.image.parent) == ["facts.db"]
    con = sqlite3.connect(frozen.image)
    assert con.execute("SELECT count(*), sum(id) FROM t").fetchone() == (300, sum(range(300)))
    con.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_open_database_is_left_as_it_was(
    mode: str,
    make_db: Callable[..., Path],
    take: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    path = make_db(journal=mode)
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("UPDATE plus SET v = 1 WHERE id = 1")
    before = tree_hash(path.parent)
    stat = path.stat()
    assert take(path).held
    assert tree_hash(path.parent) == before
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_ino) == (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    con.close()
    assert names_in(path.parent) == ["facts.db"]


def test_a_database_that_was_closed_cleanly_gets_no_files_beside_it(
    make_db: Callable[..., Path], take: Callable[..., Any], tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    path = make_db()
    before = tree_hash(path.parent)
    frozen = take(path)
    assert frozen.how == "closed database (WAL), unchanged while read"
    assert frozen.held
    assert frozen.image.read_bytes() == path.read_bytes()
    assert tree_hash(path.parent) == before
    assert names_in(path.parent) == ["facts.db"]


def test_a_closed_database_that_is_opened_and_written_meanwhile_is_no_moment_any_more(
    make_db: Callable[..., Path], freeze: Callable[..., Any], take: Callable[..., Any]
) -> None:
    path = make_db()
    with freeze(path) as opened:
        assert opened.held()
        con = sqlite3.connect(path)
        con.execute("UPDATE plus SET v = v + 1")
        con.commit()
        assert not opened.held()
        assert opened.moved()
        con.close()
        assert not opened.held()
    again = take(path)
    assert again.held
    assert again.how == "read transaction (WAL)", "its last writer could not checkpoint while it was read"


def test_a_writer_in_this_very_process_keeps_its_locks(
    make_db: Callable[..., Path], freeze: Callable[..., Any], agent: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(n);", journal="delete")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("BEGIN IMMEDIATE")
    con.execute("INSERT INTO t VALUES (1)")
    with freeze(path) as opened:
        list(opened.scan({}))
        b"".join(opened.stream(opened.entries()[0]))
        assert opened.baseline().tables["t"].rows == 0
    other = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
        try:
            con.execute("BEGIN IMMEDIATE")
            print("got the lock")
        except sqlite3.OperationalError as error:
            print(error)
        """,
        path,
    )
    assert other.hear() == "database is locked"
    con.execute("COMMIT")
    con.close()


def test_a_wal_without_its_index_is_read_in_place(
    make_db: Callable[..., Path], take: Callable[..., Any], tree_hash: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    path = make_db("CREATE TABLE t(n);")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1), (2), (3)")
    lone = tmp_path / "lone" / "facts.db"
    lone.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{lone}{suffix}")
    con.close()
    before = tree_hash(lone.parent)
    frozen = take(lone)
    assert frozen.how == "read transaction (WAL)"
    assert frozen.baseline.tables["t"].rows == 3
    assert tree_hash(lone.parent) == before
    assert set(names_in(lone.parent)) <= {"facts.db", "facts.db-wal", "facts.db-shm"}


def test_the_last_closing_writer_is_waited_for(
    make_db: Callable[..., Path], agent: Callable[..., Any], freeze: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(n);")
    closing = agent(
        """
        import fcntl, os, sys
        fd = os.open(sys.argv[1], os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX, 510, 0x40000002)  # as the last connection does while it rewrites the file
        print("locked", flush=True)
        sys.stdin.readline()
        """,
        path,
    )
    assert closing.hear() == "locked"
    with pytest.raises(UnstableError, match=r"facts\.db"), freeze(path, patience=0.2):
        pass
    threading.Timer(0.3, closing.say).start()
    with freeze(path, patience=20.0) as opened:
        assert closing.process.wait(20) == 0
        assert opened.held()


def test_a_moment_whose_transaction_was_lost_is_not_held(make_db: Callable[..., Path], tmp_path: Path) -> None:
    path = make_db("CREATE TABLE t(n);")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1)")
    moment = hold_live(path, "facts.db", tmp_path, Descriptors())
    assert moment.held()
    assert moment.con is not None
    moment.con.execute("ROLLBACK")
    assert not moment.held()
    moment.con.close()
    con.close()


def test_a_writer_half_way_through_an_exclusive_transaction_is_read_as_it_was_before(
    make_db: Callable[..., Path],
    agent: Callable[..., Any],
    take: Callable[..., Any],
    assert_whole: Callable[[Path], int],
) -> None:
    path = make_db(journal="delete")
    exclusive = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None)
        con.execute("PRAGMA cache_size = 2")
        con.execute("BEGIN EXCLUSIVE")
        con.execute("UPDATE minus SET v = v - 7, pad = randomblob(4000)")
        print("half way", flush=True)
        sys.stdin.readline()
        """,
        path,
    )
    assert exclusive.hear() == "half way"
    frozen = take(path, patience=0.2)
    assert [finding.code for finding in frozen.findings] == ["sqlite_copied_without_lock"]
    assert_whole(frozen.image)


def test_a_writer_in_exclusive_mode_that_rests_is_copied_without_a_lock(
    make_db: Callable[..., Path], agent: Callable[..., Any], take: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(n);")
    exclusive = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None)
        con.execute("PRAGMA locking_mode = EXCLUSIVE")
        con.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(50)])
        print("written", flush=True)
        sys.stdin.readline()
        """,
        path,
    )
    assert exclusive.hear() == "written"
    frozen = take(path, patience=0.2)
    assert frozen.how == "private copy, unchanged while copied"
    assert [finding.code for finding in frozen.findings] == ["sqlite_copied_without_lock"]
    assert frozen.baseline.tables["t"].rows == 50
    con = sqlite3.connect(frozen.image)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (50,)
    con.close()

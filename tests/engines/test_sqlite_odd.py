"""Databases that are odd, broken, empty, encrypted or out of reach."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memkeep.engines.sqlite import inspect
from memkeep.errors import StoreError, UnstableError
from memkeep.model import TableMap
from memkeep.records import groups


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PEOPLE = TableMap(collection="people", table="people", id="id")


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 8192, 16384, 32768, 65536])
def test_all_page_sizes_are_read_with_and_without_a_wal(
    page_size: int, make_db: Callable[..., Path], take: Callable[..., Any], assert_whole: Callable[[Path], int]
) -> None:
    path = make_db(page_size=page_size)
    con = sqlite3.connect(path, isolation_level=None)
    assert con.execute("PRAGMA page_size").fetchone() == (page_size,)
    con.execute("INSERT INTO notes VALUES (1, 'one', 'hello world', zeroblob(100000))")
    con.execute("PRAGMA wal_checkpoint(FULL)")
    con.execute("UPDATE minus SET pad = randomblob(3000) WHERE id % 9 = 0")
    frozen = take(path)
    assert frozen.how == "read transaction (WAL)"
    assert frozen.baseline.facts["page_size"] == page_size
    assert assert_whole(frozen.image) == 1
    con.close()
    closed = take(path)
    assert closed.how == "closed database (WAL), unchanged while read"
    assert closed.baseline.tables == frozen.baseline.tables


@pytest.mark.parametrize("mode", [1, 2])
def test_a_database_that_shrinks_itself_is_read_at_its_new_size(
    mode: int, make_db: Callable[..., Path], take: Callable[..., Any]
) -> None:
    path = make_db(f"PRAGMA auto_vacuum = {mode}; VACUUM; CREATE TABLE t(b); CREATE TABLE u(b);")
    con = sqlite3.connect(path, isolation_level=None)
    for _ in range(400):
        con.execute("INSERT INTO t VALUES (randomblob(3000))")
    con.execute("INSERT INTO u VALUES (randomblob(3000))")
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.execute("DELETE FROM t")
    con.executescript("PRAGMA incremental_vacuum")
    con.execute("INSERT INTO u VALUES (randomblob(3000))")
    frozen = take(path)
    assert frozen.how == "read transaction (WAL)"
    assert frozen.image.stat().st_size < path.stat().st_size / 4
    con.close()
    con = sqlite3.connect(frozen.image)
    assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert con.execute("SELECT count(*) FROM u").fetchone() == (2,)
    con.close()


def test_pages_that_are_only_in_the_wal_are_part_of_the_image(
    make_db: Callable[..., Path], take: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(b);")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA wal_autocheckpoint = 0")
    con.execute("PRAGMA synchronous = OFF")
    for n in range(9000):  # more frames than the first two blocks of the wal-index tell of
        con.execute("INSERT INTO t VALUES (?)", (b"%d" % n * 300,))
    frozen = take(path)
    assert path.stat().st_size < 20_000
    assert frozen.image.stat().st_size > 5_000_000
    assert frozen.baseline.tables["t"].rows == 9000
    con.close()


def test_a_wal_that_was_taken_in_whole_and_not_yet_started_over_is_left_aside(
    make_db: Callable[..., Path], freeze: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(n);")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1)")
    con.execute("PRAGMA wal_checkpoint(FULL)")
    with freeze(path) as opened:
        entry = opened.entries()[0]
        before = b"".join(opened.stream(entry))
        assert before == path.read_bytes()
        for n in range(50):  # the first of these starts the WAL over
            con.execute("INSERT INTO t VALUES (?)", (n,))
            con.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert b"".join(opened.stream(entry)) == before
        list(opened.scan({}))
        assert opened.baseline().tables["t"].rows == 1
        assert opened.held()
        assert opened.moved()
    con.close()


def test_a_hot_journal_is_rolled_back_in_a_copy(
    make_db: Callable[..., Path],
    agent: Callable[..., Any],
    take: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
    assert_whole: Callable[[Path], int],
) -> None:
    path = make_db(journal="delete")
    killed = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None)
        con.execute("PRAGMA cache_size = 2")
        con.execute("BEGIN")
        con.execute("UPDATE plus SET v = 1000")
        con.execute("UPDATE minus SET v = v - 7, pad = randomblob(4000)")
        con.execute("DELETE FROM plus WHERE id > 20")
        print("half way", flush=True)
        sys.stdin.readline()
        """,
        path,
    )
    assert killed.hear() == "half way"
    killed.kill()
    assert path.with_name("facts.db-journal").stat().st_size > 512
    before = tree_hash(path.parent)
    frozen = take(path)
    assert tree_hash(path.parent) == before
    assert frozen.how == "private copy, hot journal rolled back"
    assert frozen.findings == []
    assert frozen.checked == []
    assert frozen.baseline.tables["plus"].rows == 200
    assert names_in(frozen.image.parent) == ["facts.db"]
    assert_whole(frozen.image)
    assert inspect([path], {path: ["SELECT count(*) FROM plus"]})[path].results == (((200,),),)
    assert tree_hash(path.parent) == before


def test_an_empty_file_is_a_database_without_tables(
    tmp_path: Path, take: Callable[..., Any], reopen: Callable[..., Any]
) -> None:
    path = tmp_path / "lock.sqlite"
    path.touch()
    frozen = take(path, PEOPLE)
    assert frozen.how == "empty file"
    assert frozen.findings == []
    assert frozen.checked == []
    assert frozen.baseline.tables == {}
    assert frozen.image.read_bytes() == b""
    assert names_in(path.parent / "restored-0") == ["lock.sqlite"]
    with reopen(frozen.image) as image:
        assert list(image.scan({})) == []
        assert image.findings() == []


def test_the_wal_beside_an_empty_file_is_kept_as_it_is(
    make_db: Callable[..., Path], take: Callable[..., Any], tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    path = make_db("CREATE TABLE t(n);")
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1)")
    lone = path.parent.parent / "lone" / "facts.db"
    lone.parent.mkdir()
    lone.touch()
    shutil.copy(f"{path}-wal", f"{lone}-wal")
    con.close()
    before = tree_hash(lone.parent)
    inspect([lone])
    frozen = take(lone)
    assert tree_hash(lone.parent) == before
    assert [finding.code for finding in frozen.findings] == ["sqlite_unreadable"]
    assert names_in(frozen.image.parent) == ["facts.db", "facts.db-wal"]
    assert tree_hash(frozen.image.parent) == before


@pytest.mark.parametrize("content", [os.urandom(8192), b"SQLite format 3\0" + os.urandom(5000), b"{}"])
def test_what_is_no_readable_database_is_taken_as_bytes(
    content: bytes,
    tmp_path: Path,
    take: Callable[..., Any],
    freeze: Callable[..., Any],
    reopen: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "vault.db"
    path.write_bytes(content)
    (folder / "vault.db-wal").write_bytes(b"encrypted, too")
    before = tree_hash(folder)
    frozen = take(path, PEOPLE)
    assert tree_hash(folder) == before == tree_hash(frozen.image.parent)
    assert frozen.held
    (finding,) = frozen.findings
    assert (finding.code, finding.severity, finding.part) == ("sqlite_unreadable", "warning", "vault.db")
    assert frozen.groups == []
    assert frozen.baseline.tables == {}
    assert frozen.checked == []
    with reopen(frozen.image, PEOPLE) as image:
        assert [entry.path for entry in image.entries()] == ["vault.db", "vault.db-wal"]
        assert list(image.scan({})) == []
    with freeze(path) as opened:
        (folder / "vault.db-wal").write_bytes(b"encrypted, and more")
        assert not opened.held()
        assert opened.moved()


def test_bytes_that_end_while_they_are_read_are_no_moment(tmp_path: Path, freeze: Callable[..., Any]) -> None:
    path = tmp_path / "vault.db"
    path.write_bytes(os.urandom(8 << 20))
    with freeze(path) as opened:
        stream = opened.stream(opened.entries()[0])
        next(stream)
        os.truncate(path, 4 << 20)
        with pytest.raises(UnstableError, match=r"vault\.db"):
            list(stream)
        assert not opened.held()
        os.truncate(path, 100)
        with pytest.raises(UnstableError):
            list(opened.stream(opened.entries()[0]))


def test_a_database_that_is_deleted_after_the_freeze_is_still_read(
    make_db: Callable[..., Path], freeze: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(b); INSERT INTO t VALUES (randomblob(2000000));")
    content = path.read_bytes()
    with freeze(path) as opened:
        path.unlink()
        assert b"".join(opened.stream(opened.entries()[0])) == content
        assert not opened.held()
        assert opened.moved()
    with pytest.raises(StoreError, match=r"facts\.db is not there"), freeze(path):
        pass


def test_a_database_that_is_replaced_after_the_freeze_has_moved(
    make_db: Callable[..., Path], freeze: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(n);")
    other = make_db("CREATE TABLE u(n);", path=path.with_name("other.db"))
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1)")
    with freeze(path) as opened:
        other.rename(path)
        assert opened.moved()
        list(opened.scan({}))
        assert opened.baseline().tables["t"].rows == 1
    con.close()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_text_that_is_no_text_is_kept_and_counted(
    encoding: str, make_db: Callable[..., Path], take: Callable[..., Any], reopen: Callable[..., Any]
) -> None:
    bad = {"UTF-8": "ff41", "UTF-16le": "00d84100", "UTF-16be": "d8000041"}[encoding]
    path = make_db(
        f"""
        PRAGMA encoding = '{encoding}';
        CREATE TABLE people(id TEXT, name TEXT, raw BLOB, n);
        INSERT INTO people VALUES ('good', 'Zoë' || char(0) || '日本', x'ff41', 1);
        INSERT INTO people VALUES ('bad', CAST(x'{bad}' AS TEXT), NULL, 2.5);
        INSERT INTO people VALUES (CAST(x'{bad}' AS TEXT), 'nameless', NULL, 'x');
        """
    )
    frozen = take(path, PEOPLE)
    assert frozen.findings == []
    assert frozen.baseline.tables["people"].rows == 3
    columns, rows = groups.decode(frozen.groups[0].data)
    assert columns == ["id", "name", "raw", "n"]
    found = {row[0]: row for row in rows}
    assert found["good"] == ("good", "Zoë\0日本", groups.cell(b"\xff\x41"), 1)
    assert found["bad"] == ("bad", {"text": bad}, None, 2.5)
    assert found[bad] == (bad, "nameless", None, "x")
    with reopen(frozen.image, PEOPLE) as image:
        assert list(image.scan({})) == frozen.groups
        assert image.baseline().tables == frozen.baseline.tables
    con = sqlite3.connect(path, isolation_level=None)
    other = {"UTF-8": "ff42", "UTF-16le": "00d84200", "UTF-16be": "d8000042"}[encoding]
    con.execute(f"UPDATE people SET name = CAST(x'{other}' AS TEXT) WHERE id = 'bad'")
    con.close()
    assert take(path, PEOPLE).baseline.tables != frozen.baseline.tables


def test_tables_of_every_shape_are_read(make_db: Callable[..., Path], take: Callable[..., Any]) -> None:
    path = make_db(
        """
        CREATE TABLE "quoted ""name""; --"("a ""b"" c", "select" TEXT);
        INSERT INTO "quoted ""name""; --" VALUES (1, 'x');
        CREATE TABLE rowless(a TEXT, b TEXT, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
        CREATE INDEX covering ON rowless(c DESC, a, b);
        INSERT INTO rowless VALUES ('1', 'b', 3), ('2', 'a', 2), ('0', 'b', 1), ('B', 'A', 0);
        CREATE TABLE taken(rowid TEXT, _rowid_ TEXT, oid TEXT);
        INSERT INTO taken VALUES ('z', 'y', 'x'), ('a', 'b', 'c');
        CREATE TABLE shadowed(rowid TEXT);
        CREATE INDEX shadow ON shadowed(rowid);
        INSERT INTO shadowed VALUES ('z'), ('a');
        CREATE TABLE computed(a INTEGER, b GENERATED ALWAYS AS (a * 2) VIRTUAL, c AS (a * 3) STORED);
        INSERT INTO computed VALUES (7);
        CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT);
        INSERT INTO counted DEFAULT VALUES;
        CREATE TABLE wide(b BLOB);
        INSERT INTO wide VALUES (zeroblob(5000000)), (NULL), (zeroblob(3)), (randomblob(2000000));
        CREATE TABLE none(x);
        CREATE VIEW seen AS SELECT * FROM none;
        ANALYZE;
        """
    )
    frozen = take(path, TableMap(collection="computed", table="COMPUTED", id="A"))
    rows = {name: state.rows for name, state in frozen.baseline.tables.items()}
    assert rows.pop("sqlite_stat1") > 0
    rows.pop("sqlite_stat4", None)
    assert rows == {
        'quoted "name"; --': 1,
        "rowless": 4,
        "taken": 2,
        "shadowed": 2,
        "computed": 1,
        "counted": 1,
        "sqlite_sequence": 1,
        "wide": 4,
        "none": 0,
    }
    assert all(len(state.digest) == 64 for state in frozen.baseline.tables.values())
    assert groups.decode(frozen.groups[0].data) == (["a", "b", "c"], [(7, 14, 21)])


def test_the_digest_does_not_depend_on_indexes_or_on_the_order_of_insertion(
    make_db: Callable[..., Path], take: Callable[..., Any]
) -> None:
    digests = set()
    for script in (
        "INSERT INTO k VALUES ('a', 1), ('b', 2), ('c', 0); INSERT INTO r(rowid, x) VALUES (1, 'z'), (2, 'y');",
        """
        INSERT INTO r(rowid, x) VALUES (2, 'y'), (1, 'z'); INSERT INTO k VALUES ('c', 0), ('b', 2), ('a', 1);
        CREATE INDEX ki ON k(v, k); CREATE INDEX ri ON r(x); ANALYZE;
        """,
    ):
        path = make_db("CREATE TABLE k(k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE r(x);" + script)
        tables = take(path).baseline.tables
        digests.add((tables["k"].digest, tables["r"].digest))
        path.unlink()
    assert len(digests) == 1


def test_a_table_that_can_not_be_read_to_its_end_is_an_error_finding_and_the_others_are_read(
    make_db: Callable[..., Path], take: Callable[..., Any]
) -> None:
    path = make_db(
        """
        CREATE TABLE broken(b); CREATE TABLE sound(b);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
          INSERT INTO broken SELECT randomblob(300) FROM n;
        INSERT INTO sound SELECT b FROM broken;
        """
    )
    con = sqlite3.connect(path)
    sizes = con.execute("SELECT pageno FROM dbstat WHERE name = 'broken' AND pagetype = 'leaf' ORDER BY 1").fetchall()
    con.close()
    with path.open("r+b") as file:
        file.seek((sizes[len(sizes) // 2][0] - 1) * 4096)
        file.write(b"\xee" * 4096)
    frozen = take(path)
    (finding,) = frozen.findings
    assert (finding.code, finding.severity) == ("sqlite_table_unreadable", "error")
    assert "broken" in finding.message
    assert frozen.baseline.tables["broken"].digest == ""
    assert 0 < frozen.baseline.tables["broken"].rows < 500
    assert frozen.baseline.tables["sound"].rows == 500
    assert {finding.code for finding in frozen.checked} == {"sqlite_integrity"}
    assert frozen.image.read_bytes() == path.read_bytes()


def test_a_table_that_needs_what_only_its_product_has_is_a_warning(
    make_db: Callable[..., Path], take: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(a, b AS (abs(a))); INSERT INTO t(a) VALUES (1); CREATE TABLE u(a);")
    con = sqlite3.connect(path, isolation_level=None)
    con.executescript("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'abs', 'their_own');")
    con.close()
    frozen = take(path)
    (finding,) = frozen.findings
    assert (finding.code, finding.severity) == ("sqlite_table_unreadable", "warning")
    assert "their_own" in finding.message
    assert frozen.baseline.tables["u"].digest
    assert {finding.severity for finding in frozen.checked} <= {"info"}


# Modes bind a process of root, too, once CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) are out of its bounding set
# (PR_CAPBSET_DROP, 24) and it has started a program. For others the kernel says no, and need not say yes.
TAKER = """
import ctypes, os, sys
if "BOUND" not in os.environ:
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
    os.environ["BOUND"] = "1"
    os.execv(sys.executable, sys.orig_argv)
import json
from pathlib import Path
from memkeep.engines.sqlite import SqliteEngine, inspect
from memkeep.errors import MemkeepError
from memkeep.model import Part, Role
path, scratch = map(Path, sys.argv[1:])
part = Part(name=path.name, engine="sqlite", role=Role.CANONICAL, path=str(path))
try:
    with SqliteEngine().freeze(part, path.parent, scratch) as opened:
        list(opened.scan({}))
        opened.check()
        found = {"how": opened.how, "rows": opened.baseline().tables["t"].rows, "held": opened.held()}
        found["codes"] = [finding.code for finding in opened.findings()]
        found["inspected"] = inspect([path], {path: ["SELECT count(*) FROM t"]})[path].results[0][0][0]
except MemkeepError as error:
    found = {"error": error.code, "message": error.message}
print(json.dumps(found))
"""


@pytest.fixture
def take_bound(agent: Callable[..., Any]) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """Return a function that freezes in a process that modes bind, and gives what it saw."""
    with tempfile.TemporaryDirectory() as scratch:

        def take(path: Path) -> dict[str, Any]:
            found = agent(TAKER, path, scratch).hear()
            return dict(json.loads(found))

        yield take


@pytest.fixture
def read_only() -> Iterator[Callable[[Path, int], None]]:
    """Return a function that sets modes, undone at the end so that the folder can be removed."""
    changed: list[tuple[Path, int]] = []

    def change(path: Path, mode: int) -> None:
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield change
    for path, mode in reversed(changed):
        if path.exists():
            path.chmod(mode)


def left_behind(path: Path, *, shm: bool) -> Path:
    """Make what a killed process leaves, beside the database of a live one: 3 rows, 2 of them in the WAL."""
    folder = path.parent.parent / "left"
    folder.mkdir()
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("INSERT INTO t VALUES (1)")
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.execute("INSERT INTO t VALUES (2), (3)")
    for suffix in ("", "-wal", *(["-shm"] if shm else [])):
        shutil.copy(f"{path}{suffix}", folder / f"facts.db{suffix}")
    con.close()
    return folder / "facts.db"


@pytest.mark.parametrize("index", ["with its index", "alone"])
def test_a_wal_in_a_folder_that_can_not_be_written_is_read_from_a_copy(
    index: str,
    make_db: Callable[..., Path],
    take_bound: Callable[[Path], dict[str, Any]],
    read_only: Callable[[Path, int], None],
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    path = left_behind(make_db("CREATE TABLE t(n);"), shm=index != "alone")
    for file in path.parent.iterdir():
        read_only(file, 0o444)
    read_only(path.parent, 0o555)
    before = tree_hash(path.parent)
    assert take_bound(path) == {
        "how": "private copy, unchanged while copied",
        "rows": 3,
        "held": True,
        "codes": ["sqlite_copied_without_lock"],
        "inspected": 3,
    }
    assert tree_hash(path.parent) == before


def test_a_closed_database_in_a_folder_that_can_not_be_written_is_read_in_place(
    make_db: Callable[..., Path],
    take_bound: Callable[[Path], dict[str, Any]],
    read_only: Callable[[Path, int], None],
) -> None:
    for journal, how in (
        ("wal", "closed database (WAL), unchanged while read"),
        ("delete", "private copy under a shared lock"),
    ):
        path = make_db("CREATE TABLE t(n); INSERT INTO t VALUES (1);", journal=journal)
        read_only(path, 0o444)
        read_only(path.parent, 0o555)
        assert take_bound(path) == {"how": how, "rows": 1, "held": True, "codes": [], "inspected": 1}
        path.parent.chmod(0o755)
        path.unlink()


def test_the_wal_of_a_live_writer_whose_shm_can_only_be_read_is_read_under_its_lock(
    make_db: Callable[..., Path],
    take_bound: Callable[[Path], dict[str, Any]],
    read_only: Callable[[Path, int], None],
    agent: Callable[..., Any],
) -> None:
    path = make_db("CREATE TABLE t(n);")
    busy = agent(
        """
        import sqlite3, sys
        con = sqlite3.connect(sys.argv[1], isolation_level=None)
        con.execute("PRAGMA wal_autocheckpoint = 0")
        con.execute("INSERT INTO t VALUES (1), (2)")
        print("written", flush=True)
        sys.stdin.readline()
        """,
        path,
    )
    assert busy.hear() == "written"
    for file in path.parent.iterdir():
        read_only(file, 0o444)
    read_only(path.parent, 0o555)
    found = take_bound(path)
    assert found == {"how": "read transaction (WAL)", "rows": 2, "held": True, "codes": [], "inspected": 2}


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_what_may_not_be_read_is_an_error_that_names_it(
    suffix: str,
    make_db: Callable[..., Path],
    take_bound: Callable[[Path], dict[str, Any]],
    read_only: Callable[[Path, int], None],
) -> None:
    path = left_behind(make_db("CREATE TABLE t(n);"), shm=False)
    secret = path.with_name(path.name + suffix)
    read_only(secret, 0)
    found = take_bound(path)
    assert found["error"] == "store_unreadable"
    assert str(path) in found["message"]

"""The child process: it ends with its parent, answers one thing at a time, and its failures are the parent's errors."""

import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memkeep
from memkeep.engines.sqlite_io import write_frame
from memkeep.engines.sqlite_link import Child
from memkeep.errors import MemkeepError, StoreError, UnstableError, UsageError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


HOLDER = """
import os, sys
from pathlib import Path
from memkeep.engines.sqlite import SqliteEngine
from memkeep.model import Part, Role
path, scratch, forks = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "forks"
part = Part(name=path.name, engine="sqlite", role=Role.CANONICAL, path=str(path))
with SqliteEngine().freeze(part, path.parent, scratch) as opened:
    if forks and os.fork() == 0:  # it has the pipes to the child, too
        sys.stdin.readline()
        os._exit(0)
    stream = opened.stream(opened.entries()[0])
    next(stream)
    print(opened._child._process.pid, flush=True)
    sys.stdin.readline()
"""


def wait_for_the_end(pid: int, seconds: float) -> bool:
    """Wait until a process that is not ours is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


@pytest.mark.parametrize("forks", ["forks", "alone"])
def test_the_child_of_a_killed_parent_lets_go_of_the_database(
    forks: str, make_db: Callable[..., Path], agent: Callable[..., Any], tmp_path: Path
) -> None:
    path = make_db("CREATE TABLE t(b); INSERT INTO t VALUES (zeroblob(9000000));")
    con = sqlite3.connect(path, isolation_level=None, timeout=0)
    con.execute("INSERT INTO t VALUES (1)")
    parent = agent(HOLDER, path, tmp_path, forks)
    child = int(parent.hear())
    con.execute("INSERT INTO t VALUES (2)")
    assert con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 1, "nobody holds the WAL"
    os.kill(parent.process.pid, signal.SIGKILL)
    assert wait_for_the_end(child, 5)
    assert con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    con.close()
    assert names_in(path.parent) == ["facts.db"]


def test_an_interrupt_from_the_keyboard_is_the_parents_business(make_db: Callable[..., Path], freeze: Any) -> None:
    path = make_db("CREATE TABLE t(n); INSERT INTO t VALUES (1);")
    with freeze(path) as opened:
        os.kill(opened._child._process.pid, signal.SIGINT)
        list(opened.scan({}))
        assert opened.baseline().tables["t"].rows == 1


def test_a_scan_or_a_stream_left_half_way_does_not_spoil_the_next(
    make_db: Callable[..., Path], freeze: Callable[..., Any], notes_map: Any
) -> None:
    path = make_db()
    con = sqlite3.connect(path)
    rows = [(n, f"note-{n}", "word " * 50, os.urandom(4000)) for n in range(3000)]
    con.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
    con.commit()
    con.close()
    with freeze(path, notes_map) as opened:
        entry = opened.entries()[0]
        for _ in range(3):
            stream, scan = opened.stream(entry), opened.scan({})
            next(stream)
            next(scan)
            stream.close()
            scan.close()
            assert opened.moved() is False
            assert opened.held() is True
        assert b"".join(opened.stream(entry)) == path.read_bytes()
        assert sum(group.rows for group in opened.scan({})) == 3000


def test_two_conversations_at_once_are_refused(
    make_db: Callable[..., Path], freeze: Callable[..., Any], notes_map: Any
) -> None:
    path = make_db()
    con = sqlite3.connect(path)
    con.execute("INSERT INTO notes VALUES (1, 'a', 'b', 'c'), (2, 'd', 'e', 'f')")
    con.commit()
    con.close()
    with freeze(path, notes_map) as opened:
        scan = opened.scan({})
        next(scan)
        with pytest.raises(RuntimeError, match="one question at a time"):
            opened.held()
        stream = opened.stream(opened.entries()[0])
        next(stream)
        with pytest.raises(RuntimeError, match="one question at a time"):
            next(opened.stream(opened.entries()[0]))
        assert list(scan) == []


def test_a_child_that_dies_is_an_error_with_a_hint(make_db: Callable[..., Path], freeze: Callable[..., Any]) -> None:
    path = make_db("CREATE TABLE t(b); INSERT INTO t VALUES (zeroblob(9000000));")
    with freeze(path) as opened:
        stream = opened.stream(opened.entries()[0])
        next(stream)
        opened._child._process.kill()
        for ask in (opened.check, opened.held, lambda: list(stream), lambda: list(opened.scan({}))):
            with pytest.raises(StoreError, match="ended before its time") as caught:
                ask()
            assert caught.value.hint


def test_a_child_that_breaks_says_how(make_db: Callable[..., Path], freeze: Callable[..., Any]) -> None:
    path = make_db("CREATE TABLE t(b);")
    with freeze(path) as opened:
        with pytest.raises(MemkeepError) as caught:
            opened._child.call("scan", nonsense=1)
        assert "nonsense" in "".join(caught.value.__notes__)
        with pytest.raises(MemkeepError) as caught:
            next(opened._child.stream("no such file"))
        assert "StopIteration" in "".join(caught.value.__notes__)
        list(opened.scan({}))
        assert opened.held()


def test_errors_arrive_as_they_were_raised(tmp_path: Path) -> None:
    with Child() as child:
        gone = {"path": os.fsencode(tmp_path / "x"), "name": "x", "scratch": b"/", "maps": [], "patience": 0.0}
        with pytest.raises(StoreError, match="is not there") as caught:
            child.call("freeze", **gone)
    assert type(caught.value) is StoreError
    assert caught.value.code == "store_unreadable"
    assert caught.value.unchanged == "Nothing was changed."
    assert not issubclass(StoreError, (UsageError, UnstableError))


def test_the_end_of_the_context_ends_the_child_in_the_middle_of_anything(
    make_db: Callable[..., Path], freeze: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE t(b); INSERT INTO t VALUES (zeroblob(30000000));")
    with freeze(path) as opened:
        next(opened.stream(opened.entries()[0]))
        child = opened._child._process
        write_frame(opened._child._requests.fileno(), [99, "check", {}])
    assert child.returncode is not None


@pytest.mark.parametrize("way", ["path", "cwd", "isolated"])
def test_the_child_finds_memkeep_however_the_parent_did(way: str, make_db: Callable[..., Path], tmp_path: Path) -> None:
    path = make_db("CREATE TABLE t(n);")
    home = Path(memkeep.__file__).parents[1]
    code = (
        f"from pathlib import Path; from memkeep.engines.sqlite import inspect; print(inspect([Path({str(path)!r})]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options, folder = [], tmp_path
    if way == "path":
        environment["PYTHONPATH"] = str(home)
    elif way == "cwd":
        folder = home
    else:
        options, code = ["-I"], f"import sys; sys.path.append({str(home)!r}); {code}"
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert "readable=True" in done.stdout, done.stderr
    assert done.stderr == ""


def test_a_parent_without_an_interpreter_of_its_own_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(MemkeepError, match="Python"):
        Child()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(MemkeepError, match="could not be started"):
        Child()

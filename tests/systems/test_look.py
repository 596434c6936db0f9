import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memkeep.engines import sqlite
from memkeep.systems.look import Look, is_sidecar


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the names of the files of each inspection, as they are asked for."""
    seen: list[list[str]] = []
    inspect = sqlite.inspect

    def noted(paths: Any, queries: Any = None) -> Any:
        seen.append([path.name for path in paths])
        return inspect(paths, queries)

    monkeypatch.setattr(sqlite, "inspect", noted)
    return seen


def test_a_folder_is_listed_by_kind_in_order(make: Any, tmp_path: Path) -> None:
    make.files(tmp_path, "b", "a", "sub/x", "half.lance/data/x")
    make.table(tmp_path / "t.lance", ["id"])
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    here = Look().folder(tmp_path)
    assert (list(here.files), here.folders, here.tables) == (["a", "b"], ("half.lance", "sub"), ("t.lance",))
    assert here.links["link"].target == "a"
    assert here.links["link"].leads_to == tmp_path / "a"
    assert here.others == ("pipe",)
    assert Look().folder(tmp_path / "gone") == Look().folder(tmp_path / "a") == ({}, (), (), {}, (), "", ())


def test_known_databases_are_inspected_together_and_once(make: Any, tmp_path: Path, asked: list[list[str]]) -> None:
    for name in ("a.db", "sub/b.sqlite", "sub/deep/c"):
        make.database(tmp_path / name, "CREATE TABLE t(x); INSERT INTO t VALUES(7);")
    look = Look(queries=["SELECT x FROM t", "SELECT y FROM t"])
    look.survey(tmp_path)
    assert asked == []
    assert look.columns(tmp_path / "a.db") == {"t": ["x"]}
    for name in ("a.db", "sub/b.sqlite", "sub/deep/c"):
        assert look.rows(tmp_path / name, "SELECT x FROM t") == [(7,)]
        assert look.rows(tmp_path / name, "SELECT y FROM t") == []
    assert asked == [["a.db", "b.sqlite", "c"]]
    assert look.rows(tmp_path / "a.db", "SELECT x + 1 FROM t") == [(8,)]
    look.ask({tmp_path / "a.db": ["SELECT x + 1 FROM t"]})
    assert asked[1:] == [["a.db"]]


def test_databases_met_later_are_inspected_then(make: Any, tmp_path: Path, asked: list[list[str]]) -> None:
    make.database(tmp_path / "one/a.db")
    make.database(tmp_path / "two/b.db")
    look = Look()
    look.folder(tmp_path / "one")
    assert look.database(tmp_path / "one/a.db")
    assert look.database(tmp_path / "two/b.db") is None
    look.folder(tmp_path / "two")
    assert look.database(tmp_path / "two/b.db")
    assert asked == [["a.db"], ["b.db"]]


def test_only_what_may_be_a_database_is_inspected(make: Any, tmp_path: Path, asked: list[list[str]]) -> None:
    make.database(tmp_path / "plain name")
    (tmp_path / "block").write_bytes(b"x" * 1024)
    (tmp_path / "odd").write_bytes(b"x" * 1023)
    (tmp_path / "text.md").write_bytes(b"x" * 1024)
    (tmp_path / "empty.db").touch()
    (tmp_path / "empty").touch()
    (tmp_path / "garbage.SQLITE").write_bytes(b"x" * 99)
    (tmp_path / "x.db-shm").write_bytes(b"x" * 32768)
    look = Look()
    here = look.folder(tmp_path)
    databases = {name for name in here.files if look.is_database(tmp_path / name)}
    assert databases == {"plain name", "empty.db", "garbage.SQLITE"}
    assert asked == [["block", "empty.db", "garbage.SQLITE", "plain name"]]


def test_an_open_connection_of_this_process_keeps_its_locks(make: Any, tmp_path: Path) -> None:
    names = ("a.db", "no ending")
    mine = [sqlite3.connect(make.database(tmp_path / name), isolation_level=None) for name in names]
    for connection in mine:
        connection.execute("BEGIN IMMEDIATE")
    look = Look()
    look.survey(tmp_path)
    assert [look.is_database(tmp_path / name) for name in names] == [True, True]
    other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    for name in names:
        tried = subprocess.run([sys.executable, "-c", other, tmp_path / name], capture_output=True, check=False)
        assert b"database is locked" in tried.stderr
    for connection in mine:
        connection.close()


def test_a_survey_goes_as_deep_as_is_said(make: Any, tmp_path: Path) -> None:
    make.files(tmp_path, "1/2/3/x", "node_modules/y/z", ".memkeep-parked-1/a/b")
    look = Look()

    def names(depth: int | None, skip: frozenset[str] = frozenset()) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in look.survey(tmp_path, depth=depth, skip=skip)]

    assert names(0) == ["."]
    assert names(1) == [".", "1", "node_modules"]
    assert names(None, frozenset({"node_modules"})) == [".", "1", "1/2", "1/2/3"]


@pytest.mark.parametrize(
    ("name", "beside", "expected"),
    [
        ("x.db-wal", {"x.db": 1}, True),
        ("x.db-shm", {}, True),
        ("x-journal", {"x": 1}, True),
        ("my-journal", {}, False),
        ("-wal", {}, False),
        ("x.db", {"x.db": 1}, False),
    ],
)
def test_a_sidecar_is_told_by_its_name(name: str, beside: dict[str, int], expected: object) -> None:
    assert is_sidecar(name, beside) is expected

"""Rows that leave a live part: those that are named with all that hangs on them, and none before it is said to last."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from memkeep.engines.catalog import engine
from memkeep.engines.qdrant_local_read import Reading, key_of
from memkeep.engines.rows import Deleted, Gone, RowDeleter
from memkeep.errors import StoreError
from memkeep.model import Part, Role

SCHEMA = """
PRAGMA journal_mode = {journal};
CREATE TABLE cells (id INTEGER PRIMARY KEY, content TEXT, scene TEXT);
CREATE VIRTUAL TABLE cell_search USING fts5(content, scene);
CREATE TABLE notes (key BLOB PRIMARY KEY, content TEXT, more TEXT);
CREATE TABLE parts (id TEXT, note BLOB REFERENCES notes(key) ON DELETE CASCADE);
CREATE TABLE links (id TEXT, one TEXT, other TEXT);
"""


def sql(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as con, con:
        found: list[Any] = []
        for one in statements:
            found = con.execute(one).fetchall()
        return found


@pytest.fixture(params=["DELETE", "WAL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "memory.db"
    with closing(sqlite3.connect(path)) as con, con:
        con.executescript(SCHEMA.format(journal=request.param))
        for number in range(1, 5):
            con.execute("INSERT INTO cells VALUES (?, ?, 's')", (number, f"text {number}"))
            con.execute(
                "INSERT INTO cell_search (rowid, content, scene) VALUES (?, ?, 's')", (number, f"text {number}")
            )
            con.execute("INSERT INTO notes VALUES (?, 'n', 'm')", (bytes((number, 171)),))
            con.execute("INSERT INTO parts VALUES (?, ?)", (f"p{number}", bytes((number, 171))))
            con.execute("INSERT INTO links VALUES (?, ?, 'X-Y')", (f"l{number}", f"AB-{number}"))
    return path


def delete(path: Path, gone: Sequence[Gone], *, name: str = "sqlite", commit: bool = True) -> Deleted:
    made = engine(name)
    assert isinstance(made, RowDeleter)
    with made.delete_rows(Part(name=path.name, engine=name, role=Role.CANONICAL, path=str(path)), gone) as one:
        if commit:
            one.commit()
        return one.result


def test_a_cell_goes_from_a_search_that_no_trigger_fills(database: Path) -> None:
    sql(database, "UPDATE cell_search SET content = 'another text' WHERE rowid = 2")
    done = delete(database, [Gone(table="cells", columns=("id",), ids=("1", "2"))])
    assert done == Deleted(tables={"cells": 2}, beside={"cell_search": 1})
    assert sql(database, "SELECT id FROM cells") == [(3,), (4,)]
    assert sql(database, "SELECT rowid FROM cell_search") == [(2,), (3,), (4,)]  # what it repeats, and nothing else


def test_keys_of_bytes_are_named_by_their_digits_and_take_along_what_refers_to_them(database: Path) -> None:
    done = delete(database, [Gone(table="notes", columns=("key",), ids=("01ab", "02AB"))])
    assert done == Deleted(tables={"notes": 1}, beside={"parts": 1})
    assert sql(database, "SELECT id FROM parts") == [("p2",), ("p3",), ("p4",)]


def test_links_are_found_however_another_part_spells_an_id(database: Path) -> None:
    gone = [Gone(table="links", columns=("one", "other", "not there"), ids=("ab1", "ab3"), spelled=False)]
    assert delete(database, gone).tables == {"links": 2}
    assert delete(database, [Gone(table="links", columns=("one",), ids=("ab2",))]).tables == {"links": 0}
    assert delete(database, [Gone(table="links", columns=("one", "other"), ids=("xy",), spelled=False)]).tables == {
        "links": 2
    }


def test_nothing_has_gone_until_it_is_said_to_last_and_others_can_read_meanwhile(database: Path) -> None:
    made = engine("sqlite")
    assert isinstance(made, RowDeleter)
    part = Part(name="memory.db", engine="sqlite", role=Role.CANONICAL, path=str(database))
    gone = [
        Gone(table="cells", columns=("id",), ids=tuple(map(str, range(5)))),
        Gone(table="no", columns=("id",), ids=("1",)),
    ]
    with made.delete_rows(part, gone) as one:
        assert one.result.tables == {"cells": 4}
        assert len(sql(database, "SELECT id FROM cells")) == 4
        with (
            pytest.raises(sqlite3.OperationalError, match="locked"),
            closing(sqlite3.connect(database, timeout=0)) as con,
        ):
            con.execute("DELETE FROM cells")
    assert len(sql(database, "SELECT id FROM cells")) == 4


def test_what_is_deleted_is_not_left_in_the_bytes_of_the_file(database: Path) -> None:
    sql(database, "UPDATE notes SET content = 'a-secret-that-must-go' WHERE key = x'01ab'")
    delete(database, [Gone(table="notes", columns=("key",), ids=("01ab",))])
    sql(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"a-secret-that-must-go" not in database.read_bytes()


def test_a_row_that_others_hold_on_to_is_refused_with_the_database_s_own_words(database: Path) -> None:
    sql(database, "CREATE TABLE holds (note BLOB REFERENCES notes(key))", "INSERT INTO holds VALUES (x'01ab')")
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        delete(database, [Gone(table="notes", columns=("key",), ids=("01ab",))])
    assert len(sql(database, "SELECT * FROM notes")) == 4


@pytest.mark.parametrize("ids", [["it's", "AB-1", "x"], [1, 2, 3]])
def test_rows_of_lance_go_in_one_version_by_ids_of_any_kind(tmp_path: Path, ids: list[Any]) -> None:
    path = tmp_path / "memories.lance"
    lance.write_dataset(pa.table({"id": ids, "text": ["a", "b", "c"]}), str(path))
    spelled = [Gone(table="memories", columns=("id",), ids=(str(ids[0]), "gone"))]
    assert delete(path, spelled, name="lance", commit=False).tables == {"memories": 1}
    assert lance.dataset(str(path)).version == 1
    plain = Gone(table="memories", columns=("id", "nothing"), ids=("ab1", "2"), spelled=False)
    assert delete(path, [*spelled, plain], name="lance").tables == {"memories": 2}
    assert lance.dataset(str(path)).to_table().column("id").to_pylist() == [ids[2]]
    assert lance.dataset(str(path)).version == 2


def test_a_point_of_local_qdrant_goes_with_the_older_rows_that_it_hides(stores: Path, tmp_path: Path) -> None:
    shutil.copytree(stores / "openmemory" / "qdrant-local", tmp_path / "q")
    (path,) = (tmp_path / "q").rglob("storage.sqlite")
    path.chmod(0o600)
    count = sql(path, "SELECT count(*) FROM points")[0][0]
    with closing(sqlite3.connect(path)) as con, con:
        row = con.execute("SELECT rowid, id, point FROM points LIMIT 1").fetchone()
        (((point, _),),) = Reading().stored([[row]])
        con.execute("INSERT INTO points VALUES (?, ?)", (key_of(str(point.id).replace("-", "")), row[2]))
    gone = [Gone(table=path.parent.name, columns=("id",), ids=(str(point.id).replace("-", ""),), spelled=False)]
    assert delete(path, gone, name="qdrant-local", commit=False).tables == {path.parent.name: 1}
    assert sql(path, "SELECT count(*) FROM points")[0][0] == count + 1
    delete(path, gone, name="qdrant-local")
    assert sql(path, "SELECT count(*) FROM points")[0][0] == count - 1

"""Full-text tables that a product fills by hand, and the rows that come and go beside them."""

import sqlite3
from pathlib import Path

import apsw
import pytest

from memkeep.engines.sqlite_fulltext import copies, follow

_SCHEMA = """
CREATE TABLE cells (id INTEGER PRIMARY KEY, content TEXT, scene TEXT, other TEXT);
CREATE VIRTUAL TABLE search USING fts5(content, scene);
INSERT INTO cells VALUES (1, 'one', 'a', 'x'), (2, 'two', 'b', 'y');
"""


@pytest.fixture
def con(tmp_path: Path) -> apsw.Connection:
    made = apsw.Connection(str(tmp_path / "one.db"))
    made.execute(_SCHEMA)
    return made


def _found(con: apsw.Connection, word: str) -> list[int]:
    return [row[0] for row in con.execute("SELECT rowid FROM search WHERE search MATCH ? ORDER BY 1", (word,))]


def test_rows_that_come_change_and_go_are_found_so(con: apsw.Connection, tmp_path: Path) -> None:
    con.execute("INSERT INTO search (rowid, content, scene) SELECT id, content, scene FROM cells")
    schema = list(con.execute("SELECT sql FROM sqlite_schema"))
    follow(con, "cells")
    con.execute("INSERT INTO cells VALUES (7, 'seven', 'c', 'z')")
    con.execute("UPDATE cells SET content = 'deux' WHERE id = 2")
    con.execute("DELETE FROM cells WHERE id = 1")
    assert (_found(con, "seven"), _found(con, "deux"), _found(con, "two"), _found(con, "one")) == ([7], [2], [], [])
    assert list(con.execute("SELECT sql FROM main.sqlite_schema")) == schema
    con.close()
    with sqlite3.connect(tmp_path / "one.db") as plain:
        plain.execute("INSERT INTO cells VALUES (8, 'eight', 'c', 'z')")
        assert plain.execute("SELECT count(*) FROM search WHERE search MATCH 'eight'").fetchone()[0] == 0


def test_a_table_that_goes_by_other_numbers_is_left_alone(con: apsw.Connection) -> None:
    con.execute("INSERT INTO search (rowid, content, scene) SELECT id + 10, content, scene FROM cells")
    follow(con, "cells")
    con.execute("INSERT INTO cells VALUES (11, 'eleven', 'c', 'z')")
    con.execute("DELETE FROM cells WHERE id = 1")
    assert _found(con, "one") == [11]
    assert _found(con, "eleven") == []


def test_a_table_that_triggers_fill_is_not_followed_twice(con: apsw.Connection) -> None:
    con.execute(
        "CREATE TRIGGER own AFTER INSERT ON cells BEGIN "
        "INSERT INTO search (rowid, content, scene) VALUES (new.id, new.content, new.scene); END"
    )
    assert copies(con, ["cells"]) == {}
    follow(con, "cells")
    con.execute("INSERT INTO cells VALUES (7, 'seven', 'c', 'z')")
    assert _found(con, "seven") == [7]

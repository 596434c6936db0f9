"""Ids that SQLite made numbers of are written back, and nothing else changes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from memkeep.engines.sqlite_mend import write_ids
from memkeep.engines.sqlite_redact import replace_texts
from memkeep.errors import StoreError

INFINITE, WHOLE, GOOD = "1234567890124e341234567890123456", "00000000000000000000000000000e17", "a" * 32
COLUMNS = (("memories", "id"), ("links", "memory_id"), ("gone", "memory_id"))
SCHEMA = """
CREATE TABLE memories (
	id UUID NOT NULL,
	content VARCHAR NOT NULL,
	"state UUID" VARCHAR(8) DEFAULT 'UUID',
	owner_id UUID,
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX ix_content ON memories (content);
CREATE TABLE links (memory_id UUID NOT NULL, name TEXT, PRIMARY KEY (memory_id, name),
  FOREIGN KEY(memory_id) REFERENCES memories (id));
CREATE INDEX ix_links ON links (memory_id);
CREATE TRIGGER noted AFTER DELETE ON memories BEGIN DELETE FROM links WHERE memory_id = old.id; END;
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "memory.db"
    with closing(sqlite3.connect(file)) as con, con:
        con.executescript(SCHEMA)
        for row, (name, text) in enumerate([(INFINITE, "one"), (GOOD, "two"), (WHOLE, "three")]):
            con.execute(
                "INSERT INTO memories(rowid, id, content, owner_id) VALUES (?, ?, ?, ?)",
                (row * 7 + 3, name, text, name),
            )
            con.execute("INSERT INTO links VALUES (?, ?)", (name, text))
        con.execute("INSERT INTO links VALUES (?, 'again')", (INFINITE,))
    return file


def test_numbers_become_ids_again_wherever_they_are(database: Path) -> None:
    database.chmod(0o440)
    with closing(sqlite3.connect(database)) as con:
        kinds = con.execute("SELECT typeof(id) FROM memories ORDER BY rowid").fetchall()
        assert kinds == [("real",), ("text",), ("integer",)]  # as the product's own rows become
        whole = con.execute("SELECT id FROM memories WHERE content = 'three'").fetchone()[0]
    write_ids(database, COLUMNS, {float("inf"): INFINITE, whole: WHOLE})
    assert database.stat().st_mode & 0o777 == 0o440
    assert not list(database.parent.glob("*-*"))
    database.chmod(0o600)
    with closing(sqlite3.connect(database)) as con:
        found = con.execute('SELECT rowid, id, content, "state UUID", owner_id FROM memories ORDER BY rowid').fetchall()
        assert [row[:4] for row in found] == [
            (3, INFINITE, "one", "UUID"),
            (10, GOOD, "two", "UUID"),
            (17, WHOLE, "three", "UUID"),
        ]
        assert found[0][4] == float("inf")  # another column's, which nobody could tell
        assert con.execute("SELECT memory_id, name FROM links ORDER BY rowid").fetchall() == [
            (INFINITE, "one"),
            (GOOD, "two"),
            (WHOLE, "three"),
            (INFINITE, "again"),
        ]
        assert con.execute("PRAGMA foreign_key_check").fetchall() == []
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = {name for (name,) in con.execute("SELECT name FROM sqlite_schema")}
        assert {"memories", "links", "ix_content", "ix_links", "noted"} <= names
        assert not {name for name in names if "memkeep" in name}
        joined = con.execute("SELECT count(*) FROM memories m JOIN links l ON l.memory_id = m.id").fetchone()
        assert joined == (4,)
        with con:
            con.execute("INSERT INTO memories(id, content) VALUES ('00000000000000000000000000000001', 'four')")
            assert con.execute("SELECT typeof(id) FROM memories WHERE content = 'four'").fetchone() == ("text",)
            con.execute("DELETE FROM memories WHERE id = ?", (INFINITE,))
        assert con.execute("SELECT count(*) FROM links").fetchone() == (2,)
        with pytest.raises(sqlite3.IntegrityError), con:
            con.execute("INSERT INTO memories(id, content) VALUES (?, 'five')", (WHOLE,))


def test_a_number_that_nobody_can_tell_stays_and_still_joins(database: Path) -> None:
    write_ids(database, COLUMNS, {float("inf"): INFINITE})
    with closing(sqlite3.connect(database)) as con:
        assert con.execute("SELECT count(*) FROM memories m JOIN links l ON l.memory_id = m.id").fetchone() == (4,)


def test_a_database_that_would_not_be_whole_is_left_as_it_was(database: Path) -> None:
    before = database.read_bytes()
    with pytest.raises(StoreError, match="could not be mended"):
        write_ids(database, COLUMNS, {float("inf"): GOOD})  # an id that is taken
    assert database.read_bytes() == before


def test_what_a_column_said_is_nowhere_in_the_image(database: Path) -> None:
    secret = "sk-" + "s" * 60_000  # over several pages
    with closing(sqlite3.connect(database)) as con, con:
        con.execute("CREATE TABLE configs(value JSON)")
        con.execute("INSERT INTO configs VALUES ('old sk-removed')")
        con.execute("UPDATE configs SET value = ?", (secret,))
        con.execute("INSERT INTO configs VALUES (NULL), (7), ('fine')")
        con.execute("PRAGMA journal_mode=wal")
    image = bytearray(database.read_bytes())
    assert b"s" * 100 in image
    done = replace_texts(bytes(image), "configs", "value", lambda text: "gone" if text.startswith("sk-") else text)
    assert b"s" * 100 not in done
    assert b"sk-removed" not in done
    copy = database.with_name("copy.db")
    copy.write_bytes(done)
    with closing(sqlite3.connect(copy)) as con:
        assert con.execute("SELECT value FROM configs").fetchall() == [("gone",), (None,), (7,), ("fine",)]
        assert con.execute("SELECT count(*) FROM memories").fetchone() == (3,)
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_image_in_which_nothing_changes_is_the_same_bytes(database: Path) -> None:
    image = database.read_bytes()
    assert replace_texts(image, "memories", "content", str) == image


@pytest.mark.parametrize("image", [b"", b"x" * 4096, b"SQLite format 3\0" + b"\xff" * 4080])
def test_what_is_no_database_is_refused(image: bytes) -> None:
    with pytest.raises(StoreError):
        replace_texts(image, "memories", "content", lambda _: "")

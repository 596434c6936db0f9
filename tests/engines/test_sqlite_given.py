"""Rows that are given go into a live database: all that fit, in one transaction, whatever comes in between."""

import os
import resource
import signal
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.rows import Columns, RowEngine
from memkeep.engines.sqlite import SqliteEngine
from memkeep.engines.sqlite_merge import SqliteMerge
from memkeep.errors import StoreError
from memkeep.model import Part, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

SCHEMA = """
CREATE TABLE facts(id TEXT PRIMARY KEY, text TEXT NOT NULL CHECK (text <> 'forbidden'), n INTEGER, score REAL,
  made TEXT DEFAULT 'now', updated_at INTEGER, embedding BLOB, user TEXT, size AS (length(text)));
CREATE TABLE joins(id INTEGER PRIMARY KEY, a TEXT, b TEXT, UNIQUE (a, b));
CREATE TABLE cells(id INTEGER PRIMARY KEY, text TEXT);
CREATE VIRTUAL TABLE words USING fts5(text, content='facts');
CREATE TRIGGER ai AFTER INSERT ON facts BEGIN INSERT INTO words(rowid, text) VALUES (new.rowid, new.text); END;
CREATE TRIGGER au AFTER UPDATE ON facts BEGIN
  INSERT INTO words(words, rowid, text) VALUES ('delete', old.rowid, old.text);
  INSERT INTO words(rowid, text) VALUES (new.rowid, new.text); END;
INSERT INTO facts(id, text, n, score, updated_at) VALUES ('1', 'one', 5, 0.5, 100);
"""
FACTS = TableMap(
    collection="facts",
    table="facts",
    id="id",
    fields={"text": "text", "updated_at": "updated_at", "user": "user"},
    vectors=("embedding",),
    times={"updated_at": "s"},
)
JOINS = TableMap(collection="joins", table="joins", id="id", primary=False, unique=("a", "b"), links=("a",))
CELLS = TableMap(collection="cells", table="cells", id="id")


@pytest.fixture
def live(make_db: Callable[..., Path], part_of: Callable[..., Part]) -> Part:
    """Return the part of a database with one fact."""
    return part_of(make_db(SCHEMA), FACTS, JOINS, CELLS)


def given(rows: list[Row], size: int = 300) -> Callable[[], Iterator[list[Row]]]:
    return lambda: (rows[at : at + size] for at in range(0, len(rows), size))


def put(live: Part, rows: dict[str, list[Row]], conflict: Conflict = "skip", **wanted: Any) -> Merged:
    """Merge rows, rehearsed first: both must say the same, and the rehearsal must change nothing."""
    sources = {table: given(some) for table, some in rows.items()}
    before = dump(live)
    with SqliteEngine().merge_rows(live, sources, Wanted(conflict=conflict, **wanted)) as one:
        rehearsed = one.result
    assert dump(live) == before
    with SqliteEngine().merge_rows(live, sources, Wanted(conflict=conflict, **wanted)) as one:
        one.commit()
    assert one.result == rehearsed
    return one.result


@contextmanager
def opened(live: Part) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(live.path)) as con:
        yield con


def dump(live: Part) -> list[str]:
    with opened(live) as con:
        con.text_factory = bytes
        names = [name.decode() for (name,) in con.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [repr(con.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()) for name in names]


def query(live: Part, sql: str) -> list[Any]:
    with opened(live) as con:
        return con.execute(sql).fetchall()


def many(count: int, start: int = 1000, dims: int = 8) -> list[Row]:
    return [
        {"id": f"m{n}", "text": f"memory {n}", "n": n, "embedding": Vector.f32(struct.pack("<f", n) * dims)}
        for n in range(start, start + count)
    ]


def children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def test_rows_go_in_with_types_defaults_and_triggers_and_go_in_once(live: Part) -> None:
    vector = struct.pack("<2f", 1.5, float("nan"))
    rows: list[Row] = [
        {"id": 1, "text": "one", "n": "5", "score": 0.5, "updated_at": True + 99},  # what the columns make of it
        {"id": "2", "text": "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \0", "n": True, "score": 3},
        {"id": "3", "embedding": Vector.f32(vector), "text": "three"},
    ]
    done = put(live, {"facts": rows, "gone": [{"id": 1}]})

    assert isinstance(SqliteEngine(), RowEngine)
    assert done.tables == {"facts": Counts(inserted=2, same=1)}
    assert done.failed == ()
    assert done.left == ("gone is left out: the store has no such table",)
    assert query(live, "SELECT id, text, n, score, made, embedding FROM facts WHERE id > '1'") == [
        ("2", "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \0", 1, 3.0, "now", None),
        ("3", "three", None, None, "now", vector),
    ]
    assert query(live, "SELECT count(*) FROM words WHERE words MATCH 'three'") == [(1,)]
    assert put(live, {"facts": rows}).tables == {"facts": Counts(same=3)}
    assert put(live, {"facts": rows}, "update").tables == {"facts": Counts(same=3)}


@pytest.mark.parametrize(
    ("conflict", "counts", "text"),
    [
        ("skip", Counts(skipped=2), "one"),
        ("update", Counts(updated=2), "earlier"),
        ("newer", Counts(updated=1, skipped=1), "later"),
        ("fail", Counts(skipped=2), "one"),
    ],
)
def test_a_row_that_is_there_with_other_values_is_kept_or_replaced(
    live: Part, conflict: Conflict, counts: Counts, text: str
) -> None:
    rows = [{"id": "1", "text": "later", "updated_at": 200}, {"id": "1", "text": "earlier", "updated_at": 50}]

    done = put(live, {"facts": rows}, conflict)

    assert done.tables == {"facts": counts}
    assert done.conflicts == ("facts:1", "facts:1")
    assert query(live, "SELECT text, n, score FROM facts") == [(text, 5, 0.5)]
    word = text if text != "one" else "later OR earlier"
    assert query(live, f"SELECT count(*) FROM words WHERE words MATCH '{word}'") == [(int(text != "one"),)]


def test_rows_that_do_not_fit_are_named_and_the_thousand_others_go_in(live: Part) -> None:
    odd: list[Row] = [
        {"id": "check", "text": "forbidden"},
        {"id": "null", "text": None},
        {"id": "bare"},
        {"text": "without id"},
        {"id": None, "text": "null id"},
        {"id": "list", "text": ["a"]},
        {"id": "dict", "text": "x", "n": {"a": 1}},
        {"id": "large", "text": "x", "n": 2**63},
        {"id": "larger", "text": "x", "n": -(2**70)},
        {"id": "half", "text": "\ud800"},
        {"id": "vector", "text": Vector.f32(bytes(4))},
        {"id": "sparse", "text": "x", "embedding": Vector(data=bytes(8), type="sparse", dims=1)},
    ]
    rows = many(1000)
    for at, row in enumerate(odd):
        rows.insert(at * 80, row)

    done = put(live, {"facts": rows})

    assert done.tables == {"facts": Counts(inserted=1001)}  # SQLite lets a key of text be null
    assert sorted(row.id for row in done.failed) == sorted(
        str(row.get("id", "")) for row in odd if row.get("id", "") is not None
    )
    reasons = {row.id: row.reason for row in done.failed}
    assert reasons["list"] == "text is a list, which no column takes"
    assert reasons["larger"] == f"n is too large a number: {-(2**70)}"
    assert "CHECK" in reasons["check"]
    assert reasons[""] == "it has no id"
    assert query(live, "SELECT count(*), count(embedding) FROM facts WHERE id LIKE 'm%'") == [(1000, 1000)]
    assert query(live, "SELECT count(*) FROM words WHERE words MATCH 'memory'") == [(1000,)]


def test_the_same_id_twice_goes_in_once(live: Part) -> None:
    rows = [*many(700), {"id": "m1001", "text": "another"}, *many(1), {"id": "m1001", "text": "another"}]

    done = put(live, {"facts": rows}, "update")

    assert done.tables == {"facts": Counts(inserted=700, updated=1, same=2)}
    assert query(live, "SELECT text, n FROM facts WHERE id = 'm1001'") == [("another", 1001)]


def test_keys_that_nothing_keeps_apart_are_still_put_in_once(
    make_db: Callable[..., Path], part_of: Callable[..., Part]
) -> None:
    live = part_of(make_db("CREATE TABLE cells(id, text TEXT COLLATE NOCASE)"), CELLS)
    rows = [{"id": 1, "text": "a"}, {"id": None, "text": "b"}, {"id": 1, "text": "a"}, {"id": 1, "text": "A"}]

    assert put(live, {"cells": rows}).tables == {"cells": Counts(inserted=2, same=1, skipped=1)}
    assert put(live, {"cells": rows}).tables == {"cells": Counts(same=3, skipped=1)}


def test_rows_named_by_several_columns_get_numbers_of_their_own_and_go_where_their_records_go(live: Part) -> None:
    rows: list[Row] = [{"id": 7, "a": "one", "b": "x"}, {"id": 8, "a": "two", "b": "x"}, {"id": 9, "a": "one"}]

    done = put(live, {"joins": rows}, users=("ann",), records=("one",))

    assert done.tables == {"joins": Counts(inserted=1)}
    assert [row.reason for row in done.failed] == ["it has no b"]
    assert query(live, "SELECT * FROM joins") == [(1, "one", "x")]
    owned = [{"id": "8", "text": "hers", "user": "ann"}, {"id": "9", "text": "his", "user": "bob"}]
    assert put(live, {"facts": owned}, users=("ann",)).records == ("8",)


def test_a_row_without_a_number_gets_the_next_one(live: Part) -> None:
    rows = [{"id": 5, "text": "five"}, {"text": "six"}, {"id": "seven", "text": "no number"}]

    done = put(live, {"cells": rows})

    assert query(live, "SELECT * FROM cells") == [(5, "five"), (6, "six")]
    assert [(row.id, row.reason) for row in done.failed] == [("seven", "datatype mismatch")]


def test_what_sqlite_has_no_form_for_is_said(live: Part) -> None:
    doubles = np.array([0.1, 2.0], "<f8")
    rows = [
        {"id": "a", "text": "caf\udce9", "score": float("nan"), "colour": "red", "size": 3},
        {"id": "b", "text": "x", "embedding": Vector(data=doubles.tobytes(), type="f64", dims=2)},
    ]

    done = put(live, {"facts": rows})

    assert done.tables == {"facts": Counts(inserted=2)}
    assert set(done.left) == {
        "facts has no column colour: left out",
        "facts has no column size: left out",
        "facts.score: what is no number became NULL, SQLite has none such",
    }
    assert query(live, "SELECT CAST(text AS BLOB), typeof(text), score FROM facts WHERE id = 'a'") == [
        (b"caf\xe9", "text", None)
    ]
    assert query(live, "SELECT embedding FROM facts WHERE id = 'b'") == [(doubles.astype("<f4").tobytes(),)]
    assert put(live, {"facts": rows}).tables == {"facts": Counts(same=2)}


def test_the_rows_of_real_stores_come_back_as_they_left(
    copy_store: Callable[..., Path], part_of: Callable[..., Part], tmp_path: Path
) -> None:
    for store, file, map_ in (
        ("oc-memory", "memory.db", TableMap(collection="c", table="mem_cells", id="id", vectors=("embedding",))),
        ("hybrid-2026.4.273", "facts.db", TableMap(collection="f", table="facts", id="id")),
        (
            "openclaw-core-2026.9.6",
            "openclaw-agent.sqlite",
            TableMap(collection="e", table="memory_embedding_cache", id="hash", vectors=("embedding",)),
        ),
    ):
        path = next(copy_store(store).rglob(file))
        part = part_of(path, map_)
        with SqliteEngine().open(part, path.parent) as image:
            rows = [row for batch in image.rows(map_) for row in batch]
        with opened(part) as con:
            there = con.execute(f'SELECT * FROM "{map_.table}" ORDER BY 1').fetchall()
            con.execute(f'DELETE FROM "{map_.table}"')
            con.commit()
        with SqliteEngine().merge_rows(part, {map_.table: given(rows)}, Wanted(conflict="fail")) as one:
            one.commit()
        assert one.result.tables == {map_.table: Counts(inserted=len(rows))}
        assert (one.result.failed, one.result.left) == ((), ())
        assert query(part, f'SELECT * FROM "{map_.table}" ORDER BY 1') == there


def test_the_schema_of_a_database_does_not_choose_what_becomes_of_conflicts(
    make_db: Callable[..., Path], part_of: Callable[..., Part]
) -> None:
    schema = "CREATE TABLE cells(id TEXT PRIMARY KEY ON CONFLICT REPLACE, text TEXT UNIQUE ON CONFLICT REPLACE)"
    live = part_of(make_db(f"{schema}; INSERT INTO cells VALUES ('a', 'first')"), CELLS)

    done = put(live, {"cells": [{"id": "b", "text": "first"}, {"id": "c", "text": "x"}, {"id": "a", "text": "y"}]})

    assert done.tables == {"cells": Counts(inserted=1, skipped=1)}
    assert [row.id for row in done.failed] == ["b"]
    assert query(live, "SELECT * FROM cells") == [("a", "first"), ("c", "x")]


def test_a_trigger_that_ends_the_transaction_ends_it_all(
    make_db: Callable[..., Path], part_of: Callable[..., Part]
) -> None:
    trigger = "CREATE TRIGGER t BEFORE INSERT ON cells WHEN new.id = 700 BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
    live = part_of(make_db(f"CREATE TABLE cells(id INTEGER PRIMARY KEY, text TEXT); {trigger};"), CELLS)
    rows = [{"id": n, "text": "x"} for n in range(5000)]

    with (
        pytest.raises(StoreError, match="undid everything"),
        SqliteEngine().merge_rows(live, {"cells": given(rows)}, Wanted(conflict="skip")),
    ):
        pass

    assert query(live, "SELECT count(*) FROM cells") == [(0,)]
    merge = SqliteMerge(Path(live.path), live.maps, Wanted(conflict="skip"), patience=1)
    for number in (700, 701):  # what was sent before the first error was heard of
        with pytest.raises(StoreError):
            merge.take("cells", [(("id", "text"), [(number, "x")])])
    with pytest.raises(StoreError):
        merge.commit()
    merge.close()
    assert query(live, "SELECT count(*) FROM cells") == [(0,)]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_kill_in_the_middle_changes_nothing(
    make_db: Callable[..., Path], part_of: Callable[..., Part], journal: str
) -> None:
    live = part_of(make_db(SCHEMA, journal=journal), FACTS)
    before = dump(live)

    def dying() -> Iterator[list[Row]]:
        for start in range(0, 8000, 1000):
            yield many(1000, start, dims=1024)
        for pid in set(children()) - there:
            os.kill(pid, signal.SIGKILL)
        yield many(1000, 8000, dims=1024)

    there = set(children())
    with (
        pytest.raises(StoreError, match="ended before its time"),
        SqliteEngine().merge_rows(live, {"facts": dying}, Wanted(conflict="skip")),
    ):
        pass

    assert dump(live) == before
    assert query(live, "PRAGMA integrity_check") == [("ok",)]


def test_a_source_that_breaks_off_changes_nothing(live: Part) -> None:
    before = dump(live)

    def breaking() -> Iterator[list[Row]]:
        yield many(1000)
        raise StoreError("the other side is gone")

    with (
        pytest.raises(StoreError, match="the other side is gone"),
        SqliteEngine().merge_rows(live, {"facts": breaking}, Wanted(conflict="skip")),
    ):
        pass

    assert dump(live) == before


def test_a_database_that_is_locked_is_left_alone(live: Part) -> None:
    with opened(live) as con:
        con.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(StoreError, match="locked"),
            SqliteEngine(patience=0.05).merge_rows(live, {"facts": given(many(1))}, Wanted(conflict="skip")),
        ):
            pass
        con.rollback()
    assert query(live, "SELECT count(*) FROM facts") == [(1,)]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_full_disk_changes_nothing(make_db: Callable[..., Path], part_of: Callable[..., Part], journal: str) -> None:
    live = part_of(make_db(SCHEMA, journal=journal), FACTS)
    before = dump(live)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, limits[1]))  # the child inherits it
    try:
        with (
            pytest.raises(StoreError) as error,
            SqliteEngine().merge_rows(live, {"facts": given(many(4000, dims=1024))}, Wanted(conflict="skip")) as one,
        ):
            one.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert "could not be written" in str(error.value)
    assert error.value.hint == "df -h"
    assert dump(live) == before
    assert query(live, "PRAGMA integrity_check") == [("ok",)]


def test_columns_are_those_that_take_values(live: Part, part_of: Callable[..., Part], tmp_path: Path) -> None:
    names = ("id", "text", "n", "score", "made", "updated_at", "embedding", "user")
    said = Columns(names=names, vectors={"embedding": 0}, needed=("text",), filled=("made",))

    assert SqliteEngine().columns(live, "facts") == said
    put(live, {"facts": many(1, dims=16)})
    assert SqliteEngine().columns(live, "facts") == msgspec.structs.replace(said, vectors={"embedding": 16})
    assert SqliteEngine().columns(live, "nothing") is None
    assert SqliteEngine().columns(part_of(tmp_path / "gone.db", FACTS), "facts") is None

"""Rows out of live tables and of their image, and into others, value for value."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, frozen, new_database

from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.postgres import PostgresEngine
from memkeep.engines.rows import Columns, RowEngine, RowReader
from memkeep.errors import StoreError
from memkeep.model import Part, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row
from memkeep.testing.postgres import PostgresServer, postgres

ODD = TableMap(collection="odd", table="public.odd", id="id")
# Column, its type, a value as SQL says it, and what a row has.
CELLS: list[tuple[str, str, Any]] = [
    ("bigint", "9223372036854775807", 2**63 - 1),
    ("real", "0.1", struct.unpack("<f", struct.pack("<f", 0.1))[0]),
    ("float8", "'-Infinity'", float("-inf")),
    ("numeric", "12345678901234567890", 12345678901234567890),
    ("numeric", "-0.5", -0.5),
    ("numeric", "0.50", "0.50"),
    ("numeric", "0.1234567890123456789", "0.1234567890123456789"),
    ("numeric", "'NaN'", "NaN"),
    ("boolean", "false", False),
    ("uuid", "'0F7E8A7E-1111-4222-8333-123456789ABC'", "0f7e8a7e-1111-4222-8333-123456789abc"),
    ("bytea", "'\\x00ff27'", b"\x00\xff'"),
    ("timestamp", "'2024-02-29 12:34:56.000001'", "2024-02-29T12:34:56.000001"),
    ("timestamptz", "'2024-02-29 12:34:56+02'", "2024-02-29T10:34:56+00:00"),
    ("timestamptz", "'infinity'", "infinity"),
    ("timestamptz", "'12026-01-02 03:04:05+00'", "+12026-01-02T03:04:05+00:00"),
    ("timestamp", "'0044-03-15 12:00:00.5 BC'", "-00043-03-15T12:00:00.500000"),
    ("date", "'1969-12-31'", "1969-12-31"),
    ("date", "'10000-01-01'", "+10000-01-01"),
    ("time", "'23:59:59.5'", "23:59:59.500000"),
    ("text[]", "ARRAY['a', NULL, 'b,\"c']", ["a", None, 'b,"c']),
    ("int[]", "'{{1,2},{3,4}}'", [[1, 2], [3, 4]]),
    ("text", "E'new\\nline \\U0001F642'", "new\nline 🙂"),
    ("json", "'[1, {\"a\": null}]'", [1, {"a": None}]),
    ("jsonb", "NULL", None),
    ("jsonb", "'{}'", {}),
    ("mood", "'sad'", "sad"),
    ("mood[]", "'{sad,happy}'", "{sad,happy}"),
    ("vector(2)", "'[1,-2.5]'", Vector.f32(struct.pack("<2f", 1, -2.5))),
    ("vector", "NULL", None),
    ("halfvec(2)", "'[1,-2.5]'", Vector(data=struct.pack("<2e", 1, -2.5), type="f16", dims=2)),
    ("sparsevec(9)", "'{1:0.5,9:-1}/9'", Vector(data=struct.pack("<2I2f", 0, 8, 0.5, -1), type="sparse", dims=2)),
]


def both(part: Part, map_: TableMap, tmp_path: Path) -> list[Row]:
    """Return the rows of a live part, which are those of its image."""
    scratch = tmp_path / "frozen"
    scratch.mkdir()
    with frozen(part, scratch) as opened:
        assert isinstance(opened, RowReader)
        live = [row for batch in opened.rows(map_) for row in batch]
        with PostgresEngine().open(part, scratch / "image") as again:
            assert [row for batch in again.rows(map_) for row in batch] == live
    return live


def test_a_row_has_every_value_exactly(database: Database, tmp_path: Path) -> None:
    database.run("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    columns = ", ".join(f"c{i} {type_}" for i, (type_, _, _) in enumerate(CELLS))
    database.run(f"CREATE TABLE odd (id int PRIMARY KEY, {columns})")
    database.run(f"INSERT INTO odd VALUES (1, {', '.join(said for _, said, _ in CELLS)})")
    database.run("INSERT INTO odd (id) VALUES (2)")
    one, none = both(database.part(ODD), ODD, tmp_path)
    for i, (type_, said, wanted) in enumerate(CELLS):
        assert (type_, said, one[f"c{i}"]) == (type_, said, wanted)
        assert type(one[f"c{i}"]) is type(wanted)
        assert none[f"c{i}"] is None


def test_the_keys_of_a_json_object_are_columns(database: Database, tmp_path: Path) -> None:
    database.fill(600)
    database.run('UPDATE memories SET payload = payload || \'{"deep": {"a": [1]}, "none": null}\' WHERE true')
    rows = both(database.part(MEMORIES), MEMORIES, tmp_path)
    told = dict(database.run("SELECT id::text, vector::text FROM memories"))
    assert len(rows) == 600
    for row in rows:
        vector = row["vector"]
        assert vector == Vector.f32(struct.pack("<64f", *json.loads(told[row["id"]])))
        assert (row["payload.deep"], row["payload.none"], "payload" in row) == ({"a": [1]}, None, False)


def test_what_is_not_there_or_cut_off_is_an_error(database: Database, tmp_path: Path) -> None:
    database.fill(5)
    part = database.part(MEMORIES)
    with frozen(part, tmp_path) as opened:
        with pytest.raises(StoreError, match=r"public\.odd"):
            list(opened.rows(ODD))
        file = next((tmp_path / "image").rglob("vector.copy"))
        file.write_bytes(file.read_bytes()[:-300])
        with pytest.raises(StoreError, match="vector"):
            list(opened.rows(MEMORIES))


def merged(part: Part, rows: list[Row], conflict: Conflict = "skip", **more: Any) -> Merged:
    """Merge rows in two batches."""
    half = len(rows) // 2
    given = {part.maps[0].table: lambda: iter([rows[:half], rows[half:]])}
    with PostgresEngine().merge_rows(part, given, Wanted(conflict=conflict, **more)) as one:
        one.commit()
        return one.result


MORE = [
    ("money", "'12.34'", None),
    ("interval", "'1 year 2 days 3.5 seconds'", None),
    ("bit(4)", "'0101'", None),
    ("varbit", "'01011'", None),
    ("inet", "'10.0.0.1/8'", None),
    ("int4range", "'[1,5)'", None),
    ("tsvector", "'a:1 b:2'", None),
    ("char(5)", "'ab'", None),
    ("varchar(5)", "'abcde'", None),
    ("numeric(20,3)", "1.230", None),
    ("timetz", "'12:34:56.5-03:30'", None),
    ("timestamptz", "'0044-03-15 12:00:00.5 BC'", None),
    ("bytea[]", "ARRAY['\\x00'::bytea, '\\x5c22']", None),
    ("jsonb[]", 'ARRAY[\'{"a": "b,c"}\'::jsonb]', None),
    ("float8[]", "'{-Infinity,1e300}'", None),
    ("text[]", "'{}'", None),
    ("text[]", "ARRAY['', 'null', 'NULL', ' a', '{}', E'x\\\\y']", None),
    ("jsonb", '\'{"a": [1, 2.5, "é"], "b": null}\'', None),
    ("jsonb", "'\"word\"'", None),
    ("mood", "'happy'", None),
    ("short", "'ok'", None),
    ("sparsevec", "'{}/3'", None),
]


def test_rows_go_into_an_empty_table_value_for_value(database: Database, other: Database, tmp_path: Path) -> None:
    every = [*CELLS, *MORE]
    columns = ", ".join(f"c{i} {type_}" for i, (type_, _, _) in enumerate(every))
    for one in (database, other):
        one.run("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN short AS text CHECK (length(VALUE) < 3)")
        one.run(f"CREATE TABLE odd (id int PRIMARY KEY, {columns}, twice int GENERATED ALWAYS AS (id * 2) STORED)")
    database.run(f"INSERT INTO odd VALUES (1, {', '.join(said for _, said, _ in every)})")
    database.run("INSERT INTO odd (id) VALUES (2)")
    rows = both(database.part(ODD), ODD, tmp_path)
    assert merged(other.part(ODD), rows).tables == {ODD.table: Counts(inserted=2)}
    asked = "SELECT to_jsonb(o) FROM odd o ORDER BY id"
    for (wanted,), (got,) in zip(database.run(asked), other.run(asked), strict=True):
        wanted[f"c{len(every) - 1}"] = got[f"c{len(every) - 1}"]  # of a sparse vector without a size that is lost
        assert got == wanted
    done = merged(other.part(ODD), rows, "fail")
    assert (done.tables, done.failed) == ({ODD.table: Counts(same=2)}, ())


def test_mem0s_rows_come_back_the_same(database: Database, other: Database, tmp_path: Path) -> None:
    database.fill(700)
    other.run("CREATE TABLE memories (id uuid PRIMARY KEY, vector vector(64), payload jsonb)")
    rows = both(database.part(MEMORIES), MEMORIES, tmp_path)
    assert merged(other.part(MEMORIES), rows).tables == {MEMORIES.table: Counts(inserted=700)}
    asked = "SELECT id::text, vector::text, payload::text FROM memories ORDER BY id"
    assert other.run(asked) == database.run(asked)
    assert merged(other.part(MEMORIES), rows).tables == {MEMORIES.table: Counts(same=700)}


def f32(*numbers: float) -> Vector:
    return Vector.f32(struct.pack(f"<{len(numbers)}f", *numbers))


IDS = [f"0f7e8a7e-1111-4222-8333-{number:012}" for number in range(10)]
THINGS = TableMap(
    collection="things",
    table="public.things",
    id="id",
    fields={"text": "text", "user": "meta.user", "updated_at": "at"},
)


@pytest.fixture
def things(database: Database) -> Part:
    database.run(
        """CREATE TABLE things (id uuid PRIMARY KEY, text varchar(9) NOT NULL, n int DEFAULT 7, at timestamptz,
        v vector(2), meta jsonb NOT NULL DEFAULT '{"made": true}', number int GENERATED BY DEFAULT AS IDENTITY,
        tags text[], half halfvec, b bytea)"""
    )
    return database.part(THINGS)


GOOD = {"id": IDS[1], "text": "good", "v": f32(1, 2)}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"id": "note-7", "text": "a"}, "uuid"),
        ({"id": None, "text": "a"}, "it has no id"),
        ({"text": "a"}, "it has no id"),
        ({"id": IDS[1], "text": "a"}, "a row before it has the same id"),
        ({"id": IDS[1].upper(), "text": "a"}, "a row before it has the same id"),
        ({"id": IDS[2]}, "null value"),
        ({"id": IDS[2], "text": "much too long"}, "too long"),
        ({"id": IDS[2], "text": "a\0"}, "NUL"),
        ({"id": IDS[2], "text": "\ud800"}, "no Unicode"),
        ({"id": IDS[2], "text": b"a"}, "takes no bytes"),
        ({"id": IDS[2], "text": {"a": 1}}, "takes no dict"),
        ({"id": IDS[2], "text": "a", "n": "seven"}, "integer"),
        ({"id": IDS[2], "text": "a", "n": 1 << 40}, "out of range"),
        ({"id": IDS[2], "text": "a", "at": "yesterday noon"}, "timestamp"),
        ({"id": IDS[2], "text": "a", "v": f32(1, 2, 3)}, "a vector has 3 dimensions, the column takes 2"),
        ({"id": IDS[2], "text": "a", "v": f32(1, float("inf"))}, "no numbers"),
        ({"id": IDS[2], "text": "a", "v": [1, 2]}, "takes no list"),
        ({"id": IDS[2], "text": "a", "v": Vector(data=b"123", dims=2)}, "3 bytes"),
        ({"id": IDS[2], "text": "a", "half": f32(1e9)}, "too large"),
        ({"id": IDS[2], "text": "a", "meta.x": float("nan")}, "JSON"),
        ({"id": IDS[2], "text": "a", "meta.x": b""}, "JSON"),
        ({"id": IDS[2], "text": "a", "meta.x": "\0"}, "Unicode escape"),
        ({"id": IDS[2], "text": "a", "meta": f32(1)}, "JSON"),
        ({"id": IDS[2], "text": "a", "tags": "not an array"}, "malformed array"),
        ({"id": IDS[2], "text": "a", "tags": 5}, "takes no int"),
    ],
)
def test_a_row_that_the_server_does_not_take_is_named_and_the_others_go_in(
    database: Database, things: Part, bad: Row, why: str
) -> None:
    done = merged(things, [GOOD, bad, GOOD | {"id": IDS[3]}])
    assert done.tables == {THINGS.table: Counts(inserted=2)}
    [failed] = done.failed
    assert (failed.table, failed.id.lower()) == (THINGS.table, str(bad.get("id")).lower())
    assert why in failed.reason
    assert [str(row[0]) for row in database.run("SELECT id FROM things ORDER BY id")] == [IDS[1], IDS[3]]


def test_bad_rows_among_thousands_are_found(database: Database, things: Part) -> None:
    rows = [GOOD | {"id": f"0f7e8a7e-1111-4222-8333-{n:012}", "n": "x" if n % 1000 == 7 else n} for n in range(3000)]
    done = merged(things, rows)
    assert done.tables == {THINGS.table: Counts(inserted=2997)}
    assert [failed.id[-4:] for failed in done.failed] == ["0007", "1007", "2007"]


def test_what_a_new_row_does_not_have_is_the_tables_default(database: Database, things: Part) -> None:
    rows = [
        {"id": IDS[1], "text": "bare"},
        {"id": IDS[2], "text": "null", "n": None, "number": 70, "meta": None},
        {"id": IDS[3], "text": "full", "n": 1, "meta.user": "ana", "meta.a.b": [1], "nonsense": 4, "meta_": 5},
        {"id": IDS[4], "text": "empty", "meta": {}, "tags": ["a"], "b": b"\x00"},
    ]
    done = merged(things, rows)
    assert done.tables == {THINGS.table: Counts(inserted=3)}
    assert done.left == ("public.things has no column meta_, nonsense: left out",)
    assert [(failed.id, "null value" in failed.reason) for failed in done.failed] == [(IDS[2], True)]
    found = database.run("SELECT text, n, meta, number IS NULL, tags, b FROM things ORDER BY id")
    assert found == [
        ("bare", 7, {"made": True}, False, None, None),
        ("full", 1, {"user": "ana", "a.b": [1]}, False, None, None),
        ("empty", 7, {}, False, ["a"], b"\x00"),
    ]


@pytest.mark.parametrize(
    ("conflict", "counts", "text"),
    [
        ("skip", Counts(same=2, skipped=2, inserted=1), "old"),
        ("update", Counts(same=2, updated=2, inserted=1), "new"),
        ("newer", Counts(same=2, updated=1, skipped=1, inserted=1), "new"),
    ],
)
def test_what_a_row_does_not_have_stays_as_it_is(
    database: Database, things: Part, conflict: Conflict, counts: Counts, text: str
) -> None:
    at = "2026-01-01T00:00:00+00:00"
    old = {"text": "old", "n": 1, "at": at, "meta.user": "ana", "meta.k": 1, "v": f32(1, 2), "tags": ["a"]}
    merged(things, [old | {"id": IDS[number]} for number in range(1, 5)])
    rows = [
        {"id": IDS[1], "text": "new", "at": "2026-02-01T00:00:00+00:00", "meta.k": 2},
        {"id": IDS[2], "meta.user": "ana", "v": f32(1, 2)},
        {"id": IDS[3], "n": 1, "tags": ["a"], "at": "2026-01-01 00:00:00Z"},
        {"id": IDS[4], "meta": {"other": 1}},
        {"id": IDS[5], "text": "five"},
    ]
    done = merged(things, rows, conflict)
    assert done.tables == {THINGS.table: counts}
    assert sorted(done.conflicts) == [f"public.things:{IDS[1]}", f"public.things:{IDS[4]}"]
    found = database.run("SELECT text, n, meta, v::text, tags FROM things ORDER BY id")
    first, fourth = {"user": "ana", "k": 1 if text == "old" else 2}, {"user": "ana", "k": 1}
    assert found[0] == (text, 1, first, "[1,2]", ["a"])
    assert found[3][2] == ({"other": 1} if conflict == "update" else fourth)
    assert found[1] == found[2] == ("old", 1, {"user": "ana", "k": 1}, "[1,2]", ["a"])


def test_only_one_users_rows_go_in_and_nothing_is_there_without_commit(database: Database, things: Part) -> None:
    rows = [{"id": IDS[n], "text": "a", "meta.user": f"u{n % 2}"} for n in range(4)]
    given = {THINGS.table: lambda: iter([rows]), "public.other": lambda: iter([rows])}
    with PostgresEngine().merge_rows(things, given, Wanted(conflict="skip", users=("u1",))) as one:
        assert one.result.tables == {THINGS.table: Counts(inserted=2)}
        assert one.result.left == ("public.other is left out: the store has no such table",)
    assert database.run("SELECT * FROM things") == []
    assert merged(things, []).tables == {THINGS.table: Counts()}
    gone = database.part(ODD)
    assert merged(gone, rows).left == ("public.odd is left as it is: it has no id",)


def test_a_server_that_is_gone_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with postgres() as mortal, new_database(mortal) as made:
        made.run("CREATE TABLE things (id uuid PRIMARY KEY, text text)")
        rows = [{"id": IDS[n], "text": "a"} for n in range(4)]

        def batches() -> Iterator[list[Row]]:
            yield rows[:2]
            mortal.kill()
            yield rows[2:] * 20_000

        with (
            pytest.raises(StoreError) as told,
            PostgresEngine().merge_rows(made.part(THINGS), {THINGS.table: batches}, Wanted(conflict="skip")) as one,
        ):
            one.commit()
        assert told.value.code == "store_unreachable"


def test_an_older_server_takes_rows_too(old_server: PostgresServer, tmp_path: Path) -> None:
    with new_database(old_server) as one, new_database(old_server) as two:
        one.fill(20)
        two.run("CREATE TABLE memories (id uuid PRIMARY KEY, vector vector(64), payload jsonb)")
        rows = both(one.part(MEMORIES), MEMORIES, tmp_path)
        assert merged(two.part(MEMORIES), rows).tables == {MEMORIES.table: Counts(inserted=20)}
        asked = "SELECT id::text, vector::text, payload::text FROM memories ORDER BY id"
        assert two.run(asked) == one.run(asked)


def test_columns_are_those_of_the_table(database: Database, things: Part) -> None:
    engine = PostgresEngine()
    assert isinstance(engine, RowEngine)
    assert engine.columns(things, "public.things") == Columns(
        names=("id", "text", "n", "at", "v", "meta", "number", "tags", "half", "b"), vectors={"v": 2, "half": 0}
    )
    assert engine.columns(things, "public.other") is None

"""Rows out of live tables and of their image, value for value."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, frozen

from memkeep.engines.postgres import PostgresEngine
from memkeep.engines.rows import RowReader
from memkeep.errors import StoreError
from memkeep.model import Part, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

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

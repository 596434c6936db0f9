"""Columns of every type become values without loss, however they are sliced."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3

from memkeep.engines.lance_values import to_cell, values, vector_to_cell, vectors
from memkeep.model import TableMap
from memkeep.records import groups

ODD = {
    "text": (["a", None, "日本語\n"], pa.string(), ["a", None, "日本語\n"]),
    "large text": (["a", None, ""], pa.large_string(), ["a", None, ""]),
    "bytes": ([b"\xff", None, b""], pa.binary(), [b"\xff", None, b""]),
    "fixed bytes": ([b"ab", None, b"cd"], pa.binary(2), [b"ab", None, b"cd"]),
    "truth": ([True, None, False], pa.bool_(), [True, None, False]),
    "integers": ([1, None, -5], pa.int64(), [1, None, -5]),
    "whole integers": ([2**63 - 1, 0, -(2**63)], pa.int64(), [2**63 - 1, 0, -(2**63)]),
    "unsigned": ([2**64 - 1, None, 0], pa.uint64(), [2**64 - 1, None, 0]),
    "half": ([0.5, None, -2.0], pa.float16(), [0.5, None, -2.0]),
    "floats": ([0.1, None, -0.0], pa.float64(), [0.1, None, -0.0]),
    "seconds": ([1767323045, None, None], pa.timestamp("s"), ["2026-01-02T03:04:05", None, None]),
    "nanoseconds": (
        [1, None, 10**18 + 1],
        pa.timestamp("ns"),
        ["1970-01-01T00:00:00.000000001", None, "2001-09-09T01:46:40.000000001"],
    ),
    "zoned": (
        [datetime(2026, 7, 1, 12, tzinfo=UTC), None, None],
        pa.timestamp("us", "Europe/Berlin"),
        ["2026-07-01T12:00:00.000000Z", None, None],
    ),
    "days": ([date(2026, 1, 2), None, None], pa.date32(), ["2026-01-02", None, None]),
    "times": ([time(1, 2, 3, 4), None, None], pa.time64("us"), ["01:02:03.000004", None, None]),
    "spans": ([timedelta(seconds=1), None, None], pa.duration("ms"), [1000, None, None]),
    "decimals": ([Decimal("1.50"), None, Decimal("-0.01")], pa.decimal128(5, 2), ["1.50", None, "-0.01"]),
    "lists": ([[1, None], None, []], pa.list_(pa.int64()), [[1, None], None, []]),
    "lists of text": ([["a"], None, ["b", "c"]], pa.large_list(pa.string()), [["a"], None, ["b", "c"]]),
    "fixed lists": ([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2), [[1, 2], None, [3, 4]]),
    "structs": (
        [{"a": 1, "b": [b"x"]}, None, {"a": None, "b": None}],
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.binary()))]),
        [{"a": 1, "b": [b"x"]}, None, {"a": None, "b": None}],
    ),
    "maps": ([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64()), [[["k", 1]], None, []]),
    "nothing": ([None, None, None], pa.null(), [None, None, None]),
    "moments in lists": (
        [[1], None, [2]],
        pa.list_(pa.timestamp("us")),
        [["1970-01-01T00:00:00.000001"], None, ["1970-01-01T00:00:00.000002"]],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_a_column_becomes_plain_values_whole_or_sliced(name: str) -> None:
    given, type_, expected = ODD[name]
    array = pa.array(given, type_)
    assert values(array) == expected
    assert [str(value) for value in values(array)] == [str(value) for value in expected]  # -0.0 and types
    assert values(pa.concat_arrays([array, array]).slice(2, 3)) == (expected * 2)[2:5]
    assert values(array.slice(1, 0)) == []


def test_a_dictionary_is_its_values() -> None:
    assert values(pa.array(["a", None, "a"]).dictionary_encode()) == ["a", None, "a"]


@pytest.mark.parametrize(("type_", "width"), [(pa.float16(), 2), (pa.float32(), 4), (pa.float64(), 8)])
def test_vectors_become_digests_of_their_little_endian_bytes(type_: pa.DataType, width: int) -> None:
    rows = [[1.5, -2.0], None, [0.0, math.inf], [3.0, None], [4.0, 5.0]]
    for list_type in (pa.list_(type_, 2), pa.list_(type_), pa.large_list(type_)):
        array = pa.concat_arrays([pa.array(rows, list_type), pa.array(rows, list_type)]).slice(1, 7)
        found = vectors(array).packed
        expected: list[Any] = []
        for row in (rows + rows)[1:8]:
            if row is None or None in row:
                expected.append(row)
            else:
                data = np.array(row, f"<f{width}").tobytes()
                expected.append(b"\2\0\0\0" + blake3(data).digest(16))
        assert found == expected
        cell = vector_to_cell(found[1], width)
        assert cell == groups.vector_cell(np.array(rows[2], f"<f{width}").tobytes(), dims=2, type_=f"f{8 * width}")
        assert vector_to_cell(None, width) is None
        assert vector_to_cell([3.0, None], width) == [3.0, None]


def test_vectors_of_no_length_and_of_no_rows_are_vectors() -> None:
    empty = groups.vector_cell(b"", dims=0)
    for type_ in (pa.list_(pa.float32(), 0), pa.list_(pa.float32())):
        assert [vector_to_cell(one, 4) for one in vectors(pa.array([[], None], type_)).packed] == [empty, None]
    assert vectors(pa.array([], pa.list_(pa.float32(), 8))).packed == []


def test_cells_are_json_at_any_depth() -> None:
    cell = to_cell({"a": [b"xy", math.nan, {"b": -math.inf}], "c": 1})
    assert cell == {
        "a": [groups.cell(b"xy"), {"float": "nan"}, {"b": {"float": "-inf"}}],
        "c": 1,
    }
    assert json.loads(json.dumps(cell, allow_nan=False)) == cell


def test_a_table_of_all_types_is_read_into_records(tmp_path: Path, hold: Any) -> None:
    table = tmp_path / "memories.lance"
    # What the format itself cannot hold is not asked of it.
    kinds = {name: one for name, one in ODD.items() if name not in {"maps", "nothing", "moments in lists"}}
    columns = {name: pa.array(given, type_) for name, (given, type_, _) in kinds.items()}
    odd_floats = pa.array([math.nan, math.inf, None], pa.float64())
    rows = pa.table({"id": pa.array([b"\1", b"\2", b"\3"]), "odd floats": odd_floats} | columns)
    lance.write_dataset(rows, str(table), data_storage_version="2.2")
    map_ = TableMap(collection="m", table="memories", id="id")
    with hold(table, map_) as opened:
        (group,) = opened.scan({})
        assert opened.findings() == []
        assert opened.check() == []
    names, found = groups.decode(group.data)
    assert names == ["id", "odd floats", *kinds]
    assert [row[0] for row in found] == ["01", "02", "03"]
    assert [row[1] for row in found] == [{"float": "nan"}, {"float": "inf"}, None]
    for i, (name, (_, _, expected)) in enumerate(kinds.items()):
        assert [row[i + 2] for row in found] == [to_cell(value) for value in expected], name

"""Rows as portable records, and back."""

import msgspec

from memkeep.model import TableMap
from memkeep.records.record import Record, Vector
from memkeep.records.shape import CARRIED, Mapper, Shape

_MAP = TableMap(collection="facts", table="facts", id="id", vectors=("vector",))
_SHAPE = Shape(
    fields={"text": "text", "tags": "tags", "created_at": "at", "access_count": "metadata.access_count"},
    times={"created_at": "s"},
    forms={"tags": "comma"},
    inner="metadata",
)
_ROW = {
    "id": "a",
    "text": "one",
    "tags": "x,y",
    "at": 1_700_000_000,
    "why": None,
    "n": 3,
    "metadata": '{"access_count":2,"tier":"core"}',
    "vector": Vector.f32(bytes(8)),
}
_COLUMNS = tuple(_ROW)
_ONE = Mapper(_MAP, _SHAPE, "one")
_FREE = TableMap(collection="points", table="points", id="id", vectors=("vector",))
_POINTS = Shape(fields={"text": "data", "created_at": "created_at"}, times={"created_at": "iso"}, free="")
_TWO = Mapper(_FREE, _POINTS, "two")


def _again(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in _ONE.row(_ONE.record(row), _COLUMNS).items() if value is not None}


def test_a_row_becomes_a_record() -> None:
    made = _ONE.record(_ROW)
    assert isinstance(made, Record)
    assert (made.text, made.tags, made.access_count) == ("one", ("x", "y"), 2)
    assert made.created_at == "2023-11-14T22:13:20+00:00"
    assert made.metadata == {"n": 3, "metadata": {"access_count": 2, "tier": "core"}}
    assert not made.native


def test_a_row_comes_back_exactly() -> None:
    for changed in (
        {},
        {"at": 1_700_000_000_000},
        {"at": "1700000000"},
        {"at": 1_700_000_000.0},
        {"tags": ",x,,y"},
        {"tags": 5},
        {"metadata": '{"tier": "core",  "access_count": "many"}'},
        {"metadata": "not json"},
        {"metadata": "[1]"},
        {"text": None},
        {"text": b"\xff"},
        {"text": 12},
    ):
        row = {**_ROW, **changed}
        assert _again(row) == {name: value for name, value in row.items() if value is not None}, changed


def test_there_and_back_through_another_product_gives_the_same_record() -> None:
    made = _ONE.record({**_ROW, "at": 1_700_000_000_123})
    row = _TWO.carry(_TWO.row(made, ("id", "vector")), made)
    assert row["data"] == "one"
    assert row[CARRIED]["system"] == "one"
    assert _TWO.record(row) == made


def test_a_change_of_a_record_wins_over_the_raw_value_of_its_product() -> None:
    made = _ONE.record({**_ROW, "at": 1_700_000_000_000, "metadata": '{"tier": "core", "access_count": 2}'})
    changed = msgspec.structs.replace(made, created_at="2024-01-01T00:00:00+00:00", access_count=9)
    row = _ONE.row(changed, _COLUMNS)
    assert row["at"] == 1_704_067_200
    assert row["metadata"] == '{"tier":"core","access_count":9}'


def test_what_has_no_place_is_named() -> None:
    made = Record(id="a", text="t", user="anna", tags=("x",), vectors={"other": Vector.f32(bytes(4))})
    assert _ONE.lost(made) == ["vectors.other", "user"]
    assert _TWO.lost(made) == ["vectors.other"]

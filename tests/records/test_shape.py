"""Rows as portable records, and back."""

from memkeep.model import TableMap
from memkeep.records.record import Record, Vector
from memkeep.records.shape import CARRIED, Shape, decode, encode

_MAP = TableMap(collection="facts", table="facts", id="id", vectors=("vector",))
_SHAPE = Shape(
    fields={"text": "text", "tags": "tags", "created_at": "at", "access_count": "metadata.access_count"},
    times={"created_at": "s"},
    forms={"tags": "comma"},
    spread=("metadata",),
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
_FREE = TableMap(collection="points", table="points", id="id", vectors=("vector",))
_POINTS = Shape(fields={"text": "data", "created_at": "created_at"}, times={"created_at": "iso"}, free="")


def _again(row: dict[str, object]) -> dict[str, object]:
    made = decode(row, _MAP, _SHAPE, "one")
    return {name: value for name, value in encode(made, _MAP, _SHAPE, "one", _COLUMNS).items() if value is not None}


def test_a_row_becomes_a_record() -> None:
    made = decode(_ROW, _MAP, _SHAPE, "one")
    assert isinstance(made, Record)
    assert (made.text, made.tags, made.access_count) == ("one", ("x", "y"), 2)
    assert made.created_at == "2023-11-14T22:13:20+00:00"
    assert made.metadata == {"why": None, "n": 3, "metadata.tier": "core"}
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
    made = decode({**_ROW, "at": 1_700_000_000_123}, _MAP, _SHAPE, "one")
    row = encode(made, _FREE, _POINTS, "two", ("id", "vector"))
    assert row["data"] == "one"
    assert row[CARRIED]["system"] == "one"
    assert decode(row, _FREE, _POINTS, "two") == made

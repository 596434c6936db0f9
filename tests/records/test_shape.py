"""Rows as portable records, and back."""

import json

import msgspec

from memkeep.engines.point_rows import to_row
from memkeep.engines.qdrant_edge import Point
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


_TABLE = TableMap(collection="points", table="public.points", id="id", vectors=("vector",))
_KEYS = {"text": "data", "created_at": "created_at"}
_SPELLED = Shape(fields={f: f"payload.{k}" for f, k in _KEYS.items()}, times={"created_at": "iso"}, free="payload.")
_THREE = Mapper(_TABLE, _SPELLED, "two")
_TEXTS = Mapper(_TABLE, msgspec.structs.replace(_SPELLED, spread="payload"), "two")
_PAYLOAD = {
    "data": "one",
    "created_at": "2026-01-02T03:04:05.5Z",
    "topic": ["tea", None],
    "id": 7,
    "payload": {"payload": 1},
    "vector": "none",
    "vector.x": 1,
    "payload.id": 2,
    "payload.topic": 3,
    "payload.payload": 5,
    "": 4,
}


def test_a_point_and_a_row_with_the_same_payload_are_the_same_record() -> None:
    point = to_row(Point("a", _PAYLOAD, {"": bytes(8)}))
    row = {"id": "a", "vector": Vector.f32(bytes(8))} | {f"payload.{key}": value for key, value in _PAYLOAD.items()}
    made = _THREE.record(row)
    assert made == _TWO.record(point)
    assert made.metadata["topic"] == ["tea", None]
    assert _THREE.row(made, ("id", "vector", "payload")) == row
    assert _TWO.row(made, ("id", "vector")) == point


def test_a_payload_that_is_text_keeps_its_keys_and_its_spelling() -> None:
    columns = ("id", "vector", "payload")
    for payload in (json.dumps(_PAYLOAD), '{ "data": "one",\n"topic": 1}', "no JSON", "[1]", "{}"):
        row = {"id": "a", "payload": payload}
        assert _TEXTS.gathered(_TEXTS.row(_TEXTS.record(row), columns)) == row
    made = _TEXTS.record({"id": "a", "payload": json.dumps(_PAYLOAD)})
    assert isinstance(made, Record)
    point = _TWO.record(to_row(Point("a", _PAYLOAD, {})))
    assert msgspec.structs.replace(made, native=point.native) == point
    changed = _TEXTS.gathered(_TEXTS.row(msgspec.structs.replace(made, text="two"), columns))
    assert json.loads(changed["payload"]) == _PAYLOAD | {"data": "two"}
    from_a_table = _TEXTS.gathered(_TEXTS.row(point, columns))
    assert json.loads(from_a_table["payload"]) == _PAYLOAD


def test_the_payload_of_another_products_record_carries_it_in_the_text() -> None:
    made = _ONE.record(_ROW)
    row = _TEXTS.gathered(_TEXTS.carry(_TEXTS.row(made, ("id", "vector", "payload")), made))
    assert json.loads(row["payload"])[CARRIED]["system"] == "one"
    assert _TEXTS.record(row) == made

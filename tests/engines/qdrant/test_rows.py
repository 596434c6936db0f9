"""Rows out of live collections and of their image, and into others, value for value."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from tests.engines.qdrant.conftest import KINDS, Client, odd_point

from memkeep.engines import qdrant_write
from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.qdrant import QdrantEngine
from memkeep.engines.rows import RowEngine, RowReader
from memkeep.errors import StoreError
from memkeep.model import Part, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row
from memkeep.testing.qdrant_server import qdrant


def both(engine: QdrantEngine, part: Part, scratch: Path) -> list[Row]:
    """Return the rows of a live part, which are those of its image."""
    [map_] = part.maps
    scratch.mkdir()
    with engine.freeze(part, Path(), scratch) as opened:
        assert isinstance(opened, RowReader)
        live = [row for batch in opened.rows(map_) for row in batch]
        with pytest.raises(StoreError, match="other"):
            list(opened.rows(TableMap(collection="other", table="other", id="id")))
    (scratch / "root" / part.name).parent.mkdir(parents=True)
    (scratch / "image").rename(scratch / "root" / part.name)
    with engine.open(part, scratch / "root") as again:
        assert [row for batch in again.rows(map_) for row in batch] == live
    return live


def told(vector: Any) -> Vector:
    """Return what a row has for a vector of the server's JSON."""
    if isinstance(vector, dict):
        count = len(vector["indices"])
        data = struct.pack(f"<{count}I{count}f", *vector["indices"], *vector["values"])
        return Vector(data=data, type="sparse", dims=count)
    if isinstance(vector[0], list):
        rows = [struct.pack(f"<{len(row)}f", *row) for row in vector]
        return Vector(data=b"".join(rows), type="multi", dims=len(vector[0]))
    return Vector.f32(struct.pack(f"<{len(vector)}f", *vector))


def test_points_of_every_kind_are_rows(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], tmp_path: Path
) -> None:
    name = client.make(**KINDS, shard_number=2)
    client.put(name, [odd_point(i) for i in range(60)])
    client.delete(name, [7, 21])
    rows = {row["id"]: row for row in both(engine, part(name), tmp_path / "one")}
    points = client.points(name)
    assert rows.keys() == points.keys()
    for id_, point in points.items():
        wanted = {"id": id_} | {f"vector.{one}": told(vector) for one, vector in point["vector"].items()}
        for key, value in (point["payload"] or {}).items():
            wanted[f"payload.{key}" if key in {"id", "vector.far"} else key] = value
        assert rows[id_] == wanted


def test_an_unnamed_vector_is_called_so(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], tmp_path: Path
) -> None:
    name = client.make(2)
    client.put(name, [{"id": 1, "vector": [0.6, 0.8], "payload": {"vector": "word", "payload.id": 2, "a": None}}])
    [row] = both(engine, part(name), tmp_path / "one")
    vector = Vector.f32(struct.pack("<2f", 0.6, 0.8))
    assert row == {"id": 1, "vector": vector, "payload.vector": "word", "payload.payload.id": 2, "a": None}


def test_rows_go_into_an_empty_collection_value_for_value(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], tmp_path: Path
) -> None:
    name, other = client.make(**KINDS), client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(130)])
    rows = both(engine, part(name), tmp_path / "one")
    assert merged(engine, part(other), rows).tables == {other: Counts(inserted=130)}
    again = {row["id"]: row for row in both(engine, part(other), tmp_path / "two")}
    assert again.keys() == {row["id"] for row in rows}
    for row in rows:
        equal(again[row["id"]], row)
    assert merged(engine, part(other), rows).tables == {other: Counts(same=130)}


def test_rows_that_a_server_rounds_are_the_same_when_they_come_again(
    client: Client, engine: QdrantEngine, part: Callable[..., Part]
) -> None:
    name = client.make(**KINDS)
    third = [1 / 3, 200.7]
    late = Vector(data=f32(*third * 8).data, type="multi", dims=8)
    words = Vector(data=struct.pack("<2I2f", 9, 3, *third), type="sparse", dims=2)
    sizes = {"cosine": 64, "half": 32, "bytes": 16, "far": 48}
    rows = [{"id": 1, "vector.late": late, "vector.words": words}]
    rows[0] |= {f"vector.{one}": f32(*third * (size // 2)) for one, size in sizes.items()}
    assert merged(engine, part(name), rows).tables == {name: Counts(inserted=1)}
    assert merged(engine, part(name), rows, "update").tables == {name: Counts(same=1)}


def equal(row: Row, wanted: Row) -> None:
    """Compare rows; what a server normalises may be rounded once more."""
    assert row.keys() == wanted.keys()
    for column, value in wanted.items():
        if isinstance(value, Vector) and value != row[column]:
            assert column in {"vector", "vector.cosine", "vector.late"}
            numbers = np.frombuffer(row[column].data, "<f4")
            assert np.allclose(numbers, np.frombuffer(value.data, "<f4"), rtol=2**-22, atol=2**-24)
        else:
            assert row[column] == value


def merged(engine: QdrantEngine, part: Part, rows: list[Row], conflict: Conflict = "skip", **more: Any) -> Merged:
    """Merge rows in two batches."""
    [map_] = part.maps
    half = len(rows) // 2
    with engine.merge_rows(
        part, {map_.table: lambda: iter([rows[:half], rows[half:]])}, Wanted(conflict=conflict, **more)
    ) as one:
        one.commit()
        return one.result


def f32(*numbers: float) -> Vector:
    return Vector.f32(struct.pack(f"<{len(numbers)}f", *numbers))


GOOD = {"id": 1, "vector": f32(0.6, 0.8), "data": "good", "at": "2026-01-01"}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"id": "note-7"}, "its id is neither a UUID nor an unsigned number"),
        ({"id": -1}, "its id is neither"),
        ({"id": True}, "its id is neither"),
        ({"id": None}, "its id is neither"),
        ({"id": 1}, "a row before it has the same id"),
        ({"id": 2, "vector": f32(1, 2, 3)}, "its vector has 3 dimensions, the collection takes 2"),
        ({"id": 2, "vector": f32(1, float("nan"))}, "no numbers"),
        ({"id": 2, "vector": Vector(data=b"123", dims=2)}, "a vector said to have 2 dimensions has 3 bytes"),
        ({"id": 2, "vector": Vector(data=bytes(8), type="multi", dims=2)}, "the collection takes one"),
        ({"id": 2, "vector.title": f32(1, 2)}, "the collection has no vector title"),
        ({"id": 2, "data": float("inf")}, "JSON has no form"),
        ({"id": 2, "data": {"deep": [b"\x00"]}}, "JSON has no form"),
        ({"id": 2, "data": 1 << 64}, "the number 18446744073709551616"),
        ({"id": 2, "data": "\ud800"}, "no Unicode"),
        ({"id": 2, "data": {3: 4}}, "a key that is no text"),
    ],
)
def test_a_row_that_the_server_would_not_take_is_named_and_the_others_go_in(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], bad: Row, why: str
) -> None:
    name = client.make(2)
    last = GOOD | {"id": 3}
    done = merged(engine, part(name), [GOOD, bad, last])
    assert done.tables == {name: Counts(inserted=2)}
    [failed] = done.failed
    assert (failed.table, failed.id) == (name, str(bad["id"]))
    assert why in failed.reason
    assert client.points(name).keys() == {1, 3}
    assert client.points(name)[1]["payload"] == {"data": "good", "at": "2026-01-01"}


@pytest.mark.parametrize(("conflict", "text"), [("skip", "good"), ("update", "new"), ("newer", "new")])
def test_what_a_row_does_not_have_stays_as_it_is(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], conflict: Conflict, text: str
) -> None:
    name = client.make(2)
    mine = part(name, text="data", updated_at="at")
    merged(engine, mine, [GOOD, {**GOOD, "id": "0F7E8A7E11114222833312345678 9ABC".replace(" ", "")}])
    same = {"id": "0f7e8a7e-1111-4222-8333-123456789abc", "data": "good", "vector": f32(3, 4)}
    done = merged(engine, mine, [{"id": 1, "data": "new", "at": "2026-02-01"}, same], conflict)
    moved = {"skipped": 1} if conflict == "skip" else {"updated": 1}
    assert done.tables == {name: Counts(same=1, **moved)}
    assert done.conflicts == (f"{name}:1",)
    point = client.points(name)[1]
    assert point["payload"] == {"data": text, "at": "2026-01-01" if conflict == "skip" else "2026-02-01"}
    assert point["vector"] == pytest.approx([0.6, 0.8])


def test_only_one_users_rows_go_in_and_unknown_tables_are_named(
    client: Client, engine: QdrantEngine, part: Callable[..., Part]
) -> None:
    name = client.make(2)
    mine = part(name, user="user")
    rows = [GOOD | {"id": i, "user": f"u{i % 2}"} for i in range(4)]
    assert merged(engine, mine, rows, users=("u1",)).tables == {name: Counts(inserted=2)}
    with engine.merge_rows(mine, {"other": lambda: iter([rows])}, Wanted(conflict="skip")) as one:
        assert one.result.left == ("other is left out: the store has no such table",)
    assert client.points(name).keys() == {1, 3}


def test_rows_are_taken_back_when_the_server_fails_in_the_middle(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make(2)
    client.put(name, [{"id": 1, "vector": [0.6, 0.8], "payload": {"data": "old", "keep": 1}}])
    before = client.points(name)
    put, calls = qdrant_write.put, iter(range(9))

    def fail(*arguments: Any) -> None:
        if next(calls) == 1:
            raise StoreError("unplugged", code="store_unreachable")
        put(*arguments)

    monkeypatch.setattr(qdrant_write, "put", fail)
    rows = [GOOD | {"id": i} for i in range(150)]
    with pytest.raises(StoreError, match="the points were not merged: unplugged"):
        merged(engine, part(name), rows, "update")
    assert client.points(name) == before


def test_rows_that_can_be_read_only_once_do_not_go_in(
    client: Client, engine: QdrantEngine, part: Callable[..., Part]
) -> None:
    name = client.make(2)
    once = iter([[GOOD], [GOOD | {"id": 2}]])
    with (
        engine.merge_rows(part(name), {name: lambda: once}, Wanted(conflict="skip")) as one,
        pytest.raises(StoreError, match="2 of them were not there any more"),
    ):
        one.commit()
    assert client.points(name) == {}
    assert merged(engine, part(name), []).tables == {name: Counts()}


def test_a_killed_server_is_said_to_have_only_some_of_them(
    engine: QdrantEngine, part: Callable[..., Part], tmp_path: Path
) -> None:
    with qdrant(tmp_path) as mortal, httpx.Client(base_url=mortal.base) as http:
        http.put("/collections/gone", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        mine = msgspec.structs.replace(part("gone"), path=mortal.url("gone"))
        rows = [GOOD | {"id": i} for i in range(300)]

        def batches() -> Iterator[list[Row]]:
            yield rows[:200]
            if seen:
                mortal.kill()
            seen.append(True)
            yield rows[200:]

        seen: list[bool] = []
        with engine.merge_rows(mine, {"gone": batches}, Wanted(conflict="skip")) as one:
            assert one.result.tables == {"gone": Counts(inserted=300)}
            with pytest.raises(StoreError, match="only some of the points were merged") as told_:
                one.commit()
        assert told_.value.code == "store_unreachable"
        with pytest.raises(StoreError):
            engine.columns(mine, "gone")


def test_columns_are_id_and_the_vectors(client: Client, engine: QdrantEngine, part: Callable[..., Part]) -> None:
    name = client.make(**KINDS)
    found = engine.columns(part(name), name)
    sizes = {"cosine": 64, "half": 32, "bytes": 16, "late": 8, "far": 48, "words": 0, "bm25": 0}
    assert found is not None
    assert found.vectors == {f"vector.{one}": size for one, size in sizes.items()}
    assert found.names == ("id", *found.vectors)
    assert engine.columns(part("nowhere"), "nowhere") is None
    assert isinstance(engine, RowEngine)

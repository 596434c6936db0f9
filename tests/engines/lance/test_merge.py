"""Rows among those of a live Lance table: all policies, rows that do not fit, and one commit or none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from memkeep.engines import lance_merge
from memkeep.engines.lance import LanceEngine
from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.rows import Columns
from memkeep.errors import StoreError
from memkeep.model import Part, Role, TableMap
from memkeep.records.record import Vector

MAP = TableMap(
    collection="memories",
    table="memories",
    id="id",
    fields={"text": "text", "scope": "category", "created_at": "createdAt"},
    vectors=("vector",),
)
MakeTable = Callable[..., Path]
MakeRows = Callable[..., pa.Table]


@pytest.fixture(autouse=True)
def _all_rows_wait_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_merge, "_HELD", 0)


def _part(table: Path, map_: TableMap = MAP) -> Part:
    return Part(name="memories.lance", engine="lance", role=Role.CANONICAL, path=str(table), maps=(map_,))


def _merge(image: Path, live: Path, conflict: Conflict, *, commit: bool = True, **wanted: Any) -> Merged:
    with LanceEngine().merge(_part(live), _part(image), image.parent, Wanted(conflict=conflict, **wanted)) as one:
        if commit:
            one.commit()
        return one.result


def _insert(live: Path, rows: list[dict[str, Any]], conflict: Conflict = "skip", **more: Any) -> Merged:
    given = {"memories": lambda: iter([rows[:3], rows[3:]])} | more
    with LanceEngine().merge_rows(_part(live), given, Wanted(conflict=conflict)) as one:
        one.commit()
        return one.result


def _told(table: Path) -> dict[str, dict[str, Any]]:
    """Return what the products' own library says."""
    rows = lancedb.connect(str(table.parent)).open_table("memories").to_arrow().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


@pytest.fixture
def image(make_table: MakeTable) -> Path:
    return make_table(5, 5, dims=8, folder="image")


@pytest.fixture
def live(make_table: MakeTable, make_rows: MakeRows) -> Path:
    """Return a table in which 1 is gone, 2 is older and 3 later than in the image, and 20 is new."""
    table = make_table(5, 5, dims=8, folder="live")
    dataset = lance.dataset(str(table))
    dataset.delete("id = 'memory-00001'")
    dataset.update({"text": "'older'", "createdAt": "1.0"}, "id = 'memory-00002'")
    dataset.update({"text": "'later'", "createdAt": "1.8e9"}, "id = 'memory-00003'")
    dataset.insert(make_rows(20, 1, 8))
    return table


@pytest.mark.parametrize(
    ("conflict", "counts", "two", "three"),
    [
        ("skip", Counts(inserted=1, skipped=2, same=7), "older", "later"),
        ("fail", Counts(inserted=1, skipped=2, same=7), "older", "later"),
        ("update", Counts(inserted=1, updated=2, same=7), "Fact number 2", "Fact number 3"),
        ("newer", Counts(inserted=1, updated=1, skipped=1, same=7), "Fact number 2", "later"),
    ],
)
def test_rows_go_in_as_asked_in_one_version_and_lancedb_has_them(
    image: Path, live: Path, conflict: Conflict, counts: Counts, two: str, three: str
) -> None:
    before, version = _told(live), lance.dataset(str(live)).version
    files = sorted(live.rglob("*"))
    dry = _merge(image, live, conflict, commit=False)
    assert (_told(live), lance.dataset(str(live)).version) == (before, version)
    assert sorted(live.rglob("*")) == files
    assert _merge(image, live, conflict) == dry
    assert dry.tables == {"memories": counts}
    assert sorted(dry.conflicts) == ["memories:memory-00002", "memories:memory-00003"]
    assert len(dry.records) == 10
    after, whole = _told(live), _told(image)
    assert after["memory-00001"] == whole["memory-00001"]
    assert after["memory-00002"]["text"].startswith(two)
    assert after["memory-00003"]["text"].startswith(three)
    assert {name for name in after if after[name] != before.get(name)} <= {f"memory-0000{n}" for n in (1, 2, 3)}
    assert lance.dataset(str(live)).version == version + 1
    if conflict == "update":
        assert _merge(image, live, "fail").tables == {"memories": Counts(same=10)}
        assert lance.dataset(str(live)).version == version + 1


def test_only_one_users_rows_go_in(image: Path, live: Path) -> None:
    assert _merge(image, live, "update", users=("preference",)).tables == {"memories": Counts(inserted=1, same=2)}
    nobody = _part(live, TableMap(collection="memories", table="memories", id="id"))
    with LanceEngine().merge(nobody, nobody, image.parent, Wanted(conflict="update", users=("fact",))) as one:
        assert one.result.tables == {"memories": Counts()}


def test_rows_that_do_not_fit_are_named_and_the_others_go_in(
    image: Path, make_table: MakeTable, make_rows: MakeRows
) -> None:
    extra = make_rows(30, 3, 8).set_column(0, "id", pa.array(["memory-00001", None, "fits"]))
    lance.dataset(str(image)).insert(extra)
    live = make_table(1, dims=8, folder="live")
    narrow = make_table(1, dims=4, folder="narrow")
    done = _merge(image, live, "skip")
    assert [(row.id, row.reason) for row in done.failed] == [
        ("memory-00001", "another row that goes in has the same id"),
        ("None", "it has no id"),
    ]
    assert done.tables == {"memories": Counts(inserted=10, same=1)}
    assert len(_told(live)) == 11
    other = _merge(image, narrow, "update")
    assert len(other.failed) == 13
    assert other.failed[0].reason == "vector: it has 8 dimensions, the table takes 4"
    assert len(_told(narrow)) == 1


def test_one_value_that_does_not_fit_leaves_out_its_row_only(image: Path, tmp_path: Path) -> None:
    live = tmp_path / "typed" / "memories.lance"
    wide = lance.dataset(str(image)).to_table()
    small = wide.set_column(wide.schema.get_field_index("createdAt"), "createdAt", pa.array([1] * 10, pa.int32()))
    lance.write_dataset(small.slice(0, 1), str(live))
    lance.dataset(str(image)).update({"createdAt": "1e18"}, "id = 'memory-00004'")
    done = _merge(image, live, "update")
    assert [row.id for row in done.failed] == ["memory-00004"]
    assert done.failed[0].reason.startswith("createdAt: ")
    assert len(_told(live)) == 9


def test_columns_that_the_image_lacks_stay_and_those_that_it_has_alone_are_said(image: Path, live: Path) -> None:
    dataset = lance.dataset(str(live))
    dataset.add_columns({"agentId": "'main'"})
    dataset.drop_columns(["category"])
    done = _merge(image, live, "update")
    assert done.left == ("memories has no column category any more: left out",)
    after = _told(live)
    assert after["memory-00002"]["agentId"] == "main"
    assert after["memory-00002"]["text"].startswith("Fact number 2")
    assert [(row.id, row.reason) for row in done.failed] == [("memory-00001", "it has no agentId")]


def test_a_table_that_was_changed_meanwhile_refuses_it_all(image: Path, live: Path) -> None:
    wanted = Wanted(conflict="update")
    with LanceEngine().merge(_part(live), _part(image), image.parent, wanted) as one:
        lance.dataset(str(live)).update({"text": "'mine'"}, "id = 'memory-00002'")
        before = _told(live)
        with pytest.raises(StoreError, match="could not be written"):
            one.commit()
    assert _told(live) == before


def test_what_is_written_meanwhile_elsewhere_stays(image: Path, live: Path, make_rows: MakeRows) -> None:
    with LanceEngine().merge(_part(live), _part(image), image.parent, Wanted(conflict="skip")) as one:
        lance.dataset(str(live)).insert(make_rows(40, 1, 8))
        one.commit()
    assert {"memory-00040", "memory-00001"} <= set(_told(live))


def test_given_rows_go_in_and_those_that_do_not_fit_are_named(live: Path) -> None:
    numbers = np.arange(8, dtype="<f4")
    vector = Vector.f32(numbers.tobytes())
    good = {"id": "given", "text": "naïve 🙂", "vector": vector, "createdAt": 5.0}
    rows = [
        good,
        {"id": "double", "vector": Vector(data=numbers.astype("<f8").tobytes(), type="f64", dims=8)},
        {"id": "short", "text": "x", "vector": Vector.f32(numbers[:3].tobytes())},
        {"id": "odd", "text": 7, "vector": None},
        {"id": "more", "colour": "red"},
        {"text": "nobody", "id": None},
        {"id": "memory-00003", "text": "given", "createdAt": 2e9},
        {"id": "memory-00004", "category": "preference"},
    ]
    done = _insert(live, rows, "newer", other=lambda: iter([[{"id": 1}]]))
    assert {row.id for row in done.failed} == {"short", "odd", "None"}
    assert done.tables == {"memories": Counts(inserted=3, updated=1, same=1)}
    assert done.left == (
        "other is left out: the store has no such table",
        "memories has no column colour: left out",
    )
    told = _told(live)
    assert told["given"] == good | {"vector": numbers.tolist(), "category": None}
    assert told["double"]["vector"] == numbers.tolist()
    assert (told["memory-00003"]["text"], told["memory-00003"]["category"]) == ("given", "fact")
    assert told["memory-00003"]["vector"] is not None
    columns = LanceEngine().columns(_part(live), "memories")
    assert columns == Columns(names=("id", "text", "vector", "category", "createdAt"), vectors={"vector": 8})
    assert LanceEngine().columns(_part(live), "other") is None


def test_rows_that_left_a_table_of_every_type_go_into_another(tmp_path: Path) -> None:
    moment = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    bare = moment.replace(tzinfo=None, microsecond=678000)
    table = pa.table(
        {
            "id": ["a", "b"],
            "made": pa.array([moment, None], pa.timestamp("us", "UTC")),
            "bare": pa.array([bare, None], pa.timestamp("ns")),
            "day": pa.array([moment.date(), None], pa.date32()),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "took": pa.array([timedelta(seconds=3), None], pa.duration("ms")),
            "tags": pa.array([["x", "y"], []], pa.list_(pa.string())),
            "deep": pa.array([{"n": 1}, None], pa.struct([("n", pa.int64())])),
            "half": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4, "f2")), 2),
            "raw": pa.array([b"\0\xff", None], pa.binary()),
        }
    )
    live, source = tmp_path / "live" / "memories.lance", tmp_path / "source" / "memories.lance"
    lance.write_dataset(table, str(source))
    lance.write_dataset(table.slice(0, 0), str(live))
    map_ = TableMap(collection="memories", table="memories", id="id", vectors=("half",))
    with LanceEngine().open(_part(source, map_), source.parent) as opened:
        rows = [row for batch in opened.rows(map_) for row in batch]
    assert _insert(live, rows).tables == {"memories": Counts(inserted=2)}
    assert lance.dataset(str(live)).to_table().equals(lance.dataset(str(source)).to_table())
    assert _insert(live, rows, "fail").tables == {"memories": Counts(same=2)}


def test_a_folder_that_is_no_table_is_left_alone(image: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be opened"):
        _merge(image, tmp_path / "none" / "memories.lance", "skip")

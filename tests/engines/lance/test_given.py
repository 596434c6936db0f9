"""Rows that are given go into a live table in one new version, whatever comes in between."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from memkeep.engines import lance_merge
from memkeep.engines.lance import LanceEngine
from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.errors import StoreError
from memkeep.model import Part, Role, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

DIMS = 8
MAP = TableMap(collection="memories", table="memories", id="id", vectors=("vector",))
SCHEMA = pa.schema(
    [("id", pa.string()), ("text", pa.string()), ("vector", pa.list_(pa.float32(), DIMS)), ("n", pa.int64())]
)

# Kills itself as soon as the commit has begun to write.
KILLED = """
import os, signal, sys, threading
from pathlib import Path
from tests.engines.lance.test_given import many, part
from memkeep.engines.lance import LanceEngine
from memkeep.engines.merging import Wanted
folder = Path(sys.argv[1])
def watch():
    while {*(folder / "data").iterdir()} == there:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
there = {*(folder / "data").iterdir()}
rows = {"memories": lambda: iter([many(100_000)])}
with LanceEngine().merge_rows(part(folder), rows, Wanted(conflict="skip")) as one:
    threading.Thread(target=watch, daemon=True).start()
    one.commit()
"""


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """Make an empty table; its folder."""
    folder = tmp_path / "memories.lance"
    lance.write_dataset(SCHEMA.empty_table(), str(folder))
    return folder


def part(folder: Path) -> Part:
    return Part(name="memories.lance", engine="lance", role=Role.CANONICAL, path=str(folder), maps=(MAP,))


def vector(*numbers: float) -> Vector:
    return Vector.f32(np.array(numbers, "<f4").tobytes())


def many(count: int, start: int = 0) -> list[Row]:
    return [{"id": f"m{n}", "text": f"memory {n}", "vector": vector(*[n] * DIMS), "n": n} for n in range(start, count)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def put(folder: Path, rows: list[Row], conflict: Conflict = "skip") -> Merged:
    """Merge rows, rehearsed first: both must say the same, and the rehearsal must change nothing."""
    source = {"memories": lambda: (rows[at : at + 300] for at in range(0, len(rows), 300))}
    before = files(folder)
    with LanceEngine().merge_rows(part(folder), source, Wanted(conflict=conflict)) as one:
        rehearsed = one.result
    assert files(folder) == before
    with LanceEngine().merge_rows(part(folder), source, Wanted(conflict=conflict)) as one:
        one.commit()
    assert one.result == rehearsed
    return one.result


def told(folder: Path) -> dict[Any, Any]:
    return {row["id"]: row for row in lance.dataset(str(folder)).to_table().to_pylist()}


def test_all_that_fit_of_a_thousand_rows_go_in_at_once(live: Path) -> None:
    odd: list[Row] = [
        {"id": "short", "vector": vector(1, 2)},
        {"id": "lying", "vector": Vector(data=bytes(4 * DIMS), dims=2)},
        {"id": "sparse", "vector": Vector(data=bytes(8 * DIMS), type="sparse", dims=DIMS)},
        {"id": "list", "text": ["a"]},
        {"id": "text", "n": "seven"},
        {"id": "large", "n": 2**63},
        {"id": "surrogate", "text": "caf\udce9"},
        {"id": "m3", "text": "the same id"},
        {"text": "no id"},
        {"id": ["no id"]},
    ]
    rows = many(1000)
    for at, row in enumerate(odd):
        rows.insert(900 - at * 80, row)
    rows[0] = {"id": "bare"}

    done = put(live, rows)

    assert done.tables == {"memories": Counts(inserted=1000 + 1)}
    assert {row.id for row in done.failed} == {"short", "sparse", "list", "text", "large", "surrogate", "m3", "None"}
    assert len(done.failed) == len(odd) - 1
    table = lance.dataset(str(live))
    assert (table.version, len(table.get_fragments())) == (2, 1)
    assert told(live)["m999"] == {"id": "m999", "text": "memory 999", "vector": [999.0] * DIMS, "n": 999}
    assert told(live)["bare"] == {"id": "bare", "text": None, "vector": None, "n": None}
    assert told(live)["lying"]["vector"] == [0.0] * DIMS
    assert put(live, rows).tables == {"memories": Counts(same=1001)}
    assert lance.dataset(str(live)).version == 2


def test_rows_of_many_shapes_go_in_together_and_change_only_what_they_have(live: Path) -> None:
    rows = many(300)
    for row in rows[::2]:
        del row["text"]
    for row in rows[::3]:
        row["vector"] = None
    put(live, rows)

    changed = put(live, [{"id": "m0", "text": "new"}, {"id": "m1", "n": -1}, {"id": "m2"}], "update")

    assert changed.tables == {"memories": Counts(updated=2, same=1)}
    assert told(live)["m0"] == {"id": "m0", "text": "new", "vector": None, "n": 0}
    assert told(live)["m1"] == {"id": "m1", "text": "memory 1", "vector": [1.0] * DIMS, "n": -1}
    assert told(live)["m2"]["text"] is None


def test_ids_that_are_numbers_are_known_again(tmp_path: Path) -> None:
    folder = tmp_path / "memories.lance"
    lance.write_dataset(pa.table({"id": [1, 2], "text": ["a", "b"]}), str(folder))

    done = put(folder, [{"id": 1, "text": "a"}, {"id": 2, "text": "other"}, {"id": 3, "text": "c"}])

    assert done.tables == {"memories": Counts(inserted=1, same=1, skipped=1)}
    assert {name: row["text"] for name, row in told(folder).items()} == {1: "a", 2: "b", 3: "c"}


@pytest.mark.parametrize("type_", [pa.float16(), pa.float64()])
def test_vectors_of_other_widths_keep_their_numbers(tmp_path: Path, type_: pa.DataType) -> None:
    folder = tmp_path / "memories.lance"
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(type_, 2))])
    lance.write_dataset(schema.empty_table(), str(folder))
    half = Vector(data=np.array([0.5, -2], "<f2").tobytes(), type="f16", dims=2)

    put(folder, [{"id": "a", "vector": vector(1.5, float("nan"))}, {"id": "b"}, {"id": "c", "vector": half}])

    assert str(told(folder)["a"]["vector"]) == "[1.5, nan]"
    assert (told(folder)["b"]["vector"], told(folder)["c"]["vector"]) == (None, [0.5, -2.0])


def test_what_another_has_put_in_meanwhile_is_not_put_in_again(live: Path) -> None:
    put(live, many(10))
    with LanceEngine().merge_rows(part(live), {"memories": lambda: iter([many(20)])}, Wanted(conflict="skip")) as one:
        put(live, many(15))
        with pytest.raises(StoreError, match="5 rows that were to be new"):
            one.commit()
    with LanceEngine().merge_rows(part(live), {"memories": lambda: iter([many(30)])}, Wanted(conflict="skip")) as one:
        put(live, [{"id": "other"}])
        one.commit()

    ids = lance.dataset(str(live)).to_table(["id"])["id"].to_pylist()
    assert sorted(ids) == sorted(["other", *(f"m{n}" for n in range(30))])


def test_a_kill_while_it_is_made_to_last_leaves_the_table_as_it_was(live: Path) -> None:
    put(live, many(10))
    code = subprocess.run([sys.executable, "-c", KILLED, str(live)], check=False, timeout=60).returncode

    assert code == -signal.SIGKILL
    assert set(told(live)) in ({f"m{n}" for n in range(10)}, {f"m{n}" for n in range(100_000)})
    assert put(live, many(20)).tables["memories"].inserted in (0, 10)


def test_a_source_that_breaks_off_changes_nothing(live: Path) -> None:
    before = files(live)

    def breaking() -> Iterator[list[Row]]:
        yield many(100)
        raise StoreError("the other side is gone")

    with (
        pytest.raises(StoreError, match="the other side is gone"),
        LanceEngine().merge_rows(part(live), {"memories": breaking}, Wanted(conflict="skip")),
    ):
        pass

    assert files(live) == before


@contextmanager
def room(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("held", [0, 50 << 10, 64 << 20])
def test_rows_wait_in_memory_and_what_is_more_in_a_file(live: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(lance_merge, "_HELD", held)
    put(live, many(100))
    assert put(live, many(5000)).tables == {"memories": Counts(inserted=4900, same=100)}
    assert {row["text"] for row in told(live).values()} == {row["text"] for row in many(5000)}
    assert [told(live)["m4321"]["n"], told(live)["m4321"]["vector"]] == [4321, [4321] * DIMS]


def test_a_full_disk_leaves_the_table_as_it_was(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_merge, "_HELD", 1 << 10)
    put(live, many(10))
    merging = LanceEngine().merge_rows(part(live), {"memories": lambda: iter([many(10_000)])}, Wanted(conflict="skip"))
    with pytest.raises(StoreError, match="put aside"), room(1 << 10), merging:
        pass
    merging = LanceEngine().merge_rows(part(live), {"memories": lambda: iter([many(10_000)])}, Wanted(conflict="skip"))
    with merging as one, pytest.raises(StoreError, match="could not be written"), room(100 << 10):
        one.commit()

    assert len(told(live)) == 10
    assert put(live, many(20)).tables == {"memories": Counts(inserted=10, same=10)}

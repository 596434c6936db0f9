"""Where vectors lie in the data files."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from memkeep.engines.lance_pin import Pin
from memkeep.engines.lance_runs import Finder
from memkeep.model import Run


def runs_of(hold: Any, table: Path, *maps: Any) -> dict[str, tuple[Run, ...]]:
    """Return the runs of all files after a scan."""
    with hold(table, *maps) as opened:
        assert all(opened.runs(entry) == () for entry in opened.entries())
        list(opened.scan({}, ()))
        assert opened.findings() == []
        found = {entry.path: opened.runs(entry) for entry in opened.entries()}
        for entry in opened.entries():
            end = 0
            for run in found[entry.path]:
                assert run.offset >= end
                end = run.offset + run.count * run.stride
            assert end <= max(entry.size, 0)
    return found


def covered(table: Path, found: dict[str, tuple[Run, ...]]) -> float:
    """Return which share of the rows' vectors lies, block for block, in a run."""
    blocks = set()
    for path, runs in found.items():
        data = (table.parent / path).read_bytes() if runs else b""
        for run in runs:
            blocks |= {data[run.offset + i * run.stride :][: run.stride] for i in range(run.count)}
    rows = lance.dataset(str(table)).to_table(columns=["vector"])["vector"].combine_chunks()
    vectors = [rows[i].values.to_numpy().tobytes() for i in range(len(rows)) if rows[i].is_valid]
    return sum(vector in blocks for vector in vectors) / len(vectors)


@pytest.mark.parametrize("storage", ["legacy", "2.0", "2.1", "2.2"])
def test_all_vectors_are_found_before_and_after_a_compaction(
    make_table: Callable[..., Path], hold: Any, storage: str
) -> None:
    table = make_table(300, 200, 250, dims=256, data_storage_version=storage)
    dataset = lance.dataset(str(table))
    dataset.delete("id IN ('memory-00000', 'memory-00120', 'memory-00121', 'memory-00499', 'memory-00749')")
    found = runs_of(hold, table)
    assert covered(table, found) == 1.0
    assert sum(len(runs) for runs in found.values()) == 3  # deleted rows do not cut a run
    assert all(run.stride == 1024 for runs in found.values() for run in runs)
    lance.dataset(str(table)).optimize.compact_files()
    found = runs_of(hold, table)
    assert covered(table, found) == 1.0
    assert len([runs for runs in found.values() if runs]) == 1


def test_vectors_on_many_pages_are_found(tmp_path: Path, hold: Any, make_rows: Callable[..., pa.Table]) -> None:
    table = tmp_path / "memories.lance"
    batches = make_rows(0, 3000, dims=256).to_reader(max_chunksize=50)
    lance.write_dataset(batches, str(table), data_cache_bytes=100_000)
    lance.dataset(str(table)).delete("id > 'memory-00500' AND id < 'memory-00900'")
    found = runs_of(hold, table)
    runs = [run for some in found.values() for run in some]
    assert len(runs) > 5
    assert covered(table, found) > 0.95


@pytest.mark.parametrize("storage", ["2.0", "2.1", "2.2"])
def test_null_vectors_cost_no_time_and_the_pages_without_them_are_found(
    tmp_path: Path, hold: Any, make_rows: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    table = tmp_path / "memories.lance"
    chance = np.random.default_rng(1)
    vectors = [None if i % 5 == 0 else chance.standard_normal(128).astype(np.float32) for i in range(2000)]
    rows = pa.table({"id": [str(i) for i in range(2000)], "vector": pa.array(vectors, pa.list_(pa.float32(), 128))})
    lance.write_dataset(rows, str(table), data_storage_version=storage)
    lance.write_dataset(make_rows(0, 2000).select(["id", "vector"]), str(table), mode="append")
    reads: list[int] = []
    read = Pin.read

    def counting(pin: Pin, name: str, offset: int, length: int) -> bytes:
        reads.append(length)
        return read(pin, name, offset, length)

    monkeypatch.setattr(Pin, "read", counting)
    found = runs_of(hold, table)
    assert sum(reads) < 10 * sum(file.stat().st_size for file in (table / "data").iterdir())
    assert covered(table, found) >= (1.0 if storage == "2.0" else 0.55)
    assert sum(len(runs) for runs in found.values()) < 40


@pytest.mark.parametrize(
    ("type_", "dims", "stride"), [(pa.float16(), 256, 512), (pa.float64(), 64, 512), (pa.float32(), 65, 260)]
)
def test_vectors_of_every_width_are_found(
    tmp_path: Path, hold: Any, type_: pa.DataType, dims: int, stride: int
) -> None:
    table = tmp_path / "memories.lance"
    numbers = np.random.default_rng(2).standard_normal(400 * dims).astype(type_.to_pandas_dtype())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers, type_), dims)
    lance.write_dataset(pa.table({"id": [str(i) for i in range(400)], "vector": vectors}), str(table))
    found = runs_of(hold, table)
    assert {run.stride for runs in found.values() for run in runs} == {stride}
    assert covered(table, found) == 1.0


def test_runs_stay_known_when_the_table_is_cleaned_up_before_the_checks(
    make_table: Callable[..., Path], hold: Any
) -> None:
    table = make_table(200, 100)
    with hold(table) as opened:
        list(opened.scan({}))
        found = [opened.runs(entry) for entry in opened.entries()]
        assert any(found)
        entries = opened.entries()
        shutil.rmtree(table)
        assert opened.check() == []
        assert [opened.runs(entry) for entry in entries] == found


def test_small_vectors_have_no_runs(make_table: Callable[..., Path], hold: Any) -> None:
    assert not any(runs_of(hold, make_table(100, dims=32)).values())


def test_two_columns_of_vectors_in_one_file_are_both_found(
    tmp_path: Path, hold: Any, make_rows: Callable[..., pa.Table]
) -> None:
    table = tmp_path / "memories.lance"
    rows = make_rows(0, 300, dims=128)
    rows = rows.append_column("second", make_rows(1000, 300, dims=96)["vector"])
    lance.write_dataset(rows, str(table))
    found = [run for runs in runs_of(hold, table).values() for run in runs]
    assert sorted((run.stride, run.count) for run in found) == [(384, 300), (512, 300)]


def test_equal_vectors_in_a_row_are_no_trouble(tmp_path: Path, hold: Any) -> None:
    table = tmp_path / "memories.lance"
    numbers = np.zeros((400, 128), np.float32)
    numbers[100:200] = 1.5
    numbers[300:] = np.random.default_rng(3).standard_normal((100, 128))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), 128)
    lance.write_dataset(pa.table({"id": [str(i) for i in range(400)], "vector": vectors}), str(table))
    assert covered(table, runs_of(hold, table)) == 1.0


def test_vectors_that_are_nowhere_are_given_up_soon() -> None:
    searched: list[tuple[str, int]] = []

    def read(file: str, offset: int, length: int) -> bytes:
        searched.append((file, offset))
        return bytes(min(length, max(0, 10_000 - offset)))

    finder = Finder(read)
    vectors = np.random.default_rng(4).integers(0, 255, (50, 512), np.uint8)
    for number in range(40):
        finder.add(f"file-{number}", "vector", np.arange(50), vectors, None)
    assert len(searched) <= 16
    assert finder.runs("file-0") == ()


def test_what_is_found_are_the_vectors_wherever_pages_are_cut_and_whatever_is_deleted() -> None:
    chance = random.Random(5)
    for _ in range(200):
        stride = chance.choice([256, 260, 512])
        count = chance.randrange(1, 60)
        vectors = np.random.default_rng(chance.randrange(10**6)).integers(0, 256, (count, stride), np.uint8)
        file, at = b"", 0
        while at < count:  # pages, with other things between them
            page = chance.randrange(1, count + 1)
            file += bytes(chance.randrange(200)) + vectors[at : at + page].tobytes()
            at += page
        file += b"the end"
        kept = np.array([i for i in range(count) if chance.random() < 0.8], np.int64)
        finder = Finder(lambda _, offset, length, file=file: file[offset : offset + length])
        at = 0
        while at < len(kept):
            size = chance.randrange(1, 30)
            rows = kept[at : at + size]
            finder.add("f", "vector", rows, vectors[rows], None)
            at += size
        blocks = [file[run.offset + i * run.stride :][:stride] for run in finder.runs("f") for i in range(run.count)]
        assert set(blocks) <= {vector.tobytes() for vector in vectors}
        assert {vectors[i].tobytes() for i in kept} <= set(blocks)

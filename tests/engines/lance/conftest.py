"""What the tests of the Lance engine share: tables, a way to hold them, and their image as a folder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from memkeep.engines.lance import LanceEngine, LanceOpened
from memkeep.model import Part, Role, TableMap

MEMORIES = TableMap(
    collection="memories",
    table="memories",
    id="id",
    fields={"text": "text", "category": "category", "created_at": "createdAt"},
    vectors=("vector",),
)


def vectors(numbers: list[int], dims: int) -> np.ndarray:
    """Return, for each number, a unit vector that it alone determines."""
    rows = np.stack([np.random.default_rng(number).standard_normal(dims).astype(np.float32) for number in numbers])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rows(start: int, count: int, dims: int = 128, **more: Any) -> pa.Table:
    """Return memories number `start` and on."""
    numbers = list(range(start, start + count))
    flat = pa.array(vectors(numbers, dims).reshape(-1), pa.float32())
    columns = {
        "id": [f"memory-{number:05d}" for number in numbers],
        "text": [f"Fact number {number} about {'astronomy' if number % 7 == 0 else 'gardening'}" for number in numbers],
        "vector": pa.FixedSizeListArray.from_arrays(flat, dims),
        "category": pa.array([("fact", "preference", None)[number % 3] for number in numbers], pa.string()),
        "createdAt": [1_700_000_000.0 + number for number in numbers],
    }
    return pa.table(columns | more)


@pytest.fixture
def memories_map() -> TableMap:
    """Return the map of the tables that `make_table` makes."""
    return MEMORIES


@pytest.fixture
def make_rows() -> Callable[..., pa.Table]:
    """Return `make_rows(start, count, dims=128, **columns)`."""
    return rows


@pytest.fixture
def make_table(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_table(*sizes, dims=128, **options)`: a table with one fragment for each size; its folder."""

    def make(*sizes: int, dims: int = 128, folder: str = "store", **options: Any) -> Path:
        path = tmp_path / folder / "memories.lance"
        start = 0
        for size in sizes:
            mode = "append" if path.exists() else "create"
            lance.write_dataset(rows(start, size, dims), str(path), mode=mode, **options)
            start += size
        return path

    return make


@pytest.fixture
def hold(tmp_path: Path) -> Callable[..., AbstractContextManager[LanceOpened]]:
    """Return `hold(table, *maps, root=None)`: a context with the frozen table."""
    numbers = iter(range(10_000))

    @contextmanager
    def held(table: Path, *maps: TableMap, root: Path | None = None) -> Iterator[LanceOpened]:
        scratch = tmp_path / f"scratch-{next(numbers)}"
        scratch.mkdir()
        root = root or table.parent
        name = table.relative_to(root).as_posix()
        part = Part(name=name, engine="lance", role=Role.CANONICAL, path=str(table), maps=maps or (MEMORIES,))
        with LanceEngine().freeze(part, root, scratch) as opened:
            yield opened

    return held


@pytest.fixture
def reopen() -> Callable[..., AbstractContextManager[LanceOpened]]:
    """Return `reopen(root, name, *maps)`: a context with a table that was written under `root`."""

    def opened(root: Path, name: str, *maps: TableMap) -> AbstractContextManager[LanceOpened]:
        part = Part(name=name, engine="lance", role=Role.CANONICAL, path="/gone", maps=maps or (MEMORIES,))
        return LanceEngine().open(part, root)

    return opened


@pytest.fixture
def write_out(tmp_path: Path) -> Callable[..., Path]:
    """Return `write_out(opened)`: write an image into a fresh folder, as a restore does; the folder."""
    numbers = iter(range(10_000))

    def write(opened: LanceOpened) -> Path:
        root = tmp_path / f"restored-{next(numbers)}"
        root.mkdir()
        for entry in opened.entries():
            place = root / entry.path
            if entry.kind == "dir":
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                for piece in opened.stream(entry):
                    assert len(piece) <= 1 << 20
                    file.write(piece)
            assert place.stat().st_size == entry.size
        return root

    return write

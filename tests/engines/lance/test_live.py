"""Tables that an agent adds to, changes, empties and compacts without a pause, with clean-up of every older version."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

from memkeep.model import TableMap

DIMS = 64
BATCH = 10
WRITER = """
import sys, warnings
from datetime import timedelta
import lancedb, numpy as np, pyarrow as pa
warnings.simplefilter("ignore")
path, dims, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def batch(n):
    flat = np.concatenate([np.full(dims, n * 100 + i, np.float32) for i in range(size)])
    return pa.table({
        "id": [f"{n}-{i}" for i in range(size)],
        "batch": pa.array([n] * size, pa.int64()),
        "round": pa.array([0] * size, pa.int64()),
        "text": [f"memory {i} of batch {n}" for i in range(size)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), dims),
    })

db = lancedb.connect(path)
table = db.create_table("memories", batch(0))
print("ready", flush=True)
n = 0
while True:
    n += 1
    table.add(batch(n))
    if n % 3 == 0:
        table.update(where=f"batch = {n - 1}", values={"round": n})
    if n % 4 == 0:
        table.delete(f"batch <= {n - 12}")
    if n % 5 == 0:
        table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
    if n <= 12:
        print(n, flush=True)
"""


def states() -> Iterator[dict[int, int]]:
    """Yield what the writer's table holds after each commit, for ever: batch -> round."""
    now, n = {0: 0}, 0
    yield dict(now)
    while True:
        n += 1
        now[n] = 0
        yield dict(now)
        if n % 3 == 0:
            now[n - 1] = n
            yield dict(now)
        if n % 4 == 0:
            now = {batch: round_ for batch, round_ in now.items() if batch > n - 12}
            yield dict(now)


def assert_one_moment(root: Path) -> int:
    """Check that an image, opened with the plain library, is exactly one committed state; give its newest batch."""
    rows = lancedb.connect(root).open_table("memories").to_arrow()
    found: dict[int, set[tuple[str, int]]] = {}
    matrix = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIMS)
    columns = (rows[name].to_pylist() for name in ("batch", "id", "round", "text"))
    for batch, id_, round_, text, vector in zip(*columns, matrix, strict=True):
        number = int(id_.partition("-")[2])
        assert text == f"memory {number} of batch {batch}"
        assert np.all(vector == batch * 100 + number)
        found.setdefault(batch, set()).add((id_, round_))
    for batch, members in found.items():
        assert {id_ for id_, _ in members} == {f"{batch}-{i}" for i in range(BATCH)}
        assert len({round_ for _, round_ in members}) == 1
    assert rows.num_rows == BATCH * len(found)
    state = {batch: next(iter(members))[1] for batch, members in found.items()}
    newest = max(state)
    for committed in states():
        if committed == state:
            return newest
        assert max(committed) <= newest, f"no commit ever left {state}"
    raise AssertionError


@pytest.fixture
def live(agent: Any, tmp_path: Path) -> Path:
    """Start the writer; return its table."""
    folder = tmp_path / "live"
    assert agent(WRITER, folder, str(DIMS), str(BATCH)).hear() == "ready"
    return folder / "memories.lance"


@pytest.fixture
def batches() -> TableMap:
    return TableMap(collection="memories", table="memories", id="id", fields={"text": "text"}, vectors=("vector",))


def test_every_image_taken_under_a_writer_that_cleans_up_at_once_is_one_committed_state(
    live: Path, hold: Callable[..., Any], write_out: Callable[..., Path], batches: TableMap
) -> None:
    newest = []
    for _ in range(40):
        with hold(live, batches) as opened:
            newest.append(assert_one_moment(write_out(opened)))
            assert opened.held()
            assert opened.findings() == []
    assert newest == sorted(newest)
    assert newest[-1] > newest[0], "the writer stood still"


def test_rows_read_under_that_writer_are_those_of_the_image(
    live: Path,
    hold: Callable[..., Any],
    reopen: Callable[..., Any],
    write_out: Callable[..., Path],
    batches: TableMap,
) -> None:
    moved = 0
    for _ in range(8):
        with hold(live, batches) as opened:
            groups = [group.data for group in opened.scan({})]
            baseline = opened.baseline()
            assert opened.check() == []
            assert opened.findings() == []
            moved += opened.moved()
            root = write_out(opened)
        assert_one_moment(root)
        with reopen(root, "memories.lance", batches) as image:
            assert [group.data for group in image.scan({}, baseline.probes)] == groups
            assert image.baseline() == baseline
            assert image.check() == []
    assert moved, "the writer stood still"


def test_a_table_whose_writer_was_killed_is_one_committed_state(
    agent: Any, tmp_path: Path, hold: Callable[..., Any], write_out: Callable[..., Path], batches: TableMap
) -> None:
    for number in range(3):
        folder = tmp_path / f"killed-{number}"
        writer = agent(WRITER, folder, str(DIMS), str(BATCH))
        assert writer.hear() == "ready"
        table = folder / "memories.lance"
        for count in range(3 + 4 * number):
            assert writer.hear() == str(count + 1)
        writer.kill()
        with hold(table, batches) as opened:
            list(opened.scan({}))
            assert opened.check() == []
            assert_one_moment(write_out(opened))


def test_a_table_with_an_index_is_whole_while_its_index_is_made_anew(
    agent: Any, tmp_path: Path, hold: Callable[..., Any], write_out: Callable[..., Path], batches: TableMap
) -> None:
    code = WRITER.replace(
        'print("ready", flush=True)',
        'from lancedb.index import FTS\ntable.create_index("text", config=FTS())\nprint("ready", flush=True)',
    )
    folder = tmp_path / "indexed"
    assert agent(code, folder, str(DIMS), str(BATCH)).hear() == "ready"
    for _ in range(12):
        with hold(folder / "memories.lance", batches) as opened:
            root = write_out(opened)
            assert opened.check() == []
        assert_one_moment(root)
        table = lancedb.connect(root).open_table("memories")
        every = table.search("batch", query_type="fts").limit(10_000).to_arrow().num_rows
        assert every == table.count_rows()

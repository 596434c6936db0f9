"""Near duplicates by their vectors: how long `memkeep audit` takes beside the exact answer in numpy, and what it finds.

The exact answer compares all with all by blocks of float32 products, each pair once, with the threads that numpy takes
by itself. Recall is the part of its pairs whose two are in one group. Vectors are of 384 dimensions around many
topics, as those of texts are; 3 in 100 are near copies (cosine 0.93 to 1). Beside that the hard cases: all around one
topic, and copies by the thousand that differ in nothing but noise.

    .venv/bin/python bench/duplicates.py 20000      smaller
"""

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

from measure import MB, Table

COUNT = 100_000
HARD = 20_000
DIMS = 384
THRESHOLD = 0.95
BLOCK = 2048
TIMES = 3


def vectors(kind: str, count: int) -> Any:
    """Return unit vectors of a kind."""
    import numpy as np

    rng = np.random.default_rng(1)

    def noise(rows: int) -> Any:
        return rng.standard_normal((rows, DIMS), dtype=np.float32)

    if kind == "copies":
        rows = np.repeat(noise(count // 1000), 1000, axis=0) + 0.05 * noise(count)
    elif kind == "one topic":
        rows = noise(1) + 0.6 * noise(count)
    else:
        fields = noise(40)
        topics = noise(count // 50) + fields[rng.integers(0, 40, count // 50)]
        topics /= np.linalg.norm(topics, axis=1, keepdims=True)
        rows = topics[rng.integers(0, len(topics), count)] + 0.6 / DIMS**0.5 * noise(count)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if kind != "copies":
        copies = count * 3 // 100
        source = rows[rng.integers(0, count - copies, copies)]
        apart = noise(copies)
        apart -= (apart * source).sum(axis=1, keepdims=True) * source
        apart /= np.linalg.norm(apart, axis=1, keepdims=True)
        cosine = rng.uniform(0.93, 1, (copies, 1)).astype(np.float32)
        rows[count - copies :] = cosine * source + np.sqrt(1 - cosine**2) * apart
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[rng.permutation(count)]


def exact(unit: Any) -> Any:
    """Yield all pairs, by blocks."""
    import numpy as np

    for start in range(0, len(unit), BLOCK):
        for other in range(start, len(unit), BLOCK):
            rows, columns = np.nonzero(unit[start : start + BLOCK] @ unit[other : other + BLOCK].T >= THRESHOLD)
            above = rows + start < columns + other
            yield rows[above] + start, columns[above] + other


def child(what: str, kind: str, count: int) -> dict[str, float]:
    """Measure one thing in this process."""
    from memkeep.ops.audits import near_vectors

    unit = vectors(kind, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    groups = near_vectors.groups(unit, THRESHOLD)
    seconds = time.perf_counter() - started
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MB
    found = {"seconds": seconds, "more": more}
    if what == "exact":
        started = time.perf_counter()
        pairs = hits = 0
        for rows, columns in exact(unit):
            pairs += len(rows)
            hits += int((groups[rows] == groups[columns]).sum())
        found |= {"exact": time.perf_counter() - started, "pairs": pairs, "recall": hits / max(1, pairs)}
    return found


def run(what: str, kind: str, count: int) -> dict[str, float]:
    """Measure one thing in a process of its own, with the threads that numpy takes by itself."""
    environ = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    argv = [sys.executable, __file__, what, kind, str(count)]
    out = subprocess.run(argv, check=True, capture_output=True, text=True, env=environ).stdout
    found: dict[str, float] = json.loads(out)
    print(f"  {kind} {count:,} { ({name: round(value, 4) for name, value in found.items()}) }", flush=True)
    return found


def duplicates_bench(count: int = COUNT) -> dict[str, Any]:
    """Measure; sizes take turns, so that what else the machine does hits both alike."""
    found: dict[str, Any] = {kind: run("exact", kind, min(count, HARD)) for kind in ("one topic", "copies")}
    found["topics"] = run("exact", "topics", count)
    once, twice = [], []
    for _ in range(TIMES):
        once.append(run("ours", "topics", count)["seconds"])
        twice.append(run("ours", "topics", 2 * count)["seconds"])
    return found | {"count": count, "growth": min(twice) / min(once)}


def duplicates_rows(table: Table, found: dict[str, Any]) -> None:
    """Write the rows of the table."""
    topics = found["topics"]
    size = f"{found['count']:,} x {DIMS}"
    table.row(
        f"near duplicates of {size} by vectors, s (numpy: all pairs)",
        "<= 0.33 x",
        f"{topics['seconds']:.1f}",
        f"{topics['exact']:.1f}",
        topics["seconds"] / topics["exact"],
    )
    for kind in ("topics", "one topic", "copies"):
        said = f"of {found[kind]['pairs']:,.0f} pairs, {kind}"
        table.row(f"pairs found {said}", ">= 0.99", f"{found[kind]['recall']:.4f}")
    table.row("time for twice the vectors", "<= 2.4 x", "", "", found["growth"])


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        rows = Table("numpy")
        duplicates_rows(rows, duplicates_bench(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT))
        print("\n".join(rows.lines))

"""Records written as files, beside the libraries that encode them writing the same rows and nothing else.

All write from memory, one after another, several times; the bare writers are given rows that are ready for them, with
vectors as arrays. `json.dump`, which takes lists, writes a tenth of the rows, and its time counts ten times. An
export is the file with its checksums, on disk for good. Peak memory is that of a process which makes its records as it
goes.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Table, peak_memory

from memkeep.ops.export import export
from memkeep.records.formats import json as format_json
from memkeep.records.formats import parquet as format_parquet
from memkeep.records.formats.base import About
from memkeep.records.record import Record, Relationship, Vector

TIMES = 5
MANY = 200_000  # records whose peak memory is looked at
LIMIT = 400  # MB


class Made:
    """A source of records that are made when they are asked for, or kept."""

    def __init__(self, count: int, dims: int, *, keep: bool) -> None:
        self._count = count
        self._vectors = np.random.default_rng(1).standard_normal((4096, dims)).astype("<f4")
        self.about = About(system="bench", path="/bench", taken="2026-01-02T03:04:05+00:00", records=count)
        self.kept = list(self._make()) if keep else None

    def _make(self) -> Iterator[Record]:
        for number in range(self._count):
            yield Record(
                id=f"m{number:08}",
                text="The user prefers tea in the morning and coffee at noon. " * 4,
                category="preference",
                scope="agent:main",
                importance=0.7,
                heat=0.5,
                created_at="2026-01-02T03:04:05+00:00",
                metadata={"client": "acme", "number": number},
                vectors={"": Vector.f32(self._vectors[number % 4096].tobytes(), "bge-m3")},
                system="bench",
            )

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        return iter(self.kept) if self.kept is not None else self._make()

    def relationships(self) -> Iterator[Relationship]:
        """Yield nothing."""
        return iter(())


def rows_of(source: Made) -> list[dict[str, Any]]:
    """Return the rows as a bare writer takes them."""
    return [
        {
            "id": one.id,
            "content": one.text,
            "metadata": one.metadata,
            "created_at": one.created_at,
            "heat": one.heat,
            "category": one.category,
            "scope": one.scope,
            "importance": one.importance,
            "system": one.system,
            "embedding": np.frombuffer(one.vectors[""].data, "<f4"),
        }
        for one in source.records()
    ]


def bare_orjson(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write rows as lines of JSON."""
    with (folder / "rows.jsonl").open("wb", buffering=1 << 20) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
            file.write(b"\n")


def bare_pyarrow(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write rows as one table."""
    dims = len(rows[0]["embedding"])
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("embedding", "metadata")}
    columns["metadata"] = [orjson.dumps(row["metadata"]).decode() for row in rows]
    numbers = pa.array(np.concatenate([row["embedding"] for row in rows]))
    vectors = pa.FixedSizeListArray.from_arrays(numbers, dims)
    pq.write_table(pa.table(columns).append_column("embedding", vectors), folder / "rows.parquet")


def json_dump(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write rows as the standard library does it."""
    with (folder / "dump.json").open("w", encoding="utf-8") as file:
        json.dump(rows, file)


def records_bench(root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of every way, and the peak memory of an export in MB."""
    root.mkdir()
    source = Made(args.memories, args.dim, keep=True)
    rows = rows_of(source)
    tenth = [{**row, "embedding": row["embedding"].tolist()} for row in rows[::10]]
    dumped = _seconds(lambda: json_dump(tenth, root)) * 10
    ways: dict[str, Callable[[], Any]] = {
        "orjson": lambda: bare_orjson(rows, root),
        "json": lambda: format_json.write(source, root),
        "pyarrow": lambda: bare_pyarrow(rows, root),
        "parquet": lambda: format_parquet.write(source, root),
        "export": lambda: export(source, root / "export", "json"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TIMES):
        for name, way in ways.items():
            seconds[name].append(_seconds(way))
    print(
        f"  json.dump {dumped:.1f} s; { ({name: [round(one, 2) for one in all_] for name, all_ in seconds.items()}) }"
    )
    return {"dump": dumped, **seconds, "peak": {name: _peak(name, root, args.dim) for name in ("json", "parquet")}}


def records_rows(table: Table, found: dict[str, Any]) -> None:
    """Add what was measured."""
    json_, parquet, whole = (statistics.median(found[name]) for name in ("json", "parquet", "export"))
    dump = found["dump"]
    table.row("JSON with vectors, s (beside it `json.dump`)", ">= 10 x", f"{json_:.2f}", f"({dump:.1f})", dump / json_)
    for ours, theirs in (("json", "orjson"), ("parquet", "pyarrow")):
        ratio = statistics.median(a / b for a, b in zip(found[ours], found[theirs], strict=True))
        beside = statistics.median(found[theirs])
        shown = "JSON" if ours == "json" else "Parquet"
        mine = json_ if ours == "json" else parquet
        table.row(
            f"{shown} with vectors, s (beside it bare {theirs})", "<= 1.5 x", f"{mine:.2f}", f"({beside:.2f})", ratio
        )
    table.row("export as JSON, with checksums and synced, s", "", f"{whole:.2f}")
    for name, peak in found["peak"].items():
        table.row(f"export of {MANY:,} as {name}, peak memory, MB", f"<= {LIMIT}", f"{peak:.0f}")


def _seconds(way: Callable[[], Any]) -> float:
    os.sync()
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _peak(name: str, root: Path, dims: int) -> float:
    return peak_memory([sys.executable, __file__, name, str(root / "peak"), str(dims)], dict(os.environ))


if __name__ == "__main__":
    export(Made(MANY, int(sys.argv[3]), keep=False), Path(sys.argv[2]), sys.argv[1])

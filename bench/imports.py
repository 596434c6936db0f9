"""Exports that become stores again, beside the stores' own libraries given the same rows from the same file.

Both read the file, make the store and put all rows in. The bare ways parse with orjson or pyarrow, keep only the
columns that the table has, and insert all at once: LanceDB's `create_table`, the `executemany` of Python's own
`sqlite3` with the full-text table filled by one statement. memkeep also looks what is there already, plans what becomes
of each field and syncs the new store. No side makes embeddings.
"""

import argparse
import os
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import orjson
import pyarrow.parquet as pq
from measure import Table

from memkeep.ops.export import export
from memkeep.ops.imports import import_
from memkeep.records.formats.base import About
from memkeep.records.record import Record, Relationship, Vector
from memkeep.systems import target_oc_memory
from memkeep.systems.making import Making
from memkeep.systems.target import Wish

COUNT = 20_000
TIMES = 3
TEXT = "The user prefers tea in the morning and coffee at noon. " * 4
TIME = "2026-01-02T03:04:05"


class Memories:
    """A source of a product's own records, made when they are asked for."""

    def __init__(self, system: str, count: int, dims: int) -> None:
        self._vectors = np.random.default_rng(1).standard_normal((4096, dims)).astype("<f4")
        self.about = About(system=system, path="/bench", taken=f"{TIME}+00:00", records=count)

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        make = _cell if self.about.system == "oc-memory" else _memory
        for number in range(1, self.about.records + 1):
            yield make(number, Vector.f32(self._vectors[number % 4096].tobytes()))

    def relationships(self) -> Iterator[Relationship]:
        """Yield nothing."""
        return iter(())


def _cell(number: int, vector: Vector) -> Record:
    return Record(
        id=str(number),
        text=TEXT,
        collection="cells",
        category="preference",
        scope="home",
        source="",
        importance=0.7,
        access_count=0,
        created_at=f"{TIME}+00:00",
        updated_at=f"{TIME}+00:00",
        vectors={"": vector},
        native={"id": number, "created_at": TIME, "updated_at": TIME, "tags": "[]"},
        system="oc-memory",
    )


def _memory(number: int, vector: Vector) -> Record:
    return Record(
        id=f"{number:08x}-0000-4000-8000-000000000000",
        text=TEXT,
        collection="memories",
        category="preference",
        importance=0.7,
        created_at=f"{TIME}+00:00",
        vectors={"": vector},
        native={"createdAt": 1767323045000.0},
        system="memory-lancedb",
    )


def bare_sqlite(file: Path, place: Path) -> None:
    """Parse lines and insert them as `sqlite3` does it."""

    def rows() -> Iterator[tuple[Any, ...]]:
        with file.open("rb") as lines:
            for line in lines:
                one = orjson.loads(line)
                vector = np.array(one["embedding"], "<f4").tobytes()
                first = (int(one["id"]), one["scope"], one["category"], one["importance"], one["content"])
                yield (*first, "", "[]", vector, 0, one["native"]["created_at"], one["native"]["updated_at"])

    target_oc_memory.create("oc-memory", str(place), Wish(), Making())
    with closing(sqlite3.connect(place)) as con, con:
        con.executemany("INSERT INTO mem_cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())
        con.execute(
            "INSERT INTO mem_fts (rowid, content, scene, cell_type, tags) "
            "SELECT id, content, scene, cell_type, tags FROM mem_cells"
        )


def bare_lance(file: Path, place: Path) -> None:
    """Parse lines and give them to LanceDB."""
    with file.open("rb") as lines:
        rows = [_lance_row(orjson.loads(line)) for line in lines]
    lancedb.connect(place).create_table("memories", rows)


def _lance_row(one: dict[str, Any]) -> dict[str, Any]:
    kept = {"id": one["id"], "text": one["content"], "vector": one["embedding"], "importance": one["importance"]}
    return {**kept, "category": one["category"], "createdAt": one["native"]["createdAt"]}


def bare_lance_columns(file: Path, place: Path) -> None:
    """Give LanceDB the columns as they are in the file, which no row is made of."""
    columns = ["id", "content", "embedding", "importance", "category", "created_at"]
    lancedb.connect(place).create_table("memories", pq.read_table(file, columns=columns))


WAYS: dict[str, tuple[str, str, str, str, Callable[[Path, Path], None]]] = {
    "JSONL into SQLite": ("oc-memory", "jsonl", "memories.jsonl", "new.db", bare_sqlite),
    "JSONL into LanceDB": ("memory-lancedb", "jsonl", "memories.jsonl", "new", bare_lance),
    "Parquet into LanceDB": ("memory-lancedb", "parquet", "memories.parquet", "new", bare_lance_columns),
}


def imports_bench(root: Path, args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of memkeep and of the bare library, by what was imported where."""
    found: dict[str, list[tuple[float, float]]] = {}
    for what, (system, format_, file, place, bare) in WAYS.items():
        files, ours, theirs = (root / what.replace(" ", "-") / name for name in ("export", place, f"bare-{place}"))
        files.parent.mkdir(parents=True)
        export(Memories(system, COUNT, args.dim), files, format_)
        imported = partial(import_, None, str(files), f"{system}:{ours}")
        inserted = partial(bare, files / file, theirs)
        found[what] = [(_seconds(imported, ours), _seconds(inserted, theirs)) for _ in range(TIMES)]
        print(f"  {what}: {[(round(one, 2), round(other, 2)) for one, other in found[what]]}")
    return found


def imports_rows(table: Table, found: dict[str, list[tuple[float, float]]]) -> None:
    """Add what was measured; a ratio is how many times as fast as the bare library memkeep is."""
    for what, pairs in found.items():
        ours, theirs = (statistics.median(one[side] for one in pairs) for side in (0, 1))
        ratio = statistics.median(bare / own for own, bare in pairs)
        target = "" if what.startswith("Parquet") else ">= 0.5 x"
        table.row(
            f"import of {COUNT:,}, {what}, s (beside it the library)", target, f"{ours:.2f}", f"({theirs:.2f})", ratio
        )


def _seconds(way: Callable[[], Any], place: Path) -> float:
    os.sync()
    started = time.perf_counter()
    way()
    seconds = time.perf_counter() - started
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return seconds

"""Rows leave as they are: all columns, vectors as their bytes, in the stores of the products and with odd values."""

import hashlib
import json
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from memkeep.engines.files import FilesEngine
from memkeep.engines.lance import LanceEngine
from memkeep.engines.rows import NO_TABLE, RowReader
from memkeep.engines.sqlite import SqliteEngine
from memkeep.errors import StoreError
from memkeep.model import Part, Role, TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

ENGINES = {"sqlite": SqliteEngine(), "lance": LanceEngine(), "files": FilesEngine()}
THINGS = TableMap(collection="things", table="things", id="id", vectors=("embedding", "vector"))


@pytest.fixture
def hold(tmp_path: Path) -> Callable[..., AbstractContextManager[Any]]:
    """Return `hold(engine, path, map, live=True)`: a context with the part at a path."""

    def held(engine: str, path: Path, map_: TableMap, *, live: bool = True) -> AbstractContextManager[Any]:
        part = Part(name=path.name, engine=engine, role=Role.CANONICAL, path=str(path), maps=(map_,))
        if not live:
            return ENGINES[engine].open(part, path.parent)
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return ENGINES[engine].freeze(part, path.parent, scratch)

    return held


@pytest.fixture
def leave(hold: Callable[..., AbstractContextManager[Any]]) -> Callable[..., list[Row]]:
    """Return `leave(engine, path, map, live=True)`: all rows."""

    def left(engine: str, path: Path, map_: TableMap, *, live: bool = True) -> list[Row]:
        with hold(engine, path, map_, live=live) as opened:
            assert isinstance(opened, RowReader)
            return [row for batch in opened.rows(map_) for row in batch]

    return left


def truth(store: Path) -> Any:
    return json.loads((store / "truth.json").read_text())


def text_digest(pairs: list[tuple[str, str]]) -> str:
    lines = [json.dumps(pair, ensure_ascii=False, separators=(",", ":")) + "\n" for pair in sorted(pairs)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def vectors_digest(pairs: list[tuple[str, Vector]]) -> str:
    return hashlib.sha256(b"".join(name.encode() + b"\0" + one.data for name, one in sorted(pairs))).hexdigest()


@pytest.mark.parametrize("live", [True, False])
def test_the_cells_of_oc_memory_leave_with_their_texts_and_vectors(
    stores: Path, copy_store: Callable[..., Path], leave: Callable[..., list[Row]], *, live: bool
) -> None:
    cells = TableMap(collection="cells", table="mem_cells", id="id", vectors=("embedding",))
    known = truth(stores / "oc-memory")["cells"]
    db = next(copy_store("oc-memory").rglob("memory.db"))

    rows = leave("sqlite", db, cells, live=live)

    assert [row["id"] for row in rows] == list(range(1, 8))
    assert text_digest([(str(row["id"]), row["content"]) for row in rows]) == known["text_digest"]
    embedded = [(str(row["id"]), row["embedding"]) for row in rows if row["embedding"] is not None]
    assert vectors_digest(embedded) == known["embeddings_sha256"]
    assert {one.dims for _, one in embedded} == {768}


@pytest.mark.parametrize("live", [True, False])
def test_the_memories_of_lance_leave_with_their_texts_and_vectors(
    stores: Path, copy_store: Callable[..., Path], leave: Callable[..., list[Row]], *, live: bool
) -> None:
    memories = TableMap(collection="memories", table="memories", id="id", vectors=("vector",))
    known = truth(stores / "hybrid-2026.4.273")["lance"]["lancedb/memories"]
    table = copy_store("hybrid-2026.4.273", "memory/lancedb") / "memories.lance"

    rows = leave("lance", table, memories, live=live)

    assert text_digest([(row["id"], row["text"]) for row in rows]) == known["text_digest"]
    assert vectors_digest([(row["id"], row["vector"]) for row in rows]) == known["vectors_sha256"]
    assert list(rows[0]) == list(known["columns"])
    assert {row["vector"].type for row in rows} == {"f32"}


def test_a_size_beside_a_vector_tells_doubles(
    stores: Path, copy_store: Callable[..., Path], leave: Callable[..., list[Row]]
) -> None:
    cache = TableMap(collection="cache", table="memory_embedding_cache", id="hash", vectors=("embedding",))
    db = copy_store("openclaw-core-2026.9.6", "state-dir/agents/main/agent") / "openclaw-agent.sqlite"

    rows = leave("sqlite", db, cache)

    assert {(row["embedding"].type, row["embedding"].dims, row["dims"]) for row in rows} == {("f64", 16, 16)}
    lengths = [float(np.linalg.norm(np.frombuffer(row["embedding"].data, "<f8"))) for row in rows]
    assert lengths == pytest.approx([1.0] * len(rows), abs=1e-6)


def test_the_notes_of_a_map_leave_by_their_path(
    stores: Path, copy_store: Callable[..., Path], leave: Callable[..., list[Row]]
) -> None:
    folder = copy_store("openclaw-core-2026.9.6", "state-dir/workspace")
    known = truth(stores / "openclaw-core-2026.9.6")["workspace_files"]
    (folder / "memory" / "bad.md").write_bytes(b"caf\xe9\0")
    os.utime(folder / "memory" / "bad.md", ns=(-1_000, -1_000))
    (folder / "TOOLS.md").write_text("not of the map")
    notes = TableMap(collection="notes", table="", id="path", include=("MEMORY.md", "USER.md", "memory/*.md"))

    rows = leave("files", folder, notes)

    bad = {"path": "workspace/memory/bad.md", "text": "caf\udce9\0", "modified": "1969-12-31T23:59:59.999999+00:00"}
    assert [row["path"] for row in rows] == sorted([*(f"workspace/{name}" for name in known), bad["path"]])
    assert bad in rows
    digests = {row["path"]: hashlib.sha256(row["text"].encode(errors="surrogateescape")).hexdigest() for row in rows}
    assert {name: digests[f"workspace/{name}"] for name in known} == known


def test_odd_values_of_sqlite_leave_as_they_are(make_db: Callable[..., Path], leave: Callable[..., list[Row]]) -> None:
    nan = struct.pack("<2f", float("nan"), -0.0)
    db = make_db(
        """CREATE TABLE things(id TEXT, note, embedding BLOB, n);
        CREATE INDEX by_id ON things(id);
        INSERT INTO things(id, note) VALUES ('c', CAST(x'63616665e9' AS TEXT)), ('b', 'nul' || char(0) || 'after');"""
    )
    con = sqlite3.connect(db)
    con.executemany(
        "INSERT INTO things VALUES (?, ?, ?, ?)",
        [
            ("a", b"\xff\0", nan, 2**63 - 1),
            ("d", "\N{SMILING FACE WITH SUNGLASSES}", b"12345", float("inf")),
            ("e", "", b"", 0.1),
            ("f", None, "[1, 2]", None),
        ],
    )
    con.commit()
    con.close()

    rows = leave("sqlite", db, THINGS)

    assert [tuple(row.values()) for row in rows] == [
        ("a", b"\xff\0", Vector.f32(nan), 2**63 - 1),
        ("b", "nul\0after", None, None),
        ("c", "cafe\udce9", None, None),
        ("d", "\N{SMILING FACE WITH SUNGLASSES}", b"12345", float("inf")),
        ("e", "", b"", 0.1),
        ("f", None, "[1, 2]", None),
    ]


def test_bad_text_far_down_loses_and_doubles_no_row(
    make_db: Callable[..., Path], leave: Callable[..., list[Row]]
) -> None:
    db = make_db(
        """CREATE TABLE things(id INTEGER PRIMARY KEY, note TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
          INSERT INTO things SELECT i, 'note ' || i FROM n;
        UPDATE things SET note = CAST(x'ff' AS TEXT) WHERE id IN (3333, 4444);"""
    )

    rows = leave("sqlite", db, THINGS)

    assert [row["id"] for row in rows] == list(range(1, 5001))
    assert [row["id"] for row in rows if row["note"] == "\udcff"] == [3333, 4444]
    assert rows[4999]["note"] == "note 5000"


def test_text_of_utf_16_leaves_even_where_it_is_none(
    make_db: Callable[..., Path], leave: Callable[..., list[Row]]
) -> None:
    db = make_db(
        """PRAGMA encoding = 'UTF-16le';
        CREATE TABLE things(id INTEGER PRIMARY KEY, note TEXT);
        INSERT INTO things VALUES (1, 'caf\N{LATIN SMALL LETTER E WITH ACUTE}'), (2, CAST(x'00d8' AS TEXT));
        INSERT INTO things VALUES (3, CAST(x'4100ff' AS TEXT));"""
    )

    rows = leave("sqlite", db, THINGS)

    assert rows[0]["note"] == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert rows[1]["note"].encode(errors="surrogateescape") == b"\xed\xa0\x80"
    assert rows[2]["note"] == "A"


def test_rows_without_an_index_of_their_id_leave_in_the_order_of_the_table(
    make_db: Callable[..., Path], leave: Callable[..., list[Row]]
) -> None:
    by_rowid = TableMap(collection="things", table="THINGS", id="rowid", fields={"text": "Note"})
    db = make_db("CREATE TABLE things(id TEXT, note TEXT); INSERT INTO things VALUES ('b', '1'), ('a', '2')")

    assert [row["id"] for row in leave("sqlite", db, THINGS)] == ["b", "a"]
    assert leave("sqlite", db, by_rowid)[1] == {"rowid": 2, "id": "a", "Note": "2"}


def test_odd_values_of_lance_leave_as_they_are(tmp_path: Path, leave: Callable[..., list[Row]]) -> None:
    halves, doubles = np.array([1.5, np.nan], "<f2"), np.array([0.1, -0.0], "<f8")
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "vector": pa.array([halves, None, halves[::-1]], pa.list_(pa.float16(), 2)),
            "embedding": pa.array([doubles, doubles[:1], None], pa.list_(pa.float64())),
            "scores": pa.array([[1.0], None, []], pa.list_(pa.float32())),
            "about": pa.array([{"n": 1, "s": "x"}, None, {"n": None, "s": "nul\0"}]),
            "raw": pa.array([b"\xff", None, b""]),
            "at": pa.array([datetime(1960, 1, 1, tzinfo=UTC), None, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)]),
            "n": pa.array([float("nan"), None, 2.5]),
        }
    )
    lance.write_dataset(table, str(tmp_path / "things.lance"))

    rows = leave("lance", tmp_path / "things.lance", THINGS)

    assert [row["vector"] for row in rows] == [
        Vector(data=halves.tobytes(), type="f16", dims=2),
        None,
        Vector(data=halves[::-1].tobytes(), type="f16", dims=2),
    ]
    assert [row["embedding"] for row in rows] == [
        Vector(data=doubles.tobytes(), type="f64", dims=2),
        Vector(data=doubles[:1].tobytes(), type="f64", dims=1),
        None,
    ]
    assert [row["scores"] for row in rows] == [[1.0], None, []]
    assert [row["about"] for row in rows] == [{"n": 1, "s": "x"}, None, {"n": None, "s": "nul\0"}]
    assert [row["raw"] for row in rows] == [b"\xff", None, b""]
    assert [row["at"] for row in rows] == ["1960-01-01T00:00:00.000000Z", None, "2026-01-02T03:04:05.000006Z"]
    assert str(rows[0]["n"]) == "nan"


def test_a_table_that_is_cleaned_up_while_its_rows_leave_gives_all_of_them(
    tmp_path: Path, hold: Callable[..., AbstractContextManager[Any]]
) -> None:
    folder = tmp_path / "things.lance"
    for start in range(0, 12_000, 2000):
        flat = pa.array(np.arange(2000 * 64, dtype="<f4") + start)
        more = pa.table({"id": list(range(start, start + 2000)), "vector": pa.FixedSizeListArray.from_arrays(flat, 64)})
        lance.write_dataset(more, str(folder), mode="append" if start else "create")
    with hold("lance", folder, THINGS) as opened:
        batches: Iterator[list[Row]] = opened.rows(THINGS)
        first = next(batches)
        for file in (folder / "data").iterdir():
            file.unlink()
        rows = [*first, *(row for batch in batches for row in batch)]

    assert [row["id"] for row in rows] == list(range(12_000))
    assert rows[-1]["vector"].data == (np.arange(1999 * 64, 2000 * 64, dtype="<f4") + 10_000).tobytes()


def test_a_table_that_is_empty_has_no_rows(
    make_db: Callable[..., Path], tmp_path: Path, leave: Callable[..., list[Row]]
) -> None:
    lance.write_dataset(pa.table({"id": pa.array([], pa.string())}), str(tmp_path / "things.lance"))
    (tmp_path / "notes").mkdir()

    assert leave("sqlite", make_db("CREATE TABLE things(id, embedding)"), THINGS) == []
    assert leave("lance", tmp_path / "things.lance", THINGS) == []
    assert leave("files", tmp_path / "notes", TableMap(collection="notes", table="", id="path")) == []


def test_a_table_that_is_not_there_is_told(
    make_db: Callable[..., Path], tmp_path: Path, leave: Callable[..., list[Row]]
) -> None:
    lance.write_dataset(pa.table({"name": ["a"]}), str(tmp_path / "things.lance"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "empty.db").touch()
    for engine, path in (
        ("sqlite", make_db("CREATE TABLE others(id)")),
        ("sqlite", make_db("CREATE TABLE things(name)", path=tmp_path / "nameless.db")),
        ("sqlite", tmp_path / "empty.db"),
        ("lance", tmp_path / "things.lance"),
        ("files", tmp_path / "notes"),
    ):
        with pytest.raises(StoreError) as error:
            leave(engine, path, THINGS)
        assert error.value.code == NO_TABLE


def test_rows_of_a_damaged_database_end_with_an_error(
    make_db: Callable[..., Path], leave: Callable[..., list[Row]]
) -> None:
    db = make_db(
        """CREATE TABLE things(id INTEGER PRIMARY KEY, note TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
          INSERT INTO things SELECT i, hex(randomblob(50)) FROM n;""",
        journal="delete",
    )
    with db.open("r+b") as file:
        file.seek(db.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\x55" * 4096)

    with pytest.raises(StoreError, match="could not be read"):
        leave("sqlite", db, THINGS)

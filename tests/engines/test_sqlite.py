"""What the engine tells of a database: its bytes, rows, records, facts and probes, and that a restored image agrees."""

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from memkeep.engines.sqlite import SqliteEngine, inspect
from memkeep.errors import StoreError
from memkeep.model import Probe, TableMap
from memkeep.records import groups


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def vector(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


MEMORIES = TableMap(
    collection="facts",
    table="memories",
    id="id",
    fields={"text": "content", "category": "kind"},
    vectors=("embedding",),
)


@pytest.fixture
def memories(make_db: Callable[..., Path]) -> Path:
    """Make a closed database of 300 memories."""
    path = make_db(
        """
        CREATE TABLE memories(id TEXT PRIMARY KEY, content TEXT, kind TEXT, scope TEXT, created_at INTEGER, score REAL,
          embedding BLOB, raw BLOB);
        CREATE TABLE other(a, b);
        INSERT INTO other VALUES (1, 2.5), (NULL, x'00ff'), ('text', -1);
        CREATE VIRTUAL TABLE memories_fts USING fts5(content, content='memories');
        PRAGMA user_version = 7;
        """
    )
    con = sqlite3.connect(path)
    for n in range(300):
        kind = None if n == 0 else f"kind {n % 3}"
        embedding = None if n % 100 == 5 else vector(1, n, -n / 7) if n % 100 else vector(1, n)
        text = f"memory {n} of the {'odd' if n % 2 else 'even'} ones"
        score = float("inf") if n == 9 else n / 2
        row = (f"id-{n}", text, kind, "main", 1000 + n, score, embedding, b"\0\1" if n == 1 else None)
        con.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    con.execute("INSERT INTO memories_fts(memories_fts) VALUES ('rebuild')")
    con.commit()
    con.close()
    return path


def rows_of(found: list[groups.Group]) -> dict[str, dict[str, Any]]:
    rows = {}
    for group in found:
        columns, values = groups.decode(group.data)
        assert len(values) == group.rows
        for row in values:
            name = groups.id_text(row[columns.index("id")])
            assert groups.bucket_of(name, group.bits) == group.bucket
            rows[name] = dict(zip(columns, row, strict=True))
    return rows


def test_the_image_is_one_file_with_the_mode_and_times_of_the_live_one(
    memories: Path, freeze: Callable[..., Any]
) -> None:
    memories.chmod(0o640)
    os.utime(memories, ns=(1, 1_700_000_000_123_456_789))
    with freeze(memories) as opened:
        (entry,) = opened.entries()
        assert entry.path == "facts.db"
        assert entry.mode == 0o640
        assert entry.mtime_ns == 1_700_000_000_123_456_789
        buffers = list(opened.stream(entry))
        assert b"".join(buffers) == memories.read_bytes()
        assert opened.omitted() == []
        assert opened.runs(entry) == ()


def test_a_large_image_comes_in_buffers_of_a_mebibyte(make_db: Callable[..., Path], freeze: Callable[..., Any]) -> None:
    path = make_db("CREATE TABLE t(b); INSERT INTO t VALUES (zeroblob(3000000));")
    with freeze(path) as opened:
        sizes = [len(buffer) for buffer in opened.stream(opened.entries()[0])]
    assert sizes[:-1] == [1 << 20] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= 1 << 20
    assert sum(sizes) == path.stat().st_size


def test_groups_hold_every_column_of_every_row(memories: Path, take: Callable[..., Any]) -> None:
    frozen = take(memories, MEMORIES)
    assert {group.collection for group in frozen.groups} == {"facts"}
    assert {group.bits for group in frozen.groups} == {groups.bits_for(300)}
    assert [group.bucket for group in frozen.groups] == sorted({group.bucket for group in frozen.groups})
    rows = rows_of(frozen.groups)
    assert len(rows) == 300
    assert rows["id-7"] == {
        "id": "id-7",
        "content": "memory 7 of the odd ones",
        "kind": "kind 1",
        "scope": "main",
        "created_at": 1007,
        "score": 3.5,
        "embedding": groups.vector_cell(vector(1, 7, -1), dims=3),
        "raw": None,
    }
    assert rows["id-1"]["raw"] == {"bytes": 2, "blake3": blake3(b"\0\1").hexdigest(8)}
    assert rows["id-9"]["score"] == {"float": "inf"}
    assert rows["id-5"]["embedding"] is None


def test_every_table_is_counted_and_digested_as_the_format_says(memories: Path, take: Callable[..., Any]) -> None:
    tables = take(memories, MEMORIES).baseline.tables
    assert set(tables) == {
        "memories",
        "other",
        *(f"memories_fts_{name}" for name in ("data", "idx", "docsize", "config")),
    }
    assert tables["memories"].rows == 300
    pack = msgspec.msgpack.encode
    by_hand = blake3(pack(["a", "b"]) + pack([1, 2.5]) + pack([None, b"\0\xff"]) + pack(["text", -1])).hexdigest()
    assert tables["other"].rows == 3
    assert tables["other"].digest == by_hand


def test_one_flipped_bit_of_a_vector_changes_the_digest_of_its_table(
    memories: Path, take: Callable[..., Any], reopen: Callable[..., Any]
) -> None:
    frozen = take(memories, MEMORIES)
    data = bytearray(frozen.image.read_bytes())
    at = data.index(vector(1, 77, -11))
    data[at + 6] ^= 1
    frozen.image.write_bytes(data)
    with reopen(frozen.image, MEMORIES) as image:
        assert image.check() == []
        list(image.scan({}))
        changed = {name for name, state in image.baseline().tables.items() if state != frozen.baseline.tables[name]}
    assert changed == {"memories"}


def test_facts_say_what_is_in_the_collections(memories: Path, take: Callable[..., Any]) -> None:
    facts = take(memories, MEMORIES).baseline.facts
    assert facts["journal"] == "wal"
    assert facts["page_size"] == 4096
    assert facts["user_version"] == 7
    assert facts["sqlite"].startswith("3.")
    assert facts["vectors"] == {"memories.embedding": {"count": 297, "dims": {"2": 3, "3": 294}, "missing": 3}}
    assert facts["summary"]["facts"] == {
        "rows": 300,
        "category": {"": 1, "kind 0": 99, "kind 1": 100, "kind 2": 100},
        "scope": {"main": 300},
        "oldest": 1000,
        "newest": 1299,
    }


def test_more_values_than_can_be_listed_are_counted_together(
    make_db: Callable[..., Path], take: Callable[..., Any]
) -> None:
    path = make_db(
        """
        CREATE TABLE m(id INTEGER PRIMARY KEY, category TEXT, created_at TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
          INSERT INTO m SELECT i, 'c' || i, CASE i % 2 WHEN 1 THEN '2026-01-' || (10 + i % 17) END FROM n;
        """
    )
    summary = take(path, TableMap(collection="m", table="m", id="id")).baseline.facts["summary"]["m"]
    assert len(summary["category"]) == 201
    assert summary["category"]["(other)"] == 800
    assert (summary["oldest"], summary["newest"]) == ("2026-01-10", "2026-01-26")


def test_vector_probes_find_the_true_neighbours(make_db: Callable[..., Path], take: Callable[..., Any]) -> None:
    import numpy as np

    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((900, 32)).astype("<f4")
    path = make_db("CREATE TABLE m(id INTEGER PRIMARY KEY, v BLOB);")
    con = sqlite3.connect(path)
    con.execute("INSERT INTO m VALUES (1, NULL), (2, ''), (3, zeroblob(128)), (4, x'0000c07f')")
    con.executemany("INSERT INTO m VALUES (?, ?)", [(n + 10, v.tobytes()) for n, v in enumerate(vectors)])
    con.commit()
    con.close()
    mapped = TableMap(collection="m", table="m", id="id", vectors=("v",))
    probes = take(path, mapped).baseline.probes
    assert [probe.question for probe in probes] == ["10", "11", "12", "13"]
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1)[:, None]
    for probe, asked in zip(probes, wide, strict=False):
        scores = wide @ asked
        best = np.argsort(-scores)[:5]
        assert probe.kind == "vector"
        assert (probe.table, probe.column) == ("m", "v")
        assert probe.ids == tuple(str(n + 10) for n in best)
        assert probe.scores == pytest.approx(scores[best], abs=1e-6)


def test_the_same_questions_get_the_same_answers_of_an_image(
    memories: Path, take: Callable[..., Any], reopen: Callable[..., Any]
) -> None:
    frozen = take(memories, MEMORIES)
    kinds = [probe.kind for probe in frozen.baseline.probes]
    assert kinds.count("vector") == 1, "of four candidates only one has the first one's length in the first batch"
    assert kinds.count("text") == 1
    with reopen(frozen.image, MEMORIES) as image:
        assert list(image.scan({}, frozen.baseline.probes)) == frozen.groups
        assert image.baseline().probes == frozen.baseline.probes


def test_a_question_that_can_not_be_asked_any_more_gets_an_empty_answer(
    memories: Path, take: Callable[..., Any], freeze: Callable[..., Any]
) -> None:
    probes = take(memories, MEMORIES).baseline.probes
    con = sqlite3.connect(memories)
    con.execute("DROP TABLE memories_fts")
    con.execute("DELETE FROM memories WHERE id = ?", (probes[0].question,))
    con.commit()
    con.close()
    gone = Probe(kind="text", table="nowhere", column="", question="word", ids=("1",), scores=(1.0,))
    with freeze(memories, MEMORIES) as opened:
        list(opened.scan({}, (*probes, gone)))
        answers = opened.baseline().probes
    assert [probe.question for probe in answers] == [probe.question for probe in (*probes, gone)]
    assert all(probe.ids == () for probe in answers)


def test_ids_of_any_type_can_be_asked_for_again(
    make_db: Callable[..., Path], take: Callable[..., Any], reopen: Callable[..., Any]
) -> None:
    path = make_db("CREATE TABLE m(id, v BLOB);")
    con = sqlite3.connect(path)
    rows = [(5, vector(1, 2)), ("six", vector(2, 1)), (b"\x07", vector(1, 1)), ("8", vector(3, -1)), (8, vector(9, 9))]
    con.executemany("INSERT INTO m VALUES (?, ?)", rows)
    con.commit()
    con.close()
    mapped = TableMap(collection="m", table="m", id="id", vectors=("v",))
    frozen = take(path, mapped)
    assert [probe.question for probe in frozen.baseline.probes] == ["5", "six", "07", "8"]
    assert [row[0] for row in groups.decode(frozen.groups[0].data)[1]] == ["07", 5, "8", 8, "six"]
    with reopen(frozen.image, mapped) as image:
        list(image.scan({}, frozen.baseline.probes))
        assert image.baseline().probes == frozen.baseline.probes


def test_bits_of_an_earlier_day_are_kept_until_groups_are_four_times_off(
    memories: Path, freeze: Callable[..., Any]
) -> None:
    best = groups.bits_for(300)
    for given, used in ((best, best), (best + 2, best + 2), (best - 2, best - 2), (best + 3, best), (0, 0)):
        with freeze(memories, MEMORIES) as opened:
            found = list(opened.scan({"facts": given}))
        assert {group.bits for group in found} == {used if abs(given - best) <= 2 else best}
        assert len(rows_of(found)) == 300


def test_a_map_without_its_table_or_id_is_a_finding_and_the_rest_is_read(
    memories: Path, take: Callable[..., Any]
) -> None:
    missing = TableMap(collection="x", table="nothing", id="id")
    nameless = TableMap(collection="y", table="other", id="id")
    frozen = take(memories, MEMORIES, missing, nameless)
    assert [(finding.code, finding.part) for finding in frozen.findings] == [("sqlite_map_missing", "facts.db")] * 2
    assert "nothing" in frozen.findings[0].message
    assert "column id" in frozen.findings[1].message
    assert len(rows_of(frozen.groups)) == 300


def test_count_reads_a_live_table_and_says_none_where_there_is_none(
    memories: Path, part_of: Callable[..., Any], tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    engine = SqliteEngine()
    before = tree_hash(memories.parent)
    assert engine.count(part_of(memories), "memories") == 300
    assert engine.count(part_of(memories), "no such table") is None
    assert engine.count(part_of(memories.with_name("gone.db")), "memories") is None
    assert tree_hash(memories.parent) == before


def test_inspect_looks_at_many_files_and_changes_none(
    memories: Path,
    make_db: Callable[..., Path],
    tmp_path: Path,
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    rollback = make_db("CREATE TABLE r(x INTEGER PRIMARY KEY, y);", path=tmp_path / "more" / "r.db", journal="delete")
    live = make_db("CREATE TABLE w(z);", path=tmp_path / "more" / "w.db")
    con = sqlite3.connect(live, isolation_level=None)
    con.execute("INSERT INTO w VALUES (41)")
    folder = tmp_path / "more"
    (folder / "empty").touch()
    (folder / "note.md").write_text("# no database\n" * 99)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    before = tree_hash(tmp_path)
    names = ["empty", "note.md", "folder", "pipe", "gone"]
    paths = [memories, rollback, live, *(folder / name for name in names)]
    questions = {
        memories: ["SELECT count(*), max(created_at) FROM memories", "SELECT nothing"],
        live: ["SELECT z FROM w"],
    }
    seen = inspect(paths, questions)
    assert tree_hash(tmp_path) == before
    assert list(seen) == paths
    assert seen[memories].readable
    assert seen[memories].journal == "wal"
    assert seen[memories].user_version == 7
    assert seen[memories].page_size == 4096
    assert seen[memories].tables["other"] == ["a", "b"]
    assert seen[memories].virtual == {"memories_fts": "fts5"}
    assert seen[memories].results == (((300, 1299),), ())
    assert (seen[rollback].journal, seen[rollback].tables) == ("rollback", {"r": ["x", "y"]})
    assert seen[live].results == (((41,),),)
    assert seen[folder / "empty"].readable
    assert [seen[folder / name].readable for name in names[1:]] == [False] * 4
    assert all(seen[folder / name].error for name in names[1:])
    con.close()
    assert inspect([]) == {}


def test_the_question_of_an_inspection_can_not_change_the_database(
    make_db: Callable[..., Path], tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    for mode in ("wal", "delete"):
        path = make_db("CREATE TABLE t(x);", journal=mode)
        before = tree_hash(path.parent)
        assert inspect([path], {path: ["INSERT INTO t VALUES (1)", "DROP TABLE t"]})[path].results == ((), ())
        assert tree_hash(path.parent) == before
        path.unlink()


def test_any_path_that_can_be_made_can_be_read(
    make_db: Callable[..., Path], tmp_path: Path, take: Callable[..., Any]
) -> None:
    for name in ("a b", "what?mode=rw", "100%25", "a#b", "café", "日本", "q'uo\"te", "file:x", "-dash"):
        path = make_db("CREATE TABLE t(x); INSERT INTO t VALUES (1);", path=tmp_path / f"in {name}" / f"{name}.db")
        con = sqlite3.connect(path, isolation_level=None)
        con.execute("INSERT INTO t VALUES (2)")
        assert take(path).baseline.tables["t"].rows == 2
        assert inspect([path])[path].tables == {"t": ["x"]}
        con.close()
        assert names_in(path.parent) == [path.name]


def test_a_name_that_is_no_utf8_can_be_looked_at(make_db: Callable[..., Path], tmp_path: Path) -> None:
    path = make_db("CREATE TABLE t(x);")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff.db"))
    shutil.copy(path, odd)
    assert inspect([odd])[odd].tables == {"t": ["x"]}


def test_what_is_gone_or_no_file_is_an_error_that_names_it(tmp_path: Path, freeze: Callable[..., Any]) -> None:
    for path in (tmp_path / "gone.db", tmp_path / "no folder" / "x.db", tmp_path):
        with pytest.raises(StoreError, match=str(path)) as caught, freeze(path):
            pass
        assert caught.value.hint.startswith("memkeep discover ")


def test_a_baseline_before_the_scan_is_refused(memories: Path, freeze: Callable[..., Any]) -> None:
    with freeze(memories) as opened, pytest.raises(RuntimeError, match="scan"):
        opened.baseline()


def test_importing_the_engine_loads_no_heavy_library() -> None:
    code = "import sys, memkeep.engines.sqlite; print(sorted({'apsw', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.real
def test_real_stores_come_back_equal(
    stores: Path,
    tmp_path: Path,
    take: Callable[..., Any],
    reopen: Callable[..., Any],
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    found = [p for p in sorted(stores.rglob("*")) if p.suffix in {".db", ".sqlite"} and p.is_file()]
    assert len(found) > 20
    for number, original in enumerate(found):
        path = tmp_path / f"real-{number}" / original.name
        path.parent.mkdir()
        shutil.copy2(original, path)
        before = tree_hash(path.parent)
        frozen = take(path)
        assert frozen.held
        assert frozen.checked == [], original
        assert frozen.findings == [], original
        assert frozen.image.read_bytes() == original.read_bytes()
        assert tree_hash(path.parent) == before
        with reopen(frozen.image) as image:
            list(image.scan({}, frozen.baseline.probes))
            assert image.check() == [], original
            assert image.baseline() == frozen.baseline
        assert names_in(frozen.image.parent) == [path.name]
        assert frozen.image.read_bytes() == original.read_bytes()


@pytest.mark.real
def test_the_core_index_is_read_although_its_vector_module_is_unknown(
    copy_store: Callable[..., Path], take: Callable[..., Any]
) -> None:
    path = copy_store("openclaw-core-2026.9.6") / "state-dir/agents/main/agent/openclaw-agent.sqlite"
    frozen = take(path, TableMap(collection="chunks", table="memory_index_chunks", id="id", fields={"text": "text"}))
    assert inspect([path])[path].virtual["memory_index_chunks_vec"] == "vec0"
    assert frozen.baseline.tables["memory_index_chunks_vec_rowids"].rows == 6
    assert frozen.baseline.tables["memory_index_chunks"].rows == 6
    assert len(rows_of(frozen.groups)) == 6
    assert json.dumps(frozen.baseline.facts)

"""The engine on tables at rest: image, records, digest, facts, probes and checks."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3

from memkeep import clock
from memkeep.engines import descriptors, lance_files, lance_manifest, lance_pin, lance_probes
from memkeep.engines.lance import LanceEngine, LanceInspection, inspect
from memkeep.errors import StoreError, UnstableError
from memkeep.model import Baseline, Part, Probe, Role, Severity, TableMap
from memkeep.records import groups

REAL = {
    "hybrid-2026.4.273": ("memory/lancedb/memories.lance", {"created_at": "createdAt"}),
    "memory-lancedb-2026.3.13": ("lancedb/memories.lance", {"created_at": "createdAt"}),
    "pro-1.1.0-beta.11": ("lancedb-pro/memories.lance", {"created_at": "timestamp", "scope": "scope"}),
}


def records(found: list[groups.Group]) -> dict[str, dict[str, Any]]:
    """Return all records by id."""
    out = {}
    for group in found:
        columns, rows = groups.decode(group.data)
        assert len(rows) == group.rows
        for row in rows:
            out[row[columns.index("id")]] = dict(zip(columns, row, strict=True))
    return out


def descriptors_open() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def digest_of(hold: Any, table: Path) -> str:
    with hold(table) as opened:
        list(opened.scan({}, ()))
        return opened.baseline().tables["memories"].digest


class Taken(NamedTuple):
    """What one freeze of a real store gave, and what its ground truth says."""

    truth: dict[str, Any]
    said: dict[str, Any]  # of the table
    path: str
    map: TableMap
    records: dict[str, dict[str, Any]]
    baseline: Baseline
    root: Path  # where the image was written


@pytest.fixture(params=list(REAL))
def taken(
    request: pytest.FixtureRequest,
    copy_store: Callable[..., Path],
    hold: Any,
    write_out: Any,
    tree_hash: Callable[[Path], dict[str, str]],
) -> Taken:
    """Freeze the table of a real store, read it and write out its image."""
    store = copy_store(request.param)
    truth = json.loads((store / "truth.json").read_text())
    path, fields = REAL[request.param]
    fields = {"text": "text", "category": "category", **fields}
    map_ = TableMap(collection="memories", table="memories", id="id", fields=fields, vectors=("vector",))
    before = tree_hash(store)
    with hold(store / path, map_, root=store) as opened:
        found = records(list(opened.scan({})))
        assert opened.check() == []
        assert opened.findings() == []
        assert opened.held()
        assert not opened.moved()
        root = write_out(opened)
        baseline = opened.baseline()
    assert tree_hash(store) == before
    said = truth["lance"].get("memories") or truth["lance"]["lancedb/memories"]
    return Taken(truth, said, path, map_, found, baseline, root)


@pytest.mark.real
def test_a_real_store_gives_what_its_ground_truth_says(taken: Taken) -> None:
    rows, facts = taken.said["rows"], taken.baseline.facts
    assert sorted(taken.records) == sorted(taken.truth["ids"])
    assert taken.baseline.tables["memories"].rows == rows == len(taken.records)
    assert facts["lance_version"] == taken.said["version"]
    assert facts["fragments"] == taken.said["fragments"]
    assert list(facts["columns"]) == list(taken.said["columns"])
    assert facts["vectors"]["memories.vector"] == {"count": rows, "dims": {"16": rows}, "missing": 0}
    summary = facts["summary"]["memories"]
    if "records" in taken.truth:
        truth = taken.truth["records"]
        assert summary["category"] == truth["categories"]
        assert (summary["oldest"], summary["newest"]) == (truth["time_min"], truth["time_max"])
        lines = [
            json.dumps([id_, taken.records[id_]["text"]], ensure_ascii=False, separators=(",", ":")) + "\n"
            for id_ in sorted(taken.records)
        ]
        assert sha256("".join(lines).encode()).hexdigest() == truth["text_digest"]
    if "scope" in taken.map.fields:
        assert summary["scope"] == taken.truth["records"]["scopes"]


@pytest.mark.real
def test_the_image_of_a_real_store_opens_with_the_plain_library_and_equals_the_records(taken: Taken) -> None:
    restored = lancedb.connect(taken.root / Path(taken.path).parent).open_table("memories").to_arrow().to_pylist()
    hasher = sha256()
    for row in sorted(restored, key=lambda row: row["id"]):
        vector = np.asarray(row.pop("vector"), "<f4").tobytes()
        hasher.update(row["id"].encode() + b"\0" + vector)
        record = dict(taken.records[row["id"]])
        assert record.pop("vector") == {"dims": 16, "type": "f32", "blake3": blake3(vector).hexdigest(8)}
        assert record == row
    assert hasher.hexdigest() == taken.said["vectors_sha256"]


@pytest.mark.real
def test_the_image_of_a_real_store_gives_the_same_rows_and_the_same_answers(taken: Taken, reopen: Any) -> None:
    with reopen(taken.root, taken.path, taken.map) as image:
        assert image.check() == []
        assert records(list(image.scan({}, taken.baseline.probes))) == taken.records
        assert image.baseline() == taken.baseline
        assert image.findings() == []
    asked = {kind: [probe for probe in taken.baseline.probes if probe.kind == kind] for kind in ("vector", "text")}
    assert len(asked["vector"]) == 4
    for probe in asked["vector"]:
        assert (probe.ids[0], probe.scores[0]) == (probe.question, 0.0)
        assert list(probe.scores) == sorted(probe.scores)
    assert bool(asked["text"]) == bool(taken.said["indices"])
    for probe in asked["text"]:
        assert probe.ids
        assert all(probe.question.lower() in taken.records[id_]["text"].lower() for id_ in probe.ids)


@pytest.mark.real
def test_a_restored_table_goes_on_living(copy_store: Callable[..., Path], hold: Any, write_out: Any) -> None:
    store = copy_store("pro-1.1.0-beta.11")
    with hold(store / "lancedb-pro" / "memories.lance", root=store) as opened:
        root = write_out(opened)
    table = lancedb.connect(root / "lancedb-pro").open_table("memories")
    row = table.to_arrow().slice(0, 1).to_pylist()[0]
    table.add([{**row, "id": "new"}])
    table.delete(f"id = '{row['id']}'")
    with pytest.warns(UserWarning, match="removes every version"):
        table.optimize(cleanup_older_than=timedelta(0))
    assert table.count_rows() == 59
    assert table.search("memory", query_type="fts").limit(3).to_list()


def test_the_image_is_the_newest_version_and_nothing_else(make_table: Any, hold: Any, write_out: Any) -> None:
    table = make_table(20, 10)
    lance.dataset(str(table)).delete("id = 'memory-00005'")
    (table / "data" / "left-over.lance").write_bytes(b"of no version")
    with hold(table, root=table.parent.parent) as opened:
        paths = [entry.path for entry in opened.entries() if entry.kind == "file"]
        root = write_out(opened)
        assert opened.how == "pinned version 3"
    assert len([path for path in paths if "/_versions/" in path]) == 1
    assert len([path for path in paths if "/data/" in path]) == 2
    assert len([path for path in paths if "/_deletions/" in path]) == 1
    assert len([path for path in paths if "/_transactions/" in path]) == 1
    assert all(path.startswith("store/memories.lance/") for path in paths)
    assert len(paths) == 5
    for path in paths:
        assert (root / path).read_bytes() == (table.parent.parent / path).read_bytes()
    assert lancedb.connect(root / "store").open_table("memories").count_rows() == 29


def test_entries_carry_permissions_and_times_of_files_and_folders(make_table: Any, hold: Any) -> None:
    table = make_table(3)
    file = next((table / "data").iterdir())
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_600_000_000_123_456_789))
    table.chmod(0o750)
    with hold(table) as opened:
        entries = {entry.path: entry for entry in opened.entries()}
    entry = entries[f"memories.lance/data/{file.name}"]
    assert (entry.mode, entry.mtime_ns, entry.size) == (0o640, 1_600_000_000_123_456_789, file.stat().st_size)
    assert (entries["memories.lance"].kind, entries["memories.lance"].mode) == ("dir", 0o750)
    assert entries["memories.lance/_versions"].kind == "dir"


def test_the_digest_stays_when_a_compaction_moves_all_rows(make_table: Any, hold: Any) -> None:
    table = make_table(70, 30, 50, 7)
    dataset = lance.dataset(str(table))
    dataset.delete("id IN ('memory-00003', 'memory-00099', 'memory-00140')")
    before = digest_of(hold, table)
    dataset = lance.dataset(str(table))
    assert dataset.optimize.compact_files().fragments_removed == 4
    assert digest_of(hold, table) == before


def test_the_digest_stays_when_rows_are_written_in_another_order(
    make_rows: Any, tmp_path: Path, hold: Any, make_table: Any
) -> None:
    one = make_table(60)
    other = tmp_path / "other" / "memories.lance"
    shuffled = make_rows(0, 60).take(np.random.default_rng(3).permutation(60))
    lance.write_dataset(shuffled, str(other), max_rows_per_file=7)
    assert digest_of(hold, other) == digest_of(hold, one)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "'Fact number 3 about gardening.'"},
        {"createdAt": "1700000002.0000002"},
        {"category": "''"},
        {"vector": None},
    ],
    ids=["text", "number", "null", "vector"],
)
def test_the_digest_notices_the_smallest_change(
    make_table: Any, hold: Any, change: dict[str, str], make_rows: Any
) -> None:
    table = make_table(20)
    before = digest_of(hold, table)
    dataset = lance.dataset(str(table))
    if "vector" in change:
        row = make_rows(3, 1)
        flat = row["vector"].combine_chunks().flatten().to_numpy().copy()
        flat.view(np.uint32)[100] ^= 1  # the lowest bit of one element
        vector = pa.FixedSizeListArray.from_arrays(pa.array(flat), 128)
        changed = row.set_column(row.schema.get_field_index("vector"), "vector", vector)
        dataset.merge_insert("id").when_matched_update_all().execute(changed)
    else:
        dataset.update(change, where="id = 'memory-00002'")
    assert lance.dataset(str(table)).count_rows() == 20
    assert digest_of(hold, table) != before


def test_records_come_in_groups_that_a_new_record_does_not_move(make_table: Any, hold: Any, make_rows: Any) -> None:
    table = make_table(300)
    with hold(table) as opened:
        before = list(opened.scan({}, ()))
    best = groups.bits_for(300)
    assert best > 0
    assert {group.bits for group in before} == {best}
    lance.write_dataset(make_rows(300, 1), str(table), mode="append")
    with hold(table) as opened:
        after = list(opened.scan({"memories": best}, ()))
    changed = [one for one, other in zip(before, after, strict=True) if one.data != other.data]
    assert len(changed) == 1
    assert len(records(after)) == 301
    with hold(table) as opened:
        assert {group.bits for group in opened.scan({"memories": best + 1}, ())} == {best + 1}  # near enough to be kept
    with hold(table) as opened:
        assert {group.bits for group in opened.scan({"memories": best + 6}, ())} == {best}


def test_the_summary_counts_what_the_map_names(make_table: Any, hold: Any) -> None:
    with hold(make_table(90, 10)) as opened:
        list(opened.scan({}))
        facts = opened.baseline().facts
    assert facts["summary"] == {
        "memories": {
            "rows": 100,
            "oldest": 1_700_000_000.0,
            "newest": 1_700_000_099.0,
            "category": {"fact": 34, "preference": 33, "": 33},
        }
    }
    assert facts["vectors"] == {"memories.vector": {"count": 100, "dims": {"128": 100}, "missing": 0}}
    assert facts["fragments"] == 2
    assert facts["storage_version"].startswith("2.")
    assert facts["writer"].startswith("lance ")


def test_a_map_whose_id_column_is_missing_is_a_finding_and_the_image_is_whole(
    make_table: Any, hold: Any, write_out: Any
) -> None:
    table = make_table(10)
    with hold(table, TableMap(collection="m", table="memories", id="uuid")) as opened:
        assert list(opened.scan({})) == []
        assert [(one.code, one.severity) for one in opened.findings()] == [("lance_map_missing", Severity.WARNING)]
        assert opened.baseline().tables["memories"].rows == 10
        assert opened.baseline().tables["memories"].digest
        assert lancedb.connect(write_out(opened)).open_table("memories").count_rows() == 10


def test_an_empty_table_and_a_table_without_vectors_are_read(tmp_path: Path, hold: Any, make_rows: Any) -> None:
    empty = tmp_path / "a" / "memories.lance"
    lance.write_dataset(make_rows(0, 1).slice(0, 0), str(empty))
    with hold(empty) as opened:
        assert list(opened.scan({})) == []
        assert opened.baseline().tables["memories"].rows == 0
        assert opened.check() == []
        assert opened.baseline().probes == ()
    plain = tmp_path / "b" / "memories.lance"
    lance.write_dataset(pa.table({"id": [3, 1, 2], "text": ["c", None, "b"]}), str(plain))
    with hold(plain) as opened:
        found = records(list(opened.scan({})))
        assert opened.check() == []
    assert {key: row["text"] for key, row in found.items()} == {1: None, 2: "b", 3: "c"}


def test_ids_that_occur_twice_are_all_there(
    tmp_path: Path, hold: Any, make_rows: Any, reopen: Any, write_out: Any
) -> None:
    table = tmp_path / "s" / "memories.lance"
    lance.write_dataset(make_rows(0, 10), str(table))
    lance.write_dataset(make_rows(0, 10), str(table), mode="append")
    with hold(table) as opened:
        found = list(opened.scan({}))
        baseline = opened.baseline()
        root = write_out(opened)
    assert sum(group.rows for group in found) == baseline.tables["memories"].rows == 20
    with reopen(root, "memories.lance") as image:
        list(image.scan({}, baseline.probes))
        assert image.baseline().probes == baseline.probes


def test_probes_given_are_asked_again_and_all_answered_even_when_nobody_knows_them(make_table: Any, hold: Any) -> None:
    table = make_table(50)
    asked = (
        Probe(kind="vector", table="memories", column="vector", question="memory-00007", ids=(), scores=()),
        Probe(kind="vector", table="memories", column="vector", question="it's gone", ids=("x",), scores=(1.0,)),
        Probe(kind="vector", table="memories", column="other", question="memory-00007", ids=("x",), scores=(1.0,)),
        Probe(kind="text", table="memories", column="text", question="gardening", ids=("x",), scores=(1.0,)),
    )
    with hold(table) as opened:
        list(opened.scan({}, asked))
        answers = opened.baseline().probes
        assert opened.findings() == []
    assert [probe.question for probe in answers] == [probe.question for probe in asked]
    assert answers[0].ids[0] == "memory-00007"
    assert len(answers[0].ids) == 5
    assert [probe.ids for probe in answers[1:]] == [(), (), ()]
    with hold(table) as opened:
        list(opened.scan({}, ()))
        assert opened.baseline().probes == ()


def test_a_large_column_gets_the_answers_that_the_engine_gives(
    make_table: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(400, 300, 300)
    dataset = lance.dataset(str(table))
    dataset.delete("id IN ('memory-00004', 'memory-00500')")
    rows = dataset.to_table()
    longer = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 128) * np.arange(1, 999)[:, None]
    vector = pa.FixedSizeListArray.from_arrays(pa.array(longer.reshape(-1).astype(np.float32)), 128)
    rows = rows.set_column(rows.schema.get_field_index("vector"), "vector", vector)
    lance.write_dataset(rows, str(table), mode="overwrite", max_rows_per_file=300)
    with hold(table) as opened:
        list(opened.scan({}))
        theirs = opened.baseline().probes
    monkeypatch.setattr(lance_probes, "LARGE", 0)
    monkeypatch.setattr(lance_probes, "_nearest_to", lambda *_: pytest.fail("the engine was asked"))
    with hold(table) as opened:
        list(opened.scan({}))
        ours = opened.baseline().probes
    assert len(ours) == 4
    assert [probe.ids for probe in ours] == [probe.ids for probe in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.scores == pytest.approx(other.scores, rel=1e-5, abs=1e-5)


def test_an_index_of_vectors_is_asked_and_comes_along(make_table: Any, hold: Any, reopen: Any, write_out: Any) -> None:
    table = make_table(600, dims=16)
    lance.dataset(str(table)).create_index("vector", "IVF_PQ", num_partitions=2, num_sub_vectors=4, metric="cosine")
    with hold(table) as opened:
        list(opened.scan({}))
        baseline = opened.baseline()
        assert opened.check() == []
        root = write_out(opened)
    assert [index["columns"] for index in baseline.facts["indices"]] == [["vector"]]
    assert lance.dataset(str(root / "memories.lance")).stats.index_stats("vector_idx")["num_indexed_rows"] == 600
    with reopen(root, "memories.lance") as image:
        list(image.scan({}, baseline.probes))
        assert image.baseline().probes == baseline.probes


def test_words_are_asked_of_a_full_text_index(make_table: Any, hold: Any, reopen: Any, write_out: Any) -> None:
    table = make_table(60)
    lance.dataset(str(table)).create_scalar_index("text", "INVERTED")
    with hold(table) as opened:
        list(opened.scan({}))
        baseline = opened.baseline()
        root = write_out(opened)
    words = [probe for probe in baseline.probes if probe.kind == "text"]
    # `gardening` is in fifty that are equally good: which five come is chance, so it is not asked.
    assert [probe.question for probe in words] == ["astronomy"]
    assert len(words[0].ids) == 5
    assert words[0].scores == tuple(sorted(words[0].scores, reverse=True))
    shutil.rmtree(next((root / "memories.lance" / "_indices").iterdir()))
    with reopen(root, "memories.lance") as image:
        codes = {one.code for one in image.check()}
        list(image.scan({}, baseline.probes))
        assert image.baseline().probes != baseline.probes
        assert "lance_probe" in {one.code for one in image.findings()} | codes


def test_inspection_and_count_need_no_library(make_table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(20, 10)
    lance.dataset(str(table)).delete("id = 'memory-00001'")
    monkeypatch.setitem(sys.modules, "lance", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert inspect(table) == LanceInspection(
        version=3,
        columns={
            "id": "string",
            "text": "string",
            "vector": "fixed_size_list:float:128",
            "category": "string",
            "createdAt": "double",
        },
        rows=29,
        fragments=2,
        vectors={"vector": 128},
    )
    part = Part(name="memories.lance", engine="lance", role=Role.CANONICAL, path=str(table))
    assert LanceEngine().count(part, "memories") == 29
    assert LanceEngine().count(part, "other") is None


def test_without_the_library_the_image_is_whole_and_a_finding_says_what_is_missing(
    make_table: Any, hold: Any, write_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(20, 10)
    with monkeypatch.context() as without, hold(table) as opened:
        without.setitem(sys.modules, "lance", None)
        assert list(opened.scan({})) == []
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "lance", None)
        with hold(table) as opened:
            assert list(opened.scan({})) == []
            assert [(one.code, one.severity) for one in opened.findings()] == [
                ("lance_reader_missing", Severity.WARNING)
            ]
            assert opened.findings()[0].mend == "pip install 'memkeep[lance]'"
            assert opened.check() == opened.findings()
            state = opened.baseline().tables["memories"]
            assert (state.rows, state.digest) == (30, "")
            root = write_out(opened)
    assert lancedb.connect(root).open_table("memories").count_rows() == 30


@pytest.mark.parametrize("kind", ["nothing", "file", "empty", "text", "versions", "garbage", "cut"])
def test_what_is_no_table_is_refused_with_a_clear_error(
    make_table: Any, hold: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(clock, "pause", lambda _: None)
    table = tmp_path / "store" / "memories.lance"
    if kind in {"empty", "text", "versions"}:
        (table / "_versions").mkdir(parents=True)
    if kind == "file":
        table.parent.mkdir()
        table.write_text("no folder")
    elif kind == "text":
        (table / "_versions" / "notes.txt").write_text("no version")
    elif kind == "versions":
        (table / "_versions" / "1.manifest").touch()
    elif kind in {"garbage", "cut"}:
        table = make_table(3)
        manifest = next((table / "_versions").glob("*.manifest"))
        data = manifest.read_bytes()
        manifest.write_bytes(os.urandom(len(data)) if kind == "garbage" else data[: len(data) // 2])
    with pytest.raises(StoreError) as raised, hold(table):
        pass
    assert str(table) in raised.value.message
    assert raised.value.hint
    assert raised.value.code in {"not_a_lance_table", "lance_manifest"}
    assert inspect(table) is None


def test_a_newest_version_that_is_not_whole_is_refused(
    make_table: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "pause", lambda _: None)
    table = make_table(10, 10)
    victim = min((table / "data").iterdir())
    victim.unlink()
    with pytest.raises(StoreError, match="not whole") as raised, hold(table):
        pass
    assert raised.value.code == "lance_incomplete"
    assert victim.name in raised.value.message


def test_a_file_that_vanishes_is_asked_for_again_in_the_newer_version(
    make_table: Any, make_rows: Any, hold: Any, write_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(10, 10)
    open_one, calls = lance_pin._open, []

    def compacting(folder: Path, name: str) -> int:
        if name.startswith("data/") and len(calls) < 3:
            calls.append(name)
            number = 100 * len(calls)
            lance.write_dataset(make_rows(number, 10), str(table), mode="append")
            dataset = lance.dataset(str(table))
            dataset.optimize.compact_files()
            dataset.cleanup_old_versions(timedelta(0), delete_unverified=True)
        return open_one(folder, name)

    monkeypatch.setattr(lance_pin, "_open", compacting)
    monkeypatch.setattr(clock, "pause", lambda _: None)
    with hold(table) as opened:
        root = write_out(opened)
    assert len(calls) == 3
    assert lancedb.connect(root).open_table("memories").count_rows() == 50


@pytest.mark.real
def test_the_files_of_an_index_are_all_there_when_it_is_replaced_while_they_are_listed(
    copy_store: Callable[..., Path], hold: Any, write_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A table of an older product: its manifest does not say which files its index has.
    table = copy_store("pro-1.1.0-beta.11", "lancedb-pro") / "memories.lance"
    walk, replaced = lance_files.listed, []

    def replacing(folder: Path, manifest: Any) -> list[str]:
        if not replaced:
            replaced.append(manifest.version)
            dataset = lance.dataset(str(table))
            dataset.create_scalar_index("text", "INVERTED", name="text_idx", replace=True)
            dataset.cleanup_old_versions(timedelta(0), delete_unverified=True)
        return walk(folder, manifest)

    monkeypatch.setattr(lance_files, "listed", replacing)
    monkeypatch.setattr(clock, "pause", lambda _: None)
    with hold(table) as opened:
        root = write_out(opened)
        assert opened.how == "pinned version 6"
        assert opened.check() == []
    found = lance.dataset(str(root / "memories.lance")).to_table(full_text_query="memory", limit=1000)
    assert found.num_rows > 50


def test_a_table_that_is_cleaned_up_again_and_again_is_unstable(
    make_table: Any, make_rows: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(3, 3)
    pauses: list[float] = []
    monkeypatch.setattr(clock, "pause", pauses.append)
    monkeypatch.setattr(lance_pin, "ATTEMPTS", 7)
    open_one = lance_pin._open
    versions = iter(range(100))

    def never(folder: Path, name: str) -> int:
        if name.startswith("data/"):
            lance.write_dataset(make_rows(100 + next(versions), 1), str(table), mode="append")
            raise lance_pin._GoneError(f"{name} is missing")
        return open_one(folder, name)

    monkeypatch.setattr(lance_pin, "_open", never)
    with pytest.raises(UnstableError) as raised, hold(table):
        pass
    assert raised.value.hint
    assert len(pauses) == 6
    assert pauses == sorted(pauses)


def test_descriptors_are_let_go_after_a_failure_and_after_use(
    make_table: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(3, 3)
    with hold(table) as opened:
        assert opened.held()
    monkeypatch.setattr(clock, "pause", lambda _: None)
    before = descriptors_open()
    with hold(table) as opened:
        assert len(descriptors_open()) == len(before) + 4
    assert descriptors_open() == before
    next((table / "data").iterdir()).unlink()
    with pytest.raises(StoreError), hold(table):
        pass
    assert descriptors_open() == before


def test_rows_are_read_from_what_is_held_when_the_live_table_is_gone(
    make_table: Any, hold: Any, write_out: Any
) -> None:
    table = make_table(100, 50, 50)
    lance.dataset(str(table)).delete("id = 'memory-00009'")
    digest = digest_of(hold, table)
    with hold(table) as opened:
        shutil.rmtree(table)
        assert len(records(list(opened.scan({})))) == 199
        assert opened.baseline().tables["memories"].digest == digest
        assert len(opened.baseline().probes) == 4
        assert opened.check() == []
        assert opened.findings() == []
        assert opened.held()
        assert opened.moved()
        root = write_out(opened)
    assert lancedb.connect(root).open_table("memories").count_rows() == 199


def test_rows_are_read_on_a_host_without_proc(
    make_table: Any, hold: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_pin, "PROC", tmp_path / "no-proc")
    table = make_table(30, 20)
    with hold(table) as opened:
        shutil.rmtree(table)
        assert len(records(list(opened.scan({})))) == 50
        assert opened.findings() == []


def test_files_beyond_the_limit_of_descriptors_are_copied(
    make_table: Any, hold: Any, write_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(*[3] * 12)
    digest = digest_of(hold, table)
    monkeypatch.setattr(descriptors, "room", lambda _: 4)
    before = len(descriptors_open())
    with hold(table) as opened:
        assert len(descriptors_open()) == before + 4 + 2  # the manifest and the transaction too
        shutil.rmtree(table)
        assert len(records(list(opened.scan({})))) == 36
        assert opened.baseline().tables["memories"].digest == digest
        assert opened.held()
        root = write_out(opened)
    assert lancedb.connect(root).open_table("memories").count_rows() == 36


def test_the_limit_of_descriptors_is_raised_when_it_is_too_low(make_table: Any, agent: Any, tmp_path: Path) -> None:
    table = make_table(*[1] * 40)
    (tmp_path / "scratch").mkdir()
    one = agent(
        """
        import resource, sys
        from pathlib import Path
        from memkeep.engines.lance import LanceEngine
        from memkeep.model import Part, Role
        table, scratch = map(Path, sys.argv[1:])
        resource.setrlimit(resource.RLIMIT_NOFILE, (530, 4096))
        part = Part(name=table.name, engine="lance", role=Role.CANONICAL, path=str(table))
        with LanceEngine().freeze(part, table.parent, scratch) as opened:
            files = [entry for entry in opened.entries() if entry.kind == "file"]
            copies = len(list(scratch.iterdir()))
            print(len(files), copies, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        """,
        table,
        tmp_path / "scratch",
    )
    assert one.hear() == "42 0 4096"


def test_the_table_has_moved_when_it_has_a_newer_version_or_was_made_anew(
    make_table: Any, make_rows: Any, hold: Any
) -> None:
    table = make_table(5)
    with hold(table) as opened:
        assert not opened.moved()
        lance.write_dataset(make_rows(5, 1), str(table), mode="append")
        assert opened.moved()
        assert opened.held()
    with hold(table) as opened:
        shutil.rmtree(table)
        assert opened.moved()
    make_table(5)
    with hold(table) as opened:
        shutil.rmtree(table)
        make_table(5)
        assert opened.moved()


def test_a_file_that_is_written_in_place_is_noticed(make_table: Any, hold: Any) -> None:
    table = make_table(5)
    with hold(table) as opened:
        file = next((table / "data").iterdir())
        with file.open("r+b") as data:
            data.write(b"0123")
        assert not opened.held()


def test_a_link_out_of_the_store_is_refused(make_table: Any, hold: Any, tmp_path: Path) -> None:
    table = make_table(5)
    elsewhere = tmp_path / "elsewhere"
    (table / "data").rename(elsewhere)
    (table / "data").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="leaves the store") as raised, hold(table):
        pass
    assert str(elsewhere) in raised.value.hint
    (table / "data").unlink()
    elsewhere.rename(table / "data")
    store = tmp_path / "agent"
    store.mkdir()
    (store / "memories.lance").symlink_to(table)
    with pytest.raises(StoreError, match="leaves the store"), hold(store / "memories.lance"):
        pass


def test_a_file_of_a_table_that_is_a_link_is_refused(make_table: Any, hold: Any, tmp_path: Path) -> None:
    table = make_table(5)
    file = next((table / "data").iterdir())
    file.rename(tmp_path / "stolen")
    file.symlink_to(tmp_path / "stolen")
    with pytest.raises(StoreError), hold(table):
        pass


def test_files_in_another_place_are_left_out_and_said(make_table: Any, hold: Any, tmp_path: Path) -> None:
    clone = tmp_path / "store-2" / "memories.lance"
    lance.dataset(str(make_table(10, 10))).shallow_clone(str(clone), 2)
    with hold(clone) as opened:
        assert [(one.code, one.severity) for one in opened.findings()] == [("lance_files_outside", Severity.ERROR)]
        reasons = [omission.reason for omission in opened.omitted()]
        assert len(reasons) == 2
        assert all("outside of the table's folder" in reason for reason in reasons)
        assert not any("/data/" in entry.path for entry in opened.entries())


def test_branches_tags_and_unmerged_rows_are_left_out_and_said(make_table: Any, hold: Any) -> None:
    table = make_table(10, 10)
    lance.dataset(str(table)).tags.create("mine", 1)
    with hold(table) as opened:
        assert [omission.part for omission in opened.omitted()] == ["memories.lance/_refs"]
        assert opened.findings() == []
    (table / "tree" / "experiment").mkdir(parents=True)
    (table / "_mem_wal").mkdir()
    with hold(table) as opened:
        assert sorted(omission.part for omission in opened.omitted()) == [
            "memories.lance/_mem_wal",
            "memories.lance/_refs",
            "memories.lance/tree",
        ]
        assert [one.code for one in opened.findings()] == ["lance_left_out", "lance_left_out"]


@pytest.mark.damage
def test_a_restored_table_with_a_lost_file_is_found_out(
    make_table: Any, hold: Any, reopen: Any, write_out: Any
) -> None:
    table = make_table(10, 10)
    lance.dataset(str(table)).delete("id = 'memory-00001'")
    with hold(table) as opened:
        whole = write_out(opened)
    files = [path for path in (whole / "memories.lance").rglob("*") if path.is_file()]
    for victim in files:
        kept = victim.read_bytes()
        victim.unlink()
        if victim.parent.name == "_versions":
            with pytest.raises(StoreError), reopen(whole, "memories.lance"):
                pass
        else:
            with reopen(whole, "memories.lance") as image:
                found = image.check()
                groups_ = list(image.scan({}, ()))
                if victim.parent.name == "_transactions":
                    assert found == []
                else:
                    assert victim.name in found[0].message
                    assert {one.code for one in found} >= {"lance_unreadable"}
                    assert groups_ == []
                    assert image.baseline().tables["memories"].digest == ""
                    assert "lance_unreadable" in {one.code for one in image.findings()}
        victim.write_bytes(kept)
    with reopen(whole, "memories.lance") as image:
        assert image.check() == []


def test_a_table_is_looked_at_again_when_its_newest_version_was_just_cleaned_up(
    make_table: Any, make_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(5)
    find = lance_manifest.newest

    def then_cleaned_up(folder: Path) -> Any:
        found = find(folder)
        if found.version < 4:
            lance.write_dataset(make_rows(found.version * 5, 5), str(table), mode="append")
            lance.dataset(str(table)).cleanup_old_versions(timedelta(0), delete_unverified=True)
        return found

    monkeypatch.setattr(lance_manifest, "newest", then_cleaned_up)
    seen = inspect(table)
    assert seen is not None
    assert (seen.version, seen.rows) == (4, 20)


@pytest.mark.damage
def test_rows_that_are_not_as_many_as_the_manifest_says_are_found_out(
    make_table: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(20)
    count = lance_manifest.Manifest.rows.fget
    monkeypatch.setattr(lance_manifest.Manifest, "rows", property(lambda manifest: count(manifest) + 1))
    with hold(table) as opened:
        assert {one.code for one in opened.check()} == {"lance_count"}
    with hold(table) as opened:
        list(opened.scan({}, ()))
        assert {(one.code, one.severity) for one in opened.findings()} == {("lance_count", Severity.ERROR)}


@pytest.mark.damage
def test_a_restored_data_file_that_is_cut_or_overwritten_is_found_out(
    make_table: Any, hold: Any, reopen: Any, write_out: Any
) -> None:
    table = make_table(50)
    digest = digest_of(hold, table)
    with hold(table) as opened:
        root = write_out(opened)
    file = next((root / "memories.lance" / "data").iterdir())
    data = file.read_bytes()
    for broken in (data[:-1], data[: len(data) // 2], b"", data + b"x", bytes(len(data))):
        file.write_bytes(broken)
        with reopen(root, "memories.lance") as image:
            codes = {one.code for one in image.check()}
            assert codes & {"lance_unreadable", "lance_validate", "lance_count"}
    for at in range(0, len(data), len(data) // 40):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with reopen(root, "memories.lance") as image:
            list(image.scan({}, ()))
            noticed = image.baseline().tables["memories"].digest != digest or image.findings()
            # What is not noticed here is of no row: padding, statistics. The vault's own hashes cover every byte.
            assert noticed or _same_rows(root / "memories.lance", table)


def _same_rows(one: Path, other: Path) -> bool:
    return lance.dataset(str(one)).to_table() == lance.dataset(str(other)).to_table()


def test_reading_changes_nothing_in_the_live_folder(
    make_table: Any, hold: Any, write_out: Any, tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    table = make_table(50, 20)
    dataset = lance.dataset(str(table))
    dataset.delete("id = 'memory-00001'")
    dataset.create_scalar_index("text", "INVERTED")
    before = {path: path.stat().st_mtime_ns for path in [table.parent, *table.parent.rglob("*")]}
    hashes = tree_hash(table.parent)
    with hold(table) as opened:
        list(opened.scan({}))
        opened.check()
        opened.moved()
        write_out(opened)
    inspect(table)
    assert tree_hash(table.parent) == hashes
    assert {path: path.stat().st_mtime_ns for path in [table.parent, *table.parent.rglob("*")]} == before


def test_paths_with_spaces_and_letters_of_all_languages_are_read(
    tmp_path: Path, make_table: Any, hold: Any, write_out: Any
) -> None:
    place = tmp_path / "Müller's Agent 記憶 %20 #1?"
    shutil.move(make_table(20), place / "lance db" / "memories.lance")
    with hold(place / "lance db" / "memories.lance", root=place) as opened:
        assert len(records(list(opened.scan({})))) == 20
        assert opened.check() == []
        root = write_out(opened)
        shutil.rmtree(place)
        assert len(records(list(opened.scan({})))) == 20
    assert lancedb.connect(root / "lance db").open_table("memories").count_rows() == 20

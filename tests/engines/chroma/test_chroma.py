import os
import pickle
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memkeep.engines.chroma import ChromaEngine, ChromaOpened
from memkeep.engines.chroma_files import INCLUDE
from memkeep.engines.chroma_rows import Joined, collections
from memkeep.engines.rows import RowReader
from memkeep.errors import StoreError
from memkeep.model import Finding, Part, Role, Severity, TableMap
from memkeep.records.view import rows_by_id
from memkeep.systems.detect import discover

NAMES = ("queue", "files", "squares", "dots", "bare", "empty")
Told = dict[str, Any]


def _part(folder: Path, name: str = "db") -> Part:
    maps = tuple(TableMap(collection=each, table=each, id="id", fields={"text": "document"}) for each in NAMES)
    return Part(name=name, engine="chroma", role=Role.CANONICAL, path=str(folder), maps=maps, include=INCLUDE)


@contextmanager
def _frozen(folder: Path, name: str = "db") -> Iterator[ChromaOpened]:
    scratch = folder.parent / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with ChromaEngine().freeze(_part(folder, name), folder.parent, scratch) as opened:
        yield opened


def _records(opened: ChromaOpened, probes: Any = None) -> dict[str, dict[str, Any]]:
    maps = {map_.collection: map_ for map_ in _part(Path()).maps}
    found: dict[str, dict[str, Any]] = {}
    for group in opened.scan({}, probes):
        found.setdefault(group.collection, {}).update(rows_by_id(maps[group.collection], group.data))
    return found


def _written(opened: ChromaOpened, root: Path) -> Path:
    for entry in opened.entries():
        target = root / entry.path
        if entry.kind == "dir":
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"".join(opened.stream(entry)))
            assert target.stat().st_size == entry.size
    return root


def test_every_record_of_every_collection_is_what_chromadb_says(folder: Path, truth: Told) -> None:
    with _frozen(folder) as opened:
        records = _records(opened)
        tables = opened.baseline().tables
        assert opened.findings() == opened.check() == []
    for name, told in truth.items():
        assert tables[name].rows == len(told["records"])
        there = records.get(name, {})
        assert there.keys() == told["records"].keys()
        for record, known in told["records"].items():
            row = {key: value for key, value in there[record].items() if value is not None}
            assert row.pop("vector")["dims"] == len(known["vector"])
            document = {} if known["document"] is None else {"text": known["document"]}
            assert row == (known["metadata"] or {}) | document


def test_every_row_is_what_chromadb_says(folder: Path, truth: Told) -> None:
    with _frozen(folder) as opened:
        assert isinstance(opened, RowReader)
        for name, told in truth.items():
            map_ = TableMap(collection=name, table=name, id="id")
            rows = {row["id"]: row for batch in opened.rows(map_) for row in batch}
            assert rows.keys() == told["records"].keys()
            for record, known in told["records"].items():
                vector = rows[record].pop("vector")
                assert np.frombuffer(vector.data, "<f4") == pytest.approx(np.asarray(known["vector"], "f4"))
                document = {} if known["document"] is None else {"document": known["document"]}
                assert rows[record] == {"id": record} | (known["metadata"] or {}) | document
        with pytest.raises(StoreError, match="other"):
            list(opened.rows(TableMap(collection="other", table="other", id="id")))


def test_every_vector_is_what_chromadb_says(folder: Path, truth: Told) -> None:
    with _frozen(folder) as opened:
        for collection in collections(opened._held.ask):
            joined = Joined(opened._held.ask, collection, opened._files)
            points = [point for some in joined.records() for point in some]
            for point in points:
                vector = np.frombuffer(point.vectors[""], "<f4")
                said = truth[collection.name]["records"][str(point.id)]["vector"]
                assert np.allclose(vector, said, rtol=0, atol=1e-6 if collection.space == "cosine" else 0)
            assert (joined.missing, joined.extra) == ([], [])


def test_the_collections_lie_in_the_queue_and_in_files(folder: Path) -> None:
    with _frozen(folder) as opened:
        written = {
            one.name: len(Joined(opened._held.ask, one, opened._files).segment.ids)
            for one in collections(opened._held.ask)
        }
    assert (written["queue"], written["bare"], written["empty"]) == (0, 0, 0)
    assert min(written["files"], written["squares"], written["dots"]) >= 50


@pytest.mark.parametrize("name", [".", "db", "deep/down"])
def test_the_image_is_the_directory_and_reads_as_the_live_one(folder: Path, tmp_path: Path, name: str) -> None:
    with _frozen(folder, name) as opened:
        records, live = _records(opened), opened.baseline()
        root = _written(opened, tmp_path / "image")
    for path in folder.rglob("*"):
        if path.is_file():
            assert (root / name / path.relative_to(folder)).read_bytes() == path.read_bytes()
    with ChromaEngine().open(_part(folder, name), root) as again:
        assert _records(again, live.probes) == records
        assert again.baseline() == live
        assert again.findings() == again.check() == []


def test_chromadb_opens_the_image_and_answers_as_before(
    folder: Path, tmp_path: Path, truth: Told, tell: Callable[[Path], Told]
) -> None:
    with _frozen(folder) as opened:
        root = _written(opened, tmp_path / "image")
    assert tell(root / "db") == truth


def test_the_answers_to_probes_are_chromadbs(folder: Path, truth: Told) -> None:
    with _frozen(folder) as opened:
        _records(opened)
        probes = opened.baseline().probes
    assert {probe.table for probe in probes} == set(NAMES) - {"empty"}
    for name in ("files", "squares", "queue"):
        known = dict(zip(truth[name]["asked"], truth[name]["answers"][0], strict=True))
        for probe in probes:
            if probe.table == name and probe.question in known:
                assert list(probe.ids) == known[probe.question]


def test_a_client_that_has_it_open_is_no_hindrance(folder: Path, agent: Callable[..., Any]) -> None:
    code = """
    import sys, chromadb
    client = chromadb.PersistentClient(sys.argv[1])
    one = client.get_collection("files", embedding_function=None)
    print("ready", flush=True)
    for line in sys.stdin:
        one.add(ids=["later"], embeddings=[[1.0] * 8], documents=["later"])
        print("done", flush=True)
    """
    client = agent(code, folder, env={"ANONYMIZED_TELEMETRY": "False"})
    assert client.hear(120) == "ready"
    with _frozen(folder) as opened:
        assert not opened.moved()
        client.say()
        assert client.hear() == "done"
        assert opened.moved()
        assert "later" not in _records(opened)["files"]
    with _frozen(folder) as opened:
        assert _records(opened)["files"]["later"]["text"] == "later"


def test_a_writer_that_writes_the_files_again_and_again_leaves_whole_moments(
    folder: Path, agent: Callable[..., Any]
) -> None:
    code = """
    import sys, chromadb
    client = chromadb.PersistentClient(sys.argv[1])
    hnsw = {"space": "l2", "sync_threshold": 20, "batch_size": 5}
    one = client.create_collection("written", configuration={"hnsw": hnsw}, embedding_function=None)
    print("ready", flush=True)
    for n in range(0, 1000000, 5):
        one.add(ids=[str(m) for m in range(n, n + 5)], embeddings=[[float(m)] * 8 for m in range(n, n + 5)])
    """
    assert agent(code, folder, env={"ANONYMIZED_TELEMETRY": "False"}).hear(120) == "ready"
    last = 0
    for _ in range(4):
        with _frozen(folder) as opened:
            [one] = [one for one in collections(opened._held.ask) if one.name == "written"]
            joined = Joined(opened._held.ask, one, opened._files)
            points = [point for some in joined.records() for point in some]
            unsettled = [finding.code for finding in opened.findings()] == ["chroma_unsettled"]
            assert opened.held()
        numbers = sorted(int(point.id) for point in points)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) % 5 == 0
        assert len(numbers) >= last
        last = len(numbers)
        if not unsettled:
            assert (joined.missing, joined.extra, joined.segment.trouble) == ([], [], [])
            assert all(np.frombuffer(point.vectors[""], "<f4")[0] == float(point.id) for point in points)


def _segment(folder: Path, collection: str = "squares") -> Path:
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as connection:
        sql = (
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection WHERE scope = 'VECTOR' AND name = ?"
        )
        [[name]] = connection.execute(sql, (collection,))
    return folder / str(name)


def _findings(folder: Path) -> list[Finding]:
    with _frozen(folder) as opened:
        _records(opened)
        return list(dict.fromkeys((*opened.findings(), *opened.check())))


def _change(file: Path, at: int, data: bytes) -> None:
    whole = bytearray(file.read_bytes())
    whole[at : at + len(data)] = data
    file.write_bytes(whole)
    os.utime(file, (1_700_000_000, 1_700_000_000))


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def _swapped(file: Path) -> None:
    said = pickle.loads(file.read_bytes())  # noqa: S301 - of this test's own making
    first, second = list(said["id_to_label"])[:2]
    labels = said["id_to_label"]
    labels[first], labels[second] = labels[second], labels[first]
    file.write_bytes(pickle.dumps(said))


@pytest.mark.damage
@pytest.mark.parametrize(
    ("file", "hurt"),
    [
        ("header.bin", lambda file: file.write_bytes(file.read_bytes()[:50])),
        ("header.bin", lambda file: _change(file, 36, struct.pack("<Q", 160))),
        ("header.bin", lambda file: _change(file, 20, struct.pack("<Q", 10_000))),
        ("header.bin", lambda file: _change(file, 20, struct.pack("<Q", 20))),
        ("header.bin", Path.unlink),
        ("data_level0.bin", lambda file: file.write_bytes(file.read_bytes()[:-1000])),
        ("data_level0.bin", lambda file: _change(file, 2000, b"\xff" * 300)),
        ("data_level0.bin", lambda file: _change(file, 164, struct.pack("<Q", 1 << 40))),
        ("data_level0.bin", lambda file: _change(file, 132, b"\x00\x00\xc0\x7f")),
        ("data_level0.bin", lambda file: _change(file, 4, b"\xff\xff\x00\x00")),
        ("data_level0.bin", Path.unlink),
        ("length.bin", lambda file: file.write_bytes(b"")),
        ("length.bin", lambda file: _change(file, 8, b"\x00\x00\xc0\xff")),
        ("link_lists.bin", lambda file: file.write_bytes(file.read_bytes()[:-10])),
        ("link_lists.bin", lambda file: _change(file, 0, b"\x01")),
        ("index_metadata.pickle", lambda file: _change(file, 5, bytes(50))),
        ("index_metadata.pickle", lambda file: file.write_bytes(pickle.dumps(Trap(file.parent / "ran")))),
        ("index_metadata.pickle", lambda file: file.write_bytes(pickle.dumps({"id_to_label": {}}))),
        ("index_metadata.pickle", _swapped),
        ("index_metadata.pickle", Path.unlink),
    ],
)
def test_damage_in_each_file_is_found(folder: Path, file: str, hurt: Callable[[Path], Any]) -> None:
    segment = _segment(folder, "files")  # of cosine distance, for which all files matter
    hurt(segment / file)
    for path in segment.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    found = _findings(folder)
    assert {one.code for one in found} >= {"chroma_segment_damaged"}
    assert any(segment.name in one.message for one in found)
    assert not (segment / "ran").exists()


@pytest.mark.damage
def test_vectors_whose_files_are_gone_are_missed(folder: Path) -> None:
    shutil.rmtree(_segment(folder))
    found = _findings(folder)
    assert {one.code for one in found} == {"chroma_segment_missing", "chroma_vector_missing"}
    named = [one.record for one in found if one.record]
    assert len(named) == 20
    assert any(re.match(r"\d+ more", one.message) for one in found)


@pytest.mark.damage
def test_a_damaged_database_is_said(folder: Path) -> None:
    file = folder / "chroma.sqlite3"
    data = bytearray(file.read_bytes())
    for page in range(4096, len(data) - 4096, 8192):
        data[page : page + 2048] = bytes(2048)
    file.write_bytes(data)
    codes = {one.code for one in _findings(folder)}
    assert codes & {"sqlite_integrity", "sqlite_unreadable", "chroma_unreadable"}


@pytest.mark.damage
def test_a_database_that_is_gone_is_no_store(folder: Path) -> None:
    (folder / "chroma.sqlite3").unlink()
    with pytest.raises(StoreError), _frozen(folder):
        pass


def _do(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_record_without_a_vector_is_named(folder: Path) -> None:
    _do(folder, "DELETE FROM embeddings_queue WHERE id = 'queue-12'")
    [finding] = _findings(folder)
    assert (finding.code, finding.record, finding.severity) == ("chroma_vector_missing", "queue-12", Severity.ERROR)


def test_a_vector_without_a_record_is_named(folder: Path) -> None:
    row = "(SELECT id FROM embeddings WHERE embedding_id = 'squares-12')"
    _do(
        folder,
        f"DELETE FROM embedding_metadata WHERE id = {row}",
        "DELETE FROM embeddings WHERE embedding_id = 'squares-12'",
    )
    found = [one for one in _findings(folder) if one.code.startswith("chroma")]
    assert [(one.code, one.record, one.severity) for one in found] == [
        ("chroma_vector_extra", "squares-12", Severity.WARNING)
    ]


def test_what_the_tables_have_not_yet_taken_from_the_queue_is_read_from_there(folder: Path, truth: Told) -> None:
    both = "segments s JOIN collections c ON c.id = s.collection"
    metadata = f"(SELECT s.id FROM {both} WHERE scope = 'METADATA' AND name = 'queue')"
    row = f"(SELECT id FROM embeddings WHERE segment_id = {metadata})"
    _do(
        folder,
        f"DELETE FROM embedding_metadata WHERE id IN {row}",
        f"DELETE FROM embeddings WHERE segment_id = {metadata}",
        f"DELETE FROM max_seq_id WHERE segment_id = {metadata}",
    )
    with _frozen(folder) as opened:
        there = _records(opened)["queue"]
        assert opened.findings() == []
    known = truth["queue"]["records"]
    assert there.keys() == known.keys()
    assert {key: row["text"] for key, row in there.items()} == {key: row["document"] for key, row in known.items()}
    assert there["queue-7"]["k"] == 1
    assert there["queue-7"]["n"] is None


def test_live_records_are_counted(folder: Path, truth: Told) -> None:
    for name in NAMES:
        assert ChromaEngine().count(_part(folder), name) == len(truth[name]["records"])
    assert ChromaEngine().count(_part(folder), "nothing") is None


def test_a_directory_is_one_part_and_what_else_lies_there_others(folder: Path, truth: Told) -> None:
    (folder / "notes.md").write_text("a note")
    (folder / "sub").mkdir()
    (folder / "sub" / "more.txt").write_text("more")
    [store] = discover([folder])
    assert {part.name: part.engine for part in store.parts} == {".": "chroma", "notes.md": "files", "sub": "files"}
    assert store.records == sum(len(told["records"]) for told in truth.values()) + 2
    [above] = discover([folder.parent])
    assert {part.name: part.engine for part in above.parts} == {".": "files", "db": "chroma", "db/notes.md": "files"}


def test_a_directory_is_brought_back_in_place_with_nothing_of_later(
    folder: Path, truth: Told, tell: Callable[[Path], Told], run_cli: Callable[..., Any], home: Path
) -> None:
    (folder / "notes.md").write_text("a note")
    environment = {"MEMKEEP_VAULT": str(home / "vault"), "MEMKEEP_PASSWORD": "x"}

    def run(*words: Any) -> Any:
        ran = run_cli(*words, "--json", env=environment)
        assert ran.code == 0, ran
        return ran.result

    run("init")
    [report] = run("backup", folder)["snapshots"]
    assert (report["rung"], report["findings"], report["omitted"]) == ("readable", [], [])
    assert run("verify", report["id"], "--rung", "equivalent")["rung"] == "equivalent"
    later = folder / "00000000-0000-4000-8000-000000000000"
    later.mkdir()
    (later / "header.bin").write_bytes(b"later")
    shutil.rmtree(_segment(folder))
    _do(folder, "DELETE FROM embeddings")
    run("restore", report["id"], "--in-place", "--confirm", "custom")
    assert not (later / "header.bin").exists()
    assert (folder / "notes.md").read_text() == "a note"
    assert tell(folder) == truth

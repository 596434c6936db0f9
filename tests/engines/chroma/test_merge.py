"""Records among those of a live Chroma directory: chromadb itself says what is there afterwards."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.chroma.conftest import run

from memkeep.engines.chroma import ChromaEngine
from memkeep.engines.chroma_files import INCLUDE
from memkeep.engines.merging import Conflict, Counts, Merged, Wanted
from memkeep.engines.rows import Columns
from memkeep.engines.sqlite_sql import connect
from memkeep.errors import StoreError
from memkeep.model import Part, Role, TableMap
from memkeep.records.record import Vector

NAMES = ("queue", "files", "squares", "dots", "bare", "empty")
SPOIL = """
import sys
import chromadb
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
for name in ("queue", "files"):
    one = client.get_collection(name, embedding_function=None)
    one.delete(ids=[f"{name}-1", f"{name}-11"])
    one.update(ids=[f"{name}-2"], embeddings=[[3.0] * 8], documents=["older"], metadatas=[{"n": 1, "more": "x"}])
    one.update(ids=[f"{name}-12"], embeddings=[[4.0] * 8], documents=["later"], metadatas=[{"n": 1000}])
    one.update(ids=[f"{name}-13"], embeddings=[[1.0] * 8])
    one.add(ids=["own"], embeddings=[[2.0] * 8], documents=["own"])
client.delete_collection("dots")
"""
Tell = Callable[[Path], dict[str, Any]]


def _part(folder: Path) -> Part:
    fields = {"text": "document", "user": "even", "created_at": "n"}
    maps = [TableMap(collection=each, table=each, id="id", fields=fields, times={"created_at": "s"}) for each in NAMES]
    return Part(name="db", engine="chroma", role=Role.CANONICAL, path=str(folder), maps=tuple(maps), include=INCLUDE)


def _merge(image: Path, live: Path, conflict: Conflict, *, commit: bool = True, **wanted: Any) -> Merged:
    with ChromaEngine().merge(_part(live), _part(image), image.parent, Wanted(conflict=conflict, **wanted)) as one:
        if commit:
            one.commit()
        return one.result


def _insert(live: Path, rows: dict[str, Any], conflict: Conflict = "skip") -> Merged:
    given = {table: lambda some=some: iter([some]) for table, some in rows.items()}
    with ChromaEngine().merge_rows(_part(live), given, Wanted(conflict=conflict)) as one:
        one.commit()
        return one.result


@pytest.fixture(scope="module")
def spoiled(made: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoiled") / "db"
    shutil.copytree(made[0], folder)
    run(SPOIL, folder)
    return folder


@pytest.fixture
def live(spoiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(spoiled, tmp_path / "live" / "db"))


def _texts(told: dict[str, Any], name: str, *numbers: int) -> list[str | None]:
    records = told[name]["records"]
    return [records.get(f"{name}-{number}", {}).get("document") for number in numbers]


@pytest.mark.parametrize(
    ("conflict", "wanted"),
    [
        ("skip", ({"inserted": 2, "skipped": 3}, ["document 1", "older", "later"])),
        ("update", ({"inserted": 2, "updated": 3}, ["document 1", "document 2", "document 12"])),
        ("newer", ({"inserted": 2, "updated": 1, "skipped": 2}, ["document 1", "document 2", "later"])),
    ],
)
def test_records_go_in_as_asked_and_chromadb_finds_them(
    folder: Path, truth: Any, live: Path, tell: Tell, conflict: Conflict, wanted: tuple[dict[str, int], list[str]]
) -> None:
    counts, texts = wanted
    untouched = (live / "chroma.sqlite3").read_bytes()
    dry = _merge(folder, live, conflict, commit=False)
    assert dry.left == ("dots is left out: the directory has no such collection",)
    assert (live / "chroma.sqlite3").read_bytes() == untouched
    assert _merge(folder, live, conflict) == dry
    for name in ("queue", "files"):
        same = len(truth[name]["records"]) - sum(counts.values())
        assert dry.tables[name] == Counts(**counts, same=same)
    assert dry.tables["squares"] == Counts(same=len(truth["squares"]["records"]))
    after = tell(live)
    for name in ("queue", "files"):
        assert _texts(after, name, 1, 2, 12) == texts
        for number in (1, 11):
            record = f"{name}-{number}"
            mine, theirs = after[name]["records"][record], truth[name]["records"][record]
            assert mine["metadata"] == theirs["metadata"]
            assert np.allclose(mine["vector"], theirs["vector"], rtol=1e-6)
        assert after[name]["records"]["own"]["document"] == "own"
        if conflict == "update":
            assert after[name]["records"].keys() == truth[name]["records"].keys() | {"own"}
            for record, known in truth[name]["records"].items():
                mine = after[name]["records"][record]
                assert (mine["document"], mine["metadata"]) == (known["document"], known["metadata"])
                assert np.allclose(mine["vector"], known["vector"], rtol=1e-5, atol=1e-6)
    again = _merge(folder, live, "update").tables
    assert all(one.inserted == 0 for one in again.values())
    assert conflict != "update" or all(one.updated == 0 for one in again.values())


def test_the_numbers_of_older_versions_are_gone_on_from(folder: Path, live: Path, tell: Tell) -> None:
    """Before 0.6 they were 8 bytes."""
    with closing(sqlite3.connect(live / "chroma.sqlite3")) as con, con:
        for segment, number in con.execute("SELECT segment_id, seq_id FROM max_seq_id").fetchall():
            con.execute(
                "UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (int(number).to_bytes(8, "big"), segment)
            )
    assert _merge(folder, live, "skip").tables["queue"].inserted == 2
    with closing(sqlite3.connect(live / "chroma.sqlite3")) as con, con:
        for segment, number in con.execute("SELECT segment_id, seq_id FROM max_seq_id").fetchall():
            con.execute(
                "UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (int.from_bytes(number, "big"), segment)
            )
    assert _texts(tell(live), "queue", 1, 11) == ["document 1", "document 11"]


def test_only_one_users_records_go_in(folder: Path, live: Path) -> None:
    done = _merge(folder, live, "skip", users=("False",))
    assert done.tables["queue"].inserted == 2
    assert _merge(folder, live, "skip", users=("nobody",)).tables["queue"] == Counts()


ASK = """
import json, sys
import chromadb
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
one = client.get_collection("empty", embedding_function=None)
got = one.get(include=["documents", "metadatas", "embeddings"])
found = one.query(query_embeddings=[[0.0, 1.0, 0.0]], n_results=1)["ids"]
words = one.get(where_document={"$contains": "naïve"})["ids"]
tags = one.get(where={"n": 7})["ids"]
one.add(ids=["after"], embeddings=[[1.0, 1.0, 1.0]])
print(json.dumps([got["ids"], got["documents"], got["metadatas"], found, words, tags, one.count()]))
"""


def _row(name: str, vector: list[float] | None, **more: Any) -> dict[str, Any]:
    there = {} if vector is None else {"vector": Vector.f32(np.asarray(vector, "<f4").tobytes())}
    return {"id": name} | there | more


def test_given_records_go_into_an_empty_collection_and_those_that_chroma_takes_not_are_named(live: Path) -> None:
    good = _row("good", [0, 1, 0], document="naïve 🙂", n=7, half=0.5, yes=True, tags=["a", "b"])
    rows = [
        good,
        _row("plain", [1, 0, 0]),
        _row("wide", [1, 0, 0, 0]),
        _row("none", None),
        {"id": "f64", "vector": Vector(data=b"short", type="f64", dims=3)},
        _row("nan", [float("nan"), 0, 0]),
        _row("nested", [1, 0, 0], deep={"a": 1}),
        _row("null", [1, 0, 0], nothing=None),
        _row("large", [1, 0, 0], n=1 << 63),
        _row("mixed", [1, 0, 0], n=[1, "a"]),
        _row("text", [1, 0, 0], document="\udc80"),
        _row("", [1, 0, 0]),
        _row("good", [1, 0, 0]),
    ]
    done = _insert(live, {"empty": rows, "gone": [good]})
    assert sorted(row.id for row in done.failed) == sorted(
        ["wide", "none", "f64", "nan", "nested", "large", "mixed", "text", "", "good"]
    )
    assert done.tables == {"empty": Counts(inserted=3)}
    assert done.left == ("gone is left out: the directory has no such collection",)
    ids, documents, metadatas, found, words, tags, count = json.loads(run(ASK, live))
    assert sorted(ids) == ["good", "null", "plain"]
    assert dict(zip(ids, documents, strict=True))["good"] == "naïve 🙂"
    assert dict(zip(ids, metadatas, strict=True))["good"] == {"n": 7, "half": 0.5, "yes": True, "tags": ["a", "b"]}
    assert (found, words, tags, count) == ([["good"]], ["good"], ["good"], 4)


def test_given_records_leave_what_they_do_not_have_as_it_is(live: Path, tell: Tell) -> None:
    rows = [{"id": "bare-1", "n": 1}, {"id": "1", "n": 7}, {"id": "é", "vector": Vector.f32(b"\0\0\x80?" * 2)}]
    done = _insert(live, {"bare": rows}, "update")
    assert [row.id for row in done.failed] == ["bare-1"]  # new, and without a vector
    assert done.tables == {"bare": Counts(updated=2)}
    assert _insert(live, {"bare": rows[1:]}, "fail").tables == {"bare": Counts(same=2)}
    told = tell(live)["bare"]["records"]
    assert told["1"] == {"document": None, "metadata": {"n": 7}, "vector": [1.0, 2.0]}
    assert told["é"]["vector"] == [1.0, 1.0]
    columns = ChromaEngine().columns(_part(live), "bare")
    assert columns == Columns(names=("id", "document", "vector"), vectors={"vector": 2})
    assert ChromaEngine().columns(_part(live), "gone") is None


RUNNING = """
import sys
import chromadb
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
one = client.get_collection("files", embedding_function=None)
print(one.count(), flush=True)
sys.stdin.readline()
one.add(ids=["its own"], embeddings=[[5.0] * 8])
found = one.query(query_embeddings=[[1.0] * 8])["ids"] != []
print(one.count(), one.get(ids=["files-1"])["documents"], found, flush=True)
"""


def test_a_client_that_is_running_finds_them_when_it_has_written_next(
    folder: Path, live: Path, agent: Callable[..., Any]
) -> None:
    client = agent(RUNNING, live)
    count = int(client.hear())
    assert _merge(folder, live, "skip").tables["files"].inserted == 2
    client.say()
    assert client.hear() == f"{count + 3} ['document 1'] True"


WRITING = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1])
con.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_database_that_is_written_to_refuses_it_all(
    folder: Path, live: Path, agent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memkeep.engines.chroma_merge.connect", partial(connect, patience=0.01))
    assert agent(WRITING, live / "chroma.sqlite3").hear() == "ready"
    with pytest.raises(StoreError, match="can't be written"):
        _merge(folder, live, "skip")


def test_vectors_that_are_damaged_take_no_records(folder: Path, live: Path) -> None:
    with closing(sqlite3.connect(live / "chroma.sqlite3")) as con:
        sql = "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection WHERE c.name = 'files'"
        segment = con.execute(f"{sql} AND s.scope = 'VECTOR'").fetchone()[0]
    (live / segment / "header.bin").write_bytes(b"\0" * 100)
    before = (live / "chroma.sqlite3").read_bytes()
    with pytest.raises(StoreError, match="vectors of files can't be read"):
        _merge(folder, live, "update")
    assert (live / "chroma.sqlite3").read_bytes() == before

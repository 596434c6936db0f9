"""Records of a snapshot among those of stores in folders whose products keep more than a database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import chromadb
import lance
import lancedb
import pytest
from chromadb.config import Settings

from memkeep.errors import StoreError
from memkeep.library import OpenVault
from memkeep.ops.merged import MergeResult

NewVault = Callable[..., OpenVault]


def merged(vault: OpenVault, store: Path, snapshot: str, **more: Any) -> MergeResult:
    """Rehearse and do it; both must say the same."""
    rehearsed = vault.restore_into(store, snapshot, dry_run=True, **more).merged
    done = vault.restore_into(store, snapshot, **more)
    assert done.merged is not None
    assert done.merged == rehearsed
    assert [one.code for one in done.findings] == ["seen_later"]
    return done.merged


def test_memories_that_a_lancedb_plugin_lost_come_back(copy_store: Callable[..., Path], new_vault: NewVault) -> None:
    store = copy_store("memory-lancedb-2026.3.13", "lancedb")
    vault = new_vault()
    first = vault.backup(store).snapshots[0].id
    table = lance.dataset(str(store / "memories.lance"))
    before = {row["id"]: row for row in table.to_table().to_pylist()}
    lost, changed = sorted(before)[:2]
    table.delete(f"id = '{lost}'")
    table.update({"text": "'changed'"}, f"id = '{changed}'")
    done = merged(vault, store, first, conflict="update")
    assert (done.inserted, done.updated, done.skipped, done.same) == (1, 1, 0, len(before) - 2)
    after = lancedb.connect(str(store)).open_table("memories").to_arrow().to_pylist()
    assert {row["id"]: row for row in after} == before


def test_what_was_merged_into_chroma_is_backed_up_and_undone(tmp_path: Path, new_vault: NewVault) -> None:
    store = tmp_path / "chroma"
    client = chromadb.PersistentClient(str(store), settings=Settings(anonymized_telemetry=False))
    one = client.create_collection("notes", embedding_function=None)
    texts = {f"id-{n}": f"text {n}" for n in range(8)}
    vectors = [[1.0, float(n)] for n in range(8)]
    one.add(ids=list(texts), documents=list(texts.values()), embeddings=vectors)  # type: ignore[arg-type]
    vault = new_vault()
    first = vault.backup(store).snapshots[0].id
    one.delete(ids=["id-1", "id-2"])
    lost = vault.backup(store).snapshots[0].id
    done = merged(vault, store, first)
    assert (done.inserted, done.same) == (2, 6)
    report = vault.diff(first, str(store))
    assert (report.added, report.removed, report.changed, report.collections) == ((), (), (), 1)
    assert vault.backup(store).snapshots[0].records == 8
    kept = vault.snapshots(tag="before-restore").snapshots[0].id
    diff = vault.diff(lost, kept)
    assert (diff.added, diff.removed, diff.changed, diff.collections) == ((), (), (), 1)


def test_a_part_that_takes_nothing_after_another_was_merged_says_what_is_so(
    tmp_path: Path, new_vault: NewVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3
    from contextlib import closing

    from memkeep.engines.sqlite import SqliteMerging

    store = tmp_path / "both"
    store.mkdir()
    with closing(sqlite3.connect(store / "facts.db")) as con:
        con.executescript("CREATE TABLE facts (id TEXT PRIMARY KEY, text TEXT); INSERT INTO facts VALUES ('1', 'one')")
    lancedb.connect(str(store)).create_table("facts", [{"id": "1", "text": "one", "vector": [1.0, 2.0]}])
    vault = new_vault()
    first = vault.backup(store).snapshots[0].id
    lance.dataset(str(store / "facts.lance")).delete("true")

    def refuses(self: SqliteMerging) -> None:
        raise StoreError("the disk is full", hint="df -h")

    monkeypatch.setattr(SqliteMerging, "commit", refuses)
    with pytest.raises(StoreError, match=r"facts\.db was not changed: the disk is full") as caught:
        vault.restore_into(store, first)
    assert "facts.lance had been changed already" in caught.value.unchanged
    assert caught.value.hint.startswith("memkeep restore ")
    assert lance.dataset(str(store / "facts.lance")).count_rows() == 1


def test_a_part_that_the_store_no_longer_has_is_named_and_is_no_success(
    tmp_path: Path, new_vault: NewVault, run_cli: Callable[..., Any]
) -> None:
    import shutil
    import sqlite3
    from contextlib import closing

    store = tmp_path / "both"
    store.mkdir()
    with closing(sqlite3.connect(store / "facts.db")) as con:
        con.executescript("CREATE TABLE facts (id TEXT PRIMARY KEY, text TEXT); INSERT INTO facts VALUES ('1', 'one')")
    lancedb.connect(str(store)).create_table("facts", [{"id": "1", "text": "one", "vector": [1.0, 2.0]}])
    vault = new_vault()
    first = vault.backup(store).snapshots[0].id
    shutil.rmtree(store / "facts.lance")
    place = tmp_path / "home" / "vault"
    ran = run_cli("--vault", place, "restore", first[:12], "--into", store, "--json", env={"MEMKEEP_PASSWORD": "pw"})
    assert ran.code == 3
    assert [one["part"] for one in ran.result["omitted"]] == ["facts.lance"]
    assert [(one["code"], one["part"]) for one in ran.result["findings"]] == [("part_unread", "facts.lance")]
    assert ran.result["merged"]["same"] == 1

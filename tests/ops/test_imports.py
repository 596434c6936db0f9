"""What other programs wrote goes into a store: every record of it, once, or it is named."""

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import msgspec
import pytest

from memkeep.engines import lance_new
from memkeep.errors import FileError, RefusedError, StoreError, UsageError
from memkeep.library import OpenVault
from memkeep.ops import records
from memkeep.ops.export import export
from memkeep.ops.imports import ImportResult, Reading, import_
from memkeep.records.readers import hybrid_export
from memkeep.records.record import Record, Relationship

Copy = Callable[..., Path]

STORES = {
    "oc-memory": ("oc-memory", "memory.db"),
    "openclaw-hybrid": ("hybrid-2026.4.273", "memory"),
    "memory-lancedb": ("memory-lancedb-2026.3.13", "lancedb"),
    "memory-lancedb-pro": ("pro-1.1.0-beta.11", "lancedb-pro"),
}


def store_of(product: str, copy_store: Copy) -> Path:
    folder, inside = STORES[product]
    return copy_store(folder) / inside


def lean(store: Path) -> Path:
    """Leave of an openclaw-hybrid store the facts and their vectors: each further database takes its time."""
    for one in store.iterdir():
        if not one.name.startswith(("facts.db", "lancedb")):
            shutil.rmtree(one) if one.is_dir() else one.unlink()
    return store


def read(place: Path) -> tuple[list[Record], list[Relationship]]:
    with records.of(None, str(place)) as source:
        return list(source.records()), list(source.relationships())


def exported(store: Path, folder: Path, name: str = "json") -> Path:
    with records.of(None, str(store)) as source:
        export(source, folder, name)
    return folder


def imported(path: Path, into: str | Path, **more: Any) -> ImportResult:
    return import_(None, str(path), str(into), **more)


def numbers(result: ImportResult) -> tuple[int, int, int, int]:
    assert result.merged is not None
    assert not result.merged.failed
    return result.merged.inserted, result.merged.updated, result.merged.skipped, result.merged.same


def notes(folder: Path) -> Path:
    (folder / "memory").mkdir(parents=True)
    (folder / "MEMORY.md").write_text("# Long\n\n- Anna likes tea\n- The server is db1\n")
    (folder / "memory" / "2026-01-02.md").write_text("## Log\n\n- Met Bo\n")
    return folder


@pytest.mark.real
@pytest.mark.parametrize(
    ("product", "format_"),
    [
        ("oc-memory", "csv"),
        ("openclaw-hybrid", "json"),
        ("memory-lancedb", "alf"),
        ("memory-lancedb", "jsonl"),
        ("memory-lancedb-pro", "parquet"),
    ],
)
def test_an_export_makes_the_same_store_again_and_a_second_time_nothing(
    product: str, format_: str, copy_store: Copy, tmp_path: Path
) -> None:
    store = store_of(product, copy_store)
    files = exported(store, tmp_path / "export", format_)
    new = tmp_path / ("new.db" if product == "oc-memory" else "new")
    planned = imported(files, f"{product}:{new}", dry_run=True)
    assert not new.exists()
    made = imported(files, f"{product}:{new}")
    assert planned == msgspec.structs.replace(made, dry_run=True, undo=None)
    assert (made.format, made.refused, made.undo) == (format_, (), f"rm -r {new}")
    assert read(new) == read(store)
    for place in (new, store):
        assert numbers(imported(files, place, conflict="update", dry_run=True))[:3] == (0, 0, 0)
    assert not {"lost"} & {one.fate for one in made.fields}


@pytest.mark.real
def test_what_pro_exported_is_in_its_store_already(copy_store: Copy, stores: Path) -> None:
    store = store_of("memory-lancedb-pro", copy_store)
    result = imported(stores / "pro-1.1.0-beta.11" / "memory-pro-export.json", store, dry_run=True)
    assert numbers(result) == (0, 0, 0, 59)


@pytest.mark.real
def test_a_store_for_records_without_vectors_needs_their_size(copy_store: Copy, stores: Path, tmp_path: Path) -> None:
    path = stores / "pro-1.1.0-beta.11" / "memory-pro-export.json"
    with pytest.raises(UsageError, match="size") as told:
        imported(path, f"memory-lancedb-pro:{tmp_path / 'new'}")
    assert "--dims" in told.value.hint
    assert not (tmp_path / "new").exists()
    imported(path, f"memory-lancedb-pro:{tmp_path / 'new'}", dims=16)
    table = lancedb.connect(tmp_path / "new").open_table("memories")
    assert table.schema.field("vector").type.list_size == 16
    meant = {
        one.id: msgspec.structs.replace(one, vectors={}) for one in read(store_of("memory-lancedb-pro", copy_store))[0]
    }
    assert {one.id: one for one in read(tmp_path / "new")[0]} == meant


def hybrid_folder(store: Path, folder: Path) -> Path:
    """Write the facts of a store as its product exports them."""
    with sqlite3.connect(store / "facts.db") as con:
        for name, text, category, tags in con.execute(
            "SELECT id, text, category, tags FROM facts WHERE superseded_at IS NULL"
        ):
            file = (
                folder / "memory" / category / (tags or "").split(",")[0] / f"{hybrid_export._slug(text)}-{name[:8]}.md"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    (folder / "manifest.json").write_text(json.dumps({"version": "2026.4.273", "factsExported": 40}))
    return folder


@pytest.mark.real
def test_a_fact_is_known_again_by_the_eight_digits_that_its_export_has(
    copy_store: Copy, tmp_path: Path, new_vault: Callable[..., OpenVault]
) -> None:
    store = lean(store_of("openclaw-hybrid", copy_store))
    files = hybrid_folder(store, tmp_path / "export")
    before = read(store)
    assert numbers(imported(files, store, conflict="update", dry_run=True))[:3] == (0, 0, 0)
    changed = next((files / "memory").rglob("*.md"))
    identity = changed.stem.rpartition("-")[2]
    changed.write_text("It is all different now")
    result = new_vault(encrypted=False).import_(files, store, conflict="update")
    assert numbers(result)[:3] == (0, 1, 0)
    (old,) = (one for one in before[0] if one.id.startswith(identity) and one.primary)
    after = read(store)[0]
    (new,) = (one for one in after if one.id.startswith(identity) and one.primary)
    assert new.text == "It is all different now"
    assert (new.created_at, new.scope, new.tags) == (old.created_at, old.scope, old.tags)
    assert len(after) == len(before[0])


@pytest.mark.real
def test_what_an_export_does_not_say_is_filled_in_where_the_table_must_have_it(
    copy_store: Copy, tmp_path: Path
) -> None:
    files = hybrid_folder(lean(store_of("openclaw-hybrid", copy_store)), tmp_path / "export")
    result = imported(files, f"openclaw-hybrid:{tmp_path / 'new'}")
    assert numbers(result) == (40, 0, 0, 0)
    assert numbers(imported(files, tmp_path / "new", conflict="update", dry_run=True)) == (0, 0, 0, 40)


def test_a_relationship_without_a_time_goes_into_a_table_that_must_have_one(tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    lines: list[dict[str, Any]] = [
        {"type": "entity", "name": "Anna", "entityType": "person", "observations": ["likes tea"]},
        {"type": "entity", "name": "Oslo", "entityType": "city", "observations": []},
        {"type": "relation", "from": "Anna", "to": "Oslo", "relationType": "lives_in"},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    result = imported(path, f"openclaw-hybrid:{tmp_path / 'new'}")
    assert numbers(result) == (5, 0, 0, 0)  # two facts, what is carried with them, a link
    (link,) = read(tmp_path / "new")[1]
    assert (link.source, link.target, link.type) == ("Anna", "Oslo", "lives_in")


@pytest.mark.real
@pytest.mark.parametrize("conflict", ["skip", "update", "newer", "fail"])
def test_a_text_that_was_changed_in_an_export_changes_that_record_alone(
    conflict: Any, copy_store: Copy, tmp_path: Path, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault(encrypted=False)
    store = store_of("memory-lancedb", copy_store)
    file = exported(store, tmp_path / "export") / "export.json"
    before = {(one.collection, one.id): one for one in read(store)[0]}
    old = next(one for one in before.values() if one.primary)
    said = json.loads(file.read_text())
    (each,) = (one for one in said["memories"] if one["id"] == old.id)
    each["content"] = "changed by hand"
    file.write_text(json.dumps(said))
    if conflict == "fail":
        with pytest.raises(RefusedError, match=old.id):
            vault.import_(file, store, conflict=conflict)
    else:
        result = vault.import_(file, store, conflict=conflict)
        assert numbers(result)[:3] == ((0, 1, 0) if conflict == "update" else (0, 0, 1))
    after = {(one.collection, one.id): one for one in read(store)[0]}
    if conflict == "update":
        before[old.collection, old.id] = msgspec.structs.replace(old, text="changed by hand")
    assert after == before


@pytest.mark.real
def test_a_damaged_record_is_named_and_the_others_go_in(copy_store: Copy, tmp_path: Path) -> None:
    file = exported(store_of("oc-memory", copy_store), tmp_path / "export", "jsonl") / "memories.jsonl"
    lines = file.read_text().splitlines()
    lines[3] = lines[3][: len(lines[3]) // 2]
    file.write_text("\n".join(lines))
    result = imported(file, f"oc-memory:{tmp_path / 'new.db'}")
    (refused,) = result.refused
    assert refused.where.endswith("line 4")
    assert [one.record for one in result.findings if one.code == "record_refused"] == [refused.where]
    assert len(read(tmp_path / "new.db")[0]) == result.records == 6


def test_what_is_no_export_is_told_with_what_could_be(tmp_path: Path, copy_store: Copy) -> None:
    (tmp_path / "shopping.txt").write_text("milk")
    target = f"oc-memory:{tmp_path / 'new.db'}"
    with pytest.raises(FileError, match=r"alf, csv, .*openclaw backup") as told:
        imported(tmp_path / "shopping.txt", target)
    assert told.value.code == "format_unknown"
    with pytest.raises(FileError, match="there is no") as told:
        imported(tmp_path / "gone.json", target)
    assert told.value.code == "file_missing"
    with pytest.raises(FileError, match="a store of openclaw-lancedb") as told:
        imported(store_of("memory-lancedb", copy_store), target)
    assert told.value.hint.startswith("memkeep migrate ")
    assert not (tmp_path / "new.db").exists()


def test_the_history_of_notes_and_a_zone_are_for_what_has_them(tmp_path: Path) -> None:
    folder = notes(tmp_path / "notes")
    target = f"oc-memory:{tmp_path / 'new.db'}"
    with pytest.raises(UsageError, match="git"):
        imported(folder, target, reading=Reading(history=True))
    with pytest.raises(UsageError, match="--zone"):
        imported(folder, target, reading=Reading(zone="Europe/Berlin"))
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "1"]):
        subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)
    (folder / "MEMORY.md").write_text("- The server is db1\n")
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "2"], check=True
    )
    assert numbers(imported(folder, target))[0] > 0
    assert {one.text for one in read(tmp_path / "new.db")[0]} == {"The server is db1", "Met Bo"}
    result = imported(folder, f"oc-memory:{tmp_path / 'all.db'}", reading=Reading(history=True))
    assert result.format == "markdown-notes-history"
    gone = {one.text for one in read(tmp_path / "all.db")[0] if one.status == "archived"}
    assert gone == {"Anna likes tea"}


@pytest.mark.real
def test_of_an_archive_the_store_that_fits_the_target_is_taken(copy_store: Copy, tmp_path: Path) -> None:
    root = "2026-11-21T10-00-00.000+01-00-openclaw-backup"
    hybrid, oc = store_of("openclaw-hybrid", copy_store), store_of("oc-memory", copy_store)
    (tmp_path / "link").symlink_to("/nowhere")
    with tarfile.open(tmp_path / f"{root}.tar.gz", "w:gz") as tar:
        tar.add(hybrid, f"{root}/payload/posix/home/anna/.openclaw/memory")
        tar.add(oc, f"{root}/payload/posix/home/anna/.openclaw/memory.db")
        tar.add(tmp_path / "link", f"{root}/payload/posix/home/anna/.openclaw/link")
    result = imported(tmp_path / f"{root}.tar.gz", f"openclaw-hybrid:{tmp_path / 'new'}")
    assert result.format == "openclaw backup"
    assert read(tmp_path / "new") == read(hybrid)
    assert [one.code for one in result.findings] == ["entry_left"]
    with pytest.raises(FileError, match="holds 2 stores"):
        imported(tmp_path / f"{root}.tar.gz", f"mem0:{tmp_path / 'other'}")


@pytest.mark.real
def test_what_an_import_did_to_a_store_is_undone_as_it_says(
    copy_store: Copy, tmp_path: Path, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault(encrypted=False)
    store = store_of("oc-memory", copy_store)
    before = read(store)
    result = vault.import_(notes(tmp_path / "notes"), store)
    assert result.kept is not None
    assert result.undo == f"memkeep restore {result.kept[:12]} --in-place --confirm=oc-memory"
    assert len(read(store)[0]) == len(before[0]) + 3
    vault.restore(result.kept, in_place=True, confirm="oc-memory")
    assert read(store) == before


def test_a_new_store_that_can_not_be_filled_is_not_left_behind(
    tmp_path: Path, copy_store: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = exported(lean(store_of("openclaw-hybrid", copy_store)), tmp_path / "export")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.bin").write_bytes(b"mine")

    def full(*_: object) -> None:
        raise StoreError("the disk is full", hint="df -h")

    with monkeypatch.context() as patch:
        patch.setattr(lance_new, "create", full)
        for place in ("new", "mine"):
            with pytest.raises(StoreError, match="full"):
                imported(files, f"openclaw-hybrid:{tmp_path / place}")
    assert not (tmp_path / "new").exists()
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["letter.bin"]
    result = imported(files, f"openclaw-hybrid:{tmp_path / 'mine'}")
    assert result.undo == f"rm -r {tmp_path / 'mine/facts.db'} {tmp_path / 'mine/lancedb'}"


_KILLED = """
import os, signal, sys
from memkeep.ops import imports, merged
from memkeep.ops.merged import TRANSACTIONAL
import memkeep.ops.writing as writing
at, path, into = int(sys.argv[1]), sys.argv[2], sys.argv[3]
seen = 0
def die():
    global seen
    seen += 1
    if seen > at:
        os.kill(os.getpid(), signal.SIGKILL)
rows = writing._Layer._row
writing._Layer._row = lambda *given: (die(), rows(*given))[1]
commit = writing.commit_all
def committed(done, store, kept):
    die()
    class One:
        def __init__(self, one): self.one = one
        def commit(self): self.one.commit(); die()
    commit([(part, One(one)) for part, one in done], store, kept)
writing.commit_all = committed
imports.import_(None, path, into)
print(seen)
"""


@pytest.mark.real
def test_an_import_that_was_killed_is_completed_by_the_next(
    copy_store: Copy, tmp_path: Path, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault(encrypted=False)
    store = lean(store_of("openclaw-hybrid", copy_store))
    files = exported(store, tmp_path / "export")

    def run(at: int, place: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", _KILLED, str(at), str(files), f"openclaw-hybrid:{place}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = run(10**9, tmp_path / "whole")
    meant = read(store)
    steps = int(whole.stdout)  # each row, before the first part is made to last, after each part
    for at in (0, steps - 3, steps - 2, steps - 1):
        place = tmp_path / f"killed-{at}"
        assert run(at, place).returncode == -9
        vault.import_(files, f"openclaw-hybrid:{place}")
        assert read(place) == meant
        shutil.rmtree(place)

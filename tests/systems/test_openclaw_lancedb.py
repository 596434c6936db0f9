import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.model import Role, Store
from memkeep.systems.marks import lancedb_variant

Find = Callable[..., list[Store]]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "sub", "variant"),
    [("memory-lancedb-2026.3.13", "lancedb", "legacy"), ("pro-1.1.0-beta.11", "lancedb-pro", "pro")],
)
def test_a_real_store_is_told_by_its_columns(
    copy_store: Callable[..., Path], find: Find, complete: Callable[..., None], name: str, sub: str, variant: str
) -> None:
    copy = copy_store(name, sub)
    truth = json.loads((copy_store(name) / "truth.json").read_text())
    moved = copy.parent / "misleading" / ("lancedb" if variant == "pro" else "lancedb-pro")
    moved.parent.mkdir()
    copy.rename(moved)
    (store,) = find(moved.parent)
    assert (store.system, store.path, store.root) == ("openclaw-lancedb", str(moved), str(moved))
    assert store.records == truth["records"]["total"]
    assert store.fingerprint == {"variant": variant, "embedding": {"dims": 16}}
    roles = {part.name: part.role for part in store.parts}
    assert roles.pop("memories.lance") is Role.CANONICAL
    assert roles == ({".memory-write.lock": Role.DISPOSABLE} if variant == "pro" else {})
    complete(store)
    (mapped,) = next(part.maps for part in store.parts if part.engine == "lance")
    assert {mapped.id, *mapped.fields.values(), *mapped.vectors} <= truth["lance"]["memories"]["columns"].keys()
    assert mapped.fields["created_at"] == truth["records"]["time_column"]


@pytest.mark.parametrize(
    ("added", "variant", "fields"),
    [
        ("createdAt", "legacy", {"created_at": "createdAt"}),
        ("createdAt agentId", "per-agent", {"created_at": "createdAt", "scope": "agentId"}),
        ("createdAt agentId scope", "per-agent", {"created_at": "createdAt", "scope": "scope"}),
        ("scope timestamp metadata", "pro", {"created_at": "timestamp", "scope": "scope"}),
        ("timestamp", "pro", {"created_at": "timestamp"}),
        ("scope", "pro", {"scope": "scope"}),
    ],
)
def test_the_same_path_and_table_name_are_told_apart_by_columns(
    make: Any, find: Find, tmp_path: Path, added: str, variant: str, fields: dict[str, str]
) -> None:
    columns = ("id", "text", "vector", "category", "importance", *added.split())
    make.table(tmp_path / "memory/lancedb/memories.lance", columns)
    (store,) = find(tmp_path / "memory")
    assert (store.system, store.records, store.fingerprint["variant"]) == ("openclaw-lancedb", 2, variant)
    (mapped,) = store.parts[0].maps
    assert mapped.fields == {"text": "text", "category": "category", "importance": "importance", **fields}
    unit = {"createdAt": "ms", "timestamp": "auto"}.get(fields.get("created_at", ""))
    assert mapped.times.get("created_at") == unit
    assert mapped.vectors == ("vector",)


@pytest.mark.parametrize(
    "columns",
    [
        ("id", "text", "vector"),
        ("id", "text", "vector", "category", "importance"),
        ("id", "text", "why", "vector", "category", "importance", "createdAt"),
        ("id", "content", "vector", "category", "importance", "createdAt"),
    ],
)
def test_tables_of_others_are_not_claimed(make: Any, find: Find, tmp_path: Path, columns: tuple[str, ...]) -> None:
    make.table(tmp_path / "lancedb/memories.lance", columns)
    assert [store.system for store in find(tmp_path / "lancedb")] == ["custom"]


def test_an_old_hybrid_table_is_hybrids_where_its_facts_lie(make: Any, find: Find, tmp_path: Path) -> None:
    assert lancedb_variant(make.legacy) == "legacy"
    assert lancedb_variant(make.legacy, beside_hybrid=True) is None
    make.table(make.hybrid(tmp_path / "memory") / "lancedb/memories.lance", make.legacy)
    (store,) = find(tmp_path / "memory")
    assert store.system == "openclaw-hybrid"


def test_a_per_agent_folder_may_hold_several_tables(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "db"
    make.table(folder / "memories.lance", [*make.legacy, "agentId"])
    make.table(folder / "memories_b.lance", [*make.legacy, "agentId"], rows=3)
    make.table(folder / "other.lance", ["id", "content", "vector"])
    make.table(folder / "opaque.lance", ["x", "y"])
    (store,) = find(folder)
    complete(store)
    assert store.records == 5
    assert {part.name: [each.primary for each in part.maps] for part in store.parts} == {
        "memories.lance": [True],
        "memories_b.lance": [True],
        "opaque.lance": [],
        "other.lance": [False],
    }


def test_everything_in_the_folder_belongs_to_the_store(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "db"
    make.table(folder / "memories.lance", make.pro)
    make.files(folder, ".legacy-timestamp-backfill-backups/1.json", "notes.txt", "sub/x", ".env", ".memory-write.lock")
    (store,) = find(tmp_path / "db")
    complete(store)
    assert {part.name for part in store.parts} == {
        ".legacy-timestamp-backfill-backups",
        ".memory-write.lock",
        "memories.lance",
        "notes.txt",
        "sub",
    }


def test_in_another_products_home_only_the_tables_are_taken(make: Any, find: Find, tmp_path: Path) -> None:
    state = make.state_dir(tmp_path / "state")
    make.table(state / "memories.lance", make.pro)
    make.files(state, ".memory-write.lock", "cron/jobs.json", ".legacy-timestamp-backfill-backups/1.json")
    found = {store.system: {part.name for part in store.parts} for store in find(state)}
    assert found["openclaw-lancedb"] == {
        ".legacy-timestamp-backfill-backups",
        ".memory-write.lock",
        "memories.lance",
    }
    assert found["openclaw-core"] >= {"cron", "openclaw.json", "workspace"}
    assert not found["openclaw-core"] & found["openclaw-lancedb"]


def test_the_embedder_is_the_one_that_the_settings_name_for_this_folder(make: Any, find: Find, tmp_path: Path) -> None:
    embedding = {"provider": "openai", "model": "text-embedding-3-small", "apiKey": "x"}
    entries = {"memory-lancedb": {"config": {"embedding": embedding}}}
    state = make.state_dir(tmp_path / "state", {"plugins": {"entries": entries}})
    make.table(state / "memory/lancedb/memories.lance", make.legacy)
    make.table(state / "memory/lancedb-pro/memories.lance", make.pro)
    found = {store.fingerprint["variant"]: store.fingerprint for store in find(state / "memory")}
    assert found["legacy"]["embedding"] == {"provider": "openai", "model": "text-embedding-3-small", "dims": 4}
    assert found["pro"]["embedding"] == {"dims": 4}


def test_a_damaged_table_beside_a_good_one_is_kept_as_it_is(make: Any, find: Find, tmp_path: Path) -> None:
    make.table(tmp_path / "db/memories.lance", make.pro)
    broken = make.table(tmp_path / "db/broken.lance", make.pro)
    for manifest in (broken / "_versions").iterdir():
        manifest.write_bytes(b"gone")
    (store,) = find(tmp_path / "db")
    assert {part.name: part.engine for part in store.parts} == {"broken.lance": "lance", "memories.lance": "lance"}
    assert store.records == 2

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.model import Role, Severity, Store
from memkeep.systems.look import Look

Find = Callable[..., list[Store]]
HYBRID = "openclaw-hybrid"


def roles(store: Store) -> dict[str, Role]:
    return {part.name: part.role for part in store.parts}


def one(find: Find, *paths: Path, **more: Any) -> Store:
    (store,) = (store for store in find(*paths, **more) if store.system == HYBRID)
    return store


@pytest.mark.real
def test_all_that_the_product_wrote_is_a_part(
    copy_store: Callable[..., Path], stores: Path, find: Find, complete: Callable[..., None]
) -> None:
    memory = copy_store("hybrid-2026.4.273", "memory")
    truth = json.loads((stores / "hybrid-2026.4.273" / "truth.json").read_text())
    store = one(find, memory)
    complete(store)
    engines = {part.name: part.engine for part in store.parts}
    assert {name for name, engine in engines.items() if engine == "sqlite"} == truth["sqlite"].keys()
    assert {name for name, engine in engines.items() if engine == "lance"} == {
        f"{name}.lance" for name in truth["lance"]
    }
    assert {name for name, engine in engines.items() if engine == "files"} == {
        ".discovered-categories.json",
        ".distill_last_run",
        "memory.wal",
    }
    assert store.omitted == ()
    assert store.findings == ()
    assert store.records == truth["facts"]["total"]
    said = {"provider": "ollama", "model": "fake-hash-embed", "dims": 16}
    assert store.fingerprint == {"embedding": said}
    of = roles(store)
    assert (of["facts.db"], of["credentials.db"], of["memory.wal"]) == (Role.CANONICAL, Role.SECRET, Role.CANONICAL)
    assert of["lancedb/memories.lance"] is Role.DERIVED
    assert of["lancedb/semantic_query_cache.lance"] is Role.DISPOSABLE
    assert of[".distill_last_run"] is Role.CONFIG


@pytest.mark.real
def test_mappings_name_only_tables_and_columns_that_exist(copy_store: Callable[..., Path], find: Find) -> None:
    memory = copy_store("hybrid-2026.4.273", "memory")
    look = Look()
    look.folder(memory)
    store = one(find, memory)
    mapped = {each.table for part in store.parts for each in part.maps}
    assert {"facts", "episodes", "procedures", "memory_links", "narratives", "edicts", "fact_aliases"} <= mapped
    for part in store.parts:
        for each in part.maps:
            path = Path(part.path)
            seen = look.lance(path)
            columns = list(seen.columns) if part.engine == "lance" and seen else look.columns(path)[each.table]
            assert {each.id, *each.fields.values(), *each.vectors} <= set(columns)
            assert each.times.keys() <= each.fields.keys()
            assert each.primary is (each.table == "facts")


@pytest.mark.real
def test_facts_are_mapped_to_the_portable_fields(copy_store: Callable[..., Path], find: Find) -> None:
    store = one(find, copy_store("hybrid-2026.4.273", "memory"))
    maps = {each.collection: each for part in store.parts for each in part.maps}
    assert maps["facts"].fields == {
        name: name for name in ("text", "category", "scope", "source", "tags", "importance", "created_at")
    }
    assert maps["facts"].times == {"created_at": "auto"}
    assert maps["fact_embeddings"].vectors == ("embedding",)
    assert maps["episodes"].fields["text"] == "event"
    assert maps["contradictions"].times == {"created_at": "iso"}
    assert maps["lance_memories"].vectors == ("vector",)


def test_unknown_databases_and_files_are_taken(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    memory = make.hybrid(tmp_path / "memory")
    make.database(memory / "facts-workflows.db")
    make.database(memory / "future.sqlite3")
    make.database(memory / "no-ending")
    make.database(memory / "deep/er/inner.db")
    make.table(memory / "aliases.lance/fact_aliases.lance", ["id", "factId", "aliasText", "vector"])
    make.table(memory / "lancedb/unknown.lance", ["key", "vector"])
    (memory / "empty.lance").mkdir()
    (memory / "garbage.db").write_bytes(b"not a database" * 100)
    make.files(memory, "wal.jsonl", ".auth-backoff.json", ".new", "deep/x", "deep/y/z", "credentials-pending.json")
    store = one(find, memory)
    complete(store)
    assert roles(store) == {
        ".auth-backoff.json": Role.CONFIG,
        ".new": Role.CANONICAL,
        "aliases.lance/fact_aliases.lance": Role.DERIVED,
        "credentials-pending.json": Role.SECRET,
        "deep": Role.CANONICAL,
        "deep/er/inner.db": Role.CANONICAL,
        "empty.lance": Role.CANONICAL,
        "facts-workflows.db": Role.CANONICAL,
        "facts.db": Role.CANONICAL,
        "future.sqlite3": Role.CANONICAL,
        "garbage.db": Role.CANONICAL,
        "lancedb/unknown.lance": Role.CANONICAL,
        "no-ending": Role.CANONICAL,
        "wal.jsonl": Role.CANONICAL,
    }
    assert {part.name for part in store.parts if part.engine == "sqlite"} == {
        "deep/er/inner.db",
        "facts-workflows.db",
        "facts.db",
        "future.sqlite3",
        "garbage.db",
        "no-ending",
    }


def test_copies_logs_and_temporary_files_are_left_out_and_said(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    memory = make.files(make.hybrid(tmp_path / "memory"), "backups/a/facts.db", "x.tmp", "y.log", ".env", "sub/.env.x")
    make.files(memory, "node_modules/z.js", "gone.db-wal")
    store = one(find, memory)
    complete(store)
    assert {each.part for each in store.omitted} == {
        ".env",
        "backups",
        "gone.db-wal",
        "node_modules",
        "sub/.env.x",
        "x.tmp",
        "y.log",
    }
    assert all(each.reason for each in store.omitted)


def test_an_uncheckpointed_wal_is_read_and_is_no_part(
    make: Any, find: Find, complete: Callable[..., None], tree_hash: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    made = make.hybrid(tmp_path / "made")
    writer = sqlite3.connect(made / "facts.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode=wal")
    writer.execute("INSERT INTO facts(id, text, category, decay_class) VALUES('c', 'three', 'fact', 'stable')")
    shutil.copytree(made, tmp_path / "killed")
    writer.close()
    (tmp_path / "killed" / "facts.db-shm").unlink()
    before = tree_hash(tmp_path / "killed")
    store = one(find, tmp_path / "killed")
    assert store.records == 3
    assert roles(store) == {"facts.db": Role.CANONICAL}
    complete(store)
    assert tree_hash(tmp_path / "killed") == before


@pytest.mark.parametrize(
    "facts",
    [
        "CREATE TABLE facts(id INTEGER PRIMARY KEY, entity TEXT, key TEXT, value TEXT, decay_score REAL);",
        "CREATE TABLE facts(id TEXT, text TEXT, category TEXT);",
        "CREATE TABLE fact(id TEXT, text TEXT, category TEXT, decay_class TEXT, expires_at INTEGER);",
    ],
)
def test_a_facts_database_of_another_convention_is_not_hybrids(
    make: Any, find: Find, tmp_path: Path, facts: str
) -> None:
    make.database(tmp_path / "memory" / "facts.db", facts)
    assert [store.system for store in find(tmp_path)] == ["custom"]


def test_an_old_schema_is_mapped_by_the_columns_that_it_has(make: Any, find: Find, tmp_path: Path) -> None:
    make.database(
        tmp_path / "old" / "facts.db",
        "CREATE TABLE facts(id TEXT, text TEXT, category TEXT, decay_class TEXT, expires_at INTEGER, created_at REAL);",
    )
    (part,) = one(find, tmp_path).parts
    assert part.maps[0].fields == {"text": "text", "category": "category", "created_at": "created_at"}


def test_a_copy_of_facts_beside_it_is_kept_but_is_no_second_memory(make: Any, find: Find, tmp_path: Path) -> None:
    memory = make.hybrid(tmp_path / "memory")
    shutil.copy(memory / "facts.db", memory / "a-copy.db")
    store = one(find, memory)
    assert store.records == 2
    assert {part.name: [each.collection for each in part.maps if each.primary] for part in store.parts} == {
        "a-copy.db": [],
        "facts.db": ["facts"],
    }


def test_facts_in_a_folder_below_belong_to_the_store_above(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    make.hybrid(make.hybrid(tmp_path / "memory") / "archive")
    store = one(find, tmp_path)
    assert set(roles(store)) == {"facts.db", "archive/facts.db"}
    complete(store)


def test_stores_of_other_products_in_the_folder_are_not_taken(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    memory = make.hybrid(tmp_path / "memory")
    make.core_index(memory / "main.sqlite")
    make.cells(memory / "memory.db")
    make.table(memory / "lancedb-pro/memories.lance", make.pro)
    make.table(memory / "lancedb/memories.lance", make.legacy)
    found = {store.system: store for store in find(tmp_path)}
    assert {part.name for part in found[HYBRID].parts} == {"facts.db", "lancedb/memories.lance"}
    complete(found[HYBRID], other=["main.sqlite", "memory.db", "lancedb-pro/*"])
    assert found["openclaw-lancedb"].path == str(memory / "lancedb-pro")
    assert found["oc-memory"].path == str(memory / "memory.db")


VAULT = """
CREATE TABLE vault_meta(key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE credentials(service TEXT, type TEXT, value BLOB);
INSERT INTO vault_meta VALUES('kdf_version', {kdf});
INSERT INTO credentials SELECT 'github', 'token', 'x' WHERE {filled};
"""


@pytest.mark.parametrize(
    ("kdf", "filled", "codes"),
    [
        ("x'00'", 1, ["credentials_plaintext"]),
        ("0", 1, ["credentials_plaintext"]),
        ("'0'", 1, ["credentials_plaintext"]),
        ("x'00'", 0, []),
        ("x'01'", 1, []),
        ("x'02'", 1, []),
    ],
)
def test_credentials_in_plain_text_are_a_finding(
    make: Any, find: Find, tmp_path: Path, kdf: str, filled: int, codes: list[str]
) -> None:
    memory = make.hybrid(tmp_path / "memory")
    make.database(memory / "keys.db", VAULT.format(kdf=kdf, filled=filled))
    store = one(find, memory)
    assert roles(store)["keys.db"] is Role.SECRET
    assert [finding.code for finding in store.findings] == codes
    for finding in store.findings:
        assert (finding.part, finding.severity) == ("keys.db", Severity.WARNING)
        assert "plain text" in finding.message
        assert "encryptionKey" in str(finding.mend)


def test_what_belongs_to_the_store_and_lies_in_the_state_folder_is_taken(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.state_dir(tmp_path / "state")
    memory = make.hybrid(state / "memory")
    make.files(state, "verified-facts.json", "event-archive/2026/a.jsonl", "event-archive/.env")
    store = one(find, state)
    assert store.fingerprint["outside"] == {
        "outside/verified-facts.json": str(state / "verified-facts.json"),
        "outside/event-archive": str(state / "event-archive"),
    }
    assert roles(store)["outside/event-archive"] is Role.CANONICAL
    assert [each.part for each in store.omitted] == ["outside/event-archive/.env"]
    assert one(find, memory).fingerprint == store.fingerprint
    core = next(store for store in find(state) if store.system == "openclaw-core")
    complete(core, other=["memory/*", "verified-facts.json", "event-archive/*"])


def test_outside_of_a_state_folder_nothing_beside_is_taken(make: Any, find: Find, tmp_path: Path) -> None:
    make.hybrid(tmp_path / "place" / "memory")
    make.files(tmp_path / "place", "verified-facts.json")
    assert list(roles(one(find, tmp_path))) == ["facts.db"]


def test_tables_elsewhere_do_not_take_the_name_of_tables_here(make: Any, find: Find, tmp_path: Path) -> None:
    said = {"plugins": {"entries": {HYBRID + "-memory": {"config": {"lanceDbPath": str(tmp_path / "vec")}}}}}
    memory = make.hybrid(make.state_dir(tmp_path / "state", said) / "memory")
    make.table(memory / "lancedb/memories.lance", ["id", "text", "why", "vector"])
    make.table(tmp_path / "vec/memories.lance", ["id", "text", "why", "vector"])
    paths = {part.name: part.path for part in one(find, memory).parts}
    assert paths["lancedb/memories.lance"] == str(memory / "lancedb/memories.lance")
    assert paths["outside/vec/memories.lance"] == str(tmp_path / "vec/memories.lance")


def test_in_a_workspace_the_notes_stay_the_workspaces(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.state_dir(tmp_path / "state")
    make.hybrid(state / "workspace/memory")
    make.table(state / "workspace/memory/lancedb/memories.lance", ["id", "text", "why", "vector"])
    make.files(state, "workspace/memory/imports/a.md", "workspace/memory/memory.wal")
    found = {store.system: store for store in find(state)}
    assert set(roles(found[HYBRID])) == {"facts.db", "lancedb/memories.lance", "memory.wal"}
    complete(found[HYBRID], other=["*.md"])
    assert found["openclaw-core"].records == 3
    complete(
        found["openclaw-core"], other=[f"workspace/memory/{name}*" for name in ("facts.db", "lance", "memory.wal")]
    )


def test_in_the_state_folder_itself_only_what_is_surely_hybrids_is_taken(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.hybrid(make.state_dir(tmp_path / "state"))
    make.database(state / "edicts.db")
    make.table(state / "lancedb/memories.lance", ["id", "text", "why", "vector"])
    make.files(state, "memory.wal", "cron/jobs.json", ".distill_last_run")
    found = {store.system: store for store in find(state)}
    mine = {"facts.db", "edicts.db", "lancedb/memories.lance", "memory.wal", ".distill_last_run"}
    assert set(roles(found[HYBRID])) == mine
    assert {"cron", "openclaw.json", "workspace"} <= set(roles(found["openclaw-core"]))
    assert not mine & set(roles(found["openclaw-core"]))


def test_the_installed_version_is_recorded(make: Any, find: Find, tmp_path: Path) -> None:
    state = make.state_dir(tmp_path / "state")
    make.hybrid(state / "memory")
    package = state / "extensions/openclaw-hybrid-memory/package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{"version": "2026.4.273"}')
    assert one(find, state).fingerprint["versions"] == {"openclaw-hybrid-memory": "2026.4.273"}

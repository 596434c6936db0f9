import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.config import Config, PartSettings, StoreSettings
from memkeep.engines import sqlite
from memkeep.errors import StoreError, UsageError
from memkeep.model import Hooks, Store

Find = Callable[..., list[Store]]
REAL = {
    ("hybrid-2026.4.273", ""): {"openclaw-hybrid": 41},
    ("hybrid-2026.4.273", "memory"): {"openclaw-hybrid": 41},
    ("hybrid-2026.4.273", "memory/facts.db"): {"openclaw-hybrid": 41},
    ("pro-1.1.0-beta.11", ""): {"openclaw-lancedb": 59},
    ("pro-1.1.0-beta.11", "lancedb-pro"): {"openclaw-lancedb": 59},
    ("pro-1.1.0-beta.11", "lancedb-pro/memories.lance"): {"openclaw-lancedb": 59},
    ("memory-lancedb-2026.3.13", ""): {"openclaw-lancedb": 12},
    ("oc-memory", ""): {"oc-memory": 7},
    ("oc-memory", "memory.db"): {"oc-memory": 7},
    ("openclaw-core-2026.9.6", ""): {"openclaw-core": 3, "openclaw-hybrid": 41},
    ("openclaw-core-2026.9.6", "state-dir"): {"openclaw-core": 3, "openclaw-hybrid": 41},
}


@pytest.mark.real
@pytest.mark.parametrize(("store", "under"), REAL, ids="/".join)
def test_a_real_store_is_found_with_its_records_and_nothing_is_changed(
    copy_store: Callable[..., Path], find: Find, tree_hash: Callable[[Path], dict[str, str]], store: str, under: str
) -> None:
    root = copy_store(store)
    before = tree_hash(root)
    found = find(root / under)
    assert {each.system: each.records for each in found} == REAL[store, under]
    assert len(found) == len(REAL[store, under])
    assert tree_hash(root) == before
    assert not any(path.name.endswith("-wal") for path in root.rglob("*"))


@pytest.mark.real
def test_all_databases_of_a_state_folder_are_inspected_by_one_process(
    copy_store: Callable[..., Path], find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    inspect = sqlite.inspect

    def counted(paths: Any, queries: Any = None) -> Any:
        asked.append(len(paths))
        return inspect(paths, queries)

    monkeypatch.setattr(sqlite, "inspect", counted)
    find(copy_store("openclaw-core-2026.9.6"))
    assert asked == [25]


@pytest.mark.real
@pytest.mark.parametrize("name", ["with a space", "Gedächtnis 記憶 ☕", "[x]*?{y}", 'quote\'s "%20" #1', "-rf"])
def test_a_store_is_found_whatever_its_folder_is_called(
    copy_store: Callable[..., Path], find: Find, complete: Callable[..., None], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / name / name
    folder.parent.mkdir()
    copy_store("hybrid-2026.4.273", "memory").rename(folder)
    copy_store("oc-memory").rename(tmp_path / name / "oc")
    found = {store.system: store for store in find(tmp_path / name)}
    assert found["openclaw-hybrid"].path == str(folder)
    assert found["openclaw-hybrid"].records == 41
    assert found["oc-memory"].records == 7
    complete(found["openclaw-hybrid"])


def test_several_systems_lie_side_by_side(make: Any, find: Find, tmp_path: Path) -> None:
    state = make.state_dir(tmp_path / "state")
    make.hybrid(state / "memory")
    make.table(state / "memory/lancedb-pro/memories.lance", make.pro)
    make.table(state / "memory.lance/memories.lance", make.legacy)
    make.cells(state / "memory.db")
    found = {(store.system, Path(store.path).relative_to(state).as_posix()): store.records for store in find(state)}
    assert found == {
        ("openclaw-core", "."): 2,
        ("openclaw-hybrid", "memory"): 2,
        ("openclaw-lancedb", "memory/lancedb-pro"): 2,
        ("openclaw-lancedb", "memory.lance"): 2,
        ("oc-memory", "memory.db"): 1,
    }


def test_each_file_of_side_by_side_systems_is_in_exactly_one_store(
    make: Any,
    find: Find,
    whereabouts: Callable[[Store], dict[str, list[str]]],
    tmp_path: Path,
) -> None:
    state = make.state_dir(tmp_path / "state")
    make.hybrid(state / "memory")
    make.core_index(state / "memory/main.sqlite")
    make.table(state / "memory/lancedb/memories.lance", ["id", "text", "why", "vector"])
    make.table(state / "memory/lancedb-pro/memories.lance", make.pro)
    (state / "memory/lancedb-pro/.memory-write.lock").touch()
    make.cells(state / "memory.db")
    for name in ("memory/notes.md", "memory/new/thing.bin", "agents/main/sessions/s.jsonl", "cron/jobs.json", "x.txt"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("x")
    places: dict[str, list[str]] = {}
    for store in find(state):
        under = Path(store.root).relative_to(state)
        for name, found in whereabouts(store).items():
            places.setdefault((under / name).as_posix(), []).extend(f"{store.system}:{each}" for each in found)
    assert {name: found for name, found in places.items() if len(found) != 1} == {}
    assert places["memory/main.sqlite"] == ["openclaw-core:memory/main.sqlite"]
    assert places["memory/new/thing.bin"] == ["openclaw-hybrid:new"]


def test_a_link_given_as_the_path_is_followed(make: Any, find: Find, tmp_path: Path) -> None:
    make.hybrid(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "facts").symlink_to(tmp_path / "real" / "facts.db")
    assert [store.path for store in find(tmp_path / "link")] == [str(tmp_path / "real")]
    assert [store.path for store in find(tmp_path / "facts")] == [str(tmp_path / "real")]


def test_links_inside_are_never_followed(make: Any, find: Find, tmp_path: Path) -> None:
    make.hybrid(tmp_path / "elsewhere")
    given = tmp_path / "given"
    given.mkdir()
    (given / "memory").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (given / "loop").symlink_to(given, target_is_directory=True)
    (given / "note.md").write_text("x")
    (store,) = find(given)
    assert store.system == "custom"
    assert [finding.code for finding in store.findings] == ["link_leaves_store"]
    assert str(tmp_path / "elsewhere") in str(store.findings[0].mend)


def test_the_same_path_twice_is_one_store(make: Any, find: Find, tmp_path: Path) -> None:
    folder = make.hybrid(tmp_path / "memory")
    assert len(find(folder, tmp_path, folder / "facts.db", f"{tmp_path}/x/../memory/")) == 1


def test_a_path_that_does_not_exist_is_an_error(find: Find, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere does not exist") as caught:
        find(tmp_path / "nowhere")
    assert caught.value.hint == "memkeep discover"


def test_a_link_that_leads_nowhere_is_an_error(find: Find, tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match="broken is a link to a place that does not exist"):
        find(tmp_path / "broken")


@pytest.mark.parametrize("names", [[], ["empty.db"], ["sub/"], [".env", "node_modules/x.js"]])
def test_a_folder_with_nothing_to_keep_is_an_error(find: Find, tmp_path: Path, names: list[str]) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in names:
        (given / name).parent.mkdir(exist_ok=True)
        if name.endswith("/"):
            (given / name).mkdir()
        else:
            (given / name).write_text("" if name.endswith(".db") else "KEY=x")
    with pytest.raises(StoreError, match="holds nothing to keep"):
        find(given)


def test_a_folder_that_holds_only_a_link_says_where_the_store_is(make: Any, find: Find, tmp_path: Path) -> None:
    make.files(tmp_path, "away/notes.md")
    (tmp_path / "given" / "below").mkdir(parents=True)
    (tmp_path / "given" / "below" / "memory").symlink_to("../../away")
    with pytest.raises(StoreError, match=r"below/memory is a link to .*/away, and links are not followed") as refused:
        find(tmp_path / "given")
    assert refused.value.hint == f"memkeep backup {os.path.realpath(tmp_path / 'away')}"
    assert refused.value.code == "store_empty"


def test_a_folder_called_backups_holds_something(make: Any, find: Find, tmp_path: Path) -> None:
    make.files(tmp_path, "given/backups/cache/a")
    (store,) = find(tmp_path / "given")
    assert [part.name for part in store.parts] == ["."]


def test_an_empty_file_and_a_dotenv_file_are_nothing_to_keep(find: Find, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / ".env").write_text("KEY=x")
    for name in ("empty.db", ".env"):
        with pytest.raises(StoreError, match="holds nothing to keep"):
            find(tmp_path / name)


def test_a_socket_is_no_store(find: Find, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        with pytest.raises(StoreError, match="neither a folder nor a file"):
            find(tmp_path / "s")


def test_a_folder_that_may_not_be_read_is_an_error(find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, tmp_path / "given")
    (tmp_path / "given").mkdir()
    with pytest.raises(StoreError, match="cannot be read: Permission denied"):
        find(tmp_path / "given")


def deny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Refuse to list a folder, as for a user without the right to; root always has it."""
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)


def test_a_subfolder_that_may_not_be_read_is_said_to_be_left_out(
    make: Any, find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make.hybrid(tmp_path / "memory") / "locked").mkdir()
    deny(monkeypatch, tmp_path / "memory" / "locked")
    (store,) = find(tmp_path)
    assert [(each.part, each.reason) for each in store.omitted] == [("locked", "cannot be read: Permission denied")]
    assert [part.name for part in store.parts] == ["facts.db"]


def test_copies_and_program_code_are_not_searched(make: Any, find: Find, tmp_path: Path) -> None:
    make.hybrid(tmp_path / "agent" / "memory")
    for name in ("backups/memory", "node_modules/x", ".git/y", ".memkeep-parked-1", "a/b/c/d/e/f/g/h/i"):
        make.hybrid(tmp_path / name)
    assert [store.path for store in find(tmp_path)] == [str(tmp_path / "agent" / "memory")]


def test_a_store_that_lies_deep_is_found(make: Any, find: Find, tmp_path: Path) -> None:
    make.hybrid(tmp_path / "1/2/3/4/5/6/7/8")
    assert len(find(tmp_path)) == 1


def test_a_garbage_database_hides_no_store_beside_it(make: Any, find: Find, tmp_path: Path) -> None:
    folder = make.hybrid(tmp_path / "memory")
    (folder / "garbage.db").write_bytes(os.urandom(4096))
    (folder / "cut.db").write_bytes((folder / "facts.db").read_bytes()[:1000])
    (store,) = find(tmp_path)
    assert {part.name: part.engine for part in store.parts} == dict.fromkeys(
        ("cut.db", "facts.db", "garbage.db"), "sqlite"
    )


# the usual places


def test_without_paths_and_products_nothing_is_found(find: Find) -> None:
    assert find() == []


def test_without_paths_the_usual_places_are_looked_at(make: Any, find: Find, home: Path) -> None:
    state = make.state_dir(home / ".openclaw")
    make.hybrid(state / "memory")
    make.table(state / "memory/lancedb-pro/memories.lance", make.pro)
    make.cells(state / "memory.db")
    assert sorted(store.system for store in find()) == [
        "oc-memory",
        "openclaw-core",
        "openclaw-hybrid",
        "openclaw-lancedb",
    ]


def test_the_environment_moves_the_usual_places(make: Any, find: Find, home: Path, tmp_path: Path) -> None:
    make.hybrid(make.state_dir(tmp_path / "other state") / "memory")
    make.cells(home / "cells.sqlite")
    env = {"OPENCLAW_STATE_DIR": str(tmp_path / "other state"), "OC_MEMORY_DB": "~/cells.sqlite"}
    found = {store.system: store.path for store in find(env=env)}
    assert found == {
        "openclaw-core": str(tmp_path / "other state"),
        "openclaw-hybrid": str(tmp_path / "other state" / "memory"),
        "oc-memory": str(home / "cells.sqlite"),
    }


CONFIG = """// what a person wrote
{
  agents: { defaults: { workspace: '~/desk' }, list: [{ id: "b", workspace: "${DESKS}/b" },], },
  plugins: { entries: {
    "openclaw-hybrid-memory": { enabled: true, config: {
      sqlitePath: "${DATA}/hy brid/facts.db", /* moved */
      lanceDbPath: "~/vectors",
      wal: { walPath: '~/wal/pending.wal' },
      embedding: { model: "m2", apiKey: "${KEY}" },
    } },
    "memory-lancedb": { config: { dbPath: "${DATA}/lance", embedding: { model: "m3", dimensions: 4 } } },
    "memory-lancedb-pro": { config: { dbPath: "s3://bucket/lance" } },
  } },
}
"""


def test_openclaw_json_says_where_stores_and_their_parts_lie(
    make: Any,
    find: Find,
    home: Path,
    tmp_path: Path,
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:
    make.state_dir(home / ".openclaw", CONFIG)
    (home / "desk").mkdir()
    (home / "desk" / "MEMORY.md").write_text("# m")
    (tmp_path / "desks/b").mkdir(parents=True)
    (tmp_path / "desks/b/USER.md").write_text("# u")
    make.hybrid(tmp_path / "data/hy brid")
    make.table(home / "vectors/memories.lance", ["id", "text", "vector", "importance", "category", "createdAt"])
    (home / "wal").mkdir()
    (home / "wal/pending.wal").write_text("{}\n")
    make.table(tmp_path / "data/lance/memories.lance", [*make.legacy, "agentId"])
    before = tree_hash(tmp_path)

    found = {store.system: store for store in find(env={"DATA": f"{tmp_path}/data", "DESKS": f"{tmp_path}/desks"})}

    assert sorted(found) == ["openclaw-core", "openclaw-hybrid", "openclaw-lancedb"]
    core, facts, lance = (found[name] for name in sorted(found))
    assert (facts.path, lance.path) == (str(tmp_path / "data/hy brid"), str(tmp_path / "data/lance"))
    assert facts.fingerprint["outside"] == {
        "lancedb/memories.lance": str(home / "vectors/memories.lance"),
        "memory.wal": str(home / "wal/pending.wal"),
    }
    assert {part.name: part.path for part in facts.parts}["memory.wal"] == str(home / "wal/pending.wal")
    assert facts.fingerprint["embedding"] == {"model": "m2", "dims": 4}
    assert core.fingerprint["outside"] == {
        "workspace-desk": str(home / "desk"),
        "workspace-b": str(tmp_path / "desks/b"),
    }
    assert core.records == 4
    assert lance.fingerprint["variant"] == "per-agent"
    assert lance.fingerprint["embedding"] == {"model": "m3", "dims": 4}
    assert tree_hash(tmp_path) == before


def test_openclaw_json_of_a_given_state_folder_counts_too(make: Any, find: Find, tmp_path: Path) -> None:
    vectors = make.table(tmp_path / "vectors/memories.lance", make.legacy)
    said = {"plugins": {"entries": {"openclaw-hybrid-memory": {"config": {"lanceDbPath": str(vectors.parent)}}}}}
    state = make.state_dir(tmp_path / "state", said)
    make.hybrid(state / "memory")
    for given in (state, state / "memory", state / "memory" / "facts.db"):
        store = next(store for store in find(given) if store.system == "openclaw-hybrid")
        assert store.fingerprint["outside"] == {"lancedb/memories.lance": str(vectors)}
    assert find(tmp_path / "vectors")[0].system == "openclaw-lancedb"


def test_a_configured_folder_is_looked_at_by_itself(make: Any, find: Find, home: Path, tmp_path: Path) -> None:
    said = {"plugins": {"entries": {"memory-lancedb": {"config": {"dbPath": str(tmp_path / "data")}}}}}
    make.state_dir(home / ".openclaw", said)
    make.table(tmp_path / "data/memories.lance", make.legacy)
    make.hybrid(tmp_path / "data/someone elses")
    assert sorted(store.system for store in find()) == ["openclaw-core", "openclaw-lancedb"]


def test_a_home_folder_with_a_store_in_it_is_not_taken_as_a_whole(make: Any, find: Find, home: Path) -> None:
    entries = {"openclaw-hybrid-memory": {"config": {"sqlitePath": "~/facts.db"}}}
    make.state_dir(home / ".openclaw", {"plugins": {"entries": entries}})
    make.table(make.hybrid(home) / "lancedb/memories.lance", ["id", "text", "why", "vector"])
    make.database(home / "edicts.db")
    make.files(home, "photos/a.jpg", "letter.txt", "memory.wal", ".bashrc")
    found = {store.system: {part.name for part in store.parts} for store in find()}
    assert found["openclaw-hybrid"] == {"edicts.db", "facts.db", "lancedb/memories.lance", "memory.wal"}
    assert "openclaw.json" in found["openclaw-core"]


def test_a_copied_state_folder_does_not_lead_to_the_live_one(make: Any, find: Find, home: Path, tmp_path: Path) -> None:
    said = {
        "agents": {"defaults": {"workspace": "~/.openclaw/workspace"}},
        "plugins": {"entries": {"openclaw-hybrid-memory": {"config": {"sqlitePath": "~/.openclaw/memory/facts.db"}}}},
    }
    make.hybrid(make.state_dir(home / ".openclaw", said) / "memory")
    copy = tmp_path / "copy"
    make.hybrid(make.state_dir(copy, said) / "memory")
    found = find(copy)
    assert {store.path for store in found} == {str(copy), str(copy / "memory")}
    assert all(Path(part.path).is_relative_to(copy) for store in found for part in store.parts)
    assert {store.path for store in find()} == {str(home / ".openclaw"), str(home / ".openclaw/memory")}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{plugins: 3, agents: 'x'}", "\udcff", "{a:" * 99_999])
def test_an_openclaw_json_that_says_nothing_useful_breaks_nothing(make: Any, find: Find, home: Path, text: str) -> None:
    state = make.state_dir(home / ".openclaw")
    (state / "openclaw.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    make.hybrid(state / "memory")
    assert "openclaw-hybrid" in {store.system for store in find()}
    assert "openclaw-hybrid" in {store.system for store in find(state)}


# the settings of memkeep


def test_stores_in_the_settings_are_found_without_paths_and_by_name(make: Any, find: Find, home: Path) -> None:
    make.database(home / "my agent/mind.db", "CREATE TABLE memories(id, content); INSERT INTO memories VALUES(1, 'x');")
    config = Config(stores={"mine": StoreSettings(path="~/my agent")}, file="/c.toml")
    for found in (find(config=config), find("mine", config=config), find(home / "my agent", config=config)):
        assert [(store.system, store.path, store.records) for store in found] == [("custom", f"{home}/my agent", 1)]


def test_the_settings_may_name_the_system(make: Any, find: Find, tmp_path: Path) -> None:
    folder = make.hybrid(tmp_path / "memory")

    def with_system(system: str) -> Config:
        return Config(stores={"m": StoreSettings(path=str(folder), system=system)}, file="/c.toml")

    assert find(folder, config=with_system("custom"))[0].system == "custom"
    assert find(folder, config=with_system("openclaw-hybrid"))[0].system == "openclaw-hybrid"
    with pytest.raises(StoreError, match="holds no store of oc-memory"):
        find(folder, config=with_system("oc-memory"))
    with pytest.raises(UsageError, match=r"\[stores.m\] in /c.toml names the system 'hybrid'"):
        find(folder, config=with_system("hybrid"))


def test_a_server_in_the_settings_makes_a_store_custom(make: Any, find: Find, tmp_path: Path) -> None:
    folder = make.hybrid(tmp_path / "memory")

    def with_system(system: str | None) -> Config:
        mine = StoreSettings(path=str(folder), system=system, servers=("qdrant://127.0.0.1:1/notes",))
        return Config(stores={"m": mine}, file="/c.toml")

    (store,) = find(folder, config=with_system(None))
    assert store.system == "custom"
    assert "qdrant://127.0.0.1:1/notes" in [part.path for part in store.parts]
    with pytest.raises(UsageError, match="gives servers, which only a store of 'custom' has"):
        find(folder, config=with_system("openclaw-hybrid"))


@pytest.mark.parametrize("given", ["", "memory", "memory/facts.db"])
def test_what_stops_the_writers_of_a_folder_stops_those_of_a_store_below(
    make: Any, find: Find, tmp_path: Path, given: str
) -> None:
    make.hybrid(tmp_path / "agent/memory")
    config = Config(stores={"m": StoreSettings(path=str(tmp_path / "agent"), stop="stop", start="start")})
    (store,) = find(tmp_path / "agent" / given, config=config)
    assert (store.path, store.hooks) == (str(tmp_path / "agent/memory"), Hooks(stop="stop", start="start"))


def test_parts_in_the_settings_make_a_store_custom(make: Any, find: Find, tmp_path: Path) -> None:
    folder = make.hybrid(tmp_path / "memory")
    parts = (PartSettings(name="facts.db", table="facts", text="category"),)
    config = Config(stores={"m": StoreSettings(path=str(folder), parts=parts)}, file="/c.toml")
    (store,) = find(folder, config=config)
    assert (store.system, store.mapping) == ("custom", "Records are mapped by [stores.m] in /c.toml.")

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.model import Part, Role, Severity, Store

Find = Callable[..., list[Store]]
CORE = "openclaw-core"
AGENT = (
    "CREATE TABLE memory_index_chunks(id TEXT, path TEXT, source TEXT, text TEXT, embedding BLOB, updated_at INTEGER);"
)
SECRETS = "CREATE TABLE auth_profile_store(id TEXT, value TEXT);"


def one(find: Find, *paths: Path, **more: Any) -> Store:
    (store,) = (store for store in find(*paths, **more) if store.system == CORE)
    return store


def parts(store: Store) -> dict[str, Part]:
    return {part.name: part for part in store.parts}


@pytest.mark.real
def test_the_real_state_folder(
    copy_store: Callable[..., Path], stores: Path, find: Find, complete: Callable[..., None]
) -> None:
    truth = json.loads((stores / "openclaw-core-2026.9.6" / "truth.json").read_text())
    state = copy_store("openclaw-core-2026.9.6", "state-dir")
    store = one(find, state)
    complete(store, other=["memory/*"])
    found = parts(store)
    agent = "agents/main/agent/openclaw-agent.sqlite"
    assert {name: (part.engine, part.role) for name, part in found.items()} == {
        agent: ("sqlite", Role.CANONICAL),
        f"{agent}.generation-lock.sqlite": ("sqlite", Role.DISPOSABLE),
        f"{agent}.generation-writer.sqlite": ("sqlite", Role.DISPOSABLE),
        f"{agent}.reindex-lock.sqlite": ("sqlite", Role.DISPOSABLE),
        "openclaw.json": ("files", Role.CONFIG),
        "state/openclaw-quarantine.sqlite": ("sqlite", Role.DERIVED),
        "state/openclaw.sqlite": ("sqlite", Role.CANONICAL),
        "workspace": ("files", Role.CANONICAL),
    }
    assert store.records == len(truth["workspace_files"])
    assert found["openclaw.json"].secrets == ("memory.search.remote.apiKey",)
    assert store.fingerprint["embedding"] == {"provider": "openai", "model": "text-embedding-3-small", "dims": 16}
    assert store.fingerprint["schemas"] == {
        agent: 23,
        "state/openclaw.sqlite": 18,
        "state/openclaw-quarantine.sqlite": 2,
    }
    chunks, intents = found[agent].maps
    assert (chunks.table, chunks.fields["text"], chunks.vectors) == ("memory_index_chunks", "text", ())
    assert (intents.table, intents.fields["text"]) == ("standing_intents", "description")
    assert [chunks.primary, intents.primary] == [False, False]
    (notes,) = found["workspace"].maps
    assert (notes.collection, notes.table, notes.id, notes.primary) == ("notes", "", "path", True)
    assert notes.fields == {"text": "text", "updated_at": "modified"}


def test_only_memory_files_are_records_but_every_file_is_kept(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.state_dir(tmp_path / "state")
    space = state / "workspace"
    make.files(space, "USER.md", "DREAMS.md", "AGENTS.md", "SOUL.md", "src/main.py", "notes/other.md", ".hidden/x")
    make.files(
        space, "memory/imports/a.md", "memory/b.txt", "memory-export/scene-a.md", "memory-export/memory-export.json"
    )
    make.files(space, ".git/HEAD", ".env", "deep/node_modules/x.js", "deep/.env.local", "memory/.env")
    store = one(find, state)
    complete(store)
    assert store.records == 5
    assert {each.part for each in store.omitted} == {
        "workspace/.env",
        "workspace/.git",
        "workspace/deep/.env.local",
        "workspace/deep/node_modules",
        "workspace/memory/.env",
    }
    assert set(parts(store)) == {"openclaw.json", "workspace"}


def test_databases_in_a_workspace_are_parts_of_their_own(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.state_dir(tmp_path / "state")
    facts = "CREATE TABLE facts(id INTEGER PRIMARY KEY, entity TEXT, key TEXT, value TEXT, category TEXT);"
    make.database(state / "workspace/memory/facts.db", facts)
    make.cells(state / "workspace/cells.db")
    make.table(state / "workspace/memory.lance/memories.lance", make.pro)
    found = {store.system: store for store in find(state)}
    assert sorted(found) == ["oc-memory", CORE, "openclaw-lancedb"]
    store = found[CORE]
    complete(store, other=["workspace/cells.db", "workspace/memory.lance/*"])
    (mapped,) = parts(store)["workspace/memory/facts.db"].maps
    assert (mapped.table, mapped.id, mapped.fields["text"], mapped.primary) == ("facts", "id", "value", False)
    assert store.records == 2


def test_an_agents_past_is_kept_and_logs_are_not(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.state_dir(tmp_path / "state")
    make.files(
        state, "agents/main/sessions/s1.jsonl", "agents/main/sessions/sessions.json", "agents/b/sessions/s2.jsonl"
    )
    make.files(state, "agents/main/agent/models.json", "agents/main/agent/notes.txt", "cron/jobs.json", "media/a/b.png")
    make.files(state, "logs/x.log", "tmp/y", "tools/z", "npm/q", "gateway.log", "update.tmp", "backups/old.tar.gz")
    make.database(state / "agents/main/agent/openclaw-agent.sqlite", AGENT)
    store = one(find, state)
    complete(store)
    assert {name: part.role for name, part in parts(store).items()} == {
        "agents/b/sessions": Role.CANONICAL,
        "agents/main/agent/models.json": Role.CONFIG,
        "agents/main/agent/notes.txt": Role.CANONICAL,
        "agents/main/agent/openclaw-agent.sqlite": Role.CANONICAL,
        "agents/main/sessions": Role.CANONICAL,
        "cron": Role.CONFIG,
        "media": Role.CONFIG,
        "openclaw.json": Role.CONFIG,
        "workspace": Role.CANONICAL,
    }
    assert {each.part for each in store.omitted} == {
        "backups",
        "gateway.log",
        "logs",
        "npm",
        "tmp",
        "tools",
        "update.tmp",
    }


def test_keys_and_passwords_are_secret_wherever_they_lie(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = make.state_dir(tmp_path / "state")
    make.files(state, "credentials/oauth.json", "credentials/web/creds.json", "identity/device.json", "devices/p.json")
    make.files(state, "agents/main/agent/auth-profiles.json", ".memory-lancedb-pro/oauth.json", "tls/gateway.pem")
    make.files(state, "cron/jobs.json", "cron/notes.txt")
    (state / "cron/hook.json").write_text('{"webhook": {"token": "t0ps3cret"}}')
    store = one(find, state)
    complete(store)
    roles = {name: part.role for name, part in parts(store).items()}
    assert {name for name, role in roles.items() if role is Role.SECRET} == {
        ".memory-lancedb-pro",
        "agents/main/agent/auth-profiles.json",
        "credentials",
        "cron/hook.json",
        "devices",
        "identity",
        "tls/gateway.pem",
    }
    assert roles["cron"] is Role.CONFIG


def test_settings_name_the_keys_to_take_out(make: Any, find: Find, tmp_path: Path) -> None:
    state = make.state_dir(tmp_path / "state", "{channels: {x: {botToken: 'abc', other: 'b'}}, // note\n}")
    (state / "openclaw.json.bak").write_text('{"gateway": {"auth": {"password": "p"}}}')
    (state / "openclaw.json.old").write_text("{broken: 'p'")
    (state / "agents/main/agent").mkdir(parents=True)
    (state / "agents/main/agent/models.json").write_text('{"providers": [{"apiKey": "k"}]}')
    found = parts(one(find, state))
    assert found["openclaw.json"].secrets == ("channels.x.botToken",)
    assert found["openclaw.json.bak"].secrets == ("gateway.auth.password",)
    assert found["agents/main/agent/models.json"].secrets == ("providers.0.apiKey",)
    assert found["openclaw.json.old"].role is Role.SECRET


def test_a_database_with_rows_in_a_secret_table_is_secret_as_a_whole(make: Any, find: Find, tmp_path: Path) -> None:
    state = make.state_dir(tmp_path / "state")
    empty, filled = (f"agents/{agent}/agent/openclaw-agent.sqlite" for agent in ("empty", "filled"))
    make.database(state / empty, AGENT + SECRETS)
    make.database(state / filled, f"{AGENT}{SECRETS}INSERT INTO auth_profile_store VALUES('a', 'k');")
    store = one(find, state)
    assert parts(store)[empty].role is Role.CANONICAL
    assert parts(store)[filled].role is Role.SECRET
    (finding,) = store.findings
    assert (finding.code, finding.severity, finding.part) == ("secrets_in_database", Severity.INFO, filled)
    assert "auth_profile_store" in finding.message


def test_the_index_of_old_releases_is_derived(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    make.core_index(state / "memory/main.sqlite")
    make.files(state, "memory/md-mirror/a.md", "memory/backups/b.jsonl")
    store = one(find, state)
    complete(store)
    assert {name: part.role for name, part in parts(store).items()} == {
        "memory/main.sqlite": Role.DERIVED,
        "memory/md-mirror": Role.CANONICAL,
    }
    assert store.records == 0
    assert store.fingerprint["embedding"] == {"provider": "p1", "model": "m1", "dims": 8}
    assert [each.collection for each in parts(store)["memory/main.sqlite"].maps] == ["chunks_main"]


def test_an_index_needs_its_three_tables(make: Any, find: Find, tmp_path: Path) -> None:
    make.database(tmp_path / "s/memory/main.sqlite", "CREATE TABLE chunks(id, path, start_line, text);")
    assert [store.system for store in find(tmp_path / "s")] == ["custom"]


def test_a_state_folder_is_told_by_its_databases_without_settings(make: Any, find: Find, tmp_path: Path) -> None:
    make.database(tmp_path / "state/agents/main/agent/openclaw-agent.sqlite", AGENT)
    make.files(tmp_path / "state", "workspace/AGENTS.md")
    store = one(find, tmp_path)
    assert set(parts(store)) == {"agents/main/agent/openclaw-agent.sqlite", "workspace"}


def test_settings_without_a_workspace_are_no_store(make: Any, find: Find, tmp_path: Path) -> None:
    make.files(tmp_path / "s", "README.md")
    (tmp_path / "s/openclaw.json").write_text('{"gateway": {"token": "x"}}')
    (store,) = find(tmp_path / "s")
    assert store.system == "custom"
    assert parts(store)["openclaw.json"].secrets == ("gateway.token",)


# workspaces


@pytest.mark.parametrize(
    ("names", "system"),
    [
        (["MEMORY.md", "memory/2026-01-01.md"], CORE),
        (["MEMORY.md", "SOUL.md"], CORE),
        (["AGENTS.md", "SOUL.md"], CORE),
        (["AGENTS.md", "README.md"], "custom"),
        (["MEMORY.md", "README.md"], "custom"),
        (["memory/2026-01-01.md"], "custom"),
    ],
)
def test_a_bare_workspace_is_told_by_its_files(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path, names: list[str], system: str
) -> None:
    space = make.files(tmp_path / "my desk", *names)
    make.database(space / "x.db")
    (store,) = find(space)
    assert (store.system, store.path, store.root) == (system, str(space), str(space))
    assert [part.name for part in store.parts] == [".", "x.db"]
    complete(store)


def test_a_workspace_below_the_given_path_is_no_store_by_itself(make: Any, find: Find, tmp_path: Path) -> None:
    make.files(tmp_path / "code", "project/AGENTS.md", "project/MEMORY.md")
    assert [store.system for store in find(tmp_path / "code")] == ["custom"]


def test_further_agents_have_workspaces_beside_the_first(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    said = {"agents": {"list": [{"id": "w", "workspace": str(tmp_path / "far/desk")}, {"id": "n"}, 3]}}
    state = make.state_dir(tmp_path / "state", said)
    make.files(state, "workspace-ops/MEMORY.md")
    make.files(tmp_path / "far", "desk/MEMORY.md", "desk/memory/a.md", "desk/.env")
    store = one(find, state)
    complete(store)
    assert {name: part.path for name, part in parts(store).items() if name != "openclaw.json"} == {
        "workspace": str(state / "workspace"),
        "workspace-desk": str(tmp_path / "far/desk"),
        "workspace-ops": str(state / "workspace-ops"),
    }
    assert store.records == 5
    assert store.fingerprint["outside"] == {"workspace-desk": str(tmp_path / "far/desk")}
    assert [each.part for each in store.omitted] == ["workspace-desk/.env"]


def test_a_home_folder_as_workspace_gives_only_the_notes(make: Any, find: Find, home: Path) -> None:
    state = make.state_dir(home / ".openclaw", {"agents": {"defaults": {"workspace": "~"}}})
    make.files(home, "MEMORY.md", "memory/a.md", "photos/b.jpg", ".ssh/id_rsa", "AGENTS.md")
    store = one(find, state)
    found = parts(store)
    wide = next(part for part in store.parts if part.path == str(home))
    assert wide.name == "workspace-home"
    assert {"MEMORY.md", "AGENTS.md", "memory/*"} <= set(wide.include)
    assert not any(part.path.startswith(str(home / "photos")) for part in store.parts)
    assert "workspace" in found
    assert store.records == 4


def test_a_link_out_of_the_workspace_is_a_finding(make: Any, find: Find, tmp_path: Path) -> None:
    state = make.state_dir(tmp_path / "state")
    make.files(tmp_path / "far", "x.md")
    (state / "workspace/far").symlink_to(tmp_path / "far", target_is_directory=True)
    (state / "workspace/near.md").symlink_to("MEMORY.md")
    store = one(find, state)
    assert [(each.code, each.part) for each in store.findings] == [("link_leaves_store", "workspace/far")]
    assert "far" in parts(store)["workspace"].exclude
    assert "near.md" not in parts(store)["workspace"].exclude

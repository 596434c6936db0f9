"""What changed: diff, history, search, show and status over real edits in stores of every system."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import memkeep
from memkeep import clock
from memkeep.errors import StoreError, UsageError
from memkeep.library import OpenVault
from memkeep.model import Rung
from memkeep.testing import agent

Tree = Callable[[Path], dict[str, str]]
NO_CHANGE: Any = ((), (), ())
LAST = agent.KEPT + 1


def edit(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def seen(result: Any) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, dict[str, list[Any]]]]:
    return result.added, result.removed, {change.id: change.fields for change in result.changed}


def both_ways(vault: OpenVault, a: str, live: Path, b: str) -> None:
    """Check that a diff with the live store says what the diff of the two snapshots says, and the other way round."""
    forward = vault.diff(a, b)
    assert vault.diff(a, str(live)) == forward
    back = vault.diff(b, a)
    assert (back.added, back.removed) == (forward.removed, forward.added)
    assert {one.id: {name: pair[::-1] for name, pair in one.fields.items()} for one in back.changed} == {
        one.id: one.fields for one in forward.changed
    }
    assert vault.diff(str(live), a) == back
    assert vault.diff(b, str(live)) == vault.diff(b, b) == vault.diff(str(live), str(live))
    assert (vault.diff(b, b).added, vault.diff(b, b).removed, vault.diff(b, b).changed) == ((), (), ())


def test_oc_memory(copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault], tree_hash: Tree) -> None:
    store, vault = copy_store("oc-memory") / "memory.db", new_vault()
    [first] = vault.backup(store).snapshots
    edit(
        store,
        "UPDATE mem_cells SET content = 'Server fsn1 runs Debian 13', access_count = 9 WHERE id = 1",
        "UPDATE mem_cells SET embedding = zeroblob(3072) WHERE id = 3",
        "DELETE FROM mem_cells WHERE id = 5",
        "INSERT INTO mem_cells(id, scene, cell_type, content, created_at, updated_at) "
        "VALUES (99, 's', 'fact', 'new', '2026', '2026')",
        "UPDATE mem_scenes SET summary = 'other' WHERE scene = 'preferences'",
    )
    before = tree_hash(store.parent)
    [second] = vault.backup(store).snapshots
    both_ways(vault, first.id, store, second.id)
    added, removed, changed = seen(vault.diff(first.id, second.id))
    assert added == ("99",)
    assert removed == ("5",)
    assert changed.pop("1") == {
        "text": ["Server fsn1 runs Debian 12", "Server fsn1 runs Debian 13"],
        "access_count": [changed_access(store, vault, first.id), 9],
    }
    [vector] = changed.pop("3").values()
    assert [cell["dims"] for cell in vector] == [768, 768]
    [scene] = changed
    assert scene.endswith(":preferences")
    assert changed[scene] == {"text": [changed[scene]["text"][0], "other"]}
    assert tree_hash(store.parent) == before


def changed_access(store: Path, vault: OpenVault, snapshot: str) -> int:
    """Return how often cell 1 had been asked for, as the restored database says."""
    target = store.parent.parent / "then"
    vault.restore(snapshot, to=target)
    with closing(sqlite3.connect(target / "memory.db")) as connection:
        count: int = connection.execute("SELECT access_count FROM mem_cells WHERE id = 1").fetchone()[0]
    return count


def test_openclaw_hybrid(memory: Path, new_vault: Callable[..., OpenVault], tree_hash: Tree) -> None:
    vault = new_vault()
    [first] = vault.backup(memory).snapshots
    with closing(agent._connect(memory, "wal")) as connection:
        agent.write_batch(memory, connection, LAST + 1)
    before = tree_hash(memory)
    [second] = vault.backup(memory).snapshots
    both_ways(vault, first.id, memory, second.id)
    added, removed, changed = seen(vault.diff(first.id, "latest"))
    facts = [one for one in (*added, *removed, *changed) if ":" not in one]
    then, now = agent.facts_at(LAST), agent.facts_at(LAST + 1)
    assert {one for one in added if ":" not in one} == now.keys() - then.keys()
    assert {one for one in removed if ":" not in one} == then.keys() - now.keys()
    again = agent.identity(LAST * agent.A_BATCH)
    assert changed[again]["text"] == [then[again], now[again]]
    assert changed["anchor"] == {"recall_count": [LAST, LAST + 1]}
    assert len(facts) == 3 + 3 + 2
    assert sum(one.startswith("memory_links:") for one in added) == 1
    assert tree_hash(memory) == before


def test_openclaw_lancedb(
    copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault], tree_hash: Tree
) -> None:
    import lance

    store, vault = copy_store("pro-1.1.0-beta.11", "lancedb-pro"), new_vault()
    [first] = vault.backup(store).snapshots
    table = lance.dataset(str(store / "memories.lance"))
    changed_id, gone = sorted(table.to_table(columns=["id"]).column("id").to_pylist())[:2]
    table.update({"text": "'other words'"}, where=f"id = '{changed_id}'")
    table.delete(f"id = '{gone}'")
    table.optimize.compact_files()
    before = tree_hash(store)
    [second] = vault.backup(store).snapshots
    both_ways(vault, first.id, store, second.id)
    added, removed, changed = seen(vault.diff(first.id, second.id))
    assert (added, removed, list(changed)) == ((), (gone,), [changed_id])
    assert changed[changed_id]["text"][1] == "other words"
    assert list(changed[changed_id]) == ["text"]
    assert tree_hash(store) == before


def test_openclaw_core(copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault], tree_hash: Tree) -> None:
    state, vault = copy_store("openclaw-core-2026.9.6", "state-dir"), new_vault()
    shutil.rmtree(state / "memory")
    [first] = vault.backup(state).snapshots
    (state / "workspace" / "MEMORY.md").write_text("# Long-term memory\n\n- Prefers light mode\n")
    (state / "workspace" / "USER.md").unlink()
    (state / "workspace" / "memory" / "2026-11-21.md").write_text("# The next day\n")
    (state / "workspace" / "code.py").write_text("print('no memory')\n")
    before = tree_hash(state)
    [second] = vault.backup(state).snapshots
    both_ways(vault, first.id, state, second.id)
    added, removed, changed = seen(vault.diff(first.id, second.id))
    assert (added, removed) == (("workspace/memory/2026-11-21.md",), ("workspace/USER.md",))
    assert list(changed) == ["workspace/MEMORY.md"]
    assert changed["workspace/MEMORY.md"]["text"][1] == "# Long-term memory\n\n- Prefers light mode\n"
    assert tree_hash(state) == before


def test_custom(tmp_path: Path, new_vault: Callable[..., OpenVault]) -> None:
    store, vault = tmp_path / "mine", new_vault()
    store.mkdir()
    edit(store / "a.db", "CREATE TABLE memories(id INTEGER PRIMARY KEY, text TEXT, x REAL, b BLOB)")
    edit(store / "a.db", "INSERT INTO memories VALUES (1, 'one', 0.5, x'00'), (2, 'two', NULL, NULL)")
    (store / "note.md").write_text("# Note\n")
    [first] = vault.backup(store).snapshots
    edit(store / "a.db", "UPDATE memories SET x = 1e999, b = x'01' WHERE id = 1", "DELETE FROM memories WHERE id = 2")
    edit(store / "a.db", "INSERT INTO memories VALUES (10, 'ten', 1, NULL)")
    (store / "note.md").write_text("# Another\n")
    [second] = vault.backup(store).snapshots
    both_ways(vault, first.id, store, second.id)
    added, removed, changed = seen(vault.diff(first.id, second.id))
    assert (added, removed) == (("10",), ("2",))
    assert changed["1"]["x"] == [0.5, {"float": "inf"}]
    assert [cell["bytes"] for cell in changed["1"]["b"]] == [1, 1]
    assert changed["note.md"]["text"] == ["# Note\n", "# Another\n"]
    json.dumps(changed)  # every value is one of JSON


def test_a_store_that_has_grown_many_times_over_is_compared_all_the_same(
    tmp_path: Path, new_vault: Callable[..., OpenVault]
) -> None:
    """Records lie in more groups when there are more of them: then the groups can't be compared one by one."""
    path, vault = tmp_path / "grows.db", new_vault()
    edit(path, "CREATE TABLE memories(id INTEGER PRIMARY KEY, text TEXT)")
    reports = []
    for size in (10, 3000, 700):
        edit(path, "DELETE FROM memories")
        rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i, {} FROM n"
        edit(path, f"INSERT INTO memories {rows.format(size, f'''i || ' of ' || (i % 7 = 0 AND {size} = 700)''')}")
        reports.append(vault.backup(path).snapshots[0])
        assert reports[-1].records == size
        for before in reports[:-1]:
            both_ways(vault, before.id, path, reports[-1].id)
    inner = vault._vault
    bits = [inner.image(inner.resolve(report.id).parts[0]).collections[0].bits for report in reports]
    assert bits[0] < bits[1]
    grown, shrunk = vault.diff(reports[0].id, reports[1].id), vault.diff(reports[1].id, reports[2].id)
    assert (len(grown.added), len(grown.removed), len(grown.changed)) == (2990, 0, 0)
    assert (len(shrunk.added), len(shrunk.removed), len(shrunk.changed)) == (0, 2300, 100)


def test_sides_that_cannot_be_compared_are_refused(
    memory: Path, copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    [one] = vault.backup(memory).snapshots
    [other] = vault.backup(copy_store("oc-memory") / "memory.db").snapshots
    with pytest.raises(UsageError):
        vault.diff(one.id, other.id)
    with pytest.raises(StoreError):
        vault.diff(one.id, "f" * 64)
    with pytest.raises(StoreError):
        vault.diff(one.id, str(tmp_path / "nowhere"))
    state = copy_store("openclaw-core-2026.9.6", "state-dir")
    with pytest.raises(UsageError, match="2 stores"):
        vault.diff(str(state), str(state))


def test_a_diff_chooses_the_store_that_fits_the_snapshot(
    copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault]
) -> None:
    state, vault = copy_store("openclaw-core-2026.9.6", "state-dir"), new_vault()
    for report in vault.backup(state).snapshots:
        assert seen(vault.diff(report.id, str(state)))[:2] == ((), ())


def test_the_history_of_a_memory_has_the_moments_in_which_it_changed(
    tmp_path: Path, new_vault: Callable[..., OpenVault]
) -> None:
    path, vault = tmp_path / "a.db", new_vault()
    edit(path, "CREATE TABLE memories(id TEXT PRIMARY KEY, text TEXT)", "INSERT INTO memories VALUES ('other', 'x')")
    ids = []
    for statement in (
        "SELECT 1",
        "INSERT INTO memories VALUES ('it', 'first')",
        "UPDATE memories SET text = 'y' WHERE id = 'other'",
        "UPDATE memories SET text = 'second' WHERE id = 'it'",
        "DELETE FROM memories WHERE id = 'it'",
        "SELECT 1",
        "INSERT INTO memories VALUES ('it', 'third')",
    ):
        edit(path, statement)
        ids.append(vault.backup(path).snapshots[0].id)
    history = vault.history("it")
    told = [(moment.snapshot, moment.event, moment.fields.get("text")) for moment in history.moments]
    assert told == [
        (ids[1], "added", [None, "first"]),
        (ids[3], "changed", ["first", "second"]),
        (ids[4], "removed", ["second", None]),
        (ids[6], "added", [None, "third"]),
    ]
    assert history.snapshots == 4
    assert [moment.created for moment in history.moments] == sorted(moment.created for moment in history.moments)
    with pytest.raises(StoreError) as caught:
        vault.history("never")
    assert caught.value.code == "no_record"


def test_words_are_found_in_every_version_of_a_memory(tmp_path: Path, new_vault: Callable[..., OpenVault]) -> None:
    path, vault = tmp_path / "a.db", new_vault()
    edit(path, "CREATE TABLE memories(id TEXT PRIMARY KEY, text TEXT)")
    edit(path, "INSERT INTO memories VALUES ('a', 'The CAT likes Café ☕'), ('b', 'the dog'), ('c', 'straße 日本語')")
    [first] = vault.backup(path).snapshots
    edit(path, "UPDATE memories SET text = 'The cat is gone' WHERE id = 'a'")
    [second] = vault.backup(path).snapshots
    [third] = vault.backup(path).snapshots

    def found(words: str, **options: Any) -> list[tuple[str, str, tuple[str, ...]]]:
        return [(hit.id, hit.text, hit.snapshots) for hit in vault.search(words, **options).hits]

    now = ("a", "The cat is gone", (second.id, third.id))
    assert sorted(found("cat")) == [("a", "The CAT likes Café ☕", (first.id,)), now]
    assert found("gone THE") == [now]
    assert found("cat", snapshot="latest") == [("a", "The cat is gone", (third.id,))]
    assert found("cafe\u0301")[0][0] == "a"  # the same letters, composed in another way
    assert [hit[0] for hit in found("STRASSE")] == ["c"]
    assert [hit[0] for hit in found("日本")] == ["c"]
    assert found("cat dog") == []
    with pytest.raises(UsageError):
        vault.search("  ")


def test_show_says_what_a_snapshot_holds(copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault()
    [report] = vault.backup(copy_store("hybrid-2026.4.273", "memory"), tag="t", label="my label").snapshots
    shown = vault.show(report.id[:10])
    assert (shown.id, shown.system, shown.records, shown.tag, shown.label) == (
        report.id,
        report.system,
        41,
        "t",
        "my label",
    )
    assert shown.categories == {"fact": 19, "other": 18, "decision": 1, "entity": 1, "preference": 1, "technical": 1}
    assert sum(shown.scopes.values()) == 41
    assert shown.oldest == shown.newest
    assert str(shown.oldest).startswith("2026-11-21T01:13:15")
    assert shown.fingerprint["embedding"] == {"provider": "ollama", "model": "fake-hash-embed", "dims": 16}
    assert len([part for part in shown.parts if part.engine == "sqlite"]) == 19
    [facts] = [part for part in shown.parts if part.name == "facts.db"]
    assert facts.rows["facts"] == 41
    assert facts.how
    assert (shown.added_bytes, shown.source_bytes, shown.rung) == (report.added_bytes, report.source_bytes, "readable")
    listed = vault.snapshots(tag="t").snapshots
    assert [row.id for row in listed] == [report.id]
    assert vault.snapshots(tag="other").snapshots == vault.snapshots(system="oc-memory").snapshots == ()


def test_status_says_what_is_protected_how_well_and_since_when(
    memory: Path,
    copy_store: Callable[..., Path],
    new_vault: Callable[..., OpenVault],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault, cells = new_vault(encrypted=False), copy_store("oc-memory") / "memory.db"
    shutil.copy(copy_store("hybrid-2026.4.273", "memory") / "credentials.db", memory)
    nothing = vault.status(cells).stores
    assert [(one.present, one.protected, one.rung, one.last, one.records) for one in nothing] == [
        (True, False, "none", None, 7)
    ]
    [report] = vault.backup(memory).snapshots
    later = datetime.now(UTC) + timedelta(days=3)
    monkeypatch.setattr(clock, "now", lambda: later)
    by_system = {one.system: one for one in vault.status(memory, cells).stores}
    hybrid = by_system["openclaw-hybrid"]
    assert (hybrid.protected, hybrid.last, hybrid.snapshots, hybrid.rung) == (True, report.id, 1, "readable")
    assert abs((hybrid.age_s or 0) - 3 * 86400) < 60
    assert [omission.part for omission in hybrid.unprotected] == ["credentials.db"]
    assert not by_system["oc-memory"].protected
    vault.verify(rung=Rung.EQUIVALENT)
    [hybrid] = vault.status(memory).stores
    assert (hybrid.rung, hybrid.rung_at) == ("equivalent", later.isoformat(timespec="seconds"))
    shutil.rmtree(memory)
    [gone] = [one for one in vault.status(cells).stores if one.system == "openclaw-hybrid"]
    assert (gone.present, gone.protected, gone.last) == (False, True, report.id)


def test_a_dry_run_writes_nothing(
    memory: Path, new_vault: Callable[..., OpenVault], home: Path, tree_hash: Tree
) -> None:
    vault = new_vault()
    before = tree_hash(home), tree_hash(memory)
    [report] = vault.backup(memory, dry_run=True, tag="t").snapshots
    assert (report.id, report.added_bytes, report.records, report.rung) == ("", 0, 31, "none")
    assert report.source_bytes > 1000
    assert vault.snapshots().snapshots == ()
    assert (tree_hash(home), tree_hash(memory)) == before


def test_a_snapshot_can_be_left_unverified(memory: Path, new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault()
    assert vault.backup(memory, verify=False).snapshots[0].rung == "none"
    assert vault.verify(rung=Rung.EQUIVALENT).snapshots[0].rung == "equivalent"
    assert vault.show().rung == "equivalent"


def test_the_second_day_costs_what_is_new(memory: Path, new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault()
    [first] = vault.backup(memory).snapshots
    [same] = vault.backup(memory).snapshots
    with closing(agent._connect(memory, "wal")) as connection:
        agent.write_batch(memory, connection, LAST + 1)
    [second] = vault.backup(memory).snapshots
    assert same.added_bytes < second.added_bytes < first.added_bytes
    assert memkeep.discover(memory)[0].records == second.records


def test_rows_that_are_no_records_are_said_to_differ(
    copy_store: Callable[..., Path], new_vault: Callable[..., OpenVault]
) -> None:
    store, vault = copy_store("oc-memory") / "memory.db", new_vault()
    edit(store, "CREATE TABLE settings (name TEXT PRIMARY KEY, said TEXT)", "INSERT INTO settings VALUES ('a', 'b')")
    [first] = vault.backup(store).snapshots
    assert vault.diff(first.id, str(store)).others is msgspec.UNSET
    edit(store, "UPDATE settings SET said = 'c'", "CREATE TABLE more (name TEXT)", "INSERT INTO more VALUES ('x')")
    [second] = vault.backup(store).snapshots
    result = vault.diff(first.id, second.id)
    assert seen(result) == ((), (), {})
    assert result.others == ("memory.db/more", "memory.db/settings")
    assert vault.diff(first.id, str(store)) == result
    assert vault.diff(second.id, str(store)).others is msgspec.UNSET
    edit(store, "DELETE FROM mem_cells WHERE id = 5")
    assert not [one for one in vault.diff(second.id, str(store)).others or () if one.endswith("mem_cells")]

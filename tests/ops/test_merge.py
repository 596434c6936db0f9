"""Records of a snapshot among those of a live store: all policies, one bad row, and nothing by halves."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.errors import RefusedError, StoreError
from memkeep.library import OpenVault

SCHEMA = """
CREATE TABLE memories (
  id TEXT PRIMARY KEY, content TEXT NOT NULL CHECK (content <> 'forbidden'), user_id TEXT, updated_at TEXT
);
CREATE VIRTUAL TABLE memories_fts USING fts5(content, content='memories', content_rowid='rowid');
CREATE TRIGGER ai AFTER INSERT ON memories BEGIN
  INSERT INTO memories_fts (rowid, content) VALUES (new.rowid, new.content); END;
CREATE TRIGGER ad AFTER DELETE ON memories BEGIN
  INSERT INTO memories_fts (memories_fts, rowid, content) VALUES ('delete', old.rowid, old.content); END;
CREATE TRIGGER au AFTER UPDATE ON memories BEGIN
  INSERT INTO memories_fts (memories_fts, rowid, content) VALUES ('delete', old.rowid, old.content);
  INSERT INTO memories_fts (rowid, content) VALUES (new.rowid, new.content); END;
"""
ROWS = [
    ("one", "the cat sleeps", "ann", "2024-01-01T00:00:00"),
    ("two", "the dog runs", "bob", "2024-01-02T00:00:00"),
    ("three", "a bird", "ann", "2024-01-03T00:00:00"),
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "memory.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as con:
        con.executescript(SCHEMA)
        con.executemany("INSERT INTO memories VALUES (?, ?, ?, ?)", ROWS)
    con.close()
    return path


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault], store: Path) -> OpenVault:
    made = new_vault()
    made.backup(store.parent)
    return made


def run(store: Path, *statements: str) -> list[Any]:
    con = sqlite3.connect(store)
    try:
        rows: list[Any] = []
        for sql in statements:
            rows = con.execute(sql).fetchall()
        con.commit()
        return rows
    finally:
        con.close()


def contents(store: Path) -> dict[str, str]:
    return dict(run(store, "SELECT id, content FROM memories"))


def spoil(store: Path) -> None:
    """Lose a record, change one for later and one for earlier, and add one."""
    run(
        store,
        "DELETE FROM memories WHERE id = 'one'",
        "UPDATE memories SET content = 'the dog sits', updated_at = '2025-01-01T00:00:00' WHERE id = 'two'",
        "UPDATE memories SET content = 'a moth', updated_at = '2023-01-01T00:00:00' WHERE id = 'three'",
        "INSERT INTO memories VALUES ('four', 'new since', 'ann', '2025-02-02T00:00:00')",
    )


@pytest.mark.parametrize(
    ("conflict", "two", "three", "numbers"),
    [
        ("skip", "the dog sits", "a moth", (1, 0, 2, 0)),
        ("update", "the dog runs", "a bird", (1, 2, 0, 0)),
        ("newer", "the dog sits", "a bird", (1, 1, 1, 0)),
    ],
)
def test_what_is_lost_comes_back_and_what_differs_goes_by_the_policy(
    vault: OpenVault, store: Path, conflict: Any, two: str, three: str, numbers: tuple[int, ...]
) -> None:
    spoil(store)
    before = contents(store)
    rehearsed = vault.restore_into(store.parent, conflict=conflict, dry_run=True)
    assert contents(store) == before
    assert len(vault.snapshots().snapshots) == 1
    done = vault.restore_into(store.parent, conflict=conflict)
    assert done.merged == rehearsed.merged
    assert done.merged is not None
    assert (done.merged.inserted, done.merged.updated, done.merged.skipped, done.merged.same) == numbers
    assert contents(store) == {"one": "the cat sleeps", "two": two, "three": three, "four": "new since"}
    assert run(store, "SELECT content FROM memories_fts WHERE memories_fts MATCH 'cat'") == [("the cat sleeps",)]


def test_conflicts_refuse_it_all_where_that_was_asked_for(vault: OpenVault, store: Path) -> None:
    spoil(store)
    before = contents(store)
    with pytest.raises(RefusedError, match="memories:two") as caught:
        vault.restore_into(store.parent, conflict="fail")
    assert (caught.value.exit, caught.value.code) == (13, "conflicts")
    assert contents(store) == before


def test_merging_twice_changes_nothing_more(vault: OpenVault, store: Path) -> None:
    run(store, "DELETE FROM memories")
    first = vault.snapshots().snapshots[0].id
    assert vault.restore_into(store.parent, first).merged.inserted == 3  # type: ignore[union-attr]
    again = vault.restore_into(store.parent, first, conflict="fail").merged
    assert again is not None
    assert (again.inserted, again.same) == (0, 3)


def test_only_the_records_of_one_user(vault: OpenVault, store: Path) -> None:
    run(store, "DELETE FROM memories")
    done = vault.restore_into(store.parent, user="ann").merged
    assert done is not None
    assert done.inserted == 2
    assert sorted(contents(store)) == ["one", "three"]


def test_a_row_that_the_database_refuses_is_named_and_the_others_go_in(
    new_vault: Callable[..., OpenVault], store: Path
) -> None:
    run(store, "CREATE TABLE plain AS SELECT * FROM memories", "DELETE FROM memories")
    run(store, "PRAGMA ignore_check_constraints = 1")
    con = sqlite3.connect(store)
    con.execute("PRAGMA ignore_check_constraints = 1")
    con.executemany("INSERT INTO memories VALUES (?, ?, ?, ?)", [*ROWS, ("bad", "forbidden", "ann", None)])
    con.commit()
    con.close()
    vault = new_vault()
    first = vault.backup(store.parent).snapshots[0].id
    run(store, "DELETE FROM memories")
    rehearsed = vault.restore_into(store.parent, first, dry_run=True)
    done = vault.restore_into(store.parent, first)
    assert done.merged == rehearsed.merged
    assert done.merged is not None
    assert [(one.table, one.id) for one in done.merged.failed] == [("memories", "bad")]
    assert sorted(contents(store)) == ["one", "three", "two"]
    assert [one.code for one in done.findings] == ["row_refused"]
    assert rehearsed.findings == done.findings
    assert "went in" not in rehearsed.findings[0].message


def test_a_store_that_is_written_to_is_left_as_it_is(vault: OpenVault, store: Path) -> None:
    con = sqlite3.connect(store)
    con.execute("BEGIN IMMEDIATE")
    con.execute("DELETE FROM memories")
    try:
        with pytest.raises(StoreError, match="could not be written"):
            vault.restore_into(store.parent, dry_run=True)
    finally:
        con.rollback()
        con.close()
    assert len(contents(store)) == 3


def test_a_column_that_the_live_table_has_no_more_is_said(vault: OpenVault, store: Path) -> None:
    run(store, "DELETE FROM memories", "ALTER TABLE memories DROP COLUMN updated_at")
    done = vault.restore_into(store.parent)
    assert [one.code for one in done.findings] == ["columns_left"]
    assert done.merged is not None
    assert done.merged.inserted == 3


def test_what_was_merged_is_undone_by_the_command_that_is_said(vault: OpenVault, store: Path) -> None:
    spoil(store)
    before = contents(store)
    done = vault.restore_into(store.parent, conflict="update")
    assert contents(store) != before
    assert done.undo is not None
    kept = done.undo.split()[2]
    assert done.undo == f"memkeep restore {kept} --in-place --confirm=custom"
    vault.restore(kept, in_place=True, confirm="custom")
    assert contents(store) == before


def test_what_was_kept_of_the_store_is_not_the_latest_backup(vault: OpenVault, store: Path) -> None:
    first = vault.snapshots().snapshots[0].id
    spoil(store)
    vault.restore_into(store.parent)
    assert len(vault.snapshots().snapshots) == 2
    assert vault.show("latest").id == first


def test_nothing_is_left_beside_a_database_when_it_was_only_rehearsed(vault: OpenVault, store: Path) -> None:
    spoil(store)
    vault.restore_into(store.parent, conflict="update", dry_run=True)
    with pytest.raises(RefusedError, match="memories:two"):
        vault.restore_into(store.parent, conflict="fail")
    assert [each.name for each in store.parent.iterdir()] == [store.name]


def test_text_that_is_none_comes_back_as_the_bytes_that_it_was(
    new_vault: Callable[..., OpenVault], store: Path
) -> None:
    run(store, "INSERT INTO memories VALUES (CAST(x'ff41' AS TEXT), CAST(x'66ff6f' AS TEXT), NULL, NULL)")
    vault = new_vault()
    vault.backup(store.parent)
    run(store, "DELETE FROM memories WHERE content LIKE '%cat%' OR user_id IS NULL")
    done = vault.restore_into(store.parent).merged
    assert done is not None
    assert (done.inserted, done.same) == (2, 2)
    rows = run(store, "SELECT hex(id), hex(content), typeof(content) FROM memories WHERE user_id IS NULL")
    assert rows == [("FF41", "66FF6F", "text")]


def test_a_row_that_is_refused_does_not_end_the_reading_of_the_others(
    new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    """What was begun since the schema was changed, as full-text tables make theirs ready, SQLite ends for it."""
    path = tmp_path / "store" / "memory.db"
    path.parent.mkdir()
    run(
        path,
        "CREATE TABLE memories (id INTEGER PRIMARY KEY, content TEXT)",
        "CREATE VIRTUAL TABLE words USING fts5(content)",
        "CREATE VIRTUAL TABLE trigrams USING fts5(content, tokenize='trigram')",
        *(f"INSERT INTO memories VALUES ({n}, 'text {n}')" for n in range(300)),
        "INSERT INTO words(rowid, content) SELECT id, content FROM memories",
        "INSERT INTO trigrams(rowid, content) SELECT id, content FROM memories",
    )
    vault = new_vault()
    vault.backup(path.parent)
    run(path, *(f"DELETE FROM {table} WHERE rowid = 299" for table in ("memories", "words", "trigrams")))
    done = vault.restore_into(path.parent).merged
    assert done is not None
    assert (done.inserted, done.same) == (1, 299)


def test_rows_without_a_rowid_are_known_by_all_of_their_key(
    new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    path = tmp_path / "store" / "memory.db"
    path.parent.mkdir()
    run(
        path,
        "CREATE TABLE memories (agent TEXT, n INT, content TEXT, PRIMARY KEY (agent, n)) WITHOUT ROWID",
        "INSERT INTO memories VALUES ('ann', 1, 'one'), ('ann', 2, 'two'), ('bob', 1, 'three')",
    )
    vault = new_vault()
    (snapshot,) = vault.backup(path.parent).snapshots
    assert (snapshot.records, snapshot.findings) == (3, ())
    run(path, "DELETE FROM memories WHERE n = 2", "UPDATE memories SET content = 'changed' WHERE agent = 'bob'")
    done = vault.restore_into(path.parent, conflict="update").merged
    assert done is not None
    assert (done.inserted, done.updated, done.same) == (1, 1, 1)
    assert run(path, "SELECT content FROM memories ORDER BY 1") == [("one",), ("three",), ("two",)]

"""The records of a store or a snapshot, in portable form."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import memkeep
from memkeep.errors import StoreError, UsageError
from memkeep.ops import records
from memkeep.ops.audit import audit, status_of_audit
from memkeep.ops.records import Filters
from memkeep.records.record import Record, Relationship

Copy = Callable[..., Path]


def read(place: Path, **filters: object) -> tuple[list[Record], list[Relationship], records.RecordSource]:
    with records.of(None, str(place), filters=Filters(**filters)) as source:  # type: ignore[arg-type]
        return list(source.records()), list(source.relationships()), source


def test_a_snapshot_gives_what_the_store_gave(copy_store: Copy, tmp_path: Path) -> None:
    store = copy_store("hybrid-2026.4.273") / "memory"
    memkeep.init_vault(tmp_path / "vault", encrypt=False)
    opened = memkeep.open_vault(tmp_path / "vault")
    opened.backup(store)
    live = read(store)[:2]
    with records.of(opened._vault, "latest") as source:
        assert (list(source.records()), list(source.relationships())) == live
        assert list(source.records()) == live[0]


def test_a_memory_has_its_vector_wherever_the_product_keeps_it(copy_store: Copy) -> None:
    made, _, _ = read(copy_store("hybrid-2026.4.273") / "memory")
    facts = [one for one in made if one.primary]
    assert len(facts) == 41
    assert {one.vectors[""].dims for one in facts} == {16}
    assert {one.vectors[""].model for one in facts} == {"ollama/fake-hash-embed"}


def test_records_are_in_the_order_of_their_ids_and_memories_first(copy_store: Copy) -> None:
    made, _, _ = read(copy_store("openmemory"))
    assert [one.id for one in made if one.primary] == sorted(one.id for one in made if one.primary)
    assert [one.primary for one in made] == sorted((one.primary for one in made), reverse=True)


def test_only_the_records_of_a_user_and_what_joins_them_are_taken(copy_store: Copy) -> None:
    made, _, source = read(copy_store("openmemory"), user="marta")
    memories = [one for one in made if one.primary]
    assert memories
    assert {one.user for one in memories} == {"marta"}
    assert source.about.filters == {"user": "marta"}


def test_only_what_was_made_since_a_time_is_taken(copy_store: Copy) -> None:
    store = copy_store("mem0-local")
    everything = [one for one in read(store)[0] if one.primary]
    times = sorted(one.updated_at or one.created_at or "" for one in everything)
    wanted = [one for one in read(store, since=times[30])[0] if one.primary]
    assert {one.id for one in wanted} == {
        one.id for one in everything if (one.updated_at or "") >= times[30] or (one.created_at or "") >= times[30]
    }
    with pytest.raises(UsageError, match="yesterday"):
        read(store, since="yesterday")


def test_without_vectors_nothing_else_is_different(copy_store: Copy) -> None:
    store = copy_store("pro-1.1.0-beta.11") / "lancedb-pro"
    whole, bare = read(store)[0], read(store, vectors=False)[0]
    assert [one.text for one in whole] == [one.text for one in bare]
    assert all(one.vectors for one in whole)
    assert not any(one.vectors for one in bare)


def test_a_part_that_is_damaged_is_named_and_the_others_are_read(copy_store: Copy) -> None:
    store = copy_store("hybrid-2026.4.273") / "memory"
    for data in (store / "lancedb" / "memories.lance" / "data").iterdir():
        data.write_bytes(data.read_bytes()[:100])
    made, joined, source = read(store)
    assert len([one for one in made if one.primary]) == 41
    assert joined
    assert [one.code for one in source.about.unread] == ["part_unread"]
    assert "lance_memories" in source.about.unread[0].message


def test_the_first_of_the_parts_may_be_the_damaged_one(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        with closing(sqlite3.connect(tmp_path / name)) as con, con:
            con.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, content TEXT)")
            con.executemany("INSERT INTO memories (content) VALUES (?)", [("a text " * 500,)] * 50)
    damaged = tmp_path / "a.db"
    damaged.write_bytes(damaged.read_bytes()[:4096] + bytes(range(256)) * 16 + damaged.read_bytes()[8192:])
    made, _, source = read(tmp_path)
    assert len(made) == 50
    assert len(source.about.unread) == 1


def test_a_store_whose_memories_are_damaged_is_an_error(copy_store: Copy) -> None:
    store = copy_store("memory-lancedb-2026.3.13") / "lancedb"
    for data in (store / "memories.lance" / "data").iterdir():
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(StoreError, match="memories"):
        read(store)


def test_nothing_of_a_live_store_is_changed(copy_store: Copy, tree_hash: Callable[[Path], str]) -> None:
    for name in ("oc-memory", "openmemory", "mem0-local"):
        store = copy_store(name)
        before = tree_hash(store)
        read(store / "memory.db" if name == "oc-memory" else store)
        assert tree_hash(store) == before


def test_no_plan_is_made_of_a_store_that_was_not_all_read(copy_store: Copy, tmp_path: Path) -> None:
    store = copy_store("hybrid-2026.4.273") / "memory"
    for data in (store / "lancedb" / "memories.lance" / "data").iterdir():
        data.write_bytes(data.read_bytes()[:100])
    result = audit(None, str(store))
    assert [one.code for one in result.unread] == ["part_unread"]
    assert status_of_audit(result) == 3
    with pytest.raises(StoreError, match="a plan needs all"):
        audit(None, str(store), plan=tmp_path / "plan")
    assert not (tmp_path / "plan").exists()

"""Memory moved from any product into any other, and back."""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lancedb
import msgspec
import pytest

import memkeep
from memkeep.errors import RefusedError, StoreError, UsageError, VaultMissingError
from memkeep.ops import records
from memkeep.ops.migrate import MigrateResult, change_of, migrate
from memkeep.ops.open import open_vault
from memkeep.ops.restore import restore
from memkeep.records.record import Record, Relationship
from memkeep.vault.vault import Vault

Copy = Callable[..., Path]

SOURCES = {
    "oc-memory": ("oc-memory", "memory.db"),
    "hybrid": ("hybrid-2026.4.273", "memory"),
    "pro": ("pro-1.1.0-beta.11", "lancedb-pro"),
    "legacy": ("memory-lancedb-2026.3.13", "lancedb"),
    "openmemory": ("openmemory", ""),
    "mem0": ("mem0-local", ""),
}
TARGETS = ("oc-memory", "openclaw-hybrid", "memory-lancedb-pro", "mem0", "openmemory")


def source_of(name: str, copy_store: Copy) -> str:
    folder, inside = SOURCES[name]
    return str(copy_store(folder) / inside)


def read(place: str | Path) -> tuple[list[Record], list[Relationship]]:
    with records.of(None, str(place)) as source:
        return list(source.records()), list(source.relationships())


def moved(source: str, to: str, **more: object) -> MigrateResult:
    return migrate(None, source, to, **more)  # type: ignore[arg-type]


def new_vault(folder: Path) -> Vault:
    memkeep.init_vault(folder / "vault", encrypt=False)
    return open_vault(str(folder / "vault"))


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", SOURCES)
def test_there_and_back_gives_the_same_records(name: str, to: str, copy_store: Copy, tmp_path: Path) -> None:
    source = source_of(name, copy_store)
    place = tmp_path / ("new.db" if to == "oc-memory" else "new")
    result = moved(source, f"{to}:{place}")
    assert result.merged is not None
    assert not result.merged.failed
    before, joined = read(source)
    after, joined_after = read(place)
    lost = {one.field.removeprefix("collection ") for one in result.fields if one.fate == "lost"}
    known = {(one.system, one.collection) for one in before}
    wanted = [one for one in before if one.collection not in lost]
    found = [one for one in after if (one.system, one.collection) in known]
    assert sorted(map(_key, found)) == sorted(map(_key, _without_lost(wanted, lost)))
    assert joined_after == (joined if "relationships" not in lost else [])


def _key(made: Record) -> str:
    return repr(msgspec.structs.replace(made, vectors=dict(sorted(made.vectors.items()))))


def _without_lost(made: list[Record], lost: set[str]) -> list[Record]:
    """Return records without what the plan said would be lost: here, vectors that the target has no place for."""
    nameless = "the name of the vectors' model" in lost
    return [
        msgspec.structs.replace(
            one,
            vectors={
                name: msgspec.structs.replace(vector, model=None if nameless else vector.model)
                for name, vector in one.vectors.items()
                if f"vectors.{name}" not in lost
            },
        )
        for one in made
    ]


@pytest.mark.parametrize("to", TARGETS)
def test_a_second_run_changes_nothing(to: str, copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("hybrid", copy_store)
    place = tmp_path / ("new.db" if to == "oc-memory" else "new")
    moved(source, f"{to}:{place}")
    planned = moved(source, f"{to}:{place}", dry_run=True, conflict="update")
    again = migrate(new_vault(tmp_path), source, f"{to}:{place}", conflict="update")
    assert planned.merged is not None
    assert again.merged is not None
    assert planned.merged == again.merged
    assert (again.merged.inserted, again.merged.updated, again.merged.skipped) == (0, 0, 0)
    assert again.merged.same >= 40


ODD = """
INSERT INTO mem_cells VALUES
 (101, 's' || char(0) || 'x', 'fa' || char(0), 0.5, 'nul ' || char(0) || ' inside', '', '["a,b",""]', zeroblob(32), 0,
  '2026-11-21T01:16:30', '2026-11-21T01:16:30'),
 (102, '', '', NULL, '', '', 'not json', NULL, NULL, '', 'yesterday'),
 (103, 's', 'fact', 9e999, 'infinite', '', '[1,2]', x'0000c07f0000807f000080ff00000000000000800100000060b1617f0000803f',
  -5, '1969-07-20T20:17:40', '12026-01-01T00:00:00'),
 (104, '😀', 'fact', 5, char(8238) || ' bidi', '', '{"a":1}', x'010203', 1099511627776, '2026-11-21 01:16:30', 'Z'),
 (4611686018427387904, 's', 'fact', 1, 'large id', '', '[]', zeroblob(32), 1,
  '0001-01-01T00:00:00', '9999-12-31T23:59:59'),
 (-7, 's', 'fact', 1, 'negative id', '', '[]', x'', 1, '2026-11-21T01:16:30.1', '2026-11-21T01:16:30.123456789'),
 (105, 's', 'fact', 0.5, cast(x'ff41fe' AS TEXT), '', '[]', NULL, 0, '2026-11-21T01:16:30', '2026-11-21T01:16:30'),
 (106, 's', 'fact', 'high', 12345, x'00ff', '[]', zeroblob(32), 'many', 1700000000, 1700000000.5)
"""


@pytest.mark.parametrize("to", ["oc-memory", "openclaw-hybrid", "openmemory"])
def test_odd_values_go_there_and_back_too(to: str, copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("oc-memory", copy_store)
    with sqlite3.connect(source) as con:
        con.execute("UPDATE mem_cells SET embedding = zeroblob(32) WHERE embedding IS NOT NULL")
        con.execute("UPDATE mem_scenes SET summary_embedding = NULL")
        con.execute(ODD)
    place = tmp_path / ("new.db" if to == "oc-memory" else "new")
    result = moved(source, f"{to}:{place}")
    assert result.merged is not None
    assert not result.merged.failed
    assert not [one for one in result.fields if one.fate == "lost"]
    known = {(one.system, one.collection) for one in read(source)[0]}
    after = [one for one in read(place)[0] if (one.system, one.collection) in known]
    assert sorted(map(_key, after)) == sorted(map(_key, read(source)[0]))


@pytest.mark.parametrize("to", ["openmemory", "memory-lancedb-pro"])
def test_a_dry_run_says_what_the_real_one_does(to: str, copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("hybrid", copy_store)
    planned = moved(source, f"{to}:{tmp_path / 'new'}", dry_run=True)
    assert not (tmp_path / "new").exists()
    result = moved(source, f"{to}:{tmp_path / 'new'}")
    assert (planned.merged, planned.fields, planned.vectors) == (result.merged, result.fields, result.vectors)


def test_a_dry_run_makes_nothing(copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("oc-memory", copy_store)
    result = moved(source, f"openclaw-hybrid:{tmp_path / 'new'}", dry_run=True)
    assert result.created
    assert not (tmp_path / "new").exists()
    assert {one.field for one in result.fields if one.fate == "lost"} == set()


def test_the_database_finds_what_oc_memory_was_given(copy_store: Copy, tmp_path: Path) -> None:
    moved(source_of("hybrid", copy_store), f"oc-memory:{tmp_path / 'new.db'}")
    with sqlite3.connect(tmp_path / "new.db") as con:
        cells = con.execute("SELECT count(*) FROM mem_cells").fetchone()[0]
        found = con.execute("SELECT count(*) FROM mem_fts JOIN mem_cells c ON c.id = mem_fts.rowid").fetchone()[0]
        hit = con.execute("SELECT count(*) FROM mem_fts WHERE mem_fts MATCH 'Generated'").fetchone()[0]
        sizes = {row[0] for row in con.execute("SELECT length(embedding) FROM mem_cells")}
        assert json.loads(con.execute("SELECT tags FROM mem_cells WHERE tags != '[]' LIMIT 1").fetchone()[0])
    assert cells == found == 40
    assert hit > 0
    assert sizes == {64}


def test_a_fact_that_was_superseded_is_not_recalled_by_oc_memory_and_not_lost(copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("hybrid", copy_store)
    gone = [one for one in read(source)[0] if one.status == "superseded"]
    moved(source, f"oc-memory:{tmp_path / 'new.db'}")
    with sqlite3.connect(tmp_path / "new.db") as con:
        texts = {row[0] for row in con.execute("SELECT content FROM mem_cells")}
    assert gone
    assert not texts & {one.text for one in gone}
    assert [one for one in read(tmp_path / "new.db")[0] if one.status == "superseded"] == gone


def _ended(copy_store: Copy) -> tuple[str, list[Record]]:
    """Return a store with facts that are over by either of their times, and these; another is valid a while yet."""
    source = source_of("hybrid", copy_store)
    with closing(sqlite3.connect(Path(source) / "facts.db")) as con, con:
        ids = [row[0] for row in con.execute("SELECT id FROM facts WHERE superseded_at IS NULL ORDER BY id LIMIT 3")]
        con.execute("UPDATE facts SET expires_at = NULL, valid_until = 1700000000 WHERE id = ?", ids[:1])
        con.execute("UPDATE facts SET expires_at = 1700000000, valid_until = 9000000000 WHERE id = ?", ids[1:2])
        con.execute("UPDATE facts SET expires_at = 9000000000, valid_until = 9000000000 WHERE id = ?", ids[2:])
        con.execute(
            "UPDATE facts SET superseded_at = NULL, expires_at = NULL, valid_until = NULL WHERE id NOT IN (?, ?, ?)",
            ids,
        )
    return source, [one for one in read(source)[0] if one.collection == "facts" and one.id in ids[:2]]


@pytest.mark.parametrize(
    ("to", "recalled"),
    [
        ("oc-memory", "SELECT content FROM mem_cells"),
        ("openmemory", "SELECT content FROM memories WHERE state = 'active'"),
        ("memory-lancedb-pro", ""),
        ("memory-lancedb", ""),
    ],
)
def test_what_was_valid_until_a_time_that_is_past_is_not_recalled(
    to: str, recalled: str, copy_store: Copy, tmp_path: Path
) -> None:
    source, ended = _ended(copy_store)
    place = tmp_path / ("new.db" if to == "oc-memory" else "new")
    planned = moved(source, f"{to}:{place}", dry_run=True)
    result = moved(source, f"{to}:{place}")
    assert (planned.fields, planned.merged) == (result.fields, result.merged)
    told = [(one.fate, one.records) for one in result.fields if one.field == "records that are no longer valid"]
    assert told == {"oc-memory": [("metadata", 2)], "memory-lancedb": [("lost", 2)]}.get(to, [])
    if recalled:
        with closing(sqlite3.connect(place / "api" / "openmemory.db" if place.is_dir() else place)) as con:
            texts = {row[0] for row in con.execute(recalled)}
    else:
        rows = lancedb.connect(place).open_table("memories").to_arrow().to_pylist()
        texts = {row["text"] for row in rows if '"state":"archived"' not in row.get("metadata", "")}
    facts = [one for one in read(source)[0] if one.collection == "facts"]
    assert texts == {one.text for one in facts} - {one.text for one in ended}
    if to != "memory-lancedb":
        assert [one for one in read(place)[0] if one.id in {each.id for each in ended} and one.primary] == ended


def test_hybrid_recalls_nothing_that_pro_knows_to_be_over(copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("pro", copy_store)
    first, second = [one.id for one in read(source)[0]][:2]
    table = lancedb.connect(source).open_table("memories")
    for name, until in ((first, 1_700_000_000_000), (second, 9_000_000_000_000)):
        said = next(row["metadata"] for row in table.to_arrow().to_pylist() if row["id"] == name)
        table.update(where=f"id = '{name}'", values={"metadata": json.dumps(json.loads(said) | {"valid_until": until})})
    before = sorted(read(source)[0], key=lambda one: one.id)
    moved(source, f"hybrid:{tmp_path / 'new'}")
    with closing(sqlite3.connect(tmp_path / "new" / "facts.db")) as con:
        gone = {row[0] for row in con.execute("SELECT text FROM facts WHERE superseded_at IS NOT NULL")}
    assert gone == {one.text for one in before if one.id == first or one.status == "archived"}
    moved(str(tmp_path / "new"), f"memory-lancedb-pro:{tmp_path / 'back'}")
    after = sorted(read(tmp_path / "back")[0], key=lambda one: one.id)
    assert list(map(_key, after)) == list(map(_key, before))


def test_lancedb_opens_what_pro_was_given(copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("legacy", copy_store)
    moved(source, f"memory-lancedb-pro:{tmp_path / 'new'}")
    table = lancedb.connect(tmp_path / "new").open_table("memories")
    rows = table.to_arrow().to_pylist()
    before = {one.id: one for one in read(source)[0]}
    assert {row["id"] for row in rows} == set(before)
    assert {row["scope"] for row in rows} == {"global"}
    assert all(json.loads(row["metadata"])["state"] == "confirmed" for row in rows)
    wanted = before[rows[0]["id"]]
    nearest = table.search(rows[0]["vector"]).limit(1).to_list()[0]
    assert nearest["text"] == wanted.text
    assert len(list((tmp_path / "new" / "memories.lance" / "data").iterdir())) == 1


def test_sqlite_and_lancedb_open_what_hybrid_was_given(copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("oc-memory", copy_store)
    moved(source, f"openclaw-hybrid:{tmp_path / 'new'}")
    with sqlite3.connect(tmp_path / "new" / "facts.db") as con:
        rows = con.execute("SELECT id, text, created_at, typeof(created_at) FROM facts").fetchall()
        assert con.execute("SELECT count(*) FROM facts_fts WHERE facts_fts MATCH 'Debian'").fetchone()[0] == 1
    table = lancedb.connect(tmp_path / "new" / "lancedb").open_table("memories")
    assert {row[3] for row in rows} == {"integer"}
    assert len(rows) == 7
    assert {row["id"] for row in table.to_arrow().to_pylist()} < {row[0] for row in rows}


def test_mem0_itself_reads_and_finds_what_it_was_given(copy_store: Copy, tmp_path: Path) -> None:
    from mem0.vector_stores.qdrant import Qdrant

    source = source_of("hybrid", copy_store)
    moved(source, f"mem0:{tmp_path / 'new'}")
    before = {one.id: one for one in read(source)[0]}
    store = Qdrant(collection_name="mem0", embedding_model_dims=16, path=str(tmp_path / "new" / "qdrant"), on_disk=True)
    points, _ = store.client.scroll("mem0", limit=100, with_vectors=True)
    assert {point.id: point.payload["data"] for point in points} == {
        one.id: one.text for one in before.values() if one.primary
    }
    asked = next(point for point in points if before[point.id].status == "active")
    vector = asked.vector[""] if isinstance(asked.vector, dict) else asked.vector
    assert store.search(query="", vectors=list(vector), top_k=1)[0].id == asked.id
    store.client.close()


def test_fields_can_be_changed_on_the_way(copy_store: Copy, tmp_path: Path) -> None:
    source = source_of("pro", copy_store)
    moved(source, f"memory-lancedb-pro:{tmp_path / 'new'}", changes=[change_of("scope:global=agent:main")])
    before, after = read(source)[0], read(tmp_path / "new")[0]
    assert any(one.scope == "global" for one in before)
    assert not any(one.scope == "global" for one in after)
    with pytest.raises(UsageError, match="text"):
        change_of("text=x")


def test_a_place_with_something_in_it_is_refused(copy_store: Copy, tmp_path: Path) -> None:
    (tmp_path / "new.db").write_bytes(b"mine")
    with pytest.raises(RefusedError, match=r"new\.db"):
        moved(source_of("legacy", copy_store), f"oc-memory:{tmp_path / 'new.db'}")
    assert (tmp_path / "new.db").read_bytes() == b"mine"


def test_a_store_of_another_product_is_refused(copy_store: Copy) -> None:
    other = source_of("pro", copy_store)
    with pytest.raises(UsageError, match="openclaw-lancedb"):
        moved(source_of("legacy", copy_store), f"openclaw-hybrid:{other}")


def test_vectors_of_another_size_are_said_and_left(copy_store: Copy, tmp_path: Path) -> None:
    moved(source_of("legacy", copy_store), f"memory-lancedb-pro:{tmp_path / 'new'}")
    source = source_of("oc-memory", copy_store)
    result = migrate(new_vault(tmp_path), source, f"memory-lancedb-pro:{tmp_path / 'new'}")
    assert result.vectors.left == 5
    assert "768" in result.vectors.reason
    assert any(one.code == "vectors_left" for one in result.findings)
    assert len(read(tmp_path / "new")[0]) == 19


def test_a_store_with_memories_is_not_changed_without_a_vault(copy_store: Copy, tree_hash: Callable) -> None:
    target = Path(source_of("hybrid", copy_store))
    before = tree_hash(target)
    with pytest.raises(VaultMissingError, match="no vault"):
        moved(source_of("oc-memory", copy_store), str(target))
    assert tree_hash(target) == before


def test_the_undo_that_is_named_undoes(copy_store: Copy, tmp_path: Path) -> None:
    target = source_of("oc-memory", copy_store)
    vault = new_vault(tmp_path)
    before = read(target)
    result = migrate(vault, source_of("legacy", copy_store), target)
    assert len(read(target)[0]) == len(before[0]) + 12
    assert result.undo is not None
    words = result.undo.split()
    assert words[:2] == ["memkeep", "restore"]
    restore(vault, words[2], in_place=True, confirm="oc-memory")
    assert read(target) == before


def test_a_place_where_nothing_is_needs_its_product(copy_store: Copy, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"named with its product, one of .*mem0") as refused:
        moved(source_of("oc-memory", copy_store), f"letta:{tmp_path / 'new'}")
    assert refused.value.code == "store_missing"


def test_a_new_store_has_vectors_of_the_size_that_is_said(copy_store: Copy, tmp_path: Path) -> None:
    place = tmp_path / "new"
    result = moved(source_of("pro", copy_store), f"memory-lancedb-pro:{place}", dims=7)
    assert any("the store's have 7" in one.message for one in result.findings)
    assert not any(one.vectors for one in read(place)[0])
    table = next(place.rglob("memories.lance"))
    assert lancedb.connect(table.parent).open_table("memories").schema.field("vector").type.list_size == 7


@pytest.mark.parametrize("to", TARGETS)
def test_memories_of_two_tables_that_have_the_same_ids_all_arrive(to: str, tmp_path: Path) -> None:
    con = sqlite3.connect(tmp_path / "store.db")
    for table in ("lessons", "memories"):
        con.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, content TEXT)")
        con.executemany(f"INSERT INTO {table} (content) VALUES (?)", [(f"{n} of {table}",) for n in range(5)])
    con.commit()
    con.close()
    place = tmp_path / ("new.db" if to == "oc-memory" else "new")
    before = read(tmp_path / "store.db")
    moved(str(tmp_path / "store.db"), f"{to}:{place}", dims=4)
    assert {(one.collection, one.id, one.text) for one in read(place)[0] if one.primary} == {
        (one.collection, one.id, one.text) for one in before[0]
    }
    again = moved(str(tmp_path / "store.db"), str(place), dry_run=True).merged
    assert again is not None
    assert (again.inserted, again.updated, again.skipped) == (0, 0, 0)


@pytest.mark.parametrize("to", TARGETS)
def test_memories_of_one_table_that_have_the_same_id_or_none_all_arrive(to: str, tmp_path: Path) -> None:
    rows = [("a", "one"), ("a", "two"), ("b", "three"), (None, "four"), (None, "five"), ("", "six")]
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as con:
        con.execute("CREATE TABLE memories (id TEXT, content TEXT)")
        con.executemany("INSERT INTO memories VALUES (?, ?)", rows)
        con.commit()
    place = tmp_path / ("new.db" if to == "oc-memory" else "new")
    result = moved(str(tmp_path / "store.db"), f"{to}:{place}", dims=4)
    assert [one.message.split()[0] for one in result.findings if one.code == "id_repeated"] == ["2"]
    assert sorted(one.text for one in read(place)[0] if one.primary) == ["five", "four", "one", "six", "three", "two"]
    again = moved(str(tmp_path / "store.db"), str(place), dry_run=True).merged
    assert again is not None
    assert (again.inserted, again.updated, again.skipped) == (0, 0, 0)


def test_memories_that_have_the_same_id_all_go_into_a_store_of_their_own_product(
    copy_store: Copy, tmp_path: Path
) -> None:
    source = source_of("legacy", copy_store)
    table = lancedb.connect(source).open_table("memories")
    row = table.to_arrow().slice(0, 1).to_pylist()[0]
    table.add([row | {"text": "another"}, row | {"vector": [0.5] * len(row["vector"])}])
    result = moved(source, f"memory-lancedb:{tmp_path / 'new'}")
    assert result.merged is not None
    assert (result.merged.inserted, result.merged.skipped) == (14, 0)
    before, after = (lancedb.connect(one).open_table("memories").to_arrow() for one in (source, tmp_path / "new"))
    for column in ("text", "vector"):
        assert sorted(before[column].to_pylist()) == sorted(after[column].to_pylist())
    assert len(set(after["id"].to_pylist())) == 14

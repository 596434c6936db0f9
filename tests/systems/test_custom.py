import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.config import Config, PartSettings, StoreSettings
from memkeep.engines.sqlite import SqliteEngine
from memkeep.errors import UsageError
from memkeep.model import Part, Role, Store, TableMap
from memkeep.records.view import rows_by_id

Find = Callable[..., list[Store]]
MEMORIES = """
CREATE TABLE memories(id TEXT PRIMARY KEY, agent_id TEXT, user_id TEXT, kind TEXT, text TEXT NOT NULL, metadata TEXT,
  importance REAL, created_at INTEGER, updated_at INTEGER, embedding BLOB);
CREATE VIRTUAL TABLE memories_fts USING fts5(text, content='memories', content_rowid='rowid');
INSERT INTO memories(id, text) VALUES('a', 'one'), ('b', 'two'), ('c', 'three');
"""


def one(find: Find, path: Path, settings: StoreSettings | None = None) -> Store:
    config = Config(stores={"mine": settings}, file="/c.toml") if settings else None
    (store,) = find(path, config=config)
    assert store.system == "custom"
    return store


def parts(store: Store) -> dict[str, Part]:
    return {part.name: part for part in store.parts}


def maps(store: Store) -> dict[str, TableMap]:
    return {each.collection: each for part in store.parts for each in part.maps}


def test_the_workload_of_the_benchmark(
    stores: Path, find: Find, complete: Callable[..., None], tree_hash: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    script = stores.parent / "bench" / "workload.py"
    target = tmp_path / "work load"
    subprocess.run(
        [
            sys.executable,
            str(script),
            "build",
            str(target),
            "--memories",
            "200",
            "--dim",
            "8",
            "--kinds",
            "sqlite,lance,md",
        ],
        check=True,
        capture_output=True,
    )
    before = tree_hash(target)
    store = one(find, target)
    complete(store)
    assert {name: (part.engine, part.role) for name, part in parts(store).items()} == {
        ".": ("files", Role.CANONICAL),
        "lance/memories.lance": ("lance", Role.DERIVED),
        "sqlite/facts.db": ("sqlite", Role.CANONICAL),
    }
    assert store.records == 200 + len(list(target.rglob("*.md")))
    found = maps(store)
    assert found["memories"].fields == {
        "text": "text",
        "category": "kind",
        "scope": "user_id",
        "importance": "importance",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }
    assert found["memories"].vectors == ("embedding",)
    assert found["memories"].primary
    assert not found["lance/memories.lance/memories"].primary
    assert found["lance/memories.lance/memories"].vectors == ("vector",)
    assert found["notes"].include == ()
    assert "memories (id, text, kind" in store.mapping
    assert "each markdown or text file is a record" in store.mapping
    assert store.fingerprint == {"embedding": {"dims": 8}}
    assert tree_hash(target) == before


def test_index_tables_and_tables_without_texts_hold_no_records(make: Any, find: Find, tmp_path: Path) -> None:
    make.database(
        tmp_path / "d/mind.db",
        MEMORIES
        + "CREATE TABLE numbers(id INTEGER PRIMARY KEY AUTOINCREMENT, n REAL); INSERT INTO numbers(n) VALUES(1);"
        + "CREATE TABLE schema_meta(key TEXT, value TEXT); CREATE TABLE alembic_version(value TEXT);"
        + "CREATE TABLE memories_data_of_mine(id INTEGER, content TEXT); ANALYZE;",
    )
    store = one(find, tmp_path / "d")
    assert set(maps(store)) == {"memories", "memories_data_of_mine"}
    assert store.records == 3


@pytest.mark.parametrize(
    ("columns", "key", "fields"),
    [
        ("uuid, content, ts", "uuid", {"text": "content", "created_at": "ts"}),
        ("key, value, user_id", "key", {"text": "value", "scope": "user_id"}),
        ("ID, Memory, Namespace, Type, Vector", "ID", {"text": "Memory", "scope": "Namespace", "category": "Type"}),
        (
            "id, body, createdAt, updatedAt",
            "id",
            {"text": "body", "created_at": "createdAt", "updated_at": "updatedAt"},
        ),
        ("id, fact, agent_id, emb", "id", {"text": "fact", "scope": "agent_id"}),
    ],
)
def test_the_usual_column_names_are_recognised(
    make: Any, find: Find, tmp_path: Path, columns: str, key: str, fields: dict[str, str]
) -> None:
    make.database(tmp_path / "d/x.db", f"CREATE TABLE things({columns});")
    found = maps(one(find, tmp_path / "d"))["things"]
    assert (found.id, found.fields) == (key, fields)
    assert found.vectors == tuple(name for name in columns.split(", ") if name in {"Vector", "emb"})
    assert found.times == {field: "auto" for field in ("created_at", "updated_at") if field in fields}


def test_tables_of_descriptions_are_secondary_beside_tables_of_memories(make: Any, find: Find, tmp_path: Path) -> None:
    helpers = "CREATE TABLE apps(id, name, description); INSERT INTO apps VALUES(1, 'a', 'b');"
    make.database(tmp_path / "both/x.db", MEMORIES + helpers)
    make.database(tmp_path / "alone/x.db", helpers)
    make.files(tmp_path, "both/a.md")
    store = one(find, tmp_path / "both")
    assert {name: each.primary for name, each in maps(store).items()} == {
        "apps": False,
        "memories": True,
        "notes": True,
    }
    assert store.records == 4
    assert one(find, tmp_path / "alone").records == 1


def test_records_without_an_id_are_named_by_their_rowid(make: Any, find: Find, tmp_path: Path) -> None:
    script = "CREATE TABLE log(at TEXT, content TEXT); INSERT INTO log(rowid, content) VALUES(5, 'same'), (9, 'same');"
    store = one(find, make.database(tmp_path / "d/log.db", script))
    assert store.records == 2
    (part,) = store.parts
    with SqliteEngine().freeze(part, tmp_path / "d", tmp_path) as opened:
        groups = list(opened.scan({}))
        assert opened.findings() == []
    (group,) = groups
    row = {"at": None, "text": "same"}
    assert rows_by_id(part.maps[0], group.data) == {"5": row, "9": row}


def test_records_of_a_table_without_rowids_are_named_by_its_key(make: Any, find: Find, tmp_path: Path) -> None:
    script = """
    CREATE TABLE "select"("the text" TEXT, n INT, content TEXT, PRIMARY KEY(n, "the text")) WITHOUT ROWID;
    CREATE TABLE plain(id TEXT PRIMARY KEY, content TEXT) WITHOUT ROWID;
    """
    found = maps(one(find, make.database(tmp_path / "d/log.db", script)))
    assert (found["select"].id, found["select"].unique) == ("n", ("n", "the text"))
    assert (found["plain"].id, found["plain"].unique) == ("id", ())


def test_a_database_given_by_itself_is_a_store_of_one_part(
    make: Any, find: Find, tree_hash: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    file = make.database(tmp_path / "d/mind", MEMORIES)
    make.files(tmp_path / "d", "other.md")
    before = tree_hash(tmp_path / "d")
    store = one(find, file)
    assert (store.path, store.root, store.records) == (str(file), str(tmp_path / "d"), 3)
    assert [(part.name, part.engine) for part in store.parts] == [("mind", "sqlite")]
    assert tree_hash(tmp_path / "d") == before


def test_a_lance_table_given_by_itself_is_a_store_of_one_part(make: Any, find: Find, tmp_path: Path) -> None:
    table = make.table(tmp_path / "d/things.lance", ["id", "content", "vector"], rows=3)
    store = one(find, table)
    assert (store.path, store.root, store.records) == (str(table), str(tmp_path / "d"), 3)
    assert [(part.name, part.engine, part.role) for part in store.parts] == [("things.lance", "lance", Role.CANONICAL)]


def test_a_note_given_by_itself_is_a_store_of_one_record(make: Any, find: Find, tmp_path: Path) -> None:
    make.files(tmp_path, "d/my note.md", "d/picture.png")
    store = one(find, tmp_path / "d/my note.md")
    assert ([part.name for part in store.parts], store.records) == (["my note.md"], 1)
    store = one(find, tmp_path / "d/picture.png")
    assert ([part.name for part in store.parts], store.records) == (["picture.png"], 0)
    assert store.mapping == "No records are recognised: no table has the usual columns."


def test_what_is_no_database_is_kept_as_bytes(find: Find, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(os.urandom(3000))
    store = one(find, tmp_path / "x.db")
    assert [(part.name, part.engine, part.maps) for part in store.parts] == [("x.db", "sqlite", ())]
    assert store.records == 0


def test_everything_in_the_folder_is_kept(make: Any, find: Find, complete: Callable[..., None], tmp_path: Path) -> None:
    folder = make.files(tmp_path / "d", "a.md", "sub/b.TXT", "sub/deep/c.json", "backups/d.tar", "cache/e", ".hidden/f")
    deep = "/".join("abcdefghijklmnop")
    make.files(folder, f"{deep}/g.md", ".git/HEAD", "sub/node_modules/h.js", ".env", "sub/prod.env", "sub/.env.local")
    make.database(folder / deep / "mind.db", MEMORIES)
    make.database(folder / "backups" / "old.db", MEMORIES)
    store = one(find, folder)
    complete(store)
    assert {each.part for each in store.omitted} == {
        ".env",
        ".git",
        "sub/.env.local",
        "sub/node_modules",
        "sub/prod.env",
    }
    assert {part.name for part in store.parts} == {".", f"{deep}/mind.db", "backups/old.db"}
    assert store.records == 3 + 3 + 3
    assert set(maps(store)) == {"memories", "backups/old.db/memories", "notes"}


def test_secrets_are_told_from_memory(make: Any, find: Find, complete: Callable[..., None], tmp_path: Path) -> None:
    folder = make.files(tmp_path / "d", "auth-profiles.json", "keys/server.pem", "a.md")
    (folder / "openclaw.json").write_text("{model: {apiKey: 'abc'}}")
    make.database(folder / "vault.db", "CREATE TABLE vault_meta(key, value); CREATE TABLE credentials(service, value);")
    store = one(find, folder)
    complete(store)
    roles = {name: part.role for name, part in parts(store).items()}
    assert roles == {
        ".": Role.CANONICAL,
        "auth-profiles.json": Role.SECRET,
        "keys/server.pem": Role.SECRET,
        "openclaw.json": Role.CONFIG,
        "vault.db": Role.SECRET,
    }
    assert parts(store)["openclaw.json"].secrets == ("model.apiKey",)


def test_a_live_databases_sidecars_are_its_own(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    make.files(tmp_path / "d", "a.md", "stale.db-wal")
    writer = sqlite3.connect(tmp_path / "d/mind.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode=wal")
    writer.executescript(MEMORIES)
    store = one(find, tmp_path / "d")
    complete(store)
    assert store.records == 4
    assert set(parts(store)) == {".", "mind.db"}
    assert {f"mind.db{end}" for end in ("", "-wal", "-shm", "-journal")} <= set(parts(store)["."].exclude)
    assert [each.part for each in store.omitted] == ["stale.db-wal"]
    writer.close()


# the settings


def settings(folder: Path, *said: PartSettings, exclude: tuple[str, ...] = ()) -> StoreSettings:
    return StoreSettings(path=str(folder), parts=said, exclude=exclude)


def test_the_settings_say_which_columns_are_what(make: Any, find: Find, tmp_path: Path) -> None:
    folder = make.files(tmp_path / "d", "a.md")
    make.database(
        folder / "m.db", "CREATE TABLE odd(k, words, w, at, v BLOB, v2 BLOB); INSERT INTO odd(k) VALUES(1), (2);"
    )
    said = PartSettings(
        name="m.db",
        table="odd",
        collection="mine",
        id="k",
        text="words",
        scope="w",
        created_at="at",
        vector=("v", "v2"),
    )
    store = one(find, folder, settings(folder, said))
    assert maps(store) == {
        "mine": TableMap(
            collection="mine",
            table="odd",
            id="k",
            fields={"text": "words", "scope": "w", "created_at": "at"},
            vectors=("v", "v2"),
            times={"created_at": "auto"},
        )
    }
    assert store.records == 2
    assert store.mapping == "Records are mapped by [stores.mine] in /c.toml."
    assert set(parts(store)) == {".", "m.db"}


def test_what_the_settings_do_not_say_is_recognised(make: Any, find: Find, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    make.database(folder / "m.db", MEMORIES)
    make.table(folder / "things.lance", ["id", "content", "vector"])
    make.files(folder, "a.md")
    said = (
        PartSettings(name="m.db", table="memories"),
        PartSettings(name="things.lance", role=Role.DERIVED, primary=False),
        PartSettings(name=".", collection="pages"),
    )
    store = one(find, folder, settings(folder, *said))
    found = maps(store)
    assert found["memories"].fields["category"] == "kind"
    assert found["memories"].vectors == ("embedding",)
    assert not found["things"].primary
    assert parts(store)["things.lance"].role is Role.DERIVED
    assert found["pages"].primary
    assert store.records == 4


def test_what_the_settings_exclude_is_left_out(
    make: Any, find: Find, complete: Callable[..., None], tmp_path: Path
) -> None:
    folder = make.files(tmp_path / "d", "a.md", "x.log", "sub/y.log", "big/z", "sub/deep/big/z")
    make.database(folder / "scratch.db")
    store = one(find, folder, settings(folder, exclude=("*.log", "big", "scratch.db")))
    complete(store)
    left = {each.part: each.reason for each in store.omitted}
    assert left == dict.fromkeys(
        ("big", "scratch.db", "sub/deep/big", "sub/y.log", "x.log"), "excluded by the settings"
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (PartSettings(name="n.db", table="memories"), "names the part 'n.db', but .* has m.db"),
        (PartSettings(name="m.db", table="memorys"), "names the table 'memorys', but .* has memories"),
        (PartSettings(name="m.db"), "names the table '', but"),
        (
            PartSettings(name="m.db", table="memories", text="words"),
            "names the column 'words', but memories has id, agent_",
        ),
        (PartSettings(name="m.db", table="memories", id="key"), "names the column 'key'"),
        (PartSettings(name="m.db", table="memories", vector="emb"), "names the column 'emb'"),
    ],
)
def test_settings_that_fit_nothing_are_an_error(
    make: Any, find: Find, tmp_path: Path, said: PartSettings, message: str
) -> None:
    make.database(tmp_path / "d/m.db", MEMORIES)
    with pytest.raises(UsageError, match=message) as caught:
        one(find, tmp_path / "d", settings(tmp_path / "d", said))
    assert "[stores.mine] in /c.toml" in caught.value.message

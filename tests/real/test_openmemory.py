"""OpenMemory as its own models and a real Qdrant server have it: backed up, compared, mended, brought back."""

import json
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

import memkeep
from memkeep.errors import DamagedError, StorageError
from memkeep.library import OpenVault
from memkeep.model import Severity
from memkeep.testing.qdrant_server import QdrantServer, qdrant

pytestmark = pytest.mark.real

FAKE = b"sk-FAKE-literal-key-in-config-0000"
INFINITE = UUID("12345678-9012-4e34-1234-567890123456")
WHOLE = UUID("00000000-0000-0000-0000-0000000001e3")
STRANGER = UUID("99999999-9999-4e99-9999-999999999999")
COMPOSE = """
services:
  mem0_store: {image: qdrant/qdrant, ports: ["PORT:6333"], volumes: ["mem0_storage:/qdrant/storage"]}
  openmemory-mcp: {image: mem0/openmemory-mcp, build: api/}
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with qdrant(tmp_path_factory.mktemp("qdrant"), QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as running:
        yield running


@pytest.fixture
def truth(stores: Path) -> Any:
    return json.loads((stores / "openmemory" / "truth.json").read_text())


@pytest.fixture
def root(copy_store: Callable[..., Path], server: QdrantServer) -> Iterator[Path]:
    """Return the folder of a store whose vectors are in the server, as the product's own snapshot has them."""
    folder = copy_store("openmemory")
    shutil.rmtree(folder / "qdrant-local")
    (folder / "docker-compose.yml").write_text(COMPOSE.replace("PORT", str(server.port)))
    [snapshot] = (folder / "qdrant-snapshots").iterdir()
    with snapshot.open("rb") as file:
        path = "/collections/openmemory/snapshots/upload?priority=snapshot&wait=true"
        answer = httpx.post(server.base + path, files={"snapshot": file}, timeout=60)
    assert answer.status_code == 200, answer.text
    yield folder
    httpx.delete(f"{server.base}/collections/openmemory", timeout=60)


@pytest.fixture
def destroyed(root: Path, server: QdrantServer) -> Path:
    """Return the same store with three more memories whose ids SQLite has made numbers of, one without a point."""
    with closing(sqlite3.connect(root / "api" / "openmemory.db")) as con, con:
        user, app = con.execute("SELECT user_id, app_id FROM memories LIMIT 1").fetchone()
        category = con.execute("SELECT id FROM categories LIMIT 1").fetchone()[0]
        for name, text in ((INFINITE, "infinite"), (WHOLE, "whole"), (UUID(int=7), "nobody's")):
            con.execute(
                "INSERT INTO memories(id, user_id, app_id, content, state, created_at)"
                " VALUES (?, ?, ?, ?, 'active', ?)",
                (name.hex, user, app, text, "2026-03-09 00:00:00.000000"),
            )
            con.execute("INSERT INTO memory_categories VALUES (?, ?)", (name.hex, category))
    points = [
        {"id": str(name), "vector": {"": [float(number)] * 32}, "payload": {"data": text, "user_id": "bob"}}
        for number, (name, text) in enumerate(((INFINITE, "infinite"), (WHOLE, "whole"), (STRANGER, "stranger")), 1)
    ]
    answer = httpx.put(f"{server.base}/collections/openmemory/points?wait=true", json={"points": points}, timeout=60)
    assert answer.status_code == 200, answer.text
    return root


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def stored(vault: OpenVault) -> bytes:
    """Return all that a vault keeps, decoded."""
    inner, found = vault._vault, []
    for snapshot in inner.snapshots():
        found.append(repr(snapshot).encode())
        for part in snapshot.parts:
            image = inner.image(part)
            found.append(repr(image).encode())
            found += [inner.reader.read(one.recipe) for one in image.entries if one.recipe is not None]
            found += [inner.reader.chunk(group.chunk) for one in image.collections for group in one.groups]
    return b"\n".join(found)


def test_tables_and_vectors_come_back_as_they_were_and_their_drift_is_named(
    root: Path, truth: Any, check: Any, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    [report] = vault.backup(root).snapshots
    assert (report.system, report.records, report.rung) == ("openmemory", 60, "readable")
    drifts = truth["expected_drifts"]
    assert sorted((one.code, one.record) for one in report.findings) == sorted(
        [
            *(("vector_missing", each) for each in drifts["in_sql_only_and_not_deleted"]),
            *(("row_missing", each) for each in drifts["in_vector_store_only"]),
            *(("deleted_searchable", each) for each in drifts["deleted_in_sql_still_in_vector_store"]),
            *(("text_differs", each["id"]) for each in drifts["text_differs"]),
        ]
    )
    newer = {one.record: one.message for one in report.findings if one.code == "text_differs"}
    for each in drifts["text_differs"]:
        assert f"newer is {'SQL' if each['newer'] == 'sql' else 'the vector store'}" in newer[each["id"]]
    assert all(one.severity is Severity.WARNING and one.mend for one in report.findings)
    [proof] = vault.verify(report.id, rung=memkeep.Rung.EQUIVALENT).snapshots
    assert (proof.rung, proof.findings) == ("equivalent", ())
    done = vault.restore(report.id, to=tmp_path / "back")
    assert {one.code for one in done.findings} <= {"lay_in_a_server"}
    database = tmp_path / "back" / "api" / "openmemory.db"
    assert database.read_bytes() == (root / "api" / "openmemory.db").read_bytes()
    check.sqlite(database.parent, {"openmemory.db": truth["sql"]["file"]})
    memories = rows(database, "SELECT id, content, state FROM memories")
    assert check.text_digest((UUID(row[0]), row[1]) for row in memories) == truth["sql"]["text_digest_readable_ids"]
    assert check.counts(row[2] for row in memories) == truth["sql"]["states"]
    check.sqlite(tmp_path / "back", {"history.db": truth["history_db"]})
    assert (tmp_path / "back" / "api" / "config.json").read_bytes() == (root / "api" / "config.json").read_bytes()


def test_vectors_in_a_folder_are_compared_just_so(
    copy_store: Callable[..., Path], truth: Any, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    live = copy_store("openmemory")
    vault = new_vault()
    [report] = vault.backup(live).snapshots
    drifts = truth["expected_drifts"]
    assert sorted(str(one.record) for one in report.findings) == sorted(
        [
            *drifts["in_sql_only_and_not_deleted"],
            *drifts["in_vector_store_only"],
            *(each["id"] for each in drifts["text_differs"]),
        ]
    )
    assert vault.verify(report.id, rung=memkeep.Rung.EQUIVALENT).snapshots[0].rung == "equivalent"
    vault.restore(report.id, to=tmp_path / "back")
    for name in ("meta.json", "collection/openmemory/storage.sqlite"):
        assert (tmp_path / "back" / "qdrant-local" / name).read_bytes() == (live / "qdrant-local" / name).read_bytes()


def test_a_key_that_is_written_after_the_store_was_found_is_kept_no_more_than_one_before(
    root: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    from memkeep.ops.backup import backup

    database, settings = root / "api" / "openmemory.db", root / "api" / "config.json"
    [(value,)] = rows(database, "SELECT value FROM configs")
    with closing(sqlite3.connect(database)) as con, con:
        con.execute("UPDATE configs SET value = '{}'")
    settings.write_text("{}")
    [store] = memkeep.discover(root)
    with closing(sqlite3.connect(database)) as con, con:
        con.execute("UPDATE configs SET value = ?", (value,))
    settings.write_text(value)
    plain = new_vault("plain", encrypted=False)
    [report] = backup(plain._vault, [store]).snapshots
    assert FAKE not in stored(plain)
    assert {"api/openmemory.db", "api/config.json"} <= {one.part for one in report.omitted}


def test_the_key_in_the_settings_is_kept_only_where_nobody_reads_it(
    root: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    sealed, plain = new_vault("sealed"), new_vault("plain", encrypted=False)
    [kept] = sealed.backup(root).snapshots
    [redacted] = plain.backup(root).snapshots
    assert FAKE in stored(sealed)
    assert FAKE not in stored(plain)
    assert not any(FAKE in path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert ("api/openmemory.db", "secret values were replaced: configs.value") in {
        (one.part, one.reason) for one in redacted.omitted
    }
    assert not [one for one in kept.omitted if "secret" in one.reason]
    assert plain.verify(rung=memkeep.Rung.EQUIVALENT).snapshots[0].rung == "equivalent"
    plain.restore(redacted.id, to=tmp_path / "back")
    database = tmp_path / "back" / "api" / "openmemory.db"
    [(value,)] = rows(database, "SELECT value FROM configs")
    said = json.loads(value)
    assert said["mem0"]["embedder"]["config"]["api_key"] == "redacted by memkeep"
    assert said["mem0"]["llm"]["config"]["api_key"] == "env:OPENAI_API_KEY"
    assert said["openmemory"]["custom_instructions"] == "Remember café ☕ orders"
    for table in ("memories", "memory_categories", "memory_status_history", "users"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"
        assert rows(database, query) == rows(root / "api" / "openmemory.db", query)
    other = new_vault("other", encrypted=False)
    sealed.copy(other)
    assert FAKE not in stored(other)
    sealed.pack(kept.id, tmp_path / "packed.tar.zst")
    memkeep.restore_file(tmp_path / "packed.tar.zst", to=tmp_path / "unpacked")
    assert FAKE not in (tmp_path / "unpacked" / "api" / "openmemory.db").read_bytes()


def test_a_server_that_does_not_answer_is_named_and_the_tables_are_kept(
    root: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    (root / "docker-compose.yml").write_text(COMPOSE.replace("PORT", "1"))
    run_cli("init", "--vault", tmp_path / "vault", "--no-encryption")
    done = run_cli("backup", root, "--vault", tmp_path / "vault", "--json")
    assert done.code == 3
    [report] = done.result["snapshots"]
    assert [one["part"] for one in report["omitted"] if "127.0.0.1:1" in one["reason"]] == ["qdrant/openmemory"]
    [unread] = [one for one in report["findings"] if one["severity"] == "error"]  # said once
    assert (unread["code"], unread["part"]) == ("part_unread", "qdrant/openmemory")
    assert report["records"] == 60
    assert not [one for one in report["findings"] if one["code"] == "vector_missing"]  # nobody can tell
    tried = run_cli("backup", root, "--vault", tmp_path / "vault", "--dry-run", "--json")
    assert tried.code == 3
    assert "qdrant/openmemory" in {one["part"] for one in tried.result["snapshots"][0]["omitted"]}


def test_ids_that_sqlite_destroyed_are_told_and_mended_in_what_is_restored(
    destroyed: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    live = destroyed / "api" / "openmemory.db"
    before = live.read_bytes()
    vault = new_vault()
    [report] = vault.backup(destroyed).snapshots
    told = {one.record: one.message for one in report.findings if one.code == "id_destroyed"}
    assert told.keys() == {str(INFINITE), str(WHOLE), "7"}
    assert "inf" in told[str(INFINITE)]
    assert "nobody's" in told["7"]
    assert str(STRANGER) in {one.record for one in report.findings if one.code == "row_missing"}
    assert vault.verify(report.id, rung=memkeep.Rung.EQUIVALENT).snapshots[0].rung == "equivalent"
    done = vault.restore(report.id, to=tmp_path / "back")
    assert {(one.code, one.record) for one in done.findings if one.code != "lay_in_a_server"} == {
        ("id_mended", INFINITE.hex),
        ("id_mended", WHOLE.hex),
    }
    back = tmp_path / "back" / "api" / "openmemory.db"
    for table, column in (("memories", "id"), ("memory_categories", "memory_id")):
        ids = {row[0] for row in rows(back, f"SELECT {column} FROM {table} WHERE typeof({column}) = 'text'")}
        assert {INFINITE.hex, WHOLE.hex} <= ids
    assert rows(back, f"SELECT content FROM memories WHERE id = '{INFINITE.hex}'") == [("infinite",)]
    assert rows(back, "PRAGMA integrity_check") == [("ok",)]
    assert rows(back, "PRAGMA foreign_key_check") == []
    same = "SELECT rowid, content, state, metadata, created_at FROM memories ORDER BY rowid"
    assert rows(back, same) == rows(live, same)
    indexes = "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY 1, 2, 3"
    assert rows(back, indexes) == rows(live, indexes)
    assert live.read_bytes() == before


@pytest.mark.parametrize("parts", [(), ("api/openmemory.db",)], ids=["all", "the tables alone"])
def test_from_a_packed_file_they_are_mended_just_so(
    destroyed: Path, new_vault: Callable[..., OpenVault], tmp_path: Path, parts: tuple[str, ...]
) -> None:
    vault = new_vault()
    [report] = vault.backup(destroyed).snapshots
    vault.restore(report.id, to=tmp_path / "back", parts=parts)
    file = Path(vault.pack(report.id, tmp_path / "packed.tar.zst", secrets="drop").file)
    done = memkeep.restore_file(file, to=tmp_path / "from-file", parts=parts)
    assert {one.record for one in done.findings if one.code == "id_mended"} == {INFINITE.hex, WHOLE.hex}
    assert done.parts == vault.restore(report.id, to=tmp_path / "tried", parts=parts, dry_run=True).parts
    for query in (
        "SELECT * FROM memories",
        "SELECT * FROM memory_categories",
        "SELECT sql FROM sqlite_schema ORDER BY type, name",
    ):
        there, here = (rows(tmp_path / name / "api" / "openmemory.db", query) for name in ("back", "from-file"))
        assert there == here


def points_of(server: QdrantServer) -> Any:
    """Return all that the server has of the collection, as its own users see it."""
    body = {"limit": 1000, "with_payload": True, "with_vector": True}
    answer = httpx.post(f"{server.base}/collections/openmemory/points/scroll", json=body, timeout=60)
    return sorted(answer.json()["result"]["points"], key=lambda one: one["id"]) if answer.status_code == 200 else None


def wreck(root: Path, server: QdrantServer, how: str) -> Any:
    """Lose the memories and their points; return what the server still has."""
    with closing(sqlite3.connect(root / "api" / "openmemory.db")) as con, con:
        con.execute("DELETE FROM memories")
    if how == "dropped":
        httpx.delete(f"{server.base}/collections/openmemory", timeout=60)
    else:
        ids = [one["id"] for one in points_of(server)[:40]]
        path = f"{server.base}/collections/openmemory/points/delete?wait=true"
        assert httpx.post(path, json={"points": ids}, timeout=60).status_code == 200
    return points_of(server)


@pytest.mark.parametrize("how", ["emptied", "dropped"])
def test_tables_and_vectors_are_put_back_in_place_and_that_can_be_undone(
    how: str, root: Path, server: QdrantServer, new_vault: Callable[..., OpenVault], run_cli: Callable[..., Any]
) -> None:
    live = root / "api" / "openmemory.db"
    bytes_before, points_before = live.read_bytes(), points_of(server)
    vault = new_vault()
    [report] = vault.backup(root).snapshots
    left = wreck(root, server, how)
    wrecked = live.read_bytes()
    done = vault.restore(report.id, in_place=True, confirm="openmemory")
    assert live.read_bytes() == bytes_before
    assert [(one["id"], one["payload"]) for one in points_of(server)] == [
        (one["id"], one["payload"]) for one in points_before
    ]
    for now, before in zip(points_of(server), points_before, strict=True):
        assert now["vector"].keys() == before["vector"].keys() if isinstance(now["vector"], dict) else True
    assert done.undo is not None
    for command in done.undo.split(" && "):
        program, *words = shlex.split(command)
        if program == "sh":
            subprocess.run([program, *words], check=True, capture_output=True)
        else:
            environment = {"MEMKEEP_VAULT": str(vault._vault.storage.folder), "MEMKEEP_PASSWORD": "pw"}
            ran = run_cli(*words, env=environment)
            assert ran.code == 0, ran
    assert live.read_bytes() == wrecked
    if left is not None:
        assert [one["id"] for one in points_of(server)] == [one["id"] for one in left]


def test_when_the_files_can_not_be_replaced_the_server_has_what_it_had(
    root: Path, server: QdrantServer, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = new_vault()
    [report] = vault.backup(root).snapshots
    left = wreck(root, server, "emptied")

    def full(*_: object) -> Path:
        raise StorageError("no room")

    monkeypatch.setattr("memkeep.ops.in_place.apply", full)
    with pytest.raises(StorageError, match="no room"):
        vault.restore(report.id, in_place=True, confirm="openmemory")
    assert [one["id"] for one in points_of(server)] == [one["id"] for one in left]
    assert rows(root / "api" / "openmemory.db", "SELECT count(*) FROM memories") == [(0,)]


def test_in_place_a_lost_id_is_mended_too(destroyed: Path, new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault()
    [report] = vault.backup(destroyed).snapshots
    done = vault.restore(report.id, in_place=True, confirm="openmemory", parts=["api/openmemory.db"])
    assert {one.record for one in done.findings if one.code == "id_mended"} == {INFINITE.hex, WHOLE.hex}
    ids = rows(destroyed / "api" / "openmemory.db", "SELECT id FROM memories WHERE typeof(id) = 'text'")
    assert {(INFINITE.hex,), (WHOLE.hex,)} <= set(ids)
    [again] = vault.backup(destroyed).snapshots
    assert [one.record for one in again.findings if one.code == "id_destroyed"] == ["7"]


def test_the_vectors_are_put_into_a_new_server_by_themselves(
    root: Path, server: QdrantServer, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault()
    [report] = vault.backup(root).snapshots
    before = points_of(server)
    assert httpx.delete(f"{server.base}/collections/openmemory", timeout=60).status_code == 200
    vault.restore(report.id, to=server.url(), parts=["qdrant/openmemory"])
    after = points_of(server)
    assert [(one["id"], one["payload"]) for one in after] == [(one["id"], one["payload"]) for one in before]


def test_the_memories_of_one_user_go_into_a_live_store_with_their_points(
    root: Path, server: QdrantServer, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault()
    [report] = vault.backup(root).snapshots
    before = points_of(server)
    wreck(root, server, "emptied")
    database = root / "api" / "openmemory.db"
    with closing(sqlite3.connect(database)) as con, con:
        con.execute("DELETE FROM memory_categories")
        con.execute("DELETE FROM memory_status_history")
    vault.restore_into(root, report.id, user="bob")
    [(bob,)] = rows(database, "SELECT id FROM users WHERE user_id = 'bob'")
    assert rows(database, f"SELECT count(*) FROM memories WHERE user_id <> '{bob}'") == [(0,)]
    assert rows(database, "SELECT count(*) FROM memories") == [(18,)]
    wanted = {one["id"] for one in before if one["payload"]["user_id"] == "bob"}
    assert wanted <= {one["id"] for one in points_of(server)}
    for table in ("memory_categories", "memory_status_history"):
        of_others = f"SELECT count(*) FROM {table} WHERE memory_id NOT IN (SELECT id FROM memories)"
        assert rows(database, of_others) == [(0,)], table
        assert rows(database, f"SELECT count(*) > 0 FROM {table}") == [(1,)], table


def test_when_the_vectors_are_damaged_the_tables_come_back_and_it_is_said(
    destroyed: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    [report] = vault.backup(destroyed).snapshots
    inner = vault._vault
    parts = {part.name: inner.image(part) for part in inner.resolve(report.id).parts}
    [points] = parts["qdrant/openmemory"].collections
    lost = points.groups[0].chunk
    chunk = type(inner.reader).chunk

    def damaged(reader: Any, wanted: bytes) -> bytes:
        if wanted == lost:
            raise DamagedError("a pack is gone", obj="data/x")
        return chunk(reader, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(inner.reader), "chunk", damaged)
        done = vault.restore(report.id, to=tmp_path / "back", parts=["api/openmemory.db"])
    assert [one.code for one in done.findings] == ["ids_not_checked"]
    back = tmp_path / "back" / "api" / "openmemory.db"
    assert back.read_bytes() == (destroyed / "api" / "openmemory.db").read_bytes()


def test_files_that_the_snapshot_does_not_have_are_parked_too(root: Path, new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault()
    (root / "history.db").rename(root / "elsewhere")
    [report] = vault.backup(root).snapshots
    (root / "elsewhere").rename(root / "history.db")
    done = vault.restore(report.id, in_place=True, confirm="openmemory")
    assert not (root / "history.db").exists()
    assert done.parked is not None
    assert (Path(done.parked.split(" and ")[0]) / "history.db").is_file()

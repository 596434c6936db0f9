"""What the products exported is read as the records that their stores hold."""

import gzip
import json
import sqlite3
import struct
import uuid
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from memkeep.errors import FileError, UsageError
from memkeep.ops import records
from memkeep.records.readers import catalog, hybrid_export, mcp_memory, mem0, memory_pro, oc_memory, openmemory, thanos
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record, Relationship, Vector

PRO = "pro-1.1.0-beta.11"
DATABASE = "api/openmemory.db"


def _stored(path: Path) -> dict[tuple[str, str], Record]:
    with records.of(None, str(path)) as source:
        return {(each.collection, each.id): msgspec.structs.replace(each, vectors={}) for each in source.records()}


def _refused(found: Any) -> list[str]:
    return [each.where for each in found if isinstance(each, Refused)]


def _saved(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=2))
    return path


@pytest.mark.real
def test_the_export_of_oc_memory_is_what_its_database_holds(copy_store: Callable[..., Path], stores: Path) -> None:
    found = oc_memory.read(stores / "oc-memory" / "memory-export" / "memory-export.json")
    assert {(each.collection, each.id): each for each in found} == _stored(copy_store("oc-memory") / "memory.db")


@pytest.mark.real
def test_the_export_of_pro_is_what_its_table_holds(copy_store: Callable[..., Path], stores: Path) -> None:
    path = stores / PRO / "memory-pro-export.json"
    assert catalog.reader_of(path) is memory_pro
    found = {(each.collection, each.id): each for each in memory_pro.read(path)}
    assert len(found) == 59
    assert found == _stored(copy_store(PRO) / "lancedb-pro")


def test_the_newest_daily_file_of_pro_is_read(tmp_path: Path, stores: Path) -> None:
    memories = json.loads((stores / PRO / "memory-pro-export.json").read_text())["memories"]
    for day, count in (("2026-11-20", 3), ("2026-11-21", 5)):
        lines = "".join(json.dumps(each) + "\n" for each in memories[:count])
        (tmp_path / f"memory-backup-{day}.jsonl").write_text(lines)
    assert catalog.reader_of(tmp_path) is memory_pro
    assert catalog.reader_of(tmp_path / "memory-backup-2026-11-20.jsonl") is memory_pro
    assert [each.id for each in memory_pro.read(tmp_path)] == [each["id"] for each in memories[:5]]


@pytest.mark.parametrize(
    ("timestamp", "made"),
    [
        (1795223723321, "2026-11-21T01:15:23.321000+00:00"),
        (1795223723, "2026-11-21T01:15:23+00:00"),
        (0, None),
        (-5, None),
        (None, None),
        ("soon", None),
    ],
)
def test_a_time_of_pro_is_read_by_its_own_rule(tmp_path: Path, timestamp: Any, made: str | None) -> None:
    one = {"id": "m1", "text": "t", "category": "fact", "scope": "user:anna", "importance": 1, "timestamp": timestamp}
    said = {"version": "1.0", "exportedAt": "", "count": 1, "filters": {}, "memories": [one | {"metadata": "no JSON"}]}
    (record,) = memory_pro.read(_saved(tmp_path / "x.json", said))
    assert isinstance(record, Record)
    assert (record.created_at, record.user, record.scope) == (made, "anna", "user:anna")
    assert record.metadata == {"metadata": "no JSON"}


def test_damaged_memories_of_pro_do_not_hide_the_others(tmp_path: Path, stores: Path) -> None:
    said = json.loads((stores / PRO / "memory-pro-export.json").read_text())
    said["memories"][3:6] = [7, {"id": "x"}, {"id": 7, "text": "x"}]
    found = list(memory_pro.read(_saved(tmp_path / "x.json", said)))
    assert [where.partition(", memories")[2] for where in _refused(found)] == ["[3]", "[4]", "[5]"]
    assert len(found) == 59
    text = (tmp_path / "x.json").read_text()
    (tmp_path / "x.json").write_text(text[: len(text) // 2])
    *whole, cut = memory_pro.read(tmp_path / "x.json")
    assert isinstance(cut, Refused)
    assert 20 < len(whole) < 35


def _export_of_openmemory(database: Path, user: str, zone: str = "UTC") -> dict[str, Any]:
    """Do what its export does with a database, on a host in a zone."""
    db = sqlite3.connect(database)
    db.row_factory = sqlite3.Row

    def cell(column: str, value: Any) -> Any:
        if isinstance(value, str) and column.endswith("_at"):
            return datetime.fromisoformat(value).replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo("UTC")).isoformat()
        if isinstance(value, str) and len(value) == 32 and (column == "id" or column.endswith("_id")):
            return str(uuid.UUID(value))
        return json.loads(value) if column == "metadata" and value is not None else value

    def rows(table: str, where: str = "1") -> list[dict[str, Any]]:
        return [{k: cell(k, row[k]) for k in row.keys()} for row in db.execute(f"SELECT * FROM {table} WHERE {where}")]  # noqa: SIM118 - of a row, not a dict

    (owner,) = rows("users", f"user_id = '{user}'")
    mine = f"user_id = '{owner['id'].replace('-', '')}'"
    memories = rows("memories", mine)
    joined = rows("memory_categories", f"memory_id IN (SELECT id FROM memories WHERE {mine})")
    for each in memories:
        del each["vector"]
        each["category_ids"] = [one["category_id"] for one in joined if one["memory_id"] == each["id"]]
    said = {
        "user": owner,
        "apps": rows("apps"),
        "categories": rows("categories"),
        "memories": memories,
        "memory_categories": joined,
        "status_history": rows("memory_status_history", f"memory_id IN (SELECT id FROM memories WHERE {mine})"),
        "access_controls": rows("access_controls"),
        "export_meta": {"app_id_filter": None, "from_date": None, "to_date": None, "version": "1"},
    }
    db.close()
    return said


def _zipped(path: Path, said: dict[str, Any]) -> Path:
    apps = {each["id"]: each["name"] for each in said["apps"]}
    names = {each["id"]: each["name"] for each in said["categories"]}
    short = [
        {key: each[key] for key in ("id", "content", "created_at", "updated_at", "state")}
        | {"metadata": each["metadata"] or {}, "app": apps.get(each["app_id"])}
        | {"categories": [names[one] for one in each["category_ids"]]}
        for each in said["memories"]
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("memories.json", json.dumps(said, indent=2))
        archive.writestr("memories.jsonl.gz", gzip.compress("".join(json.dumps(x) + "\n" for x in short).encode()))
    return path


def _plain(record: Record) -> Record:
    return msgspec.structs.replace(record, metadata={k: v for k, v in record.metadata.items() if v is not None})


@pytest.mark.real
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_the_zip_of_openmemory_is_what_its_database_holds(
    tmp_path: Path, copy_store: Callable[..., Path], zone: str
) -> None:
    store = copy_store("openmemory")
    path = _zipped(tmp_path / "marta.zip", _export_of_openmemory(store / DATABASE, "marta", zone))
    assert catalog.reader_of(path) is openmemory
    found = list(openmemory.read(path, None if zone == "UTC" else zone))
    assert not _refused(found)
    memories = {each.id: _plain(each) for each in found if isinstance(each, Record) and each.primary}
    stored = {name: _plain(each) for (kind, name), each in _stored(store).items() if kind == "memories"}
    meant = {name: each for name, each in stored.items() if each.user == "marta"}
    assert len(meant) > 10
    assert "deleted" in {each.status for each in meant.values()}
    assert memories == meant
    kinds = {each.collection for each in found if isinstance(each, Record)}
    assert kinds == {
        "memories",
        "users",
        "apps",
        "categories",
        "memory_categories",
        "memory_status_history",
        "access_controls",
    }


def test_the_short_form_is_read_where_the_whole_one_is_missing(tmp_path: Path, copy_store: Callable[..., Path]) -> None:
    said = _export_of_openmemory(copy_store("openmemory") / DATABASE, "marta")
    path = _zipped(tmp_path / "whole.zip", said)
    meant = {each.id: each for each in openmemory.read(path) if isinstance(each, Record) and each.primary}
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "short.zip", "w") as short:
        short.writestr("sub/memories.jsonl.gz", whole.read("memories.jsonl.gz"))
    found = {each.id: each for each in openmemory.read(tmp_path / "short.zip") if isinstance(each, Record)}
    assert found.keys() == meant.keys()
    for name, each in found.items():
        for field in ("text", "agent", "tags", "status", "created_at", "updated_at"):
            assert getattr(each, field) == getattr(meant[name], field)


def test_a_damaged_zip_of_openmemory_gives_what_is_whole(tmp_path: Path) -> None:
    one = {"id": str(uuid.UUID(int=1)), "content": "x", "state": "deleted", "metadata": None, "created_at": None}
    said = {"user": 7, "apps": 7, "categories": [7], "memories": [one, {"id": 1}, one | {"content": 7}]}
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("memories.json", json.dumps(said))
    found = list(openmemory.read(path))
    assert [each.status for each in found if isinstance(each, Record)] == ["deleted"]
    places = [where.removeprefix("memories.json, line 1, ") for where in _refused(found)]
    assert places == ["user", "apps", "categories[0]", "memories[1]", "memories[2]"]
    data = bytearray(path.read_bytes())
    data[data.index(b'"content": "x"') + 12] ^= 1
    path.write_bytes(data)
    assert any("damaged" in each.reason for each in openmemory.read(path) if isinstance(each, Refused))
    path.write_bytes(b"PK")
    assert not openmemory.fits(path)
    with pytest.raises(FileError):
        list(openmemory.read(path))
    with pytest.raises(UsageError, match="no time zone"):
        list(openmemory.read(path, "Mars/Base"))


def test_the_export_of_thanos_is_read_with_vectors_and_relationships(tmp_path: Path) -> None:
    payload = {
        "data": "Ship it", "hash": "h", "user_id": "jeremy", "created_at": "2026-01-02T03:04:05.678901",
        "client": "Acme", "project": "Site", "category": "work", "heat": 0.91, "importance": 5, "access_count": 2,
        "last_accessed": "2026-01-03T00:00:00", "source": "telegram", "entities": ["Anna"],
    }  # fmt: skip
    joined = {
        "id": 3, "source_id": "m1", "target_id": "m2", "rel_type": "caused", "strength": 0.9,
        "metadata": {"why": "ü"}, "created_at": "2026-01-02T03:04:05", "updated_at": "2026-01-02T03:04:05",
    }  # fmt: skip
    about = {"version": "1.0", "timestamp": "2026-02-01T00:00:00", "user_id": "jeremy", "includes_vectors": True}
    said = {
        "metadata": about,
        "memories": [{"id": "m1", "payload": payload, "vector": [0.1, -1e-45, 3.0]}, {"id": "m2", "payload": {}}],
        "relationships": [joined, 7],
    }
    path = _saved(tmp_path / "memory_export.json", said)
    assert catalog.reader_of(path) is thanos
    assert catalog.reader_of(tmp_path) is thanos
    one, two, link, refused = thanos.read(tmp_path)
    assert isinstance(one, Record)
    assert (one.text, one.user, one.scope, one.heat, one.created_at) == (
        "Ship it", "jeremy", "Acme", 0.91, "2026-01-02T03:04:05.678901+00:00",
    )  # fmt: skip
    assert one.metadata == {"hash": "h", "project": "Site", "entities": ["Anna"]}
    assert one.vectors == {"": Vector.f32(struct.pack("<3f", 0.1, -1e-45, 3.0))}
    assert isinstance(two, Record)
    assert two.text == ""
    assert isinstance(link, Relationship)
    assert (link.source, link.target, link.type, link.strength) == ("m1", "m2", "caused", 0.9)
    assert link.metadata == {"metadata": {"why": "ü"}}
    assert isinstance(refused, Refused)


def test_damaged_memories_of_thanos_are_refused(tmp_path: Path) -> None:
    bad = [7, {"id": "x"}, {"id": "x", "payload": {"data": 7}}, {"id": "x", "payload": {}, "vector": "no"},
           {"id": "x", "payload": {}, "vector": [None]}, {"id": None, "payload": {}}]  # fmt: skip
    said = {"metadata": {"includes_vectors": True}, "memories": bad, "relationships": 7}
    found = list(thanos.read(_saved(tmp_path / "x.json", said)))
    assert len(_refused(found)) == len(found) == 7


@pytest.mark.real
def test_the_results_of_mem0_are_what_its_points_hold(tmp_path: Path, copy_store: Callable[..., Path]) -> None:
    stored = [each for (kind, _), each in _stored(copy_store("mem0-local")).items() if kind == "mem0"]
    own = {"user": "user_id", "agent": "agent_id", "session": "run_id"}
    told = {"hash", "actor_id", "role"}
    results = [
        {"id": each.id, "memory": each.text, "created_at": each.created_at, "updated_at": each.updated_at}
        | {key: value for key, value in each.metadata.items() if key in told}
        | {"metadata": {key: value for key, value in each.metadata.items() if key not in told} or None}
        | {key: getattr(each, field) for field, key in own.items() if getattr(each, field) is not None}
        | each.native  # a day on which it expires
        for each in stored
    ]
    for said in ({"results": results}, results):
        path = _saved(tmp_path / "all.json", said)
        assert catalog.reader_of(path) is mem0
        found = {each.id: each for each in mem0.read(path) if isinstance(each, Record)}
        assert len(found) == 60
        assert found == {each.id: each for each in stored}


def test_relations_of_mem0_join_and_damaged_results_are_refused(tmp_path: Path) -> None:
    said = {
        "results": [{"id": "1", "memory": "x"}, {"id": 1, "memory": "x"}, {"id": "1", "memory": "x", "metadata": 7}],
        "relations": [{"source": "anna", "relationship": "likes", "destination": "tea"}, {"source": "anna"}],
    }
    found = list(mem0.read(_saved(tmp_path / "x.json", said)))
    assert len(_refused(found)) == 3
    assert found[3] == Relationship(source="anna", target="tea", type="likes", collection="relations", system="mem0")


def test_entities_and_relations_of_mcp_are_read(tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    path.write_text(
        '{"type":"entity","name":"Anna","entityType":"person","observations":["likes tea","lives in Bonn"]}\n'
        '{"type":"entity","name":"Bonn","entityType":"city","observations":[]}\n'
        '{"type":"relation","from":"Anna","to":"Bonn","relationType":"lives in"}\n'
        '{"type":"entity","name":"x","observations":[1]}\n{"type":"other"}\n7\n{"type":"rel'
    )
    assert catalog.reader_of(path) is mcp_memory
    anna, bonn, joined, *refused = mcp_memory.read(path)
    assert isinstance(anna, Record)
    assert (anna.id, anna.text, anna.category) == ("Anna", "likes tea\nlives in Bonn", "person")
    assert anna.metadata == {"observations": ["likes tea", "lives in Bonn"]}
    assert isinstance(bonn, Record)
    assert bonn.text == "Bonn"
    assert isinstance(joined, Relationship)
    assert (joined.source, joined.target, joined.type) == ("Anna", "Bonn", "lives in")
    assert [each.where for each in refused if isinstance(each, Refused)] == [
        f"memory.jsonl, line {n}" for n in range(4, 8)
    ]


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    files = {
        "fact/work/Deploys-go-to-fsn1-1a2b3c4d.md": "Deploys go to fsn1",
        "preference/Tea-is-better-0f0f0f0f.md": "Anna's favourite drink is tea.\n\nTea is better",
        "other/Anna's-x-is-y.-z-11111111.md": "Anna's x is y.\n\nz",
        "other/end-55555555.md": "A's k is v.\n\nw.\n\nend",
        "procedures/Release-22222222.md": "# Procedure: Release\n\nType: positive\nConfidence: 0.5\n\n## Steps\n\n[1]",
        "other/empty-33333333.md": "",
        "other/odd.md": "no id",
    }
    for name, content in files.items():
        file = tmp_path / "memory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "memory" / "other" / "bad-44444444.md").write_bytes(b"\xff")
    (tmp_path / "MEMORY.md").write_text("# Long-Term Memory Index\n")
    _saved(tmp_path / "manifest.json", {"version": "2026.4.273", "schemaVersion": 3, "factsExported": 5})
    return tmp_path


def test_the_folder_that_hybrid_exports_is_read(hybrid: Path) -> None:
    assert catalog.reader_of(hybrid) is hybrid_export
    found = list(hybrid_export.read(hybrid))
    facts = {each.text: each for each in found if isinstance(each, Record)}
    assert set(facts) == {"Deploys go to fsn1", "Tea is better", "Anna's x is y.\n\nz", "no id", "Release", "end"}
    one = facts["Deploys go to fsn1"]
    assert one.id.startswith("1a2b3c4d-")
    assert uuid.UUID(one.id)
    assert (one.category, one.tags, one.collection) == ("fact", ("work",), "facts")
    assert facts["Tea is better"].metadata == {"entity": "Anna", "key": "favourite drink", "value": "tea"}
    assert facts["Anna's x is y.\n\nz"].metadata == {}
    assert facts["end"].metadata == {"entity": "A", "key": "k", "value": "v.\n\nw"}
    release = facts["Release"]
    assert (release.collection, release.primary, release.category) == ("procedures", False, "positive")
    assert release.metadata == {"recipe_json": "[1]", "confidence": 0.5}
    assert _refused(found) == ["memory/other/bad-44444444.md", "memory/other/empty-33333333.md"]
    assert [each.id for each in hybrid_export.read(hybrid) if isinstance(each, Record)] == [
        each.id for each in found if isinstance(each, Record)
    ]


def test_what_is_no_export_is_read_by_nothing(tmp_path: Path) -> None:
    for name, data in {"a.json": b"{}", "b.json": b"[" * 1000, "c.jsonl": b"7\n", "d.zip": b"PK", "e": b""}.items():
        (tmp_path / name).write_bytes(data)
        assert catalog.reader_of(tmp_path / name) is None
        with pytest.raises(FileError):
            list(hybrid_export.read(tmp_path / name))
    assert catalog.reader_of(tmp_path) is None
    assert catalog.reader_of(tmp_path / "none") is None

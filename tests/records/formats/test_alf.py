"""The Agent Life Format: what is written is valid, deterministic, and comes back."""

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.records.portable import Given, records, relationships, unordered

from memkeep.errors import FileError
from memkeep.records.formats import alf
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record, Relationship, Vector

SCHEMAS = json.loads((Path(__file__).parent / "alf_schemas.json").read_text())
_DATE_TIME = re.compile(r"(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_checker = jsonschema.FormatChecker()
_checker.checks("date-time")(lambda value: not isinstance(value, str) or bool(_DATE_TIME.fullmatch(value)))
VALIDATORS = {
    name: jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": SCHEMAS["$defs"]}, format_checker=_checker
    )
    for name in ("manifest", "record", "identity", "principals")
}


def _written(folder: Path, *made: Any) -> Path:
    folder.mkdir()
    alf.write(Given(*made), folder)
    return folder / alf.FILE


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def _validate(path: Path) -> None:
    entries = _entries(path)
    manifest = json.loads(entries["manifest.json"])
    VALIDATORS["manifest"].validate(manifest)
    VALIDATORS["identity"].validate(json.loads(entries["identity.json"]))
    VALIDATORS["principals"].validate(json.loads(entries["principals.json"]))
    memory = manifest["layers"]["memory"]
    assert memory["index_file"] in entries
    counts = 0
    for part in memory["partitions"]:
        lines = entries[part["file"]].splitlines()
        assert len(lines) == part["record_count"]
        counts += len(lines)
        for line in lines:
            said = json.loads(line)
            VALIDATORS["record"].validate(said)
            assert part["from"] <= said["temporal"]["created_at"][:10]
            assert part["to"] is None or said["temporal"]["created_at"][:10] <= part["to"]
    assert counts == memory["record_count"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(records, max_size=3), st.lists(relationships, max_size=2))
def test_any_record_comes_back_and_is_valid(
    tmp_path_factory: pytest.TempPathFactory, given_records: list[Record], joined: list[Relationship]
) -> None:
    path = _written(tmp_path_factory.mktemp("alf") / "a", *given_records, *joined)
    _validate(path)
    assert unordered(alf.read(path)) == unordered([*given_records, *joined])


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    made = [Record(id=str(n), text=f"t{n}", created_at="2026-02-03T04:05:06+00:00") for n in range(30)]
    one, two = _written(tmp_path / "a", *made), _written(tmp_path / "b", *made)
    assert one.read_bytes() == two.read_bytes()
    assert [each.name for each in (tmp_path / "a").iterdir()] == [alf.FILE]


def test_an_id_is_a_uuid_of_version_7_and_stays_when_the_text_changes(tmp_path: Path) -> None:
    at = "2026-02-03T04:05:06+00:00"
    before = _entries(_written(tmp_path / "a", Record(id="m1", text="before", created_at=at)))
    after = _entries(_written(tmp_path / "b", Record(id="m1", text="after", created_at=at, tags=("x",))))
    ids = [json.loads(each["memory/partitions/2026-Q1.jsonl"])["id"] for each in (before, after)]
    assert ids[0] == ids[1]
    assert int(ids[0].replace("-", "")[:12], 16) == 1770091506000


def test_records_of_the_same_id_have_ids_of_their_own(tmp_path: Path) -> None:
    path = _written(tmp_path / "a", Record(id="m1", text="one"), Record(id="m1", text="two"))
    lines = _entries(path)["memory/partitions/2026-Q2.jsonl"].splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == 2


def test_fields_of_the_format_say_what_they_can(tmp_path: Path) -> None:
    old = Record(id="m0", text="old", created_at="2025-01-02T03:04:05+00:00")
    new = Record(
        id="m1",
        text="Anna likes tea",
        category="preference",
        tags=("tea",),
        status="superseded",
        supersedes="m0",
        scope="project:aurora",
        session="s1",
        user="anna",
        confidence=0.5,
        access_count=3,
        created_at="2026-05-05T03:04:05+00:00",
        metadata={"entity": "Anna"},
        vectors={"": Vector.f32(b"\x00\x00\x80\x3f", "openai/small")},
        system="openclaw-hybrid",
    )
    entries = _entries(_written(tmp_path / "a", old, new, Relationship(source="m1", target="m0", type="SUPERSEDES")))
    said = json.loads(entries["memory/partitions/2026-Q2.jsonl"])
    older = json.loads(entries["memory/partitions/2025-Q1.jsonl"])
    assert said["supersedes"] == older["id"]
    assert said["related_records"] == [{"id": older["id"], "relation": "SUPERSEDES"}]
    assert said["entities"] == [{"name": "Anna", "type": "other"}]
    assert (said["memory_type"], said["status"], said["namespace"]) == ("preference", "superseded", "project:aurora")
    assert (said["tags"], said["confidence"], said["temporal"]["access_count"]) == (["tea"], 0.5, 3)
    assert said["embeddings"][0] | {"computed_at": ""} == {
        "model": "openai/small",
        "dimensions": 1,
        "vector": [1.0],
        "computed_at": "",
        "source": "runtime",
    }
    manifest = json.loads(entries["manifest.json"])
    assert manifest["layers"]["memory"]["has_embeddings"] is True
    assert [each["sealed"] for each in manifest["layers"]["memory"]["partitions"]] == [True, False]
    assert json.loads(entries["principals.json"])["principals"][0]["profile"]["structured"] == {"name": "anna"}


def test_the_checksum_is_what_sha256sum_says(tmp_path: Path) -> None:
    entries = _entries(_written(tmp_path / "a", Record(id="m1", text="t")))
    said = json.loads(entries.pop("manifest.json"))["checksum"]
    listed = "".join(f"{hashlib.sha256(entries[name]).hexdigest()}  {name}\n" for name in sorted(entries))
    assert said == f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"


def test_what_another_program_changed_is_what_is_read(tmp_path: Path) -> None:
    path = _written(
        tmp_path / "a", Record(id="m1", text="before", tags=("a",), heat=0.5, vectors={"": Vector.f32(bytes(8))})
    )
    entries = _entries(path)
    said = json.loads(entries["memory/partitions/2026-Q2.jsonl"])
    said |= {"content": "after", "status": "archived", "tags": []}
    entries["memory/partitions/2026-Q2.jsonl"] = json.dumps(said).encode()
    _repack(path, entries)
    (made,) = alf.read(path)
    assert made == Record(id="m1", text="after", heat=0.5, status="archived", vectors={"": Vector.f32(bytes(8))})


def test_the_archive_of_another_program_is_read(tmp_path: Path) -> None:
    one = {
        "id": "0190b5a0-0000-7000-8000-000000000001",
        "agent_id": "0190b5a0-0000-4000-8000-000000000000",
        "content": "Prefers tea",
        "memory_type": "preference",
        "source": {"runtime": "openclaw", "origin": "daily_log", "session_id": "s"},
        "temporal": {"created_at": "2026-02-10T14:30:00Z", "access_count": 7},
        "status": "active",
        "namespace": "default",
        "embeddings": [{"model": "a/b", "dimensions": 2, "vector": [1, 0.5], "computed_at": "", "source": "runtime"}],
        "related_records": [{"id": "0190b5a0-0000-7000-8000-000000000002", "relation": "caused_by"}],
    }
    path = tmp_path / "other.alf"
    manifest = {"alf_version": "1.0.0", "layers": {"memory": {"partitions": [{"file": "memory/partitions/x.jsonl"}]}}}
    _repack(
        path,
        {"manifest.json": json.dumps(manifest).encode(), "memory/partitions/x.jsonl": json.dumps(one).encode()},
    )
    assert alf.fits(path)
    record, joined = alf.read(path)
    assert isinstance(record, Record)
    assert (record.id, record.text, record.created_at) == (one["id"], "Prefers tea", "2026-02-10T14:30:00+00:00")
    assert (record.session, record.source, record.access_count, record.status) == ("s", "daily_log", 7, "active")
    assert record.metadata["memory_type"] == "preference"
    assert record.vectors == {"": Vector.f32(b"\x00\x00\x80\x3f\x00\x00\x00\x3f", "a/b")}
    assert joined == Relationship(
        source=str(one["id"]), target="0190b5a0-0000-7000-8000-000000000002", type="caused_by", system="alf"
    )


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[" * 100_000,
        b"7",
        b'{"id": 7, "content": "x"}',
        b'{"id": "a", "content": "x", "embeddings": [{"vector": ["x"], "model": 7}]}',
        b'{"id": "a", "content": "x", "raw_source_format": {"memkeep": {"metadata": 7}}}',
        b'{"id": "a", "content": "x", "raw_source_format": {"memkeep": {"vectors": {"": {"dims": 5, "data": ""}}}}}',
        b"\xff",
    ],
)
def test_a_damaged_record_does_not_hide_the_next(tmp_path: Path, line: bytes) -> None:
    path = _written(tmp_path / "a", Record(id="m1", text="whole"))
    entries = _entries(path)
    entries["memory/partitions/2026-Q2.jsonl"] = line + b"\n" + entries["memory/partitions/2026-Q2.jsonl"]
    _repack(path, entries)
    refused, whole = alf.read(path)
    assert isinstance(refused, Refused)
    assert "line 1" in refused.where
    assert isinstance(whole, Record)
    assert whole.text == "whole"


def test_a_flipped_byte_in_an_entry_is_told(tmp_path: Path) -> None:
    path = _written(tmp_path / "a", *(Record(id=str(n), text="x" * 50) for n in range(50)))
    data = bytearray(path.read_bytes())
    at = data.index(b"memory/partitions/2026-Q2.jsonl") + 60
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert any(isinstance(each, Refused) for each in alf.read(path))


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "memory.alf"
    path.write_bytes(b"PK\x03\x04 no")
    assert not alf.fits(path)
    with pytest.raises(FileError, match=r"memory\.alf"):
        list(alf.read(path))
    _repack(path, {"manifest.json": b"[]"})
    with pytest.raises(FileError, match="no object"):
        list(alf.read(path))


def _repack(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)

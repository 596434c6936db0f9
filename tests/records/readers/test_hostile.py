"""Whatever a file says, readers name it or read on: they never fail in another way, and never ask for much memory."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.records.portable import Given, values

from memkeep.errors import FileError
from memkeep.records.formats import alf, markdown, oc_memory
from memkeep.records.readers import catalog, json_stream, openmemory
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record, Relationship, Vector

_odd = values | st.sampled_from([[], {}, [[]], [{}], {"": []}])
_KEYS = (
    "id text content memory payload metadata vector embedding source_id target_id rel_type name type observations from "
    "to relationType scene memkeep tags timestamp state created_at deleted_at category_ids raw_source_format temporal "
    "source embeddings related_records"
)
_ARRAYS = (
    "memories cells scenes results relations relationships memkeep_records memkeep_relationships user apps categories "
    "memory_categories status_history access_controls"
)
_keys = st.sampled_from(_KEYS.split())
_object = st.dictionaries(_keys, _odd | st.just("x"), max_size=6)
_arrays = st.sampled_from(_ARRAYS.split())
_document = st.dictionaries(_arrays, st.lists(_object | _odd, max_size=3) | _odd, max_size=4)


def _json(value: Any) -> bytes:
    return json.dumps(value, default=lambda data: data.hex()).encode("utf-8", "surrogatepass")


def _zip(path: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=_document, lines=st.lists(_object | _odd, max_size=3), cut=st.none() | st.integers(0, 400))
def test_any_values_in_the_right_places_are_read_or_refused(
    tmp_path: Path, document: dict[str, Any], lines: list[Any], cut: int | None
) -> None:
    data, rows = _json(document)[:cut], b"\n".join(map(_json, lines))[:cut]
    (tmp_path / "x.json").write_bytes(data)
    (tmp_path / "x.jsonl").write_bytes(rows)
    _zip(tmp_path / "o.zip", memories_dot_json=data)
    _zip(tmp_path / "g.zip", memories_dot_jsonl_dot_gz=data)
    _zip(tmp_path / "a.zip", manifest_dot_json=b'{"alf_version": "1"}', memory__partitions__x_dot_jsonl=rows)
    for reader in (*catalog.READERS, alf, markdown, oc_memory):
        for path in sorted(tmp_path.iterdir()):
            reader.fits(path)
            try:
                for each in reader.read(path):
                    assert isinstance(each, Record | Relationship | Refused)
            except FileError:
                continue


def _whole(folder: Path) -> list[tuple[Any, Path]]:
    made = [
        Record(id=str(n), text=f"text {n}\n" * 3, scope="s", tags=("a",), vectors={"": Vector.f32(bytes(16))})
        for n in range(5)
    ]
    source = Given(*made, Relationship(source="1", target="2", type="t"))
    found = []
    for each in (alf, markdown, oc_memory):
        into = folder / each.name
        into.mkdir()
        each.write(source, into)
        found.append((each, max(into.iterdir(), key=lambda file: (file.name.startswith("mem"), file.name))))
    return found


@pytest.mark.damage
def test_a_file_that_was_cut_or_flipped_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    for each, path in _whole(tmp_path):
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 150)):
            for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]):
                path.write_bytes(damaged)
                each.fits(path)
                try:
                    for one in each.read(path):
                        assert isinstance(one, Record | Relationship | Refused)
                except FileError:
                    continue


def test_a_bomb_in_a_zip_is_not_unpacked_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "LIMIT", 1 << 20)
    zeros = bytes(8 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("memories.json", b'{"memories": ["' + zeros + b'"]}')
    with zipfile.ZipFile(tmp_path / "x.alf", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b'{"alf_version": "1"}')
        archive.writestr("memory/partitions/x.jsonl", zeros)
    for found in (list(openmemory.read(tmp_path / "x.zip")), list(alf.read(tmp_path / "x.alf"))):
        assert found
        assert all(isinstance(each, Refused) and "MiB" in each.reason for each in found)

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.records.portable import Given, vector

from memkeep.errors import FileError
from memkeep.records.formats import json as ours
from memkeep.records.formats import jsonl
from memkeep.records.formats.objects import f32_of
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record, Relationship, Vector

ONE = Record(
    id="mem_1",
    text="Memory content",
    user="jeremy",
    heat=0.85,
    created_at="2024-01-26T12:00:00+00:00",
    metadata={"client": "acme"},
    vectors={"": vector(0.1, 0.2, -0.0)},
)
JOINED = Relationship(source="mem_1", target="mem_2", type="caused", strength=0.9, metadata={"n": 1})
FACTS = [Record(id=str(n), text=f"fact {n}", collection="facts", primary=False) for n in range(3)]
SOURCE = Given(ONE, Record(id="mem_2", text="b"), *FACTS, JOINED)


def strict(text: str) -> Any:
    def fail(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=fail)


def test_the_document_has_the_structure_of_the_guide(tmp_path: Path) -> None:
    ours.write(SOURCE, tmp_path)
    document = strict((tmp_path / "export.json").read_text(encoding="utf-8"))
    about = document["metadata"]
    assert about["version"] == "1.0"
    assert about["timestamp"] == SOURCE.about.taken
    assert (about["memory_count"], about["relationship_count"]) == (2, 1)
    first = document["memories"][0]
    assert list(first)[:5] == ["id", "content", "user_id", "metadata", "created_at"]
    assert first["embedding"] == [0.1, 0.2, -0.0]
    assert first["heat"] == 0.85
    assert document["relationships"] == [
        {"source_id": "mem_1", "target_id": "mem_2", "rel_type": "caused", "strength": 0.9, "metadata": {"n": 1}}
    ]
    assert [one["content"] for one in document["collections"]["facts"]] == ["fact 0", "fact 1", "fact 2"]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ours.write(SOURCE, tmp_path / name)
    assert (tmp_path / "a/export.json").read_bytes() == (tmp_path / "b/export.json").read_bytes()


def test_numbers_that_json_does_not_know_are_strict_json_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    odd = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 1], "<u4").tobytes()
    made = [Record(id="a", text="", heat=float("inf"), vectors={"": Vector.f32(odd), "x": vector(1e300, type="f64")})]
    ours.write(Given(*made), tmp_path)
    strict((tmp_path / "export.json").read_text(encoding="utf-8"))
    assert list(ours.read(tmp_path)) == made


def test_a_decimal_that_float64_rounds_to_the_middle_is_read_as_the_float32_that_is_spelled_so() -> None:
    spelled = np.frombuffer(bytes.fromhex("fd43ae15"), "<f4")
    decimal = float(str(spelled[0]))
    assert np.array([decimal]).astype("<f4").tobytes() != spelled.tobytes(), "rounding twice goes wrong here"
    assert f32_of([decimal, -decimal]) == np.array([spelled[0], -spelled[0]], "<f4").tobytes()


def test_a_document_that_was_laid_out_anew_is_read_too(tmp_path: Path) -> None:
    ours.write(SOURCE, tmp_path)
    there = tmp_path / "other.json"
    there.write_text(json.dumps(json.loads((tmp_path / "export.json").read_text()), indent=2))
    assert ours.fits(there)
    assert list(ours.read(there)) == list(ours.read(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "by", "where", "reason"),
    [
        (rb'\n\{"id":"mem_2"', b'\n{"id":"mem_2', "export.json, line 5", ""),
        (rb"\},\n\{", b"}\n{", "export.json, line 5", "there is no comma"),
        (rb"\n\]\n\}\n\Z", b"", "export.json, line 15", "ends too early"),
        (rb'"embedding":\[0.1,', b'"embedding":[null,', "export.json, line 4", "no list of numbers"),
        (rb'"embedding":\[0.1,', b'"embedding":["a",', "export.json, line 4", "could not convert"),
        (rb'"id":"mem_1",', b"", "export.json, line 4", "'id' is missing"),
        (rb'"content":"Memory content"', b'"content":5', "export.json, line 4", "no text"),
        (rb"\n\{\"id\":\"mem_2", b"\nnonsense {", "export.json, line 5", "no record"),
    ],
)
def test_a_broken_place_is_named_with_its_line(
    tmp_path: Path, pattern: bytes, by: bytes, where: str, reason: str
) -> None:
    ours.write(SOURCE, tmp_path)
    file = tmp_path / "export.json"
    data = file.read_bytes()
    broken = re.sub(pattern, lambda _: by, data, count=1)
    assert broken != data
    file.write_bytes(broken)
    found = list(ours.read(tmp_path))
    refused = [one for one in found if isinstance(one, Refused)]
    assert refused[0].where == where
    assert reason in refused[0].reason
    assert len(found) - len(refused) >= 5, "the others are read"


def test_what_has_no_field_is_taken_into_the_metadata(tmp_path: Path) -> None:
    document = {"metadata": {}, "memories": [{"id": 7, "content": "a", "mood": "good", "metadata": {"b": 1}}]}
    (tmp_path / "export.json").write_text(json.dumps(document))
    assert list(ours.read(tmp_path)) == [Record(id="7", text="a", metadata={"b": 1, "mood": "good"})]


def test_metadata_of_any_depth_come_back(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    made = [Record(id="a", text="", metadata=deep, vectors={"": vector(0.1), "é": vector(0.2, type="f64")})]
    for one in (ours, jsonl):
        one.write(Given(*made), tmp_path)
        assert list(one.read(tmp_path)) == made


def test_a_broken_line_of_json_lines_is_named(tmp_path: Path) -> None:
    jsonl.write(SOURCE, tmp_path)
    file = tmp_path / "collections.jsonl"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], lines[1][:-3], lines[2]]))
    found = list(jsonl.read(tmp_path))
    assert [one.where for one in found if isinstance(one, Refused)] == ["collections.jsonl, line 2"]
    assert len(found) == 6
    assert len(list(jsonl.read(tmp_path / "memories.jsonl"))) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for one in (ours, jsonl):
        with pytest.raises(FileError, match="gone"):
            list(one.read(tmp_path / "gone.json"))

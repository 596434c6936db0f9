import csv
from pathlib import Path

import pytest
from tests.records.portable import Given, vector

from memkeep.errors import FileError
from memkeep.records.formats import csv as ours
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record

LINK = '=HYPERLINK("http://evil","x")'


def test_a_table_of_the_guide_can_be_read_by_any_program(tmp_path: Path) -> None:
    made = [
        Record(id="a", text='said "hi",\r\nthen left\n', user="jeremy", heat=0.5, tags=("x", "y"), metadata={"a": 1})
    ]
    ours.write(Given(*made), tmp_path)
    with (tmp_path / "memories.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row)[:6] == ["id", "content", "user_id", "metadata", "created_at", "heat"]
    assert row["content"] == made[0].text
    assert (row["user_id"], row["heat"], row["tags"], row["metadata"]) == ("jeremy", "0.5", '["x","y"]', '{"a":1}')
    assert row["more"] == ""
    assert not (tmp_path / "collections.csv").exists()


@pytest.mark.parametrize("text", [LINK, "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''-1", "'"])
def test_no_text_is_a_formula_and_every_text_comes_back(tmp_path: Path, text: str) -> None:
    made = [Record(id=text, text=text, title=text, heat=-0.5)]
    ours.write(Given(*made), tmp_path)
    with (tmp_path / "memories.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    for cell in (row["id"], row["content"], row["title"]):
        assert cell.startswith("'")
    assert row["heat"] == "-0.5"
    assert list(ours.read(tmp_path)) == made


def test_a_long_text_and_a_large_vector_come_back(tmp_path: Path) -> None:
    made = [Record(id="a", text="x" * 300_000, vectors={"": vector(*range(4096))})]
    ours.write(Given(*made), tmp_path)
    assert list(ours.read(tmp_path)) == made


def test_nothing_and_the_empty_text_are_two_things(tmp_path: Path) -> None:
    made = [Record(id="", text="b", collection=""), Record(id="a", text="", title="", summary=None)]
    ours.write(Given(*made), tmp_path)
    assert list(ours.read(tmp_path)) == made


def test_a_table_that_a_program_wrote_again_is_read(tmp_path: Path) -> None:
    (tmp_path / "memories.csv").write_bytes("\ufeffid,content,heat,mood\n1,né,0.5,good\n\n2,b,,\n".encode())
    assert list(ours.read(tmp_path)) == [
        Record(id="1", text="né", heat=0.5, metadata={"mood": "good"}),
        Record(id="2", text="b"),
    ]


def test_what_is_no_table_of_records_is_named(tmp_path: Path) -> None:
    for data in (b"name,content\n1,a\n", b"", b"\xff\xff"):
        (tmp_path / "memories.csv").write_bytes(data)
        with pytest.raises(FileError, match=r"memories\.csv can't be read"):
            list(ours.read(tmp_path))


@pytest.mark.parametrize(
    ("row", "where", "reason"),
    [
        (b"2,b,,", "memories.csv, line 3", "4 cells in 3 columns"),
        (b"2,b,hot", "memories.csv, line 3", "could not convert"),
        (b'2,b,"', "memories.csv, after line 2", "line 3: unexpected end of data"),
        (b"2,\xff,", "memories.csv", "can't decode"),
    ],
)
def test_a_broken_row_is_named_and_the_others_are_read(tmp_path: Path, row: bytes, where: str, reason: str) -> None:
    lines = [b"id,content,heat", b"1,a,", row, b"3,c,"]
    (tmp_path / "memories.csv").write_bytes(b"\n".join(lines if b'"' not in row else lines[:3]))
    if b"\xff" in row:
        with pytest.raises(FileError, match=reason):
            list(ours.read(tmp_path))
        return
    found = list(ours.read(tmp_path))
    (refused,) = [one for one in found if isinstance(one, Refused)]
    assert refused.where == where
    assert reason in refused.reason
    assert len(found) == (3 if b'"' not in row else 2)

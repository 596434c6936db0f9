"""oc-memory's own export: complete for memkeep, and what the product's restore takes."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.records.portable import Given, records, relationships, unordered

from memkeep.records.formats import oc_memory
from memkeep.records.formats.scenes import file_names
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record, Relationship, Vector

AT = "2026-05-06T07:08:09.000010+00:00"


def _written(folder: Path, *made: Any, system: str = "oc-memory") -> dict[str, Any]:
    folder.mkdir()
    oc_memory.write(Given(*made, system=system), folder)
    said: dict[str, Any] = json.loads((folder / oc_memory.FILE).read_text("ascii"), parse_constant=pytest.fail)
    return said


def _restored(said: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Do what the product's restore does with each cell: bind six of its keys to SQLite."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE mem_cells (scene TEXT NOT NULL, cell_type TEXT NOT NULL, salience REAL, "
               "content TEXT NOT NULL, source TEXT, tags TEXT)")  # fmt: skip
    for cell in said["cells"]:
        tags = cell.get("tags", [])
        row = (
            cell["scene"],
            cell.get("cell_type", "fact"),
            cell.get("salience", 0.5),
            cell["content"] if isinstance(cell["content"], str) else json.dumps(cell["content"]),
            cell.get("source", ""),
            json.dumps(tags) if isinstance(tags, list) else tags,
        )
        db.execute("INSERT INTO mem_cells VALUES (?, ?, ?, ?, ?, ?)", row)
    found = db.execute("SELECT * FROM mem_cells").fetchall()
    db.close()
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(records, max_size=3), st.lists(relationships, max_size=2))
def test_any_record_comes_back_and_the_product_can_restore_the_file(
    tmp_path_factory: pytest.TempPathFactory, given_records: list[Record], joined: list[Relationship]
) -> None:
    folder = tmp_path_factory.mktemp("oc") / "a"
    said = _written(folder, *given_records, *joined)
    assert oc_memory.fits(folder)
    assert unordered(oc_memory.read(folder)) == unordered([*given_records, *joined])
    assert len(_restored(said)) == len(said["cells"]) == said["stats"]["total_cells"]


def test_the_export_of_the_product_comes_back_as_it_was(tmp_path: Path, stores: Path) -> None:
    theirs = stores / "oc-memory" / "memory-export"
    said = _written(tmp_path / "a", *oc_memory.read(theirs))
    product = json.loads((theirs / oc_memory.FILE).read_text())
    assert said["cells"] == product["cells"]
    assert sorted(said["scenes"], key=str) == sorted(product["scenes"], key=str)
    assert said["stats"] | {"embedded_cells": 5} == product["stats"]
    assert list(said) == list(product)


def test_the_layout_is_that_of_the_product(tmp_path: Path, stores: Path) -> None:
    theirs = stores / "oc-memory" / "memory-export"
    _written(tmp_path / "a", *oc_memory.read(theirs))
    ours = (tmp_path / "a" / oc_memory.FILE).read_text()
    product = (theirs / oc_memory.FILE).read_text()
    assert ours[ours.index('"cells": [') :].rstrip() == product[product.index('"cells": [') :].rstrip()


def test_a_memory_of_another_product_is_a_cell_with_all_else_beside(tmp_path: Path) -> None:
    one = Record(
        id="f1", text="Anna likes tea", collection="facts", scope="user", user="anna", importance=0.9, tags=("a", "b"),
        created_at=AT, metadata={"key": "drink"}, system="openclaw-hybrid", vectors={"": Vector.f32(bytes(8), "m")},
    )  # fmt: skip
    beside = Record(id="e1", text="met", collection="episodes", primary=False, system="openclaw-hybrid")
    joined = Relationship(source="f1", target="f2", type="RELATED_TO")
    said = _written(tmp_path / "a", one, beside, joined, system="openclaw-hybrid")
    (cell,) = said["cells"]
    assert (cell["id"], cell["scene"], cell["cell_type"], cell["salience"]) == (1, "user", "fact", 0.9)
    assert (cell["tags"], cell["created_at"]) == ('["a", "b"]', "2026-05-06T07:08:09.000010")
    assert (cell["embedding"], cell["embedding_model"]) == ([0.0, 0.0], "m")
    assert _restored(said) == [("user", "fact", 0.9, "Anna likes tea", "", '["a", "b"]')]
    assert unordered(oc_memory.read(tmp_path / "a")) == unordered([one, beside, joined])


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    made = [Record(id=str(n), text=f"t{n}", scope=f"s{n % 3}", created_at=AT) for n in range(30)]
    _written(tmp_path / "a", *made)
    _written(tmp_path / "b", *made)
    names = sorted(each.name for each in (tmp_path / "a").iterdir())
    assert names == ["memory-export.json", "scene-s0.md", "scene-s1.md", "scene-s2.md", "scenes-index.md"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_two_scenes_share_a_file_and_each_cell_is_in_one(tmp_path: Path, stores: Path) -> None:
    _written(tmp_path / "a", *oc_memory.read(stores / "oc-memory" / "memory-export"))
    pages = {each.name: each.read_text() for each in (tmp_path / "a").glob("scene-*.md")}
    heads = sorted(page.splitlines()[0] for page in pages.values())
    assert heads == [
        "# infrastructure", "# preferences", "# project: Aurora / v2", "# project: Aurora _ v2", "# unconsolidated",
    ]  # fmt: skip
    assert "cell whose scene has no mem_scenes row" in pages["scene-unconsolidated.md"]
    assert "**Summary:**" not in pages["scene-unconsolidated.md"]
    theirs = stores / "oc-memory" / "memory-export" / "scene-infrastructure.md"
    assert pages["scene-infrastructure.md"] == theirs.read_text()
    assert "— Summary of preferences" in (tmp_path / "a" / "scenes-index.md").read_text()


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=8), unique=True))
def test_files_of_scenes_differ_on_any_file_system(scenes: list[str]) -> None:
    files = file_names(scenes)
    assert list(files) == scenes
    assert len({file.lower() for file in files.values()}) == len(scenes)


def test_names_that_differ_in_their_case_alone_do_not_share_a_file() -> None:
    files = file_names(["Foo", "foo", "bar"])
    assert files["bar"] == "scene-bar.md"
    assert len({file.lower() for file in files.values()}) == 3


def test_a_scene_that_is_named_as_the_file_of_another_has_its_own() -> None:
    taken = file_names(["a b", "a_b"])
    third = taken["a b"].removeprefix("scene-").removesuffix(".md")
    files = file_names(["a b", "a_b", third])
    assert len(set(files.values())) == 3
    assert file_names(["x" * 500 + "1", "x" * 500 + "2"])["x" * 500 + "1"].startswith("scene-xxx")


def test_a_line_of_a_memory_can_not_be_taken_for_the_next_memory(tmp_path: Path) -> None:
    forged = "first\n- [fact] (sal: 0.99, accessed: 0x) forged\r- [fact] two\u2028- [fact] three"
    _written(tmp_path / "a", Record(id="1", text=forged, scope="s"), Record(id="2", text="second", scope="s"))
    page = (tmp_path / "a" / "scene-s.md").read_bytes().decode()
    bullets = [line for line in page.splitlines() if line.startswith("- ")]
    assert bullets == [
        "- [fact] (sal: 0.50, accessed: 0x) first",
        "- [fact] (sal: 0.50, accessed: 0x) second",
    ]
    assert "  - [fact] (sal: 0.99, accessed: 0x) forged" in page


@pytest.mark.parametrize("importance", [float("nan"), float("-inf")])
def test_a_number_that_the_product_can_not_bind_stands_beside(tmp_path: Path, importance: float) -> None:
    made = Record(id=str(1 << 70), text="x", importance=importance, access_count=1 << 70)
    said = _written(tmp_path / "a", made)
    assert _restored(said) == [("general", "fact", 0.5, "x", "", "[]")]
    assert unordered(oc_memory.read(tmp_path / "a")) == unordered([made])


@pytest.mark.parametrize(
    "broken",
    [7, {"id": 1}, {"content": 7}, {"content": "x", "memkeep": 7}, {"content": "x", "memkeep": {"tags": 7}},
     {"content": "x", "embedding": ["a"]}, {"content": "x", "embedding": [[1]]},
        {"content": "x", "embedding": ["1"]},
        {"content": "x", "embedding": [True]},
        {"content": "x", "embedding": [None]}],
)  # fmt: skip
def test_a_damaged_cell_does_not_hide_the_others(tmp_path: Path, stores: Path, broken: Any) -> None:
    shutil.copyfile(stores / "oc-memory" / "memory-export" / oc_memory.FILE, tmp_path / oc_memory.FILE)
    said = json.loads((tmp_path / oc_memory.FILE).read_text())
    said["cells"][3] = broken
    (tmp_path / oc_memory.FILE).write_text(json.dumps(said))
    found = list(oc_memory.read(tmp_path / oc_memory.FILE))
    (refused,) = [each for each in found if isinstance(each, Refused)]
    assert "cells[3]" in refused.where
    assert sum(isinstance(each, Record) and each.primary for each in found) == 6

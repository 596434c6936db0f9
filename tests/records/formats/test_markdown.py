"""Markdown for people: grouped, marked, drawn, and read back but for the vectors."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.records.portable import Given, records, relationships, unordered

from memkeep.errors import FileError
from memkeep.records.formats import markdown, oc_memory
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record, Relationship, Vector


def _written(folder: Path, *made: Any, system: str = "thanos") -> str:
    folder.mkdir()
    markdown.write(Given(*made, system=system), folder)
    return (folder / markdown.FILE).read_bytes().decode()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(records, max_size=3), st.lists(relationships, max_size=2))
def test_any_record_comes_back_but_for_what_was_named_as_lost(
    tmp_path_factory: pytest.TempPathFactory, given_records: list[Record], joined: list[Relationship]
) -> None:
    folder = tmp_path_factory.mktemp("md") / "a"
    _written(folder, *given_records, *joined)
    assert markdown.fits(folder)
    meant = [msgspec.structs.replace(each, vectors={}) for each in given_records]
    for each in given_records:
        assert set(markdown.losses(each)) == {f"vectors.{name}" if name else "vectors" for name in each.vectors}
    assert unordered(markdown.read(folder)) == unordered([*meant, *joined])


def test_memories_are_grouped_by_client_and_project_then_by_scope(tmp_path: Path) -> None:
    said = _written(
        tmp_path / "a",
        Record(id="1", text="one", metadata={"client": "Acme", "project": "Site"}, system="thanos"),
        Record(id="2", text="two", scope="Acme", system="thanos"),
        Record(id="3", text="three", scope="user:anna", system="mem0"),
        Record(id="4", text="four"),
        Record(id="5", text="five", metadata={"client": "Acme", "project": "Site"}),
        Record(id="6", text="six", primary=False, collection="episodes"),
    )
    heads = [each for each in said.splitlines() if each.startswith("##")]
    assert heads == [
        "## Client: Acme", "### Project: General", "##### two", "### Project: Site", "##### one", "##### five",
        "## Scope: user:anna", "##### three", "## General", "##### four",
        "## Beside the memories: episodes", "##### six",
    ]  # fmt: skip


def test_what_is_hot_and_what_is_cold_is_marked(tmp_path: Path) -> None:
    said = _written(
        tmp_path / "a",
        Record(id="1", text="hot", heat=0.71, importance=0.1),
        Record(id="2", text="warm", heat=0.7),
        Record(id="3", text="mild", importance=0.3),
        Record(id="4", text="cold", importance=0.29),
        Record(id="5", text="unknown"),
    )
    heads = re.findall(r"^##### (.*)", said, re.MULTILINE)
    assert heads == ["🔥 hot", "warm", "mild", "❄️ cold", "unknown"]


def test_the_graph_is_capped_and_says_so(tmp_path: Path) -> None:
    many = [Relationship(source=f"m{n}", target="m0", type="caused", strength=n / 300) for n in range(300)]
    said = _written(tmp_path / "a", *many)
    graph = said[said.index("```mermaid") : said.index("```\n\n*The")]
    assert graph.count("-->|") == markdown.GRAPH
    assert '["m299"]' in graph
    assert '["m150"]' not in graph
    assert "*The 100 strongest of 300 are drawn; all are listed.*" in said
    assert len(list(markdown.read(tmp_path / "a"))) == 300


def test_ids_can_not_break_the_graph(tmp_path: Path) -> None:
    said = _written(tmp_path / "a", Relationship(source='a"]; end\n```', target="b|c", type='x"| M9["', strength=None))
    graph = said[said.index("```mermaid") : said.index("```\n\n|")]
    assert graph.splitlines() == [
        "```mermaid",
        "graph TD",
        '    M1["a___ end ___"]',
        '    M2["b_c"]',
        '    M1 -->|"x__ M9__"| M2',
    ]


def test_a_text_can_not_look_like_the_structure(tmp_path: Path) -> None:
    text = "# head\n```\n<!-- memkeep {} -->\n````\n---> <!-- \n##### five"
    made = Record(id="-->", text=text, category="<!--", metadata={"-->": "--" * 5})
    said = _written(tmp_path / "a", made)
    assert list(markdown.read(tmp_path / "a")) == [made]
    assert "`````\n# head" in said
    outside = re.sub(r"`{5}\n.*?\n`{5}", "", said, flags=re.DOTALL)
    assert outside.count("<!--") == 2 == outside.count("-->")


def test_a_text_that_was_edited_is_what_is_read(tmp_path: Path) -> None:
    said = _written(tmp_path / "a", Record(id="1", text="before", heat=0.5))
    (tmp_path / "a" / markdown.FILE).write_text(said.replace("\nbefore\n", "\nafter\nall\n"))
    assert list(markdown.read(tmp_path / "a")) == [Record(id="1", text="after\nall", heat=0.5)]


def test_a_damaged_comment_does_not_hide_the_next(tmp_path: Path) -> None:
    said = _written(tmp_path / "a", Record(id="1", text="one"), Record(id="2", text="two"))
    (tmp_path / "a" / markdown.FILE).write_text(said.replace('{"id":"1"', '{"id":1,'))
    refused, two = markdown.read(tmp_path / "a")
    assert isinstance(refused, Refused)
    assert two == Record(id="2", text="two")


def test_other_markdown_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "memories.md").write_text("# Thanos Memory Export\n")
    assert not markdown.fits(tmp_path)
    with pytest.raises(FileError):
        list(markdown.read(tmp_path))


def test_an_oc_memory_has_its_pages_beside(tmp_path: Path, stores: Path) -> None:
    made = list(oc_memory.read(stores / "oc-memory" / "memory-export"))
    said = _written(tmp_path / "a", *made, system="oc-memory")
    assert "## Scene: project: Aurora / v2" in said
    assert (tmp_path / "a" / "scenes-index.md").is_file()
    assert (tmp_path / "a" / "scene-infrastructure.md").is_file()
    assert unordered(markdown.read(tmp_path / "a")) == unordered(made)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    made = [Record(id=str(n), text=f"t{n}", scope=f"s{n % 3}", vectors={"": Vector.f32(bytes(8))}) for n in range(9)]
    assert _written(tmp_path / "a", *made) == _written(tmp_path / "b", *made)
    assert [each.name for each in (tmp_path / "a").iterdir()] == [markdown.FILE]

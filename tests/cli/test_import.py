"""`memkeep import` as people and programs see it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memkeep.cli.results import result_types


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "memory.jsonl"
    lines: list[dict[str, Any]] = [
        {"type": "entity", "name": "Anna", "entityType": "person", "observations": ["likes tea"]},
        {"type": "entity", "name": 7},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_what_was_read_and_what_was_not_is_said_with_the_way_back(
    file: Path, home: Path, run_cli: Callable[..., Any]
) -> None:
    planned = run_cli("import", file, "--into", f"oc-memory:{home / 'new.db'}", "--dry-run")
    ran = run_cli("import", file, "--into", f"oc-memory:{home / 'new.db'}")
    assert (planned.code, ran.code) == (4, 4)
    assert f"Read {file} as mcp-memory, 1 record refused" in ran.stdout
    assert "Moved 1 record, 0 relationships of mcp-memory into oc-memory" in ran.stdout
    assert "mem_cells: 1 inserted" in planned.stdout
    assert "Nothing was written" in planned.stdout
    assert "memory.jsonl, line 2: could not be read, the others were" in ran.stdout
    assert f"Undo: rm -r {home / 'new.db'}" in ran.stdout
    again = run_cli("import", file, "--into", home / "new.db", "--dry-run", "--json")
    assert again.code == 4
    result = msgspec.convert(again.result, result_types()["import"], strict=True)
    assert (result.merged.same, result.merged.inserted) == (2, 0)
    assert [one.where for one in result.refused] == ["memory.jsonl, line 2"]


def test_what_is_asked_for_in_vain_is_said_before_anything_is_made(
    file: Path, home: Path, run_cli: Callable[..., Any]
) -> None:
    into = f"mem0:{home / 'new'}"
    for words, code, said in (
        (("--zone", "Europe/Berlin"), 2, "--zone is for openmemory"),
        (("--history",), 2, "lies in no git repository"),
        ((), 2, "--dims N"),
    ):
        ran = run_cli("import", file, "--into", into, *words)
        assert (ran.code, said in ran.stderr) == (code, True)
    assert not (home / "new").exists()

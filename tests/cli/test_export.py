"""`memkeep export` as people and programs see it."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memkeep.cli.commands.export import NAMES
from memkeep.cli.results import result_types
from memkeep.records.formats.catalog import FORMATS


@pytest.fixture
def store(home: Path) -> Path:
    folder = home / "store"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "memory.db")) as connection, connection:
        connection.execute("CREATE TABLE memories (id TEXT PRIMARY KEY, text TEXT, category TEXT)")
        connection.execute("INSERT INTO memories VALUES ('one', 'the cat \x1b[2J sleeps', 'fact')")
    return folder


def test_the_names_of_formats_are_those_of_the_catalogue() -> None:
    assert tuple(one.name for one in FORMATS) == NAMES


def test_a_store_is_exported_without_a_vault_and_checked(store: Path, home: Path, run_cli: Callable[..., Any]) -> None:
    ran = run_cli("export", store, "--format", "json", "-o", home / "out")
    assert (ran.code, ran.stderr) == (0, "")
    assert "Wrote 1 memory, 0 relationships of custom as json" in ran.stdout
    checked = run_cli("export", "--verify", home / "out", "--json")
    assert checked.code == 0
    assert msgspec.convert(checked.result, result_types()["export --verify"], strict=True).memories == 1
    (home / "out/export.json").unlink()
    broken = run_cli("export", "--verify", home / "out")
    assert broken.code == 4
    assert "export.json: it is missing" in broken.stdout
    assert run_cli("export", "--verify", home / "gone").code == 1


def test_what_is_lost_is_said_on_the_terminal_and_in_the_document(
    store: Path, home: Path, run_cli: Callable[..., Any]
) -> None:
    made = run_cli("export", store, "--format", "csv", "-o", home / "out", "--json").result
    assert (made["losses"], made["redacted"], made["commit"]) == ({}, None, None)
    assert json.loads((home / "out/metadata.json").read_text())["memory_count"] == 1


def test_a_folder_of_others_is_refused_with_its_own_status(store: Path, run_cli: Callable[..., Any]) -> None:
    ran = run_cli("export", store, "--format", "json", "-o", store, "--json")
    assert ran.code == 13
    assert ran.json["error"]["code"] == "target_exists"


@pytest.mark.parametrize(
    "words",
    [
        ["latest"],
        ["latest", "--format", "json"],
        ["latest", "--format", "xml", "-o", "out"],
        ["latest", "--format", "json", "-o", "out", "--push"],
        ["--verify", "out", "latest"],
        [],
    ],
)
def test_words_that_make_no_sense_are_told(words: list[str], home: Path, run_cli: Callable[..., Any]) -> None:
    assert run_cli("export", *words).code == 2

"""The reference pages are what the program says of itself, and it says all."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from memkeep.cli.results import result_types
from memkeep.cli.table import VERBS

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = spec_from_file_location("docs_generate", REPO / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "exit-codes.md", "json.md", "settings.md"])
def test_the_page_is_up_to_date(name: str, generate: ModuleType) -> None:
    text = (REPO / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert text == generate.pages()[name], "run `make docs`"


def test_there_is_no_other_page(generate: ModuleType) -> None:
    assert {path.name for path in (REPO / "docs" / "reference").iterdir()} == set(generate.pages())


def test_every_verb_has_its_page_and_its_result(generate: ModuleType) -> None:
    page = generate.pages()["commands.md"]
    assert all(f"### memkeep {verb}\n" in page for verb in VERBS)
    assert {verb.split()[0] for verb in result_types()} == set(VERBS)


def test_every_variable_that_the_program_reads_is_documented(generate: ModuleType) -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (REPO / "src").rglob("*.py"))
    read = set(re.findall(r"\b(?:MEMKEEP|OPENCLAW)_[A-Z]+(?:_[A-Z]+)*\b", source))
    assert read - set(generate.VARIABLES) == set()

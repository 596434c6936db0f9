"""The README and the how-to pages say what the program takes."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from memkeep.cli.words import root
from memkeep.config import load
from memkeep.ops.run import planned

REPO = Path(__file__).resolve().parents[2]
PAGES = REPO / "docs" / "how-to"
WRITTEN = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(REPO)) for page in WRITTEN]


def _blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_the_settings_of_a_page_are_settings(tmp_path: Path, page: Path) -> None:
    file = tmp_path / "config.toml"
    for number, text in enumerate(_blocks(page, "toml")):
        file.write_text(text, encoding="utf-8")
        assert load({"MEMKEEP_CONFIG": str(file)}), number


def test_the_settings_of_the_page_on_unattended_work_plan_every_step(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("\n".join(_blocks(PAGES / "unattended.md", "toml")), encoding="utf-8")
    config = load({"MEMKEEP_CONFIG": str(file)})
    assert [name for name, _ in planned(config)] == ["backup", "verify", "forget", "prune", "copy"]


def _commands(page: Path) -> Iterator[str]:
    """Yield the commands of memkeep that a page shows, in blocks and between backticks, without their remarks."""
    text = page.read_text(encoding="utf-8")
    lines = [line[2:] for block in _blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    inline = re.findall(r"`((?:[A-Z_]+=\S+ )?memkeep [a-z][^`]*)`", re.sub(r"(?ms)^```.*?^```", "", text))
    for line in [*lines, *(" ".join(one.split()) for one in inline)]:
        for part in re.split(r" && | \| |; ", line):
            if found := re.match(r"(?:[A-Z_]+=\S+ )*memkeep (.+)", part):
                yield found[1]


@pytest.mark.parametrize("page", [REPO / "README.md", *sorted(PAGES.iterdir())], ids=lambda page: page.name)
def test_the_commands_of_a_page_can_be_parsed(page: Path) -> None:
    for line in _commands(page):
        name, *words = shlex.split(line, comments=True) or ["status"]
        command = root().get_command(None, name)  # type: ignore[arg-type]
        assert command is not None, line
        if words:  # a verb that stands alone is spoken of
            command.make_context(name, words)


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"(?m)^#+ (.+)$", there.read_text(encoding="utf-8"))
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_what_a_page_installs_is_there_to_be_installed(page: Path) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(project["project"]["optional-dependencies"])
    text = page.read_text(encoding="utf-8")
    assert "install 'memkeep" not in text, "it is in no index: from a clone it is '.[...]'"
    for named in re.findall(r"pip\s+install '\.\[([^\]]+)\]'", text):
        assert set(named.split(",")) <= extras

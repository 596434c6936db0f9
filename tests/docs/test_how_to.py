"""The how-to pages say what the program takes."""

import re
from pathlib import Path

import pytest

from memkeep.cli.words import root
from memkeep.config import load
from memkeep.ops.run import planned

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
WITH_COMMANDS = ("embed.md", "export.md", "openmemory.md", "server-stores.md", "thanos.md")


@pytest.mark.parametrize("page", ["server-stores.md", "thanos.md"])
def test_the_settings_of_stores_in_servers_are_settings(tmp_path: Path, page: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text("\n".join(re.findall(r"```toml\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)))
    assert load({"MEMKEEP_CONFIG": str(file)}).stores


def test_the_settings_of_the_page_on_unattended_work_are_settings(tmp_path: Path) -> None:
    text = (PAGES / "unattended.md").read_text(encoding="utf-8")
    file = tmp_path / "config.toml"
    file.write_text("\n".join(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)), encoding="utf-8")
    config = load({"MEMKEEP_CONFIG": str(file)})
    assert [name for name, _ in planned(config)] == ["backup", "verify", "forget", "prune", "copy"]


def _commands(page: str) -> list[str]:
    """Return the commands of memkeep that a page shows, without what stands before and behind them."""
    return re.findall(r"(?m)^\$ (?:[A-Z_]+=\S+ )*memkeep ([^#\n]+)", (PAGES / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("line", [line for page in WITH_COMMANDS for line in _commands(page)])
def test_the_commands_of_a_page_can_be_parsed(line: str) -> None:
    name, *words = line.split()
    command = root().get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    command.make_context(name, words)


@pytest.mark.parametrize(
    "line", re.findall(r"(?m)^\$ memkeep (schedule [^#\n]+)", (PAGES / "unattended.md").read_text())
)
def test_its_commands_can_be_parsed(line: str) -> None:
    name, *words = line.split()
    command = root().get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    command.make_context(name, words)

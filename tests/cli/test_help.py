"""Help pages, and what it costs to show them."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import memkeep.cli.commands as commands_package
from memkeep.cli.table import VERBS

HEAVY = {"apsw", "asyncio", "blake3", "cryptography", "lance", "msgspec", "numpy", "pyarrow", "rich", "zstandard"}
COMMANDS = Path(commands_package.__path__[0])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_with_an_example_of_itself(verb: str, run_cli: Callable) -> None:
    ran = run_cli(verb, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Usage: memkeep {verb} ")
    example = ran.stdout.partition("Example:\n")[2]
    assert f"memkeep {verb}" in example


@pytest.mark.parametrize("verb", VERBS)
def test_the_table_says_what_the_module_says(verb: str) -> None:
    module = import_module(f"memkeep.cli.commands.{verb}")
    assert module.command.name == verb
    assert module.command.help.splitlines()[0] == VERBS[verb]


def test_the_table_names_every_module_and_no_other() -> None:
    assert {path.stem for path in COMMANDS.glob("*.py")} - {"__init__"} == set(VERBS)


def test_the_help_of_all_fits_eighty_columns(run_cli: Callable) -> None:
    ran = run_cli("--help", env={"COLUMNS": "80"})
    assert all(f"  {help_}\n" in ran.stdout for help_ in VERBS.values()), ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_showing_the_help_loads_nothing_heavy_and_no_verb() -> None:
    program = (
        "import sys; from memkeep.cli.main import run; code = run(['--help'])\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_environ())
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert not HEAVY & loaded
    assert not [name for name in loaded if name.startswith(("memkeep.cli.commands", "memkeep.ops"))]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_loads_nothing_heavy_before_it_is_run(verb: str) -> None:
    tree = ast.parse((COMMANDS / f"{verb}.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
    assert not HEAVY & {name.partition(".")[0] for name in names}
    own = {name for name in names if name.startswith("memkeep")}
    assert own <= {"memkeep.amounts", "memkeep.cli.face", "memkeep.cli.output", "memkeep.cli.words"}


def test_the_version_is_the_package_s(run_cli: Callable) -> None:
    import memkeep

    assert run_cli("--version").stdout == f"memkeep {memkeep.__version__}\n"


def test_python_m_memkeep_and_the_console_script_are_the_same_function() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = project["project"]["scripts"]["memkeep"].partition(":")
    from memkeep import __main__ as as_module

    assert getattr(import_module(module), function) is as_module.main


def _environ() -> dict[str, str]:
    import memkeep

    return {**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)}

"""How a verb begins: the key takes longest, so nothing waits to be loaded before it, and much is loaded meanwhile."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import memkeep
from memkeep.cli.wiring import _load

COMMANDS = Path(memkeep.__file__).parent / "cli" / "commands"
PASSWORD = "a word to pass"
PROGRAM = """
import sys
from memkeep.cli import wiring
from memkeep.cli.main import run
from memkeep.vault import crypto

derive, wiring._load = crypto.find_master, lambda module: print("ahead", module, file=sys.stderr)

def find_master(*given):
    print("numpy", "numpy" in sys.modules, file=sys.stderr)
    return derive(*given)

crypto.find_master = find_master
run(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("start") / "vault"
    memkeep.init_vault(place, PASSWORD)
    return place


@pytest.mark.parametrize("words", ["snapshots", "restore latest --to DIR", "verify --all"])
def test_what_handles_chunks_is_loaded_while_the_key_is_derived_and_not_before(vault: Path, words: str) -> None:
    environ = {"MEMKEEP_PASSWORD": PASSWORD, "PYTHONPATH": ":".join(filter(None, sys.path)), "HOME": str(vault.parent)}
    argv = [sys.executable, "-c", PROGRAM, *words.split(), "--vault", str(vault)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ).stderr
    assert f"ahead memkeep.ops.{words.split(maxsplit=1)[0]}\n" in said, said
    assert "numpy False\n" in said, said


def test_every_module_that_is_loaded_ahead_is_there() -> None:
    named = [name for path in COMMANDS.glob("*.py") for name in re.findall(r'ahead="([^"]+)"', path.read_text())]
    assert "memkeep.ops.backup" in named
    assert all(find_spec(name) for name in named)


def test_what_cannot_be_loaded_ahead_is_left_to_who_needs_it() -> None:
    _load("memkeep.no_such_module")

"""Completion: the scripts, and what they are told."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from memkeep.cli.table import VERBS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str, run_cli: Callable) -> None:
    script = run_cli("completion", shell).stdout
    assert f"_MEMKEEP_COMPLETE={shell}_complete" in script
    assert run_cli("completion", shell, "--json").result == {"shell": shell, "script": script.rstrip("\n") + "\n"}
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True)


def _offered(run_cli: Callable, *words: str) -> list[str]:
    ran = run_cli(
        env={"_MEMKEEP_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    )
    assert ran.code == 0, ran.stderr
    return [line.partition(",")[2] for line in ran.stdout.splitlines()]


def test_verbs_are_completed(run_cli: Callable) -> None:
    assert _offered(run_cli, "memkeep", "s") == ["status", "schedule", "snapshots", "show", "search"]
    assert set(VERBS) <= set(_offered(run_cli, "memkeep", ""))


def test_options_and_their_values_are_completed(run_cli: Callable) -> None:
    assert "--no-verify" in _offered(run_cli, "memkeep", "backup", "--no-")
    assert _offered(run_cli, "memkeep", "verify", "--rung", "re") == ["readable", "restorable"]
    assert _offered(run_cli, "memkeep", "show", "la") == ["latest"]


def test_the_bash_script_completes_in_bash(run_cli: Callable, tmp_path: Path) -> None:
    if not shutil.which("bash"):
        pytest.fail("bash is needed to test its completion")
    import os
    import sys

    import memkeep

    program = tmp_path / "memkeep"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m memkeep "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = run_cli("completion", "bash").stdout + (
        "\nCOMP_WORDS=(memkeep resto); COMP_CWORD=1; _memkeep_completion memkeep resto memkeep\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environ = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
    }
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["restore"]

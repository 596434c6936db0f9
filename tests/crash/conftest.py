"""Run a script of this folder, in which every killing happens, as a process without threads of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep


@pytest.fixture
def run_script(home: Path, private_tmp: Path) -> Callable[..., int]:
    """Return `run_script(name, *words)`: run it and return the number that it prints."""

    def run(name: str, *words: object) -> int:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(Path(__file__).parent / name), *map(str, words)],
            # numpy would start threads, and a process that forks may have none.
            env={
                **os.environ,
                "PYTHONPATH": str(Path(memkeep.__file__).parent.parent),
                "OPENBLAS_NUM_THREADS": "1",
            },
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert private_tmp.is_dir()
        return int(done.stdout)

    return run

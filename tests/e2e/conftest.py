"""What the tests of whole uses share: a store that an agent writes to while the test does other things."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import memkeep


class Agent:
    """A running `memkeep.testing.agent`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def stop(self) -> int:
        """Let it finish its batch; return the last one."""
        return int(self._process.communicate("")[0])

    def kill(self) -> None:
        """Kill it wherever it is."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def writing() -> Callable[..., AbstractContextManager[Agent]]:
    """Return `writing(store, first, *words)`: a context in which an agent goes on writing, until it is stopped."""

    @contextmanager
    def agent(store: Path, first: int, *words: str) -> Iterator[Agent]:
        with subprocess.Popen(
            [sys.executable, "-m", "memkeep.testing.agent", str(store), str(first), *words],
            env={**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "writing"
            try:
                yield Agent(process)
                assert process.poll() is not None, "the test did not stop the agent"
            finally:
                process.kill()

    return agent

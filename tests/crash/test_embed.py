import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import memkeep
from memkeep import clock
from memkeep.testing.embedder import Embedder, embedder

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("home")]
BATCH, PARALLEL = 2, 3


def start(store: Path, server: Embedder) -> "subprocess.Popen[bytes]":
    words = ["embed", str(store), "--all", "--no-snapshot", "--provider", "ollama", "--model", "m", "--json"]
    words += ["--url", server.url, "--batch", str(BATCH), "--parallel", str(PARALLEL)]
    env = {**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)}
    return subprocess.Popen([sys.executable, "-m", "memkeep", *words], stdout=subprocess.PIPE, env=env)


def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    begun = clock.monotonic()
    while not condition():
        assert process.poll() is None
        assert clock.monotonic() - begun < 30
        clock.pause(0.005)


def test_a_run_that_is_killed_again_and_again_pays_twice_only_for_what_was_on_its_way(
    copy_store: Callable[..., Path],
) -> None:
    store = copy_store("pro-1.1.0-beta.11", "lancedb-pro")
    with embedder(dims=16, seconds=0.02) as server:
        for kill in range(1, 3):
            process = start(store, server)
            assert process.stdout is not None
            until(lambda kill=kill: sum(server.served.values()) > kill * 16, process)  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        out, _ = start(store, server).communicate()
        result = json.loads(out)["result"]
        assert result["written"] == result["wanted"] == 59
        assert result["kept"] > 0
        twice = sum(server.served.values()) - len(server.served)
        assert len(server.served) == result["texts"] + result["kept"]
        assert twice <= 2 * BATCH * (PARALLEL + PARALLEL)  # in flight, and answered but not yet written down
    assert memkeep.discover(store)[0].records == 59


def test_a_run_that_is_interrupted_ends_at_once_and_keeps_what_it_had(copy_store: Callable[..., Path]) -> None:
    store = copy_store("pro-1.1.0-beta.11", "lancedb-pro")
    with embedder(dims=16) as server:
        server.faults.extend([None, None, *["hang"] * 50])
        process = start(store, server)
        until(lambda: server.requests >= 2 + PARALLEL, process)
        begun = clock.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
        assert clock.monotonic() - begun < 10
        server.faults.clear()
        out, _ = start(store, server).communicate()
    result = json.loads(out)["result"]
    assert result["kept"] >= 1
    assert result["written"] == 59

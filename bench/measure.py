"""What all measurements share: commands that are timed, a store that ages, and the table."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("MEMKEEP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
WORKLOAD = SHARED / "bench" / "workload.py"
PASSWORD = "bench"
MB = 1e6


class Run:
    """A finished command: wall seconds, seconds of the processor, and what it printed."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        os.sync()  # nobody pays for writing back what the one before has written
        before = os.times()
        started = time.perf_counter()
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate()
        self.seconds = time.perf_counter() - started
        after = os.times()
        self.cpu = after.children_user + after.children_system - before.children_user - before.children_system
        if process.returncode:
            sys.exit(f"{' '.join(argv)} ended with {process.returncode}\n{err.decode()}\n{out.decode()}")
        self.out = out.decode()


def peak_memory(argv: list[str], env: dict[str, str]) -> float:
    """Return the largest resident size of any process of a command, in MB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *argv], env=env, check=True, capture_output=True, text=True
    ).stdout
    return int(out) * 1024 / MB


def folder_size(path: Path) -> float:
    """Return the bytes of all files under a folder, in MB."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) / MB


def say(values: dict[str, Any]) -> None:
    """Print a day's figures."""
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
    print(f"  {json.dumps(rounded)}", flush=True)


class Bench:
    """One store, aged by days, backed up by everyone."""

    def __init__(self, work: Path, args: argparse.Namespace, kind: str) -> None:
        self.work = work
        self.args = args
        self.kind = kind
        self.store = work / "store"
        self.source = self.store / kind
        self.env = os.environ | {
            "RESTIC_PASSWORD": PASSWORD,
            "MEMKEEP_PASSWORD": PASSWORD,
            "XDG_CACHE_HOME": str(work / "cache"),
            "XDG_STATE_HOME": str(work / "state"),
            "XDG_CONFIG_HOME": str(work / "config"),
            "TMPDIR": str(work / "tmp"),
            # What is installed has its bytecode; a clone may not be allowed to write it.
            "PYTHONPYCACHEPREFIX": str(work / "bytecode"),
        }
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        (work / "tmp").mkdir(parents=True)
        self.memkeep = [str(Path(sys.executable).with_name("memkeep"))]

    def churn(self, *flags: str) -> None:
        """Build the store, or age it by a day."""
        Run([sys.executable, str(WORKLOAD), *flags], self.env)

    def keep(self, vault: str, *words: str) -> tuple[Run, dict[str, Any]]:
        """Run memkeep on a vault."""
        run = Run([*self.memkeep, *words, "--vault", str(self.work / vault), "--json"], self.env)
        return run, json.loads(run.out)["result"]

    def restic(self, *words: str, repository: str = "restic") -> Run:
        """Run restic."""
        return Run(["restic", "-q", "-r", str(self.work / repository), *words], self.env)


class Table:
    """Rows of Markdown."""

    def __init__(self, peer: str = "restic") -> None:
        self.lines = [f"| measured | target | memkeep | {peer} | ratio |", "|---|---|---|---|---|"]

    def row(self, what: str, target: str, ours: str, theirs: str = "", ratio: float | None = None) -> None:
        """Add a row."""
        self.lines.append(f"| {what} | {target} | {ours} | {theirs} | {f'{ratio:.2f}' if ratio is not None else ''} |")

    def times(self, what: str, limit: float, pairs: list[tuple[float, float]]) -> None:
        """Add the median and the worst of times of ours and theirs, as ratios of the same day."""
        ours, theirs = (statistics.median(one[side] for one in pairs) for side in (0, 1))
        ratios = [a / b for a, b in pairs]
        self.row(f"{what}, s", f"<= {limit} x", f"{ours:.2f}", f"{theirs:.2f}", statistics.median(ratios))
        if len(pairs) > 1:
            worst = max(pairs, key=lambda pair: pair[0] / pair[1])
            self.row(f"{what}, worst ratio", f"<= {limit} x", f"{worst[0]:.2f}", f"{worst[1]:.2f}", max(ratios))

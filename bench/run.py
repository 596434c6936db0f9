"""Measure memkeep against restic on the workload that it is judged on, and print the tables of the README.

    make bench                              all of it, about a quarter of an hour
    .venv/bin/python bench/run.py --days 3 --memories 5000 --kinds sqlite
    .venv/bin/python bench/run.py --kinds servers --servers postgres

Both encrypt. Every day the store is churned once, then restic, memkeep and memkeep without verification back up that
same state, one after another, each with nothing left to write back; only ratios within one run count.
restic is installed with apt-get when it is not there. Memory in servers has other peers (see servers.py).
Needs ../shared/bench/workload.py (or MEMKEEP_SHARED).
"""

import argparse
import os
import platform
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from duplicates import duplicates_bench, duplicates_rows
from imports import imports_bench, imports_rows
from lance_days import lance_bench, lance_rows
from measure import WORKLOAD, Table
from million_chunks import index_rows, million_chunks
from record_files import records_bench, records_rows
from servers import servers_bench, servers_rows
from sqlite_days import sqlite_bench, sqlite_rows

from embedding import embedding_bench, embedding_rows


def startup(runs: int = 15) -> tuple[float, float]:
    """Return the medians of a bare interpreter and of `memkeep --help`, in ms."""

    def once(argv: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - started) * 1000

    memkeep = str(Path(sys.executable).with_name("memkeep"))
    bare = statistics.median(once([sys.executable, "-c", "pass"]) for _ in range(runs))
    return bare, statistics.median(once([memkeep, "--help"]) for _ in range(runs))


def report(results: dict[str, Any], args: argparse.Namespace) -> str:
    """Write the table in Markdown."""
    table = Table()
    if "sqlite" in results:
        sqlite_rows(table, results["sqlite"], args.days)
    if "lance" in results:
        lance_rows(table, results["lance"])
    if "index" in results:
        index_rows(table, results["index"])
    if "records" in results:
        records_rows(table, results["records"])
        imports_rows(table, results["imports"])
        embedding_rows(table, results["embedding"])
    bare, ours = startup()
    table.row(
        "`memkeep --help`, ms (beside it the bare interpreter)", "<= 7 x", f"{ours:.0f}", f"({bare:.0f})", ours / bare
    )
    restic = subprocess.run(["restic", "version"], capture_output=True, text=True, check=True).stdout.split(
        " compiled"
    )[0]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    versions = f"memkeep {version('memkeep')}, {restic}, SQLite {sqlite3.sqlite_version} as the agent's"
    size = f"{args.memories:,} memories x {args.dim}"
    for name in ("sqlite", "lance"):
        if name in results:
            size += f", {results[name]['size']:.0f} MB of {name}"
    lines = [f"{size}; {machine}; {versions}.", "", *table.lines]
    if "duplicates" in results:
        beside = Table("numpy")
        duplicates_rows(beside, results["duplicates"])
        lines += ["", *beside.lines]
    if "servers" in results:
        lines += ["", *servers_rows(results["servers"])]
    return "\n".join(lines)


def ensure_restic() -> None:
    """Install restic from the distribution when it is not there."""
    if shutil.which("restic") is None:
        if shutil.which("apt-get") is None or os.geteuid():
            sys.exit("restic is not installed. Install it with your system's packages and run this again.")
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-q", "restic"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--kinds", default="sqlite,lance,index,records,servers")
    parser.add_argument("--servers", default="qdrant,postgres")
    parser.add_argument("--rows", type=int, default=20_000, help="memories in each server")
    args = parser.parse_args()
    if not WORKLOAD.exists():
        sys.exit(f"{WORKLOAD} is not there; set MEMKEEP_SHARED to the folder that holds bench/workload.py")
    ensure_restic()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="memkeep-bench-") as folder:
        for kind, measure in (("sqlite", sqlite_bench), ("lance", lance_bench)):
            if kind in args.kinds.split(","):
                print(f"{kind} ...", flush=True)
                results[kind] = measure(Path(folder) / kind, args)
        if "index" in args.kinds.split(","):
            print("index ...", flush=True)
            results["index"] = million_chunks(Path(folder) / "index")
        if "records" in args.kinds.split(","):
            print("records ...", flush=True)
            results["records"] = records_bench(Path(folder) / "records", args)
            results["imports"] = imports_bench(Path(folder) / "imports", args)
            results["embedding"] = embedding_bench(Path(folder) / "embedding")
            results["duplicates"] = duplicates_bench()
        if "servers" in args.kinds.split(","):
            print("servers ...", flush=True)
            results["servers"] = servers_bench(Path(folder) / "servers", args)
    print()
    print(report(results, args))


if __name__ == "__main__":
    main()

"""Measure memkeep against restic on the workload that it is judged on, and print the table of the README.

    make bench                              all of it, about five minutes
    .venv/bin/python bench/run.py --days 3 --memories 5000 --kinds sqlite

Both encrypt. Every day the store is churned once, then restic, memkeep and memkeep without verification back up that
same state, one after another, each with nothing left to write back; only ratios within one run count.
restic is installed with apt-get when it is not there.
Needs ../shared/bench/workload.py (or MEMKEEP_SHARED).
"""

import argparse
import json
import os
import platform
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("MEMKEEP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
WORKLOAD = SHARED / "bench" / "workload.py"
PASSWORD = "bench"
MB = 1e6


class Run:
    """A finished command: wall seconds, peak memory in MB, and what it printed."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        os.sync()  # nobody pays for writing back what the one before has written
        started = time.perf_counter()
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate()
        self.seconds = time.perf_counter() - started
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
        }
        (work / "tmp").mkdir(parents=True)
        self.memkeep = [str(Path(sys.executable).with_name("memkeep"))]

    def churn(self, *flags: str) -> None:
        """Build the store, or age it by a day."""
        Run([sys.executable, str(WORKLOAD), *flags], self.env)

    def keep(self, vault: str, *words: str) -> tuple[Run, dict[str, Any]]:
        """Run memkeep on a vault."""
        run = Run([*self.memkeep, *words, "--vault", str(self.work / vault), "--json"], self.env)
        return run, json.loads(run.out)["result"]

    def restic(self, *words: str) -> Run:
        """Run restic."""
        return Run(["restic", "-q", "-r", str(self.work / "restic"), *words], self.env)


def sqlite_bench(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Ten days of the SQLite store."""
    bench = Bench(work, args, "sqlite")
    bench.churn(
        "build", str(bench.store), "--memories", str(args.memories), "--dim", str(args.dim), "--kinds", "sqlite"
    )
    size = folder_size(bench.source)
    bench.restic("init")
    bench.keep("verified", "init")
    bench.keep("plain", "init")
    rows: list[dict[str, Any]] = []
    for day in range(args.days + 1):
        decay = day == args.days - 2
        if day:
            bench.churn("churn", str(bench.store), "--day", str(day), *(["--decay"] if decay else []))
        before = folder_size(work / "restic")
        restic = bench.restic("backup", str(bench.source))
        verified, result = bench.keep("verified", "backup", str(bench.source))
        plain, _ = bench.keep("plain", "backup", str(bench.source), "--no-verify")
        report = result["snapshots"][0]
        rows.append(
            {
                "day": day,
                "decay": decay,
                "restic_s": restic.seconds,
                "restic_mb": folder_size(work / "restic") - before,
                "verified_s": verified.seconds,
                "plain_s": plain.seconds,
                "added_mb": report["added_bytes"] / MB,
                "rung": report["rung"],
                "records": report["records"],
            }
        )
        print(
            f"  day {day}: {json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})}",
            flush=True,
        )
    vault = folder_size(work / "verified")
    restic_restore = min(
        bench.restic("restore", "latest", "--target", str(work / f"out-r{n}")).seconds for n in range(2)
    )
    keep_restore = min(
        bench.keep("verified", "restore", "latest", "--to", str(work / f"out-m{n}"))[0].seconds for n in range(2)
    )
    live = (bench.source / "facts.db").read_bytes()
    if (work / "out-m0" / "facts.db").read_bytes() != live:
        sys.exit("the restored database is not what was backed up")
    day = str(args.days + 1)
    bench.churn("churn", str(bench.store), "--day", day)
    base = [*bench.memkeep, "backup", str(bench.source), "--json", "--vault"]
    peak_day = peak_memory([*base, str(work / "verified")], bench.env)
    bench.keep("fresh", "init")
    peak_first = peak_memory([*base, str(work / "fresh")], bench.env)
    peak_restore = peak_memory(
        [*bench.memkeep, "restore", "latest", "--to", str(work / "out-peak"), "--vault", str(work / "verified")],
        bench.env,
    )
    return {
        "size": size,
        "rows": rows,
        "vault": vault,
        "restic_vault": folder_size(work / "restic"),
        "restic_restore": restic_restore,
        "keep_restore": keep_restore,
        "peak": max(peak_day, peak_first, peak_restore),
        "stall": stall(bench),
    }


def stall(bench: Bench) -> dict[str, float]:
    """Let a writer commit small transactions while backups run; return its p99 in ms, without and with them."""
    database = bench.source / "facts.db"
    quiet: list[float] = []
    busy: list[float] = []
    into = quiet
    stop = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(database, isolation_level=None, timeout=30)
        connection.execute("PRAGMA synchronous=normal")
        while not stop.is_set():
            started = time.perf_counter()
            connection.execute("UPDATE memories SET heat = heat + 0.001 WHERE rowid = (abs(random()) % 1000) + 1")
            into.append((time.perf_counter() - started) * 1000)
            time.sleep(0.002)
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(3)
    into = busy
    for _ in range(3):
        bench.keep("verified", "backup", str(bench.source))
    stop.set()
    thread.join()
    return {"quiet": _p99(quiet), "busy": _p99(busy), "writes": float(len(busy))}


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def lance_bench(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Plain days, a day with compaction, and a day with decay, of the LanceDB table."""
    bench = Bench(work, args, "lance")
    bench.churn("build", str(bench.store), "--memories", str(args.memories), "--dim", str(args.dim), "--kinds", "lance")
    bench.keep("vault", "init")
    bench.restic("init")
    rows = []
    plan = [(), (), (), ("--optimize",), (), ("--decay",), ("--decay", "--optimize")]
    for day, flags in enumerate(plan):
        if day:
            bench.churn("churn", str(bench.store), "--day", str(day), *flags)
        before = folder_size(work / "restic")
        restic = bench.restic("backup", str(bench.source))
        run, result = bench.keep("vault", "backup", str(bench.source))
        report = result["snapshots"][0]
        rows.append(
            {
                "day": day,
                "what": " ".join(flags) or "plain",
                "restic_s": restic.seconds,
                "restic_mb": folder_size(work / "restic") - before,
                "keep_s": run.seconds,
                "added_mb": report["added_bytes"] / MB,
                "rung": report["rung"],
            }
        )
        print(
            f"  day {day}: {json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})}",
            flush=True,
        )
    peak = peak_memory(
        [*bench.memkeep, "backup", str(bench.source), "--vault", str(work / "vault"), "--json"], bench.env
    )
    return {"size": folder_size(bench.source), "rows": rows, "vault": folder_size(work / "vault"), "peak": peak}


def startup(runs: int = 15) -> tuple[float, float]:
    """Return the medians of a bare interpreter and of `memkeep --help`, in ms."""

    def once(argv: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - started) * 1000

    memkeep = str(Path(sys.executable).with_name("memkeep"))
    bare = statistics.median(once([sys.executable, "-c", "pass"]) for _ in range(runs))
    return bare, statistics.median(once([memkeep, "--help"]) for _ in range(runs))


class Table:
    """Rows of Markdown."""

    def __init__(self) -> None:
        self.lines = ["| measured | target | memkeep | restic | ratio |", "|---|---|---|---|---|"]

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


def sqlite_rows(table: Table, found: dict[str, Any], days: int) -> None:
    """Add what was measured on the SQLite store."""
    first, *rest = found["rows"]
    table.times("first backup, verified", 1.0, [(first["verified_s"], first["restic_s"])])
    table.times("a day, verified to `readable`", 1.0, [(one["verified_s"], one["restic_s"]) for one in rest])
    table.times("a day, `--no-verify`", 0.6, [(one["plain_s"], one["restic_s"]) for one in rest])
    table.times("restore", 1.0, [(found["keep_restore"], found["restic_restore"])])
    for decay, name in ((False, "added a day, MB (worst)"), (True, "added on a day of decay, MB")):
        some = [one for one in rest if one["decay"] is decay]
        if some:
            most = max(one["added_mb"] for one in some)
            table.row(name, "<= 5", f"{most:.2f}", f"{statistics.median(one['restic_mb'] for one in some):.0f}")
    table.row(f"vault after {days} days, MB", "<= 300", f"{found['vault']:.0f}", f"{found['restic_vault']:.0f}")
    table.row("peak memory of a process, MB", "<= 300", f"{found['peak']:.0f}")
    alone, busy = found["stall"]["quiet"], found["stall"]["busy"]
    table.row("p99 of an agent's commit (WAL), ms: alone, during backups", "+ <= 30", f"{alone:.1f}, {busy:.1f}")


def lance_rows(table: Table, found: dict[str, Any]) -> None:
    """Add what was measured on the LanceDB table."""
    days: dict[str, list[dict[str, Any]]] = {}
    for one in found["rows"][1:]:
        days.setdefault(one["what"], []).append(one)
    names = {
        "plain": ("a plain day", 8),
        "--optimize": ("a day with compaction", 30),
        "--decay": ("a day of decay", 30),
        "--decay --optimize": ("a day of decay and compaction", 30),
    }
    for what, (name, target) in names.items():
        most = max(days[what], key=lambda one: one["added_mb"])
        table.row(
            f"LanceDB: added on {name}, MB", f"<= {target}", f"{most['added_mb']:.2f}", f"{most['restic_mb']:.0f}"
        )
    plain = [(one["keep_s"], one["restic_s"]) for one in days["plain"]]
    ours, theirs = (statistics.median(pair[side] for pair in plain) for side in (0, 1))
    table.row("LanceDB: a plain day, verified, s", "", f"{ours:.2f}", f"{theirs:.2f}", ours / theirs)
    table.row("LanceDB: peak memory of a process, MB", "", f"{found['peak']:.0f}")


def report(results: dict[str, Any], args: argparse.Namespace) -> str:
    """Write the table in Markdown."""
    table = Table()
    if "sqlite" in results:
        sqlite_rows(table, results["sqlite"], args.days)
    if "lance" in results:
        lance_rows(table, results["lance"])
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
    for name, found in results.items():
        size += f", {found['size']:.0f} MB of {name}"
    return "\n".join([f"{size}; {machine}; {versions}.", "", *table.lines])


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
    parser.add_argument("--kinds", default="sqlite,lance")
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
    print()
    print(report(results, args))


if __name__ == "__main__":
    main()

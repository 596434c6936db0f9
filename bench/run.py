"""Measure memkeep against restic on the workload that it is judged on, and print the table of the README.

    make bench                              all of it, about five minutes
    .venv/bin/python bench/run.py --days 3 --memories 5000 --kinds sqlite

Both encrypt. Every day the store is churned once, then restic, memkeep and memkeep without verification back up that
same state, one after another; only ratios within one run count. restic is installed with apt-get when it is not there.
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
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("MEMKEEP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
WORKLOAD = SHARED / "bench" / "workload.py"
PASSWORD = "bench"
MB = 1e6


class Run:
    """A finished command: wall seconds, peak memory in MB, and what it printed."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
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


def report(sqlite: dict[str, Any] | None, lance: dict[str, Any] | None, args: argparse.Namespace) -> str:
    """Write the table in Markdown."""
    lines = ["| measured | target | memkeep | restic | ratio |", "|---|---|---|---|---|"]

    def row(what: str, target: str, ours: str, theirs: str = "", ratio: float | None = None) -> None:
        lines.append(f"| {what} | {target} | {ours} | {theirs} | {f'{ratio:.2f}' if ratio is not None else ''} |")

    if sqlite:
        days = [one for one in sqlite["rows"] if one["day"]]
        plain_days = [one for one in days if not one["decay"]]
        first = sqlite["rows"][0]
        row(
            "first backup, s",
            "<= 1.0 x",
            f"{first['verified_s']:.2f}",
            f"{first['restic_s']:.2f}",
            first["verified_s"] / first["restic_s"],
        )
        for name, key, target in (
            ("a day, verified to `readable`, s", "verified_s", 1.0),
            ("a day, `--no-verify`, s", "plain_s", 0.6),
        ):
            ratios = [one[key] / one["restic_s"] for one in days]
            row(
                f"{name} (median)",
                f"<= {target} x",
                f"{statistics.median(one[key] for one in days):.2f}",
                f"{statistics.median(one['restic_s'] for one in days):.2f}",
                statistics.median(ratios),
            )
            row(f"{name} (worst day)", f"<= {target} x", f"{max(one[key] for one in days):.2f}", "", max(ratios))
        row(
            "restore, s",
            "<= 1.0 x",
            f"{sqlite['keep_restore']:.2f}",
            f"{sqlite['restic_restore']:.2f}",
            sqlite["keep_restore"] / sqlite["restic_restore"],
        )
        if plain_days:
            row(
                "added a day, MB (worst)",
                "<= 5",
                f"{max(one['added_mb'] for one in plain_days):.2f}",
                f"{statistics.median(one['restic_mb'] for one in plain_days):.0f}",
            )
        for one in days:
            if one["decay"]:
                row("added on a decay day, MB", "<= 5", f"{one['added_mb']:.2f}", f"{one['restic_mb']:.0f}")
        row(f"vault after {args.days} days, MB", "<= 300", f"{sqlite['vault']:.0f}", f"{sqlite['restic_vault']:.0f}")
        row("peak memory of a process, MB", "<= 300", f"{sqlite['peak']:.0f}")
        stalled = sqlite["stall"]
        row(
            "p99 of a writer's commit, ms (alone / during backups)",
            "+ <= 30",
            f"{stalled['quiet']:.1f} / {stalled['busy']:.1f}",
        )
    if lance:
        kinds: dict[str, list[dict[str, Any]]] = {}
        for one in lance["rows"][1:]:
            kinds.setdefault(one["what"], []).append(one)
        for what, target in (("plain", 8), ("--optimize", 30), ("--decay", 30), ("--decay --optimize", 30)):
            found = kinds.get(what)
            if found:
                row(
                    f"LanceDB: added on a day, {what}, MB (worst)",
                    f"<= {target}",
                    f"{max(one['added_mb'] for one in found):.2f}",
                    f"{max(one['restic_mb'] for one in found):.0f}",
                )
        row(
            "LanceDB: a plain day, s (median)",
            "",
            f"{statistics.median(one['keep_s'] for one in kinds['plain']):.2f}",
            f"{statistics.median(one['restic_s'] for one in kinds['plain']):.2f}",
        )
        row("LanceDB: peak memory of a process, MB", "", f"{lance['peak']:.0f}")
    bare, ours = startup()
    row("`memkeep --help`, ms (bare interpreter)", "<= 7 x", f"{ours:.0f}", f"({bare:.0f})", ours / bare)
    restic = subprocess.run(["restic", "version"], capture_output=True, text=True, check=True).stdout.split(
        " compiled"
    )[0]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, {restic}"
    size = f"{args.memories:,} memories x {args.dim}" + (f", {sqlite['size']:.0f} MB of SQLite" if sqlite else "")
    return "\n".join([f"{size}; {machine}.", "", *lines])


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
    print(report(results.get("sqlite"), results.get("lance"), args))


if __name__ == "__main__":
    main()

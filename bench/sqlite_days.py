"""The SQLite store: ten days of it, put back, proven, pruned, and a day of it sent to a bucket."""

import argparse
import shutil
import sqlite3
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bucket import bucket_day
from measure import MB, Bench, Table, folder_size, peak_memory, say


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
        say(rows[-1])
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
    proven = prove(bench)
    pruned = prune(bench)
    sent = bucket_day(bench, args.days + 1)
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
        "proven": proven,
        "pruned": pruned,
        "bucket": sent,
        "stall": stall(bench),
    }


def prove(bench: Bench) -> tuple[float, float]:
    """Return the least seconds in which memkeep and restic prove every byte of all snapshots."""
    ours, theirs = [], []
    for _ in range(3):
        theirs.append(bench.restic("check", "--read-data").seconds)
        run, result = bench.keep("verified", "verify", "--all", "--rung", "intact")
        if result["findings"] or any(one["rung"] != "intact" for one in result["snapshots"]):
            sys.exit(f"the vault is not intact: {result}")
        ours.append(run.seconds)
    return min(ours), min(theirs)


def prune(bench: Bench) -> tuple[float, float]:
    """Return the least seconds in which memkeep and restic forget all but three snapshots and give back the space."""
    ours, theirs = [], []
    for _ in range(3):
        for name in ("verified", "restic"):
            shutil.copytree(bench.work / name, bench.work / f"{name}-pruned")
        theirs.append(bench.restic("forget", "--keep-last", "3", "--prune", repository="restic-pruned").seconds)
        both = [bench.keep("verified-pruned", *words)[0] for words in (("forget", "--keep-last", "3"), ("prune",))]
        ours.append(sum(run.seconds for run in both))
        left = bench.keep("verified-pruned", "verify", "--all", "--rung", "intact")[1]["snapshots"]
        if [one["rung"] for one in left] != ["intact"] * 3:
            sys.exit(f"the pruned vault does not hold three intact snapshots: {left}")
        for name in ("verified", "restic"):
            shutil.rmtree(bench.work / f"{name}-pruned")
    return min(ours), min(theirs)


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
    table.times("`verify --all --rung intact` of all days, beside `check --read-data`", 1.0, [found["proven"]])
    table.times(f"`forget --keep-last 3` of {days + 1} and `prune`", 1.0, [found["pruned"]])
    bucket = found["bucket"]
    table.row("a day into a bucket: MB sent", "<= 6", f"{bucket.sent / MB:.2f}")
    table.row("a day into a bucket: requests", "<= 30", f"{len(bucket.requests)}")
    table.row(f"vault after {days} days, MB", "<= 300", f"{found['vault']:.0f}", f"{found['restic_vault']:.0f}")
    table.row("peak memory of a process, MB", "<= 300", f"{found['peak']:.0f}")
    alone, busy = found["stall"]["quiet"], found["stall"]["busy"]
    table.row("p99 of an agent's commit (WAL), ms: alone, during backups", "+ <= 30", f"{alone:.1f}, {busy:.1f}")

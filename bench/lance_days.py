"""The LanceDB table: plain days, days with compaction, days of decay."""

import argparse
import statistics
from pathlib import Path
from typing import Any

from measure import MB, Bench, Table, folder_size, peak_memory, say


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
        say(rows[-1])
    peak = peak_memory(
        [*bench.memkeep, "backup", str(bench.source), "--vault", str(work / "vault"), "--json"], bench.env
    )
    return {"size": folder_size(bench.source), "rows": rows, "vault": folder_size(work / "vault"), "peak": peak}


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

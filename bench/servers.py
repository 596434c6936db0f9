"""Memory in servers: Qdrant beside a scroll by its own client, pgvector beside a bare COPY and `pg_dump -Fc`.

Every round backs up the whole store into a new vault, then lets each peer read the same state, all as processes of
their own. Then a day passes, and it is backed up into the last of the vaults.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import MB, Bench, Run, Table, folder_size, peak_memory, say
from server_stores import DIMS, Filled, Place, postgres_place, qdrant_place

ROUNDS = 5
MORE = 3  # times the rows, for a second look at the memory that is needed
SCROLL = """
import sys
from qdrant_client import QdrantClient
host, _, name = sys.argv[1].removeprefix("qdrant://").partition("/")
client, offset, points = QdrantClient(url=f"http://{host}"), None, []
while True:
    some, offset = client.scroll(name, limit=1000, offset=offset, with_payload=True, with_vectors=True)
    points += some
    if offset is None:
        break
"""
COPY = """
import sys, psycopg
with psycopg.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
    with cursor.copy("COPY thanos_memories TO STDOUT (FORMAT binary)") as copy:
        rows = [bytes(row) for row in copy]
"""
PEERS: dict[str, dict[str, Callable[[Place, Path], list[str]]]] = {
    "qdrant": {"scroll": lambda place, _: [sys.executable, "-c", SCROLL, place.url]},
    "postgres": {
        "copy": lambda place, _: [sys.executable, "-c", COPY, place.url],
        "dump": lambda place, work: [place.dump, "-Fc", "-f", str(work / "dump"), place.url],
    },
}
PLACES: dict[str, Any] = {"qdrant": qdrant_place, "postgres": postgres_place}


def servers_bench(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure both servers."""
    found: dict[str, Any] = {}
    for kind in args.servers.split(","):
        bench = Bench(work / kind, args, kind)
        with PLACES[kind](work / kind / "server") as place:
            found[kind] = _measure(bench, place, args.rows)
        say({name: value for name, value in found[kind].items() if name != "rounds"})
    return found


def _measure(bench: Bench, place: Place, rows: int) -> dict[str, Any]:
    filled = Filled(place, rows)
    rounds = []
    for number in range(ROUNDS):
        vault = f"vault-{number}"
        bench.keep(vault, "init")
        ours, result = bench.keep(vault, "backup", place.url)
        report = result["snapshots"][0]
        wrong = [one for one in report["findings"] if one["severity"] == "error"]
        if report["records"] != rows or report["rung"] != "readable" or wrong:
            sys.exit(f"this is no whole backup: {report}")
        peers = {name: Run(command(place, bench.work), bench.env) for name, command in PEERS[bench.kind].items()}
        one = {"keep_s": ours.seconds, "keep_cpu": ours.cpu, "size": folder_size(bench.work / vault)}
        for name, run in peers.items():
            one |= {f"{name}_s": run.seconds, f"{name}_cpu": run.cpu}
        if (dump := bench.work / "dump").exists():
            one["dump_mb"] = dump.stat().st_size / MB
        rounds.append(one)
        say(one)
    new = filled.day()
    day, result = bench.keep(vault, "backup", place.url)
    added = result["snapshots"][0]["added_bytes"]
    bench.keep("peak", "init")
    command = [*bench.memkeep, "backup", place.url, "--json", "--vault", str(bench.work / "peak")]
    peaks = [peak_memory(command, bench.env)]
    filled.add((MORE - 1) * rows)
    bench.keep("peak-more", "init")
    peaks.append(peak_memory([*command[:-1], str(bench.work / "peak-more")], bench.env))
    return {"rounds": rounds, "new": new / MB, "added": added / MB, "day_s": day.seconds, "peaks": peaks, "rows": rows}


def servers_rows(found: dict[str, Any]) -> list[str]:
    """Return the table of what was measured on servers."""
    table = Table("peer")
    if "qdrant" in found:
        _faster(table, "Qdrant: whole backup, verified, beside a scroll with vectors", 4.0, found["qdrant"], "scroll")
        _both(table, "Qdrant", found["qdrant"])
    if "postgres" in found:
        one = found["postgres"]
        _faster(table, "pgvector: whole backup, verified, beside a bare binary COPY", 0.7, one, "copy")
        pairs = [(each["keep_s"], each["dump_s"]) for each in one["rounds"]]
        table.times("pgvector: whole backup, verified, beside `pg_dump -Fc`", 1.0, pairs)
        size, theirs = (statistics.median(each[name] for each in one["rounds"]) for name in ("size", "dump_mb"))
        table.row(
            "pgvector: result, MB, beside `pg_dump -Fc`", "< 1.0 x", f"{size:.0f}", f"{theirs:.0f}", size / theirs
        )
        _both(table, "pgvector", one)
    rows = next(iter(found.values()))["rows"]
    return [f"{rows:,} memories x {DIMS} in servers on the same machine, {ROUNDS} rounds, medians.", "", *table.lines]


def _faster(table: Table, what: str, target: float, found: dict[str, Any], peer: str) -> None:
    """Add how many times as fast as a peer memkeep is: by the clock, and by the processor's time of the client."""
    for unit, name, said in (("s", "s", f">= {target} x as fast"), ("CPU s of the client", "cpu", "")):
        pairs = [(one[f"keep_{name}"], one[f"{peer}_{name}"]) for one in found["rounds"]]
        ours, theirs = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        table.row(f"{what}, {unit}", said, f"{ours:.2f}", f"{theirs:.2f}", ratio)


def _both(table: Table, name: str, found: dict[str, Any]) -> None:
    table.row(
        f"{name}: added on a day of 1 % churn, MB, beside the new vectors and payloads",
        "<= 2 x",
        f"{found['added']:.2f}",
        f"{found['new']:.2f}",
        found["added"] / found["new"],
    )
    less, more = found["peaks"]
    table.row(f"{name}: peak memory, MB, and with {MORE} times the memories", "<= 400", f"{less:.0f}, {more:.0f}")

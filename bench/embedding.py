"""How busy re-embedding keeps an endpoint, which serves a few requests at once, each in a fixed time.

    .venv/bin/python bench/embedding.py            alone; `make bench` has it among the records

The endpoint is a process of its own on loopback. It measures itself: seconds of work over seconds it could have worked,
from the beginning of the first request to the end of the last.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from measure import Run, Table, say

DIMS, SERVING, SECONDS, BATCH = 1024, 4, 0.25, 64
_ENDPOINT = """
import json, sys
from memkeep.testing.embedder import embedder
with embedder(dims=int(sys.argv[1]), serving=int(sys.argv[2]), seconds=float(sys.argv[3])) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
    print(json.dumps({"busy": server.busy, "requests": server.requests, "served": sum(server.served.values())}))
"""


def embedding_bench(work: Path, memories: int = 20_000) -> dict[str, Any]:
    """Embed a store anew with either kind of endpoint; return the busy share of each."""
    work.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"HOME": str(work), "XDG_STATE_HOME": str(work / "state")}
    found: dict[str, Any] = {"memories": memories}
    for provider, path in (("openai", "/v1"), ("ollama", "")):
        store = work / f"{provider}.db"
        _build(store, memories)
        with _endpoint() as (url, ended):
            words = ["embed", str(store), "--all", "--no-snapshot", "--provider", provider, "--url", url + path]
            words += ["--model", "m", "--batch", str(BATCH), "--parallel", str(SERVING), "--json"]
            run = Run([sys.executable, "-m", "memkeep", *words], env)
            said = ended()
        assert said["served"] == memories == json.loads(run.out)["result"]["written"]
        found[provider] = said | {"seconds": run.seconds, "cpu": run.cpu}
        say({"provider": provider, **found[provider]})
    return found


def embedding_rows(table: Table, found: dict[str, Any]) -> None:
    """Add the rows."""
    for provider in ("openai", "ollama"):
        one = found[provider]
        table.row(
            f"re-embed {found['memories']:,} x {DIMS} ({provider}): share of its time that the endpoint worked",
            ">= 0.90",
            f"{one['busy']:.3f}",
            f"({one['seconds']:.1f} s in all)",
        )


def _build(store: Path, memories: int) -> None:
    with closing(sqlite3.connect(store)) as con, con:
        con.execute(
            "CREATE TABLE mem_cells (id INTEGER PRIMARY KEY, scene TEXT NOT NULL, cell_type TEXT NOT NULL, "
            "salience REAL DEFAULT 0.5, content TEXT NOT NULL, source TEXT DEFAULT '', tags TEXT DEFAULT '[]', "
            "embedding BLOB, access_count INTEGER DEFAULT 0, created_at TEXT NOT NULL, updated_at TEXT NOT NULL)"
        )
        con.executemany(
            "INSERT INTO mem_cells (scene, cell_type, content, created_at, updated_at) VALUES ('s', 'fact', ?, ?, ?)",
            (
                (f"Memory {at}: {'what the agent learned that day, ' * 8}", "2026-01-01", "2026-01-01")
                for at in range(memories)
            ),
        )


@contextmanager
def _endpoint() -> Iterator[tuple[str, Any]]:
    words = [sys.executable, "-c", _ENDPOINT, str(DIMS), str(SERVING), str(SECONDS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            yield url, lambda: json.loads(process.communicate("\n")[0])
        finally:
            process.kill()


def main() -> None:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, default=20_000)
    args = parser.parse_args()
    table = Table("")
    with tempfile.TemporaryDirectory(prefix="memkeep-bench-") as folder:
        embedding_rows(table, embedding_bench(Path(folder), args.memories))
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()

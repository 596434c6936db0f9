"""An index of a million chunks: how long it takes to load beside reading its bytes, and what it takes of memory.

Every figure is of a process of its own, as every command is one: it pays for the memory that it takes. "Raw" is reading
all index segments, which the system has at hand, into memory. "Loaded" is when 1000 chunks have been found.
"""

import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

from measure import MB, PASSWORD, Table

from memkeep.storage.local import LocalStorage
from memkeep.vault import crypto, opening, writer
from memkeep.vault import format as layout
from memkeep.vault.index import Index, Location, pack_key
from memkeep.vault.vault import Vault

COUNT = 1_000_000
PER_PACK = 150
ASKED = 1000
TIMES = 9


def fill(root: Path) -> None:
    """Make a vault whose index has a million random entries, half of them deltas."""
    rng = random.Random(1)  # noqa: S311 - data
    storage = LocalStorage(root / "vault")
    vault, _ = opening.create(storage, PASSWORD)
    asked = []
    for start in range(0, COUNT, writer.SEGMENT):
        count = min(writer.SEGMENT, COUNT - start)
        packs = {pack_key(rng.randbytes(32)): writer.PACK_SIZE for _ in range(-(-count // PER_PACK))}
        keys = list(packs)
        entries = []
        for number in range(count):
            depth = rng.choice((0, rng.randrange(1, writer.MAX_DEPTH)))
            length = rng.randrange(1, 1 << 17)
            offset = rng.randrange(crypto.HEADER_SIZE, writer.PACK_SIZE - length)
            base = rng.randbytes(16) if depth else None
            entries.append(
                (rng.randbytes(16), Location(keys[number // PER_PACK], offset, length, 1 << 17, depth, base))
            )
        asked += [one for one, _ in rng.sample(entries, ASKED * count // COUNT)]
        writer.put_segment(storage, vault.keys, Index(), entries, packs)
    (root / "asked").write_bytes(b"".join(asked))


def child(what: str, root: Path) -> float:
    """Return the seconds of reading the segments or of loading the index; for `memory` the bytes that it then takes."""
    if what == "raw":
        files = sorted((root / "vault" / "index").iterdir())
        started = time.perf_counter()
        kept = [file.read_bytes() for file in files]
        return time.perf_counter() - started if kept else 0.0
    storage = LocalStorage(root / "vault")
    config = layout.decode_config(storage.get(layout.CONFIG))
    keys = crypto.Keys(crypto.find_master(opening.read_slots(storage)[0], PASSWORD, config.id, storage.url), config.id)
    joined = (root / "asked").read_bytes()
    asked = [joined[at : at + 16] for at in range(0, len(joined), 16)]
    # Modules and the like: that a command imports them is not the index's.
    assert Index().find(asked[0]) is None
    if what == "memory":
        tracemalloc.start()
    started = time.perf_counter()
    vault = Vault(storage, config, keys)
    found = vault.index.find_all(asked)
    seconds = time.perf_counter() - started
    assert all(found)
    return tracemalloc.get_traced_memory()[0] if what == "memory" else seconds


def million_chunks(root: Path) -> dict[str, float]:
    """Return the bytes of the index, the least seconds of reading and loading it, and its bytes of memory a chunk."""
    root.mkdir()
    fill(root)

    def once(what: str) -> float:
        out = subprocess.run(
            [sys.executable, __file__, what, str(root)], check=True, capture_output=True, text=True
        ).stdout
        return float(out)

    pairs = [(once("raw"), once("load")) for _ in range(TIMES)]
    size = sum(file.stat().st_size for file in (root / "vault" / "index").iterdir())
    found = {
        "size": float(size),
        "raw": min(raw for raw, _ in pairs),
        "load": min(load for _, load in pairs),
        "chunk": once("memory") / COUNT,
    }
    print(
        f"  {size / MB:.1f} MB; read and loaded, ms: {[(round(a * 1000), round(b * 1000)) for a, b in pairs]}",
        flush=True,
    )
    return found


def index_rows(table: Table, found: dict[str, float]) -> None:
    """Add what was measured on the index."""
    raw, load = (found[one] * 1000 for one in ("raw", "load"))
    table.row(
        "index of a million chunks, loaded, ms (beside it read raw)",
        "<= 3 x",
        f"{load:.0f}",
        f"({raw:.0f})",
        load / raw,
    )
    table.row("index of a million chunks, bytes of memory a chunk", "<= 150", f"{found['chunk']:.0f}")


if __name__ == "__main__":
    print(child(sys.argv[1], Path(sys.argv[2])))

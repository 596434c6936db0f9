"""An agent to test with: it keeps one memory in SQLite, LanceDB and a log, and every moment of it can be told apart.

Moment n is what the store holds after batch n, which the agent writes in this order:

    facts.db                 one transaction: three new facts, one changed, old ones deleted, one counter, one link
    lancedb/memories.lance   the vectors of the same three; on some batches an update, a deletion, or a compaction
                             with clean-up of all old versions
    memory.wal               one line, appended; sometimes the file is written anew

so a copy whose parts say (n, n, n), (n, n, n-1) or (n, n-1, n-1) is one moment, and any other is a mix.

    python -m memkeep.testing.agent STORE FIRST [--journal MODE] [--pace SECONDS] [--checkpoint PAGES] [--no-lance]

prints `writing`, writes batches from FIRST on until its standard input is closed, then prints the last one.
"""

import argparse
import hashlib
import json
import random
import select
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

DIMS = 8
A_BATCH = 3  # facts
KEPT = 10  # batches of facts that are not deleted yet
_ANCHOR = "anchor"  # the id of the fact that counts the batches
_SCHEMA = """
CREATE TABLE facts(
  id TEXT PRIMARY KEY, text TEXT NOT NULL, why TEXT, category TEXT NOT NULL DEFAULT 'other', importance REAL,
  created_at INTEGER NOT NULL, decay_class TEXT NOT NULL DEFAULT 'stable', normalized_hash TEXT,
  scope TEXT NOT NULL DEFAULT 'global', recall_count INTEGER NOT NULL DEFAULT 0, superseded_at INTEGER);
CREATE VIRTUAL TABLE facts_fts USING fts5(text, category, content='facts', content_rowid='rowid');
CREATE TRIGGER facts_ai AFTER INSERT ON facts BEGIN
  INSERT INTO facts_fts(rowid, text, category) VALUES (new.rowid, new.text, new.category); END;
CREATE TRIGGER facts_ad AFTER DELETE ON facts BEGIN
  INSERT INTO facts_fts(facts_fts, rowid, text, category) VALUES ('delete', old.rowid, old.text, old.category); END;
CREATE TRIGGER facts_au AFTER UPDATE ON facts BEGIN
  INSERT INTO facts_fts(facts_fts, rowid, text, category) VALUES ('delete', old.rowid, old.text, old.category);
  INSERT INTO facts_fts(rowid, text, category) VALUES (new.rowid, new.text, new.category); END;
CREATE TABLE memory_links(id INTEGER PRIMARY KEY, source_fact_id TEXT, target_fact_id TEXT, link_type TEXT,
  strength REAL);
"""


class Moment(NamedTuple):
    """The batch that each part of a copy is at; None for a part that is not there."""

    sqlite: int
    lance: int | None
    log: int | None

    @property
    def whole(self) -> bool:
        """Whether all parts are of one moment."""
        batches = [batch for batch in self if batch is not None]
        return batches == sorted(batches, reverse=True) and batches[0] - batches[-1] <= 1


def identity(number: int) -> str:
    """Return the id of a fact."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def facts_at(moment: int) -> dict[str, str]:
    """Return the ids and texts of the facts at a moment, the counter aside."""
    facts = {}
    for batch in range(max(0, moment - KEPT + 1), moment + 1):
        for number in range(batch * A_BATCH, (batch + 1) * A_BATCH):
            facts[identity(number)] = _text(number)
        if batch < moment:
            facts[identity(batch * A_BATCH)] += " (seen again)"
    return facts


def build(store: Path, batches: int = KEPT + 2, *, journal: str = "wal", lance: bool = True) -> Path:
    """Make the store with its first batches, 0 to `batches` - 1, and close it; return its folder."""
    store.mkdir(parents=True)
    with closing(_connect(store, journal)) as connection:
        connection.executescript(_SCHEMA)
        connection.execute(
            "INSERT INTO facts(id, text, created_at) VALUES (?, 'The first thing that was remembered', -1)", (_ANCHOR,)
        )
        for batch in range(batches):
            write_batch(store, connection, batch, lance=lance)
    return store


def write_batch(store: Path, connection: sqlite3.Connection, batch: int, *, lance: bool = True) -> None:
    """Write one batch to all parts."""
    _to_sqlite(connection, batch)
    if lance:
        _to_lance(store / "lancedb" / "memories.lance", batch)
    _to_log(store / "memory.wal", batch)


def read_moment(store: Path) -> Moment:
    """Say which moment a copy is, with the plain libraries; `AssertionError` when a part of it is torn.

    Opens the database for writing, so never use it on a live store.
    """
    lance = store / "lancedb" / "memories.lance"
    log = store / "memory.wal"
    return Moment(
        sqlite=_sqlite_moment(store / "facts.db"),
        lance=_lance_moment(lance) if lance.exists() else None,
        log=_log_moment(log) if log.exists() else None,
    )


def _sqlite_moment(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        _same(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)], "integrity_check")
        connection.execute(
            "INSERT INTO facts_fts(facts_fts, rank) VALUES ('integrity-check', 1)"
        )  # raises when it is not
        batch = int(connection.execute("SELECT max(created_at) FROM facts").fetchone()[0])
        count = connection.execute("SELECT recall_count FROM facts WHERE id = ?", (_ANCHOR,)).fetchone()
        _same(count, (batch,), "the counter")
        _same(connection.execute("SELECT count(*) FROM memory_links").fetchone(), (batch + 1,), "links")
        facts = dict(connection.execute("SELECT id, text FROM facts WHERE id <> ?", (_ANCHOR,)))
        _same(facts, facts_at(batch), "facts")
        found = connection.execute("SELECT count(*) FROM facts_fts WHERE facts_fts MATCH 'remembers'").fetchone()
        _same(found, (len(facts),), "facts found by a word")
    return batch


def _lance_moment(table: Path) -> int:
    import lancedb

    rows = lancedb.connect(table.parent).open_table(table.stem).search().limit(1_000_000).to_list()
    batch = int(max(row["createdAt"] for row in rows))
    kept = {row["id"]: row for row in rows if row["createdAt"] > batch - KEPT}
    wanted = range(max(0, batch - KEPT + 1) * A_BATCH, (batch + 1) * A_BATCH)
    _same(sorted(kept), sorted(map(identity, wanted)), "vectors")
    for number in wanted:
        row = kept[identity(number)]
        _same((row["text"], list(row["vector"])), (_text(number), _vector(number)), f"the vector of fact {number}")
    return batch


def _log_moment(log: Path) -> int:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    batch = int(lines[-1]["batch"])
    _same([line["batch"] for line in lines], list(range(lines[0]["batch"], batch + 1)), "lines of the log")
    return batch


def _same(have: object, want: object, what: str) -> None:
    if have != want:
        raise AssertionError(f"{what}: {have!r}, not {want!r}")


def _connect(store: Path, journal: str, checkpoint: int | None = None) -> sqlite3.Connection:
    connection = sqlite3.connect(store / "facts.db", isolation_level=None, timeout=60)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = 8")  # so that pages are written in the middle of transactions
    if checkpoint is not None:
        connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")
    return connection


def _to_sqlite(connection: sqlite3.Connection, batch: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for number in range(batch * A_BATCH, (batch + 1) * A_BATCH):
        text = _text(number)
        connection.execute(
            "INSERT INTO facts(id, text, category, importance, created_at, normalized_hash) VALUES (?, ?, ?, ?, ?, ?)",
            (identity(number), text, "fact", 0.5, batch, hashlib.sha256(text.encode()).hexdigest()),
        )
    connection.execute(
        "UPDATE facts SET text = text || ' (seen again)' WHERE id = ?", (identity((batch - 1) * A_BATCH),)
    )
    connection.execute("DELETE FROM facts WHERE id <> ? AND created_at <= ?", (_ANCHOR, batch - KEPT))
    connection.execute("UPDATE facts SET recall_count = ? WHERE id = ?", (batch, _ANCHOR))
    connection.execute(
        "INSERT INTO memory_links(source_fact_id, target_fact_id, link_type, strength) VALUES (?, ?, 'RELATED_TO', 1)",
        (identity(batch * A_BATCH), _ANCHOR),
    )
    connection.execute("COMMIT")


def _to_lance(path: Path, batch: int) -> None:
    from datetime import timedelta

    import lance
    import pyarrow as pa

    numbers = range(batch * A_BATCH, (batch + 1) * A_BATCH)
    rows: dict[str, Any] = {
        "id": [identity(number) for number in numbers],
        "text": [_text(number) for number in numbers],
        "why": [""] * A_BATCH,
        "vector": pa.array([_vector(number) for number in numbers], pa.list_(pa.float32(), DIMS)),
        "importance": [0.5] * A_BATCH,
        "category": ["fact"] * A_BATCH,
        "createdAt": [float(batch)] * A_BATCH,
    }
    path.parent.mkdir(exist_ok=True)
    table = lance.write_dataset(pa.table(rows), str(path), mode="append" if path.exists() else "create")
    if batch % 4 == 1:
        table.update({"importance": "0.9"}, where=f"createdAt = {batch}")
    if batch % 4 == 2:  # noqa: PLR2004 - one batch of four
        table.delete(f"createdAt <= {batch - KEPT}")
    if batch % 4 == 3:  # noqa: PLR2004
        table.optimize.compact_files()
        table.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


def _to_log(path: Path, batch: int) -> None:
    line = json.dumps({"op": "store", "batch": batch}) + "\n"
    if batch % 6 == 0:
        fresh = path.with_name("memory.wal.tmp")
        fresh.write_text(line)
        fresh.replace(path)
    else:
        with path.open("a") as log:
            log.write(line)


def _text(number: int) -> str:
    chance = random.Random(number)  # noqa: S311 - made-up facts
    return f"User remembers fact {number}: " + " ".join(
        chance.choice(("naïve", "日本", "café", "the cat")) for _ in "12345"
    )


def _vector(number: int) -> list[float]:
    chance = random.Random(-number - 1)  # noqa: S311 - made-up vectors
    return [float(chance.randrange(-8, 9)) / 8 for _ in range(DIMS)]  # exact in float32


def _write_on(words: argparse.Namespace) -> None:
    batch = words.first
    with closing(_connect(words.store, words.journal, words.checkpoint)) as connection:
        print("writing", flush=True)  # noqa: T201 - the word that the starter waits for
        while not select.select([sys.stdin], [], [], words.pace)[0]:
            write_batch(words.store, connection, batch, lance=not words.no_lance)
            batch += 1
        print(batch - 1, flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("--journal", default="wal")
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--checkpoint", type=int)
    parser.add_argument("--no-lance", action="store_true")
    _write_on(parser.parse_args())

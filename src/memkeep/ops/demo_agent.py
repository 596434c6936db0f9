"""The agent of the demo: a process that keeps a hybrid store (SQLite and LanceDB) and goes on writing to it.

python -m memkeep.ops.demo_agent MEMORY_DIR build COUNT
python -m memkeep.ops.demo_agent MEMORY_DIR write FIRST      until its standard input is closed
"""

import hashlib
import random
import select
import signal
import sqlite3
import sys
import uuid
from pathlib import Path
from typing import Any

DIMS = 256
_TOPICS = (
    "the garden",
    "the move",
    "tax papers",
    "the band",
    "running",
    "the new job",
    "Lisbon",
    "the cat",
    "rye bread",
)
_VERBS = ("prefers", "decided on", "asked about", "forgot", "planned", "was happy with", "gave up on", "looked into")
_ENDS = (
    "in the evening",
    "before spring",
    "with Ana",
    "for a week",
    "on Tuesdays",
    "at last",
    "after lunch",
    "by train",
)
_SCHEMA = """
CREATE TABLE facts(
  id TEXT PRIMARY KEY, text TEXT NOT NULL, why TEXT, category TEXT NOT NULL DEFAULT 'other',
  importance REAL NOT NULL DEFAULT 0.5, source TEXT NOT NULL DEFAULT 'conversation', created_at INTEGER NOT NULL,
  decay_class TEXT NOT NULL DEFAULT 'stable', normalized_hash TEXT, tags TEXT, scope TEXT NOT NULL DEFAULT 'global',
  recall_count INTEGER NOT NULL DEFAULT 0, superseded_at INTEGER, superseded_by TEXT);
CREATE VIRTUAL TABLE facts_fts USING fts5(
  text, category, content='facts', content_rowid='rowid', tokenize='porter unicode61');
CREATE TRIGGER facts_ai AFTER INSERT ON facts BEGIN
  INSERT INTO facts_fts(rowid, text, category) VALUES (new.rowid, new.text, new.category); END;
CREATE TRIGGER facts_au AFTER UPDATE ON facts BEGIN
  INSERT INTO facts_fts(facts_fts, rowid, text, category) VALUES ('delete', old.rowid, old.text, old.category);
  INSERT INTO facts_fts(rowid, text, category) VALUES (new.rowid, new.text, new.category); END;
CREATE TABLE memory_links(id TEXT PRIMARY KEY, source_fact_id TEXT NOT NULL, target_fact_id TEXT NOT NULL,
  link_type TEXT NOT NULL, strength REAL NOT NULL DEFAULT 1.0, created_at INTEGER NOT NULL);
"""
_NOW = 1_767_225_600  # a fixed moment: the demo's store is the same every time


def fact(number: int) -> dict[str, Any]:
    """Return the fact with a number; the same number gives the same fact."""
    chance = random.Random(number)  # noqa: S311 - made-up facts
    text = f"User {chance.choice(_VERBS)} {chance.choice(_TOPICS)} {chance.choice(_ENDS)} (note {number})"
    return {
        "id": str(uuid.UUID(bytes=hashlib.md5(str(number).encode(), usedforsecurity=False).digest())),
        "text": text,
        "category": chance.choice(("fact", "preference", "decision", "entity")),
        "importance": round(chance.random(), 3),
        "created_at": _NOW + number,
        "normalized_hash": hashlib.sha256(text.lower().encode()).hexdigest(),
        "scope": chance.choice(("global", "agent:main")),
    }


def vector(number: int) -> list[float]:
    """Return a unit vector for a fact."""
    chance = random.Random(-number)  # noqa: S311 - made-up vectors
    values = [chance.gauss(0, 1) for _ in range(DIMS)]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]


def connect(memory: Path) -> sqlite3.Connection:
    """Open the store's database as the product does: WAL mode, autocommit."""
    connection = sqlite3.connect(memory / "facts.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=normal")
    return connection


def insert(connection: sqlite3.Connection, number: int) -> None:
    """Write one fact to SQLite."""
    values = fact(number)
    marks = ", ".join("?" for _ in values)
    connection.execute(f"INSERT INTO facts({', '.join(values)}) VALUES({marks})", list(values.values()))


def add_vectors(memory: Path, numbers: range) -> None:
    """Write the vectors of facts to LanceDB, one transaction."""
    import lance
    import pyarrow as pa

    rows = [fact(number) for number in numbers]
    table = pa.table(
        {
            "id": [row["id"] for row in rows],
            "text": [row["text"] for row in rows],
            "why": [""] * len(rows),
            "vector": pa.array([vector(number) for number in numbers], pa.list_(pa.float32(), DIMS)),
            "importance": [row["importance"] for row in rows],
            "category": [row["category"] for row in rows],
            "createdAt": [float(row["created_at"]) for row in rows],
        }
    )
    path = memory / "lancedb" / "memories.lance"
    lance.write_dataset(table, str(path), mode="append" if path.exists() else "create")


def build(memory: Path, count: int) -> None:
    """Make the store with its first facts."""
    (memory / "lancedb").mkdir(parents=True)
    connection = connect(memory)
    connection.executescript(_SCHEMA)
    connection.execute("BEGIN")
    for number in range(count):
        insert(connection, number)
    connection.execute("COMMIT")
    connection.close()
    add_vectors(memory, range(count))


def write(memory: Path, first: int) -> None:
    """Add a fact, change another, as long as standard input is open; a vector batch now and then."""
    connection = connect(memory)
    number = first
    _say("writing")
    while not select.select([sys.stdin], [], [], 0.004)[0]:
        connection.execute("BEGIN")
        insert(connection, number)
        connection.execute(
            "UPDATE facts SET recall_count = recall_count + 1 WHERE id = ?", (fact(number % first)["id"],)
        )
        connection.execute("COMMIT")
        number += 1
        if number % 100 == 0:
            add_vectors(memory, range(number - 100, number))
    _say(str(number))
    connection.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the demo too, which ends this process
    folder, verb, argument = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    (build if verb == "build" else write)(folder, argument)

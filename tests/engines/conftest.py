"""What the tests of the SQLite engine share: agents that write, ways to freeze, and a look at what they wrote."""

import os
import select
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import memkeep
from memkeep.engines.sqlite import SqliteEngine, SqliteOpened
from memkeep.model import Baseline, Finding, Part, Role, TableMap
from memkeep.records import groups

SCHEMA = """
CREATE TABLE plus(id INTEGER PRIMARY KEY, v INTEGER NOT NULL);
CREATE TABLE minus(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad BLOB);
CREATE TABLE notes(rowid INTEGER PRIMARY KEY, id TEXT UNIQUE, text TEXT, embedding BLOB);
CREATE VIRTUAL TABLE notes_fts USING fts5(text, content='notes', content_rowid='rowid');
CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN
  INSERT INTO notes_fts(rowid, text) VALUES (new.rowid, new.text); END;
CREATE TRIGGER notes_ad AFTER DELETE ON notes BEGIN
  INSERT INTO notes_fts(notes_fts, rowid, text) VALUES ('delete', old.rowid, old.text); END;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
  INSERT INTO plus SELECT i, 0 FROM n;
INSERT INTO minus SELECT id, 0, randomblob(id * 20) FROM plus;
"""

# What every transaction keeps true: the sums of `plus` and `minus` are opposite, the index has exactly the notes.
WRITER = """
import os, random, sqlite3, sys
path, mode, checkpoint = sys.argv[1:]
con = sqlite3.connect(path, isolation_level=None, timeout=60)
con.execute(f"PRAGMA journal_mode = {mode}")
con.execute("PRAGMA synchronous = OFF")
con.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")
con.execute("PRAGMA cache_size = 8")  # pages are spilled in the middle of transactions
r = random.Random(7)
words = ["".join(r.choice("abcdefgh") for _ in range(6)) for _ in range(300)]
n = con.execute("SELECT coalesce(max(rowid), 0) FROM notes").fetchone()[0]
print("ready", flush=True)
while True:
    con.execute("BEGIN IMMEDIATE")
    amount = r.randrange(100)
    for _ in range(r.choice([1, 3, 30])):
        con.execute("UPDATE plus SET v = v + ? WHERE id = ?", (amount, r.randint(1, 200)))
    con.execute("UPDATE minus SET pad = randomblob(?) WHERE id = ?", (r.randrange(9000), r.randint(1, 200)))
    total = con.execute("SELECT (SELECT sum(v) FROM plus) + (SELECT sum(v) FROM minus)").fetchone()[0]
    con.execute("UPDATE minus SET v = v - ? WHERE id = ?", (total, r.randint(1, 200)))
    n += 1
    text = " ".join(r.choices(words, k=20))
    con.execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (n, f"note-{n}", text, os.urandom(256)))
    con.execute("DELETE FROM notes WHERE rowid <= ?", (n - 300,))
    con.execute("COMMIT")
"""

NOTES = TableMap(collection="notes", table="notes", id="id", fields={"text": "text"}, vectors=("embedding",))


class Frozen(NamedTuple):
    """All that one freeze gave, after it was let go."""

    how: str
    image: Path
    baseline: Baseline
    groups: list[groups.Group]
    findings: list[Finding]
    checked: list[Finding]
    held: bool


@pytest.fixture
def sqlite_schema() -> str:
    """Return the schema that the writers know."""
    return SCHEMA


@pytest.fixture
def notes_map() -> TableMap:
    """Return the map of the writers' notes."""
    return NOTES


@pytest.fixture
def make_db(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_db(script="", path=..., journal="wal", page_size=4096)`: a closed database; its path."""

    def make(
        script: str = SCHEMA, path: Path = tmp_path / "store" / "facts.db", journal: str = "wal", page_size: int = 4096
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        con = sqlite3.connect(path, isolation_level=None)
        con.execute(f"PRAGMA page_size = {page_size}")
        con.execute(f"PRAGMA journal_mode = {journal}")
        con.executescript(script)
        con.close()
        return path

    return make


@pytest.fixture
def part_of() -> Callable[..., Part]:
    """Return `part_of(path, *maps)`."""

    def part(path: Path, *maps: TableMap) -> Part:
        return Part(name=path.name, engine="sqlite", role=Role.CANONICAL, path=str(path), maps=maps)

    return part


@pytest.fixture
def freeze(tmp_path: Path, part_of: Callable[..., Part]) -> Callable[..., AbstractContextManager[SqliteOpened]]:
    """Return `freeze(path, *maps, patience=10.0)`: a context with the frozen database."""

    @contextmanager
    def frozen(path: Path, *maps: TableMap, patience: float = 10.0) -> Iterator[SqliteOpened]:
        scratch = tmp_path / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        with SqliteEngine(patience).freeze(part_of(path, *maps), path.parent, scratch) as opened:
            yield opened

    return frozen


@pytest.fixture
def take(tmp_path: Path, freeze: Callable[..., Any]) -> Callable[..., Frozen]:
    """Return `take(path, *maps)`: freeze, scan, check and stream, and write what was streamed into a fresh folder."""
    numbers = iter(range(1000))

    def taken(path: Path, *maps: TableMap, **options: Any) -> Frozen:
        folder = tmp_path / f"restored-{next(numbers)}"
        folder.mkdir()
        with freeze(path, *maps, **options) as opened:
            found = list(opened.scan({}))
            checked = opened.check()
            for entry in opened.entries():
                (folder / entry.path).write_bytes(b"".join(opened.stream(entry)))
                assert (folder / entry.path).stat().st_size == entry.size
            findings = opened.findings()
            return Frozen(opened.how, folder / path.name, opened.baseline(), found, findings, checked, opened.held())

    return taken


@pytest.fixture
def reopen(part_of: Callable[..., Part]) -> Callable[..., AbstractContextManager[SqliteOpened]]:
    """Return `reopen(image, *maps)`: a context with a restored image."""

    def opened(image: Path, *maps: TableMap) -> AbstractContextManager[SqliteOpened]:
        part = part_of(image, *maps)
        return SqliteEngine().open(part, image.parent)

    return opened


class Agent:
    """A process that uses a database as an agent does; killed at the end of the test."""

    def __init__(self, code: str, *arguments: str, **options: Any) -> None:
        command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def hear(self, seconds: float = 60) -> str:
        """Wait for a line."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], seconds)[0], "the process said nothing"
        return self.process.stdout.readline().strip()

    def say(self, line: str = "") -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> None:
        """Let it come to its end."""
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def close(self) -> None:
        """Kill it if need be, and let go of its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def agent() -> Iterator[Callable[..., Agent]]:
    """Return `agent(code, *arguments)`: Python code as a process of its own, with memkeep to be imported."""
    agents: list[Agent] = []
    home = str(Path(memkeep.__file__).parents[1])

    def start(code: str, *arguments: str | Path, **options: Any) -> Agent:
        environment = {**os.environ, "PYTHONPATH": home, **options.pop("env", {})}
        agents.append(Agent(code, *map(str, arguments), env=environment, **options))
        return agents[-1]

    yield start
    for one in agents:
        one.close()


@pytest.fixture
def writer(agent: Callable[..., Agent]) -> Callable[..., Agent]:
    """Return `writer(path, mode, checkpoint=40)`: an agent that writes as fast as it can, already at it."""

    def start(path: Path, mode: str, checkpoint: int = 40) -> Agent:
        one = agent(WRITER, path, mode, str(checkpoint))
        assert one.hear() == "ready"
        return one

    return start


@pytest.fixture
def assert_whole() -> Callable[[Path], int]:
    """Return a function that checks, with the plain library, all that the writer keeps true; gives the newest note."""

    def check(image: Path) -> int:
        con = sqlite3.connect(image)
        try:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            sums = "SELECT (SELECT sum(v) FROM plus) + (SELECT sum(v) FROM minus)"
            assert con.execute(sums).fetchone() == (0,)
            con.execute("INSERT INTO notes_fts(notes_fts, rank) VALUES ('integrity-check', 1)")
            newest, count = con.execute("SELECT coalesce(max(rowid), 0), count(*) FROM notes").fetchone()
            assert count == min(newest, 300)
            return int(newest)
        finally:
            con.close()

    return check

"""All of it on a store made for the purpose: back up under a live agent, prove, age, damage, restore."""

import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from memkeep import amounts, clock
from memkeep.errors import MemkeepError, UnsupportedError
from memkeep.events import SILENT, Events
from memkeep.model import Rung, Store
from memkeep.ops.backup import SnapshotReport, backup
from memkeep.ops.diff import diff
from memkeep.ops.discover import discover
from memkeep.ops.open import init_vault, open_vault
from memkeep.ops.restore import restore
from memkeep.ops.scratch import scratch
from memkeep.ops.verify import verify
from memkeep.vault.vault import Vault

FACTS = 3000


class DemoStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the demo did, what came of it, and how long it took."""

    title: str
    outcome: str
    seconds: float


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo showed. `equal` says that the restored store was equal to the snapshot in every row and vector."""

    steps: tuple[DemoStep, ...]
    store_bytes: int
    first_bytes: int
    day_two_bytes: int
    equal: bool
    seconds: float


class _Story:
    """Collects the steps as they happen."""

    def __init__(self, events: Events) -> None:
        self.steps: list[DemoStep] = []
        self._events = events
        self._since = clock.monotonic()

    def tell(self, title: str, outcome: str) -> None:
        now = clock.monotonic()
        self.steps.append(DemoStep(title=title, outcome=outcome, seconds=round(now - self._since, 2)))
        self._since = now
        self._events.note(f"{title}: {outcome}")

    def begin(self, title: str) -> None:
        self._events.step(title)


def run(events: Events = SILENT) -> DemoResult:
    """Run the demo in a scratch folder, gone afterwards; `UnsupportedError` without the Lance extra."""
    from importlib.util import find_spec

    if find_spec("lance") is None:
        raise UnsupportedError("the demo needs LanceDB's format library", hint="pip install 'memkeep[lance]'")
    started = clock.monotonic()
    story = _Story(events)
    with scratch() as folder:
        memory = folder / "memory"
        story.begin("building a store")
        _agent(memory, "build", FACTS)
        store = _find(memory)
        size = sum(path.stat().st_size for path in memory.rglob("*") if path.is_file())
        story.tell("Built a memory store", f"{FACTS:,} facts in SQLite, their vectors in LanceDB, {amounts.size(size)}")

        password = secrets.token_urlsafe()
        init_vault(str(folder / "vault"), password)
        vault = open_vault(str(folder / "vault"), password)
        with _writing(memory, FACTS) as agent:
            story.begin("backing up")
            first = backup(vault, [store]).snapshots[0]
            written = agent.written(memory)
        story.tell(
            "Backed it up while an agent wrote to it",
            f"{first.records:,} facts in one consistent moment, encrypted, read back; "
            f"{amounts.size(first.added_bytes)}; the agent wrote {written:,} facts meanwhile",
        )
        story.begin("proving")
        _prove(vault, first)
        story.tell("Proved it", "restored in scratch space: every row and vector equal, recall answers the same")

        store = _find(memory)
        second = backup(vault, [store]).snapshots[0]
        changes = diff(vault, first.id, second.id)
        story.tell(
            "Day two",
            f"{len(changes.added):,} records added, {len(changes.changed):,} changed; it cost "
            f"{amounts.size(second.added_bytes)}",
        )
        _damage(memory)
        story.tell("Damaged the live store", _symptom(memory))

        story.begin("restoring")
        restored = restore(vault, second.id, in_place=True, confirm=store.system)
        after = diff(vault, second.id, str(memory))
        equal = not (after.added or after.removed or after.changed)
        equal = equal and _prove(vault, second)
        if not equal:
            raise MemkeepError("the restored store is not equal to the snapshot", hint="memkeep verify --all")
        story.tell(
            "Brought it back in place",
            f"{restored.records:,} facts, equal in every field; the damaged files are parked",
        )
    return DemoResult(
        steps=tuple(story.steps),
        store_bytes=size,
        first_bytes=first.added_bytes,
        day_two_bytes=second.added_bytes,
        equal=equal,
        seconds=round(clock.monotonic() - started, 2),
    )


class _Agent:
    """The running writer."""

    def __init__(self, process: subprocess.Popen[str], first: int) -> None:
        self._process = process
        self._first = first

    def written(self, memory: Path) -> int:
        """Return how many facts it has written so far."""
        connection = sqlite3.connect(f"file:{memory / 'facts.db'}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM facts").fetchone()[0]) - self._first
        finally:
            connection.close()


@contextmanager
def _writing(memory: Path, first: int) -> Iterator[_Agent]:
    """Run the agent for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "memkeep.ops.demo_agent", str(memory), "write", str(first)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline().strip() != "writing":
            raise MemkeepError("the demo's agent did not start", hint="memkeep demo")
        yield _Agent(process, first)
    finally:
        process.communicate()


def _agent(memory: Path, verb: str, argument: int) -> None:
    subprocess.run([sys.executable, "-m", "memkeep.ops.demo_agent", str(memory), verb, str(argument)], check=True)


def _find(memory: Path) -> Store:
    return discover([memory])[0]


def _prove(vault: Vault, report: SnapshotReport) -> bool:
    result = verify(vault, report.id, rung=Rung.EQUIVALENT, remember=False).snapshots[0]
    if result.rung is not Rung.EQUIVALENT:
        raise MemkeepError(f"the demo's snapshot reached only {result.rung}", hint="memkeep demo")
    return True


def _damage(memory: Path) -> None:
    """Overwrite the middle of the database, and lose one file of the vectors."""
    size = (memory / "facts.db").stat().st_size
    with (memory / "facts.db").open("r+b") as file:
        file.seek(size // 3)
        file.write(secrets.token_bytes(size // 3))
    next((memory / "lancedb" / "memories.lance" / "data").iterdir()).unlink()


def _symptom(memory: Path) -> str:
    connection = sqlite3.connect(memory / "facts.db")
    try:
        connection.execute("SELECT count(*), sum(length(text)) FROM facts").fetchone()
    except sqlite3.DatabaseError as error:
        return f"SQLite now says: {error}; a file of vectors is gone"
    finally:
        connection.close()
    return "its database and its vectors are torn"

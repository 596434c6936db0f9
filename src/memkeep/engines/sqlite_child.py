"""The process that touches databases on behalf of its parent: one freeze, or one look at many files.

POSIX locks belong to a process, and closing any descriptor of a database there drops the locks of every SQLite
connection that the process has to it. The parent may be an agent with the very database open, so all is done here.
It ends with its parent: at the end of standard input, or when it is handed to another parent. Started by `sqlite_link`.
"""

import gc
import os
import queue
import select
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.engines import sqlite_hold
from memkeep.engines.sqlite_held import Descriptors, Held
from memkeep.engines.sqlite_io import ERROR, LENGTH, STREAM, read_frame, write_all, write_frame
from memkeep.engines.sqlite_sql import undo
from memkeep.engines.sqlite_wal import WalChangedError
from memkeep.errors import MemkeepError, StoreError, UnstableError, quoted
from memkeep.model import Finding, Probe, TableMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from memkeep.engines.merging import Merged
    from memkeep.engines.rows import Deleted
    from memkeep.engines.sqlite_delete import SqliteDelete
    from memkeep.engines.sqlite_merge import SqliteMerge

_LOOK_MS = 500
_ROWS = 64  # that are sent at once: vectors may be among them


class _Child:
    """The held moment and the two threads that serve it: one for its bytes, one for all else."""

    def __init__(self, replies: int, stream: int) -> None:
        self._replies = replies
        self._stream = stream
        self._keep = Descriptors()
        self._held: Held | None = None
        self._name = ""
        self._maps: list[TableMap] = []
        self._merging: SqliteMerge
        self._writing: SqliteMerge | SqliteDelete | None = None
        self._stopped: set[int] = set()
        self._work: queue.SimpleQueue[tuple[int, str, dict[str, Any]]] = queue.SimpleQueue()
        self._streams: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def serve(self, requests: int, parent: int) -> None:
        """Read requests until the parent is gone."""
        threading.Thread(target=self._answer, daemon=True).start()
        threading.Thread(target=self._pour, daemon=True).start()
        poll = select.poll()
        poll.register(requests, select.POLLIN | select.POLLHUP)
        while os.getppid() == parent:
            if not poll.poll(_LOOK_MS):
                continue
            try:
                number, op, arguments = read_frame(requests)
            except EOFError:
                return
            if op == "stream":
                self._streams.put((number, arguments["path"]))
            elif op == "stop":
                self._stopped.add(arguments["stream"])
            else:
                self._work.put((number, op, arguments))

    def end(self) -> None:
        """Undo what was begun and not made to last: left to the kernel it would leave its journal behind."""
        if self._writing is not None:
            undo(self._writing.con)

    def _answer(self) -> None:
        operations: dict[str, Callable[..., Any]] = {
            "freeze": self._freeze,
            "open": self._open,
            "scan": self._scan,
            "check": self._check,
            "moved": lambda _: self._now().moved(),
            "held": lambda _: self._now().held(),
            "inspect": self._inspect,
            "ask": self._ask,
            "rows": self._rows,
            "merge": self._merge_image,
            "merge_rows": self._begin_merge,
            "put": lambda _, table, runs: self._merging.take(table, runs),
            "merged": lambda _: self._merging.result,
            "delete": self._delete,
            "commit": self._commit,
        }
        while True:
            number, op, arguments = self._work.get()
            try:
                payload = operations[op](number, **arguments)
            except Exception as error:  # noqa: BLE001 - it is raised again in the parent
                write_frame(self._replies, [number, "error", _described(error, self._name)])
            else:
                write_frame(self._replies, [number, "done", payload])

    def _pour(self) -> None:
        while True:
            number, path = self._streams.get()
            try:
                source = next(source for source in self._now().sources if source.entry.path == path)
                for buffer in source.buffers():
                    if number in self._stopped:
                        break
                    write_all(self._stream, STREAM.pack(number, len(buffer)), buffer)
                write_all(self._stream, STREAM.pack(number, 0))
            except Exception as error:  # noqa: BLE001 - it is raised again in the parent
                body = msgspec.msgpack.encode(_described(error, self._name))
                write_all(self._stream, STREAM.pack(number, ERROR), LENGTH.pack(len(body)), body)

    def _now(self) -> Held:
        assert self._held is not None  # noqa: S101 - the parent asks for a moment first
        return self._held

    def _freeze(
        self, _: int, *, path: bytes, name: str, scratch: bytes, maps: list[Any], patience: float
    ) -> dict[str, Any]:
        there = self._begin(path, maps)
        self._held = sqlite_hold.hold_live(there, name, Path(os.fsdecode(scratch)), self._keep, patience=patience)
        return self._described()

    def _open(self, _: int, *, path: bytes, name: str, maps: list[Any]) -> dict[str, Any]:
        self._held = sqlite_hold.hold_private(self._begin(path, maps), name, self._keep)
        return self._described()

    def _begin(self, path: bytes, maps: list[Any]) -> Path:
        there = Path(os.fsdecode(path))
        self._name = str(there)
        self._maps = msgspec.convert(maps, list[TableMap])
        return there

    def _described(self) -> dict[str, Any]:
        held = self._now()
        return {"how": held.how, "entries": [source.entry for source in held.sources], "findings": held.findings}

    def _scan(self, number: int, *, bits: dict[str, int], probes: list[Any] | None) -> dict[str, Any]:
        from memkeep.engines import sqlite_scan
        from memkeep.model import Baseline

        held = self._now()
        if held.con is None:
            return {"baseline": Baseline(), "findings": []}
        asked = None if probes is None else msgspec.convert(probes, tuple[Probe, ...])
        baseline, findings = sqlite_scan.scan(
            held.con, self._maps, bits, asked, lambda group: write_frame(self._replies, [number, "item", group])
        )
        baseline.facts["journal"] = held.journal
        return {"baseline": baseline, "findings": findings}

    def _rows(self, number: int, *, table: Any) -> None:
        """Send how the rows of a map's table are sent, and then them."""
        from memkeep.engines import sqlite_rows
        from memkeep.engines.rows import no_table

        map_ = msgspec.convert(table, TableMap)
        held = self._now()
        if held.con is None:
            raise no_table(map_.table, self._name)
        for item in sqlite_rows.read(held.con, map_, self._name):
            write_frame(self._replies, [number, "item", item])

    def _ask(self, number: int, *, sql: str) -> bool:
        """Send the rows of a query, some at a time; say whether there was anything to ask."""
        from itertools import islice

        con = self._now().con
        if con is None:
            return False
        cursor = con.execute(sql)
        while rows := list(islice(cursor, _ROWS)):
            write_frame(self._replies, [number, "item", rows])
        return True

    def _check(self, _: int) -> list[Finding]:
        from memkeep.engines import sqlite_check

        held = self._now()
        return [] if held.con is None else sqlite_check.check(held.con, held.private, self._maps)

    def _merge_image(
        self, _: int, *, live: bytes, image: bytes, maps: list[Any], wanted: Any, patience: float
    ) -> "Merged":
        from memkeep.engines.merging import Wanted
        from memkeep.engines.sqlite_merge import SqliteMerge

        there = self._begin(live, maps)
        here = Path(os.fsdecode(image))
        self._merging = self._writing = SqliteMerge(there, self._maps, msgspec.convert(wanted, Wanted), patience, here)
        self._merging.take_image()
        return self._merging.result

    def _begin_merge(
        self, _: int, *, live: bytes, maps: list[Any], wanted: Any, patience: float
    ) -> dict[str, dict[str, str]]:
        from memkeep.engines.merging import Wanted
        from memkeep.engines.sqlite_merge import SqliteMerge

        there = self._begin(live, maps)
        self._merging = self._writing = SqliteMerge(there, self._maps, msgspec.convert(wanted, Wanted), patience)
        return self._merging.columns()

    def _delete(self, _: int, *, live: bytes, gone: list[Any], patience: float) -> "Deleted":
        from memkeep.engines.rows import Gone
        from memkeep.engines.sqlite_delete import SqliteDelete

        there = self._begin(live, [])
        self._writing = SqliteDelete(there, patience)
        self._writing.delete(msgspec.convert(gone, list[Gone]))
        return self._writing.result

    def _commit(self, _: int) -> None:
        assert self._writing is not None  # noqa: S101 - the parent begins with something to make last
        self._writing.commit()

    def _inspect(self, number: int, *, asked: list[tuple[bytes, list[str]]], scratch: bytes) -> None:
        from memkeep.engines import sqlite_inspect

        for path, queries in asked:
            seen = sqlite_inspect.inspect(Path(os.fsdecode(path)), queries, Path(os.fsdecode(scratch)))
            write_frame(self._replies, [number, "item", seen])


def _described(error: Exception, name: str) -> dict[str, str]:
    """Return what the parent needs to raise an error of the same kind."""
    if not isinstance(error, MemkeepError):
        import apsw

        if isinstance(error, WalChangedError):
            error = UnstableError(f"{name}: {error}.", hint=f"memkeep backup {quoted(name)}")
        elif isinstance(error, (apsw.Error, OSError, UnicodeDecodeError)):
            error = StoreError(f"{name} could not be read: {error}.", hint=f"ls -l {quoted(name)}")
    if isinstance(error, MemkeepError):
        return {
            "type": type(error).__name__,
            "message": error.message,
            "unchanged": error.unchanged,
            "hint": error.hint,
            "code": error.code,
        }
    return {"type": "", "message": "".join(traceback.format_exception(error))}


def main(stream: int, parent: int) -> None:
    """Serve the parent on standard input and output, and file bytes on `stream`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")  # small products; threads would cost memory
    gc.set_threshold(100_000)
    replies = os.dup(1)
    os.dup2(2, 1)  # nothing that prints can break the frames
    code = 0
    child = _Child(replies, stream)
    try:
        child.serve(0, parent)
        child.end()
    except BaseException:  # noqa: BLE001 - said on standard error, which the parent reads
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        code = 1
    os._exit(code)  # at once, in the middle of whatever was asked: the kernel drops the locks

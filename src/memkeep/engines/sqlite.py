"""The SQLite engine: one moment of a database, live or restored, read without disturbing whoever writes it.

How a moment is held is told in `sqlite_hold`; why all of it happens in a process of its own, in `sqlite_child`.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from memkeep.engines import sqlite_given, sqlite_rows
from memkeep.engines.merging import Merged, Wanted, left_out
from memkeep.engines.rows import Columns, Deleted, Gone, Rows
from memkeep.engines.sqlite_inspect import Inspection
from memkeep.engines.sqlite_link import Child
from memkeep.engines.sqlite_sql import PATIENCE, literal, quote
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, TableMap
from memkeep.records.groups import Group
from memkeep.records.shape import Row

__all__ = ["Inspection", "SqliteEngine", "SqliteOpened", "inspect"]


_FLOAT32 = 4


class SqliteOpened:
    """One moment of one database, held by a child process. See `engines.base.Opened`."""

    def __init__(self, child: Child, part: Part, described: dict[str, Any]) -> None:
        self.how: str = described["how"]
        self._child = child
        self._part = part
        self._entries = msgspec.convert(described["entries"], list[Entry])
        self._findings = self._own(described["findings"])
        self._scanned: list[Finding] = []
        self._baseline: Baseline | None = None

    def entries(self) -> list[Entry]:
        """Return the database as one file; its WAL is part of it, except where it was taken as mere bytes."""
        return list(self._entries)

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes at the frozen moment, in buffers of at most 1 MiB."""
        return self._child.stream(entry.path)

    def runs(self, entry: Entry) -> tuple[Run, ...]:  # noqa: ARG002 - the contract's
        """Return nothing: long rows are cut into pages, so that no vector lies in one piece."""
        return ()

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every row once; yield groups; then `baseline()` is complete."""
        self._baseline = None
        conversation = self._child.items("scan", bits=bits, probes=probes)
        while True:
            try:
                group = next(conversation)
            except StopIteration as stop:
                end = stop.value
                break
            yield msgspec.convert(group, Group)
        self._scanned = self._own(end["findings"])
        self._baseline = msgspec.convert(end["baseline"], Baseline)

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the rows of a map's table, some at a time; see `engines.rows.RowReader`."""
        conversation = self._child.items("rows", table=table)
        form = msgspec.convert(next(conversation), sqlite_rows.Form)
        for packed in conversation:
            yield sqlite_rows.unpacked(form, packed)

    def ask(self, sql: str) -> Iterator[list[list[Any]]]:
        """Yield the rows of a SELECT at the frozen moment, some at a time; none of what is no readable database.

        Raises `StoreError` when it can't be answered to its end.
        """
        return self._child.items("ask", sql=sql)

    def baseline(self) -> Baseline:
        """Return counts, digests, probes and facts; `RuntimeError` before `scan` ended."""
        if self._baseline is None:
            raise RuntimeError("baseline() before scan() was read to its end")
        return self._baseline

    def check(self) -> list[Finding]:
        """Run SQLite's integrity, full-text and foreign key checks."""
        return self._own(self._child.call("check"))

    def moved(self) -> bool:
        """Say whether somebody has committed to the live database since."""
        return bool(self._child.call("moved"))

    def held(self) -> bool:
        """Say whether what was read is still one moment."""
        return bool(self._child.call("held"))

    def omitted(self) -> list[Omission]:
        """Return nothing: a database is taken whole."""
        return []

    def findings(self) -> list[Finding]:
        """Return what freezing and the last scan noticed."""
        return [*self._findings, *self._scanned]

    def _own(self, findings: Any) -> list[Finding]:
        converted = msgspec.convert(findings, list[Finding])
        return [msgspec.structs.replace(finding, part=self._part.name) for finding in converted]


class SqliteMerging:
    """A merge in an open transaction of the child process."""

    def __init__(self, child: Child, result: Merged) -> None:
        self.result = result
        self._child = child

    def commit(self) -> None:
        """Make it last."""
        self._child.call("commit")


class SqliteDeleting:
    """A deletion in an open transaction of the child process."""

    def __init__(self, child: Child, result: Deleted) -> None:
        self.result = result
        self._child = child

    def commit(self) -> None:
        """Make it last."""
        self._child.call("commit")


class SqliteEngine:
    """Freezes, opens and counts SQLite databases. See `engines.base.Engine`."""

    name = "sqlite"

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience  # seconds to wait for locks, and for a database that does not hold still

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> Iterator[SqliteOpened]:  # noqa: ARG002 - the contract's
        """Hold one moment of the live database at `part.path`."""
        with Child() as child:
            place = {"path": _bytes(Path(part.path)), "name": part.name, "scratch": _bytes(scratch)}
            yield SqliteOpened(child, part, child.call("freeze", **place, maps=part.maps, patience=self._patience))

    @contextmanager
    def open(self, part: Part, root: Path) -> Iterator[SqliteOpened]:
        """Open the image that lies under a private folder; its bytes stay as they are."""
        with Child() as child:
            path = _bytes(root / part.name)
            yield SqliteOpened(child, part, child.call("open", path=path, name=part.name, maps=part.maps))

    @contextmanager
    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> Iterator["SqliteMerging"]:
        """Merge an image into the live database; see `sqlite_merge`."""
        places = {"live": _bytes(Path(live.path)), "image": _bytes(root / image.name)}
        with Child() as child:
            done = child.call("merge", **places, maps=live.maps, wanted=wanted, patience=self._patience)
            yield SqliteMerging(child, msgspec.convert(done, Merged))

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return what a live table takes; None when it is not there. A vector has the size of one that is there."""
        path, map_ = Path(live.path), next((each for each in live.maps if each.table == table), None)
        vectors = [] if map_ is None else map_.vectors
        needed = '"notnull" AND dflt_value IS NULL AND NOT pk'
        # A default of NULL, which is a text here, is none.
        filled = "coalesce(upper(dflt_value), 'NULL') <> 'NULL' AND NOT \"notnull\" AND NOT pk"
        asked = [
            f"SELECT name, {needed}, {filled} FROM pragma_table_xinfo({literal(table)}) WHERE hidden = 0",  # noqa: S608 - quoted
            *(
                f"SELECT length({quote(name)}) FROM {quote(table)} WHERE typeof({quote(name)}) = 'blob' LIMIT 1"  # noqa: S608
                for name in vectors
            ),
        ]
        names, *sizes = inspect([path], {path: asked})[path].results or [()]
        if not names:
            return None
        there = {row[0] for row in names}
        known = zip(vectors, sizes, strict=True)
        dims = {name: rows[0][0] // _FLOAT32 if rows else 0 for name, rows in known if name in there}
        columns = {"needed": 1, "filled": 2}
        said = {field: tuple(row[0] for row in names if row[at]) for field, at in columns.items()}
        return Columns(names=tuple(row[0] for row in names), vectors=dims, **said)

    @contextmanager
    def merge_rows(
        self,
        live: Part,
        rows: Mapping[str, Rows],
        wanted: Wanted,
        scratch: Path | None = None,  # noqa: ARG002 - the contract's signature
    ) -> Iterator["SqliteMerging"]:
        """Merge rows that are given into the live database; see `sqlite_merge`."""
        maps = [each for each in live.maps if each.table in rows]
        with Child() as child:
            place = {"live": _bytes(Path(live.path)), "maps": maps, "wanted": wanted}
            types = child.call("merge_rows", **place, patience=self._patience)
            maps = [each for each in maps if types[each.table]]
            left = left_out(rows, maps)
            given = [sqlite_given.Given(each, types[each.table]) for each in maps]
            child.each(
                "put",
                (
                    {"table": map_.table, "runs": packed}
                    for map_, one in zip(maps, given, strict=True)
                    for batch in rows[map_.table]()
                    for packed in one.packed(batch)
                ),
            )
            done = msgspec.convert(child.call("merged"), Merged)
            failed = (*(row for one in given for row in one.failed), *done.failed)
            told = (*left, *(said for one in given for said in one.left), *done.left)
            yield SqliteMerging(child, msgspec.structs.replace(done, failed=failed, left=told))

    @contextmanager
    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> Iterator["SqliteDeleting"]:
        """Delete rows of the live database; see `sqlite_delete`."""
        with Child() as child:
            done = child.call("delete", live=_bytes(Path(live.path)), gone=list(gone), patience=self._patience)
            yield SqliteDeleting(child, msgspec.convert(done, Deleted))

    def count(self, part: Part, table: str) -> int | None:
        """Count the rows of a live table; None when it can't be read."""
        path = Path(part.path)
        seen = inspect([path], {path: [f"SELECT count(*) FROM {quote(table)}"]})[path]  # noqa: S608 - quoted
        return next((rows[0][0] for rows in seen.results if rows), None)


def inspect(paths: Sequence[Path], queries: Mapping[Path, Sequence[str]] | None = None) -> dict[Path, Inspection]:
    """Look at files that may be live databases, and ask each its queries, which must be SELECTs.

    One child process for all; nothing is changed, and no `-wal` or `-journal` is left behind (a `-shm` may be, where
    there was a WAL without one). Never raises for a single file: its `Inspection` says what is wrong with it.
    """
    if not paths:
        return {}
    asked = [(_bytes(path), list((queries or {}).get(path, ()))) for path in paths]
    with tempfile.TemporaryDirectory(prefix="memkeep-") as scratch, Child() as child:
        seen = list(child.items("inspect", asked=asked, scratch=_bytes(Path(scratch))))
    return dict(zip(paths, msgspec.convert(seen, list[Inspection]), strict=True))


def _bytes(path: Path) -> bytes:
    return os.fsencode(path.absolute())

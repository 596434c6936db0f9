"""Merge records into the collections of a live Chroma directory, in one transaction of its database.

Records go in where Chroma's own go first: into the table `embeddings_queue`, from which Chroma takes them into its
tables of metadata, its full text and its index when a collection is next opened or, by a client that has it open, next
written to. A record that takes the place of another is a deletion and an addition. A line of the queue that Chroma
can't read makes it refuse the whole collection, so what it would not have taken itself is named and left out.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.engines.chroma_files import DATABASE
from memkeep.engines.chroma_rows import DOCUMENT, Collection, Joined, collections, seq_of
from memkeep.engines.merging import NAMED, Counts, FailedRow, Merged, Wanted, is_of, plain_id, replaces, seen_later
from memkeep.engines.point_rows import to_point
from memkeep.engines.qdrant_edge import Point
from memkeep.engines.qdrant_rebuild import near
from memkeep.engines.rows import Rows
from memkeep.engines.sqlite_sql import connect, query, value
from memkeep.errors import StoreError, quoted
from memkeep.model import TableMap
from memkeep.records.groups import id_text

if TYPE_CHECKING:
    import apsw

Streams = Mapping[str, Iterable[list[Point]]]
"""The records for each collection, by the name that it has in the live directory."""
_ADD, _DELETE = 0, 3  # `operation` of the queue
_INTEGERS = range(-(1 << 63), 1 << 63)
_ROWS = 500  # read at a time
_LAST = "SELECT seq_id FROM max_seq_id UNION ALL SELECT max(seq_id) FROM embeddings_queue"
_PUT = "INSERT INTO embeddings_queue (seq_id, operation, topic, id, vector, encoding, metadata) VALUES (?,?,?,?,?,?,?)"


class ChromaMerge:
    """A merge in an open transaction."""

    def __init__(self, con: "apsw.Connection", result: Merged) -> None:
        self.result = result
        self._con = con

    def commit(self) -> None:
        """Make it last."""
        import apsw

        try:
            self._con.execute("COMMIT")
        except apsw.Error as error:
            raise StoreError(f"the records were not merged: {error}", hint="df -h") from error


@contextmanager
def merging_rows(
    live: Path, rows: Mapping[str, Rows], maps: Iterable[TableMap], wanted: Wanted
) -> Iterator[ChromaMerge]:
    """Merge rows, which leave what they do not have as it is, in the same way."""
    failed: list[FailedRow] = []
    streams = {table: _points(some, table, failed) for table, some in rows.items()}
    with merging(live, streams, maps, wanted, partial=True) as one:
        one.result = msgspec.structs.replace(one.result, failed=(*one.result.failed, *failed))
        yield one


@contextmanager
def merging(
    live: Path, streams: Streams, maps: Iterable[TableMap], wanted: Wanted, *, partial: bool = False
) -> Iterator[ChromaMerge]:
    """Merge records into the collections of the directory `live`. Raises `StoreError` when it can't be written.

    With `partial`, what a record does not have stays as it is.
    """
    with begun(live) as con:
        by_table = {each.table: each for each in maps}
        yield ChromaMerge(con, _merged(con, live, streams, by_table, wanted, partial=partial))


@contextmanager
def begun(live: Path) -> "Iterator[apsw.Connection]":
    """Begin a transaction, which is as if it never was unless it is committed. Raises `StoreError`."""
    import apsw

    file = live / DATABASE
    try:
        con = connect(file, "mode=rw")
    except apsw.Error as error:
        raise StoreError(f"{file} can't be written: {error}", hint=f"ls -l {quoted(file)}") from error
    try:
        con.execute("BEGIN IMMEDIATE")
        yield con
    except apsw.Error as error:
        raise StoreError(f"{file} can't be written: {error}", hint="stop the agent and run this again") from error
    finally:
        con.close()  # which rolls back what was not committed


def asking(con: "apsw.Connection") -> Callable[[str], Iterator[list[list[Any]]]]:
    """Return what gives the rows of a query, some at a time."""

    def ask(sql: str) -> Iterator[list[list[Any]]]:
        cursor = con.cursor().execute(sql)
        while rows := [list(row) for _, row in zip(range(_ROWS), cursor, strict=False)]:
            yield rows

    return ask


def _merged(
    con: "apsw.Connection",
    live: Path,
    streams: Streams,
    by_table: Mapping[str, TableMap],
    wanted: Wanted,
    *,
    partial: bool,
) -> Merged:
    ask = asking(con)
    there = {one.name: one for one in collections(ask)}
    done: list[_Merge] = []
    left: list[str] = []
    for name, stream in streams.items():
        if name not in there or name not in by_table:
            left.append(f"{name} is left out: the directory has no such collection")
            continue
        joined = Joined(ask, there[name], live)
        if joined.segment.trouble:
            raise StoreError(
                f"the vectors of {name} can't be read: {joined.segment.trouble[0]}", hint="memkeep discover"
            )
        one = _Merge(con, joined, by_table[name], wanted, partial=partial)
        one.take(stream)
        done.append(one)
    tables = {one.map.table: Counts(**one.counts) for one in done}
    return Merged(
        tables=tables,
        failed=tuple(row for one in done for row in one.failed),
        conflicts=tuple(name for one in done for name in one.conflicts)[:NAMED],
        records=tuple(name for one in done if one.map.primary for name in one.records),
        left=tuple(left),
        notes=seen_later(live, tables.values()),
    )


class Queue:
    """Where Chroma takes what happens to the records of a collection from."""

    def __init__(self, con: "apsw.Connection", collection: Collection) -> None:
        self._con = con
        self._topic = _topic(con, collection)

    def delete(self, record: str) -> None:
        """Let a record go."""
        self.put(_DELETE, record, None, None)

    def put(self, operation: int, record: str, vector: Any, metadata: str | None) -> None:
        """Add what happens to a record."""
        encoding = None if vector is None else "FLOAT32"
        last = max((seq_of(row[0]) for row in query(self._con, _LAST) if row[0] is not None), default=0)
        self._con.execute(_PUT, (last + 1, operation, self._topic, record, vector, encoding, metadata))


class _Merge:
    """Finds out what becomes of each record of one collection, and queues it."""

    def __init__(
        self, con: "apsw.Connection", joined: Joined, map_: TableMap, wanted: Wanted, *, partial: bool
    ) -> None:
        self.map = map_
        self.counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        self.failed: list[FailedRow] = []
        self.conflicts: list[str] = []
        self.records: list[str] = []
        self._con = con
        self._wanted = wanted
        self._partial = partial
        self._joined = joined
        self._there = {str(point.id): point.payload for points in joined.records() for point in points}
        self._taken: set[str] = set()
        self._dims = joined.collection.dims or joined.segment.dims
        self._sized = bool(joined.collection.dims)
        self._queue = Queue(con, joined.collection)

    def take(self, stream: Iterable[list[Point]]) -> None:
        for points in stream:
            for point in points:
                if is_of(self.map, point.payload, self._wanted.users):
                    self._one(self._after(point))

    def _after(self, point: Point) -> Point:
        """Return what a record would be: without what is null, as Chroma has it."""
        payload, vectors, record = point.payload, point.vectors, str(point.id)
        if self._partial and record in self._there:
            payload = self._there[record] | payload
            known = self._joined.vector(record)
            vectors = ({} if known is None else {"": known}) | vectors
        return Point(record, {key: one for key, one in payload.items() if one is not None}, vectors)

    def _one(self, point: Point) -> None:
        record = str(point.id)
        self.records.append(plain_id(record))
        if reason := self._unfit(point):
            self.failed.append(FailedRow(table=self.map.table, id=record, reason=reason))
            return
        self._taken.add(record)
        outcome = self._outcome(record, point)
        self.counts[outcome] += 1
        if outcome in {"updated", "skipped"} and len(self.conflicts) < NAMED:
            self.conflicts.append(f"{self.map.table}:{record}")
        if outcome == "updated":
            self._queue.delete(record)
        if outcome in {"inserted", "updated"}:
            said = json.dumps(_metadata(point.payload), ensure_ascii=False)
            self._queue.put(_ADD, record, point.vectors[""], said)
            self._size(point)

    def _outcome(self, record: str, point: Point) -> str:
        if record not in self._there:
            return "inserted"
        before, vector = self._there[record], self._joined.vector(record)
        if before == point.payload and vector is not None and near(point.vectors[""], vector):
            return "same"
        return "updated" if replaces(self._wanted, self.map, point.payload, before) else "skipped"

    def _size(self, point: Point) -> None:
        """Say how many dimensions an empty collection has from now on."""
        if not self._sized:
            self._dims = len(point.vectors[""]) // 4
            changes = (self._dims, self._joined.collection.id)
            self._con.execute("UPDATE collections SET dimension = ? WHERE id = ?", changes)
            self._sized = True

    def _unfit(self, point: Point) -> str:
        """Return why Chroma would not take a record, "" when it would."""
        import numpy as np

        vector = point.vectors.get("")
        if not str(point.id):
            return "it has no id"
        if str(point.id) in self._taken:
            return "another record that goes in has the same id"
        if not isinstance(vector, bytes) or len(point.vectors) > 1:
            return "it has no vector, or not one"
        dims = len(vector) // 4
        if not dims or (self._dims and dims != self._dims):
            return f"its vector has {dims} dimensions, the collection takes {self._dims or 'some'}"
        if not np.isfinite(np.frombuffer(vector, "<f4")).all():
            return "its vector has elements that are no numbers"
        odd = [key for key, one in _metadata(point.payload).items() if not _is_metadata(key, one)]
        return f"Chroma takes no such value as {odd[0]} has" if odd else ""


def _points(rows: Rows, table: str, failed: list[FailedRow]) -> Iterator[list[Point]]:
    """Yield rows as points; those that are none are added to `failed`."""
    for batch in rows():
        found = []
        for row in batch:
            try:
                found.append(to_point(row | {"id": id_text(row.get("id") or "")}))
            except ValueError as error:
                failed.append(FailedRow(table=table, id=str(row.get("id")), reason=str(error)))
        yield found


def _metadata(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a record's metadata as Chroma has it, the document among it."""
    names = {"document": DOCUMENT, "metadata.document": "document"}
    return {names.get(key, key): one for key, one in payload.items()}


def _is_metadata(key: str, one: Any) -> bool:
    if key == DOCUMENT:
        return isinstance(one, str) and _is_scalar(one)
    if isinstance(one, list):
        kinds = {type(each) for each in one}
        return len(kinds) == 1 and all(_is_scalar(each) for each in one)
    return _is_scalar(one)


def _is_scalar(one: Any) -> bool:
    if isinstance(one, bool):
        return True
    if isinstance(one, int):
        return one in _INTEGERS
    if isinstance(one, float):
        return math.isfinite(one)
    return isinstance(one, str) and _is_text(one)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _topic(con: "apsw.Connection", collection: Collection) -> str:
    """Return what the queue calls a collection, as it does where it has something of it."""
    known = value(con, "SELECT topic FROM embeddings_queue WHERE topic LIKE '%/' || ? LIMIT 1", (collection.id,))
    return str(known or f"persistent://default/default/{collection.id}")

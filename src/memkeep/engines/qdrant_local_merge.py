"""Merge points of an image, or rows, into a collection of Qdrant's local mode, in one transaction of its database.

qdrant-client reads the points only when it starts, so nobody may have the folder open: its lock is held meanwhile.
A row of an image goes in as it is, pickle and all, once it was read as plain data.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.engines import pickle_write, point_rows
from memkeep.engines.merging import NAMED, Counts, FailedRow, Merged, Wanted, is_of, plain_id, replaces
from memkeep.engines.pickles import Floats, PickleError
from memkeep.engines.qdrant_edge import Point, Sparse, Vector
from memkeep.engines.qdrant_local_read import POINT, SPARSE, Reading, Stored, attributes, key_of
from memkeep.engines.rows import Deleted, Gone, Rows
from memkeep.engines.sqlite_sql import connect, query
from memkeep.errors import RefusedError, StoreError, quoted
from memkeep.model import TableMap

if TYPE_CHECKING:
    import apsw

_PUT = "INSERT OR REPLACE INTO points VALUES (?, ?)"


class QdrantLocalMerge:
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
            raise StoreError(f"the points were not merged: {error}", hint="df -h") from error


@contextmanager
def merging(live: Path, rows: Iterable[list[list[Any]]], map_: TableMap, wanted: Wanted) -> Iterator[QdrantLocalMerge]:
    """Merge the rows of an image, the newest first, into a live collection. Raises as `_open` does."""
    with _open(live) as con:
        yield QdrantLocalMerge(con, _Merge(con, sizes(live), map_, wanted).take(rows))


@contextmanager
def merging_rows(live: Path, rows: Rows, map_: TableMap, wanted: Wanted) -> Iterator[QdrantLocalMerge]:
    """Merge rows into a live collection. Raises as `_open` does."""
    with _open(live) as con:
        yield QdrantLocalMerge(con, _Rows(con, sizes(live), map_, wanted).take_rows(rows))


class QdrantLocalDelete:
    """A deletion in an open transaction."""

    def __init__(self, con: "apsw.Connection", table: str, gone: Sequence[Gone]) -> None:
        """Delete the points that are named by their ids."""
        self._con = con
        named = [one for one in gone if one.table == table]
        spelled = {name for one in named if one.spelled for name in one.ids}
        plain = {name for one in named if not one.spelled for name in one.ids}
        rows: list[int] = []
        ids = set()
        for row in con.cursor().execute("SELECT rowid, id, point FROM points"):
            # One by one: an older row of a point, which the newer one hides, must not come to light again.
            for point, stored in next(Reading().stored([[row]])):
                if str(point.id) in spelled or plain_id(point.id) in plain:
                    rows.append(stored.row)
                    ids.add(point.id)
        con.executemany("DELETE FROM points WHERE rowid = ?", ((row,) for row in rows))
        self.result = Deleted(tables={table: len(ids)} if named else {})

    def commit(self) -> None:
        """Make it last."""
        import apsw

        try:
            self._con.execute("COMMIT")
        except apsw.Error as error:
            raise StoreError(f"the points were not deleted: {error}", hint="df -h") from error


@contextmanager
def deleting(live: Path, gone: Sequence[Gone]) -> Iterator[QdrantLocalDelete]:
    """Delete points of a live collection. Raises as `_open` does."""
    with _open(live) as con:
        yield QdrantLocalDelete(con, live.parent.name, gone)


@contextmanager
def _open(live: Path) -> "Iterator[apsw.Connection]":
    """Begin a transaction, which is as if it never was unless it is committed.

    Raises `RefusedError` (`store_open`) while a client has the folder open, `StoreError` when it can't be written.
    """
    import apsw

    with _alone(live.parents[2]):
        try:
            con = connect(live, "mode=rw")
        except apsw.Error as error:
            raise StoreError(f"{live} can't be written: {error}", hint=f"ls -l {quoted(live)}") from error
        try:
            con.execute("BEGIN IMMEDIATE")
            yield con
        except apsw.Error as error:
            raise StoreError(f"{live} can't be written: {error}", hint=f"ls -l {quoted(live)}") from error
        finally:
            con.close()  # which rolls back what was not committed


class _Merge:
    """Finds out what becomes of each row, and does it."""

    def __init__(self, con: "apsw.Connection", sizes: dict[str, int], map_: TableMap, wanted: Wanted) -> None:
        self._con, self._sizes, self._map, self._wanted = con, sizes, map_, wanted
        self._counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        self.failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []

    def take(self, rows: Iterable[list[list[Any]]]) -> Merged:
        reading = Reading()
        for batch in reading.stored(rows):
            for point, stored in batch:
                if self._is_wanted(point):
                    self._one(point, stored)
        self.failed += [FailedRow(table=self._map.table, id=record, reason=why) for record, why in reading.refused]
        return self.result()

    def result(self) -> Merged:
        return Merged(
            tables={self._map.table: Counts(**self._counts)},
            failed=tuple(self.failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records) if self._map.primary else (),
        )

    def _one(self, point: Point, stored: Stored) -> None:
        self._records.append(plain_id(point.id))
        if reason := self._unfit(point):
            self.failed.append(FailedRow(table=self._map.table, id=str(point.id), reason=reason))
            return
        keys = sorted({key_of(point.id), stored.key})
        marks = ", ".join("?" * len(keys))
        sql = f"SELECT rowid, id, point FROM points WHERE id IN ({marks}) ORDER BY rowid DESC"  # noqa: S608 - marks
        there = next((one for some in Reading().stored([query(self._con, sql, tuple(keys))]) for one in some), None)
        point, stored = self._after(point, stored, there and there[1])
        outcome = self._outcome(point, there and there[0])
        self._counts[outcome] += 1
        if outcome in {"updated", "skipped"} and len(self._conflicts) < NAMED:
            self._conflicts.append(f"{self._map.table}:{point.id}")
        if outcome in {"inserted", "updated"}:
            self._con.execute(f"DELETE FROM points WHERE id IN ({marks})", tuple(keys))  # noqa: S608 - marks
            self._con.execute(_PUT, (stored.key, stored.point))

    def _after(self, point: Point, stored: Stored, before: Stored | None) -> tuple[Point, Stored]:  # noqa: ARG002 - rows need it
        """Return what a point becomes that takes the place of another."""
        return point, stored

    def _outcome(self, point: Point, before: Point | None) -> str:
        if before is None:
            return "inserted"
        if before == point:
            return "same"
        return "updated" if replaces(self._wanted, self._map, point.payload, before.payload) else "skipped"

    def _is_wanted(self, point: Point) -> bool:
        return is_of(self._map, point.payload, self._wanted.users)

    def _unfit(self, point: Point) -> str:
        """Return why the client would not take a point, "" when it would."""
        for name, vector in point.vectors.items():
            shown = name or "its vector"
            if name not in self._sizes:
                return f"the collection has no vector {shown}"
            rows = () if isinstance(vector, Sparse) else [vector] if isinstance(vector, bytes) else vector
            if any(len(row) // 4 != self._sizes[name] for row in rows):
                return f"{shown} has {len(rows[0]) // 4} dimensions, the collection takes {self._sizes[name]}"
        return ""


class _Rows(_Merge):
    """Does so with rows, which leave what they do not have as it is."""

    def take_rows(self, rows: Rows) -> Merged:
        for batch in point_rows.points(rows, self._map.table, self.failed):
            for point in batch:
                if self._is_wanted(point):
                    self._row(point)
        return self.result()

    def _row(self, point: Point) -> None:
        """Take in a row, if its pickle can be read again."""
        try:
            self._one(point, _stored(point, {}))
        except (ValueError, RecursionError) as error:
            self.failed.append(FailedRow(table=self._map.table, id=str(point.id), reason=str(error)))

    def _after(self, point: Point, stored: Stored, before: Stored | None) -> tuple[Point, Stored]:
        if before is not None:
            stored = _stored(point, attributes(before))
        reading = Reading()
        found = [point for batch in reading.points([[stored]]) for point in batch]
        if not found:
            raise PickleError(reading.refused[0][1])
        return found[0], stored


def _stored(point: Point, before: dict[str, Any]) -> Stored:
    """Return the row of a point, with what it does not have as it was before. Raises `ValueError`."""
    said = before.get("vector") or {}
    vectors = (said if isinstance(said, dict) else {"": said}) | {
        name: _numbers(vector) for name, vector in point.vectors.items()
    }
    held = {
        "id": point.id,
        "vector": vectors[""] if list(vectors) == [""] else vectors,
        "payload": (before.get("payload") or {}) | point.payload,
    }
    return Stored(0, key_of(point.id), pickle_write.dumps(pickle_write.instance(POINT, held)))


def _numbers(vector: Vector) -> Any:
    import numpy as np

    if isinstance(vector, Sparse):
        return pickle_write.instance(SPARSE, {"indices": [*vector.indices], "values": [*vector.values]})
    if isinstance(vector, bytes):
        return [Floats(np.frombuffer(vector, "<f4"))]
    return [[Floats(np.frombuffer(row, "<f4"))] for row in vector]


def sizes(live: Path) -> dict[str, int]:
    """Return the dimensions of each vector of a collection, as `meta.json` has them; 0 for a sparse one."""
    said = _settings(live)
    return {name: int(one["size"]) for name, one in said[0].items()} | dict.fromkeys(said[1], 0)


def distances(live: Path) -> dict[str, str]:
    """Return the distance of each vector of a collection, as `meta.json` has them."""
    return {name: str(one["distance"]) for name, one in _settings(live)[0].items()}


def _settings(live: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of each vector, and the names of the sparse ones; `StoreError` when nothing tells."""
    meta = live.parents[2] / "meta.json"
    try:
        said = json.loads(meta.read_bytes())["collections"][live.parent.name]
        vectors = said["vectors"] or {}
        named = {"": vectors} if "size" in vectors else vectors
        settings = {name: {"size": int(one["size"]), "distance": one["distance"]} for name, one in named.items()}
        return settings, [*(said.get("sparse_vectors") or ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{meta} does not say what {live.parent.name} takes", hint=f"cat {quoted(meta)}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep clients from opening a folder, as they do each other."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no client ever opened it here
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        message = f"{folder} is open in a process, which would not see what is merged"
        raise RefusedError(message, hint="stop the agent and run this again", code="store_open") from None
    finally:
        os.close(descriptor)

"""Merge points of an image into a collection of Qdrant's local mode, in one transaction of its database.

qdrant-client reads the points only when it starts, so nobody may have the folder open: its lock is held meanwhile.
A row goes in as it is, pickle and all, once it was read as plain data.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.engines.merging import Counts, FailedRow, Merged, Wanted, later, plain_id
from memkeep.engines.qdrant_edge import Point, Sparse
from memkeep.engines.qdrant_local_read import Reading, Stored, key_of
from memkeep.engines.sqlite_sql import connect, query
from memkeep.errors import RefusedError, StoreError
from memkeep.model import TableMap

if TYPE_CHECKING:
    import apsw

_NAMED = 20  # conflicts that are named
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
    """Merge the rows of an image, the newest first, into a live collection.

    Raises `RefusedError` (`store_open`) while a client has the folder open, `StoreError` when it can't be written.
    """
    import apsw

    with _alone(live.parents[2]):
        try:
            con = connect(live, "mode=rw")
        except apsw.Error as error:
            raise StoreError(f"{live} can't be written: {error}", hint=f"ls -l {live}") from error
        try:
            con.execute("BEGIN IMMEDIATE")
            yield QdrantLocalMerge(con, _Merge(con, _sizes(live), map_, wanted).take(rows))
        except apsw.Error as error:
            raise StoreError(f"{live} can't be written: {error}", hint=f"ls -l {live}") from error
        finally:
            con.close()  # which rolls back what was not committed


class _Merge:
    """Finds out what becomes of each row, and does it."""

    def __init__(self, con: "apsw.Connection", sizes: dict[str, int], map_: TableMap, wanted: Wanted) -> None:
        self._con, self._sizes, self._map, self._wanted = con, sizes, map_, wanted
        self._counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        self._failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []

    def take(self, rows: Iterable[list[list[Any]]]) -> Merged:
        reading = Reading()
        for batch in reading.stored(rows):
            for point, stored in batch:
                if self._is_wanted(point):
                    self._one(point, stored)
        self._failed += [FailedRow(table=self._map.table, id=record, reason=why) for record, why in reading.refused]
        return Merged(
            tables={self._map.table: Counts(**self._counts)},
            failed=tuple(self._failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records) if self._map.primary else (),
        )

    def _one(self, point: Point, stored: Stored) -> None:
        self._records.append(plain_id(point.id))
        if reason := self._unfit(point):
            self._failed.append(FailedRow(table=self._map.table, id=str(point.id), reason=reason))
            return
        keys = sorted({key_of(point.id), stored.key})
        marks = ", ".join("?" * len(keys))
        sql = f"SELECT rowid, id, point FROM points WHERE id IN ({marks}) ORDER BY rowid DESC"  # noqa: S608 - marks
        there = next((one for some in Reading().points([query(self._con, sql, tuple(keys))]) for one in some), None)
        outcome = self._outcome(point, there)
        self._counts[outcome] += 1
        if outcome in {"updated", "skipped"} and len(self._conflicts) < _NAMED:
            self._conflicts.append(f"{self._map.table}:{point.id}")
        if outcome in {"inserted", "updated"}:
            self._con.execute(f"DELETE FROM points WHERE id IN ({marks})", tuple(keys))  # noqa: S608 - marks
            self._con.execute(_PUT, (stored.key, stored.point))

    def _outcome(self, point: Point, before: Point | None) -> str:
        if before is None:
            return "inserted"
        if before == point:
            return "same"
        replaces = self._wanted.conflict == "update" or (
            self._wanted.conflict == "newer" and later(self._map, point.payload, before.payload)
        )
        return "updated" if replaces else "skipped"

    def _is_wanted(self, point: Point) -> bool:
        user = self._map.fields.get("user") or self._map.fields.get("scope")
        users = self._wanted.users
        return users is None or (user is not None and str(point.payload.get(user)) in users)

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


def _sizes(live: Path) -> dict[str, int]:
    """Return the dimensions of each vector of a collection, as `meta.json` has them; 0 for a sparse one."""
    meta = live.parents[2] / "meta.json"
    try:
        said = json.loads(meta.read_bytes())["collections"][live.parent.name]
        vectors = said["vectors"] or {}
        named = {"": vectors} if "size" in vectors else vectors
        sizes = {name: int(one["size"]) for name, one in named.items()}
        return sizes | dict.fromkeys(said.get("sparse_vectors") or {}, 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{meta} does not say what {live.parent.name} takes", hint=f"cat {meta}") from error


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

"""Merge points of an image, or rows, into a live collection.

Qdrant has no transactions: what would change is found out first, point by point, and what could be refused (a vector
of another size) is seen then; `commit` writes, and puts back what it has written when the server fails in between.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from memkeep.engines import qdrant_write
from memkeep.engines.merging import NAMED, Counts, FailedRow, Merged, Wanted, is_of, plain_id, replaces
from memkeep.engines.point_rows import together, unfit
from memkeep.engines.qdrant_edge import Point, Sparse, Vector
from memkeep.engines.qdrant_http import Server
from memkeep.engines.qdrant_image import vectors_of
from memkeep.engines.qdrant_rebuild import Streams, near
from memkeep.errors import StoreError
from memkeep.model import TableMap

_BATCH = 100  # points a request


class QdrantMerge:
    """What of an image goes into a collection."""

    def __init__(self, server: Server, streams: Streams, map_: TableMap, wanted: Wanted) -> None:
        """Find out; nothing is written yet."""
        self._server = server
        self._streams = streams
        self._map = map_
        self._wanted = wanted
        config = server.get(server.where.path)["config"]
        self._vectors = vectors_of(config)
        self._sparse = set(config["params"].get("sparse_vectors") or {})
        self._taken: set[int | str] = set()  # ids of the points that go in
        counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        failed: list[FailedRow] = []
        conflicts: list[str] = []
        records: list[str] = []
        for batch in self._chosen():
            there = self._there([point.id for point in batch])
            for point in batch:
                records.append(plain_id(point.id))
                if reason := self._unfit(point):
                    failed.append(FailedRow(table=map_.table, id=str(point.id), reason=reason))
                    continue
                outcome = self._outcome(point, there.get(point.id))
                counts[outcome] += 1
                if outcome in {"inserted", "updated"}:
                    self._taken.add(point.id)
                if outcome in {"updated", "skipped"} and len(conflicts) < NAMED:
                    conflicts.append(f"{map_.table}:{point.id}")
        self.result = Merged(
            tables={map_.table: Counts(**counts)},
            failed=tuple(failed),
            conflicts=tuple(conflicts),
            records=tuple(records) if map_.primary else (),
        )

    def commit(self) -> None:
        """Write the points."""
        done: list[tuple[list[Point], dict[int | str, Point]]] = []
        missing = len(self._taken)
        try:
            for batch in self._chosen():
                points = [point for point in batch if point.id in self._taken]
                if points:
                    before = self._there([point.id for point in points])
                    done.append((points, before))
                    after = [self.after(point, before.get(point.id)) for point in points]
                    qdrant_write.put(self._server, [after], None)
                    missing -= len(points)
            if missing:
                raise StoreError(f"{missing} of them were not there any more when they were read again")  # noqa: TRY301
        except StoreError as error:
            try:
                for points, before in reversed(done):
                    self._put_back(points, before)
            except StoreError:
                raise StoreError(
                    f"only some of the points were merged: {error.message}",
                    unchanged="What the store was is in the vault, as the latest snapshot with the tag before-restore.",
                    hint="memkeep snapshots --tag before-restore",
                    code=error.code,
                ) from error
            raise StoreError(
                f"the points were not merged: {error.message}", hint=error.hint, code=error.code
            ) from error

    def after(self, point: Point, before: Point | None) -> Point:  # noqa: ARG002 - others need it
        """Return what a point becomes that takes the place of another."""
        return point

    def _put_back(self, points: Sequence[Point], before: dict[int | str, Point]) -> None:
        new = [point.id for point in points if point.id not in before]
        if new:
            self._server.send("POST", f"{self._server.where.path}/points/delete", {"points": new}, wait="true")
        if before:
            qdrant_write.put(self._server, [list(before.values())], None)

    def _chosen(self) -> Iterator[list[Point]]:
        """Yield the wanted points of the image, in batches."""
        waiting: list[Point] = []
        for point in chain.from_iterable(chain.from_iterable(self._streams())):
            if is_of(self._map, point.payload, self._wanted.users):
                waiting.append(point)
            if len(waiting) == _BATCH:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _there(self, ids: Sequence[int | str]) -> dict[int | str, Point]:
        """Return those of the points that the server has."""
        body = {"ids": list(ids), "with_payload": True, "with_vector": True}
        found = self._server.send("POST", f"{self._server.where.path}/points", body)
        return {one["id"]: Point(one["id"], one.get("payload") or {}, _vectors(one.get("vector"))) for one in found}

    def _unfit(self, point: Point) -> str:
        """Return why the collection would refuse a point, "" when it would not."""
        if reason := unfit(point.payload):
            return f"its payload can't be sent: {reason}"
        return next(filter(None, (self._unfit_vector(*each) for each in point.vectors.items())), "")

    def _unfit_vector(self, name: str, vector: Vector) -> str:
        import numpy as np

        shown = name or "its vector"
        if isinstance(vector, Sparse):
            return "" if name in self._sparse else f"the collection has no sparse vector {shown}"
        if name not in self._vectors:
            return f"the collection has no vector {shown}"
        rows = [vector] if isinstance(vector, bytes) else vector
        takes = int(self._vectors[name]["size"])
        if wrong := [len(row) // 4 for row in rows if len(row) // 4 != takes]:
            return f"{shown} has {wrong[0]} dimensions, the collection takes {takes}"
        one = isinstance(vector, bytes)
        if one == ("multivector_config" in self._vectors[name]):
            return (
                f"{shown} is {'one vector' if one else 'several'}, the collection takes {'several' if one else 'one'}"
            )
        finite = all(np.isfinite(np.frombuffer(row, "<f4")).all() for row in rows)
        return "" if finite else f"{shown} has elements that are no numbers"

    def _outcome(self, point: Point, before: Point | None) -> str:
        if before is None:
            return "inserted"
        after = self.after(point, before)
        same = after.vectors.keys() == before.vectors.keys() and all(
            near(self._kept(name, vector), before.vectors[name]) for name, vector in after.vectors.items()
        )
        if same and after.payload == before.payload:
            return "same"
        return "updated" if replaces(self._wanted, self._map, point.payload, before.payload) else "skipped"

    def _kept(self, name: str, vector: Vector) -> Vector:
        """Return a vector as the server keeps it."""
        if isinstance(vector, Sparse):
            return vector
        settings = self._vectors[name]
        rows = [_kept(row, settings) for row in ([vector] if isinstance(vector, bytes) else vector)]
        return rows[0] if isinstance(vector, bytes) else tuple(rows)


class QdrantRows(QdrantMerge):
    """Rows, which leave what they do not have as it is."""

    def after(self, point: Point, before: Point | None) -> Point:
        """Return a point with what was there beside it."""
        return point if before is None else together(point, before)


def _kept(vector: bytes, settings: dict[str, Any]) -> bytes:
    import numpy as np

    numbers = np.frombuffer(vector, "<f4")
    if settings["distance"] == "Cosine":
        length = float(np.linalg.norm(numbers.astype(np.float64)))
        numbers = (numbers / length).astype("<f4") if length else numbers
    kinds = {"float16": "<f2", "uint8": "u1"}
    if (kind := kinds.get(settings.get("datatype") or "")) is not None:
        with np.errstate(all="ignore"):
            numbers = numbers.astype(kind).astype("<f4")
    return numbers.tobytes()


def _vectors(found: Any) -> dict[str, Vector]:
    """Return vectors as the server's JSON has them."""
    if found is None:
        return {}
    named = found if isinstance(found, dict) else {"": found}
    return {name: _vector(one) for name, one in named.items()}


def _vector(found: Any) -> Vector:
    import numpy as np

    if isinstance(found, dict):
        return Sparse(tuple(found["indices"]), tuple(np.asarray(found["values"], "<f4").tolist()))
    if found and isinstance(found[0], list):
        return tuple(np.asarray(row, "<f4").tobytes() for row in found)
    return np.asarray(found, "<f4").tobytes()

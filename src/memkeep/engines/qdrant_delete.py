"""Delete points of a live collection; what was deleted is put back when the server fails in between."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from memkeep.engines.qdrant_http import Server
from memkeep.engines.qdrant_image import at_most
from memkeep.engines.rows import Deleted, Gone
from memkeep.errors import StoreError

_BATCH = 100  # points a request
_DIGITS = 20  # of the largest number that is an id


class QdrantDelete:
    """What a collection is to lose."""

    def __init__(self, server: Server, gone: Sequence[Gone]) -> None:
        """Find out; nothing is deleted yet."""
        self._server = server
        table = server.where.collection
        named = [one for one in gone if one.table == table and "id" in one.columns]
        wanted = {made for one in named for name in one.ids if (made := _id(name)) is not None}
        self._ids = [point["id"] for batch in self._there(sorted(wanted, key=str)) for point in batch]
        self.result = Deleted(tables={table: len(self._ids)} if named else {})

    def commit(self) -> None:
        """Delete the points."""
        done: list[list[Any]] = []
        try:
            for points in self._there(self._ids):
                done.append(points)
                self._send("POST", "points/delete", {"points": [point["id"] for point in points]})
        except StoreError as error:
            try:
                size = at_most(self._server.get(self._server.where.path)["config"], _BATCH, "upsert_max_batchsize")
                for points in done:
                    for at in range(0, len(points), size):
                        self._send("PUT", "points", {"points": points[at : at + size]})
            except StoreError:
                raise StoreError(
                    f"only some of the points were deleted: {error.message}",
                    unchanged="What the store was is in the vault, as the latest snapshot with the tag before-restore.",
                    hint="memkeep snapshots --tag before-restore",
                    code=error.code,
                ) from error
            raise StoreError(
                f"the points were not deleted: {error.message}", hint=error.hint, code=error.code
            ) from error

    def _there(self, ids: Sequence[int | str]) -> Iterator[list[Any]]:
        """Yield those of the points that the server has, as it has them."""
        for start in range(0, len(ids), _BATCH):
            body = {"ids": list(ids[start : start + _BATCH]), "with_payload": True, "with_vector": True}
            yield [
                {"id": one["id"], "payload": one.get("payload") or {}, "vector": one.get("vector") or {}}
                for one in self._server.send("POST", f"{self._server.where.path}/points", body)
            ]

    def _send(self, method: str, what: str, body: object) -> None:
        self._server.send(method, f"{self._server.where.path}/{what}", body, wait="true")


def _id(name: str) -> int | str | None:
    """Return an id, in any spelling, as the server knows it; None for what is no id."""
    if name.isdecimal() and len(name) <= _DIGITS:
        return int(name)
    with suppress(ValueError):
        return str(UUID(name))
    return None

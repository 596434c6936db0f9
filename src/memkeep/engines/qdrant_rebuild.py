"""Putting a collection's image into a server: what comes of it is read back and compared before it counts.

Qdrant renames no collections. Where none is yet, it is made in its place, and removed again when it is not equal to
the image. One that is there is only touched after all has gone well with a temporary collection beside it: then its
shards are replaced, each in one step of the server; or, when its settings are others, it is made anew. Until that has
gone well too the temporary one stays, so that a crash leaves the one or the other.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from heapq import merge
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from memkeep.engines import qdrant_write
from memkeep.engines.base import Rebuilt
from memkeep.engines.qdrant_edge import Point, Sparse, Vector
from memkeep.engines.qdrant_freeze import describe
from memkeep.engines.qdrant_http import Address, Server
from memkeep.engines.qdrant_image import CollectionImage
from memkeep.errors import RefusedError, StoreError, quoted
from memkeep.events import Events
from memkeep.model import Finding, Severity, Value

_ROUNDING = 1e-6  # of a vector that was brought to unit length twice
_PASSED_ON = ("store_denied", "store_unreachable")

Streams = Callable[[], list[Iterator[list[Point]]]]
"""Begins to read a collection: the batches of each of its shards, in the order of the ids."""

Look = Callable[[Address, Path], Streams]
"""Freezes a collection of a server into a folder, to be read."""


class _Equal(Value):
    """How two collections compare."""

    rows: int
    rounded: int  # points whose vectors differ by a rounding


class Rebuilder:
    """Puts one image into one server."""

    def __init__(self, folder: Path, image: CollectionImage, streams: Streams, look: Look, events: Events) -> None:
        """Begin; the image lies in `folder`, `streams` reads it."""
        self._folder = folder
        self._image = image
        self._streams = streams
        self._look = look
        self._events = events
        self._findings: list[Finding] = []

    def rebuild(self, where: Address, *, replace: bool) -> Rebuilt:
        """Make the collection. Raises `RefusedError` (`target_exists`) and `StoreError`."""
        with Server(where) as server:
            there = existing(server)
            if there and not replace:
                raise RefusedError(
                    f"there is a collection {where.collection} at {where.base} already",
                    hint="choose another name, or restore --in-place, which keeps what is there first",
                    code="target_exists",
                )
            if there is not None and there != where.collection:
                raise RefusedError(
                    f"{where.collection} is an alias of {there}: it can't be replaced",
                    hint=f"restore into {there}",
                    code="target_exists",
                )
            equal = self._replace(server) if there else self._make(server)
            self._name(server)
        for number in self._image.missing:
            self._note("qdrant_shard_missing", f"shard {number} is not in the snapshot: its points are not restored")
        if equal.rounded:
            self._note("qdrant_rounded", f"{equal.rounded} points have vectors that differ by a rounding of float32")
        return Rebuilt(rows=equal.rows, findings=tuple(self._findings))

    def _make(self, server: Server) -> _Equal:
        """Make a collection that is not there yet, by upload or else point by point; nothing stays of a failure."""
        try:
            with _made_or_gone(server):
                self._create(server)
                qdrant_write.upload(server, self._folder, self._image, self._events)
                qdrant_write.index(server, self._image)
                return self._compare(server)
        except StoreError as error:
            if error.code in _PASSED_ON:
                raise
            why = error.message
        with _made_or_gone(server):
            self._create(server)
            for shard, points in zip(self._image.shards, self._streams(), strict=True):
                qdrant_write.put(server, points, shard.key)
            qdrant_write.index(server, self._image)
            equal = self._compare(server)
        self._note("qdrant_as_points", f"{self._image.collection} was restored point by point: {why}")
        return equal

    def _replace(self, server: Server) -> _Equal:
        """Try all beside what is there, then replace it."""
        with Server(qdrant_write.beside(server.where)) as aside:
            equal = self._make(aside)
            try:
                self._put_in_place(server)
            except StoreError as error:
                raise StoreError(
                    f"{server.where.collection} was not replaced: {error.message}",
                    unchanged=f"All of it is in the collection {aside.where.collection} of the same server.",
                    hint=error.hint,
                ) from error
            except BaseException:
                self._events.note(f"all of it is in the collection {aside.where.collection} of the same server")
                raise
            aside.send("DELETE", aside.where.path)
        return equal

    def _put_in_place(self, server: Server) -> None:
        config, _, aliases = describe(server)
        if config == self._image.config and not self._findings:
            try:
                qdrant_write.upload(server, self._folder, self._image, self._events)
                qdrant_write.index(server, self._image)
                self._compare(server)
            except StoreError as error:
                if error.code in _PASSED_ON:
                    raise
            else:
                return
        server.send("DELETE", server.where.path)
        self._make(server)
        qdrant_write.alias(server, aliases)

    def _create(self, server: Server) -> None:
        if not qdrant_write.create(server, self._image):
            self._note("qdrant_settings", f"the server did not take all settings of {self._image.collection}")

    def _compare(self, server: Server) -> _Equal:
        """Read the collection back; raises `StoreError` when it is not equal to the image."""
        self._events.step("comparing")
        with tempfile.TemporaryDirectory(prefix=".memkeep-qdrant-", dir=self._folder.parent) as folder:
            there = self._look(server.where, Path(folder))
            return compare(self._streams(), there())

    def _name(self, server: Server) -> None:
        """Give the collection its aliases."""
        for name in qdrant_write.alias(server, self._image.aliases):
            self._note("qdrant_alias", f"the alias {name} names another collection, and still does")

    def _note(self, code: str, message: str) -> None:
        finding = Finding(
            code=code, severity=Severity.WARNING, part=f"qdrant/{self._image.collection}", message=message
        )
        if finding not in self._findings:
            self._findings.append(finding)


def existing(server: Server) -> str | None:
    """Return the collection that a name means, itself or by an alias; None when there is none."""
    name = server.where.collection
    aliases = {one["alias_name"]: one["collection_name"] for one in server.get("/aliases")["aliases"]}
    names = {one["name"] for one in server.get("/collections")["collections"]}
    return name if name in names else aliases.get(name)


def compare(image: list[Iterator[list[Point]]], there: list[Iterator[list[Point]]]) -> _Equal:
    """Compare two collections point by point; raises `StoreError` at the first difference."""
    rows = rounded = 0
    with ExitStack() as stack:
        for stream in (*image, *there):
            if hasattr(stream, "close"):
                stack.callback(stream.close)
        for ours, theirs in zip_longest(_ordered(image), _ordered(there)):
            if ours is None or theirs is None or ours.id != theirs.id:
                which = min((one for one in (ours, theirs) if one is not None), key=_place).id
                raise _different(f"point {which} is only in one of both")
            if ours.payload != theirs.payload:
                raise _different(f"the payload of point {ours.id} is another")
            if ours.vectors != theirs.vectors:
                if ours.vectors.keys() != theirs.vectors.keys() or not all(
                    near(vector, theirs.vectors[name]) for name, vector in ours.vectors.items()
                ):
                    raise _different(f"a vector of point {ours.id} is another")
                rounded += 1
            rows += 1
    return _Equal(rows=rows, rounded=rounded)


def _ordered(streams: list[Iterator[list[Point]]]) -> Iterator[Point]:
    return merge(*(chain.from_iterable(stream) for stream in streams), key=_place)


def _place(point: Point) -> tuple[bool, Any]:
    return isinstance(point.id, str), point.id


def near(ours: Vector, theirs: Vector) -> bool:
    """Say whether two vectors are equal but for a rounding."""
    import numpy as np

    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, Sparse) or isinstance(theirs, Sparse):
        return sorted(zip(*ours, strict=True)) == sorted(zip(*theirs, strict=True))
    mine = np.frombuffer(ours if isinstance(ours, bytes) else b"".join(ours), "<f4")
    other = np.frombuffer(theirs if isinstance(theirs, bytes) else b"".join(theirs), "<f4")
    return mine.shape == other.shape and bool(np.allclose(mine, other, rtol=_ROUNDING, atol=_ROUNDING / 10))


def _different(what: str) -> StoreError:
    return StoreError(f"what the server has is not what the snapshot has: {what}", code="target_differs")


@contextmanager
def _made_or_gone(server: Server) -> Iterator[None]:
    """Remove the collection again when something fails; say that it may be there when that fails too."""
    try:
        yield
    except BaseException as error:
        try:
            server.send("DELETE", server.where.path)
        except StoreError as stays:
            nothing = stays.code == "store_missing" or getattr(error, "code", "") == stays.code == "store_denied"
            if isinstance(error, StoreError) and not nothing:
                begun = server.where.collection
                error.unchanged = f"What was there is as it was. The collection {begun} may be left, half made."
                error.hint = f"curl -X DELETE {quoted(server.where.base + server.where.path)}   # later"
        raise

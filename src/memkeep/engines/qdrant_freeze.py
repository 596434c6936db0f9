"""Holding one moment of a collection: the snapshot of every shard, streamed, and what belongs to it.

A streamed snapshot is one moment of its shard and leaves nothing on the server. But while the server optimises, points
that were deleted since the optimisation began come back in it (seen with 1.16.3). So a quiet instant is waited for; if
there is none, the ids that the server has before and after tell which points these are.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from memkeep import clock as time
from memkeep.engines import qdrant_image, qdrant_nodes, qdrant_tar
from memkeep.engines.qdrant_http import Address, Server
from memkeep.engines.qdrant_ids import Places, UnknownLayoutError
from memkeep.engines.qdrant_image import CollectionImage, ShardImage, at_most
from memkeep.engines.qdrant_nodes import Clock, Where
from memkeep.errors import StoreError
from memkeep.model import Finding, Omission, Severity, Value

T = TypeVar("T")
UNREAD = "part_unread"
_TRIES = 3
_PATIENCE = 3.0  # seconds for the server to be done with an optimisation
_POLL = 0.05
_LISTED = 10_000  # ids a request


class Frozen(Value):
    """One moment of a collection, unpacked."""

    image: CollectionImage
    clocks: dict[int, Clock]
    findings: tuple[Finding, ...] = ()
    omitted: tuple[Omission, ...] = ()


class Freezer:
    """Takes the snapshots of one collection."""

    def __init__(self, where: Address, part: str, folder: Path) -> None:
        """Begin; the image will lie in `folder`."""
        self._where = where
        self._part = part
        self._folder = folder
        self._findings: list[Finding] = []
        self._omitted: list[Omission] = []
        self._clocks: dict[int, Clock] = {}

    def freeze(self) -> Frozen:
        """Ask every shard where it lies. Raises `StoreError` when none, or the server itself, can be read."""
        with ExitStack() as stack:
            server = stack.enter_context(Server(self._where))
            version = server.version()
            before = describe(server)
            shards = qdrant_nodes.shards(server)
            for attempt in range(_TRIES):
                self._findings, self._omitted, self._clocks = [], [], {}
                shutil.rmtree(self._folder, ignore_errors=True)
                taken = [self._one(shard) for shard in shards]
                after = self._after(server)
                if after is not None and after != before and attempt < _TRIES - 1:
                    before = after
                    continue
                if len(shards) == 1 or self._together():
                    break
            else:
                self._note(
                    "qdrant_shards_apart",
                    "was written to while its shards were read one after another: each shard is one moment, not all "
                    "of them together",
                    "back up again at a quieter time",
                )
        config, indexes, aliases = before
        kept = tuple(shard for shard in taken if shard is not None)
        if not kept:
            raise StoreError(f"no shard of {self._where.url} could be read", hint=f"curl {self._where.base}/cluster")
        image = CollectionImage(
            collection=self._where.collection,
            version=version,
            config=config,
            indexes=indexes,
            aliases=aliases,
            shards=kept,
            missing=tuple(shard.id for shard, one in zip(shards, taken, strict=True) if one is None),
        )
        qdrant_image.write(self._folder, image)
        return Frozen(image=image, clocks=self._clocks, findings=tuple(self._findings), omitted=tuple(self._omitted))

    def _after(self, server: Server) -> tuple[Any, ...] | None:
        """Describe the collection again; None when it has just been removed: what was read is whole."""
        try:
            return describe(server)
        except StoreError as error:
            if error.code != "store_missing":
                raise
        self._note("qdrant_gone", "was removed from the server after it was read", "keep this snapshot")
        return None

    def _one(self, shard: Where) -> ShardImage | None:
        """Read a shard from the first node that gives it; what cannot be read is said."""
        why = "no node has a whole copy of it"
        for node in shard.nodes:
            try:
                with Server(node) as server:
                    return self._read(server, shard)
            except StoreError as error:
                if node is self._where:
                    raise
                why = error.message
                shutil.rmtree(qdrant_image.shard_folder(self._folder, shard.id), ignore_errors=True)
        name = f"{self._part}/{qdrant_image.SHARDS}/{shard.id}"
        self._omitted.append(Omission(part=name, reason=why))
        self._findings.append(
            Finding(
                code=UNREAD,
                severity=Severity.ERROR,
                part=self._part,
                message=f"shard {shard.id} of {self._where.collection} could not be read: {why}",
                mend=f"curl {self._where.base}/cluster",
            )
        )
        return None

    def _read(self, server: Server, shard: Where) -> ShardImage:
        """Take a snapshot in an instant without an optimisation; when there is none for a while, sift one."""
        start = time.monotonic()
        while time.monotonic() - start < _PATIENCE:
            before = qdrant_nodes.clock(server, shard.id)
            if before.busy:
                time.pause(_POLL)
                continue

            def still_quiet(before: Clock = before) -> Clock | None:
                now = qdrant_nodes.clock(server, shard.id)
                return before if now.work == before.work and not now.busy else None

            if self._stream(server, shard.id, still_quiet) is not None:
                self._clocks[shard.id] = before
                return ShardImage(id=shard.id, key=shard.key)
        return self._sift(server, shard)

    def _sift(self, server: Server, shard: Where) -> ShardImage:
        """Take a snapshot from a server that is optimising; find the deleted points that came back in it."""
        for _ in range(_TRIES):
            self._clocks[shard.id] = now = qdrant_nodes.clock(server, shard.id)
            before, after = set(_ids(server)), self._stream(server, shard.id, lambda: set(_ids(server))) or set()
            folder = qdrant_image.shard_folder(self._folder, shard.id)
            try:
                there = Places(sorted(one / "files" for one in (folder / "segments").iterdir())).versions()
            except (OSError, UnknownLayoutError):
                self._note("qdrant_optimising", "was being optimised: points deleted just before may be back in it", "")
                return ShardImage(id=shard.id, key=shard.key)
            gone = {point: version for point, version in there.items() if point not in after}
            back = [point for point, version in gone.items() if point not in before and version <= (now.version or 0)]
            if not (doubtful := len(gone) - len(back)):
                break
        if doubtful:
            self._note(
                "qdrant_optimising",
                f"was being optimised, and {doubtful} points were deleted in the same instant: the snapshot has them",
                "back up again at a quieter time",
            )
        return ShardImage(id=shard.id, key=shard.key, deleted=tuple(sorted(back, key=str)))

    def _stream(self, server: Server, shard: int, begun: Callable[[], T | None]) -> T | None:
        """Unpack a shard's snapshot; return what `begun` gives as soon as its moment is fixed: None stops it all."""
        folder = qdrant_image.shard_folder(self._folder, shard)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            with server.stream(f"{server.where.path}/shards/{shard}/snapshot") as buffers:
                first = next(buffers, b"")
                if (told := begun()) is not None:
                    qdrant_tar.unpack(chain((first,), buffers), folder)
        except OSError as error:
            raise StoreError(f"the snapshot of {self._where.url} could not be unpacked: {error.strerror}") from error
        return told

    def _together(self) -> bool:
        """Say whether no shard was written to since the first was read."""
        shards = {shard: known for shard, known in self._clocks.items() if known.version is not None}
        return bool(shards) and not moved(self._where, shards)

    def _note(self, code: str, message: str, mend: str) -> None:
        message = f"{self._where.collection} {message}"
        self._findings.append(
            Finding(code=code, severity=Severity.WARNING, part=self._part, message=message, mend=mend or None)
        )


def describe(server: Server) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Return a collection's settings, its payload indexes and its aliases. Raises `StoreError`."""
    try:
        told = server.get(server.where.path)
    except StoreError as error:
        if error.code != StoreError.code or (known := _known_here(server)) is None:
            raise
        told = known  # a node of the cluster is away
    indexes = {key: index.get("params") or index["data_type"] for key, index in sorted(told["payload_schema"].items())}
    aliases = server.get(f"{server.where.path}/aliases")["aliases"]
    return told["config"], indexes, tuple(sorted(alias["alias_name"] for alias in aliases))


def _known_here(server: Server) -> dict[str, Any] | None:
    """Return what one node knows of a collection by itself, in the form of its description."""
    for one in server.get("/telemetry", details_level="6")["collections"]["collections"]:
        if one["id"] == server.where.collection:
            local = [shard["local"] for shard in one["shards"] if shard.get("local")]
            schemas = [segment["info"]["index_schema"] for shard in local for segment in shard["segments"]]
            config = {name: value for name, value in one["config"].items() if name != "uuid"}
            return {"config": config, "payload_schema": {key: schema[key] for schema in schemas for key in schema}}
    return None


def moved(where: Address, clocks: dict[int, Clock]) -> bool:
    """Say whether a shard was written to since its clock was read; no when nobody can tell any more."""
    try:
        with Server(where) as server:
            for shard in qdrant_nodes.shards(server):
                if (known := clocks.get(shard.id)) is not None:
                    with Server(shard.nodes[0]) as node:
                        if qdrant_nodes.clock(node, shard.id).version != known.version:
                            return True
    except (StoreError, IndexError):
        return False
    return False


def _ids(server: Server) -> Iterator[int | str]:
    """Yield the ids of all points that the server has."""
    offset = None
    limit = at_most(server.get(server.where.path)["config"], _LISTED, "max_query_limit")
    while True:
        body = {"limit": limit, "with_payload": False, "with_vector": False, "offset": offset}
        found = server.send("POST", f"{server.where.path}/points/scroll", body)
        yield from (point["id"] for point in found["points"])
        if (offset := found["next_page_offset"]) is None:
            return

"""Where the shards of a collection lie, what state they are in, and whether they have changed.

There is no counter of writes to ask for, but `GET .../snapshot/partial/manifest` tells the number of the last write of
every segment of a shard: the highest of them is the shard's clock. `GET .../optimizations` tells which optimisations
are running and were, since 1.16; before that a collection is `yellow` while one is, or while a snapshot is taken.
"""

from typing import Any
from urllib.parse import urlsplit

from memkeep.engines.qdrant_http import Address, Server
from memkeep.errors import StoreError
from memkeep.model import Value

ACTIVE = "Active"
_BUSY = "yellow"


class Where(Value):
    """A shard, and the nodes that have a whole copy of it, the asked one first."""

    id: int
    key: str | int | None = None
    nodes: tuple[Address, ...] = ()


class Clock(Value):
    """How far a shard is."""

    version: int | None = None  # None: the server does not tell
    busy: bool = False  # an optimisation is running
    work: frozenset[str] = frozenset()  # when each optimisation began that the server remembers


def shards(server: Server) -> list[Where]:
    """Return all shards of a collection, in order."""
    here = server.where
    told = server.get(f"{here.path}/cluster")
    peers = (server.get("/cluster") or {}).get("peers") or {}
    nodes: dict[int, list[Address]] = {}
    keys: dict[int, str | int | None] = {}
    for shard in [*told["local_shards"], *told["remote_shards"]]:
        keys[shard["shard_id"]] = shard.get("shard_key")
        found = nodes.setdefault(shard["shard_id"], [])
        if shard["state"] != ACTIVE:
            continue
        if "peer_id" not in shard:
            found.append(here)
        elif host := urlsplit(peers.get(str(shard["peer_id"]), {}).get("uri", "")).hostname:
            found.append(here.on(host))
    return [Where(id=number, key=keys[number], nodes=tuple(nodes[number])) for number in sorted(nodes)]


def clock(server: Server, shard: int) -> Clock:
    """Read a shard's clock, on the node that has it."""
    path = server.where.path
    segments = _unless_missing(server, f"{path}/shards/{shard}/snapshot/partial/manifest")
    versions = [segment["segment_version"] for segment in (segments or {}).values()]
    known = _unless_missing(server, f"{path}/optimizations", completed="true")
    if known is None:
        return Clock(version=max(versions, default=None), busy=server.get(path)["status"] == _BUSY)
    work = frozenset(one["started_at"] for one in (*known["ongoing"], *known.get("completed", ())))
    return Clock(version=max(versions, default=None), busy=bool(known["ongoing"]), work=work)


def _unless_missing(server: Server, path: str, **params: str) -> Any:
    """Return what is at a path; None when the server, an older one, does not know it."""
    try:
        return server.get(path, **params)
    except StoreError as error:
        if error.code != "store_missing":
            raise
        return None

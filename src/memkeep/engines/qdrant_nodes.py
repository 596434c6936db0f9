"""Where the shards of a collection lie, what state they are in, and whether they have changed.

There is no counter of writes to ask for, but `GET .../snapshot/partial/manifest` tells the number of the last write of
every segment of a shard: the highest of them is the shard's clock. It also names the segments, which an optimisation
replaces.
"""

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

    segments: frozenset[str] = frozenset()
    version: int | None = None  # None: the server does not tell
    busy: bool = False  # an optimisation is running


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
    busy = server.get(path)["status"] == _BUSY
    try:
        segments = server.get(f"{path}/shards/{shard}/snapshot/partial/manifest")
    except StoreError as error:
        if error.code == "store_missing":
            return Clock(busy=busy)  # a server before 1.14
        raise
    versions = [segment["segment_version"] for segment in segments.values()]
    return Clock(segments=frozenset(segments), version=max(versions, default=0), busy=busy)

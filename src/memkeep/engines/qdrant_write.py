"""Making a collection in a server out of an image: settings, shards by upload or point by point, indexes, aliases."""

import secrets
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from memkeep.engines import qdrant_image, qdrant_nodes, qdrant_tar
from memkeep.engines.qdrant_edge import Point, Sparse, Vector
from memkeep.engines.qdrant_http import Address, Server
from memkeep.engines.qdrant_image import CollectionImage, ShardImage, at_most
from memkeep.errors import StoreError
from memkeep.events import Events

_BATCH = 100  # points a request
_CUSTOM = "custom"
_SETTINGS = {
    "hnsw_config": "hnsw_config",
    "optimizer_config": "optimizers_config",
    "wal_config": "wal_config",
    "quantization_config": "quantization_config",
    "strict_mode_config": "strict_mode_config",
    "metadata": "metadata",
}
_NEEDED = ("vectors", "sparse_vectors", "shard_number", "sharding_method", "on_disk_payload")


def beside(where: Address) -> Address:
    """Return the place of a temporary collection beside another."""
    name = f"{where.collection}-memkeep-{secrets.token_hex(4)}"
    return Address(url=where.url, base=where.base, collection=name)


def create(server: Server, image: CollectionImage) -> bool:
    """Make an empty collection with the image's settings; say whether the server took all of them."""
    where = server.where
    params = {name: value for name, value in image.config["params"].items() if value is not None}
    more = {name: image.config[told] for told, name in _SETTINGS.items() if image.config.get(told) is not None}
    try:
        server.send("PUT", where.path, {**params, **more})
        whole = True
    except StoreError as error:
        if error.code in {"store_denied", "store_unreachable"}:
            raise
        server.send("PUT", where.path, {name: params[name] for name in _NEEDED if name in params})
        whole = False
    if params.get("sharding_method") == _CUSTOM:
        for key in dict.fromkeys(shard.key for shard in image.shards if shard.key is not None):
            server.send("PUT", f"{where.path}/shards", {"shard_key": key})
    return whole


def upload(server: Server, folder: Path, image: CollectionImage, events: Events) -> None:
    """Send the shards' files, each to a node that has the shard; a shard is replaced whole or not at all."""
    nodes = {shard.id: shard.nodes for shard in qdrant_nodes.shards(server)}
    for shard in image.shards:
        if not nodes.get(shard.id):
            raise StoreError(f"{server.where.base} has no shard {shard.id} of {server.where.collection}")
        with tempfile.TemporaryFile(dir=folder.parent) as file, Server(nodes[shard.id][0]) as node:
            checksum = qdrant_tar.pack(qdrant_image.shard_folder(folder, shard.id), file)
            size = file.tell()
            file.seek(0)
            path = f"{node.where.path}/shards/{shard.id}/snapshots/upload"
            node.upload(path, file, priority="snapshot", checksum=checksum, wait="true")
            events.advance(size)
        forget(server, shard)


def forget(server: Server, shard: ShardImage) -> None:
    """Delete the points that had been deleted when the shard's files were read."""
    for at in range(0, len(shard.deleted), _BATCH):
        body: dict[str, Any] = {"points": shard.deleted[at : at + _BATCH]}
        if shard.key is not None:
            body["shard_key"] = shard.key
        server.send("POST", f"{server.where.path}/points/delete", body, wait="true")


def put(server: Server, points: Iterable[list[Point]], key: str | int | None) -> None:
    """Write points one by one; `key` is that of their shard, if it has one."""
    size = at_most(server.get(server.where.path)["config"], _BATCH, "upsert_max_batchsize")
    for batch in points:
        for at in range(0, len(batch), size):
            body: dict[str, Any] = {"points": [_told(point) for point in batch[at : at + size]]}
            if key is not None:
                body["shard_key"] = key
            server.send("PUT", f"{server.where.path}/points", body, wait="true")


def index(server: Server, image: CollectionImage) -> None:
    """Give a collection the payload indexes of the image, and no others."""
    there = server.get(server.where.path)["payload_schema"]
    for name in sorted(set(there) - set(image.indexes)):
        server.send("DELETE", f"{server.where.path}/index/{name}", wait="true")
    for name, settings in image.indexes.items():
        body = {"field_name": name, "field_schema": settings}
        server.send("PUT", f"{server.where.path}/index", body, wait="true")


def alias(server: Server, names: Sequence[str]) -> list[str]:
    """Give a collection its aliases; return those that name another one, which are left."""
    known = {one["alias_name"]: one["collection_name"] for one in server.get("/aliases")["aliases"]}
    known |= {one["name"]: one["name"] for one in server.get("/collections")["collections"]}
    free = [name for name in names if name not in known]
    actions = [{"create_alias": {"collection_name": server.where.collection, "alias_name": name}} for name in free]
    if actions:
        server.send("POST", "/collections/aliases", {"actions": actions})
    return [name for name in names if known.get(name, server.where.collection) != server.where.collection]


def _told(point: Point) -> dict[str, Any]:
    vectors = {name: _numbers(vector) for name, vector in point.vectors.items()}
    return {"id": point.id, "payload": point.payload, "vector": vectors}


def _numbers(vector: Vector) -> Any:
    import numpy as np

    if isinstance(vector, Sparse):
        return {"indices": vector.indices, "values": vector.values}
    if isinstance(vector, bytes):
        return np.frombuffer(vector, "<f4").tolist()
    return [np.frombuffer(row, "<f4").tolist() for row in vector]

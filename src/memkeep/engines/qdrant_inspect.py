"""A look at a Qdrant server: its collections, how many points they have, their vectors, and keys of some payloads."""

from typing import Any

from memkeep.engines.base import ServerInspection, ServerTable
from memkeep.engines.qdrant_http import Address, Server, address
from memkeep.engines.qdrant_image import at_most, vectors_of
from memkeep.engines.qdrant_probes import column

_SAMPLE = 100
_TYPES = ((bool, "bool"), (int, "integer"), (float, "float"), (str, "text"), (list, "list"), (dict, "object"))


def inspect(url: str) -> ServerInspection:
    """Return what is at a URL: one collection, or all when it names none. Raises `StoreError`."""
    where = address(url)
    with Server(where) as server:
        version = server.version()
        names = [where.collection] if where.collection else _names(server)
        return ServerInspection(url=url, version=version, tables=tuple(_table(server, name) for name in names))


def count(where: Address) -> int:
    """Return how many points a collection has, exactly. Raises `StoreError`."""
    with Server(where) as server:
        return int(server.send("POST", f"{where.path}/points/count", {"exact": True})["count"])


def size(where: Address) -> int:
    """Return about how many bytes the vectors and payloads of a collection take. Raises `StoreError`."""
    with Server(where) as server:
        told = server.get(where.path)
    points = told["points_count"] or 0
    each = sum(4 * vector["size"] for vector in vectors_of(told["config"]).values())
    return int(points * (each + 512))  # a guess at a payload


def _names(server: Server) -> list[str]:
    return sorted(one["name"] for one in server.get("/collections")["collections"])


def _table(server: Server, name: str) -> ServerTable:
    path = Address(url="", base="", collection=name).path
    told = server.get(path)
    sample = at_most(told["config"], _SAMPLE, "max_query_limit")
    found = server.send("POST", f"{path}/points/scroll", {"limit": sample, "with_payload": True})["points"]
    params = told["config"]["params"]
    vectors = {
        column(vector): 0 if "multivector_config" in settings else settings["size"]
        for vector, settings in vectors_of(told["config"]).items()
    }
    vectors.update({column(vector): 0 for vector in params.get("sparse_vectors") or {}})
    columns = {"id": "id"}
    for point in found:
        for key, value in (point["payload"] or {}).items():
            columns.setdefault(f"payload.{key}" if key == "id" or key in vectors else key, _type(value))
    columns.update(dict.fromkeys(vectors, "vector"))
    total = server.send("POST", f"{path}/points/count", {"exact": True})["count"]
    return ServerTable(name=name, columns=columns, vectors=vectors, key="id", rows=total)


def _type(value: Any) -> str:
    return next((name for type_, name in _TYPES if isinstance(value, type_)), "null")

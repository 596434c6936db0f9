"""What `get_all` of mem0 returns, saved as JSON: `{"results": [...]}`, or the list alone.

Facts are from mem0ai 2.2.1. A result has its own keys beside `metadata`, which in the store stand all in one payload;
they are put together again as they are there. Older results have `relations` of entities beside them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkeep.model import TableMap
from memkeep.records.readers.base import Read, UnfitError
from memkeep.records.readers.json_stream import elements, first_keys, portables
from memkeep.records.record import Portable, Relationship
from memkeep.records.shape import Mapper, Shape

name = "mem0"

_KEYS = {"text": "data", "user": "user_id", "agent": "agent_id", "session": "run_id", "expires_at": "expiration_date"}
_NOT_STORED = {"memory", "metadata", "score"}
_MAPPER = Mapper(
    TableMap(collection="mem0", table="mem0", id="id"),
    Shape(
        fields=_KEYS | {"created_at": "created_at", "updated_at": "updated_at"},
        times={"created_at": "iso", "updated_at": "iso", "expires_at": "iso"},
        free="",
        like="2026-01-02T03:04:05+00:00",
    ),
    name,
)


def fits(path: Path) -> bool:
    """Say whether a file begins with a result of mem0."""
    found = first_keys(path, 1)
    first = found.get("results", found.get(""))
    return isinstance(first, dict) and {"id", "memory"} <= first.keys()


def read(path: Path) -> Iterator[Read]:
    """Yield the memories, and the relations where there are any."""
    return portables(elements(path), {"results": _memory, "": _memory, "relations": _relation})


def _memory(said: Any) -> Portable:
    if not isinstance(said, dict) or not isinstance(said.get("memory"), str) or not isinstance(said.get("id"), str):
        raise UnfitError("no memory: `id` or `memory` is no text")
    own = said.get("metadata")
    if not isinstance(own, dict | None):
        raise UnfitError("no memory: `metadata` is no object")
    row = dict(own or {}) | {key: value for key, value in said.items() if key not in _NOT_STORED}
    return _MAPPER.record(row | {"data": said["memory"]})


def _relation(said: Any) -> Portable:
    ends = said if isinstance(said, dict) else {}
    source, target = ends.get("source"), ends.get("destination", ends.get("target"))
    kind = ends.get("relationship")
    if not isinstance(source, str) or not isinstance(target, str) or not isinstance(kind, str):
        raise UnfitError("no relation: `source`, `destination` or `relationship` is no text")
    rest = {k: v for k, v in ends.items() if k not in {"source", "destination", "target", "relationship"}}
    return Relationship(source=source, target=target, type=kind, collection="relations", metadata=rest, system=name)

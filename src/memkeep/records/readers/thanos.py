"""`memory_export.json` of Thanos, as the product writes it.

Facts are from github.com/Geralt1983/Thanos, c649be6: `metadata`, then `memories` of {id, payload, vector}, then
`relationships`. All of a memory is in its payload. Times without a zone are kept as those of the store are: meant as
UTC, though the product's direct path writes the time of its host, which nothing in the file tells.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkeep.model import TableMap
from memkeep.records.readers.base import Read, UnfitError
from memkeep.records.readers.json_stream import elements, first_keys, portables
from memkeep.records.readers.numbers import vector
from memkeep.records.record import Portable
from memkeep.records.shape import Mapper, Shape

name = "thanos"
FILE = "memory_export.json"

_KEYS = {
    "text": "data",
    "scope": "client",
    "user": "user_id",
    "source": "source",
    "category": "category",
    "heat": "heat",
    "importance": "importance",
    "access_count": "access_count",
    "last_accessed_at": "last_accessed",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
_TIMES: dict[str, Any] = dict.fromkeys(("created_at", "updated_at"), "iso")
MEMORIES = Mapper(
    TableMap(collection="memories", table="public.thanos_memories", id="id", vectors=("vector",)),
    Shape(
        fields={field: f"payload.{key}" for field, key in _KEYS.items()},
        times={**_TIMES, "last_accessed_at": "iso"},
        free="payload.",
    ),
    name,
)
RELATIONSHIPS = Mapper(
    TableMap(collection="relationships", table="relationships", id="id"),
    Shape(
        kind="relationship",
        fields={
            "source": "source_id",
            "target": "target_id",
            "type": "rel_type",
            "strength": "strength",
            "created_at": "created_at",
            "updated_at": "updated_at",
        },
        times=_TIMES,
        inner="metadata",
        free="metadata.",
        like="2026-01-02T03:04:05",
    ),
    name,
)


def fits(path: Path) -> bool:
    """Say whether a file, or a folder's file of that name, is an export of Thanos; memkeep's own is another."""
    found = first_keys(_file(path), 2)
    about, first = found.get("metadata"), found.get("memories")
    if not isinstance(about, dict) or "includes_vectors" not in about:
        return False
    return first is None or (isinstance(first, dict) and "payload" in first)


def read(path: Path) -> Iterator[Read]:
    """Yield memories, then relationships."""
    return portables(elements(_file(path)), {"memories": _memory, "relationships": _relationship})


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def _memory(said: Any) -> Portable:
    payload = said.get("payload") if isinstance(said, dict) else None
    if not isinstance(payload, dict) or not isinstance(said.get("id"), str | int):
        raise UnfitError("no memory: `id` is missing, or `payload` is no object")
    if not isinstance(payload.get("data", ""), str):
        raise UnfitError("no memory: `data` is no text")
    row = {"id": str(said["id"])} | {f"payload.{key}": value for key, value in payload.items()}
    if said.get("vector") is not None:
        row["vector"] = vector(said["vector"])
    return MEMORIES.record(row)


def _relationship(said: Any) -> Portable:
    ends = [said.get(key) for key in ("source_id", "target_id", "rel_type")] if isinstance(said, dict) else [None]
    if not all(isinstance(each, str) for each in ends):
        raise UnfitError("no relationship: `source_id`, `target_id` or `rel_type` is no text")
    row = dict(said)
    if isinstance(row.get("metadata"), dict):  # in the store it is a text, as Python writes it
        row["metadata"] = json.dumps(row["metadata"])
    return RELATIONSHIPS.record(row)

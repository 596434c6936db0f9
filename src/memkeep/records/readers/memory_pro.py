"""What memory-lancedb-pro writes: `memory-pro export`, and the daily `memory-backup-YYYY-MM-DD.jsonl`.

Facts are from 1.1.0-beta.11. Both hold the columns of its table but the vectors, `metadata` as the text of a JSON
object; the daily file has no more than 10,000 of them, the export no more than 1,000. `timestamp` is in milliseconds,
in old rows in seconds, by its own rule below 1e12; 0 and less is unknown. Of a folder of daily files the newest is
read: each is a copy of all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from memkeep.errors import FileError, quoted
from memkeep.model import TableMap, TimeUnit
from memkeep.records.readers.base import Read, UnfitError
from memkeep.records.readers.json_stream import Element, elements, first_keys, lines, portables
from memkeep.records.record import Record
from memkeep.records.shape import Mapper, Shape

name = "memory-pro"
PRO = "memory-lancedb-pro"
DAILY = "memory-backup-*.jsonl"

_COLUMNS = {"id", "text", "category", "scope", "importance", "timestamp", "metadata"}
_UNITS: tuple[TimeUnit, ...] = ("ms", "s")
_SECONDS_BELOW = 10**12
_INNER = {
    "access_count": "access_count",
    "confidence": "confidence",
    "last_accessed_at": "last_accessed_at",
    "valid_from": "valid_from",
    "valid_until": "valid_until",
    "status": "state",
    "source": "source",
    "session": "source_session",
    "summary": "l0_abstract",
    "supersedes": "supersedes",
    "superseded_by": "superseded_by",
}
_FIELDS = {
    **{field: field for field in ("text", "category", "scope", "importance")},
    "created_at": "timestamp",
    **{field: f"metadata.{key}" for field, key in _INNER.items()},
}
_MAP = TableMap(collection="memories", table="memories", id="id", vectors=("vector",))
_TIMES: dict[str, TimeUnit] = dict.fromkeys(("last_accessed_at", "valid_from", "valid_until"), "ms")


def shape(unit: TimeUnit) -> Shape:
    """Return how a row is a record: much of what the product knows is in the JSON text `metadata`."""
    times: dict[str, TimeUnit] = {**_TIMES, "created_at": unit}
    return Shape(product=PRO, fields=_FIELDS, times=times, inner="metadata", free="metadata.", numbers="float")


_MAPPERS = {unit: Mapper(_MAP, shape(unit), PRO) for unit in _UNITS}


def fits(path: Path) -> bool:
    """Say whether it is an export, a daily file, or a folder of these."""
    if path.is_dir():
        return any(path.glob(DAILY))
    found = first_keys(path, 3)
    if {"version", "exportedAt", "count"} <= found.keys():
        return True
    if path.suffix != ".jsonl":
        return False
    first = next(iter(lines(path)), None) if path.is_file() else None
    return isinstance(first, Element) and isinstance(first.value, dict) and first.value.keys() >= _COLUMNS


def read(path: Path) -> Iterator[Read]:
    """Yield the memories."""
    if path.is_dir():
        daily = sorted(path.glob(DAILY))
        if not daily:
            raise FileError(f"{path} has no {DAILY}", hint=f"ls {quoted(path)}")
        path = daily[-1]
    if path.suffix == ".jsonl":
        return portables(lines(path), {"": _record})
    return portables(elements(path), {"memories": _record})


def _record(said: Any) -> Record:
    if not isinstance(said, dict) or not isinstance(said.get("id"), str) or not isinstance(said.get("text"), str):
        raise UnfitError("no memory: `id` or `text` is no text")
    raw = said.get("timestamp")
    number = raw if isinstance(raw, int | float) and not isinstance(raw, bool) else 0
    doubles = {key: float(said[key]) for key in ("timestamp", "importance") if said.get(key).__class__ is int}
    made = _MAPPERS["s" if 0 < number < _SECONDS_BELOW else "ms"].record(said | doubles)  # as the table has them
    assert isinstance(made, Record)  # noqa: S101 - the shape is none of relationships
    if number <= 0:
        made = msgspec.structs.replace(made, created_at=None, native=made.native | {"timestamp": raw})
    kind, mark, owner = (made.scope or "").partition(":")
    if mark and owner and kind in {"user", "agent"}:
        return msgspec.structs.replace(made, **{kind: owner})
    return made

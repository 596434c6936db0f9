"""Records into memory-lancedb (legacy) and memory-lancedb-pro: one table of LanceDB."""

import json
from collections.abc import Iterable
from pathlib import Path

from memkeep.engines import lance_new
from memkeep.model import Store, TableMap
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems import openclaw_lancedb
from memkeep.systems.base import Known
from memkeep.systems.detect import discover
from memkeep.systems.making import Making
from memkeep.systems.openclaw_lancedb import LEGACY, PRO
from memkeep.systems.target import Wish, is_valid, no_size

name = openclaw_lancedb.name
names: tuple[str, ...] = (PRO, LEGACY, openclaw_lancedb.name)

_LEGACY_COLUMNS = ("id", "text", "vector", "importance", "category", "createdAt")
_PRO_COLUMNS = ("id", "text", "vector", "category", "scope", "importance", "timestamp", "metadata")
_NUMBERS = frozenset({"importance", "createdAt", "timestamp"})
_CATEGORIES = {"preference", "fact", "decision", "entity", "other"}
# pro's own words for a category of its `metadata`, by the category of the row.
_MEMORY_CATEGORIES = {"preference": "preferences", "entity": "entities", "decision": "events", "fact": "cases"}
_STATES = {"pending", "confirmed", "archived"}
_IMPORTANCE = 0.7  # what the products give a memory of which nobody said
heeds: tuple[str, ...] = ()  # not all of pro's ways to recall ask for `valid_until`


def hides(map_: TableMap) -> bool:
    """Say no of legacy's table, and yes of pro's: it has archived memories."""
    return "timestamp" in map_.fields.values()


def identity(system: str, identity: str) -> str:
    """Return a UUID."""
    return as_uuid(system, identity)


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a memory a category that the product knows, an importance, a time, and in pro a scope that it can see."""
    category = made.category if made.category in _CATEGORIES else "other"
    time = "timestamp" if "timestamp" in map_.fields.values() else "createdAt"
    row = {"importance": _IMPORTANCE} | row | {"category": category, time: float(row.get(time) or 0)}
    if time == "createdAt":
        return row
    return row | {"scope": _scope(made), "metadata": _metadata(made, row)}


def _scope(made: Record) -> str:
    """Return a scope as pro spells it; a blank one would hide the memory."""
    said = made.scope or ""
    if said == "global" or said.partition(":")[0] in {"agent", "user", "project", "custom", "reflection"}:
        return said
    for kind in ("user", "agent"):
        if owner := getattr(made, kind):
            return f"{kind}:{owner}"
    return f"custom:{said}" if said else "global"


def _metadata(made: Record, row: Row) -> str:
    """Return what the product always writes of a memory, and what there is of it already."""
    usual = {
        "l0_abstract": made.text,
        "l1_overview": f"- {made.text}",
        "l2_content": made.text,
        "memory_category": _MEMORY_CATEGORIES.get(str(row.get("category")), "patterns"),
        "tier": "working",
        "access_count": 0,
        "confidence": 0.7,
        "last_accessed_at": row.get("timestamp"),
        "valid_from": row.get("timestamp"),
        "state": "confirmed",
        "source": "legacy",
        "memory_layer": "working",
        "injected_count": 0,
        "bad_recall_count": 0,
        "suppressed_until_turn": 0,
    }
    said = usual | json.loads(row.get("metadata") or "{}")
    if said["state"] not in _STATES:
        said["state"] = "confirmed" if is_valid(made.status) else "archived"
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield nothing: all is in one table."""
    return ()


def create(name: str, place: str, wish: Wish, making: Making) -> Store:
    """Make an empty table: pro's, unless the legacy product is named."""
    if wish.dims is None:
        raise no_size(name)
    columns: dict[str, str | int] = {
        column: wish.dims if column == "vector" else "double" if column in _NUMBERS else "string"
        for column in (_LEGACY_COLUMNS if name == LEGACY else _PRO_COLUMNS)
    }
    with making.path(Path(place) / "memories.lance"):
        lance_new.create(Path(place) / "memories.lance", columns)
    return discover([place])[0]

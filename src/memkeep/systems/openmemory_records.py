"""The memories of OpenMemory as portable records: whose they are, from which app and of which categories is elsewhere.

In the table `memories` users and apps are internal ids, the state is a column and categories are another table.
"""

from collections import defaultdict
from typing import Any

import msgspec

from memkeep.model import TableMap
from memkeep.records.record import Record
from memkeep.records.shape import Shape
from memkeep.systems.base import Known, Refine
from memkeep.systems.openmemory_maps import MEMORIES, POINTS

LOOKUPS = ("users", "apps", "categories", "memory_categories")
_LIKE = "2026-01-02 03:04:05.000000"


def shape(map_: TableMap) -> Shape:
    """Return how the rows of a table, or the points, are records. A time always has a fraction."""
    if map_.collection.startswith(POINTS):
        before = map_.fields["text"].removesuffix("data")
        return Shape(kind="vectors", of=MEMORIES, fields=map_.fields, times=map_.times, free=before)
    fields = {field: column for field, column in map_.fields.items() if field != "user"}
    if map_.collection == MEMORIES:
        return Shape(
            fields=fields | {"status": "state"}, times=map_.times, inner="metadata", free="metadata.", like=_LIKE
        )
    return Shape(fields=fields, times=map_.times, like=_LIKE)


def refine(known: Known) -> Refine:
    """Return what gives a memory the name of its user, of its app, and its categories as tags."""
    users = {_plain(row["id"]): row.get("user_id") for row in known.get("users", ())}
    apps = {_plain(row["id"]): row.get("name") for row in known.get("apps", ())}
    names = {_plain(row["id"]): row.get("name") for row in known.get("categories", ())}
    tags = defaultdict[str, list[str]](list)
    for row in known.get("memory_categories", ()):
        name = names.get(_plain(row.get("category_id")))
        if isinstance(name, str):
            tags[_plain(row.get("memory_id"))].append(name)

    def refined(record: Record) -> Record:
        if record.collection != MEMORIES:
            return record
        changes: dict[str, Any] = {"tags": tuple(sorted(tags.get(_plain(record.id), ())))}
        for field, column, found in (("user", "user_id", users), ("agent", "app_id", apps)):
            said = record.metadata.get(column)
            name = found.get(_plain(said))
            changes[field] = name if isinstance(name, str) else said if isinstance(said, str) else None
        return msgspec.structs.replace(record, **changes)

    return refined


def _plain(identity: Any) -> str:
    return str(identity).replace("-", "").lower()

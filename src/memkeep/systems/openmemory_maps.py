"""What the tables of OpenMemory and the points of its vector store are, as records.

Facts are from github.com/mem0ai/mem0, `openmemory/`, until ea2ee0758. `configs` is settings, and can hold literal API
keys: it is in the image, and no record.
"""

from collections.abc import Collection
from typing import NamedTuple

from memkeep.model import TableMap, TimeUnit
from memkeep.records.shape import SIDE_TABLE

_TIMES: dict[str, TimeUnit] = {"created_at": "iso", "updated_at": "iso"}
CONFIGS = "configs"
OTHERS = (CONFIGS, "alembic_version")
POINTS = "points"
MEMORIES = "memories"


class _Table(NamedTuple):
    fields: dict[str, str]
    links: tuple[str, ...] = ()
    id: str = "id"
    unique: tuple[str, ...] = ()


_CREATED = {"created_at": "created_at", "updated_at": "updated_at"}
_TABLES = {
    MEMORIES: _Table({"text": "content", "user": "user_id", **_CREATED}),
    "users": _Table({"user": "id", **_CREATED}),  # `user_id` is the name that agents and points use
    "apps": _Table({"text": "name", "user": "owner_id", **_CREATED}),
    "categories": _Table({"text": "name", **_CREATED}),
    "memory_categories": _Table({}, ("memory_id",), "memory_id", ("memory_id", "category_id")),
    "memory_status_history": _Table({"text": "new_state", "created_at": "changed_at"}, ("memory_id",)),
    "memory_access_logs": _Table({"text": "access_type", "created_at": "accessed_at"}, ("memory_id",)),
    "access_controls": _Table({"text": "effect", "created_at": "created_at"}, ("object_id",)),
    SIDE_TABLE: _Table({"text": "record"}),
    "archive_policies": _Table({"text": "criteria_type", "created_at": "created_at"}),
}
ALL = (*_TABLES, *OTHERS)


def table_maps(tables: Collection[str], schema: str = "") -> tuple[TableMap, ...]:
    """Return how the tables that there are become records; `schema` is that of a Postgres."""
    return tuple(
        TableMap(
            collection=name,
            table=f"{schema}.{name}" if schema else name,
            id=known.id,
            fields=known.fields,
            times={field: unit for field, unit in _TIMES.items() if field in known.fields},
            primary=name == MEMORIES,
            unique=known.unique,
            links=known.links,
        )
        for name, known in _TABLES.items()
        if name in tables
    )


def point_map(table: str, collection: str, *, payload: str = "", vectors: Collection[str] = ()) -> TableMap:
    """Return how mem0's points become records; in a table of pgvector their keys lie in the column `payload`."""
    keys = {
        "text": "data",
        "user": "user_id",
        "scope": "source_app",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }
    return TableMap(
        collection=collection,
        table=table,
        id="id",
        fields={field: payload + key for field, key in keys.items()},
        vectors=tuple(vectors),
        times=_TIMES,
        primary=False,
    )

"""Which columns of a table are what: only columns that exist, named by the product or recognised by usual names."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from memkeep.model import TableMap, TimeUnit
from memkeep.records.shape import SIDE_TABLE

if TYPE_CHECKING:
    from memkeep.engines.lance import LanceInspection

USUAL: dict[str, tuple[str, ...]] = {
    "id": ("id", "uuid", "_id", "memory_id", "fact_id", "doc_id", "key", "hash"),
    "text": (
        *("content", "text", "memory", "fact", "body", "document", "note", "message", "observation", "statement"),
        *("value", "summary", "description"),
    ),
    "category": ("category", "type", "kind", "memory_type", "cell_type", "label"),
    "scope": ("scope", "namespace", "user_id", "agent_id", "userId", "agentId", "collection", "project"),
    "source": ("source", "origin"),
    "tags": ("tags", "labels"),
    "importance": ("importance", "salience", "priority", "weight"),
    "created_at": ("created_at", "createdAt", "created", "timestamp", "ts", "time", "date", "inserted_at"),
    "updated_at": ("updated_at", "updatedAt", "updated", "modified_at", "modified", "last_modified"),
}
PAYLOAD_TEXTS = ("page_content", "data", "chunk_text", "chunk")  # only of rows that have vectors
WEAK_TEXTS = ("value", "summary", "description")  # also of tables that only help the memories
VECTORS = ("embedding", "vector", "embeddings", "emb", "vec", "summary_embedding")

_HOUSEKEEPING = re.compile(
    r"(?i)(sqlite_.*|.*meta|metadata|.*migrations?|.*settings?|configs?|alembic_version|.*_state)"
)
_SHADOW = re.compile(
    r"_(data|idx|content|docsize|config|segments|segdir|stat|chunks|rowids|info|auxiliary|node|parent|rowid"
    r"|vector_chunks\d+|metadata(chunks|text)\d+)"
)


def table_map(
    collection: str,
    table: str,
    columns: Collection[str],
    *,
    id: str = "id",
    fields: Mapping[str, str] | None = None,
    vectors: Iterable[str] = (),
    times: Mapping[str, TimeUnit] | None = None,
    primary: bool = True,
) -> TableMap | None:
    """Return a mapping that names only columns that exist; None when the id does not."""
    if id not in columns:
        return None
    there = {field: column for field, column in (fields or {}).items() if column in columns}
    return TableMap(
        collection=collection,
        table=table,
        id=id,
        fields=there,
        vectors=tuple(column for column in vectors if column in columns),
        times={field: unit for field, unit in (times or {}).items() if field in there},
        primary=primary,
    )


def side_map(tables: Mapping[str, Sequence[str]], schema: str = "") -> TableMap | None:
    """Return the mapping of the table in which memkeep keeps what records of other products had more."""
    if SIDE_TABLE not in tables:
        return None
    name = f"{schema}.{SIDE_TABLE}" if schema else SIDE_TABLE
    return table_map(SIDE_TABLE, name, tables[SIDE_TABLE], fields={"text": "record"}, primary=False)


def recognised(
    table: str, columns: Sequence[str], *, collection: str = "", primary: bool = True, key: str | None = "rowid"
) -> TableMap | None:
    """Return a mapping by the usual column names; None for a table that holds no texts or is housekeeping.

    A key of a column of JSON, `payload.text`, counts by its own name. Without a usual id column records are named by
    `key`; without that there are no records, for nothing else stays the same from day to day.
    """
    if _HOUSEKEEPING.fullmatch(table.rpartition(".")[2]):
        return None
    by_lower = {column.rpartition(".")[2].lower(): column for column in reversed(columns)}
    by_lower |= {column.lower(): column for column in reversed(columns)}
    found = {
        field: by_lower[name.lower()]
        for field, names in USUAL.items()
        if (name := next((name for name in names if name.lower() in by_lower), None))
    }
    named = found.pop("id", key)
    if "text" not in found or not named:
        return None
    return TableMap(
        collection=collection or table,
        table=table,
        id=named,
        fields=found,
        vectors=tuple(column for column in columns if column.lower() in VECTORS),
        times={field: "auto" for field in ("created_at", "updated_at") if field in found},
        primary=primary,
    )


def record_tables(tables: Mapping[str, Sequence[str]], virtual: Collection[str]) -> list[str]:
    """Return the ordinary tables of a database: no virtual ones, none that an index keeps for itself."""
    return [
        name
        for name in tables
        if name not in virtual
        and not any(name.startswith(each) and _SHADOW.fullmatch(name.removeprefix(each)) for each in virtual)
    ]


def notes(collection: str = "notes", *, primary: bool = True, include: tuple[str, ...] = ()) -> TableMap:
    """Return the mapping of a folder of notes: one record a file, named by its path under the folder."""
    return TableMap(
        collection=collection,
        table="",
        id="path",
        fields={"text": "text", "updated_at": "modified"},
        times={"updated_at": "iso"},
        primary=primary,
        include=include,
    )


def dims(table: "LanceInspection | None") -> dict[str, int]:
    """Return the dimensions of a Lance table's first column of vectors, as a fingerprint has them; empty for none."""
    return {"dims": next(iter(table.vectors.values()))} if table and table.vectors else {}

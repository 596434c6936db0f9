"""The tables of openclaw-hybrid-memory that are memory, and which of their columns is what.

Integers are epoch seconds, in old rows milliseconds (its own rule is that above 1e10 they are), text is UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from memkeep.model import TableMap, TimeUnit
from memkeep.records.record import Record
from memkeep.records.shape import Shape
from memkeep.systems.maps import side_map, table_map
from memkeep.systems.marks import is_hybrid_facts


class _Table(NamedTuple):
    """One table; `fields` are portable names and columns, and those of the same name need not be said."""

    fields: dict[str, str] = {}
    time: TimeUnit = "auto"
    vectors: tuple[str, ...] = ()


_SAME = ("text", "category", "scope", "source", "tags", "importance", "created_at", "updated_at")

_SECONDARY = {
    "episodes": _Table({"text": "event", "category": "outcome"}),
    "procedures": _Table({"text": "task_pattern", "category": "procedure_type"}),
    "memory_links": _Table({"category": "link_type", "importance": "strength"}),
    "contradictions": _Table({"text": "resolution", "created_at": "detected_at"}, time="iso"),
    "verified_facts": _Table({"text": "canonical_text", "source": "verified_by"}, time="iso"),
    "fact_variants": _Table({"text": "variant_text", "category": "variant_type"}, time="iso"),
    "fact_embeddings": _Table({"category": "variant"}, time="iso", vectors=("embedding",)),
    "organizations": _Table({"text": "display_name"}),
    "contacts": _Table({"text": "display_name"}),
    "fact_aliases": _Table({"text": "aliasText"}, vectors=("embedding",)),
    "proposals": _Table({"text": "suggested_change", "category": "status"}),
    "provenance_edges": _Table({"text": "source_text", "category": "edge_type", "source": "source_type"}, time="iso"),
    "event_log": _Table({"text": "content", "category": "event_type"}, time="iso"),
    "narratives": _Table({"text": "narrative_text", "category": "tag"}),
    "edicts": _Table(),
    "learnings": _Table({"text": "content", "category": "type", "scope": "area"}, time="iso"),
    "issues": _Table({"text": "title", "category": "severity"}, time="iso"),
    "identity_reflections": _Table({"text": "insight", "category": "durability"}),
    "persona_state": _Table({"text": "insight", "category": "target_file", "created_at": "first_seen_at"}),
}


def sqlite_maps(tables: Mapping[str, Sequence[str]]) -> list[TableMap]:
    """Return the mappings of a database: `facts` as primary records, the other tables of memory as secondary ones."""
    known = {"facts": _Table()} if is_hybrid_facts(tables) else {}
    known |= {table: said for table, said in _SECONDARY.items() if table in tables}
    found = []
    for table, said in known.items():
        fields = {field: field for field in _SAME} | said.fields
        found.append(
            table_map(
                table,
                table,
                tables[table],
                fields=fields,
                vectors=said.vectors,
                times={"created_at": said.time, "updated_at": said.time},
                primary=table == "facts",
            )
        )
    return [each for each in (*found, side_map(tables)) if each]


def lance_maps(table: str, columns: Iterable[str]) -> list[TableMap]:
    """Return the mapping of a LanceDB table: its rows repeat facts or aliases, so they are never primary."""
    names = set(columns)
    if "queryText" in names:
        return []
    found = table_map(
        f"lance_{table}",
        table,
        names,
        fields={
            "text": "aliasText" if "aliasText" in names else "text",
            "category": "category",
            "importance": "importance",
            "created_at": "createdAt",
        },
        vectors=("vector",),
        times={"created_at": "auto"},
        primary=False,
    )
    return [found] if found else []


_FACT = {
    "confidence": "confidence",
    "summary": "summary",
    "access_count": "recall_count",
    "last_accessed_at": "last_accessed",
    "valid_from": "valid_from",
    "valid_until": "valid_until",
    "expires_at": "expires_at",
    "superseded_by": "superseded_by",
    "supersedes": "supersedes_id",
}
_JOINS = {"memory_links": ("source_fact_id", "target_fact_id", "link_type")}


def shape(map_: TableMap) -> Shape:
    """Return how the rows of a table are records. New rows have epoch seconds; tags are joined by commas."""
    fields, times = dict(map_.fields), dict(map_.times)
    if map_.collection == "facts":
        fields |= _FACT
        times |= dict.fromkeys(("last_accessed_at", "valid_from", "valid_until", "expires_at"), "auto")
    if map_.collection in _JOINS:
        source, target, type_ = _JOINS[map_.collection]
        fields = {"source": source, "target": target, "type": type_, "strength": "strength", "created_at": "created_at"}
        return Shape(kind="relationship", fields=fields, times={"created_at": "auto"}, numbers="whole")
    if map_.collection.startswith("lance_"):
        of = "fact_aliases" if map_.fields.get("text") == "aliasText" else "facts"
        return Shape(kind="vectors", of=of, fields=fields, times=times, numbers="float")
    side = map_.collection == "facts"
    return Shape(fields=fields, times=times, forms={"tags": "comma"}, side=side, numbers="whole")


def refined(record: Record) -> Record:
    """Return a fact with whose it is and whether another has taken its place: two columns say that together."""
    said = record.metadata
    owner = said.get("scope_target")
    changes: dict[str, str] = {}
    if record.scope in {"user", "agent", "session"} and isinstance(owner, str):
        changes[record.scope] = owner
    if record.collection == "facts":
        changes["status"] = "active" if said.get("superseded_at") is None else "superseded"
    return msgspec.structs.replace(record, **changes) if changes else record

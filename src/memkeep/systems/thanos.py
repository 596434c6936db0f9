"""Thanos Memory V2: a pgvector table that mem0 made, and `State/relationships.db` beside the program.

Facts are from github.com/Geralt1983/Thanos, c649be6. All of a memory is in the table's `payload`; the dimensions are
read from the database, since one path of the product writes 1024 and another 1536. A relationship names memories by
id, and is itself named by what it joins: its number is only what SQLite gave it.

The store is a folder with `State/relationships.db`, whose `THANOS_MEMORY_DATABASE_URL` (from the environment, else the
`.env` in it, which is read and never kept) says where the memories are; or a database's URL alone.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from memkeep.errors import StoreError, quoted
from memkeep.model import Finding, Part, Role, Severity, Store, TableMap, is_url
from memkeep.records.readers.thanos import MEMORIES, RELATIONSHIPS
from memkeep.records.shape import Shape
from memkeep.systems import servers
from memkeep.systems.base import Known, Places, Refine
from memkeep.systems.look import Look
from memkeep.systems.maps import side_map, table_map

name = "thanos"
URL = "THANOS_MEMORY_DATABASE_URL"
_TABLE = "thanos_memories"
_FILE = "State/relationships.db"
queries: tuple[str, ...] = ()


def detect(look: Look, path: Path, places: Places) -> list[Store]:
    """Return the store of a folder that has `State/relationships.db`, or is `State` itself, or that file."""
    root = path if (path / _FILE).is_file() else path.parent if path.name == "State" else path.parent.parent
    file = root / _FILE
    if path not in (root, file.parent, file) or not _is_relationships(look.columns(file)):
        return []
    relationships = Part(
        name=_FILE, engine="sqlite", role=Role.CANONICAL, path=str(file), maps=_relationship_maps(look.columns(file))
    )
    said = _said(root, places.environ)
    findings: list[Finding] = []
    memories = []
    if said:
        memories = _memories(look, servers.told(said)[1], findings)
    else:
        message = f"nothing says where the memories are: {URL} is neither in the environment nor in {root / '.env'}"
        mend = f"{URL}=postgresql://... memkeep backup {quoted(root)}"
        findings.append(Finding(code="memories_elsewhere", severity=Severity.ERROR, message=message, mend=mend))
    return [
        Store(
            system=name,
            path=str(root),
            root=str(root),
            parts=(*memories, relationships),
            records=_count(look, memories),
            fingerprint=_fingerprint(look, memories),
            findings=tuple(findings),
        )
    ]


def detect_url(look: Look, url: str, places: Places) -> list[Store]:  # noqa: ARG001 - the contract's signature
    """Return the store that a database holds: the memories alone, since it does not know the relationships."""
    url, _ = servers.without_tables(url)
    if not url.startswith("postgresql:") or not _tables(look, url):
        return []
    memories = _memories(look, url, [])
    message = "the relationships lie beside the program, in State/relationships.db: they are not in this snapshot"
    left = Finding(
        code="relationships_elsewhere",
        severity=Severity.WARNING,
        message=message,
        mend=f"{URL}={quoted(url)} memkeep backup THE_FOLDER_OF_THANOS",
    )
    return [
        Store(
            system=name,
            path=url,
            root="",
            parts=tuple(memories),
            records=_count(look, memories),
            fingerprint=_fingerprint(look, memories),
            findings=(left,),
        )
    ]


def of_user(store: Store, user: str) -> Store:
    """Return a store of which only the memories of one user are taken, and the relationships that go with them."""
    parts = []
    for part in store.parts:
        mine = tuple(each.table for each in part.maps if each.primary)
        narrowed = msgspec.structs.replace(part, user=user)
        parts.append(msgspec.structs.replace(narrowed, include=mine) if is_url(part.path) and mine else narrowed)
    return msgspec.structs.replace(store, parts=tuple(parts), records=None, user=user)


def default_paths(places: Places) -> list[Path]:  # noqa: ARG001 - the contract's signature
    """Return nothing: the product lies wherever it was cloned to."""
    return []


def _said(root: Path, environ: Mapping[str, str]) -> str:
    if environ.get(URL):
        return environ[URL]
    from dotenv import dotenv_values

    file = root / ".env"
    try:
        return (dotenv_values(file).get(URL) or "") if file.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _memories(look: Look, url: str, findings: list[Finding]) -> list[Part]:
    """Return the part of the table; when the database can't be asked, one that a backup will name as unread."""
    part = Part(name="postgres", engine="postgres", role=Role.CANONICAL, path=url, include=(f"public.{_TABLE}",))
    try:
        tables = _tables(look, url)
    except StoreError as error:
        findings.append(
            Finding(code=error.code, severity=Severity.ERROR, part=part.name, message=error.message, mend=error.hint)
        )
        return [part]
    if not tables:
        findings.append(
            Finding(
                code="memories_missing",
                severity=Severity.ERROR,
                message=f"{url} has no table {_TABLE}: the memories are not there",
                mend=f"correct {URL}",
            )
        )
        return []
    maps = [each for table in tables if (each := _memory_map(look, url, table)) is not None]
    return [msgspec.structs.replace(part, include=tuple(tables), maps=tuple(maps))]


def _tables(look: Look, url: str) -> list[str]:
    """Return the tables of the product in a database: the memories, and what mem0 keeps beside them."""
    names = [table.name for table in look.server(url).tables]
    if not any(each.rpartition(".")[2] == _TABLE for each in names):
        return []
    return [each for each in names if each.rpartition(".")[2].startswith((_TABLE, "mem0migrations"))]


def _memory_map(look: Look, url: str, name_: str) -> TableMap | None:
    table = next(each for each in look.server(url).tables if each.name == name_)
    last = name_.rpartition(".")[2]
    return table_map(
        "memories" if last == _TABLE else last,
        name_,
        list(table.columns),
        fields={
            "text": "payload.data",
            "category": "payload.category" if "payload.category" in table.columns else "payload.type",
            "scope": "payload.client",
            "user": "payload.user_id",
            "source": "payload.source",
            "importance": "payload.importance",
            "created_at": "payload.created_at",
            "updated_at": "payload.updated_at",
        },
        vectors=tuple(table.vectors),
        times={"created_at": "iso", "updated_at": "iso"},
        primary=last == _TABLE,
    )


def _relationship_maps(tables: Mapping[str, list[str]]) -> tuple[TableMap, ...]:
    joins = TableMap(
        collection="relationships",
        table="relationships",
        id="id",
        fields={"text": "rel_type", "importance": "strength", "created_at": "created_at", "updated_at": "updated_at"},
        times={"created_at": "iso", "updated_at": "iso"},
        primary=False,
        unique=("source_id", "target_id", "rel_type"),
        links=("source_id", "target_id"),
    )
    others = [
        ("pattern_cache", {"text": "pattern_key", "category": "pattern_type"}, ("pattern_key",)),
        ("insights", {"text": "content", "category": "insight_type"}, ("insight_type", "content", "created_at")),
    ]
    found = [
        TableMap(collection=table, table=table, id="id", fields=fields, primary=False, unique=unique)
        for table, fields, unique in others
        if table in tables
    ]
    return (joins, *found, *filter(None, (side_map(tables),)))


def _is_relationships(tables: Mapping[str, list[str]]) -> bool:
    return {"source_id", "target_id", "rel_type", "strength"} <= set(tables.get("relationships", ()))


def _count(look: Look, parts: list[Part]) -> int | None:
    wanted = {each.table for part in parts for each in part.maps if each.primary}
    if not wanted:
        return None
    rows = [
        table.rows
        for part in parts
        if is_url(part.path)
        for table in look.server(part.path).tables
        if table.name in wanted
    ]
    return None if None in rows else sum(one or 0 for one in rows)


def _fingerprint(look: Look, parts: list[Part]) -> dict[str, object]:
    sizes = [servers.dims(look, part) for part in parts if part.maps]
    return {"embedding": sizes[0]} if sizes and sizes[0] else {}


lookups: tuple[str, ...] = ()


def shape(map_: TableMap) -> Shape:
    """Return how memories and relationships are records; all of a memory is in its payload, which takes any key."""
    if map_.collection == RELATIONSHIPS.map.collection:
        return RELATIONSHIPS.shape
    return MEMORIES.shape if map_.primary else Shape(fields=map_.fields, times=map_.times)


def refine(known: Known) -> Refine:  # noqa: ARG001 - the contract's signature
    """Return a record as it is: its payload says all."""
    return lambda record: record

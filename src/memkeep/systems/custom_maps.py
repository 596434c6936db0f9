"""Which rows and files of a `custom` store are records: by the usual names, or as the settings say."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from memkeep.config import PartSettings, StoreSettings
from memkeep.engines.files_notes import SUFFIXES as NOTE_SUFFIXES
from memkeep.errors import UsageError
from memkeep.model import Part, Role, TableMap, is_url
from memkeep.systems.look import COLLECTIONS, Look
from memkeep.systems.maps import PAYLOAD_TEXTS, WEAK_TEXTS, notes, recognised, record_tables

_OF_POINTS = COLLECTIONS | {"qdrant"}  # engines of which every row is somebody's memory, whatever it says
_PORTABLE = ("text", "category", "scope", "source", "tags", "importance", "created_at", "updated_at")


def recognised_in(look: Look, parts: Sequence[Part]) -> list[Part]:
    """Map records by the usual column names; a Lance table named as a database's table is the index of that."""
    found = _unique({part.name: _maps(look, part) for part in sorted(parts, key=lambda part: part.engine != "sqlite")})
    found = _without_helpers(found)
    in_databases = {each.table for part in parts if part.engine == "sqlite" for each in found[part.name]}
    out = []
    for part in parts:
        maps, role = found[part.name], part.role
        if part.engine == "lance" and any(each.table in in_databases for each in maps):
            maps, role = [msgspec.structs.replace(each, primary=False) for each in maps], Role.DERIVED
        out.append(msgspec.structs.replace(part, maps=tuple(maps), role=role))
    return out


def as_said(look: Look, parts: Sequence[Part], settings: StoreSettings, said_in: str) -> list[Part]:
    """Map records as the settings say, and only those."""
    said: dict[str, list[PartSettings]] = {}
    for each in settings.parts:
        said.setdefault(each.name, []).append(each)
    if unknown := sorted(said.keys() - {part.name for part in parts}):
        names = ", ".join(part.name for part in parts)
        raise _wrong(f"{said_in} names the part {unknown[0]!r}, but {settings.path} has {names}.")
    found = _unique({part.name: [_said(look, part, one, said_in) for one in said.get(part.name, ())] for part in parts})
    return [msgspec.structs.replace(part, maps=tuple(found[part.name])) for part in parts]


def sentence(parts: Sequence[Part], said_in: str) -> str:
    """Say in one sentence how the records were recognised."""
    if said_in:
        return f"Records are mapped by {said_in}."
    tables = [
        f"{each.table} ({', '.join((each.id, *each.fields.values(), *each.vectors))}) in {part.name}"
        for part in parts
        for each in part.maps
        if each.table and each.primary
    ]
    clauses = [f"Records are recognised by their columns: {'; '.join(tables)}"] if tables else []
    if any(part.engine == "files" and part.maps for part in parts):
        clauses.append("each markdown or text file is a record")
    said = "; ".join(clauses) or "No records are recognised: no table has the usual columns"
    return f"{said[0].upper()}{said[1:]}."


def _unique(found: dict[str, list[TableMap]]) -> dict[str, list[TableMap]]:
    """Give every collection a name of its own: where two parts have the same, the later one's has its part in it."""
    used: set[str] = set()
    out: dict[str, list[TableMap]] = {}
    for part, maps in found.items():
        out[part] = []
        for each in maps:
            name = each.collection if each.collection not in used else f"{part}/{each.collection}"
            used.add(name)
            out[part].append(msgspec.structs.replace(each, collection=name))
    return out


def _without_helpers(found: dict[str, list[TableMap]]) -> dict[str, list[TableMap]]:
    """Let tables with texts such as descriptions be secondary where there are tables of memories."""

    def is_strong(table: TableMap) -> bool:
        return table.table != "" and table.fields.get("text", "").lower() not in WEAK_TEXTS

    if not any(is_strong(each) for maps in found.values() for each in maps):
        return found
    return {
        part: [msgspec.structs.replace(each, primary=each.table == "" or is_strong(each)) for each in maps]
        for part, maps in found.items()
    }


def _maps(look: Look, part: Part) -> list[TableMap]:
    path = Path(part.path)
    if part.engine == "files":
        return [notes()] if path.is_dir() or path.name.lower().endswith(NOTE_SUFFIXES) else []
    tables = _columns(look, part)
    if is_url(part.path) or part.engine in COLLECTIONS:
        return list(_collection_maps(look, part))
    found = [_of_table(look, part, table, columns) for table, columns in tables.items()]
    if part.engine == "lance" and (seen := look.lance(path)):
        return [msgspec.structs.replace(each, vectors=tuple(seen.vectors)) for each in found if each]
    return [each for each in found if each]


def _collection_maps(look: Look, part: Part) -> Iterator[TableMap]:
    for table in look.collections(part):
        columns = list(table.columns)
        found = recognised(table.name, columns, key=table.key or None)
        if found is None and (part.engine in _OF_POINTS or table.vectors):
            text = next(({"text": each} for each in PAYLOAD_TEXTS if each in columns), {})
            found = TableMap(collection=table.name, table=table.name, id=table.key or "id", fields=text)
        if found is not None:
            yield msgspec.structs.replace(found, id=table.key or found.id, vectors=tuple(table.vectors))


def _of_table(look: Look, part: Part, table: str, columns: Sequence[str]) -> TableMap | None:
    """Return a mapping by the usual names; rows that have no rowid are known by all columns of their key."""
    if part.engine != "sqlite":
        return recognised(table, columns, key=None)
    seen = look.database(Path(part.path))
    key = seen.keys.get(table) if seen else None
    if not key:
        return recognised(table, columns, key="rowid")
    found = recognised(table, columns, key=key[0])
    return found and msgspec.structs.replace(found, unique=key if key != (found.id,) else ())


def _columns(look: Look, part: Part) -> dict[str, list[str]]:
    """Return the tables of a part that may hold records, and their columns."""
    if is_url(part.path) or part.engine in COLLECTIONS:
        return {table.name: list(table.columns) for table in look.collections(part)}
    path = Path(part.path)
    if part.engine == "lance":
        seen = look.lance(path)
        return {path.stem: list(seen.columns)} if seen else {}
    inspection = look.database(path)
    if inspection is None:
        return {}
    return {table: inspection.tables[table] for table in record_tables(inspection.tables, inspection.virtual)}


def _said(look: Look, part: Part, said: PartSettings, said_in: str) -> TableMap:
    if part.engine == "files":
        return msgspec.structs.replace(notes(said.collection or "notes"), primary=said.primary)
    tables = _columns(look, part)
    table = said.table or (Path(part.path).stem if part.engine == "lance" else "")
    if table not in tables:
        raise _wrong(f"{said_in} names the table {table!r}, but {part.path} has {', '.join(tables) or 'none'}.")
    columns = tables[table]
    usual = _of_table(look, part, table, columns)
    fields = {field: value for field in _PORTABLE if (value := getattr(said, field))}
    fields = fields or (usual.fields if usual else {})
    vectors = (said.vector,) if isinstance(said.vector, str) else said.vector
    if vectors is None:
        vectors = usual.vectors if usual else ()
    key = said.id or (usual.id if usual else "rowid" if part.engine == "sqlite" else columns[0])
    for column in (key, *fields.values(), *vectors):
        if column not in columns and (column, part.engine) != ("rowid", "sqlite"):
            raise _wrong(f"{said_in} names the column {column!r}, but {table} has {', '.join(columns)}.")
    return TableMap(
        collection=said.collection or table,
        table=table,
        id=key,
        fields=fields,
        vectors=vectors,
        times={field: "auto" for field in ("created_at", "updated_at") if field in fields},
        primary=said.primary,
        unique=usual.unique if usual and key == usual.id else (),
    )


def _wrong(message: str) -> UsageError:
    return UsageError(message, hint="memkeep discover", code="config")

"""OpenMemory: SQLite (or Postgres), a vector store, and a config file, in the folder that the product was started from.

Facts are from github.com/mem0ai/mem0, `openmemory/`, until ea2ee0758, and from a store made by its own models. The
store is the folder that has `api/openmemory.db`, or the database itself where there is no such folder; a compose file
in it says where the servers are. The rest of that folder is the product's source, and is left out. Keys in
`config.json` and in the table `configs` are secrets; `.env` files are read for addresses, and never kept.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from memkeep.engines.files_walk import ENV_REASON, is_dotenv
from memkeep.errors import StoreError
from memkeep.model import Finding, Omission, Part, Role, Severity, Store, TableMap, is_url
from memkeep.records.shape import Shape
from memkeep.systems import (
    compose,
    marks,
    mem0,
    openclaw_json,
    openmemory_drift,
    openmemory_records,
    openmemory_servers,
    qdrant_folder,
    servers,
)
from memkeep.systems.base import Known, LostId, Places, Refine, Sides
from memkeep.systems.gather import OWN_REASON
from memkeep.systems.look import OWN_PREFIX, Look, is_sidecar
from memkeep.systems.openmemory_maps import CONFIGS, MEMORIES, POINTS, point_map, table_maps
from memkeep.systems.openmemory_servers import Said, Served

name = "openmemory"
_FILE = "openmemory.db"
_API = "api"
_CONFIG_FILES = ("config.json", "default_config.json")
_LOCAL = "qdrant-local"
_NOT_MEMORY = "not memory: the product's program, or what else was put there"
_COUNT = f'SELECT count(*) FROM "{MEMORIES}"'  # noqa: S608 - as `custom` asks it, so that it is asked once
_CONFIG = f'SELECT "key", value FROM "{CONFIGS}"'  # noqa: S608 - a name of ours
_HEAD = "SELECT version_num FROM alembic_version"
queries: tuple[str, ...] = (_COUNT, _CONFIG, _HEAD)
secret_columns: tuple[str, ...] = (f"{CONFIGS}.value",)


def detect(look: Look, path: Path, places: Places) -> list[Store]:
    """Return the store that lies in a folder, or that its database, its folder `api` or its compose file belongs to."""
    root = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name not in compose.FILES and path != _database(look, root):
        return []
    if root.name == _API and (file := _database(look, root)) is not None and file.name == _FILE:
        look.folder(root.parent)
        root = root.parent
    api = root / _API if _API in look.folder(root).folders else root
    file = _database(look, api) or _database(look, root)
    api = file.parent if file is not None else api
    if file is None and not look.folder(root).files.keys() & set(compose.FILES):
        return []
    told = openmemory_servers.said(root, api, places.environ, _settings(look, file))
    url = openmemory_servers.tables_url(told, alone=file is None)
    if file is None and not (url and openmemory_servers.is_ours(told.compose)):
        return []
    return [_store(look, root, api, file, told, url)]


def detect_url(look: Look, url: str, places: Places) -> list[Store]:  # noqa: ARG001 - the contract's signature
    """Return the store whose tables a Postgres has: without its vectors, which it does not know."""
    url, _ = servers.without_tables(url)
    if not url.startswith("postgresql:") or not any(
        table.name.endswith(f".{MEMORIES}") for table in look.server(url).tables
    ):
        return []
    found = openmemory_servers.tables_part(look, url)
    if not found.parts:
        return []
    left = Finding(
        code="vectors_elsewhere",
        severity=Severity.WARNING,
        message="no vectors are kept: the database does not say where they are",
        mend="memkeep backup THE_FOLDER_OF_OPENMEMORY",
    )
    return [
        Store(
            system=name,
            path=url,
            root="",
            parts=tuple(found.parts),
            records=_count(look, found.parts),
            findings=(left,),
        )
    ]


def drift(sides: Sides) -> list[Finding]:
    """Return what the tables and the vectors disagree about, and the ids that SQLite destroyed."""
    return openmemory_drift.drift(sides)


def lost_ids(sides: Sides) -> list[LostId]:
    """Return the ids that SQLite destroyed and the vector store still has."""
    return openmemory_drift.lost_ids(sides)


def default_paths(places: Places) -> list[Path]:  # noqa: ARG001 - the contract's signature
    """Return nothing: the product lies wherever it was cloned to."""
    return []


def _store(look: Look, root: Path, api: Path, file: Path | None, told: Said, url: str) -> Store:
    tables = openmemory_servers.tables_part(look, url) if url else Served([], [])
    files = _files(look, root, api, file if not url else None, tables.parts)
    records = _count(look, [*files, *tables.parts])
    vectors = openmemory_servers.vectors(
        look, told, memories=records, local=any(part.engine == _LOCAL for part in files)
    )
    if not vectors.parts:  # what mem0 has in a folder is then all there is
        files = [_as_points(part) for part in files]
    parts = [*files, *tables.parts, *vectors.parts]
    of_folders = [
        one
        for folder in qdrant_folder.folders(parts)
        for one in qdrant_folder.findings(look, folder, folder.relative_to(root).as_posix())
    ]
    findings = (
        *tables.findings,
        *vectors.findings,
        *openmemory_servers.volume_findings(told.compose),
        *of_folders,
    )
    return Store(
        system=name,
        path=str(root),
        root=str(root),
        parts=tuple(parts),
        records=records,
        fingerprint=_fingerprint(look, parts, file, api, told),
        omitted=tuple(_left(look, root, api, files)),
        findings=findings,
    )


def _database(look: Look, folder: Path) -> Path | None:
    """Return OpenMemory's database in a folder, the one by its usual name first."""
    found = [folder / each for each in look.folder(folder).suspects if marks.is_openmemory(look.columns(folder / each))]
    return min(found, key=lambda each: (each.name != _FILE, each.name), default=None)


def _settings(look: Look, file: Path | None) -> Any:
    """Return the value of the row `main`; None when there is none."""
    for key, value in look.rows(file, _CONFIG) if file is not None else ():
        if key == "main":
            return _json(value)
    return None


def _json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str | bytes) else None
    except ValueError:
        return None


def _files(look: Look, root: Path, api: Path, file: Path | None, elsewhere: list[Part]) -> list[Part]:
    """Return the parts that lie in the folder."""
    parts = []
    if file is not None and not elsewhere:
        tables = look.columns(file)
        literal = any(openclaw_json.secrets(_json(value)) for _, value in look.rows(file, _CONFIG))
        secrets = secret_columns if literal else ()
        parts.append(_part(root, file, "sqlite", maps=table_maps(tables), secrets=secrets))
    parts += [_config(root, api / each) for each in _CONFIG_FILES if each in look.folder(api).files]
    for folder in dict.fromkeys((api, root)):
        there = look.folder(folder)
        databases = [(folder / each, look.columns(folder / each)) for each in there.suspects]
        parts += [
            _part(root, one, "sqlite", maps=tuple(mem0.sqlite_maps(has)))
            for one, has in databases
            if marks.is_mem0_history(has)
        ]
        local = [folder / each for each in there.folders if qdrant_folder.is_folder(look, folder / each)]
        parts += [part for each in local for part in _local(look, root, each)]
    return parts


def _part(
    root: Path,
    path: Path,
    engine: str,
    *,
    role: Role = Role.CANONICAL,
    maps: tuple[TableMap, ...] = (),
    secrets: tuple[str, ...] = (),
) -> Part:
    name = path.relative_to(root).as_posix()
    return Part(name=name, engine=engine, role=role, path=str(path), maps=maps, secrets=secrets)


def _config(root: Path, file: Path) -> Part:
    said = openclaw_json.read(file)
    if said is None:
        return _part(root, file, "files", role=Role.SECRET)  # what can't be read can't be redacted
    return _part(root, file, "files", role=Role.CONFIG, secrets=openclaw_json.secrets(said))


def _local(look: Look, root: Path, folder: Path) -> list[Part]:
    """Return the parts that a folder of Qdrant's local mode is: a database for each collection, and what they are."""
    collections = folder / qdrant_folder.COLLECTIONS
    files = [collections / each / qdrant_folder.DATABASE for each in look.folder(collections).folders]
    parts = [
        _part(root, file, _LOCAL, maps=(point_map(file.parent.name, f"{folder.name}:{file.parent.name}"),))
        for file in files
        if file.name in look.folder(file.parent).files
    ]
    return [*parts, _part(root, folder / qdrant_folder.META, "files")]


def _as_points(part: Part) -> Part:
    """Let the collection of OpenMemory in a local folder be its points."""
    if part.engine != _LOCAL or part.maps[0].table != openmemory_servers.COLLECTION:
        return part
    return msgspec.structs.replace(part, maps=(point_map(part.maps[0].table, POINTS),))


def _left(look: Look, root: Path, api: Path, parts: list[Part]) -> list[Omission]:
    """Return what is not taken of the folder, once for each name in it and in `api`."""
    omitted = []
    for folder in dict.fromkeys((root, api)):
        there = look.folder(folder)
        taken = {Path(part.path).relative_to(folder).parts[0] for part in parts if folder in Path(part.path).parents}
        beside = dict.fromkeys((Path(part.path).name for part in parts if part.engine == "sqlite"), 0)
        for each in sorted((*there.files, *there.folders, *there.tables, *there.links, *there.others)):
            inside = (folder / each).relative_to(root).as_posix()
            if each in taken or (folder == root and root / each == api) or is_sidecar(each, beside):
                continue
            reason = ENV_REASON if is_dotenv(each) else OWN_REASON if each.startswith(OWN_PREFIX) else _NOT_MEMORY
            omitted.append(Omission(part=inside, reason=reason))
    return omitted


def _count(look: Look, parts: list[Part]) -> int | None:
    for part in parts:
        for each in part.maps:
            if each.primary and is_url(part.path):
                return next((table.rows for table in look.server(part.path).tables if table.name == each.table), None)
            if each.primary:
                rows = look.rows(Path(part.path), _COUNT)
                return rows[0][0] if rows else None
    return None


def _fingerprint(look: Look, parts: list[Part], file: Path | None, api: Path, told: Said) -> dict[str, Any]:
    """Return the embedder that the settings name, the dimensions that the vectors have, and the schema's version."""
    written = openclaw_json.read(api / _CONFIG_FILES[0])
    said = openclaw_json.dig(told.config, "mem0", "embedder") or openclaw_json.dig(written, "mem0", "embedder")
    wanted = {"provider": openclaw_json.dig(said, "provider"), "model": openclaw_json.dig(said, "config", "model")}
    embedding: dict[str, Any] = {key: value for key, value in wanted.items() if isinstance(value, str)}
    for part in parts:
        if any(each.collection == POINTS for each in part.maps):
            embedding |= _dims(look, part)
    head = look.rows(file, _HEAD) if file is not None else []
    found: dict[str, Any] = {"embedding": embedding} if embedding else {}
    return found | ({"versions": {"alembic": head[0][0]}} if head else {})


def _dims(look: Look, part: Part) -> dict[str, int]:
    try:
        return servers.dims(look, part)
    except StoreError:
        return {}  # told as a finding already


lookups: tuple[str, ...] = openmemory_records.LOOKUPS


def shape(map_: TableMap) -> Shape:
    """Return how the rows of a table, or the points, are records."""
    return openmemory_records.shape(map_)


def refine(known: Known) -> Refine:
    """Return what completes a memory by what the other tables say."""
    return openmemory_records.refine(known)

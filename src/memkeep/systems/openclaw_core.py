"""OpenClaw itself: the workspace's notes, the agents' databases and the index, transcripts, settings and keys.

Facts are from state folders of 2026.5.22 and 2026.9.6. The store is the state folder (`~/.openclaw`), or a bare
workspace when that is the path given. The memory is the workspace's markdown: `MEMORY.md`, `USER.md`, `DREAMS.md`
and `memory/**/*.md` are the records, every other file there is kept byte for byte too. The databases of plugins that
lie in the state folder are stores of their own.

An agent's database holds index, transcripts and auth profiles in one file, and the global one secrets beside plugin
state; a part can't be split, so one whose secret tables have rows has the role `secret` as a whole: it goes into an
encrypted vault, and into an unencrypted one only when secrets are asked for. A finding says so.

A workspace that lies elsewhere is the part `workspace` (or `workspace-NAME`); `Part.path` says where it is, and
`fingerprint["outside"]` lists it.
"""

from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path
from typing import Any

import msgspec

from memkeep.model import Finding, Part, Role, Severity, Store, TableMap
from memkeep.systems import core_rules, marks, openclaw_json
from memkeep.systems.base import OpenClaw, Places
from memkeep.systems.gather import NEVER, Gathered, Item, Maps, gather
from memkeep.systems.look import Look
from memkeep.systems.maps import notes, recognised, record_tables, table_map

name = marks.CORE
MEMORY_FILES = ("MEMORY.md", "USER.md", "DREAMS.md", "memory/*.md")  # `*` crosses `/`

_META = "SELECT value FROM memory_index_meta WHERE key = 'memory_index_meta_v1'"
_LEGACY_META = "SELECT value FROM meta WHERE key = 'memory_index_meta_v1'"
_SECRET_TABLES = (
    *("auth_profile_store", "auth_profile_state"),
    *("secret_store_entries", "mcp_oauth_stores", "device_auth_tokens", "device_bootstrap_tokens"),
    *("gateway_origin_device_tokens", "worker_environment_credentials", "web_push_subscriptions"),
    "native_hook_relay_bridges",
)
_HAS_SECRETS = {table: f"SELECT 1 FROM {table} LIMIT 1" for table in _SECRET_TABLES}  # noqa: S608 - names from above
queries: tuple[str, ...] = (_META, _LEGACY_META, *_HAS_SECRETS.values())


def detect(look: Look, path: Path, places: Places) -> list[Store]:
    """Return the store in a state folder, told by OpenClaw's databases in it or `openclaw.json` with a workspace.

    A workspace alone is a store only when it is itself the path given: many folders have an `AGENTS.md`.
    """
    config = next((each for each in places.configs if each.state_dir == path), None)
    found = openclaw_json.workspaces(config or OpenClaw(state_dir=path, data={}), places)
    spaces = [folder for folder in found if folder.is_dir()]
    if _has_databases(look, path) or (config and any(_has_notes(look, folder) for folder in spaces)):
        return [_state_folder(look, path, config, _more_workspaces(look, path, spaces))]
    if path in look.given and marks.is_workspace(look, path):
        return [_bare_workspace(look, path)]
    return []


def default_paths(places: Places) -> list[Path]:
    """Return the state folder."""
    return [places.state_dir]


def _has_databases(look: Look, state: Path) -> bool:
    agents = [state / "agents" / agent / "agent" for agent in look.folder(state / "agents").folders]
    for folder, test in (
        *((agent, marks.is_core_agent) for agent in agents),
        (state / "state", marks.is_core_state),
        (state / "memory", marks.is_core_index),
    ):
        if any(test(look.columns(folder / file)) for file in look.folder(folder).suspects):
            return True
    return False


def _has_notes(look: Look, folder: Path) -> bool:
    daily = look.folder(folder / "memory").files
    return marks.is_workspace(look, folder) or "MEMORY.md" in look.folder(folder).files or any(map(_is_note, daily))


def _is_note(file: str) -> bool:
    return file.endswith(".md")


def _more_workspaces(look: Look, state: Path, spaces: list[Path]) -> list[Path]:
    """Add the workspaces of further agents, which lie beside the default one as `workspace-NAME`."""
    beside = [
        state / each for each in look.folder(state).folders if each == "workspace" or each.startswith("workspace-")
    ]
    found = dict.fromkeys((*spaces, *beside))
    wide = {space for space in found if state.is_relative_to(space)}
    return [space for space in found if not any(space.is_relative_to(each) for each in found.keys() - wide - {space})]


def _state_folder(look: Look, state: Path, config: OpenClaw | None, spaces: list[Path]) -> Store:
    inside = {space for space in spaces if space.is_relative_to(state)}
    choose = core_rules.state_folder(look, state, inside)
    gathered = gather(look, state, choose, _maps(look), apart=core_rules.apart)
    names = _names(state, spaces, {part.name.split("/")[0] for part in gathered.parts})
    for space, under in names.items():
        collection = "notes" if space == spaces[0] else f"notes_{under}"
        if state.is_relative_to(space):  # such as the home folder: all of it would be too much
            gathered.parts.append(_notes_only(space, under, collection))
        else:
            gathered.add(_workspace(look, space, under, collection, bounds=state if space in inside else space))
    outside = {under: str(space) for space, under in names.items() if space not in inside}
    parts = [_with_secrets(look, part) for part in gathered.parts]
    return Store(
        system=name,
        path=str(state),
        root=str(state),
        parts=tuple(sorted(parts, key=lambda part: part.name)),
        records=sum(_count(look, space) for space in spaces),
        fingerprint=_fingerprint(look, parts, config) | ({"outside": outside} if outside else {}),
        omitted=tuple(gathered.omitted),
        findings=(*gathered.findings, *_secret_databases(look, parts)),
    )


def _names(state: Path, spaces: list[Path], taken: set[str]) -> dict[Path, str]:
    """Return the name of each workspace as a part: where it lies in the state folder, else one that is free there."""
    names = {space: space.relative_to(state).as_posix() for space in spaces if space.is_relative_to(state)}
    for space in spaces:
        if space not in names:
            usual = chain(("workspace", f"workspace-{space.name}"), (f"workspace-{space.name}-{n}" for n in count(2)))
            names[space] = next(name for name in usual if name not in {*names.values(), *taken})
    return names


def _bare_workspace(look: Look, path: Path) -> Store:
    gathered = _workspace(look, path, "", "notes", bounds=path)
    return Store(
        system=name,
        path=str(path),
        root=str(path),
        parts=tuple(gathered.parts),
        records=_count(look, path),
        omitted=tuple(gathered.omitted),
        findings=tuple(gathered.findings),
    )


def _workspace(look: Look, folder: Path, under: str, collection: str, *, bounds: Path) -> Gathered:
    """Gather a workspace: one part for all of its files, and parts for the databases in it."""

    def maps(item: Item) -> tuple[TableMap, ...]:
        if item.kind == "folder":
            return (notes(collection, include=MEMORY_FILES),) if item.path == folder else ()
        return _maps_of_others(look, item) if item.kind == "database" else ()

    return gather(look, folder, core_rules.workspace(look), maps, name=under, bounds=bounds, whole=True)


def _notes_only(folder: Path, under: str, collection: str) -> Part:
    """Return the part of a workspace that holds the state folder too: OpenClaw's own files and the notes."""
    return Part(
        name=under,
        engine="files",
        role=Role.CANONICAL,
        path=str(folder),
        maps=(notes(collection, include=MEMORY_FILES),),
        include=(*sorted(marks.WORKSPACE_FILES), "AGENTS.md", "memory/*"),
        exclude=NEVER,
    )


def _count(look: Look, workspace: Path) -> int:
    folders = look.survey(workspace / "memory", depth=None, skip=frozenset(core_rules.LEFT_OUT_OF_WORKSPACE))
    files = [folder / file for folder in (workspace, *folders) for file in look.folder(folder).files]
    names = [file.relative_to(workspace).as_posix() for file in files]
    return sum(any(fnmatchcase(each, pattern) for pattern in MEMORY_FILES) for each in names)


def _maps(look: Look) -> Maps:
    def maps(item: Item) -> tuple[TableMap, ...]:
        tables = look.columns(item.path) if item.kind == "database" else {}
        agent = item.name.split("/")[1] if item.name.startswith("agents/") else item.path.stem
        found = [
            table_map(
                f"{collection}_{agent}",
                table,
                tables.get(table, ()),
                fields={"text": text, "category": "source", "created_at": "created_at", "updated_at": "updated_at"},
                times={"created_at": "ms", "updated_at": "ms"},
                primary=False,
            )
            for collection, table, text in (
                ("chunks", "memory_index_chunks", "text"),
                ("intents", "standing_intents", "description"),
                ("chunks", "chunks", "text"),
            )
        ]
        return tuple(each for each in found if each)

    return maps


def _maps_of_others(look: Look, item: Item) -> tuple[TableMap, ...]:
    """Map a database that a workspace keeps by its own convention."""
    inspection = look.database(item.path)
    if inspection is None:
        return ()
    found = [
        recognised(table, inspection.tables[table], collection=f"{item.name}/{table}", primary=False)
        for table in record_tables(inspection.tables, inspection.virtual)
    ]
    return tuple(each for each in found if each)


def _with_secrets(look: Look, part: Part) -> Part:
    """Give a database with secrets in it its role, and a settings file the list of its secret keys."""
    if part.engine == "sqlite" and part.role is Role.CANONICAL and _secret_tables(look, part):
        return msgspec.structs.replace(part, role=Role.SECRET)
    if part.engine == "files" and part.role is Role.CONFIG and ".json" in part.name:
        said = openclaw_json.read(Path(part.path))
        if said is None and Path(part.path).is_file() and part.name.startswith(openclaw_json.FILE):
            return msgspec.structs.replace(part, role=Role.SECRET)  # what can't be read can't be redacted
        return msgspec.structs.replace(part, secrets=openclaw_json.secrets(said))
    return part


def _secret_tables(look: Look, part: Part) -> list[str]:
    return [table for table, query in _HAS_SECRETS.items() if look.rows(Path(part.path), query)]


def _secret_databases(look: Look, parts: list[Part]) -> list[Finding]:
    return [
        Finding(
            code="secrets_in_database",
            severity=Severity.INFO,
            message=f"{part.name} holds secrets ({', '.join(tables)}) beside memory; all of it is treated as secret.",
            part=part.name,
            mend="memkeep backup --include-secrets",
        )
        for part in parts
        if part.engine == "sqlite" and part.role is Role.SECRET and (tables := _secret_tables(look, part))
    ]


def _fingerprint(look: Look, parts: list[Part], config: OpenClaw | None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    schemas = {}
    for part in parts:
        inspection = look.database(Path(part.path)) if part.engine == "sqlite" else None
        if inspection and inspection.user_version:
            schemas[part.name] = inspection.user_version
        rows = inspection and (look.rows(Path(part.path), _META) or look.rows(Path(part.path), _LEGACY_META))
        if rows and "embedding" not in out:
            out["embedding"] = _embedder(rows[0][0])
    if schemas:
        out["schemas"] = schemas
    version = openclaw_json.dig(config.data, "meta", "lastTouchedVersion") if config else None
    if isinstance(version, str):
        out["versions"] = {"openclaw": version}
    return out


def _embedder(said: object) -> dict[str, Any]:
    try:
        meta = msgspec.json.decode(said) if isinstance(said, str | bytes) else {}
    except msgspec.DecodeError:
        return {}
    wanted = {"provider": "provider", "model": "model", "dims": "vectorDims"}
    return {field: value for field, key in wanted.items() if (value := openclaw_json.dig(meta, key)) is not None}

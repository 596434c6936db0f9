"""mem0, the library: memories as points of a vector store, and beside them `history.db`, what was done and said.

Facts are from stores of mem0ai 2.2.1 and its source (github.com/mem0ai/mem0, 8d5b7865). The store is the folder that
`history.db` lies in, with the vector store below it, or the vector store's own folder: by default the history is in
`~/.mem0` and Qdrant's local mode in `qdrant` of the system's folder for temporary files, which are two stores then.
In a server the store is the collection or the table that has mem0's payload keys. Of a folder that is not mem0's own
(`MEM0_DIR`, or by its name) only what is mem0's is taken. OpenMemory has points of mem0 too, but is another system.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.model import Finding, Part, Role, Severity, Store, TableMap, TimeUnit, is_url
from memkeep.records.shape import Shape
from memkeep.systems import compose, marks, openclaw_json, openmemory_servers, qdrant_folder, servers
from memkeep.systems.base import Known, Places, Refine
from memkeep.systems.gather import Choose, Item, Leave, gather
from memkeep.systems.look import Look
from memkeep.systems.maps import recognised, side_map, table_map

if TYPE_CHECKING:
    from memkeep.engines.base import ServerTable

name = "mem0"
queries: tuple[str, ...] = ()

ENTITIES = "_entities"
TELEMETRY = "mem0migrations"
_OWN = ".mem0"
_LEFT_OUT = {".git": "version control", "node_modules": "program code", ".venv": "program code"}
_NOT_MEM0 = "not mem0's, in a folder that is not mem0's own"
_COUNT_TS = "SELECT count(*) FROM vectors"


def detect(look: Look, path: Path, places: Places) -> list[Store]:
    """Return the store in a folder, told by the columns of its databases and the payload keys of its points."""
    history = _history(look, path)
    if not history and not _vector_stores(look, path):
        return []
    near = (path,) if path in look.given else (path, path.parent)  # who names the points alone means them
    if any(_is_openmemorys(look, each) for each in near):
        return []
    gathered = gather(look, path, _choose(look, path, places))
    parts = list(_mapped(look, gathered.parts))
    if not history and not any(each.primary for part in parts for each in part.maps):
        return []
    return [
        Store(
            system=name,
            path=str(path),
            root=str(path),
            parts=tuple(parts),
            records=_count(look, parts),
            fingerprint=_fingerprint(look, parts),
            omitted=tuple(gathered.omitted),
            findings=(*gathered.findings, *_of_folders(look, path, parts), *_of_faiss(look, path)),
        )
    ]


def detect_url(look: Look, url: str, places: Places) -> list[Store]:  # noqa: ARG001 - the contract's signature
    """Return the store that a server has: the collections or tables with mem0's payload keys, and those that go along.

    The history lies in a file that a server does not know.
    """
    parts = list(_mapped(look, servers.parts_of(look, url)))
    parts = [part for part in parts if part.maps]
    if not any(each.primary for part in parts for each in part.maps):
        return []
    if len({part.path for part in parts}) == 1 and parts[0].include:  # tables of other products go nowhere
        tables = tuple(each.table for each in parts[0].maps)
        parts = [msgspec.structs.replace(parts[0], include=tables)]
    left = Finding(
        code="history_elsewhere",
        severity=Severity.WARNING,
        message="the history of the memories lies in a file, history.db, beside the program: it is not kept",
        mend="memkeep backup ~/.mem0/history.db",
    )
    return [
        Store(
            system=name,
            path=url,
            root="",
            parts=tuple(parts),
            records=_count(look, parts),
            fingerprint=_fingerprint(look, parts),
            findings=(left,),
        )
    ]


def default_paths(places: Places) -> list[Path]:
    """Return `MEM0_DIR` or `~/.mem0`, and the default folder of the points."""
    return [_home(places), Path(places.environ.get("TMPDIR") or "/tmp") / "qdrant"]  # noqa: S108 - where mem0 puts it


def _home(places: Places) -> Path:
    said = places.environ.get("MEM0_DIR", "")
    return Path(said) if said else places.home / _OWN


def _history(look: Look, folder: Path) -> list[Path]:
    """Return the databases directly in a folder that are mem0's own."""
    found = []
    for each in look.folder(folder).suspects:
        tables = look.columns(folder / each)
        if any(test(tables) for test in (marks.is_mem0_history, marks.is_mem0_history_ts, marks.is_mem0_vectors_ts)):
            found.append(folder / each)
    return found


def _vector_stores(look: Look, folder: Path) -> bool:
    """Say whether a folder is one that points lie in."""
    return qdrant_folder.is_folder(look, folder) or marks.chroma_database(look, folder) is not None


def _is_faiss(look: Look, folder: Path) -> bool:
    """Say whether a folder has memories of mem0's FAISS store: an index, and the payloads in a file beside it."""
    return any(each.endswith(".faiss") for each in look.folder(folder).files)


def _is_openmemorys(look: Look, folder: Path) -> bool:
    near = [folder, *(folder / each for each in look.folder(folder).folders if each == "api")]
    files = [each / file for each in near for file in look.folder(each).suspects]
    return any(marks.is_openmemory(look.columns(file)) for file in files) or (
        bool(look.folder(folder).files.keys() & set(compose.FILES))
        and openmemory_servers.is_ours(compose.read(folder, {}))
    )


def _choose(look: Look, root: Path, places: Places) -> Choose:
    own = root == _home(places) or root.name == _OWN or _vector_stores(look, root)
    mine = set(_history(look, root))

    def choose(item: Item) -> Role | Leave:
        last = item.path.name
        if item.kind == "folder" and last in _LEFT_OUT:
            return Leave(_LEFT_OUT[last])
        top = item.path.parent == root
        if (
            top
            and not own
            and item.path not in mine
            and not (item.kind == "folder" and (_vector_stores(look, item.path) or _is_faiss(look, item.path)))
        ):
            return Leave(_NOT_MEM0)
        if last == qdrant_folder.LOCK:
            return Role.DISPOSABLE
        return Role.CONFIG if item.kind == "file" and last == "config.json" else Role.CANONICAL

    return choose


def _mapped(look: Look, parts: Sequence[Part]) -> Iterator[Part]:
    """Yield the parts with their maps, whose collections have names of their own."""
    used: set[str] = set()
    for part in parts:
        maps = []
        for each in _maps(look, part):
            collection = each.collection if each.collection not in used else f"{part.name}/{each.collection}"
            used.add(collection)
            maps.append(msgspec.structs.replace(each, collection=collection))
        yield msgspec.structs.replace(part, maps=tuple(maps), secrets=_secrets(part))


def _secrets(part: Part) -> tuple[str, ...]:
    config = part.engine == "files" and part.role is Role.CONFIG
    return openclaw_json.secrets(openclaw_json.read(Path(part.path))) if config else part.secrets


def _maps(look: Look, part: Part) -> Iterator[TableMap]:
    if part.engine == "sqlite":
        yield from sqlite_maps(look.columns(Path(part.path)))
    tables = look.collections(part)
    for table in tables:
        if (found := points_map(table, [other.name for other in tables])) is not None:
            yield found


def sqlite_maps(tables: Mapping[str, Sequence[str]]) -> Iterator[TableMap]:
    """Yield how the tables of a database of mem0's become records."""
    times: dict[str, TimeUnit] = {"created_at": "iso", "updated_at": "iso"}
    created = {"created_at": "created_at", "updated_at": "updated_at"}
    found = []
    if marks.is_mem0_history(tables):
        fields = {"text": "new_memory", "category": "event", **created}
        found.append(table_map("history", "history", tables["history"], fields=fields, times=times, primary=False))
    if marks.is_mem0_history_ts(tables):
        fields = {"text": "new_value", "category": "action", **created}
        found.append(
            table_map("history", "memory_history", tables["memory_history"], fields=fields, times=times, primary=False)
        )
    if found and "messages" in tables:
        fields = {"text": "content", "scope": "session_scope", "created_at": "created_at"}
        found.append(table_map("messages", "messages", tables["messages"], fields=fields, times=times, primary=False))
    if marks.is_mem0_vectors_ts(tables):  # the memory, its times and whose it is are JSON in one column
        fields = {"text": "payload"}
        found.append(table_map("memories", "vectors", tables["vectors"], fields=fields, vectors=("vector",)))
    if (side := side_map(tables)) is not None:
        yield side
    for each in found:
        if each is not None:
            known = "memory_id" in tables.get(each.table, ())
            yield msgspec.structs.replace(each, links=("memory_id",) if known else ())


def points_map(table: "ServerTable", beside: Collection[str] = ()) -> TableMap | None:
    """Return how the points of a collection, or the rows of a table of pgvector, become records; None for telemetry.

    Python writes `created_at`, TypeScript `createdAt`. What has none of mem0's keys is mapped by the usual names.
    """
    last = table.name.rpartition(".")[2]
    before = "payload." if "payload.data" in table.columns else ""
    keys = {each.removeprefix(before) for each in table.columns if each.startswith(before)}
    if last == TELEMETRY:
        return None
    entities = last.endswith(ENTITIES) and {"data", "entity_type"} <= keys
    primary = {"data", "hash"} <= keys and not entities
    if not primary and not entities:
        usual = recognised(table.name, list(table.columns), key=table.key or None)
        return usual and msgspec.structs.replace(usual, primary=False, vectors=tuple(table.vectors))
    wanted = {"text": "data", "user": "user_id", "scope": "agent_id"}
    wanted |= {"created_at": "created_at", "updated_at": "updated_at"}
    if "created_at" not in keys and "createdAt" in keys:
        wanted |= {"created_at": "createdAt", "updated_at": "updatedAt"}
    if entities:
        wanted["category"] = "entity_type"
    found = table_map(
        last if sum(other.rpartition(".")[2] == last for other in beside) < 2 else table.name,  # noqa: PLR2004 - the same name in two schemas
        table.name,
        table.columns,
        id=table.key or "id",
        fields={field: before + key for field, key in wanted.items()},
        vectors=tuple(table.vectors),
        times={"created_at": "iso", "updated_at": "iso"},
        primary=primary,
    )
    # A key that only some points have is a column all the same: those of which a sample showed none are mapped too.
    return found and msgspec.structs.replace(found, fields={field: before + key for field, key in wanted.items()})


def _count(look: Look, parts: Sequence[Part]) -> int | None:
    total = 0
    for part in parts:
        primary = {each.table for each in part.maps if each.primary}
        if part.engine == "sqlite" and primary:
            rows = look.rows(Path(part.path), _COUNT_TS)
            if not rows:
                return None
            total += rows[0][0]
        elif primary:
            counts = [table.rows for table in look.collections(part) if table.name in primary]
            if None in counts:
                return None
            total += sum(count or 0 for count in counts)
    return total


def _fingerprint(look: Look, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the dimensions of the memories' vectors: mem0 stores no name of a model."""
    for part in parts:
        if part.engine != "sqlite" and any(each.primary for each in part.maps):
            main = {each.table for each in part.maps if each.primary}
            sizes = [
                size
                for table in look.collections(part)
                if table.name in main
                for size in table.vectors.values()
                if size
            ]
            if sizes:
                return {"embedding": {"dims": sizes[0]}}
    return {}


def _of_folders(look: Look, root: Path, parts: Sequence[Part]) -> Iterator[Finding]:
    for folder in qdrant_folder.folders([part for part in parts if not is_url(part.path)]):
        if not qdrant_folder.is_folder(look, folder):
            continue
        inside = folder.relative_to(root).as_posix()
        inside = "" if inside == "." else inside
        yield from qdrant_folder.findings(look, folder, inside)
        yield from _in_memory(folder, inside, {Path(part.path).parent.name for part in parts})


def _of_faiss(look: Look, root: Path) -> Iterator[Finding]:
    for folder in look.folder(root).folders:
        if _is_faiss(look, root / folder):
            yield Finding(
                code="faiss_as_files",
                severity=Severity.WARNING,
                part=folder,
                message=f"{folder} holds memories in FAISS: kept and restored as files, but not read as records",
                mend="stop the agent while a backup is made: the index and its payloads are written one after another",
            )


def _in_memory(folder: Path, inside: str, mapped: Collection[str]) -> Iterator[Finding]:
    """Say so where `on_disk` is not set: mem0 before 2026-03-23 removed the folder at every start then (issue 4473)."""
    try:
        said = qdrant_folder.settings(folder)
    except ValueError:
        return
    off = [
        each
        for each, settings in said.items()
        if each in mapped and openclaw_json.dig(settings, "vectors", "on_disk") is False
    ]
    if off:
        part = f"{inside}/{qdrant_folder.META}" if inside else qdrant_folder.META
        yield Finding(
            code="mem0_on_disk_off",
            severity=Severity.WARNING,
            part=part,
            message=f"on_disk is false for {', '.join(off)}: mem0 before March 2026 removes the folder at its start",
            mend='set "on_disk": true in the settings of the vector store, or keep mem0 up to date',
        )


def collection_settings(dims: int) -> dict[str, Any]:
    """Return how mem0 (version 3 of its collections) makes one: dense vectors, and sparse ones for words."""
    dense = {"size": dims, "distance": "Cosine", "on_disk": True}
    return {"vectors": dense, "sparse_vectors": {"bm25": {"modifier": "idf"}}}


lookups: tuple[str, ...] = ()
_KEYS = {"text": "data", "user": "user_id", "agent": "agent_id", "session": "run_id", "expires_at": "expiration_date"}


def shape(map_: TableMap) -> Shape:
    """Return how points, rows of pgvector and the SQLite of TypeScript are records: the payload takes any key."""
    text = map_.fields.get("text", "")
    times: dict[str, TimeUnit] = {"created_at": "iso", "updated_at": "iso", "expires_at": "iso"}
    if map_.table == "vectors":
        keys = _KEYS | {"created_at": "createdAt", "updated_at": "updatedAt"}
        fields = {field: f"payload.{key}" for field, key in keys.items()}
        return Shape(fields=fields, times=times, spread="payload", free="payload.", like=_LIKE_TS)
    if not map_.primary or not text.endswith("data"):
        return Shape(fields=map_.fields, times=map_.times)
    before = text.removesuffix("data")
    typescript = map_.fields.get("created_at", "").endswith("createdAt")
    keys = _KEYS | {field: map_.fields[field].removeprefix(before) for field in ("created_at", "updated_at")}
    fields = {field: before + key for field, key in keys.items()}
    return Shape(fields=fields, times=times, free=before, like=_LIKE_TS if typescript else _LIKE)


def refine(known: Known) -> Refine:  # noqa: ARG001 - the contract's signature
    """Return a record as it is: its payload says all."""
    return lambda record: record


_LIKE = "2026-01-02T03:04:05+00:00"
_LIKE_TS = "2026-01-02T03:04:05.678Z"

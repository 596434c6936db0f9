"""memory-lancedb (legacy and per-agent) and memory-lancedb-pro: a folder of LanceDB tables.

The three share a default path and the table name `memories`; the columns say which one it is (`fingerprint.variant`).
Facts are from stores of memory-lancedb 2026.3.13 and memory-lancedb-pro 1.1.0-beta.11 and their sources. `createdAt`
is epoch milliseconds; pro's `timestamp` too, in old rows seconds. No model's name is stored: it is taken from
`openclaw.json` where that is known to speak of this folder.
"""

from pathlib import Path
from typing import Any

import msgspec

from memkeep.model import Role, Store, TableMap
from memkeep.records.readers import memory_pro
from memkeep.records.record import Record
from memkeep.records.shape import Shape
from memkeep.systems import marks, openclaw_hybrid, openclaw_json
from memkeep.systems.base import Known, OpenClaw, Places, Refine
from memkeep.systems.gather import Choose, Item, Leave, gather
from memkeep.systems.look import Look
from memkeep.systems.maps import dims, recognised, table_map

name = marks.LANCEDB
queries: tuple[str, ...] = ()
LEGACY, PRO = "memory-lancedb", memory_pro.PRO
PLUGINS = {LEGACY: "lancedb", PRO: "lancedb-pro"}


def detect(look: Look, path: Path, places: Places) -> list[Store]:
    """Return the store in a folder that directly holds tables of a memory-lancedb."""
    variants = marks.lancedb_tables(look, path)
    if not variants or any(openclaw_hybrid.lance_path(config, places) == path for config in places.configs):
        return []

    def maps(item: Item) -> tuple[TableMap, ...]:
        seen = look.lance(item.path) if item.kind == "table" else None
        if seen is None:
            return ()
        table, columns = item.path.stem, list(seen.columns)
        found = _map(table, columns) if item.path.name in variants else None
        found = found or recognised(table, columns, primary=False, key=None)
        return (found,) if found else ()

    gathered = gather(look, path, _choose(look, path, places), maps)
    main = look.lance(path / ("memories.lance" if "memories.lance" in variants else min(variants)))
    fingerprint: dict[str, Any] = {"variant": variants.get("memories.lance") or variants[min(variants)]}
    embedding, versions = _configured(path, places)
    embedding |= dims(main)
    fingerprint |= {"embedding": embedding} if embedding else {}
    fingerprint |= {"versions": versions} if versions else {}
    return [
        Store(
            system=name,
            path=str(path),
            root=str(path),
            parts=tuple(gathered.parts),
            records=sum(seen.rows for table in variants if (seen := look.lance(path / table))),
            fingerprint=fingerprint,
            omitted=tuple(gathered.omitted),
            findings=tuple(gathered.findings),
        )
    ]


def default_paths(places: Places) -> list[Path]:
    """Return the configured `dbPath`s and the products' default folders."""
    said = [folder for config in places.configs for _, folder in _folders(config, places)]
    return [*said, *(places.state_dir / "memory" / folder for folder in PLUGINS.values())]


def _map(table: str, columns: list[str]) -> TableMap | None:
    pro = "createdAt" not in columns
    return table_map(
        table,
        table,
        columns,
        fields={
            "text": "text",
            "category": "category",
            "scope": "scope" if "scope" in columns else "agentId",
            "importance": "importance",
            "created_at": "timestamp" if pro else "createdAt",
        },
        vectors=("vector",),
        times={"created_at": "auto" if pro else "ms"},
    )


def _choose(look: Look, root: Path, places: Places) -> Choose:
    shared = _is_shared(look, root, places)

    def choose(item: Item) -> Role | Leave:
        if item.kind == "folder" and item.path.name in {"node_modules", ".git"}:
            return Leave("program code" if item.path.name == "node_modules" else "version control")
        if shared and item.kind != "table" and item.name.split("/")[0] not in marks.LANCEDB_FILES:
            return Leave()
        return Role.DISPOSABLE if item.path.name == ".memory-write.lock" else Role.CANONICAL

    return choose


def _is_shared(look: Look, root: Path, places: Places) -> bool:
    """Say whether a folder is another product's home, so that only the tables in it are this store's."""
    home = openclaw_json.is_home(look, root, places) or marks.is_workspace(look, root)
    return home or any(look.is_database(root / file) for file in look.folder(root).suspects)


def _folders(config: OpenClaw, places: Places) -> list[tuple[str, Path]]:
    """Return the plugins and the folders that a config gives them, said or by default."""
    found = []
    for plugin, usual in PLUGINS.items():
        said = openclaw_json.place(openclaw_json.plugin(config, plugin).get("dbPath"), config, places)
        found.append((plugin, said or config.state_dir / "memory" / usual))
    return found


def _configured(path: Path, places: Places) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the embedder and the version of the plugin whose folder this is, as far as a config says."""
    for config in places.configs:
        for plugin, folder in _folders(config, places):
            if folder == path and (settings := openclaw_json.plugin(config, plugin)):
                version = openclaw_json.plugin_version(config, plugin)
                return openclaw_json.embedding(settings), {plugin: version} if version else {}
    return {}, {}


lookups: tuple[str, ...] = ()


def shape(map_: TableMap) -> Shape:
    """Return how memories are records; pro keeps much of what it knows in the JSON text `metadata`."""
    if "timestamp" not in map_.fields.values():
        return Shape(product=LEGACY, fields=map_.fields, times=map_.times, numbers="float")
    return memory_pro.shape("ms")


def refine(known: Known) -> Refine:  # noqa: ARG001 - the contract's signature
    """Return what tells whose a memory is by its scope: `agent:main`, `user:anna`."""
    return _refined


def _refined(record: Record) -> Record:
    kind, mark, owner = (record.scope or "").partition(":")
    if mark and owner and kind in {"user", "agent"}:
        return msgspec.structs.replace(record, **{kind: owner})
    return record

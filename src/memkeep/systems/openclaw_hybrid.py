"""openclaw-hybrid-memory: `facts.db`, some eighteen more databases, LanceDB tables, a pending log and dotfiles.

Facts on the formats are from stores of 2026.4.273 and its source (github.com/markus-lassfolk/openclaw-hybrid-memory,
commit d0adf13). The store is the folder that holds `facts.db`; everything in it is taken, known or not, save what is
another product's. `facts.db` is canonical and the LanceDB tables can be made again from it, given the embedder.

Things that belong to the store but lie elsewhere (`lanceDbPath`, `wal.walPath`, and in the state folder
`verified-facts.json` and `event-archive/`) are parts too: under the name that they would have in the folder
(`lancedb/memories.lance`, `memory.wal`), or else `outside/NAME`. `Part.path` says where they are, and
`fingerprint["outside"]` lists them.
"""

from pathlib import Path
from typing import Any, NamedTuple

from memkeep.model import Finding, Part, Role, Severity, Store, TableMap
from memkeep.records.shape import Shape
from memkeep.systems import hybrid_maps, marks, openclaw_json
from memkeep.systems.base import Known, OpenClaw, Places, Refine
from memkeep.systems.gather import Choose, Gathered, Item, Leave, Maps, gather
from memkeep.systems.look import Look
from memkeep.systems.maps import dims

name = marks.HYBRID
PLUGIN = "openclaw-hybrid-memory"

_COUNT = "SELECT count(*) FROM facts"
_EMBEDDER = "SELECT provider, model FROM embedding_meta ORDER BY id LIMIT 1"
_KDF = "SELECT hex(value) FROM vault_meta WHERE key = 'kdf_version'"
_CREDENTIALS = "SELECT count(*) FROM credentials"
queries: tuple[str, ...] = (_COUNT, _EMBEDDER, _KDF, _CREDENTIALS)

_LEFT_OUT = {
    "backups": "copies that the product made",
    "node_modules": "program code",
    ".git": "version control",
    "logs": "logs",
    "tmp": "temporary files",
}
_LEFT_OUT_ENDS = {".tmp": "a temporary file", ".log": "a log", ".sock": "a socket", ".pid": "a process number"}


def detect(look: Look, path: Path, places: Places) -> list[Store]:
    """Return the store in a folder, told by a database in it with hybrid's table `facts`."""
    facts = marks.hybrid_facts(look, path)
    if facts is None:
        return []
    config = _config(path, places)
    maps = _maps(look, facts)
    gathered = gather(look, path, _choose(look, path, places), maps)
    outside = _outside(look, path, {part.name for part in gathered.parts}, maps, _Settings(config, places))
    gathered.add(outside)
    count = look.rows(facts, _COUNT)
    return [
        Store(
            system=name,
            path=str(path),
            root=str(path),
            parts=tuple(sorted(gathered.parts, key=lambda part: part.name)),
            records=count[0][0] if count else None,
            fingerprint=_fingerprint(look, facts, gathered.parts, config) | _lying_outside(outside.parts),
            omitted=tuple(gathered.omitted),
            findings=(*gathered.findings, *_plain_credentials(look, gathered.parts)),
        )
    ]


def default_paths(places: Places) -> list[Path]:
    """Return the folders of the configured `sqlitePath`s, and the product's default one."""
    return [_facts_path(config, places).parent for config in places.configs] + [places.state_dir / "memory"]


def lance_path(config: OpenClaw, places: Places) -> Path | None:
    """Return the folder of LanceDB tables that a config names; None when it names none."""
    return openclaw_json.place(openclaw_json.plugin(config, PLUGIN).get("lanceDbPath"), config, places)


def _facts_path(config: OpenClaw, places: Places) -> Path:
    said = openclaw_json.place(openclaw_json.plugin(config, PLUGIN).get("sqlitePath"), config, places)
    return said or config.state_dir / "memory" / "facts.db"


def _config(folder: Path, places: Places) -> OpenClaw | None:
    return next((config for config in places.configs if _facts_path(config, places).parent == folder), None)


def _choose(look: Look, root: Path, places: Places) -> Choose:
    in_workspace = marks.is_workspace(look, root.parent)
    shared = openclaw_json.is_home(look, root, places) or marks.is_workspace(look, root)

    def choose(item: Item) -> Role | Leave:
        note = in_workspace and item.path.suffix == ".md"  # of the workspace that the folder lies in
        if note or (shared and not _is_own(look, item)):
            return Leave()
        if item.kind == "folder":
            return _folder(look, item.path)
        if item.kind == "table":
            theirs = item.path.name in marks.lancedb_tables(look, item.path.parent)
            return Leave() if theirs else _lance_role(look, item.path)
        return _database(look, item.path) if item.kind == "database" else _file(item.path)

    return choose


def _folder(look: Look, folder: Path) -> Role | Leave:
    if folder.name in _LEFT_OUT:
        return Leave(_LEFT_OUT[folder.name])
    theirs = marks.lancedb_tables(look, folder)
    return Leave() if theirs and theirs.keys() == set(look.folder(folder).tables) else Role.CANONICAL


def _database(look: Look, file: Path) -> Role | Leave:
    tables = look.columns(file)
    if marks.is_oc_memory(tables) or marks.is_core(tables):
        return Leave()
    return Role.SECRET if marks.is_credential_vault(tables) else marks.HYBRID_FILES.get(file.name, Role.CANONICAL)


def _file(file: Path) -> Role | Leave:
    if file.suffix in _LEFT_OUT_ENDS:
        return Leave(_LEFT_OUT_ENDS[file.suffix])
    return marks.HYBRID_FILES.get(file.name, Role.CANONICAL)


def _is_own(look: Look, item: Item) -> bool:
    """Say whether a thing in a folder that is another product's home too is surely hybrid's."""
    if item.kind == "folder":
        tables = [item.path / table for table in look.folder(item.path).tables]
        return any((seen := look.lance(table)) and marks.is_hybrid_table(seen.columns) for table in tables)
    if item.kind == "file":
        return item.path.name in marks.HYBRID_FILES
    return "/" not in item.name or item.kind == "table"


def _lance_role(look: Look, table: Path) -> Role:
    seen = look.lance(table)
    columns = set(seen.columns) if seen else set()
    if "queryText" in columns:
        return Role.DISPOSABLE  # the cache of queries
    return Role.DERIVED if "why" in columns or table.stem in {"memories", "fact_aliases"} else Role.CANONICAL


def _maps(look: Look, facts: Path) -> Maps:
    first = hybrid_maps.sqlite_maps(look.columns(facts))
    used = {each.collection for each in first}

    def maps(item: Item) -> tuple[TableMap, ...]:
        if item.path == facts:
            return tuple(first)
        if item.kind == "database":
            found = hybrid_maps.sqlite_maps(look.columns(item.path))
        elif item.kind == "table" and (seen := look.lance(item.path)):
            found = hybrid_maps.lance_maps(item.path.stem, seen.columns)
        else:
            found = []
        fresh = [each for each in found if each.collection not in used]  # a copy of a database is no second memory
        used.update(each.collection for each in fresh)
        return tuple(fresh)

    return maps


class _Settings(NamedTuple):
    """What speaks of this store, if anything does, and how to read the paths in it."""

    config: OpenClaw | None
    places: Places

    def said(self, *keys: str) -> Path | None:
        """Return the path that the plugin's settings give under these keys."""
        if self.config is None:
            return None
        found = openclaw_json.dig(openclaw_json.plugin(self.config, PLUGIN), *keys)
        return openclaw_json.place(found, self.config, self.places)

    def state_dir(self, look: Look, root: Path) -> Path | None:
        """Return the state folder that the store belongs to, if any."""
        if self.config is not None:
            return self.config.state_dir
        above = root.parent
        known = above == self.places.state_dir or openclaw_json.FILE in look.folder(above).files
        return above if known else None


def _outside(look: Look, root: Path, taken: set[str], maps: Maps, settings: _Settings) -> Gathered:
    """Gather what belongs to the store and lies outside of its folder."""
    out = Gathered([], [], [])
    state = settings.state_dir(look, root)

    def add(path: Path | None, usual: str) -> None:
        if path is None or path.is_relative_to(root) or not path.exists():
            return
        there = any(name == usual or name.startswith(f"{usual}/") for name in taken)
        name = f"outside/{path.name}" if there else usual
        if usual == "lancedb":  # whatever else is there
            items = [Item(f"{name}/{table}", path / table, "table") for table in look.folder(path).tables]
            for item in items:
                role = _lance_role(look, item.path)
                out.parts.append(Part(name=item.name, engine="lance", role=role, path=str(item.path), maps=maps(item)))
        elif path.is_dir():
            out.add(gather(look, path, lambda _: Role.CANONICAL, name=name, whole=True))
        elif path.is_file():
            out.parts.append(Part(name=name, engine="files", role=Role.CANONICAL, path=str(path)))

    add(settings.said("lanceDbPath"), "lancedb")
    add(settings.said("wal", "walPath"), "memory.wal")
    if state is not None:
        verified = settings.said("verification", "backupPath") or state / "verified-facts.json"
        add(verified, "outside/verified-facts.json")
        add(state / "event-archive", "outside/event-archive")
    return out


def _lying_outside(parts: list[Part]) -> dict[str, Any]:
    return {"outside": {part.name: part.path for part in parts}} if parts else {}


def _fingerprint(look: Look, facts: Path, parts: list[Part], config: OpenClaw | None) -> dict[str, Any]:
    embedding = openclaw_json.embedding(openclaw_json.plugin(config, PLUGIN)) if config else {}
    if said := look.rows(facts, _EMBEDDER):
        embedding |= {"provider": said[0][0], "model": said[0][1]}
    for part in parts:
        if part.engine == "lance" and Path(part.path).stem == "memories":
            embedding |= dims(look.lance(Path(part.path)))
    out: dict[str, Any] = {"embedding": embedding} if embedding else {}
    if config and (version := openclaw_json.plugin_version(config, PLUGIN)):
        out["versions"] = {PLUGIN: version}
    return out


def _plain_credentials(look: Look, parts: list[Part]) -> list[Finding]:
    """Return a finding for each credential vault whose values are plain text (`kdf_version` 0).

    A warning, not an error: no memory is lost or damaged by it, but what is copied are readable secrets.
    """
    found = []
    for part in parts:
        if part.engine != "sqlite" or part.role is not Role.SECRET:
            continue
        version, count = look.rows(Path(part.path), _KDF), look.rows(Path(part.path), _CREDENTIALS)
        if version and version[0][0] in ("00", "30") and count and count[0][0]:
            found.append(
                Finding(
                    code="credentials_plaintext",
                    severity=Severity.WARNING,
                    message=f"{part.name} keeps its {count[0][0]} credentials in plain text (kdf_version 0).",
                    part=part.name,
                    mend="Set credentials.encryptionKey, 16 characters or more, in the plugin's settings.",
                )
            )
    return found


lookups: tuple[str, ...] = ()


def shape(map_: TableMap) -> Shape:
    """Return how the rows of one of its tables are records."""
    return hybrid_maps.shape(map_)


def refine(known: Known) -> Refine:  # noqa: ARG001 - the contract's signature
    """Return what completes a fact."""
    return hybrid_maps.refined

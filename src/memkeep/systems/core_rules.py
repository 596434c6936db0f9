"""What each thing in an OpenClaw state folder or workspace is: its role, or why it is left out.

Names are those of OpenClaw 2026.9.6, and what is left out follows its own backup command, save that transcripts
(`agents/*/sessions`) are kept: they are the agent's past.
"""

import re
from functools import cache, partial
from pathlib import Path

from memkeep.model import Role
from memkeep.systems import marks, openclaw_json
from memkeep.systems.gather import Choose, Item, Leave, is_secret_file
from memkeep.systems.look import Look

LEFT_OUT_OF_WORKSPACE = {".git": "version control", "node_modules": "program code that can be installed again"}

_LEFT_OUT = {
    "backups": "copies that the product made",
    "memory/backups": "copies that the product made",
    "cache": "a cache",
    "tmp": "temporary files",
    "logs": "logs",
    "npm": "program code that can be installed again",
    "git": "program code that can be installed again",
    "dev": "program code that can be installed again",
    "tools": "program code that can be installed again",
    "browser": "a browser's profile",
}
_LEFT_OUT_ENDS = {".tmp": "a temporary file", ".log": "a log", ".sock": "a socket", ".pid": "a process number"}
_SECRET_FOLDERS = frozenset({"credentials", "identity", "devices", ".memory-lancedb-pro"})


def apart(under: str) -> bool:
    """Say whether the loose files of a folder, by its path under the state folder, are parts one by one."""
    return any(re.fullmatch(pattern, under) for pattern in ("", "agents(/[^/]+(/agent)?)?", "state", "memory"))


def state_folder(look: Look, state: Path, spaces: set[Path]) -> Choose:
    """Return what the things in a state folder are; `spaces` are the workspaces in it, which are gathered apart."""
    hybrid = {folder for folder in (state, state / "memory") if marks.hybrid_facts(look, folder)}
    theirs = {"verified-facts.json", "event-archive"} if hybrid else set[str]()
    theirs |= marks.HYBRID_FILES.keys() if state in hybrid else set()
    theirs |= marks.LANCEDB_FILES if marks.lancedb_tables(look, state) else set()

    def choose(item: Item) -> Role | Leave:
        top = item.name.split("/")[0]
        usual = Role.CANONICAL if top in {"agents", "memory"} else Role.CONFIG
        plugins = top == "memory" and "/" in item.name and state / "memory" in hybrid and not _is_index(look, item)
        if item.path in spaces or plugins or (top in theirs and item.kind != "database"):
            return Leave()
        if item.kind == "folder":
            return _folder(look, item, usual)
        if item.kind == "file":
            return _file(item, usual)
        return _table(look, item.path) if item.kind == "table" else _database(look, item.path)

    return choose


def workspace(look: Look) -> Choose:
    """Return what the things in a workspace are: all of it is canonical, but for other products' stores in it."""
    facts_in = cache(partial(marks.hybrid_facts, look))

    def choose(item: Item) -> Role | Leave:
        if item.kind == "folder":
            left = LEFT_OUT_OF_WORKSPACE.get(item.path.name)
            return Leave(left) if left else Leave() if marks.lancedb_tables(look, item.path) else Role.CANONICAL
        if item.kind == "table":
            return _table(look, item.path)
        if item.kind == "database" and marks.is_oc_memory(look.columns(item.path)):
            return Leave()
        if item.path.suffix != ".md" and facts_in(item.path.parent):
            return Leave()
        return Role.CANONICAL

    return choose


def _is_index(look: Look, item: Item) -> bool:
    return item.kind == "database" and marks.is_core_index(look.columns(item.path))


def _folder(look: Look, item: Item, usual: Role) -> Role | Leave:
    last = item.path.name
    if item.name in _LEFT_OUT:
        return Leave(_LEFT_OUT[item.name])
    if last in LEFT_OUT_OF_WORKSPACE:
        return Leave(LEFT_OUT_OF_WORKSPACE[last])
    if item.name != "memory" and (marks.hybrid_facts(look, item.path) or marks.lancedb_tables(look, item.path)):
        return Leave()
    return Role.SECRET if item.name.split("/")[0] in _SECRET_FOLDERS else usual


def _table(look: Look, table: Path) -> Role | Leave:
    seen = look.lance(table)
    theirs = table.name in marks.lancedb_tables(look, table.parent) or (seen and marks.is_hybrid_table(seen.columns))
    return Leave() if theirs else Role.CANONICAL


def _database(look: Look, file: Path) -> Role | Leave:
    tables = look.columns(file)
    if marks.is_core_index(tables) or marks.is_core_quarantine(tables):
        return Role.DERIVED
    if marks.is_core(tables):
        return Role.CANONICAL
    if marks.is_oc_memory(tables) or marks.hybrid_facts(look, file.parent):
        return Leave()
    lock = ".sqlite." in file.name and not tables and file.stem.endswith(("-lock", "-writer"))
    return Role.DISPOSABLE if lock else Role.CANONICAL


def _file(item: Item, usual: Role) -> Role | Leave:
    if item.path.suffix in _LEFT_OUT_ENDS:
        return Leave(_LEFT_OUT_ENDS[item.path.suffix])
    if item.name.split("/")[0] in _SECRET_FOLDERS or is_secret_file(item.path.name):
        return Role.SECRET
    if ".json" not in item.path.suffixes:
        return usual
    if apart(item.name.rpartition("/")[0]):
        return Role.CONFIG  # a part of its own, which names the keys that hold secrets
    return Role.SECRET if usual is Role.CONFIG and openclaw_json.secrets(openclaw_json.read(item.path)) else usual

"""What tells the products apart: table and column names, never a path.

Sources: the schemas that the products write, read back from stores made by oc-memory 0.1.0, openclaw-hybrid-memory
2026.4.273, memory-lancedb 2026.3.13 and its per-agent successor, memory-lancedb-pro 1.1.0-beta.11 and OpenClaw
2026.5 to 2026.9. None of them but core carries a version in its databases, and `~/.openclaw/memory/lancedb` with a
table `memories` is used by three of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from memkeep.engines.chroma_files import DATABASE
from memkeep.model import Role
from memkeep.systems.look import Look

OC_MEMORY = "oc-memory"
HYBRID = "openclaw-hybrid"
LANCEDB = "openclaw-lancedb"
CORE = "openclaw-core"

Variant = Literal["legacy", "per-agent", "pro"]
Tables = Mapping[str, Sequence[str]]

HYBRID_FILES = {  # that openclaw-hybrid-memory is known to write beside its databases
    "memory.wal": Role.CANONICAL,
    "wal.jsonl": Role.CANONICAL,
    "credentials.db": Role.SECRET,
    "credentials-pending.json": Role.SECRET,
    ".discovered-categories.json": Role.CONFIG,
    ".distill_last_run": Role.CONFIG,
    ".language-keywords.json": Role.CONFIG,
    ".user-feedback-phrases.json": Role.CONFIG,
    ".auth-backoff.json": Role.CONFIG,
    ".reembed-progress.json": Role.CONFIG,
    ".passive-observer-cursors.json": Role.CONFIG,
    ".latest-plugin-version.json": Role.CONFIG,
}
LANCEDB_FILES = frozenset({".memory-write.lock", ".legacy-timestamp-backfill-backups"})  # memory-lancedb-pro's
WORKSPACE_FILES = frozenset(
    {"MEMORY.md", "USER.md", "SOUL.md", "IDENTITY.md", "TOOLS.md", "HEARTBEAT.md", "BOOTSTRAP.md", "DREAMS.md"}
)


def _has(tables: Tables, table: str, *columns: str) -> bool:
    return table in tables and set(columns) <= set(tables[table])


def is_oc_memory(tables: Tables) -> bool:
    """Say whether a database is oc-memory's (not the Rust program of the same name, whose table is `memories`)."""
    return _has(tables, "mem_cells", "scene", "cell_type", "content", "salience")


def is_hybrid_facts(tables: Tables) -> bool:
    """Say whether a database is openclaw-hybrid-memory's `facts.db`; workspaces keep other tables called `facts`."""
    later = {"normalized_hash", "superseded_at", "last_confirmed_at", "expires_at"}
    return _has(tables, "facts", "id", "text", "category", "decay_class") and not later.isdisjoint(tables["facts"])


def is_credential_vault(tables: Tables) -> bool:
    """Say whether a database is openclaw-hybrid-memory's credential vault."""
    return "vault_meta" in tables and "credentials" in tables


def is_core_agent(tables: Tables) -> bool:
    """Say whether a database is one of OpenClaw's agent databases (index, transcripts and auth in one)."""
    return "memory_index_chunks" in tables or "auth_profile_store" in tables


def is_core_state(tables: Tables) -> bool:
    """Say whether a database is OpenClaw's global one."""
    return "plugin_state_entries" in tables or "agent_databases" in tables


def is_core_quarantine(tables: Tables) -> bool:
    """Say whether a database is OpenClaw's list of quarantined databases."""
    return "quarantined_databases" in tables


def is_core_index(tables: Tables) -> bool:
    """Say whether a database is OpenClaw's index of before mid-2026, one an agent."""
    return (
        _has(tables, "chunks", "id", "path", "start_line", "text")
        and _has(tables, "files", "path", "hash")
        and _has(tables, "meta", "key", "value")
    )


def is_core(tables: Tables) -> bool:
    """Say whether a database is any of OpenClaw's own."""
    return any(test(tables) for test in (is_core_agent, is_core_state, is_core_quarantine, is_core_index))


def is_qdrant_collection(tables: Tables) -> bool:
    """Say whether a database is a collection of Qdrant's local mode."""
    return {name: list(columns) for name, columns in tables.items()} == {"points": ["id", "point"]}


def is_chroma(tables: Tables) -> bool:
    """Say whether a database is that of a persistent directory of Chroma."""
    return _has(tables, "embeddings_queue", "seq_id", "topic", "vector") and {"collections", "segments"} <= set(tables)


def chroma_database(look: Look, folder: Path) -> Path | None:
    """Return the database of the persistent directory of Chroma that a folder is; None when it is none."""
    file = folder / DATABASE
    return file if file.name in look.folder(folder).suspects and is_chroma(look.columns(file)) else None


def is_mem0_history(tables: Tables) -> bool:
    """Say whether a database is what the library mem0 did and was told, as it is written from Python."""
    return _has(tables, "history", "memory_id", "old_memory", "new_memory", "event")


def is_mem0_history_ts(tables: Tables) -> bool:
    """Say whether a database is what mem0 did, as it is written from TypeScript."""
    return _has(tables, "memory_history", "memory_id", "previous_value", "new_value", "action")


def is_mem0_vectors_ts(tables: Tables) -> bool:
    """Say whether a database holds the memories of mem0 in TypeScript."""
    return _has(tables, "vectors", "id", "vector", "payload") and "memory_migrations" in tables


def is_openmemory(tables: Tables) -> bool:
    """Say whether a database is OpenMemory's, which has points of mem0 beside it."""
    return _has(tables, "memories", "app_id", "content", "state") and "memory_status_history" in tables


def lancedb_variant(columns: Iterable[str], *, beside_hybrid: bool = False) -> Variant | None:
    """Return which memory-lancedb wrote a table with these columns, None for none of them.

    `beside_hybrid`: openclaw-hybrid-memory's facts lie in the folder above. Its tables of before `why` have the
    columns of the legacy plugin, and its facts then decide.
    """
    names = set(columns)
    if not {"id", "text", "vector", "category", "importance"} <= names or "why" in names:
        return None
    if "createdAt" in names:
        if "agentId" in names:
            return "per-agent"
        return None if beside_hybrid else "legacy"
    return "pro" if not names.isdisjoint({"scope", "timestamp", "metadata"}) else None


def is_hybrid_table(columns: Iterable[str]) -> bool:
    """Say whether a LanceDB table is openclaw-hybrid-memory's: of facts (since `why`), of aliases, or its cache."""
    return not {"why", "factId", "queryText"}.isdisjoint(columns)


def hybrid_facts(look: Look, folder: Path) -> Path | None:
    """Return the database with openclaw-hybrid-memory's facts that lies directly in a folder, `facts.db` first."""
    databases = [folder / name for name in look.folder(folder).suspects]
    databases.sort(key=lambda file: (file.name != "facts.db", file.name))
    return next((file for file in databases if is_hybrid_facts(look.columns(file))), None)


def lancedb_tables(look: Look, folder: Path) -> dict[str, Variant]:
    """Return the tables directly in a folder that a memory-lancedb wrote, and which one did."""
    names = look.folder(folder).tables
    if not names:
        return {}
    beside_hybrid = any(hybrid_facts(look, near) for near in (folder, folder.parent))
    inspected = {name: look.lance(folder / name) for name in names}
    variants = {
        name: lancedb_variant(seen.columns, beside_hybrid=beside_hybrid) for name, seen in inspected.items() if seen
    }
    return {name: variant for name, variant in variants.items() if variant}


def is_workspace(look: Look, folder: Path) -> bool:
    """Say whether a folder is an agent's workspace: long-term memory with daily notes, or two of its usual files."""
    here = look.folder(folder)
    usual = WORKSPACE_FILES & here.files.keys()
    if len(usual) > 1 or (usual and "AGENTS.md" in here.files):
        return True
    daily = look.folder(folder / "memory").files if "memory" in here.folders else {}
    return "MEMORY.md" in here.files and any(name.endswith(".md") for name in daily)

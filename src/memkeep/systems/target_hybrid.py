"""Records into openclaw-hybrid-memory: `facts.db`, and the vectors beside it in LanceDB under the same ids."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from memkeep.engines import lance_new, sqlite_new
from memkeep.errors import RefusedError, quoted
from memkeep.model import Store, TableMap
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record
from memkeep.records.shape import SIDE_TABLE, Row
from memkeep.systems import openclaw_hybrid
from memkeep.systems.base import Known
from memkeep.systems.detect import discover
from memkeep.systems.making import Making
from memkeep.systems.target import Wish, is_valid

name = openclaw_hybrid.name
names: tuple[str, ...] = (openclaw_hybrid.name, "hybrid")

# The tables that a store must have for the product to open it, as 2026.4.273 has them; it adds the others itself.
_SCHEMA = """
CREATE TABLE facts (
    id TEXT PRIMARY KEY, text TEXT NOT NULL, why TEXT, category TEXT NOT NULL DEFAULT 'other',
    importance REAL NOT NULL DEFAULT 0.5, entity TEXT, key TEXT, value TEXT,
    source TEXT NOT NULL DEFAULT 'conversation', created_at INTEGER NOT NULL,
    decay_class TEXT NOT NULL DEFAULT 'stable', expires_at INTEGER, last_confirmed_at INTEGER,
    confidence REAL NOT NULL DEFAULT 1.0, summary TEXT, normalized_hash TEXT, source_date INTEGER, tags TEXT,
    recall_count INTEGER NOT NULL DEFAULT 0, last_accessed INTEGER, superseded_at INTEGER, superseded_by TEXT,
    valid_from INTEGER, valid_until INTEGER, supersedes_id TEXT, tier TEXT DEFAULT 'warm',
    scope TEXT NOT NULL DEFAULT 'global', scope_target TEXT, procedure_type TEXT, success_count INTEGER DEFAULT 0,
    last_validated INTEGER, source_sessions TEXT, last_reinforced_at INTEGER, reinforced_quotes TEXT,
    embedding_model TEXT, decay_freeze_until INTEGER DEFAULT NULL, provenance_session TEXT, source_turn INTEGER,
    extraction_method TEXT, extraction_confidence REAL, reinforced_count REAL NOT NULL DEFAULT 0,
    access_count INTEGER NOT NULL DEFAULT 0, last_accessed_at TEXT, preserve_until INTEGER, preserve_tags TEXT,
    entity_enrichment_at INTEGER);
CREATE INDEX idx_facts_category ON facts(category);
CREATE INDEX idx_facts_entity ON facts(entity);
CREATE INDEX idx_facts_created ON facts(created_at);
CREATE INDEX idx_facts_normalized_hash ON facts(normalized_hash) WHERE normalized_hash IS NOT NULL;
CREATE INDEX idx_facts_scope ON facts(scope);
CREATE VIRTUAL TABLE facts_fts USING fts5(
    text, category, entity, tags, why, key, value, tokenize='porter unicode61');
CREATE TRIGGER facts_ai AFTER INSERT ON facts BEGIN
    INSERT INTO facts_fts(rowid, text, category, entity, tags, why, key, value)
    VALUES (new.rowid, new.text, new.category, new.entity, new.tags, new.why, new.key, new.value);
END;
CREATE TRIGGER facts_ad AFTER DELETE ON facts BEGIN
    DELETE FROM facts_fts WHERE rowid = old.rowid;
END;
CREATE TRIGGER facts_au AFTER UPDATE ON facts BEGIN
    DELETE FROM facts_fts WHERE rowid = old.rowid;
    INSERT INTO facts_fts(rowid, text, category, entity, tags, why, key, value)
    VALUES (new.rowid, new.text, new.category, new.entity, new.tags, new.why, new.key, new.value);
END;
CREATE TABLE memory_links (
    id TEXT PRIMARY KEY, source_fact_id TEXT NOT NULL, target_fact_id TEXT NOT NULL, link_type TEXT NOT NULL,
    strength REAL NOT NULL DEFAULT 1.0, created_at INTEGER NOT NULL,
    FOREIGN KEY (source_fact_id) REFERENCES facts(id) ON DELETE CASCADE);
CREATE INDEX idx_links_source ON memory_links(source_fact_id);
CREATE INDEX idx_links_target ON memory_links(target_fact_id);
CREATE TABLE embedding_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), provider TEXT NOT NULL, model TEXT NOT NULL, updated_at INTEGER NOT NULL);
"""
_SCOPES = ("user", "agent", "session")
heeds: tuple[str, ...] = ("expires_at",)  # `valid_until` is asked only for what was known at a time


def hides(map_: TableMap) -> bool:  # noqa: ARG001 - the contract's signature
    """Say yes: a fact that another has taken the place of stays, with the time."""
    return True


def identity(system: str, identity: str) -> str:
    """Return a lower-case UUID."""
    return as_uuid(system, identity)


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a fact its scope, its hash and a time; a row of LanceDB the columns that repeat it."""
    if map_.collection.startswith("lance_"):
        repeated = {"text": made.text, "why": "", "importance": 0.5, "category": made.category or "other"}
        return repeated | row | {"createdAt": float(row.get("createdAt") or 0)}
    if map_.collection != "facts":
        return row
    kind = next((kind for kind in _SCOPES if getattr(made, kind)), None)
    owner = {"scope": kind or "global"} | ({"scope_target": getattr(made, kind)} if kind else {})
    plain = " ".join(made.text.split()).lower()
    filled = {"normalized_hash": hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()}
    superseded = {} if is_valid(made.status) else {"superseded_at": int(row.get("created_at") or 0)}
    usual = {"category": "other", "importance": 0.5, "source": "conversation", "confidence": 1.0, "recall_count": 0}
    return usual | filled | superseded | row | owner | {"created_at": int(row.get("created_at") or 0)}


def complete_joined(row: Row, map_: TableMap) -> Row:  # noqa: ARG001 - the contract's signature
    """Give a link its time."""
    return row | {"created_at": row.get("created_at") or 0}


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield nothing: a fact stands alone."""
    return ()


def create(name: str, place: str, wish: Wish, making: Making) -> Store:  # noqa: ARG001 - the contract's signature
    """Make a folder with `facts.db` and, where records have vectors, the table of LanceDB."""
    folder = Path(place)
    if (folder / "lancedb").exists():
        raise RefusedError(
            f"there is something at {folder / 'lancedb'} already",
            hint=f"ls {quoted(folder)}",
            code="target_exists",
        )
    schema = _SCHEMA + sqlite_new.side_table(SIDE_TABLE)
    provider, _, model = (wish.model or "").rpartition("/")
    if model:
        values = ", ".join(_literal(text) for text in (provider or "unknown", model))
        schema += f"INSERT INTO embedding_meta VALUES (1, {values}, 0);\n"  # noqa: S608 - quoted
    with making.path(folder / "facts.db"):
        sqlite_new.create(folder / "facts.db", schema, wal=True)
    if wish.dims:
        columns: dict[str, str | int] = {"id": "string", "text": "string", "why": "string", "vector": wish.dims}
        columns |= {"importance": "double", "category": "string", "createdAt": "double"}
        with making.path(folder / "lancedb" / "memories.lance"):
            lance_new.create(folder / "lancedb" / "memories.lance", columns)
    return discover([folder])[0]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

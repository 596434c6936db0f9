"""Records into oc-memory: one database, whose ids are numbers and whose full-text table the product fills itself."""

import json
from collections.abc import Iterable
from pathlib import Path

from memkeep.engines import sqlite_new
from memkeep.model import Store, TableMap
from memkeep.records.ids import as_number
from memkeep.records.record import Record
from memkeep.records.shape import SIDE_TABLE, Row
from memkeep.systems import oc_memory
from memkeep.systems.base import Known
from memkeep.systems.detect import discover
from memkeep.systems.making import Making
from memkeep.systems.target import Wish

name = oc_memory.name
names: tuple[str, ...] = (oc_memory.name,)

# As the product of 5738c61 makes it.
_SCHEMA = """
CREATE TABLE mem_cells (
    id INTEGER PRIMARY KEY, scene TEXT NOT NULL, cell_type TEXT NOT NULL, salience REAL DEFAULT 0.5,
    content TEXT NOT NULL, source TEXT DEFAULT '', tags TEXT DEFAULT '[]', embedding BLOB,
    access_count INTEGER DEFAULT 0, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE mem_scenes (
    scene TEXT PRIMARY KEY, summary TEXT DEFAULT '', summary_embedding BLOB, cell_count INTEGER DEFAULT 0,
    updated_at TEXT NOT NULL);
CREATE INDEX idx_cells_scene ON mem_cells(scene);
CREATE INDEX idx_cells_salience ON mem_cells(salience DESC);
CREATE INDEX idx_cells_type ON mem_cells(cell_type);
CREATE VIRTUAL TABLE mem_fts USING fts5(content, scene, cell_type, tags);
"""
_UNKNOWN = "1970-01-01T00:00:00"
heeds: tuple[str, ...] = ()


def hides(map_: TableMap) -> bool:  # noqa: ARG001 - the contract's signature
    """Say no: every cell is found."""
    return False


def identity(system: str, identity: str) -> str:
    """Return a number: the product's ids are its own to give, so these begin far above them."""
    return as_number(system, identity)


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a cell the columns that must not be NULL; what belongs to no scene is unconsolidated, as in the product."""
    if map_.collection != "cells":
        return row
    times = row.get("created_at") or row.get("updated_at") or _UNKNOWN
    filled: Row = {
        "scene": made.scope or "unconsolidated",
        "cell_type": made.category or "fact",
        "tags": json.dumps([]),
    }
    filled |= {"salience": 0.5, "source": "", "access_count": 0}
    filled |= {"created_at": times, "updated_at": row.get("updated_at") or times, "content": made.text}
    return filled | row | {"id": int(row["id"])}


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield nothing: a scene has a row once the product has written its summary."""
    return ()


def create(name: str, place: str, wish: Wish, making: Making) -> Store:  # noqa: ARG001 - the contract's signature
    """Make an empty database."""
    with making.path(Path(place)):
        sqlite_new.create(Path(place), _SCHEMA + sqlite_new.side_table(SIDE_TABLE))
    return discover([place])[0]

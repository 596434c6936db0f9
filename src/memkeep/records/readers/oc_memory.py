"""`memory-export.json` of oc-memory, as the product writes it and as memkeep does.

Facts are from github.com/sam-ueckert/oc-memory, commit 5738c61: `exported_at`, `stats`, `scenes` and `cells`, with
times in naive UTC. Its own restore takes `scene`, `cell_type`, `salience`, `content`, `source` and `tags` of each cell
and passes over all other keys. memkeep adds such keys: a vector under the name of its column, and under `memkeep` the
fields of the record that the product's keys do not say; whole records and relationships that are no cells are in the
arrays `memkeep_records` and `memkeep_relationships`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from memkeep.model import TableMap
from memkeep.records.readers.base import Read, UnfitError
from memkeep.records.readers.json_stream import elements, first_keys, portables
from memkeep.records.readers.numbers import vector
from memkeep.records.record import Portable, Record, Relationship
from memkeep.records.shape import Mapper, Shape
from memkeep.records.wire import from_object, to_object

name = "oc-memory"
FILE = "memory-export.json"
EXTRA = "memkeep"
RECORDS, RELATIONSHIPS = "memkeep_records", "memkeep_relationships"

CELL_COLUMNS = (
    *("id", "scene", "cell_type", "salience", "content", "source", "tags", "access_count"),
    *("created_at", "updated_at"),
)
SCENE_COLUMNS = ("scene", "summary", "cell_count", "updated_at")
_TIMES: dict[str, Any] = {"created_at": "iso", "updated_at": "iso"}
_CELL_FIELDS = {
    "text": "content",
    "category": "cell_type",
    "scope": "scene",
    "source": "source",
    "tags": "tags",
    "importance": "salience",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "access_count": "access_count",
}
_LIKE = "2026-01-02T03:04:05"
CELLS = Mapper(
    TableMap(collection="cells", table="mem_cells", id="id", fields=_CELL_FIELDS, vectors=("embedding",)),
    Shape(fields=_CELL_FIELDS, times=_TIMES, like=_LIKE),
    name,
)
SCENES = Mapper(
    TableMap(collection="scenes", table="mem_scenes", id="scene", vectors=("summary_embedding",), primary=False),
    Shape(fields={"text": "summary", "updated_at": "updated_at"}, times={"updated_at": "iso"}, like=_LIKE),
    name,
)


def fits(path: Path) -> bool:
    """Say whether a file, or a folder's file of that name, begins as an export of oc-memory does."""
    return {"exported_at", "stats"} <= first_keys(_file(path), 2).keys()


def read(path: Path) -> Iterator[Read]:
    """Yield cells, scenes, and what memkeep put beside them."""
    parsers = {"cells": _cell, "scenes": _scene, RECORDS: _record, RELATIONSHIPS: _relationship}
    return portables(elements(_file(path)), parsers)


def portable(said: dict[str, Any], mapper: Mapper) -> Record:
    """Return the record of a cell or a scene, as the product's keys and memkeep's say it; raises `ValueError`."""
    row = dict(said)
    column = mapper.map.vectors[0]
    extra, numbers, model = row.pop(EXTRA, None), row.pop(column, None), row.pop(f"{column}_model", None)
    if numbers is not None:
        row[column] = vector(numbers, model)
    made = mapper.record(row)
    assert isinstance(made, Record)  # noqa: S101 - neither shape is one of relationships
    if extra is None:
        return made
    if not isinstance(extra, dict):
        raise UnfitError(f"`{EXTRA}` is no object")
    whole = msgspec.structs.replace(made, vectors={})
    merged = from_object({k: v for k, v in (to_object(whole) | extra).items() if v is not None}, Record)
    assert isinstance(merged, Record)  # noqa: S101 - as was asked for
    return merged if merged.vectors else msgspec.structs.replace(merged, vectors=made.vectors)


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def _cell(said: Any) -> Record:
    if not isinstance(said, dict) or not isinstance(said.get("content"), str):
        raise UnfitError("no cell: `content` is no text")
    return portable(said, CELLS)


def _scene(said: Any) -> Record:
    if not isinstance(said, dict) or not isinstance(said.get("scene"), str):
        raise UnfitError("no scene: `scene` is no text")
    return portable(said, SCENES)


def _record(said: Any) -> Portable:
    return from_object(said, Record)


def _relationship(said: Any) -> Portable:
    return from_object(said, Relationship)

"""Any record as a cell or a scene of oc-memory, with values that the product's own restore takes.

It binds them to SQLite as they are: so texts are good UTF-8, numbers are finite and fit, and nothing that it needs is
missing. What a record says beyond that is under `memkeep`.
"""

import json
import math
from collections import Counter
from typing import Any, NamedTuple

import msgspec

from memkeep.records import moments
from memkeep.records.formats.alf_record import clean
from memkeep.records.readers.oc_memory import CELL_COLUMNS, CELLS, EXTRA, SCENE_COLUMNS, SCENES, name, portable
from memkeep.records.record import Record, Vector
from memkeep.records.shape import Mapper
from memkeep.records.wire import to_object

Cell = dict[str, Any]
SCENE = "general"
"""The scene of a memory that has no scope."""

_LARGEST = (1 << 63) - 1


class Said(NamedTuple):
    """A cell or a scene: the product's keys, then memkeep's; the vector apart, since it is written in one line."""

    keys: Cell
    vector: Vector | None


class Counts:
    """What `stats` says of the cells."""

    def __init__(self) -> None:
        self.cells = 0
        self.embedded = 0
        self.types = Counter[str]()
        self.scenes = Counter[str]()

    def add(self, cell: Cell, record: Record) -> None:
        """Count a cell."""
        self.cells += 1
        self.embedded += bool(record.vectors)
        self.types[cell["cell_type"]] += 1
        self.scenes[cell["scene"]] += 1

    def said(self, scenes: int) -> dict[str, Any]:
        """Return what the product says, the most first."""
        return {
            "total_cells": self.cells,
            "embedded_cells": self.embedded,
            "total_scenes": scenes,
            "by_type": dict(_most(self.types)),
            "top_scenes": dict(_most(self.scenes)[:10]),
        }


def is_scene(record: Record) -> bool:
    """Say whether a record is what oc-memory calls a scene."""
    return record.system == name and record.collection == SCENES.map.collection


def is_cell(record: Record) -> bool:
    """Say whether a record becomes a cell: it is a memory."""
    return record.primary and not is_scene(record)


def cell(record: Record, number: int, exported: str) -> Said:
    """Return a memory as a cell, with all that the product's keys do not say of it."""
    return _said(cell_keys(record, number, exported), record, CELLS)


def cell_keys(record: Record, number: int, exported: str) -> Cell:
    """Return the product's keys of a cell; `number` is its id where it has none that the product could have given."""
    row = CELLS.row(record, CELL_COLUMNS)
    return {
        "id": row["id"] if _is_whole(row["id"]) else number,
        "scene": _text(row.get("scene")) or SCENE,
        "cell_type": _text(row.get("cell_type")) or "fact",
        "salience": row.get("salience") if _is_number(row.get("salience")) else 0.5,
        "content": _text(row.get("content")),
        "source": _text(row.get("source")),
        "tags": _text(row.get("tags")) or "[]",
        "access_count": row.get("access_count") if _is_whole(row.get("access_count")) else 0,
        "created_at": _text(row.get("created_at")) or exported,
        "updated_at": _text(row.get("updated_at")) or exported,
    }


def scene(record: Record, exported: str) -> Said:
    """Return what is known of a scene, with all that the product's keys do not say."""
    return _said(scene_keys(record, exported), record, SCENES)


def scene_keys(record: Record, exported: str) -> Cell:
    """Return the product's keys of a scene."""
    row = SCENES.row(record, SCENE_COLUMNS)
    return {
        "scene": _text(row.get("scene")),
        "summary": _text(row.get("summary")),
        "cell_count": row.get("cell_count") if _is_whole(row.get("cell_count")) else 0,
        "updated_at": _text(row.get("updated_at")) or exported,
    }


def exported_at(taken: str) -> str:
    """Return a moment as the product spells when it exported."""
    return moments.to_text(taken, like="2026-01-02T03:04:05") or taken


def dump(said: Said, mapper: Mapper, indent: str) -> str:
    """Return the JSON of a cell or a scene as the product lays it out, its vector in one line."""
    text = json.dumps(said.keys, indent=2)
    if said.vector is not None:
        column = mapper.map.vectors[0]
        more = f',\n  "{column}": {_numbers(said.vector)}'
        if said.vector.model is not None:
            more += f',\n  "{column}_model": {json.dumps(said.vector.model)}'
        text = text.removesuffix("\n}") + more + "\n}"
    return text.replace("\n", "\n" + indent)


def _said(keys: Cell, record: Record, mapper: Mapper) -> Said:
    vector = _plain_vector(record)
    shown = to_object(portable(keys, mapper))
    meant = to_object(msgspec.structs.replace(record, vectors={}) if vector is not None else record)
    more = {field: meant.get(field) for field in (*meant, *shown) if meant.get(field) != shown.get(field)}
    return Said(keys | ({EXTRA: more} if more else {}), vector)


def _plain_vector(record: Record) -> Vector | None:
    """Return the vector of a record when it has one only, of finite float32: numbers in JSON give it back."""
    import numpy as np

    one = record.vectors.get("")
    if one is None or len(record.vectors) > 1 or one.type != "f32" or len(one.data) != 4 * one.dims or not one.dims:
        return None
    return one if np.isfinite(np.frombuffer(one.data, "<f4")).all() else None


def _numbers(vector: Vector) -> str:
    import numpy as np
    import orjson

    return orjson.dumps(np.frombuffer(vector.data, "<f4"), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _text(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _most(counted: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))

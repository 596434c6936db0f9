"""oc-memory's own export: `memory-export.json`, which its restore takes, and its pages of scenes.

The keys are the product's, in its order and layout; what it does not know is under keys that it passes over
(`readers.oc_memory` lists them), so the file is complete. Memories of other products become cells, with their scope
as the scene; what is no memory, and what joins them, stands beside the cells.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from memkeep.records.formats import oc_cells
from memkeep.records.formats.base import Source
from memkeep.records.formats.scenes import write_scenes
from memkeep.records.readers import oc_memory
from memkeep.records.readers.base import Read
from memkeep.records.readers.oc_memory import CELLS, FILE, RECORDS, RELATIONSHIPS, SCENES
from memkeep.records.record import Portable, Record
from memkeep.records.wire import plain_json

name = "oc-memory"
lossless = True

fits = oc_memory.fits


def read(path: Path) -> Iterator[Read]:
    """Yield cells, scenes, and what memkeep put beside them."""
    return oc_memory.read(path)


def losses(made: Portable) -> Iterable[str]:  # noqa: ARG001 - the contract's signature
    """Return nothing: all of a record comes back."""
    return ()


def write(source: Source, folder: Path) -> None:
    """Write the export and the pages of scenes."""
    exported = oc_cells.exported_at(source.about.taken)
    counts, scenes = oc_cells.Counts(), 0
    for number, record in enumerate(source.records(), 1):
        if oc_cells.is_scene(record):
            scenes += 1
        elif oc_cells.is_cell(record):
            counts.add(oc_cells.cell_keys(record, number, exported), record)
    with (folder / FILE).open("w", encoding="ascii", newline="\n") as out:
        stats = json.dumps(counts.said(scenes), indent=2).replace("\n", "\n  ")
        out.write(f'{{\n  "exported_at": {json.dumps(exported)},\n  "stats": {stats}')
        _array(out, "scenes", _scenes(source, exported))
        _array(out, "cells", _cells(source, exported))
        others = (plain_json(each).decode() for each in source.records() if _is_other(each))
        joined = (plain_json(each).decode() for each in source.relationships())
        _array(out, RECORDS, others, needed=False)
        _array(out, RELATIONSHIPS, joined, needed=False)
        out.write("\n}\n")
    write_scenes(source, folder)


def _scenes(source: Source, exported: str) -> Iterator[str]:
    for record in source.records():
        if oc_cells.is_scene(record):
            yield oc_cells.dump(oc_cells.scene(record, exported), SCENES, "    ")


def _cells(source: Source, exported: str) -> Iterator[str]:
    for number, record in enumerate(source.records(), 1):
        if oc_cells.is_cell(record):
            yield oc_cells.dump(oc_cells.cell(record, number, exported), CELLS, "    ")


def _is_other(record: Record) -> bool:
    return not oc_cells.is_cell(record) and not oc_cells.is_scene(record)


def _array(out: TextIO, key: str, elements: Iterable[str], *, needed: bool = True) -> None:
    """Write an array under a key, each element on a line; one that is not needed only where it has any."""
    empty = True
    for each in elements:
        out.write(f',\n  "{key}": [\n    ' if empty else ",\n    ")
        out.write(each)
        empty = False
    if not empty:
        out.write("\n  ]")
    elif needed:
        out.write(f',\n  "{key}": []')

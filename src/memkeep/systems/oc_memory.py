"""oc-memory: one SQLite database, `~/.openclaw/memory.db` (source: github.com/sam-ueckert/oc-memory, commit 5738c61).

Times are naive UTC ISO text; embeddings are raw float32. What its own export writes can be made again and is left.
"""

from pathlib import Path

import msgspec

from memkeep.model import Part, Role, Store, TableMap
from memkeep.records.readers.oc_memory import CELLS, SCENES
from memkeep.records.shape import Shape
from memkeep.systems.base import Known, Places, Refine
from memkeep.systems.look import Look
from memkeep.systems.maps import side_map, table_map
from memkeep.systems.marks import OC_MEMORY, is_oc_memory

name = OC_MEMORY

_COUNT = "SELECT count(*) FROM mem_cells"
_DIMS = "SELECT length(embedding) / 4 FROM mem_cells WHERE embedding IS NOT NULL LIMIT 1"
queries: tuple[str, ...] = (_COUNT, _DIMS)


def detect(look: Look, path: Path, places: Places) -> list[Store]:  # noqa: ARG001 - the contract's signature
    """Return the store that a database file is, told by its table `mem_cells`."""
    tables = look.columns(path)
    if not is_oc_memory(tables):
        return []
    cells = table_map(
        "cells",
        "mem_cells",
        tables["mem_cells"],
        fields={
            "text": "content",
            "category": "cell_type",
            "scope": "scene",
            "source": "source",
            "tags": "tags",
            "importance": "salience",
            "created_at": "created_at",
            "updated_at": "updated_at",
        },
        vectors=("embedding",),
        times={"created_at": "iso", "updated_at": "iso"},
    )
    scenes = table_map(
        "scenes",
        "mem_scenes",
        tables.get("mem_scenes", ()),
        id="scene",
        fields={"text": "summary", "updated_at": "updated_at"},
        vectors=("summary_embedding",),
        times={"updated_at": "iso"},
        primary=False,
    )
    part = Part(
        name=path.name,
        engine="sqlite",
        role=Role.CANONICAL,
        path=str(path),
        maps=tuple(each for each in (cells, scenes, side_map(tables)) if each),
    )
    count, dims = look.rows(path, _COUNT), look.rows(path, _DIMS)
    return [
        Store(
            system=name,
            path=str(path),
            root=str(path.parent),
            parts=(part,),
            records=count[0][0] if count else None,
            fingerprint={"embedding": {"dims": dims[0][0]}} if dims else {},
        )
    ]


def default_paths(places: Places) -> list[Path]:
    """Return `OC_MEMORY_DB`, else the product's default place."""
    given = places.environ.get("OC_MEMORY_DB")
    if given:
        return [Path(given.replace("~", str(places.home), 1) if given.startswith("~/") else given)]
    return list(dict.fromkeys((places.home / ".openclaw" / "memory.db", places.state_dir / "memory.db")))


lookups: tuple[str, ...] = ()


def shape(map_: TableMap) -> Shape:
    """Return how cells and scenes are records; a time has a fraction unless that is zero."""
    if map_.collection == SCENES.map.collection:
        return SCENES.shape
    return msgspec.structs.replace(CELLS.shape, side=True)


def refine(known: Known) -> Refine:  # noqa: ARG001 - the contract's signature
    """Return a record as it is: each column says one thing."""
    return lambda record: record

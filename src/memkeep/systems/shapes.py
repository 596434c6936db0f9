"""Which system knows how its records look; what no system says is what the maps alone give."""

from memkeep.model import TableMap
from memkeep.records import shape
from memkeep.systems import mem0, oc_memory, openclaw_hybrid, openclaw_lancedb, openmemory, thanos
from memkeep.systems.base import Known, Refine, ShapedSystem

SHAPED_SYSTEMS: tuple[ShapedSystem, ...] = (
    mem0,
    oc_memory,
    openclaw_hybrid,
    openclaw_lancedb,
    openmemory,
    thanos,
)
_SIDED = {oc_memory.name: "cells", openclaw_hybrid.name: "facts"}  # whose memories have no place for what is carried


def mapper(system: str, map_: TableMap) -> shape.Mapper:
    """Return what turns the rows of a collection into records and back."""
    if map_.collection == shape.SIDE_TABLE:
        return shape.Mapper(map_, shape.Shape(kind="carried", of=_SIDED.get(system, "")), system)
    shaped = _shaped(system)
    return shape.Mapper(map_, shaped.shape(map_) if shaped else shape.of_map(map_), system)


def lookups(system: str) -> tuple[str, ...]:
    """Return the collections that `refine` wants the rows of."""
    shaped = _shaped(system)
    return shaped.lookups if shaped else ()


def refine(system: str, known: Known) -> Refine:
    """Return what completes the records of a system."""
    shaped = _shaped(system)
    return shaped.refine(known) if shaped else lambda record: record


def _shaped(system: str) -> ShapedSystem | None:
    return next((each for each in SHAPED_SYSTEMS if each.name == system), None)

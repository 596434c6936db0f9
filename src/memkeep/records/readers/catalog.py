"""What memkeep reads of what the products wrote, beside the formats that it writes itself (`formats.catalog`).

The order is that in which they are asked: what any folder of notes would fit comes last.
"""

from pathlib import Path

from memkeep.records.readers import hybrid_export, mcp_memory, mem0, memory_pro, notes, openmemory, thanos
from memkeep.records.readers.base import Reader

READERS: tuple[Reader, ...] = (hybrid_export, mcp_memory, mem0, memory_pro, openmemory, thanos, notes)


def reader_of(path: Path) -> Reader | None:
    """Return what reads a file or folder; None when nothing does."""
    return next((each for each in READERS if each.fits(path)), None)

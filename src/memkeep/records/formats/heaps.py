"""Lines put in heaps by a key while records stream by in another order; on disk rather than in memory."""

from pathlib import Path
from typing import NamedTuple

_BUFFERED = 8 << 20


class Heap(NamedTuple):
    """The lines of one key."""

    file: Path
    lines: int


class Heaps:
    """Heaps as files of a folder; no file is held open, so there may be any number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, list[bytes]] = {}
        self._size = 0
        self._heaps: dict[str, Heap] = {}

    def add(self, key: str, line: bytes) -> None:
        """Add what follows what the key already has."""
        heap = self._heaps.get(key) or Heap(self._folder / f"heap-{len(self._heaps)}", 0)
        self._heaps[key] = heap._replace(lines=heap.lines + 1)
        self._held.setdefault(key, []).append(line)
        self._size += len(line)
        if self._size > _BUFFERED:
            self._flush()

    def close(self) -> dict[str, Heap]:
        """Return the heaps in the order of their keys."""
        self._flush()
        return {key: self._heaps[key] for key in sorted(self._heaps)}

    def _flush(self) -> None:
        for key, held in self._held.items():
            with self._heaps[key].file.open("ab") as out:
                out.writelines(held)
        self._held.clear()
        self._size = 0

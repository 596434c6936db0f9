"""Scenes as oc-memory's markdown shows them: `scenes-index.md` and a `scene-<name>.md` each, for people to read.

The layout is the product's. Other than there, each scene of a cell has its file whether or not it was ever summarised,
no two scenes share one, and a line of a memory can't be taken for the next memory: lines after the first are indented.
"""

import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from memkeep.records.formats import oc_cells
from memkeep.records.formats.base import Source
from memkeep.records.formats.heaps import Heaps

INDEX = "scenes-index.md"
_WORK = ".scenes"
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_LINE_END = re.compile("(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
_LONGEST = 120  # characters of a file's name; file systems take 255 bytes
_PREVIEW = 80


class _Scene(NamedTuple):
    """What the product knows of a scene."""

    summary: str
    updated: str


def write_scenes(source: Source, folder: Path) -> None:
    """Write the pages of all scenes."""
    work = folder / _WORK
    work.mkdir()
    exported = oc_cells.exported_at(source.about.taken)
    known: dict[str, _Scene] = {}
    heaps = Heaps(work)
    for number, record in enumerate(source.records(), 1):
        if oc_cells.is_scene(record):
            said = oc_cells.scene_keys(record, exported)
            known[said["scene"]] = _Scene(said["summary"], said["updated_at"])
        elif oc_cells.is_cell(record):
            cell = oc_cells.cell_keys(record, number, exported)
            heaps.add(cell["scene"], _bullet(cell).encode())
    filled = heaps.close()
    scenes = sorted({*known, *filled})
    with (folder / INDEX).open("w", encoding="utf-8", newline="\n") as index:
        index.write(f"# Memory Scenes ({exported[:10]})\n\n")
        for scene, file in file_names(scenes).items():
            heap = filled.get(scene)
            count = heap.lines if heap else 0
            info = known.get(scene)
            summary = line(info.summary)[:_PREVIEW] if info else ""
            index.write(f"- **{line(scene)}** ({count} cells) — {summary}\n")
            with (folder / file).open("wb") as page:
                page.write(_head(scene, count, info).encode())
                if heap:
                    with heap.file.open("rb") as bullets:
                        page.writelines(bullets)
    for each in work.iterdir():
        each.unlink()
    work.rmdir()


def file_names(scenes: list[str]) -> dict[str, str]:
    """Return the file of each scene: the product's own name, unless that would be another's too.

    Names that differ in the case of letters alone are one file on some systems. What stands behind such a name is of
    the SHA-256 of the scene's, so it is the same in each export.
    """
    alike = defaultdict[str, list[str]](list)
    for scene in scenes:
        alike[_safe(scene).lower()].append(scene)
    named = {same[0]: _safe(same[0]) for same in alike.values() if len(same) == 1}
    taken = {safe.lower() for safe in named.values()}
    for same in alike.values():
        for scene in same if len(same) > 1 else ():
            digest = hashlib.sha256(scene.encode("utf-8", "surrogatepass")).hexdigest()
            sizes = (size for size in (8, 16, 32, 64) if f"{_safe(scene)}-{digest[:size]}".lower() not in taken)
            named[scene] = f"{_safe(scene)}-{digest[: next(sizes)]}"
            taken.add(named[scene].lower())
    return {scene: f"scene-{named[scene]}.md" for scene in scenes}


def line(text: str) -> str:
    """Return a text as one line that markdown can show."""
    return " ".join(shown(text).split())


def shown(text: str) -> str:
    """Return a text as a file of text can hold it."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{SYMBOL FOR NULL}")


def _safe(scene: str) -> str:
    return _UNSAFE.sub("_", scene)[:_LONGEST]


def _head(scene: str, count: int, info: _Scene | None) -> str:
    summary = f"**Summary:** {_indented(info.summary)}\n\n" if info else ""
    updated = f" | **Updated:** {line(info.updated)}" if info else ""
    return f"# {line(scene)}\n\n{summary}**Cells:** {count}{updated}\n\n---\n\n"


def _bullet(cell: oc_cells.Cell) -> str:
    tags = "" if cell["tags"] == "[]" else f" `tags:{line(cell['tags'])}`"
    salience, accessed = cell["salience"], cell["access_count"]
    head = f"- [{line(cell['cell_type'])}] (sal: {salience:.2f}, accessed: {accessed}x) "
    return f"{head}{_indented(cell['content'])}{tags}\n"


def _indented(text: str) -> str:
    return _LINE_END.sub(r"\1  ", shown(text))

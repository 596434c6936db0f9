"""Folders of Qdrant's local mode: `meta.json`, and a database for each collection under `collection/NAME/`.

Whose the points are is told elsewhere; here is what is wrong with the folder itself.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from memkeep.model import Finding, Part, Severity
from memkeep.systems.look import Look

META = "meta.json"
COLLECTIONS = "collection"
DATABASE = "storage.sqlite"
LOCK = ".lock"
_OLD = "storage.dbm"


def is_folder(look: Look, folder: Path) -> bool:
    """Say whether a folder is one, by its layout."""
    here = look.folder(folder)
    return META in here.files and COLLECTIONS in here.folders


def folders(parts: Iterable[Part]) -> list[Path]:
    """Return the folders that collections among the parts lie in."""
    return list(dict.fromkeys(Path(part.path).parents[2] for part in parts if part.engine == "qdrant-local"))


def settings(folder: Path) -> dict[str, Any]:
    """Return what `meta.json` says of each collection; raises `ValueError` when it says nothing."""
    try:
        said = json.loads((folder / META).read_bytes())
    except OSError as error:
        raise ValueError(error.strerror) from error
    if not isinstance(said, dict) or not isinstance(said.get("collections"), dict):
        raise ValueError("it names no collections")  # noqa: TRY004 - of what it says, not of a value's type
    return {str(name): each for name, each in said["collections"].items()}


def findings(look: Look, folder: Path, name: str) -> list[Finding]:
    """Compare `meta.json` with what is there; `name` is the folder's path under the store's root, "" for the root."""
    part = f"{name}/{META}" if name else META
    there = {each: look.folder(folder / COLLECTIONS / each).files for each in look.folder(folder / COLLECTIONS).folders}
    try:
        said = settings(folder)
    except ValueError as error:
        message = f"{part} can't be read ({error}): qdrant-client does not open the folder without it."
        mend = "put it back from an older snapshot: memkeep restore ID --part meta.json --to DIR"
        return [_finding("qdrant_meta", Severity.ERROR, message, part, mend)]
    return [*_missing(said, there, part), *_unknown(said, there, part)]


def _missing(said: Mapping[str, Any], there: Mapping[str, Mapping[str, int]], part: str) -> Iterable[Finding]:
    for each in said:
        files = there.get(each, {})
        if DATABASE not in files and _OLD in files:
            message = f"The collection {each} is in a form that qdrant-client wrote before 1.1.7, and was not read."
            yield _finding("qdrant_old_form", Severity.WARNING, message, part, "open it once with qdrant-client 1.1.7")
        elif DATABASE not in files:
            message = f"The collection {each} is named in {part}, but its points are not there."
            mend = "put them back from an older snapshot: memkeep history ID"
            yield _finding("qdrant_collection_missing", Severity.ERROR, message, part, mend)


def _unknown(said: Mapping[str, Any], there: Mapping[str, Mapping[str, int]], part: str) -> Iterable[Finding]:
    for each, files in there.items():
        if each not in said and DATABASE in files:
            message = f"The collection {each} has points, but {part} does not name it, so that its client won't see it."
            yield _finding("qdrant_collection_unnamed", Severity.WARNING, message, part, None)


def _finding(code: str, severity: Severity, message: str, part: str, mend: str | None) -> Finding:
    return Finding(code=code, severity=severity, message=message, part=part, mend=mend)

"""The folder that `openclaw hybrid-mem export` writes: one file a fact, one a procedure, `MEMORY.md`, `manifest.json`.

Facts are from github.com/markus-lassfolk/openclaw-hybrid-memory, services/export-memory.ts. Of a fact the export keeps
the text, the category (the folder), the first tag (the folder in that) and eight digits of the id (the end of the
name); times, scopes and links are not in it. Where a fact has an entity, a key and a value, the file begins with a
sentence of them; the name of the file is made of the text alone, so it tells whether one does. The id is those eight
digits and, in place of the rest, what the file's name and place give: the same in each import.
"""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkeep.errors import FileError
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.json_stream import unreadable
from memkeep.records.record import Record

name = "openclaw-hybrid-export"
SYSTEM = "openclaw-hybrid"

_MANIFEST = "manifest.json"
_MEMORY = "memory"
_PROCEDURES = "procedures"
_LARGEST = 64 << 20
_LONGEST = 4000  # characters of the sentence before a text
_FILE = re.compile(r"(?P<slug>.*)-(?P<id>[^-]{1,8})\.md", re.DOTALL)
_SENTENCE = re.compile(r"(?P<entity>.+?)'s (?P<key>.+?) is (?P<value>.+)\.", re.DOTALL)
_PROCEDURE = re.compile(
    r"# Procedure: (?P<text>.*?)\n\nType: (?P<type>[^\n]*)\nConfidence: (?P<confidence>[^\n]*)\n\n"
    r"## Steps\n\n(?P<recipe>.*)",
    re.DOTALL,
)


def fits(path: Path) -> bool:
    """Say whether a folder has the export's manifest and memories."""
    try:
        return "factsExported" in _manifest(path) and (path / _MEMORY).is_dir()
    except FileError:
        return False


def read(path: Path) -> Iterator[Read]:
    """Yield facts, then procedures, in the order of their files."""
    _manifest(path)
    root = path / _MEMORY
    files = sorted(Path(folder, file).relative_to(root) for folder, _, names in os.walk(root) for file in names)
    for procedures in (False, True):
        for file in files:
            if file.suffix == ".md" and procedures == (file.parts[0] == _PROCEDURES):
                yield _read(root, file)


def _manifest(path: Path) -> dict[str, Any]:
    file = path / _MANIFEST
    try:
        said = json.loads(file.read_bytes()) if file.stat().st_size < _LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(file, error) from error
    if not isinstance(said, dict):
        raise unreadable(file, ValueError("it is no object"))
    return said


def _read(root: Path, file: Path) -> Read:
    where = f"{_MEMORY}/{file.as_posix()}"
    at = root / file
    try:
        if at.is_symlink() or not at.is_file() or at.stat().st_size > _LARGEST:
            return Refused(where=where, reason="no regular file, or too large")
        content = at.read_bytes().decode()
    except UnicodeDecodeError as error:
        return Refused(where=where, reason=f"byte {error.start} is not UTF-8")
    except OSError as error:
        return Refused(where=where, reason=str(error))
    if not content:
        return Refused(where=where, reason="it is empty")
    if file.parts[0] == _PROCEDURES and (found := _PROCEDURE.fullmatch(content)):
        return _procedure(file, found)
    return _fact(file, content)


def _fact(file: Path, content: str) -> Record:
    found = _FILE.fullmatch(file.name)
    text, said = _split(content, found["slug"]) if found else (content, {})
    return Record(
        id=_id(file),
        text=text,
        collection="facts",
        category=file.parts[0] if len(file.parts) > 1 else None,
        tags=file.parts[1:-1],
        metadata=said,
        system=SYSTEM,
    )


def _procedure(file: Path, found: re.Match[str]) -> Record:
    try:
        confidence: Any = float(found["confidence"])
    except ValueError:
        confidence = found["confidence"]
    return Record(
        id=_id(file),
        text=found["text"],
        collection=_PROCEDURES,
        primary=False,
        category=found["type"],
        metadata={"recipe_json": found["recipe"], "confidence": confidence},
        system=SYSTEM,
    )


def _split(content: str, slug: str) -> tuple[str, dict[str, str]]:
    """Return the text of a fact, and what the sentence before it says; the file's name is made of the text."""
    if _slug(content) != slug:
        sentence, gap, text = content.partition("\n\n")
        while gap and len(sentence) < _LONGEST:
            if _slug(text) == slug and (found := _SENTENCE.fullmatch(sentence)):
                return text, found.groupdict()
            more, gap, text = text.partition("\n\n")
            sentence = f"{sentence}\n\n{more}"
    return content, {}


def _slug(text: str) -> str:
    """Return what the product names a file by: of the first 50 UTF-16 units, without what no file's name may have."""
    start = text.encode("utf-16-le", "surrogatepass")[:100].decode("utf-16-le", "replace")
    safe = re.sub(r"-+", "-", re.sub(r"\s+", "-", re.sub(r'[/\\?*:|"<>]', "-", start)))
    return safe.removeprefix("-").removesuffix("-")[:80] or "untitled"


def _id(file: Path) -> str:
    digest = hashlib.sha256(f"{SYSTEM}\0{file.as_posix()}".encode("utf-8", "surrogatepass")).digest()
    made = str(uuid.UUID(bytes=digest[:16], version=5))
    found = _FILE.fullmatch(file.name)
    known = found["id"] if found else ""
    return known + made[8:] if re.fullmatch(r"[0-9a-f]{8}", known) else made

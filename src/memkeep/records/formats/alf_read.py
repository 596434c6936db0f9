"""Read archives of the Agent Life Format, memkeep's own and those of other programs.

Nothing is unpacked: entries are read where they are, and no more of one than a line at a time.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from memkeep.errors import FileError, quoted
from memkeep.records.formats.alf_record import OURS, from_alf, links_of, moment_of
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.json_stream import stream_lines
from memkeep.records.readers.zips import DAMAGED, opened
from memkeep.records.record import Relationship
from memkeep.records.wire import from_object

MANIFEST = "manifest.json"
RELATIONSHIPS = f"raw/{OURS}/relationships.jsonl"
_LARGEST = 16 << 20  # bytes of a manifest


def fits(path: Path) -> bool:
    """Say whether a file is a zip whose manifest speaks of this format."""
    try:
        with opened(path) as archive:
            return "alf_version" in _manifest(archive, path)
    except (ValueError, FileError):
        return False


def read(path: Path) -> Iterator[Read]:
    """Yield records and relationships; raises `FileError` when there is no archive or no manifest."""
    try:
        archive = opened(path)
    except ValueError as error:
        raise _no_archive(path, str(error)) from error
    with archive:
        yield from _read(archive, path)


def _read(archive: zipfile.ZipFile, path: Path) -> Iterator[Read]:
    manifest = _manifest(archive, path)
    if "alf_version" not in manifest:
        raise _no_archive(path, "its manifest has no `alf_version`")
    said = manifest.get("created_at")
    moment = moment_of(said if isinstance(said, str) else None) or ""
    whole = RELATIONSHIPS in archive.namelist()
    for entry in _partitions(archive, manifest):
        for each in _lines(archive, entry):
            if isinstance(each, Refused):
                yield each
                continue
            where, value = each
            try:
                yield from _portable(value, moment, whole=whole)
            except (ValueError, RecursionError) as error:
                yield Refused(where=where, reason=str(error) or "nested too deeply")
    if whole:
        for each in _lines(archive, RELATIONSHIPS):
            yield each if isinstance(each, Refused) else _relationship(*each)


def _portable(value: Any, moment: str, *, whole: bool) -> Iterator[Read]:
    record = from_alf(value, moment)
    yield record
    if not whole and record.system == "alf":
        yield from links_of(value)


def _relationship(where: str, value: Any) -> Read:
    try:
        return from_object(value, Relationship)
    except ValueError as error:
        return Refused(where=where, reason=str(error))


def _partitions(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> list[str]:
    """Return the entries with records, as the manifest lists them and whatever lies beside those."""
    said: Any = manifest
    for key in ("layers", "memory", "partitions"):
        said = said.get(key) if isinstance(said, dict) else None
    listed = [each["file"] for each in said or [] if isinstance(each, dict) and isinstance(each.get("file"), str)]
    beside = [n for n in archive.namelist() if n.startswith("memory/partitions/") and n.endswith(".jsonl")]
    return list(dict.fromkeys([*listed, *beside]))


def _lines(archive: zipfile.ZipFile, entry: str) -> Iterator[tuple[str, Any] | Refused]:
    try:
        with archive.open(entry) as stream:
            for each in stream_lines(cast("BinaryIO", stream), entry):
                yield each if isinstance(each, Refused) else (each.where, each.value)
    except KeyError:
        yield Refused(where=entry, reason="the manifest names it, and it is not there")
    except DAMAGED as error:
        yield Refused(where=entry, reason=f"damaged: {error}")


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        with archive.open(MANIFEST) as stream:
            data = stream.read(_LARGEST + 1)
        said = json.loads(data) if len(data) <= _LARGEST else None
    except (KeyError, ValueError, RecursionError, *DAMAGED) as error:
        raise _no_archive(path, f"{MANIFEST}: {error}") from error
    if not isinstance(said, dict):
        raise _no_archive(path, f"{MANIFEST} is no object")
    return said


def _no_archive(path: Path, why: str) -> FileError:
    return FileError(f"{path} is no archive of the Agent Life Format: {why}", hint=f"unzip -t {quoted(path)}")

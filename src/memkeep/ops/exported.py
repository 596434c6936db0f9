r"""What lies beside the records in the folder of an export, and the check of it all.

`metadata.json` says where the records are from, in which format, how many, and what of them is not there.
`checksums.json` is {"algorithm": "sha256", "files": {name: hex, ...}, "combined": hex}: the SHA-256 of every other
file, and that of the lines `<hex>  <name>` of all of them, sorted by the bytes of their names. With jq and coreutils:

    jq -r '.files | to_entries[] | "\(.value)  \(.key)"' checksums.json | sha256sum --check
    jq -r '.files | to_entries[] | "\(.value)  \(.key)"' checksums.json | LC_ALL=C sort -k 2 | sha256sum
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from memkeep.errors import FileError, MemkeepError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, Value
from memkeep.records.formats.base import Format
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.readers.base import Refused
from memkeep.records.record import Record

METADATA = "metadata.json"
CHECKSUMS = "checksums.json"
MOST = 100  # broken records that are named one by one


class VerifiedExport(Value):
    """What the check of an export found; `memories` and `relationships` are what could be read."""

    folder: str
    format: str | None
    files: int
    memories: int
    relationships: int
    collections: dict[str, int]  # of what is beside the memories
    findings: tuple[Finding, ...]


class Counts(Value):
    """How many records there are."""

    memories: int
    relationships: int
    collections: dict[str, int]


def seal(folder: Path, metadata: Mapping[str, Any]) -> str:
    """Write the two files beside the records of a new export, on disk for good; return the combined checksum."""
    (folder / METADATA).write_text(_json(metadata), encoding="utf-8")
    names = sorted(files_in(folder), key=os.fsencode)
    with ThreadPoolExecutor(2, "memkeep-hash") as pool:
        synced = [pool.submit(_sync, folder / name) for name in names]
        files = dict(zip(names, pool.map(lambda name: digest(folder / name), names), strict=True))
        for one in synced:
            one.result()
    return write_checksums(folder, files)


def write_checksums(folder: Path, files: Mapping[str, str]) -> str:
    """Write, in one step, the checksums of files; return the combined one."""
    whole = combined(files)
    new = folder / f".{CHECKSUMS}.memkeep-new"
    new.write_text(_json({"algorithm": "sha256", "files": files, "combined": whole}), encoding="utf-8")
    _sync(new)
    new.rename(folder / CHECKSUMS)
    return whole


def combined(files: Mapping[str, str]) -> str:
    """Return the checksum of checksums."""
    lines = (os.fsencode(f"{files[name]}  {name}\n") for name in sorted(files, key=os.fsencode))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(folder: Path) -> dict[str, str] | None:
    """Return the files that an export says it has, with their checksums; None where there is no export."""
    try:
        files = json.loads((folder / CHECKSUMS).read_bytes())["files"]
        sound = all(isinstance(one, str) and _is_below(name) for name, one in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return dict(files) if sound else None


def metadata_of(folder: Path) -> dict[str, Any]:
    """Return what an export says of itself; nothing where it does not."""
    try:
        said = json.loads((folder / METADATA).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def files_in(folder: Path) -> Iterator[str]:
    """Yield the names of all files in an export but `checksums.json`; hidden ones belong to other programs."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = (Path(root) / name).relative_to(folder).as_posix()
            if not name.startswith(".") and path != CHECKSUMS:
                yield path


def verify_export(folder: Path, *, events: Events = SILENT) -> VerifiedExport:
    """Check an export: every byte by its checksum, then every record and their numbers. Raises `FileError`."""
    folder = folder.expanduser()
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder}", hint="memkeep export latest --format json -o DIR")
    findings = list(_check_files(folder, events))
    own = {*(listed(folder) or files_in(folder))}
    said = metadata_of(folder)
    format_ = next((one for one in FORMATS if one.name == said.get("format")), None) or _fitting(folder)
    if format_ is None:
        findings.append(_finding("export_unknown", "it is in no format that this memkeep reads"))
        counts = Counts(memories=0, relationships=0, collections={})
    else:
        counts, broken = _count(folder, format_, events)
        findings += broken
        if format_.lossless and not broken:
            findings += _compare(said, counts)
    return VerifiedExport(
        folder=str(folder),
        format=format_.name if format_ is not None else None,
        files=len(own & set(files_in(folder))),
        memories=counts.memories,
        relationships=counts.relationships,
        collections=counts.collections,
        findings=tuple(findings),
    )


def _fitting(folder: Path) -> Format | None:
    return next((one for one in FORMATS if one.fits(folder)), None)


def _check_files(folder: Path, events: Events) -> Iterator[Finding]:
    files = listed(folder)
    if files is None:
        gone = not (folder / CHECKSUMS).exists()
        why = "is missing" if gone else "is broken"
        yield _finding("export_checksums", f"it {why}, so no byte can be checked", CHECKSUMS)
        return
    if json.loads((folder / CHECKSUMS).read_bytes()).get("combined") != combined(files):
        yield _finding("export_checksums", "it was changed: its sums do not give the combined one", CHECKSUMS)
    there = set(files_in(folder))
    names = sorted({*files, METADATA} & there)
    events.step("checking", len(names))
    with ThreadPoolExecutor(2, "memkeep-hash") as pool:
        for name, found in zip(names, pool.map(lambda name: digest(folder / name), names), strict=True):
            events.advance()
            if files.get(name) != found:
                yield _finding("export_changed", "it is not what was written", name)
    for name in sorted({*files, METADATA} - there):
        yield _finding("export_missing", "it is missing", name)
    for name in sorted(there - {*files, METADATA}):
        yield _finding("export_foreign", "it is no file of this export", name, Severity.INFO)


def _count(folder: Path, format_: Format, events: Events) -> tuple[Counts, list[Finding]]:
    memories = relationships = refused = 0
    beside: Counter[str] = Counter()
    broken = []
    events.step("reading")
    try:
        for one in format_.read(folder):
            if isinstance(one, Refused):
                refused += 1
                if refused <= MOST:
                    broken.append(_finding("export_broken", one.reason, one.where))
            elif not isinstance(one, Record):
                relationships += 1
            elif one.primary:
                memories += 1
            else:
                beside[one.collection] += 1
    except MemkeepError as error:
        if not isinstance(error, FileError):
            raise
        broken.append(_finding("export_broken", error.message))
    if refused > MOST:
        broken.append(_finding("export_broken", f"{refused - MOST:,} more records can't be read"))
    return Counts(memories=memories, relationships=relationships, collections=dict(sorted(beside.items()))), broken


def _compare(said: dict[str, Any], counts: Counts) -> Iterator[Finding]:
    """Yield what is not as many as the export says."""
    for name, found in (("memory_count", counts.memories), ("relationship_count", counts.relationships)):
        if name in said and said[name] != found:
            yield _finding("export_counts", f"{found:,} were read where {METADATA} says {name} {said[name]}")
    stated = said.get("collection_counts", counts.collections)
    if stated != counts.collections:
        yield _finding("export_counts", f"collections hold {counts.collections} where {METADATA} says {stated}")


def _finding(code: str, message: str, name: str | None = None, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(code=code, severity=severity, message=message, part=name)


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and ".git" not in path.parts


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The Agent Life Format 1.0.0: one zip, `memory.alf`, of JSON and of JSON lines by quarter of a year.

Facts are from its specification and schemas (github.com/agent-life/agent-life-data-format, 2026-05-10). Its own fields
say what they can of a record; `raw_source_format.memkeep` keeps the rest, so that the same record is read back:

* Ids are UUIDs of version 7: the milliseconds of `created_at` (0 where there is none), then bits of the SHA-256 of
  the system, the collection, the original id and, where an id is there twice in a row, how often it was before. So
  the same record has the same id in each export.
* `created_at` is the record's where it is a time of the years 1 to 9999, else the moment of the export.
* An embedding is among `embeddings` when JSON numbers give it back (dense, finite), else in base64 with the rest.
* Relationships are `related_records` of their source, and whole in `raw/memkeep/relationships.jsonl`.
* `checksum` is the SHA-256 of what `sha256sum` prints for the other entries, sorted by name.

Entries have one fixed time and order, so the same records give the same bytes.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from memkeep.records.formats import alf_read
from memkeep.records.formats.alf_links import Links
from memkeep.records.formats.alf_read import MANIFEST, RELATIONSHIPS
from memkeep.records.formats.alf_record import clean, mint, moment_of, to_alf, uuid_of
from memkeep.records.formats.base import About, Source
from memkeep.records.formats.heaps import Heap, Heaps
from memkeep.records.readers.base import Read
from memkeep.records.record import Portable, Record
from memkeep.records.wire import to_object

name = "alf"
lossless = True
FILE = "memory.alf"

_VERSION = "1.0.0"
_LONG_AGO = "1970-01-01T00:00:00+00:00"
_WORK = ".alf"
_LEVEL = 1  # digits of vectors gain little by more, which takes four times as long
_LARGE = 1 << 30


def losses(made: Portable) -> Iterable[str]:  # noqa: ARG001 - the contract's signature
    """Return nothing: all of a record comes back."""
    return ()


def fits(path: Path) -> bool:
    """Say whether a file is a zip with an ALF manifest, or a folder has one under its usual name."""
    return alf_read.fits(_file(path))


def read(path: Path) -> Iterator[Read]:
    """Yield the records and relationships of an archive, of memkeep or of another program."""
    return alf_read.read(_file(path))


def write(source: Source, folder: Path) -> None:
    """Write `memory.alf`; what it is put together from lies in the folder meanwhile."""
    work = folder / _WORK
    work.mkdir()
    moment = moment_of(source.about.taken) or _LONG_AGO
    agent = uuid_of("agent", source.about.system, source.about.path)
    links, users = _links(source, work)
    quarters, embedded = Heaps(work), False
    for record, number in numbered(source.records()):
        line = to_alf(record, agent=agent, moment=moment, number=number, known=links)
        embedded = embedded or "embeddings" in line
        quarters.add(_quarter_of(line["temporal"]["created_at"]), _line(line))
    links.close()
    parts = quarters.close()
    files = {f"memory/partitions/{quarter}.jsonl": heap.file for quarter, heap in parts.items()}
    if (work / "relationships").exists():
        files[RELATIONSHIPS] = work / "relationships"
    entries = _small_entries(source.about, agent, moment, users, parts)
    layers = _layers(moment, len(users), parts)
    layers["memory"] |= {"has_embeddings": embedded, "has_raw_source": RELATIONSHIPS in files}
    entries[MANIFEST] = _manifest(source.about, agent, moment, layers, _checksum(entries, files))
    _zip(folder / FILE, entries, files)
    for file in work.iterdir():
        file.unlink()
    work.rmdir()


def numbered(records: Iterable[Record]) -> Iterator[tuple[Record, int]]:
    """Yield records and how many with the same collection and id came right before them."""
    before, number = None, 0
    for record in records:
        key = (record.system, record.collection, record.id)
        number = number + 1 if key == before else 0
        before = key
        yield record, number


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def _links(source: Source, work: Path) -> tuple[Links, list[str]]:
    """Note the ids of all records and what joins them, and keep the relationships whole; return the users too."""
    links, users = Links(), dict[str, None]()
    for record, number in numbered(source.records()):
        links.note(record.id, mint(record, number))
        if record.user is not None:
            users[record.user] = None
    with (work / "relationships").open("wb") as out:
        for each in source.relationships():
            out.write(_line(to_object(each)))
            links.join(each.source, each.target, each.type)
        empty = not out.tell()
    if empty:
        (work / "relationships").unlink()
    return links, sorted(users)


def _small_entries(about: About, agent: str, moment: str, users: list[str], parts: dict[str, Heap]) -> dict[str, bytes]:
    identity = {
        "id": uuid_of("identity", agent),
        "agent_id": agent,
        "version": 1,
        "updated_at": moment,
        "structured": {"names": {"primary": clean(about.system)}},
        "source_format": clean(about.system),
    }
    principals = [_principal(agent, moment, user) for user in users]
    index = {"partitions": [f"memory/partitions/{quarter}.jsonl" for quarter in parts]}
    return {
        "identity.json": _json(identity),
        "principals.json": _json({"principals": principals}),
        "memory/index.json": _json(index),
    }


def _principal(agent: str, moment: str, user: str) -> dict[str, Any]:
    identity = uuid_of("principal", agent, user)
    profile = {
        "id": uuid_of("profile", agent, user),
        "agent_id": agent,
        "principal_id": identity,
        "version": 1,
        "updated_at": moment,
        "structured": {"name": clean(user)},
    }
    return {"id": identity, "principal_type": "human", "profile": profile}


def _manifest(about: About, agent: str, moment: str, layers: dict[str, Any], checksum: str) -> bytes:
    system = clean(about.system) or "memkeep"
    return _json(
        {
            "alf_version": _VERSION,
            "created_at": moment,
            "agent": {"id": agent, "name": system, "source_runtime": system},
            "layers": layers,
            "raw_sources": ["memkeep"] if layers["memory"]["has_raw_source"] else [],
            "checksum": checksum,
        }
    )


def _layers(moment: str, users: int, parts: dict[str, Heap]) -> dict[str, Any]:
    current = _quarter_of(moment)
    memory = {
        "record_count": sum(heap.lines for heap in parts.values()),
        "index_file": "memory/index.json",
        "partitions": [_partition(quarter, heap.lines, sealed=quarter < current) for quarter, heap in parts.items()],
    }
    return {
        "identity": {"version": 1, "file": "identity.json"},
        "principals": {"count": users, "file": "principals.json"},
        "memory": memory,
    }


def _partition(quarter: str, count: int, *, sealed: bool) -> dict[str, Any]:
    year, number = quarter[:4], int(quarter[-1])
    last = ("03-31", "06-30", "09-30", "12-31")[number - 1]
    return {
        "file": f"memory/partitions/{quarter}.jsonl",
        "from": f"{year}-{number * 3 - 2:02d}-01",
        "to": f"{year}-{last}" if sealed else None,
        "record_count": count,
        "sealed": sealed,
    }


def _checksum(entries: dict[str, bytes], files: dict[str, Path]) -> str:
    sums = {entry: hashlib.sha256(data).hexdigest() for entry, data in entries.items()}
    for entry, file in files.items():
        with file.open("rb") as data:
            sums[entry] = hashlib.file_digest(data, "sha256").hexdigest()
    listed = "".join(f"{sums[entry]}  {entry}\n" for entry in sorted(sums))
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"


def _zip(path: Path, entries: dict[str, bytes], files: dict[str, Path]) -> None:
    """Put the archive together. Entries opened by name have the library's one fixed time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for entry in (MANIFEST, *(each for each in entries if each != MANIFEST)):
            with archive.open(entry, "w") as out:
                out.write(entries[entry])
        for entry, file in files.items():
            large = file.stat().st_size > _LARGE
            with file.open("rb") as data, archive.open(entry, "w", force_zip64=large) as out:
                shutil.copyfileobj(data, out, 1 << 20)


def _quarter_of(moment: str) -> str:
    return f"{moment[:4]}-Q{(int(moment[5:7]) + 2) // 3}"


def _line(value: dict[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"

"""Text files as records: one record a file, named by its path under the store's root."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from memkeep.engines.files_walk import Seen
from memkeep.model import TableMap
from memkeep.records import groups
from memkeep.records.shape import Row

COLUMNS = ("path", "text", "size", "modified")
SUFFIXES = (".md", ".markdown", ".txt")
_BATCH = 1 << 20  # bytes of notes that are handed over at once
_TOLERANCE = 2  # bits: groups four times too large or too small are cut anew
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Note(msgspec.Struct, frozen=True, order=True):
    """A file that is a record: its size and time are those of the bytes that are kept."""

    path: str
    size: int
    mtime_ns: int


def is_note(seen: Seen, map_: TableMap) -> bool:
    """Say whether a file is a record of a map."""
    if seen.kind != "file" or not seen.under.lower().endswith(SUFFIXES):
        return False
    return not map_.include or any(fnmatchcase(seen.under, pattern) for pattern in map_.include)


def note_groups(
    map_: TableMap, notes: Sequence[Note], read: Callable[[str], bytes], bits: dict[str, int]
) -> Iterator[groups.Group]:
    """Yield the records of a map in groups; `read(path)` gives a file's bytes."""
    best = groups.bits_for(len(notes))
    kept = bits.get(map_.collection, best)
    width = kept if abs(kept - best) <= _TOLERANCE else best
    buckets: dict[int, list[Note]] = {}
    for note in notes:
        buckets.setdefault(groups.bucket_of(note.path, width), []).append(note)
    for bucket in sorted(buckets):
        rows = [_row(note, read(note.path)) for note in buckets[bucket]]
        yield groups.encode(map_.collection, width, bucket, COLUMNS, rows, COLUMNS.index("path"))


def note_rows(notes: Sequence[Note], read: Callable[[str], bytes]) -> Iterator[list[Row]]:
    """Yield notes as rows, some at a time; `read(path)` gives a file's bytes."""
    waiting: list[Row] = []
    size = 0
    for note in notes:
        text = read(note.path).decode(errors="surrogateescape")
        waiting.append({"path": note.path, "text": text, "modified": modified(note.mtime_ns)})
        size += note.size
        if size >= _BATCH:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def summary(map_: TableMap, notes: Sequence[Note]) -> dict[str, Any]:
    """Return what is counted of a collection of notes."""
    times = sorted(modified(note.mtime_ns) for note in notes) if map_.fields.get("created_at") == "modified" else []
    return {"rows": len(notes), "oldest": times[0] if times else None, "newest": times[-1] if times else None}


def modified(mtime_ns: int) -> str:
    """Return a file's time as ISO-8601 in UTC, with microseconds."""
    return (_EPOCH + timedelta(microseconds=mtime_ns // 1000)).isoformat(timespec="microseconds")


def _row(note: Note, data: bytes) -> list[groups.Cell]:
    try:
        text: groups.Cell = data.decode()
    except UnicodeDecodeError:
        text = {"text": data.hex()}
    return [note.path, text, len(data), modified(note.mtime_ns)]

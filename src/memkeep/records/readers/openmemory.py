"""The zip that OpenMemory exports of one user: `memories.json`, and the same in short in `memories.jsonl.gz`.

Facts are from github.com/mem0ai/mem0, `openmemory/`, until ea2ee0758. Users, apps, categories, the history of states
and access rules come as the records that the tables of the store are; a memory has the names of its user, app and
categories. What was deleted says so in its state and stays deleted. No vectors are in the file.

Ids are as the database has them: 32 hex digits, without the dashes that the export puts in.

The store's times have no zone and mean UTC; the export takes them for the time of its host and shifts them. In its
container that is UTC and nothing is shifted; of a host in another zone `zone` undoes it.
"""

import gzip
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from memkeep.errors import FileError, UsageError, quoted
from memkeep.model import TableMap
from memkeep.records import moments
from memkeep.records.readers.base import Read, Refused, UnfitError
from memkeep.records.readers.json_stream import Element, portables, stream_elements, stream_lines
from memkeep.records.readers.zips import DAMAGED, opened
from memkeep.records.record import Record
from memkeep.records.shape import Mapper, Shape

name = "openmemory"
WHOLE, SHORT = "memories.json", "memories.jsonl.gz"

_DASHED = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LIKE = "2026-01-02 03:04:05.000000"
_CREATED = {"created_at": "created_at", "updated_at": "updated_at"}
_TABLES: dict[str, tuple[str, dict[str, str]]] = {  # of the export's key: the table's name, the fields
    "memories": ("memories", {"text": "content", "status": "state", **_CREATED}),
    "user": ("users", _CREATED),
    "apps": ("apps", {"text": "name", **_CREATED}),
    "categories": ("categories", {"text": "name", **_CREATED}),
    "memory_categories": ("memory_categories", {}),
    "status_history": ("memory_status_history", {"text": "new_state", "created_at": "changed_at"}),
    "access_controls": ("access_controls", {"text": "effect", "created_at": "created_at"}),
}
_Undo = Callable[[str], str]


def fits(path: Path) -> bool:
    """Say whether a file is a zip with the memories in it."""
    try:
        with opened(path) as archive:
            return _entry(archive, WHOLE) is not None or _entry(archive, SHORT) is not None
    except ValueError:
        return False


def read(path: Path, zone: str | None = None) -> Iterator[Read]:
    """Yield what the zip holds; `zone` is that of the host which exported, `America/New_York`, where it was not UTC."""
    undo = _undo(zone)
    try:
        archive = opened(path)
    except ValueError as error:
        raise _no_export(path, str(error)) from error
    with archive:
        whole, short = _entry(archive, WHOLE), _entry(archive, SHORT)
        if whole is not None:
            yield from _whole(archive, whole, undo)
        elif short is not None:
            yield from _short(archive, short, undo)
        else:
            raise _no_export(path, f"neither {WHOLE} nor {SHORT} is in it")


def _entry(archive: zipfile.ZipFile, wanted: str) -> str | None:
    """Return the first entry of that name, in whatever folder: the product looks for it so."""
    return next((each for each in archive.namelist() if each.rpartition("/")[2] == wanted), None)


def _whole(archive: zipfile.ZipFile, entry: str, undo: _Undo) -> Iterator[Read]:
    known = _Known()
    for each in _elements(archive, entry):
        if isinstance(each, Element):
            known.note(each)
    parsers = {key: partial(_made, key, known, undo) for key in _TABLES}
    yield from portables(_elements(archive, entry), parsers, lone=("user",))


def _made(key: str, known: "_Known", undo: _Undo, said: Any) -> Record:
    return known.complete(_record(key, said, undo))


def _short(archive: zipfile.ZipFile, entry: str, undo: _Undo) -> Iterator[Read]:
    try:
        with archive.open(entry) as stream, gzip.open(stream) as plain:
            yield from portables(stream_lines(cast("BinaryIO", plain), entry), {"": partial(_made_short, undo)})
    except DAMAGED as error:
        yield Refused(where=entry, reason=f"damaged: {error}")


def _made_short(undo: _Undo, said: Any) -> Record:
    made = _record("memories", said, undo)
    app, names = made.metadata.get("app"), made.metadata.get("categories")
    rest = {key: value for key, value in made.metadata.items() if key not in {"app", "categories"}}
    tags = tuple(sorted(one for one in names if isinstance(one, str))) if isinstance(names, list) else ()
    return msgspec.structs.replace(made, agent=app if isinstance(app, str) else None, tags=tags, metadata=rest)


def _elements(archive: zipfile.ZipFile, entry: str) -> Iterator[Element | Refused]:
    try:
        with archive.open(entry) as stream:
            yield from stream_elements(cast("BinaryIO", stream), entry)
    except DAMAGED as error:
        yield Refused(where=entry, reason=f"damaged: {error}")


class _Known:
    """The names that memories are told by: of users, apps and categories."""

    def __init__(self) -> None:
        self._users: dict[str, str] = {}
        self._apps: dict[str, str] = {}
        self._categories: dict[str, str] = {}
        self._tags = defaultdict[str, list[str]](list)

    def note(self, each: Element) -> None:
        """Remember what an element says of names."""
        said = each.value if isinstance(each.value, dict) else {}
        tables = {
            "user": (self._users, "user_id"),
            "apps": (self._apps, "name"),
            "categories": (self._categories, "name"),
        }
        if each.key in tables:
            names, key = tables[each.key]
            if isinstance(said.get("id"), str) and isinstance(said.get(key), str):
                names[_plain(said["id"])] = said[key]
        elif each.key == "memory_categories" and {"memory_id", "category_id"} <= said.keys():
            self._tags[_plain(str(said["memory_id"]))].append(_plain(str(said["category_id"])))

    def complete(self, record: Record) -> Record:
        """Return a memory with the names; any other record as it is."""
        if record.collection != "memories":
            return record
        listed = record.metadata.get("category_ids")
        ids = {*(_plain(str(one)) for one in (listed if isinstance(listed, list) else ()))}
        ids |= {*self._tags.get(record.id, ())}
        rest = {key: value for key, value in record.metadata.items() if key != "category_ids"}
        user, app = rest.get("user_id"), rest.get("app_id")
        return msgspec.structs.replace(
            record,
            user=self._users.get(str(user), user) if isinstance(user, str) else None,
            agent=self._apps.get(str(app), app) if isinstance(app, str) else None,
            tags=tuple(sorted({self._categories[one] for one in ids if one in self._categories})),
            metadata=rest,
        )


def _record(key: str, said: Any, undo: _Undo) -> Record:
    table, fields = _TABLES[key]
    identity = "memory_id" if key == "memory_categories" else "id"
    if not isinstance(said, dict) or not isinstance(said.get(identity), str):
        raise UnfitError(f"no row of {table}: `{identity}` is no text")
    if not isinstance(said.get(fields.get("text", ""), ""), str):
        raise UnfitError(f"no row of {table}: `{fields['text']}` is no text")
    row = {column: _as_stored(table, column, value, undo) for column, value in said.items()}
    made = _mapper(table, identity, fields).record(row)
    assert isinstance(made, Record)  # noqa: S101 - no shape is one of relationships
    return made


def _as_stored(table: str, column: str, value: Any, undo: _Undo) -> Any:
    """Return a value as the database has it: ids without dashes, times without a zone, metadata as Python wrote it."""
    if isinstance(value, str) and _is_id(table, column):
        return _plain(value)
    if column.endswith("_at") and isinstance(value, str) and (told := moments.from_raw(value, "iso")) is not None:
        return moments.to_text(undo(told), like=_LIKE)
    return json.dumps(value) if column == "metadata" and isinstance(value, dict) else value


def _plain(name: str) -> str:
    return name.replace("-", "") if _DASHED.fullmatch(name) else name


def _is_id(table: str, column: str) -> bool:
    named = column in {"id", "changed_by"} or column.endswith("_id")
    return named and (table, column) != ("users", "user_id")  # that is a name


def _mapper(table: str, identity: str, fields: dict[str, str]) -> Mapper:
    main = table == "memories"
    shape = Shape(
        fields=fields,
        times={field: "iso" for field in fields if field.endswith("_at")},
        inner="metadata" if main else None,
        free="metadata." if main else None,
        like=_LIKE,
    )
    return Mapper(TableMap(collection=table, table=table, id=identity, primary=main), shape, name)


def _undo(zone: str | None) -> _Undo:
    """Return what undoes the shift: the clock that a host in the zone showed is what was meant as UTC."""
    if zone is None:
        return lambda text: text
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        there = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"{zone!r} is no time zone", hint="timedatectl list-timezones") from error

    def undo(text: str) -> str:
        try:
            return datetime.fromisoformat(text).astimezone(there).replace(tzinfo=UTC).isoformat()
        except (ValueError, OverflowError):
            return text

    return undo


def _no_export(path: Path, why: str) -> FileError:
    return FileError(f"{path} is no export of OpenMemory: {why}", hint=f"unzip -l {quoted(path)}")

"""The contract of merging: rows of an image put among those of a live part, each of them or none.

A merge has two halves, so that several parts go together: `MergeEngine.merge` finds out what would change, and does it
as far as it can be undone; `Merging.commit` makes it last. Without `commit` nothing has changed at exit.
"""

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from memkeep.model import Part, TableMap, Value
from memkeep.records.times import to_iso

Conflict = Literal["skip", "update", "fail", "newer"]
"""What happens to a row whose key is there with other values: it stays, it is replaced, all is refused, or it is
replaced where the image's is the later one."""


NAMED = 20  # conflicts that are named


class Wanted(Value):
    """Which rows are merged, and how."""

    conflict: Conflict
    users: tuple[str, ...] | None = None  # only rows whose `user` (else `scope`) is one of these; None: all
    records: frozenset[str] | None = None  # ids, as `plain_id` gives them, that rows of linked tables must name


class Counts(Value):
    """What became of the rows of one table."""

    inserted: int = 0
    updated: int = 0
    skipped: int = 0  # there with other values, and left as they are
    same: int = 0  # there already, value for value


class FailedRow(Value):
    """A row that the database refuses; the others it takes."""

    table: str
    id: str
    reason: str


class Merged(Value):
    """What a merge does to one part."""

    tables: dict[str, Counts] = {}
    failed: tuple[FailedRow, ...] = ()
    conflicts: tuple[str, ...] = ()  # `table:id` of the first few rows that are there with other values
    records: tuple[str, ...] = ()  # ids of the image's chosen primary records, as `plain_id` gives them
    left: tuple[str, ...] = ()  # tables and columns that the live part does not have, one sentence each
    notes: tuple[str, ...] = ()  # what else to know of rows that went in, one sentence each


class Merging(Protocol):
    """A merge that is not yet made to last."""

    result: Merged

    def commit(self) -> None:
        """Make it last. Raises `StoreError` when the live part no longer takes it; then nothing has changed."""
        ...


@runtime_checkable
class MergeEngine(Protocol):
    """An engine whose live parts take rows."""

    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> AbstractContextManager[Merging]:
        """Merge the image that lies under `root` into the live part; both have the maps to go by.

        Raises `StoreError` when the live part can't be written.
        """
        ...


def plain_id(name: object) -> str:
    """Return an id by which the parts of one store agree: products spell a UUID with dashes here, without there."""
    return str(name).replace("-", "").lower()


def belongs(named: Collection[str], records: Collection[str] | None) -> bool:
    """Say whether a row that names some records goes along: when there is no choice, or one of them is chosen."""
    return records is None or any(plain_id(name) in records for name in named)


def of_records(wanted: Wanted, chosen: Iterable[str]) -> Wanted:
    """Return what is wanted of linked tables, once it is known which records of some users are chosen."""
    if wanted.users is None:
        return wanted
    return msgspec.structs.replace(wanted, records=(wanted.records or frozenset()).union(chosen))


def links_last(maps: Iterable[TableMap]) -> list[TableMap]:
    """Return the tables in the order in which they are merged: whose rows a record's are is known by then."""
    return sorted(maps, key=lambda map_: bool(map_.links))


def left_out(tables: Iterable[str], maps: Iterable[TableMap]) -> tuple[str, ...]:
    """Say of which tables there are rows but nothing is known."""
    known = {map_.table for map_ in maps}
    return tuple(f"{table} is left out: the store has no such table" for table in tables if table not in known)


def seen_later(path: object, counts: Iterable[Counts]) -> tuple[str, ...]:
    """Say, where rows go in, that programs which keep what they have read do not see them at once."""
    changed = any(one.inserted or one.updated for one in counts)
    return (f"a program that has {path} open may see what was merged only when it opens it again",) if changed else ()


def owner(map_: TableMap) -> str | None:
    """Return the column that says whose a row is."""
    return map_.fields.get("user") or map_.fields.get("scope")


def is_of(map_: TableMap, row: dict[str, Any], users: Collection[str] | None) -> bool:
    """Say whether a row without links is of one of some users; None: of anybody."""
    column = owner(map_)
    return users is None or (column is not None and str(row.get(column)) in users)


def is_chosen(map_: TableMap, row: dict[str, Any], wanted: Wanted) -> bool:
    """Say whether a row goes along: it is of one of the users, if any are named, and so is what it links."""
    user = owner(map_)
    if wanted.users is not None and (str(row[user]) not in wanted.users if user in row else not map_.links):
        return False
    named = [str(row[column]) for column in map_.links if row.get(column) is not None]
    return not map_.links or belongs(named, wanted.records)


def replaces(wanted: Wanted, map_: TableMap, row: dict[str, Any], before: dict[str, Any]) -> bool:
    """Say whether a row takes the place of the one before, which has other values."""
    return wanted.conflict == "update" or (wanted.conflict == "newer" and later(map_, row, before))


def later(map_: TableMap, row: dict[str, Any], before: dict[str, Any]) -> bool:
    """Say whether a row is later than the one before, by when it was updated, else made; no without such times."""
    for field in ("updated_at", "created_at"):
        column = map_.fields.get(field)
        if column in row and column in before:
            unit = map_.times.get(field, "auto")
            now, then = to_iso(row[column], unit), to_iso(before[column], unit)
            if now is not None and then is not None and now != then:
                return now > then
    return False

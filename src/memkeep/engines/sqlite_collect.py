"""Rows of a table on their way to becoming groups of records, and what is counted on that way."""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import msgspec

from memkeep.model import TableMap
from memkeep.records import groups

BadText = msgspec.msgpack.Ext  # text that is not valid in the database's encoding: code 1 and the raw bytes
Row = Sequence[Any]
_DISTINCT = 200
_OTHERS = "(other)"
_FLOAT32 = 4
_BYTES = frozenset({bytes, BadText})
_ODD = _BYTES | {float}  # of floats only those that are not finite; `cell` leaves the others as they are
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Collector:
    """The records of one collection: their groups, and counts by category, scope, time and vector.

    Rows are kept packed, one bytes object each with vectors replaced by their digests, until their group is cut.
    """

    def __init__(self, columns: Sequence[str], map_: TableMap, bits: int) -> None:
        self.map = map_
        self._bits = bits
        self._columns = columns
        place = {name.lower(): i for i, name in enumerate(columns)}
        self._key = place[map_.id.lower()]
        self._vectors = {column: place[column.lower()] for column in map_.vectors if column.lower() in place}
        self._buckets: list[list[bytes]] = [[] for _ in range(1 << bits)]
        self._rows = 0
        self._counted: dict[str, tuple[int, Counter[str]]] = {}
        for name in ("category", "scope"):
            column = map_.fields.get(name, name).lower()
            if column in place:
                self._counted[name] = (place[column], Counter())
        self._target = place.get("scope_target")  # hybrid's scopes: the kind in one column, whose it is in another
        self._time = place.get(map_.fields.get("created_at", "created_at").lower())
        self._span: tuple[Any, Any] = (None, None)
        self._dims: dict[str, Counter[str]] = {column: Counter() for column in self._vectors}
        self._missing: Counter[str] = Counter()

    def add(self, rows: Sequence[Row]) -> None:
        """Take in a batch."""
        key, mask, buckets, crc, pack = self._key, (1 << self._bits) - 1, self._buckets, zlib.crc32, _encode
        vectors = tuple(self._vectors.values())
        odd = [i for i, column in enumerate(zip(*rows, strict=True)) if i not in vectors and _is_odd(column)]
        for row in rows:
            cells = list(row)
            for i in vectors:
                item = cells[i]
                if type(item) is bytes and item and not len(item) % _FLOAT32:
                    cells[i] = groups.vector_cell(item, dims=len(item) // _FLOAT32)
                elif type(item) in _ODD:
                    cells[i] = cell(item)
            name = cells[key]
            if type(name) is not str:
                name = id_of(name)
                if isinstance(cells[key], (bytes, BadText)):
                    cells[key] = name  # a digest would not name the record
            for i in odd:
                if type(cells[i]) in _ODD:
                    cells[i] = cell(cells[i])
            buckets[crc(name.encode("utf-8", "surrogatepass")) & mask].append(pack(cells))
        self._count(rows)

    def _count(self, rows: Sequence[Row]) -> None:
        self._rows += len(rows)
        for kind, (i, counter) in self._counted.items():
            target = self._target if kind == "scope" else None
            values = Counter([(row[i], None if target is None else row[target]) for row in rows])
            for (item, aim), count in values.items():
                name = "" if item is None else id_of(item) if aim is None else f"{id_of(item)}:{id_of(aim)}"
                counter[name if name in counter or len(counter) < _DISTINCT else _OTHERS] += count
        if self._time is not None:
            self._span = _widen(self._span, [row[self._time] for row in rows])
        for column, i in self._vectors.items():
            sizes = Counter([len(row[i]) if type(row[i]) is bytes else 0 for row in rows])
            self._missing[column] += sizes.pop(0, 0)
            for size, count in sizes.items():
                self._dims[column][f"{size} bytes" if size % _FLOAT32 else str(size // _FLOAT32)] += count

    def groups(self) -> Iterator[groups.Group]:
        """Yield the finished groups and let go of the rows."""
        for bucket, rows in enumerate(self._buckets):
            if rows:
                self._buckets[bucket] = []
                cells = [_decode(row) for row in rows]
                yield groups.encode(self.map.collection, self._bits, bucket, self._columns, cells, self._key)

    def summary(self) -> dict[str, Any]:
        """Return counts by value, and the smallest and largest raw time."""
        counted = {name: dict(counter) for name, (_, counter) in self._counted.items()}
        return {"rows": self._rows, "oldest": self._span[0], "newest": self._span[1], **counted}

    def vectors(self) -> dict[str, Any]:
        """Return, by `table.column`, how many vectors of which dimensions there are, and how many rows have none."""
        return {
            f"{self.map.table}.{column}": {
                "count": sum(dims.values()),
                "dims": dict(dims),
                "missing": self._missing[column],
            }
            for column, dims in self._dims.items()
        }


def _is_odd(column: Sequence[Any]) -> bool:
    """Say whether a column of a batch holds anything that is stored in another form than it has."""
    kinds = set(map(type, column))
    if kinds & _BYTES:
        return True
    return float in kinds and not all(map(isfinite, [item for item in column if type(item) is float]))


def id_of(item: object) -> str:
    """Return an id as text; bytes, and text that is no text, as hex."""
    return groups.id_text(item.data if isinstance(item, BadText) else item)


def cell(item: object) -> groups.Cell:
    """Return a value as a cell of a group."""
    return {"text": bytes(item.data).hex()} if isinstance(item, BadText) else groups.cell(item)


def _widen(span: tuple[Any, Any], items: list[Any]) -> tuple[Any, Any]:
    """Take values into a range: the numbers when there are any, else the texts."""
    known = [item for item in (*span, *items) if isinstance(item, (int, float, str))]
    best = [item for item in known if not isinstance(item, str)] or known
    return (min(best), max(best)) if best else (None, None)

"""Rows of a Lance table on their way to becoming a digest, counts, and groups of records.

The digest of a table is BLAKE3 over the msgpack array of its column names and then the 16-byte BLAKE3 of each row,
in ascending order of these: the same rows give the same digest wherever a compaction or an update has put them. A row
is the msgpack array of its values in column order (see `lance_values`).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from memkeep.engines.lance_values import to_cell, vector_to_cell
from memkeep.engines.waiting import Waiting
from memkeep.model import TableMap
from memkeep.records import groups

_DIGEST = 16
_DISTINCT = 200
_OTHERS = "(other)"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Rows:
    """Takes in a table's rows; packed rows wait in an unnamed file, so that memory stays small."""

    def __init__(
        self,
        columns: Sequence[str],
        widths: dict[str, int],
        *,
        plain: Collection[str],
        maps: Sequence[TableMap],
        bits: dict[str, int],
        expected: int,
        folder: Path | None,
    ) -> None:
        """Begin: `widths` has the bytes an element of each vector column, `folder` is where the file lies.

        `plain` are the columns whose values are JSON as they are: text, integers, truth values.
        """
        self.columns = list(columns)
        self.count = 0
        self._digests = bytearray()
        odd = {i: widths.get(column, 0) for i, column in enumerate(columns) if column not in plain}
        self._collections = [
            _Collection(map_, self.columns, odd, Waiting(bits.get(map_.collection), expected, folder)) for map_ in maps
        ]
        self._dims = {column: Counter[str]() for column in widths}
        self._missing = Counter[str]()

    def add(self, values: Sequence[list[Any]]) -> None:
        """Take in a batch, column by column."""
        packed = [_encode(row) for row in zip(*values, strict=True)]
        self._digests += b"".join([blake3(row).digest(_DIGEST) for row in packed])
        self.count += len(packed)
        for collection in self._collections:
            collection.add(packed, values)
        for column, dims in self._dims.items():
            found = values[self.columns.index(column)]
            heads = Counter([value[:4] if isinstance(value, bytes) else None for value in found])
            self._missing[column] += heads.pop(None, 0)
            for head, count in heads.items():
                dims[str(int.from_bytes(head or b"", "little"))] += count

    def digest(self) -> str:
        """Return the digest of all rows so far, hex."""
        import numpy as np

        rows = np.frombuffer(bytes(self._digests), f"S{_DIGEST}")
        hasher = blake3(_encode(self.columns))
        hasher.update(np.sort(rows).tobytes())
        return hasher.hexdigest()

    def groups(self) -> Iterator[groups.Group]:
        """Yield the records of all collections, in groups, and let go of them."""
        for collection in self._collections:
            yield from collection.groups()

    def summary(self) -> dict[str, Any]:
        """Return, by collection, counts by value and the smallest and largest raw time."""
        return {collection.map.collection: collection.summary() for collection in self._collections}

    def vectors(self, table: str) -> dict[str, Any]:
        """Return, by `table.column`, how many vectors of which dimensions there are, and how many rows have none."""
        return {
            f"{table}.{column}": {"count": dims.total(), "dims": dict(dims), "missing": self._missing[column]}
            for column, dims in self._dims.items()
        }

    def close(self) -> None:
        """Let go of what waits."""
        for collection in self._collections:
            collection.waiting.close()


class _Collection:
    """The records of one map, and what is counted of them."""

    def __init__(self, map_: TableMap, columns: Sequence[str], odd: dict[int, int], waiting: Waiting) -> None:
        self.map = map_
        self.waiting = waiting
        self._columns = columns
        self._odd = odd
        self._key = columns.index(map_.id)
        self._rows = 0
        place = {name: i for i, name in enumerate(columns)}
        self._counted: dict[str, tuple[int, Counter[str]]] = {
            name: (place[column], Counter())
            for name in ("category", "scope")
            if (column := map_.fields.get(name, name)) in place
        }
        self._time = place.get(map_.fields.get("created_at", "created_at"))
        self._span: tuple[Any, Any] = (None, None)

    def add(self, packed: Sequence[bytes], values: Sequence[list[Any]]) -> None:
        for row, value in zip(packed, values[self._key], strict=True):
            self.waiting.add(value if value.__class__ is str else groups.id_text(value), row)
        self._count(values)

    def groups(self) -> Iterator[groups.Group]:
        """Yield the groups in ascending order of their bucket."""
        name, bits = self.map.collection, self.waiting.bits
        for bucket, rows in self.waiting.buckets():
            yield groups.encode(name, bits, bucket, self._columns, map(self._cells, rows), self._key)

    def summary(self) -> dict[str, Any]:
        counted = {name: dict(counter) for name, (_, counter) in self._counted.items()}
        return {"rows": self._rows, "oldest": self._span[0], "newest": self._span[1], **counted}

    def _cells(self, packed: bytes) -> list[Any]:
        found = _decode(packed)
        for i, width in self._odd.items():
            value = found[i]
            if width:
                found[i] = vector_to_cell(value, width)
            elif value.__class__ is not float or not isfinite(value):
                found[i] = groups.id_text(value) if i == self._key and isinstance(value, bytes) else to_cell(value)
        return found  # type: ignore[no-any-return]

    def _count(self, values: Sequence[list[Any]]) -> None:
        self._rows += len(values[self._key])
        for i, counter in self._counted.values():
            for item, count in Counter(map(_hashable, values[i])).items():
                name = "" if item is None else groups.id_text(item)
                counter[name if name in counter or len(counter) < _DISTINCT else _OTHERS] += count
        if self._time is not None:
            known = [item for item in (*self._span, *values[self._time]) if isinstance(item, int | float | str)]
            known = [item for item in known if item == item]  # noqa: PLR0124 - without NaN
            if known:
                self._span = (min(known), max(known))


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value

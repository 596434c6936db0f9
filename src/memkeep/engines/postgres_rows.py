"""The rows of a table's image on their way to becoming a digest, counts, groups of records, and answers to probes.

The digest is BLAKE3 over the msgpack array of the column names, those of vectors last, and then the 16-byte BLAKE3 of
each row in ascending order: the same rows give the same digest in whatever order a server keeps or sorts them. A row
is its tuple in `rows/` and, of each vector, the 16-byte BLAKE3 of its elements as the COPY format has them, or 16 zero
bytes; the same digest names a vector in the records.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from memkeep.engines.lance_values import to_cell
from memkeep.engines.postgres_copy import ELEMENTS, mark, marks_in, tuples, vectors
from memkeep.engines.postgres_tables import Table, vector_file
from memkeep.engines.postgres_values import decoder
from memkeep.engines.waiting import Waiting
from memkeep.model import TableMap
from memkeep.records import groups

if TYPE_CHECKING:
    from memkeep.engines.postgres_probes import Prober

_DIGEST = 16
_DISTINCT = 200
_OTHERS = "(other)"
_JSON = frozenset({"json", "jsonb"})
_TIMES = (str, int, float)
_PLAIN = (str, int)
_WIDTHS = {"vector": 4, "halfvec": 2}
_BATCH = 256
_pack = msgspec.json.Encoder().encode
_unpack = msgspec.json.Decoder().decode
_names = msgspec.msgpack.Encoder().encode

Fields = list[bytes | None]


class Row:
    """One row: its tuple in `rows/`, the fields of that, its vectors, and the digests of these."""

    __slots__ = ("data", "fields", "marks", "vectors")

    def __init__(
        self, data: bytes, fields: Fields, vectors: "Sequence[bytes | memoryview | None]", marks: Sequence[bytes]
    ) -> None:
        self.data = data
        self.fields = fields
        self.vectors = vectors
        self.marks = marks


def rows(table: Table, folder: Path, marks: Path | None = None) -> Iterator[Row]:
    """Yield the rows of a table whose files lie under a folder; `StoreError` when these do not fit together.

    `marks` is the folder where the `Writer` of these files has left the digests of the vectors, if it is there.
    """
    others = tuples(folder / "rows" / name for name in table.segments)
    files = [vector_file(column) for column in table.vectors]
    columns = [_marked(folder / name, marks and marks / name) for name in files]
    for (data, fields), *mine in zip(others, *columns, strict=True):
        yield Row(data, fields, [vector for vector, _ in mine], [digest for _, digest in mine])


def _marked(file: Path, marks: Path | None) -> "Iterator[tuple[bytes | memoryview | None, bytes]]":
    if marks is not None:
        yield from zip(vectors(file), marks_in(marks), strict=True)
    else:
        for vector in vectors(file):
            yield vector, mark(vector)


class Digest:
    """The digest of rows that come in any order."""

    def __init__(self, table: Table) -> None:
        self._names = [column.name for column in (*table.others, *table.vectors)]
        self._rows = bytearray()

    def add(self, row: Row) -> None:
        """Take in a row."""
        data = row.data
        if row.vectors:
            data = b"".join([data, *row.marks])
        self._rows += blake3(data).digest(_DIGEST)

    @property
    def count(self) -> int:
        """How many rows there were."""
        return len(self._rows) // _DIGEST

    def hex(self) -> str:
        """Return the digest so far."""
        import numpy as np

        hasher = blake3(_names(self._names))
        hasher.update(np.sort(np.frombuffer(bytes(self._rows), f"S{_DIGEST}")).tobytes())
        return hasher.hexdigest()


class Reading:
    """One pass over a table: afterwards it has counted and collected all."""

    def __init__(
        self, table: Table, maps: Sequence[TableMap], bits: dict[str, int], prober: "Prober | None", folder: Path | None
    ) -> None:
        """Begin; `folder` is where rows wait for their group."""
        self._table = table
        self._prober = prober
        self.digest = Digest(table)
        self._records = [_Records(table, map_, Waiting(bits.get(map_.collection), table.rows, folder)) for map_ in maps]
        self._dims = {column.name: Counter[str]() for column in table.vectors}
        self._missing = Counter[str]()

    def read(self, folder: Path, marks: Path | None) -> None:
        """Read all rows, as `rows` does."""
        batch: list[Row] = []
        for row in rows(self._table, folder, marks):
            self.digest.add(row)
            batch.append(row)
            if len(batch) == _BATCH:
                self._take(batch)
                batch = []
        self._take(batch)

    def groups(self) -> Iterator[groups.Group]:
        """Yield the groups of all collections, and let go of them."""
        for records in self._records:
            yield from records.groups()

    def summary(self) -> dict[str, Any]:
        """Return, by collection, counts by value and the smallest and largest raw time."""
        return {records.map.collection: records.summary() for records in self._records}

    def vectors(self) -> dict[str, Any]:
        """Return, by `table.column`, how many vectors of which dimensions there are, and how many rows have none."""
        return {
            f"{self._table.full}.{column}": {
                "count": dims.total(),
                "dims": dict(dims),
                "missing": self._missing[column],
            }
            for column, dims in self._dims.items()
        }

    def close(self) -> None:
        """Let go of what waits."""
        for records in self._records:
            records.waiting.close()

    def _take(self, batch: list[Row]) -> None:
        for i, column in enumerate(self._table.vectors):
            heads = Counter([None if (one := row.vectors[i]) is None else bytes(one[:2]) for row in batch])
            self._missing[column.name] += heads.pop(None, 0)
            for head, count in heads.items():
                self._dims[column.name][str(int.from_bytes(head or b"", "big"))] += count
        for records in self._records:
            records.add(batch)
        if self._prober is not None:
            self._prober.add(batch)


class _Records:
    """The records of one map. JSON objects are spread: their keys are columns, `<column>.<key>`."""

    def __init__(self, table: Table, map_: TableMap, waiting: Waiting) -> None:
        self.map = map_
        self.waiting = waiting
        self._others = [
            (
                i,
                column.name,
                decoder(column.kind, as_text=column.form == "text"),
                dict[str, str]() if column.kind in _JSON else None,
            )
            for i, column in enumerate(table.others)
        ]
        self._vectors = [(i, column.name, _WIDTHS[column.kind]) for i, column in enumerate(table.vectors)]
        self._columns = [column.name for column in table.columns if column.kind not in _JSON]
        self._rows = 0
        self._counted = {name: (map_.fields.get(name, name), dict[str, int]()) for name in ("category", "scope")}
        self._time = map_.fields.get("created_at", "created_at")
        self._span: tuple[Any, Any] = (None, None)

    def add(self, batch: list[Row]) -> None:
        for row in batch:
            cells = self._cells(row)
            record = groups.id_text(cells[self.map.id])
            if not isinstance(cells[self.map.id], str | int):
                cells[self.map.id] = record
            self.waiting.add(record, _pack(cells))
            self._count(cells)

    def groups(self) -> Iterator[groups.Group]:
        """Yield the groups in ascending order of their bucket; a group has the keys that its rows have."""
        for bucket, packed in self.waiting.buckets():
            cells = [_unpack(row) for row in packed]
            spread = sorted({name for row in cells for name in row}.difference(self._columns))
            columns = [*self._columns, *spread]
            values = ([row.get(name) for name in columns] for row in cells)
            yield groups.encode(
                self.map.collection, self.waiting.bits, bucket, columns, values, columns.index(self.map.id)
            )

    def summary(self) -> dict[str, Any]:
        counted = {name: counter for name, (_, counter) in self._counted.items() if counter.keys() - {""}}
        return {"rows": self._rows, "oldest": self._span[0], "newest": self._span[1], **counted}

    def _cells(self, row: Row) -> dict[str, Any]:
        cells: dict[str, Any] = {}
        for i, name, decode, spread in self._others:
            data = row.fields[i]
            value = None if data is None else decode(data)
            if spread is not None and value.__class__ is dict:
                for key, item in value.items():
                    cells[spread.get(key) or spread.setdefault(key, f"{name}.{key}")] = item
            elif value is not None or spread is None:
                cells[name] = value if value.__class__ in _PLAIN else to_cell(value)
        for i, name, width in self._vectors:
            vector = row.vectors[i]
            cells[name] = vector and {
                "dims": (len(vector) - ELEMENTS) // width,
                "type": f"f{8 * width}",
                "blake3": row.marks[i][:8].hex(),
            }
        return cells

    def _count(self, cells: dict[str, Any]) -> None:
        self._rows += 1
        for column, counter in self._counted.values():
            item = cells.get(column)
            name = item if item.__class__ is str else "" if item is None else str(item)
            if name in counter or len(counter) < _DISTINCT:
                counter[name] = counter.get(name, 0) + 1
            else:
                counter[_OTHERS] = counter.get(_OTHERS, 0) + 1
        when = cells.get(self._time)
        if when.__class__ in _TIMES:
            least, most = self._span
            if least is None:
                self._span = (when, when)
            elif (when.__class__ is str) is (least.__class__ is str) and not least <= when <= most:
                self._span = (min(least, when), max(most, when))

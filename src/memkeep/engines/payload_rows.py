"""Rows without columns: an id, a payload of any JSON, and vectors, on their way to a digest, counts and records.

The digest of a collection is BLAKE3 over the 16-byte BLAKE3 of each row in ascending order of these. A row is the
msgpack array of its id, its payload with sorted keys, and [name, type, dimensions, first 16 bytes of the BLAKE3] of
each vector in the order of the names; the bytes of a vector are its elements as float32, little-endian, those of a
sparse one its indices as u32 and then its values.

A record's columns are `id`, the payload's keys and `vector` or `vector.<name>`; a key that is called like one of the
others becomes `payload.<key>`. A key that a record lacks and one that is null look the same in a group.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from memkeep.engines.qdrant_dense import Known
from memkeep.engines.qdrant_edge import Point, Sparse, Vector
from memkeep.engines.waiting import Waiting
from memkeep.model import TableMap
from memkeep.records import groups

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIGEST = 16
_DISTINCT = 200
_OTHERS = "(other)"
_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder().decode


class PayloadRows:
    """Takes in the points of one collection."""

    def __init__(
        self, table: str, maps: Sequence[TableMap], bits: dict[str, int], expected: int, folder: Path | None
    ) -> None:
        """Begin; `bits` has the bucket bits of the parent snapshot, `folder` is where rows wait."""
        self.count = 0
        self._table = table
        self._digests = bytearray()
        self._columns: dict[str, Counter[str]] = {}
        self._collections = [_Collection(map_, Waiting(bits.get(map_.collection), expected, folder)) for map_ in maps]

    def add(self, points: Sequence[Point]) -> None:
        """Take in some points."""
        for point in points:
            vectors = [_packed(name, vector) for name, vector in sorted((point.vectors | point.known).items())]
            row = _encode([point.id, point.payload, vectors])
            self._digests += blake3(row).digest(_DIGEST)
            for name, _, dims, _ in vectors:
                self._columns.setdefault(_column(name), Counter())[str(dims)] += 1
            for collection in self._collections:
                collection.add(point, row)
        self.count += len(points)

    def digest(self) -> str:
        """Return the digest of all rows so far, hex."""
        import numpy as np

        return blake3(np.sort(np.frombuffer(bytes(self._digests), f"S{_DIGEST}")).tobytes()).hexdigest()

    def groups(self) -> "Iterator[groups.Group]":
        """Yield the records of all collections, in groups, and let go of them."""
        for collection in self._collections:
            yield from collection.groups(sorted(self._columns))

    def summary(self) -> dict[str, Any]:
        """Return, by collection, counts by value and the smallest and largest raw time."""
        return {collection.map.collection: collection.summary() for collection in self._collections}

    def vectors(self) -> dict[str, Any]:
        """Return, by `table.column`, how many vectors of which dimensions there are, and how many rows have none."""
        return {
            f"{self._table}.{column}": {
                "count": dims.total(),
                "dims": dict(dims),
                "missing": self.count - dims.total(),
            }
            for column, dims in sorted(self._columns.items())
        }

    def close(self) -> None:
        """Let go of what waits."""
        for collection in self._collections:
            collection.waiting.close()


class _Collection:
    """The records of one map, and what is counted of them."""

    def __init__(self, map_: TableMap, waiting: Waiting) -> None:
        self.map = map_
        self.waiting = waiting
        self._rows = 0
        self._counted = {name: Counter[str]() for name in ("category", "scope")}
        self._span: tuple[Any, Any] | None = None

    def add(self, point: Point, row: bytes) -> None:
        self.waiting.add(self._name(point.id, point.payload), row)
        self._rows += 1
        for name, counter in self._counted.items():
            if (key := self.map.fields.get(name, name)) in point.payload:
                value = str(point.payload[key])
                counter[value if value in counter or len(counter) < _DISTINCT else _OTHERS] += 1
        time = point.payload.get(self.map.fields.get("created_at", "created_at"))
        if isinstance(time, int | float | str) and not isinstance(time, bool):
            self._widen(time)

    def groups(self, vectors: Sequence[str]) -> "Iterator[groups.Group]":
        for bucket, packed in self.waiting.buckets():
            rows = [_decode(row) for row in packed]
            keys = sorted({key for _, payload, _ in rows for key in payload})
            names = [_key(key, vectors) for key in keys]
            columns = ["id", *names, *vectors]
            key = columns.index(self.map.id) if self.map.id in columns else 0
            cells = (self._cells(row, keys, vectors, key) for row in rows)
            yield groups.encode(self.map.collection, self.waiting.bits, bucket, columns, cells, key)

    def summary(self) -> dict[str, Any]:
        counted = {name: dict(counter) for name, counter in self._counted.items() if counter}
        oldest, newest = self._span or (None, None)
        return {"rows": self._rows, "oldest": oldest, "newest": newest, **counted}

    def _name(self, point: object, payload: dict[str, Any]) -> str:
        return groups.id_text(point if self.map.id == "id" else payload.get(self.map.id, point))

    def _cells(self, row: Any, keys: Sequence[str], vectors: Sequence[str], key: int) -> list[Any]:
        point, payload, found = row
        by_name = {_column(name): _cell(kind, dims, digest) for name, kind, dims, digest in found}
        cells = [point, *map(payload.get, keys), *map(by_name.get, vectors)]
        cells[key] = point if key == 0 else self._name(point, payload)
        return cells

    def _widen(self, time: Any) -> None:
        oldest, newest = self._span or (time, time)
        if isinstance(time, str) == isinstance(oldest, str):
            self._span = min(oldest, time), max(newest, time)


def _packed(name: str, vector: Vector | Known) -> tuple[str, str, int, bytes]:
    if isinstance(vector, bytes):
        return name, "f32", len(vector) // 4, blake3(vector).digest(_DIGEST)
    if isinstance(vector, Known):
        return name, "f32", vector.dims, vector.digest
    if isinstance(vector, Sparse):
        count = len(vector.indices)
        data = struct.pack(f"<{count}I{count}f", *vector.indices, *vector.values)
        return name, "sparse", count, blake3(data).digest(_DIGEST)
    return name, "multi", _width(vector), blake3(b"".join(vector)).digest(_DIGEST)


def _width(rows: Iterable[bytes]) -> int:
    return next((len(row) // 4 for row in rows), 0)


def _cell(kind: str, dims: int, digest: bytes) -> dict[str, Any]:
    return {"dims": dims, "type": kind, "blake3": digest[:8].hex()}


def _column(name: str) -> str:
    return f"vector.{name}" if name else "vector"


def _key(key: str, vectors: Sequence[str]) -> str:
    return f"payload.{key}" if key == "id" or key in vectors else key

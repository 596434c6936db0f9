"""Rows that are given on their way to the child process: only values that SQLite has, others refuse their row."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from memkeep.engines.merging import FailedRow
from memkeep.engines.sqlite_sql import affinity
from memkeep.model import TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

_BATCH = 1024  # rows
_SIMPLE = frozenset({str, int, bytes, type(None)})
_ROUNDED = {"f16": "<f2", "f64": "<f8"}
_DIMS = "dims"  # beside a vector: how many elements it has, by which `sqlite_rows` tells those of 64 bits
_LARGEST = 2**63
_encode = msgspec.msgpack.Encoder().encode


class Given:
    """The rows that are given for one table."""

    def __init__(self, map_: TableMap, types: Mapping[str, str]) -> None:
        """Begin; `types` are the columns that can be written, and how they are declared."""
        self.failed: list[FailedRow] = []
        self.left: dict[str, None] = {}
        self._map = map_
        self._types = {name: affinity(declared) for name, declared in types.items()}

    def packed(self, rows: Sequence[Row]) -> Iterator[msgspec.Raw]:
        """Yield rows as `SqliteMerge.take` wants them, some at a time."""
        for start in range(0, len(rows), _BATCH):
            some = [one for row in rows[start : start + _BATCH] if (one := self._plain(row)) is not None]
            try:
                yield _runs(some)
            except (UnicodeEncodeError, OverflowError):
                yield _runs([one for each in some if (one := self._careful(each)) is not None])

    def _plain(self, row: Row) -> Row | None:
        """Return a row of SQLite's values; None when it has another, which is noted."""
        if not row.keys() <= self._types.keys():
            lost = [name for name in row if name not in self._types]
            self.left |= {f"{self._map.table} has no column {name}: left out": None for name in lost}
            row = {name: item for name, item in row.items() if name in self._types}
        if set(map(type, row.values())) <= _SIMPLE:
            return row
        try:
            return {
                name: item if item.__class__ in _SIMPLE else self._value(name, item, row) for name, item in row.items()
            }
        except ValueError as error:
            self._refuse(row, str(error))
            return None

    def _value(self, name: str, item: Any, row: Row) -> Any:
        if isinstance(item, bool):
            return int(item)
        if isinstance(item, float):
            if item == item:  # noqa: PLR0124 - no NaN
                return item
            self.left[f"{self._map.table}.{name}: what is no number became NULL, SQLite has none such"] = None
            return None
        if isinstance(item, Vector):
            if self._types[name] == "TEXT" and name not in self._map.vectors:
                raise ValueError(f"{name} is a vector, the column takes text")
            return _elements(name, item, row.get(_DIMS))
        raise ValueError(f"{name} is a {type(item).__name__}, which no column takes")

    def _careful(self, row: Row) -> Row | None:
        """Return a row of which a text is none, or a number too large, as it can be sent; None when it can't."""
        try:
            return {
                name: _text(name, item) if isinstance(item, str) else _number(name, item) for name, item in row.items()
            }
        except ValueError as error:
            self._refuse(row, str(error))
            return None

    def _refuse(self, row: Row, reason: str) -> None:
        names = [self._map.id] if self._map.id in row else [*self._map.unique] or [self._map.id]
        name = "/".join(str(row.get(column)) for column in names)
        self.failed.append(FailedRow(table=self._map.table, id=name, reason=reason))


def _runs(rows: Sequence[Row]) -> msgspec.Raw:
    runs = [(names, [[*row.values()] for row in some]) for names, some in groupby(rows, tuple)]
    return msgspec.Raw(_encode(runs))


def _elements(name: str, vector: Vector, dims: object) -> bytes:
    """Return a vector as float32, or as it is where the row says that it has so many elements of 64 bits."""
    if vector.type == "f32" or (vector.type == "f64" and dims == vector.dims):
        return vector.data
    if vector.type not in _ROUNDED:
        raise ValueError(f"{name} is a {vector.type} vector, the column takes plain ones")
    import numpy as np

    return np.frombuffer(vector.data, _ROUNDED[vector.type]).astype("<f4").tobytes()


def _text(name: str, item: str) -> str | msgspec.msgpack.Ext:
    try:
        item.encode()
    except UnicodeEncodeError:
        try:
            return msgspec.msgpack.Ext(1, item.encode(errors="surrogateescape"))
        except UnicodeEncodeError:
            raise ValueError(f"{name} is no text: it has half of a pair of surrogates") from None
    return item


def _number(name: str, item: Any) -> Any:
    if isinstance(item, int) and not -_LARGEST <= item < _LARGEST:
        raise ValueError(f"{name} is too large a number: {item}")
    return item

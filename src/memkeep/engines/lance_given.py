"""Rows that are given on their way into a Lance table: Arrow batches in its types, no numbers made of vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.lance_values import element_bytes
from memkeep.model import TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

if TYPE_CHECKING:
    import pyarrow as pa

_NUMPY = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}
_BATCH = 1024  # rows


class Fitted(NamedTuple):
    """Rows with the columns that the live table has too, in its types."""

    rows: "pa.RecordBatch"
    unfit: dict[int, str]  # row -> why it does not go in; its values are null then


class Given:
    """The rows that are given for one table."""

    def __init__(self, map_: TableMap, live: "pa.Schema") -> None:
        """Begin."""
        self.left: dict[str, None] = {}
        self._map = map_
        self._live = live

    def fitted(self, batches: Iterable[Sequence[Row]], is_there: Callable[[Any], bool]) -> Iterator[Fitted]:
        """Yield the rows of batches, in their order as far as it matters; `is_there(id)` says whether a row has one.

        New rows go together whatever columns they have: what one lacks is null. Of those that are there the columns
        that they lack stay, so that they go together only with their like.
        """
        for batch in batches:
            for start in range(0, len(batch), _BATCH):
                yield from self._some(batch[start : start + _BATCH], is_there)

    def _some(self, rows: Sequence[Row], is_there: Callable[[Any], bool]) -> Iterator[Fitted]:
        old: list[Row] = []
        new: list[Row] = []
        for row in rows:
            (old if is_there(row.get(self._map.id)) else new).append(row)
        if new:
            yield self._fit(new)
        for _, some in groupby(old, key=lambda row: row.keys()):
            yield self._fit(list(some))

    def _fit(self, rows: list[Row]) -> Fitted:
        known = dict.fromkeys(name for row in rows for name in row)
        lost = [name for name in known if name not in self._live.names]
        self.left |= {f"{self._map.table} has no column {name}: left out": None for name in lost}

        def column(name: str, at: slice) -> "pa.Array":
            return _made([row.get(name) for row in rows[at]], self._live.field(name).type)

        names = [name for name in self._live.names if name in known or name == self._map.id]
        return fit(len(rows), names, self._live, column)


def fit(count: int, names: list[str], live: "pa.Schema", column: "Callable[[str, slice], pa.Array]") -> Fitted:
    """Put columns together; a row that has a value that does not fit is noted."""
    import pyarrow as pa

    unfit: dict[int, str] = {}
    columns = []
    for name in names:
        field = live.field(name)
        try:
            made = column(name, slice(0, count))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            pieces = []
            for at in range(count):
                try:
                    pieces.append(column(name, slice(at, at + 1)))
                except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
                    unfit.setdefault(at, f"{name}: {str(error).splitlines()[0]}")
                    pieces.append(pa.nulls(1, field.type))
            made = pa.concat_arrays(pieces)
        columns.append(made)
        if not field.nullable and made.null_count:
            for at in range(count):
                if not made[at].is_valid:
                    unfit.setdefault(at, f"{name} is null, which the table does not take")
    schema = pa.schema([live.field(name).with_nullable(nullable=True) for name in names])
    return Fitted(pa.record_batch(columns, schema=schema), unfit)


def _made(found: list[Any], type_: "pa.DataType") -> "pa.Array":
    """Return values, as `values` gives them and vectors as `Vector`, as an array. Raises as pyarrow does."""
    import pyarrow as pa

    if element_bytes(type_):
        whole = _together(found, type_)
        return pa.array([_elements(one, type_) for one in found], type_) if whole is None else whole
    is_ = pa.types
    timed = is_.is_date(type_) or is_.is_time(type_) or is_.is_timestamp(type_) or is_.is_decimal(type_)
    if timed and all(one is None or isinstance(one, str) for one in found):
        return pa.array(found, pa.string()).cast(type_)
    if is_.is_duration(type_) and all(one is None or isinstance(one, int) for one in found):
        return pa.array(found, pa.int64()).cast(type_)
    return pa.array(found, type_)


def _together(found: list[Any], type_: "pa.DataType") -> "pa.Array | None":
    """Return vectors that are all of the column's size as one array; None when there are others."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(type_):
        return None
    vectors = [one for one in found if one is not None]
    kinds = {one.type if one.__class__ is Vector else "" for one in vectors}
    if len(kinds) != 1 or not kinds <= _NUMPY.keys():
        return None
    from_ = np.dtype(_NUMPY[kinds.pop()])
    none = bytes(from_.itemsize * type_.list_size)
    if any(len(one.data) != len(none) for one in vectors):
        return None
    data = b"".join([none if one is None else one.data for one in found])
    numbers = np.frombuffer(data, from_).astype(type_.value_type.to_pandas_dtype(), copy=False)
    mask = None if len(vectors) == len(found) else pa.array([one is None for one in found])
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers, type_.value_type), type=type_, mask=mask)


def _elements(vector: Any, type_: "pa.DataType") -> Any:
    """Return what one vector, or what else is in its place, has for an array of vectors."""
    import numpy as np
    import pyarrow as pa

    if not isinstance(vector, Vector):
        return vector
    if vector.type not in _NUMPY:
        raise ValueError(f"it is a {vector.type} vector, the table takes plain ones")
    numbers = np.frombuffer(vector.data, _NUMPY[vector.type])
    if isinstance(type_, pa.FixedSizeListType) and len(numbers) != type_.list_size:
        raise ValueError(f"it has {len(numbers)} dimensions, the table takes {type_.list_size}")
    return numbers.astype(type_.value_type.to_pandas_dtype())

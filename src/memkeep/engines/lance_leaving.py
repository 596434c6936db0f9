"""Rows of a Lance table as they leave: Arrow batches made rows of records, without making numbers of vectors."""

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from memkeep.engines.lance_values import element_bytes, values
from memkeep.records.record import Vector, VectorType
from memkeep.records.shape import Row

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES: dict[int, VectorType] = {2: "f16", 4: "f32", 8: "f64"}


def leaving(batches: "Iterable[pa.RecordBatch]", vectors: Collection[str]) -> Iterator[list[Row]]:
    """Yield the rows of each batch that has any; the columns that are named are vectors, where their type is one."""
    for batch in batches:
        if batch.num_rows:
            names = batch.schema.names
            columns = [_column(batch.column(name), is_vector=name in vectors) for name in names]
            yield [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(array: "pa.Array", *, is_vector: bool) -> list[Any]:
    if is_vector and element_bytes(array.type):
        return _vectors(array)
    try:
        return values(array)
    except UnicodeDecodeError:
        return _texts(array)


def _texts(array: "pa.Array") -> list[Any]:
    """Return a column of texts of which some are none."""
    import pyarrow as pa

    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return values(array)  # deep inside of something: it raises again
    raw = array.cast(pa.large_binary()).to_pylist()
    return [None if item is None else item.decode(errors="surrogateescape") for item in raw]


def _vectors(array: "pa.Array") -> list[Any]:
    """Return vectors, `None` for null; one with an element that is null is a list."""
    import pyarrow as pa

    width = element_bytes(array.type)
    if pa.types.is_fixed_size_list(array.type):
        dims = array.type.list_size
        places = [(at * dims, at * dims + dims) for at in range(array.offset, array.offset + len(array))]
    else:
        offsets = array.offsets.to_pylist()
        places = list(pairwise(offsets))
    start = places[0][0]
    child = array.values.slice(start, places[-1][1] - start)
    data = child.buffers()[1]
    whole = b"" if data is None else data[child.offset * width : (child.offset + len(child)) * width].to_pybytes()
    type_ = _TYPES[width]
    found: list[Any] = [
        Vector(data=whole[(begin - start) * width : (end - start) * width], type=type_, dims=end - begin)
        for begin, end in places
    ]
    if array.null_count or child.null_count:
        there = array.is_valid().to_pylist()
        for at, (begin, end) in enumerate(places):
            if not there[at]:
                found[at] = None
            elif child.null_count and child.slice(begin - start, end - begin).null_count:
                found[at] = child.slice(begin - start, end - begin).to_pylist()
    return found

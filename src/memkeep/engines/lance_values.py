"""Arrow columns as plain values: what msgpack can hold, without loss, and the same however a table is laid out.

Timestamps, dates, times and decimals become text (ISO-8601 where it has a form for them), durations the integer of
their unit; lists become lists, structs dicts, maps lists of pairs. A vector, that is a top-level list of floats, is
read apart (`Vectors`): it becomes `<dims, u32 LE><first 16 bytes of the BLAKE3 of its little-endian elements>`.
"""

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from memkeep.records.groups import Cell, cell

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_WIDTHS = {"halffloat": 2, "float": 4, "double": 8}


class Vectors(NamedTuple):
    """The vectors of one column of a batch."""

    packed: list[Any]  # per row: 20 bytes (see above); None; or a list, when an element is null
    rows: "np.ndarray[Any, Any] | None"  # fixed size: (n, bytes a vector), uint8; else None
    valid: "np.ndarray[Any, Any] | None"  # which of `rows` are vectors; None: all


def element_bytes(type_: "pa.DataType") -> int:
    """Return the bytes an element of a vector type takes; 0 when the type is none."""
    import pyarrow as pa

    lists = pa.types.is_fixed_size_list(type_) or pa.types.is_list(type_) or pa.types.is_large_list(type_)
    return _WIDTHS.get(str(type_.value_type), 0) if lists else 0


def is_plain(type_: "pa.DataType") -> bool:
    """Say whether values of a type are JSON as they are."""
    import pyarrow as pa

    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_integer(type_)
        or pa.types.is_boolean(type_)
    )


def vectors(array: "pa.Array") -> Vectors:
    """Read a column of vectors."""
    import pyarrow as pa

    width = element_bytes(array.type)
    if pa.types.is_fixed_size_list(array.type):
        return _fixed(array, array.type.list_size, width)
    offsets = array.offsets.to_numpy()
    return Vectors([_one(array, i, offsets, width) for i in range(len(array))], None, None)


def _fixed(array: "pa.Array", dims: int, width: int) -> Vectors:
    import numpy as np

    stride = dims * width
    if not len(array) * stride:
        return Vectors([_pack(b"", width) if row.is_valid else None for row in array], None, None)
    child = array.values.slice(array.offset * dims, len(array) * dims)
    elements = np.frombuffer(child.buffers()[1], np.uint8, len(child) * width, child.offset * width)
    rows = elements.reshape(len(array), stride)
    view = memoryview(elements)  # type: ignore[arg-type]  # an array is a buffer
    head = struct.pack("<I", dims)
    packed: list[Any] = [
        head + blake3(view[at : at + stride]).digest(16) for at in range(0, len(array) * stride, stride)
    ]
    valid = None
    if array.null_count or child.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        whole = child.is_valid().to_numpy(zero_copy_only=False).reshape(len(array), dims).all(axis=1)
        for i in np.flatnonzero(~(valid & whole)).tolist():
            packed[i] = child.slice(i * dims, dims).to_pylist() if valid[i] else None
        valid = valid & whole
    return Vectors(packed, rows, valid)


def _one(array: "pa.Array", i: int, offsets: "np.ndarray[Any, Any]", width: int) -> Any:
    import numpy as np

    if not array[i].is_valid:
        return None
    child = array.values.slice(int(offsets[i]), int(offsets[i + 1] - offsets[i]))
    if child.null_count:
        return child.to_pylist()
    if not len(child):
        return _pack(b"", width)
    return _pack(np.frombuffer(child.buffers()[1], np.uint8, len(child) * width, child.offset * width).tobytes(), width)


def _pack(vector: bytes, width: int) -> bytes:
    return struct.pack("<I", len(vector) // width) + blake3(vector).digest(16)


def values(array: "pa.Array") -> list[Any]:
    """Return a column's values; `None` for nulls."""
    import pyarrow as pa

    is_ = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        return values(array.storage)
    if is_.is_dictionary(array.type):
        return values(array.dictionary_decode())
    if is_.is_nested(array.type):
        return _nested(array)
    if is_.is_temporal(array.type) or is_.is_decimal(array.type):
        return _temporal(array)
    plain = is_.is_string(array.type) or is_.is_large_string(array.type) or is_.is_binary(array.type)
    number = (is_.is_integer(array.type) or is_.is_floating(array.type)) and not array.null_count
    return array.to_numpy(zero_copy_only=False).tolist() if plain or number else array.to_pylist()  # type: ignore[no-any-return]


def _temporal(array: "pa.Array") -> list[Any]:
    import pyarrow as pa

    is_ = pa.types
    if is_.is_duration(array.type):
        return array.cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]
    if is_.is_date64(array.type):
        array = array.cast(pa.timestamp("ms"))
    elif is_.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))
    if not (is_.is_timestamp(array.type) or is_.is_date32(array.type) or is_.is_time(array.type)):
        return [None if value is None else str(value) for value in array.to_pylist()]  # decimals; intervals
    return [text and text.replace(" ", "T", 1) for text in array.cast(pa.string()).to_pylist()]


def _nested(array: "pa.Array") -> list[Any]:
    import pyarrow as pa

    is_, type_ = pa.types, array.type
    found: list[Any]
    if is_.is_struct(type_):
        names = [type_.field(i).name for i in range(type_.num_fields)]
        columns = [values(column) for column in array.flatten()]
        found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(array)
    elif is_.is_fixed_size_list(type_):
        size = type_.list_size
        flat = values(array.values.slice(array.offset * size, len(array) * size))
        found = [flat[i * size : (i + 1) * size] for i in range(len(array))]
    elif is_.is_map(type_):
        pairs = [list(pair) for pair in zip(values(array.keys), values(array.items), strict=True)]
        found = _cut(pairs, array.offsets.to_pylist())
    elif is_.is_list(type_) or is_.is_large_list(type_):
        found = _cut(values(array.values), array.offsets.to_pylist())
    else:
        found = array.to_pylist()
    if array.null_count:
        found = [value if there else None for value, there in zip(found, array.is_valid().to_pylist(), strict=True)]
    return found


def _cut(flat: list[Any], offsets: list[int]) -> list[Any]:
    return [flat[start:end] for start, end in pairwise(offsets)]


def to_cell(value: Any) -> Cell:
    """Return a value as a cell of a record group; bytes become a digest, at any depth."""
    if isinstance(value, list):
        return [to_cell(item) for item in value]
    if isinstance(value, dict):
        return {name: to_cell(item) for name, item in value.items()}
    return cell(value)


def vector_to_cell(value: Any, width: int) -> Cell:
    """Return a vector as `Vectors.packed` has it as the cell that stands for it."""
    if not isinstance(value, bytes):
        return to_cell(value)
    dims = int.from_bytes(value[:4], "little")
    return {"dims": dims, "type": f"f{8 * width}", "blake3": value[4:12].hex()}

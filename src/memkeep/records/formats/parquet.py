"""Parquet: `memories.parquet`, `relationships.parquet`, and `collections.parquet` for what is beside the memories.

A typed column for each field of a record, named as in `objects`: texts, float64, int64, lists of texts, times in
microseconds of UTC; `metadata` and `native` are JSON. Vectors of float32 and float64 are columns of lists of a fixed
size, each with a column for its model: `embedding` and `embedding_model` the main one, `vector_<name>` another; where
one name has several sizes or types, the most frequent has this name and the others theirs behind it, `embedding_768`,
`embedding_768_f64`. Vectors of other types, and of more sizes than 16 columns hold, are in `vectors`, a list of
{name, type, dims, model, data}. What a typed column can't hold (a time before the year 1 or finer than a microsecond,
letters that are no Unicode) is in `more`, JSON, whose values come before those of the columns.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from memkeep.records.formats.base import Source
from memkeep.records.formats.lines import BROKEN, files_of, fits_files, opening, records_of, why, write_sections
from memkeep.records.formats.objects import (
    RECORD_COLUMNS,
    RELATIONSHIP_COLUMNS,
    Section,
    dump,
    field_of,
    from_wire,
    load,
)
from memkeep.records.plain import from_plain, to_plain
from memkeep.records.readers.base import Read, Refused
from memkeep.records.record import TIMES, Portable, Record, Vector, VectorType

GROUP_ROWS = 8192
GROUP_BYTES = 16 << 20  # of vectors
MOST_COLUMNS = 16  # of vectors; each costs every group of rows a little
MORE = "more"
_SIZES = {"f32": 4, "f64": 8}
_JSON = ("metadata", "native")
_TEXTS = (*_JSON, MORE)
_FLOATS = ("heat", "importance", "confidence", "strength")
_MODEL = "_model"  # behind the name of the column of vectors
_REST = "vectors"
_NOTE = b"memkeep"  # the key of the schema under which the columns of vectors are explained


class Kind(NamedTuple):
    """The vectors that one column holds."""

    name: str
    type: str
    dims: int


Kinds = dict[Kind, str]
"""The columns of vectors."""


name = "parquet"
lossless = True


def losses(made: Portable) -> Iterable[str]:  # noqa: ARG001 - the contract's signature
    """Return nothing: it keeps all."""
    return ()


def write(source: Source, folder: Path) -> None:
    """Write the files; the records are read twice, since the first pass finds the sizes of the vectors."""
    seen: dict[Section, Counter[Kind]] = {"memories": Counter(), "collections": Counter()}
    for one in source.records():
        if one.vectors:
            kinds = (_kind(name, vector) for name, vector in one.vectors.items())
            seen["memories" if one.primary else "collections"].update(kind for kind in kinds if kind is not None)
    columns = {section: _columns_of(counted) for section, counted in seen.items()}
    opened = partial(_opened, columns)
    write_sections(folder, "parquet", source.records(), source.relationships(), opened)


def fits(path: Path) -> bool:
    """Say whether the names are those of this format."""
    return fits_files(path, "parquet")


def read(path: Path) -> Iterator[Read]:
    """Yield what the files hold."""
    for file, section in files_of(path, "parquet"):
        yield from _records(file, section)


def _kind(name: str, vector: Vector) -> Kind | None:
    """Return which column a vector belongs into; None when no list of numbers would give it back."""
    size = _SIZES.get(vector.type)
    if size is None or not vector.dims or len(vector.data) != size * vector.dims:
        return None
    return Kind(name, vector.type, vector.dims)


def _columns_of(counted: Counter[Kind]) -> Kinds:
    """Return a column for each kind of vectors, or for the most frequent ones."""
    found: Kinds = {}
    taken = {*RECORD_COLUMNS, _REST, MORE}
    chosen = sorted(counted, key=lambda kind: (-counted[kind], kind))[:MOST_COLUMNS]
    for kind in sorted(chosen, key=lambda kind: (kind.name, -counted[kind], kind)):
        shown = kind.name.encode("unicode_escape").decode("ascii")
        column = f"vector_{shown}" if shown else "embedding"
        if any(other.name == kind.name for other in found):
            column += f"_{kind.dims}" + ("" if kind.type == "f32" else f"_{kind.type}")
        while taken & {column, column + _MODEL}:
            column += "_"
        taken |= {column, column + _MODEL}
        found[kind] = column
    return found


def _schema(section: Section, kinds: Kinds) -> Any:
    import pyarrow as pa

    names = RELATIONSHIP_COLUMNS if section == "relationships" else RECORD_COLUMNS
    fields = [(name, _type(name)) for name in names]
    if section != "relationships":
        for kind, column in kinds.items():
            number = pa.float32() if kind.type == "f32" else pa.float64()
            fields += [(column, pa.list_(number, kind.dims)), (column + _MODEL, pa.string())]
        parts = [("name", pa.string()), ("type", pa.string()), ("dims", pa.int64()), ("model", pa.string())]
        fields.append((_REST, pa.list_(pa.struct([*parts, ("data", pa.binary())]))))
    note = dump({"version": 1, "vectors": {column: to_plain(list(kind)) for kind, column in kinds.items()}})
    return pa.schema([*fields, (MORE, pa.string())], metadata={_NOTE: note})


def _type(name: str) -> Any:
    import pyarrow as pa

    if name in _FLOATS:
        return pa.float64()
    if name == "access_count":
        return pa.int64()
    if name in TIMES:
        return pa.timestamp("us", tz="UTC")
    return pa.list_(pa.string()) if name == "tags" else pa.string()


@contextmanager
def _opened(columns: dict[Section, Kinds], path: Path, section: Section) -> Iterator[Callable[[Portable], None]]:
    import pyarrow.parquet as pq

    kinds = columns.get(section, {})
    schema = _schema(section, kinds)
    leaves = [f"{column}.list.element" for column in kinds.values()]
    words = [name for name in schema.names if name not in kinds.values() and name not in (_REST, "tags")]
    compression = dict.fromkeys((*words, "tags.list.element"), "zstd") | dict.fromkeys(leaves, "none")
    waiting: list[Portable] = []
    room = GROUP_BYTES
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=words, version="2.6") as file:

        def write(made: Portable) -> None:
            nonlocal room
            waiting.append(made)
            if isinstance(made, Record):
                room -= sum(len(one.data) for one in made.vectors.values()) + len(made.text)
            if room < 0 or len(waiting) == GROUP_ROWS:
                flush()

        def flush() -> None:
            nonlocal room
            file.write_batch(_batch(waiting, schema, kinds))
            waiting.clear()
            room = GROUP_BYTES

        yield write
        if waiting:
            flush()


def _batch(rows: Sequence[Any], schema: Any, kinds: Kinds) -> Any:
    import pyarrow as pa

    more: list[dict[str, Any]] = [{} for _ in rows]
    arrays: dict[str, Any] = {}
    if isinstance(rows[0], Record):
        for kind, column in kinds.items():
            held = [one.vectors.get(kind.name) for one in rows]
            held = [one if one is not None and _kind(kind.name, one) == kind else None for one in held]
            arrays[column] = _vectors(held, kind)
            models = [one.model if one is not None else None for one in held]
            arrays[column + _MODEL] = _array(column + _MODEL, models, pa.string(), more)
        rest = [_rest(one.vectors, kinds) for one in rows]
        arrays[_REST] = _array(_REST, rest, schema.field(_REST).type, more)
    for field in schema:
        name = field.name
        if name not in arrays and name != MORE:
            values = [getattr(one, field_of(name, rows[0].__class__)) for one in rows]
            arrays[name] = _array(name, values, field.type, more)
    arrays[MORE] = pa.array([dump(one).decode() if one else None for one in more], pa.string())
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _array(name: str, values: list[Any], type_: Any, more: list[dict[str, Any]]) -> Any:
    """Return the values as a column; what it can't hold is left out of it, and put into `more`."""
    import pyarrow as pa

    if name in _JSON:
        texts = [dump(to_plain(one)).decode() if one or name == "metadata" else None for one in values]
        return pa.array(texts, type_)
    if name in TIMES:
        values = [_moment(name, one, spare) for one, spare in zip(values, more, strict=True)]
    unfit = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError)
    try:
        return pa.array(values, type_)
    except unfit:
        kept = []
        for value, spare in zip(values, more, strict=True):
            try:
                pa.array([value], type_)
                kept.append(value)
            except unfit:
                spare[name] = to_plain(value)
                kept.append(value.encode("utf-8", "replace").decode() if isinstance(value, str) else None)
        return pa.array(kept, type_)


def _moment(name: str, text: str | None, more: dict[str, Any]) -> datetime | None:
    """Return a time; its text is in `more` when the time would not give it back."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not UTC or moment.isoformat() != text:
        more[name] = to_plain(text)
    return moment if moment is not None and moment.tzinfo is UTC else None


def _vectors(held: list[Vector | None], kind: Kind) -> Any:
    """Return the vectors of a kind as a column, of their own bytes."""
    import numpy as np
    import pyarrow as pa

    empty = bytes(kind.dims * _SIZES[kind.type])
    data = b"".join(one.data if one is not None else empty for one in held)
    type_ = pa.float32() if kind.type == "f32" else pa.float64()
    values = pa.Array.from_buffers(type_, len(held) * kind.dims, [None, pa.py_buffer(data)])
    mask = pa.array(np.array([one is None for one in held])) if None in held else None
    return pa.FixedSizeListArray.from_arrays(values, kind.dims, mask=mask)


def _rest(vectors: dict[str, Vector], kinds: Kinds) -> list[dict[str, Any]] | None:
    """Return the vectors that have no column of their own."""
    rest = [
        {"name": name, **msgspec.structs.asdict(vector)}
        for name, vector in vectors.items()
        if _kind(name, vector) not in kinds
    ]
    return rest or None


def _records(path: Path, section: Section) -> Iterator[Read]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as held:
        with opening(path, pa.ArrowException):
            file = held.enter_context(pq.ParquetFile(path))
            kinds = _explained(file.schema_arrow)
            groups = file.num_row_groups
        parse = partial(_made, section, [column + _MODEL for column in kinds])
        number = 0
        for group in range(groups):
            try:
                for batch in file.iter_batches(batch_size=1024, row_groups=[group], use_threads=False):
                    yield from records_of(path, enumerate(_rows(batch, kinds), number + 1), parse)
                    number += batch.num_rows
            except (*BROKEN, pa.ArrowException) as error:
                yield Refused(where=f"{path.name}, row group {group}", reason=why(error))


def _explained(schema: Any) -> dict[str, tuple[str, VectorType]]:
    """Return the columns of vectors with their names and types; what other programs wrote is told by its names."""
    import pyarrow as pa

    note = (schema.metadata or {}).get(_NOTE)
    if note is not None:
        said = load(note)["vectors"]
        return {column: (from_plain(kind[0]), kind[1]) for column, kind in said.items() if column in schema.names}
    types: dict[Any, VectorType] = {pa.float32(): "f32", pa.float64(): "f64"}
    found: dict[str, tuple[str, VectorType]] = {}
    for field in schema:
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        is_list = any(is_one(field.type) for is_one in lists) and field.type.value_type in types
        if is_list and field.name.startswith(("embedding", "vector_")):
            name = "" if field.name == "embedding" else field.name.removeprefix("vector_")
            found[field.name] = (name, types[field.type.value_type])
    return found


class _Row(NamedTuple):
    """What the columns say of a record: those of vectors apart."""

    cells: dict[str, Any]
    vectors: list[tuple[str, VectorType, bytes, str]]  # name, type, bytes, and the column of the model


def _rows(batch: Any, kinds: dict[str, tuple[str, VectorType]]) -> list[_Row]:
    named = dict(zip(batch.schema.names, batch.columns, strict=True))
    said = {name: column for name, column in named.items() if column.null_count < batch.num_rows}
    full = {name: _values(column) for name, column in said.items() if name not in kinds and not column.null_count}
    names = tuple(full)
    cells = zip(*full.values(), strict=True) if full else [()] * batch.num_rows
    rows = [_Row(dict(zip(names, values, strict=True)), []) for values in cells]
    for name, column in said.items():
        if name in kinds:
            for row, data in zip(rows, _data(column), strict=True):
                if data is not None:
                    row.vectors.append((*kinds[name], data, name + _MODEL))
        elif name not in full:
            for row, value in zip(rows, _values(column), strict=True):
                if value is not None:
                    row.cells[name] = value
    return rows


def _made(section: Section, models: Collection[str], row: _Row) -> Portable:
    cells = row.cells
    for name in _TEXTS:
        text = cells.get(name)
        if isinstance(text, str):
            cells[name] = load(text.encode())
    if MORE in cells:
        cells |= cells.pop(MORE)
    named = {name: from_plain(cells.pop(name)) for name in models if name in cells}
    vectors = {
        name: Vector(data=data, type=type_, dims=len(data) // _SIZES[type_], model=named.get(model))
        for name, type_, data, model in row.vectors
    }
    for one in from_plain(cells.pop(_REST, None)) or ():
        called = one.pop("name")
        vectors[called] = Vector(**one)
    return from_wire(cells, section, vectors or None)


def _values(column: Any) -> list[Any]:
    """Return the cells of a column as they are in the object of a record."""
    import pyarrow as pa

    values: list[Any]
    if pa.types.is_timestamp(column.type):
        coded = column.cast(pa.timestamp("us", tz="UTC"), safe=False).dictionary_encode()
        texts = [one.isoformat() for one in coded.dictionary.to_pylist()]
        return [None if at is None else texts[at] for at in coded.indices.to_pylist()]
    if pa.types.is_string(column.type) or (column.type == pa.float64() and not column.null_count):
        values = column.to_numpy(zero_copy_only=False).tolist()
        return values
    values = column.to_pylist()
    return values


def _data(column: Any) -> list[bytes | None]:
    """Return the vectors of a column as bytes."""
    import numpy as np
    import pyarrow.compute as pc

    numbers = np.ascontiguousarray(column.flatten().to_numpy(zero_copy_only=False))
    lengths = pc.list_value_length(column).to_pylist()
    found: list[bytes | None] = []
    at = 0
    for length in lengths:
        found.append(None if length is None else numbers[at : at + length].tobytes())
        at += length or 0
    return found

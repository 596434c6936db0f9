"""Merge rows into a live Lance table, in one commit of one new version.

What would change is found out first, against one version, and put aside in a file; `commit` makes the next version of
it with Lance's own `merge_insert`, which sees when somebody else has changed these rows meanwhile. A row that does not
fit the table's columns is named and left out.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.lance_read import load
from memkeep.engines.lance_values import element_bytes, values, vectors
from memkeep.engines.merging import (
    NAMED,
    Counts,
    FailedRow,
    Merged,
    Wanted,
    belongs,
    owner,
    plain_id,
    replaces,
    seen_later,
)
from memkeep.errors import MemkeepError, StoreError, UnsupportedError
from memkeep.model import TableMap
from memkeep.records.record import Vector
from memkeep.records.shape import Row

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 256  # rows
_BLOB = b"lance-encoding:blob"
_NUMPY = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}


class Fitted(NamedTuple):
    """Rows with the columns that the live table has too, in its types."""

    rows: "pa.RecordBatch"
    unfit: dict[int, str]  # row -> why it does not go in; its values are null then


class LanceMerge:
    """What of some rows goes into a table."""

    def __init__(self, live: Path, map_: TableMap, wanted: Wanted, aside: Path) -> None:
        """Look at the live table; `aside` is the file where what goes in waits, which `take` makes."""
        self.result = Merged()
        self._live = live
        self._map = map_
        self._wanted = wanted
        self._aside = aside
        self._table = dataset(live)
        self.schema: pa.Schema = self._table.schema
        self._place: dict[str, int] = {}
        self._taken: set[str] = set()
        self._counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        self._failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []

    def take(self, batches: "Iterable[Fitted]", left: tuple[str, ...] = ()) -> None:
        """Find out what becomes of each row. Raises `StoreError` when the live table can't be read."""
        import pyarrow as pa

        if missing := self._missing():
            self.result = Merged(left=(*left, f"{self._map.table} is left as it is: {missing}"))
            return
        with _meant(self._live, "can't be read"):
            key = self._table.to_table([self._map.id]).column(0)
            self._place = {str(one): at for at, one in enumerate(key.to_pylist())}
            with pa.OSFile(str(self._aside), "wb") as file, pa.ipc.new_file(file, self.schema) as writer:
                for batch in batches:
                    for rows in self._one(batch):
                        writer.write_table(rows)
        counts = Counts(**self._counts)
        self.result = Merged(
            tables={self._map.table: counts},
            failed=tuple(self._failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records) if self._map.primary else (),
            left=left,
            notes=seen_later(self._live, (counts,)),
        )

    def commit(self) -> None:
        """Make the next version."""
        import pyarrow as pa

        if not self._counts["inserted"] + self._counts["updated"]:
            return
        with pa.memory_map(str(self._aside)) as file, _meant(self._live, "could not be written"):
            waiting = pa.ipc.open_file(file)
            batches = (waiting.get_batch(number) for number in range(waiting.num_record_batches))
            builder = self._table.merge_insert(self._map.id).when_matched_update_all().when_not_matched_insert_all()
            builder.conflict_retries(0).execute(pa.RecordBatchReader.from_batches(self.schema, batches))

    def _missing(self) -> str:
        """Return why no row can go into the table, "" when some can."""
        if self._map.id not in self.schema.names:
            return f"the live table has no {self._map.id}"
        blobs = [field.name for field in self.schema if (field.metadata or {}).get(_BLOB) == b"true"]
        return f"rows with blobs are not merged ({', '.join(blobs)})" if blobs else ""

    def _one(self, batch: Fitted) -> "Iterator[pa.Table]":
        """Yield what goes in of a batch."""
        import pyarrow as pa

        rows, names = batch.rows, batch.rows.column(self._map.id).to_pylist()
        chosen = [at for at, name in enumerate(names) if self._is_chosen(rows, at, name, batch.unfit)]
        there = [(at, self._place[names[at]]) for at in chosen if names[at] in self._place]
        before = self._table.take([place for _, place in there])
        ours = rows.take(pa.array([at for at, _ in there], pa.int64()))
        updated = self._differ(ours, before.select(rows.schema.names))
        new = [at for at in chosen if names[at] not in self._place]
        self._counts["inserted"] += len(new)
        if new:
            yield self._whole(rows.take(pa.array(new)), None)
        if updated:
            at = pa.array(updated)
            yield self._whole(ours.take(at), before.take(at))

    def _is_chosen(self, rows: "pa.RecordBatch", at: int, name: Any, unfit: dict[int, str]) -> bool:
        """Say whether a row is wanted and can go in; one that can't is noted."""
        users, user = self._wanted.users, owner(self._map)
        here = {
            column: rows.column(column)[at].as_py()
            for column in (user, *self._map.links)
            if column in rows.schema.names
        }
        if users is not None and (str(here[user]) not in users if user in here else not self._map.links):
            return False
        named = [str(here[column]) for column in self._map.links if here.get(column) is not None]
        if self._map.links and not belongs(named, self._wanted.records):
            return False
        if name is not None:
            self._records.append(plain_id(name))
        why = unfit.get(at) or ("it has no id" if name is None else "")
        why = why or ("another row that goes in has the same id" if str(name) in self._taken else "")
        why = why or ("" if name in self._place else self._required(rows))
        if why:
            self._failed.append(FailedRow(table=self._map.table, id=str(name), reason=why))
        self._taken.add(str(name))
        return not why

    def _required(self, rows: "pa.RecordBatch") -> str:
        """Return why rows like these can't be new in the table, "" when they can."""
        lost = [field.name for field in self.schema if not field.nullable and field.name not in rows.schema.names]
        return f"it has no {', '.join(lost)}" if lost else ""

    def _differ(self, ours: "pa.RecordBatch", before: "pa.Table") -> list[int]:
        """Return which of our rows replace those before."""
        found: list[int] = []
        if not ours.num_rows:
            return found
        for at, (mine, theirs) in enumerate(zip(_packed(ours), _packed(before), strict=True)):
            if mine == theirs:
                self._counts["same"] += 1
                continue
            name = ours.column(self._map.id)[at].as_py()
            if len(self._conflicts) < NAMED:
                self._conflicts.append(f"{self._map.table}:{name}")
            replace = replaces(self._wanted, self._map, self._times(ours, at), self._times(before, at))
            self._counts["updated" if replace else "skipped"] += 1
            if replace:
                found.append(at)
        return found

    def _times(self, rows: Any, at: int) -> Row:
        said = (self._map.fields.get(field) for field in ("updated_at", "created_at"))
        columns = [one for one in said if one is not None and one in rows.schema.names]
        return {one: values(_whole_column(rows, one).slice(at, 1))[0] for one in columns}

    def _whole(self, rows: "pa.RecordBatch", before: "pa.Table | None") -> "pa.Table":
        """Return rows with all columns of the live table: what they lack is what it was, else null."""
        import pyarrow as pa

        columns = [
            rows.column(field.name)
            if field.name in rows.schema.names
            else pa.nulls(rows.num_rows, field.type)
            if before is None
            else before.column(field.name)
            for field in self.schema
        ]
        return pa.table(columns, schema=self.schema)


def dataset(folder: Path) -> Any:
    """Open a table with the library. Raises `UnsupportedError` without it, `StoreError` when it is no table."""
    library = load()
    if library is None:
        raise UnsupportedError(
            "rows can't be merged into a LanceDB table without the package pylance", hint="pip install 'memkeep[lance]'"
        )
    with _meant(folder, "can't be opened"):
        return library.dataset(str(folder))


def stored(folder: Path, live: "pa.Schema") -> tuple[Iterator[Fitted], tuple[str, ...]]:
    """Return the rows of an image as they fit a live table, and which columns it does not have."""
    table = dataset(folder)
    names = [name for name in table.schema.names if name in live.names]
    lost = [name for name in table.schema.names if name not in live.names]
    left = (f"{folder.name.removesuffix('.lance')} has no column {', '.join(lost)} any more: left out",) if lost else ()

    def batches() -> Iterator[Fitted]:
        scanner = table.scanner(columns=names, batch_size=_BATCH, batch_readahead=1, fragment_readahead=1)
        found = scanner.to_batches()
        while True:
            with _meant(folder, "can't be read"):
                batch = next(found, None)
            if batch is None:
                return
            if batch.num_rows:
                yield _fit(
                    batch.num_rows,
                    names,
                    live,
                    lambda name, at, rows=batch: _cast(rows.column(name), at, live.field(name)),
                )

    return batches(), left


def given(batches: Iterable[list[Row]], live: "pa.Schema") -> Iterator[Fitted]:
    """Yield rows as they fit a live table, those of the same columns together."""
    for batch in batches:
        for _, some in groupby(batch, key=lambda row: row.keys()):
            yield _given(list(some), live)


def _given(rows: list[Row], live: "pa.Schema") -> Fitted:
    names = [field.name for field in live if field.name in rows[0]]
    lost = [name for name in rows[0] if name not in live.names]

    def column(name: str, at: slice) -> "pa.Array":
        return _made([row[name] for row in rows[at]], live.field(name).type)

    fitted = _fit(len(rows), names, live, column)
    if lost:
        fitted.unfit.update(dict.fromkeys(range(len(rows)), f"the table has no column {', '.join(lost)}"))
    return fitted


def _fit(count: int, names: list[str], live: "pa.Schema", column: Any) -> Fitted:
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


def _cast(array: "pa.Array", at: slice, field: "pa.Field") -> "pa.Array":
    import pyarrow as pa

    array = array[at]
    if isinstance(array.type, pa.FixedSizeListType) and isinstance(field.type, pa.FixedSizeListType):
        mine, theirs = array.type.list_size, field.type.list_size
        if mine != theirs and array.null_count < len(array):
            raise ValueError(f"it has {mine} dimensions, the table takes {theirs}")
        if mine != theirs:
            return pa.nulls(len(array), field.type)
    return array if array.type == field.type else array.cast(field.type)


def _made(found: list[Any], type_: "pa.DataType") -> "pa.Array":
    """Return values, as `values` gives them and vectors as `Vector`, as an array. Raises as pyarrow does."""
    import pyarrow as pa

    if element_bytes(type_):
        return pa.array([_elements(one, type_) if isinstance(one, Vector) else one for one in found], type_)
    is_ = pa.types
    timed = is_.is_date(type_) or is_.is_time(type_) or is_.is_timestamp(type_) or is_.is_decimal(type_)
    if timed and all(one is None or isinstance(one, str) for one in found):
        return pa.array(found, pa.string()).cast(type_)
    if is_.is_duration(type_) and all(one is None or isinstance(one, int) for one in found):
        return pa.array(found, pa.int64()).cast(type_)
    return pa.array(found, type_)


def _elements(vector: Vector, type_: "pa.DataType") -> Any:
    import numpy as np
    import pyarrow as pa

    if vector.type not in _NUMPY:
        raise ValueError(f"it is a {vector.type} vector, the table takes plain ones")
    numbers = np.frombuffer(vector.data, _NUMPY[vector.type])
    if isinstance(type_, pa.FixedSizeListType) and len(numbers) != type_.list_size:
        raise ValueError(f"it has {len(numbers)} dimensions, the table takes {type_.list_size}")
    return numbers.astype(type_.value_type.to_pandas_dtype())


def _packed(rows: Any) -> list[bytes]:
    """Return each row as bytes that are equal for equal rows."""
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    columns = []
    for name in rows.schema.names:
        array = _whole_column(rows, name)
        columns.append(vectors(array).packed if element_bytes(array.type) else values(array))
    return [encode(row) for row in zip(*columns, strict=True)]


def _whole_column(rows: Any, name: str) -> "pa.Array":
    import pyarrow as pa

    column = rows.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


@contextmanager
def _meant(folder: Path, what: str) -> Iterator[None]:
    """Say what the library's errors mean; it raises every kind, and Rust's panics are no `Exception`."""
    try:
        yield
    except MemkeepError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise StoreError(f"the table {folder} {what}: {said}", hint="stop the agent and run this again") from error

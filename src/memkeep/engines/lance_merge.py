"""Merge rows into a live Lance table, in one commit of one new version.

What would change is found out first, against one version, and put aside, the most of it in a file; `commit` makes the
next version of it with Lance's own `merge_insert`, which sees when somebody else has changed these rows meanwhile (not
that somebody has put in the same ones; that is looked at before). A row that does not fit the table's columns is named
and left out.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.engines.lance_given import Fitted, fit
from memkeep.engines.lance_read import load
from memkeep.engines.lance_values import element_bytes, values, vectors
from memkeep.engines.merging import (
    NAMED,
    Counts,
    FailedRow,
    Merged,
    Wanted,
    is_chosen,
    owner,
    plain_id,
    replaces,
    seen_later,
)
from memkeep.errors import MemkeepError, StoreError, UnsupportedError
from memkeep.model import TableMap
from memkeep.records.shape import Row

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 256  # rows
_HELD = 32 << 20  # bytes of rows that wait in memory; what is more waits in a file
_BLOB = b"lance-encoding:blob"


class LanceMerge:
    """What of some rows goes into a table."""

    def __init__(self, live: Path, map_: TableMap, wanted: Wanted, aside: Path) -> None:
        """Look at the live table; `aside` is the file where what goes in waits, when it is much."""
        self.result = Merged()
        self._live = live
        self._map = map_
        self._wanted = wanted
        self._aside = aside
        self._held: list[pa.Table] = []
        self._table = dataset(live)
        self.schema: pa.Schema = self._table.schema
        self._place: dict[Any, int] = {}
        self._taken: set[Any] = set()
        self._counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        self._failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []

    def has(self, name: Any) -> bool:
        """Say whether the live table has a row of this id; of those that are given to `take`, when they are drawn."""
        return name.__hash__ is not None and name in self._place

    def take(self, batches: "Iterable[Fitted]", left: Collection[str] = ()) -> None:
        """Find out what becomes of each row. Raises `StoreError` when the table can't be read, or the disk is full."""
        import pyarrow as pa

        if missing := self._missing():
            self.result = Merged(left=(*left, f"{self._map.table} is left as it is: {missing}"))
            return
        with meant(self._live, "can't be read"):
            key = self._table.to_table([self._map.id]).column(0)
            self._place = {one: at for at, one in enumerate(key.to_pylist())}
        try:
            with ExitStack() as stack:
                room, writer = _HELD, None
                for rows in (rows for batch in batches for rows in self._one(batch)):
                    room -= rows.nbytes
                    if room >= 0:
                        self._held.append(rows)
                        continue
                    if writer is None:
                        file = stack.enter_context(pa.OSFile(str(self._aside), "wb"))
                        writer = stack.enter_context(pa.ipc.new_file(file, self.schema))
                    writer.write_table(rows)
        except OSError as error:
            raise StoreError(
                f"the rows could not be read or put aside in {self._aside}: {error}", hint="df -h"
            ) from error
        counts = Counts(**self._counts)
        self.result = Merged(
            tables={self._map.table: counts},
            failed=tuple(self._failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records) if self._map.primary else (),
            left=tuple(left),
            notes=seen_later(self._live, (counts,)),
        )

    def commit(self) -> None:
        """Make the next version."""
        import pyarrow as pa

        if not self._counts["inserted"] + self._counts["updated"]:
            return
        with meant(self._live, "could not be written"):
            reader = pa.RecordBatchReader.from_batches(self.schema, self._waiting())
            newest = self._newest()
            if not self._counts["updated"]:
                newest.insert(reader)  # as a merge does, but without looking at every row that is there
                return
            builder = self._table.merge_insert(self._map.id).when_matched_update_all().when_not_matched_insert_all()
            builder.conflict_retries(0).execute(reader)

    def _waiting(self) -> "Iterator[pa.RecordBatch]":
        """Yield what goes in, once."""
        import pyarrow as pa

        while self._held:
            yield from self._held.pop(0).to_batches()
        if self._aside.exists():
            with pa.OSFile(str(self._aside), "rb") as file:  # not mapped: its pages would count as memory
                waiting = pa.ipc.open_file(file)
                yield from map(waiting.get_batch, range(waiting.num_record_batches))

    def _newest(self) -> Any:
        """Return the table as it is now; `StoreError` when another has put in a row that was to be new."""
        if self._table.latest_version == self._table.version:
            return self._table
        newest = dataset(self._live)
        there = newest.to_table([self._map.id]).column(0).to_pylist()
        if twice := (self._taken - self._place.keys()).intersection(there):
            message = f"{len(twice):,} rows that were to be new in {self._live} are there by now, such as {min(twice)}"
            raise StoreError(message, hint="run this again")
        return newest

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
        chosen = self._chosen(rows, names, batch.unfit)
        there = [(at, self._place[names[at]]) for at in chosen if names[at] in self._place]
        new = [at for at in chosen if names[at] not in self._place]
        self._counts["inserted"] += len(new)
        if new:
            yield self._whole(rows if len(new) == rows.num_rows else rows.take(pa.array(new)), None)
        if there:
            with meant(self._live, "can't be read"):
                before = self._table.take([place for _, place in there])
            ours = rows.take(pa.array([at for at, _ in there], pa.int64()))
            if updated := self._differ(ours, before.select(rows.schema.names)):
                at = pa.array(updated)
                yield self._whole(ours.take(at), before.take(at))

    def _chosen(self, rows: "pa.RecordBatch", names: list[Any], unfit: dict[int, str]) -> list[int]:
        """Return which rows are wanted and can go in; those that can't are noted."""
        lacks, found = self._required(rows), []
        for at in self._asked(rows):
            name = names[at]
            why = unfit.get(at) or ("it has no id" if name is None else "")
            why = why or ("another row that goes in has the same id" if name in self._taken else "")
            why = why or (lacks if name not in self._place else "")
            if name is not None:
                self._records.append(plain_id(name))
                self._taken.add(name)
            if why:
                self._failed.append(FailedRow(table=self._map.table, id=str(name), reason=why))
            else:
                found.append(at)
        return found

    def _asked(self, rows: "pa.RecordBatch") -> Iterable[int]:
        """Return which rows are of the users that are asked for, and of their records."""
        if self._wanted.users is None and (self._wanted.records is None or not self._map.links):
            return range(rows.num_rows)
        said = {*self._map.links, owner(self._map)}
        cells = {name: rows.column(name).to_pylist() for name in rows.schema.names if name in said}
        each = ({name: cell[at] for name, cell in cells.items()} for at in range(rows.num_rows))
        return [at for at, row in enumerate(each) if is_chosen(self._map, row, self._wanted)]

    def _required(self, rows: "pa.RecordBatch") -> str:
        """Return why rows like these can't be new in the table, "" when they can."""
        lost = [field.name for field in self.schema if not field.nullable and field.name not in rows.schema.names]
        return f"it has no {', '.join(lost)}" if lost else ""

    def _differ(self, ours: "pa.RecordBatch", before: "pa.Table") -> list[int]:
        """Return which of our rows replace those before."""
        found: list[int] = []
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
    with meant(folder, "can't be opened"):
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
            with meant(folder, "can't be read"):
                batch = next(found, None)
            if batch is None:
                return
            if batch.num_rows:
                yield fit(batch.num_rows, names, live, _caster(batch, live))

    return batches(), left


def _caster(rows: "pa.RecordBatch", live: "pa.Schema") -> "Callable[[str, slice], pa.Array]":
    return lambda name, at: _cast(rows.column(name), at, live.field(name))


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
def meant(folder: Path, what: str) -> Iterator[None]:
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

"""Put vectors where they belong: into the rows whose text is still the one that they were made of, all or none.

The rows are read again inside the merge, after it has begun: where a database lets only one write (SQLite), or refuses
what was changed meanwhile (Lance), a vector can never go to another text than its own. In a server there is an instant
between the reading and the writing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from memkeep.embedding.journal import Journal
from memkeep.engines.catalog import engine
from memkeep.engines.merging import Merging, Wanted
from memkeep.engines.rows import RowEngine, Rows
from memkeep.events import Events
from memkeep.model import Part, Store, TableMap
from memkeep.ops.embed_texts import Opening, Place, Text, key_of, new_row, opened, usable
from memkeep.ops.merged import commit_all
from memkeep.ops.scratch import scratch
from memkeep.records.record import Record, Vector
from memkeep.records.shape import Row
from memkeep.records.spool import Spool
from memkeep.systems import embedders

_BATCH = 256  # rows
_ID = "id"


class Unwritten(NamedTuple):
    """A row that has no new vector, and why."""

    place: str
    id: str
    reason: str


class Written(NamedTuple):
    """What became of the rows."""

    rows: int
    refused: tuple[Unwritten, ...]  # by the provider or the database
    changed: tuple[Unwritten, ...]  # since their text was read


class Writing:
    """All that goes into one store."""

    def __init__(self, store: Store, journal: Journal, identity: str, refused: Mapping[bytes, str]) -> None:
        """`journal` has the vectors, by what `identity` and a text give; `refused` why a text has none."""
        self._store = store
        self._journal = journal
        self._known = journal.keys()
        self._identity = identity
        self._why = refused
        self._refused: list[Unwritten] = []
        self._changed: list[Unwritten] = []

    def write(
        self,
        places: Sequence[Place],
        *,
        every: bool,
        provider: str,
        model: str,
        now: int,
        kept: str | None,
        events: Events,
    ) -> Written:
        """Write the vectors, and the model's name where the product keeps it; `kept` is the snapshot of before.

        Raises `StoreError`; all or nothing.
        """
        with scratch() as folder, ExitStack() as stack:
            asked: dict[str, list[tuple[TableMap, Rows]]] = {}
            for place in places:
                rows = self._vectors(place, folder, stack, every=every)
                asked.setdefault(place.part.name, []).append((place.map, rows))
            for part, map_, rows in self._models(folder, stack, provider=provider, model=model, now=now, every=every):
                asked.setdefault(part.name, []).append((map_, rows))
            done: list[tuple[Part, Merging]] = []
            for part in self._store.parts:
                if part.name in asked:
                    events.step(f"writing {part.name}")
                    done.append((part, stack.enter_context(_merge(part, asked[part.name]))))
            commit_all(done, self._store, kept)
        return self._written(done, {(place.part.name, place.map.table) for place in places})

    def _written(self, done: Sequence[tuple[Part, Merging]], tables: set[tuple[str, str]]) -> Written:
        count = 0
        for part, one in done:
            for table, counts in one.result.tables.items():
                if (part.name, table) in tables:
                    count += counts.inserted + counts.updated + counts.same
            self._refused += [Unwritten(part.name, row.id, row.reason) for row in one.result.failed]
            self._refused += [Unwritten(part.name, "", sentence) for sentence in one.result.left]
        return Written(count, tuple(self._refused), tuple(self._changed))

    def _vectors(self, place: Place, folder: Path, stack: ExitStack, *, every: bool) -> Rows:
        """Return the rows of a place with their vectors."""
        there = _engine(place.part).columns(place.part, place.map.table)
        columns = there.names if there is not None else ()

        def read(opening: Opening) -> Iterator[Record]:
            for one in opening.texts(place):
                if (every or not usable(one.vector)) and one.text.strip() and self._has_vector(place, one):
                    yield one.record or Record(id="", text=one.text, native={_ID: one.id})

        def made(some: Sequence[Record]) -> list[Row]:
            found = self._journal.find([key_of(self._identity, one.text) for one in some])
            vectors = [Vector.f32(row.tobytes()) for row in found]
            return [
                new_row(self._store, place, one, vector, columns)
                if one.id
                else {place.map.id: one.native[_ID], place.vector: vector}
                for one, vector in zip(some, vectors, strict=True)
            ]

        return self._rows([place], read, made, folder, stack)

    def _has_vector(self, place: Place, one: Text) -> bool:
        """Say whether there is a vector for a row; take note when there is none."""
        key = key_of(self._identity, one.text)
        if key in self._known:
            return True
        if key in self._why:
            self._refused.append(Unwritten(place.name, str(one.id), self._why[key]))
        else:
            self._changed.append(Unwritten(place.name, str(one.id), "its text was written after the texts were read"))
        return False

    def _models(
        self, folder: Path, stack: ExitStack, *, provider: str, model: str, now: int, every: bool
    ) -> Iterator[tuple[Part, TableMap, Rows]]:
        """Yield what says of which model the vectors are."""
        columns = embedders.model_columns(self._store.system)
        rows = embedders.model_rows(self._store.system, provider, model, now) if every else ()
        for part in self._store.parts:
            for map_ in part.maps:
                for column in columns:
                    if column.collection == map_.collection:
                        yield part, map_, self._model_column(part, map_, column.column, model, folder, stack)
                for one in rows:
                    if one.beside == map_.collection:
                        yield part, one.map, _just(one.row)

    def _model_column(
        self, part: Part, map_: TableMap, column: str, model: str, folder: Path, stack: ExitStack
    ) -> Rows:
        text = map_.fields["text"]

        def read(opening: Opening) -> Iterator[Record]:
            for row in opening.rows(part, map_):
                said = row.get(text)
                if isinstance(said, str) and key_of(self._identity, said) in self._known:
                    yield Record(id="", text="", native={_ID: row[map_.id]})

        def made(some: Sequence[Record]) -> list[Row]:
            return [{map_.id: one.native[_ID], column: model} for one in some]

        return self._rows([], read, made, folder, stack, [part])

    def _rows(
        self,
        places: Sequence[Place],
        read: Callable[[Opening], Iterator[Record]],
        made: Callable[[Sequence[Record]], list[Row]],
        folder: Path,
        stack: ExitStack,
        parts: Sequence[Part] = (),
    ) -> Rows:
        """Return rows that are read when they are first asked for, and let go of the moment before they are given.

        Who holds a moment of an SQLite database may keep another from writing more than its cache holds.
        """
        spool: Spool | None = None

        def rows() -> Iterator[list[Row]]:
            nonlocal spool
            if spool is None:
                spool = Spool(folder)
                stack.callback(spool.close)
                with opened(self._store, places, parts) as opening:
                    for number, one in enumerate(read(opening)):
                        spool.add(f"{number:012d}", one)
            waiting = iter(spool)
            while some := [one for one in islice(waiting, _BATCH) if isinstance(one, Record)]:
                yield made(some)

        return rows


def _just(row: Row) -> Rows:
    return lambda: iter([[row]])


def _merge(part: Part, asked: Sequence[tuple[TableMap, Rows]]) -> AbstractContextManager[Merging]:
    live = msgspec.structs.replace(part, maps=tuple(map_ for map_, _ in asked))
    return _engine(part).merge_rows(live, {map_.table: rows for map_, rows in asked}, Wanted(conflict="update"))


def _engine(part: Part) -> RowEngine:
    made = engine(part.engine)
    assert isinstance(made, RowEngine)  # noqa: S101 - `places` has looked
    return made

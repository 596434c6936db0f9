"""The records of a snapshot or of a live store, in portable form and in order, with what joins them.

All rows are read once, at one moment, and wait on disk: a product keeps a memory's text in one place and its vector in
another, and rows in an order that changes from day to day.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from memkeep.clock import now
from memkeep.config import Config
from memkeep.engines.base import Opened
from memkeep.engines.catalog import engine
from memkeep.engines.merging import plain_id
from memkeep.engines.rows import RowEngine, RowReader
from memkeep.errors import StoreError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Part, Severity, Snapshot, Store, TableMap, Value, is_url
from memkeep.ops import sides
from memkeep.ops.discover import discover
from memkeep.ops.freeze import UNREAD, freeze
from memkeep.ops.materialise import materialise
from memkeep.ops.scratch import scratch
from memkeep.records import moments
from memkeep.records.formats.base import About
from memkeep.records.groups import id_text
from memkeep.records.record import Record, Relationship
from memkeep.records.shape import WHOLE, Mapper, Row, carried_joins, with_models
from memkeep.records.spool import Names, Shelf, Spool
from memkeep.records.wire import from_json, pack_vectors, unpack_vectors
from memkeep.systems import shapes
from memkeep.systems.base import Refine
from memkeep.vault.vault import Vault


class Filters(Value, kw_only=True):
    """Which records are wanted."""

    user: str | None = None
    scope: str | None = None
    since: str | None = None  # made or changed at or after this time
    vectors: bool = True
    carried: bool = True  # records of another product as they were there; else as they are here, with the ids of here


ALL = Filters()
_ORDER = ("carried", "vectors", "record", "relationship")


class _Table(NamedTuple):
    """One collection of an opened part."""

    opened: Opened
    mapper: Mapper


class RecordSource:
    """Records that wait on disk; a `records.formats.base.Source`."""

    def __init__(self, about: About, folder: Path, filters: Filters) -> None:
        """Begin with nothing."""
        self._since = None if filters.since is None else _since(filters.since)
        self._about = about
        self._filters = filters
        self._records = Spool(folder)
        self._relationships = Spool(folder)
        self._shelves: dict[str, Shelf] = {}  # vectors, by the collection that they belong to
        self._carried: dict[str, Shelf] = {}  # what other products' records had more, by the collection
        self._renamed: dict[str, str] = {}  # ids here -> ids where the records are from
        self._folder = folder
        self._names = Names()
        self._refused: list[StoreError] = []  # why memories could not be read
        self.strangers: list[tuple[str, str]] = []  # vectors of no record: their own collection and id
        self._model = _model(about.fingerprint)

    @property
    def about(self) -> About:
        """Where the records are from, and how many there are."""
        return self._about

    def records(self) -> Iterator[Record]:
        """Yield the records, memories first, each collection in the order of its ids."""
        for made in self._records:
            assert isinstance(made, Record)  # noqa: S101 - nothing else was put in
            yield self._whole(made)

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them, in the order of source, target and type."""
        for made in self._relationships:
            assert isinstance(made, Relationship)  # noqa: S101 - nothing else was put in
            ends = self._renamed.get(plain_id(made.source)), self._renamed.get(plain_id(made.target))
            source, target = ends[0] or made.source, ends[1] or made.target
            yield made if ends == (None, None) else msgspec.structs.replace(made, source=source, target=target)

    def take(self, tables: Sequence[_Table], refine: Refine, omitted: Sequence[str]) -> None:
        """Read the rows of all collections, those that others need first; raise when none of the memories could be."""
        left = list(omitted)
        for table in sorted(tables, key=lambda one: _ORDER.index(one.mapper.shape.kind)):
            self._take_table(table, refine)
        if self._refused and not len(self._records):
            raise self._refused[0]
        for of, shelf in self._shelves.items():
            filters = self._filters
            if filters == msgspec.structs.replace(ALL, vectors=filters.vectors, carried=filters.carried) and (
                strangers := shelf.strangers(self._names)
            ):
                left.append(f"{strangers:,} vectors belong to none of the {of}")
                self.strangers += [one for table in tables if table.mapper.shape.of == of for one in self._alone(table)]
        self._about = msgspec.structs.replace(
            self._about, records=len(self._records), relationships=len(self._relationships), omitted=tuple(left)
        )

    def unread(self, findings: Sequence[Finding]) -> None:
        """Say which parts could not be read."""
        self._about = msgspec.structs.replace(self._about, unread=(*self._about.unread, *findings))

    def close(self) -> None:
        """Let go of what waits."""
        self._records.close()
        self._relationships.close()
        for shelf in (*self._shelves.values(), *self._carried.values()):
            shelf.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _alone(self, table: _Table) -> Iterator[tuple[str, str]]:
        """Yield the collection and the ids of vectors whose record is none of those that were read."""
        if table.mapper.shape.kind == "vectors":
            for batch in _rows(table):
                ids = [table.mapper.record(row).id for row in batch]
                alone = [one for one in ids if one is not None and plain_id(one) not in self._names]
                yield from ((table.mapper.map.collection, one) for one in alone)

    def _take_table(self, table: _Table, refine: Refine) -> None:
        """Read the rows of a collection, up to what can't be read."""
        try:
            for batch in _rows(table):
                for row in batch:
                    self._take_row(table.mapper, row, refine)
        except StoreError as error:
            name = table.mapper.map.collection
            if table.mapper.map.primary:
                self._refused.append(error)
            message = f"not all of {name} could be read: {error.message}"
            self.unread([Finding(code=UNREAD, severity=Severity.ERROR, message=message, mend=error.hint)])

    def _take_row(self, mapper: Mapper, row: Row, refine: Refine) -> None:
        if mapper.shape.kind == "carried":
            self._take_carried(mapper.shape.of, row)
            return
        made = mapper.record(row)
        if isinstance(made, Relationship):
            if self._is_joined(made):
                self._relationships.add(_joined_key(made), made)
        elif mapper.shape.kind == "vectors":
            if self._filters.vectors and made.vectors:
                self._shelf(self._shelves, mapper.shape.of).add(plain_id(made.id), pack_vectors(made.vectors))
        else:
            self._take_record(mapper, row, made, refine)

    def _take_record(self, mapper: Mapper, row: Row, made: Record, refine: Refine) -> None:
        said = mapper.said(row)
        here = id_text(row.get(mapper.map.id))
        carried = self._carried.get(made.collection) if self._filters.carried else None
        if carried is not None and (data := carried.find(here)):
            made, said = _restored(mapper, made, data)
        made = refine(made) if made.system == mapper.system else made
        if (shelf := self._shelves.get(mapper.map.collection)) is not None:
            there = with_models(unpack_vectors(shelf.find(plain_id(here))), said)
            made = msgspec.structs.replace(made, vectors=there | made.vectors)
        self._keep(made, here, carried_joins(said))

    def _keep(self, made: Record, here: str, joins: list[Relationship]) -> None:
        """Keep a record if it is wanted; `here` is the id that it has in this product."""
        if not self._is_wanted(made):
            return
        self._names.add(plain_id(here))
        if made.id != here:
            self._renamed[plain_id(here)] = made.id
        for joined in joins:
            self._relationships.add(_joined_key(joined), joined)
        if not self._filters.vectors:
            made = msgspec.structs.replace(made, vectors={})
        self._records.add(f"{'' if made.primary else '~'}\0{made.collection}\0{made.id}", made)

    def _take_carried(self, of: str, row: Row) -> None:
        data = str(row.get("record")).encode()
        if f'"{WHOLE}"'.encode() in data:
            with contextlib.suppress(ValueError, RecursionError, KeyError):
                said = json.loads(data)
                made = from_json(said[WHOLE].encode(), Record)
                assert isinstance(made, Record)  # noqa: S101 - as asked for
                self._keep(made, made.id, carried_joins(said))
                return
        self._shelf(self._carried, of).add(str(row.get("id")), data)

    def _shelf(self, shelves: dict[str, Shelf], of: str) -> Shelf:
        if of not in shelves:
            shelves[of] = Shelf(self._folder)
        return shelves[of]

    def _is_joined(self, made: Relationship) -> bool:
        """Say whether a relationship goes along: when nothing is chosen, or one of its ends is."""
        if self._filters.user is None and self._filters.scope is None and self._since is None:
            return True
        return plain_id(made.source) in self._names or plain_id(made.target) in self._names

    def _is_wanted(self, made: Record) -> bool:
        filters = self._filters
        if filters.user is not None and filters.user != made.user:
            return False
        if filters.scope is not None and filters.scope != made.scope:
            return False
        if self._since is None:
            return True
        times = [moments.order(text) for text in (made.updated_at, made.created_at) if text is not None]
        return any(time is not None and time >= self._since for time in times)

    def _whole(self, made: Record) -> Record:
        """Return a record whose vectors name their model, where the store says it."""
        if self._model is None or not made.vectors:
            return made
        vectors = {
            name: msgspec.structs.replace(one, model=self._model) if one.model is None and one.type != "sparse" else one
            for name, one in sorted(made.vectors.items())
        }
        return msgspec.structs.replace(made, vectors=vectors)


@contextmanager
def of(
    vault: Vault | None,
    name: str,
    *,
    config: Config | None = None,
    filters: Filters = ALL,
    events: Events = SILENT,
) -> Iterator[RecordSource]:
    """Open the records of a snapshot (its name, `latest`) or of a live store (path, URL, name in the settings).

    Raises `StoreError`, `DamagedError`, and `UsageError` when a path holds several stores.
    """
    if is_live(name, config):
        with of_store(store_at(name, config), filters=filters, events=events) as source:
            yield source
        return
    if vault is None:
        raise UsageError(f"{name} is no path: a snapshot needs its vault", hint="memkeep snapshots --vault VAULT")
    with of_snapshot(vault, vault.resolve(name), filters=filters, events=events) as source:
        yield source


def is_live(name: str, config: Config | None = None) -> bool:
    """Say whether a name is that of a live store."""
    return sides.is_live(name, config.stores if config is not None else {}) or is_url(name)


def store_at(name: str, config: Config | None = None) -> Store:
    """Return the one store that a path, a URL or a name in the settings stands for."""
    return sides.one_store(discover([name], config), name, None)


@contextmanager
def of_store(store: Store, *, filters: Filters = ALL, events: Events = SILENT) -> Iterator[RecordSource]:
    """Open the records of a live store at this moment; it is only read."""
    parts = [part for part in store.parts if part.maps]
    about = About(
        system=store.system,
        path=store.path,
        taken=now().isoformat(),
        fingerprint=store.fingerprint,
        filters=_said(filters),
    )
    with scratch() as folder:
        waiting = folder / "records"
        waiting.mkdir()
        with RecordSource(about, waiting, filters) as source:
            events.step(f"reading {store.path}")
            with freeze(store, parts, folder) as moment:
                left = [f"{one.part}: {one.reason}" for one in moment.omitted]
                source.unread([one for one in moment.findings if one.code == UNREAD])
                _read(source, store.system, [(held.part, held.opened) for held in moment.held], left)
            yield source


@contextmanager
def of_snapshot(
    vault: Vault, snapshot: Snapshot, *, filters: Filters = ALL, events: Events = SILENT
) -> Iterator[RecordSource]:
    """Open the records of a snapshot."""
    about = About(
        system=snapshot.system,
        path=snapshot.path,
        taken=snapshot.created,
        snapshot=snapshot.id,
        fingerprint=snapshot.fingerprint,
        filters=_said(filters),
    )
    images = [image for part in snapshot.parts if (image := vault.image(part)).part.maps]
    with scratch() as folder, ExitStack() as stack:
        waiting, root = folder / "records", folder / "image"
        waiting.mkdir()
        root.mkdir()
        source = stack.enter_context(RecordSource(about, waiting, filters))
        source.unread([one for one in snapshot.findings if one.code == UNREAD])
        with ExitStack() as parts:
            events.step(f"reading {snapshot.id[:8]}")
            materialise(vault, images, root, events, durable=False)
            opened = [
                (
                    msgspec.structs.replace(image.part, path=str(root / image.part.name)),
                    parts.enter_context(engine(image.part.engine).open(image.part, root)),
                )
                for image in images
            ]
            _read(source, snapshot.system, opened, [f"{one.part}: {one.reason}" for one in snapshot.omitted])
        yield source


def _read(source: RecordSource, system: str, parts: Sequence[tuple[Part, Opened]], omitted: list[str]) -> None:
    tables = [_Table(opened, _mapper(system, part, map_)) for part, opened in parts for map_ in part.maps]
    wanted = shapes.lookups(system)
    known: dict[str, list[Row]] = {}
    for table in tables:
        if table.mapper.map.collection in wanted:
            known[table.mapper.map.collection] = [row for batch in _rows(table) for row in batch]
    source.take(tables, shapes.refine(system, known), omitted)


def known(store: Store) -> dict[str, list[Row]]:
    """Return the rows of the collections of a live store that tell something of its records: users, categories."""
    wanted = shapes.lookups(store.system)
    parts = [part for part in store.parts if any(map_.collection in wanted for map_ in part.maps)]
    if not parts:
        return {}
    with scratch() as folder, freeze(store, parts, folder) as moment:
        return {
            map_.collection: [
                row for batch in _rows(_Table(held.opened, shapes.mapper(store.system, map_))) for row in batch
            ]
            for held in moment.held
            for map_ in held.part.maps
            if map_.collection in wanted
        }


def _mapper(system: str, part: Part, map_: TableMap) -> Mapper:
    made = shapes.mapper(system, map_)
    if part.engine == "sqlite" and map_.primary:  # of what lies beside, a default is as good as NULL
        asked = engine(part.engine)
        columns = asked.columns(part, map_.table) if isinstance(asked, RowEngine) else None
        made.filled = columns.filled if columns is not None else ()
    return made


def _rows(table: _Table) -> Iterator[list[Row]]:
    if isinstance(table.opened, RowReader):
        yield from table.opened.rows(table.mapper.map)


def _restored(mapper: Mapper, made: Record, data: bytes) -> tuple[Record, Any]:
    """Return a record with what was carried for it, and that."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return made, None
    whole = mapper.restored(made, said)
    assert isinstance(whole, Record)  # noqa: S101 - a record is given back as one
    return whole, said


def _joined_key(made: Relationship) -> str:
    return f"{made.source}\0{made.target}\0{made.type}\0{made.id or ''}"


def _said(filters: Filters) -> dict[str, object]:
    said = msgspec.structs.asdict(filters)
    return {name: value for name, value in said.items() if value is not None and value is not True}


def _since(text: str) -> int:
    order = moments.order(text)
    if order is None:
        raise UsageError(f"{text!r} is no time", hint="memkeep export latest --since 2026-11-01 -o DIR")
    return order


def _model(fingerprint: dict[str, object]) -> str | None:
    said = fingerprint.get("embedding")
    if not isinstance(said, dict) or not isinstance(said.get("model"), str):
        return None
    provider = said.get("provider")
    return f"{provider}/{said['model']}" if isinstance(provider, str) and provider else str(said["model"])

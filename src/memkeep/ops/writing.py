"""Put portable records into a live store: all of its parts change or none does.

What a store was is kept as a snapshot first, where there is a vault. A record that is there under its id counts as the
row that it would become; so a second run changes nothing.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import msgspec

from memkeep.engines.catalog import engine
from memkeep.engines.merging import Conflict, Merging, Wanted
from memkeep.engines.rows import Columns, RowEngine, Rows
from memkeep.errors import StoreError, quoted
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Part, Store, TableMap
from memkeep.ops.fates import Fitted, gone, over
from memkeep.ops.in_server import park
from memkeep.ops.merged import MergeResult, TableMerge, commit_all, refuse_conflicts, summed
from memkeep.ops.records import known
from memkeep.ops.scratch import scratch
from memkeep.records.groups import short_digest
from memkeep.records.plain import to_plain
from memkeep.records.record import Portable, Record, Relationship
from memkeep.records.shape import WHOLE, Mapper, Row, With
from memkeep.records.wire import plain_json
from memkeep.systems import shapes, targets
from memkeep.systems.base import Known
from memkeep.systems.target import JoiningTarget, NamingTarget, Target, is_valid
from memkeep.vault.vault import Vault

_BATCH = 256
_EPOCH = "1970-01-01T00:00:00+00:00"
_MEND = "change it where it comes from and run this again: what is there already stays as it is"


class Place(NamedTuple):
    """A table that records go into."""

    part: Part
    map: TableMap
    mapper: Mapper
    columns: Columns


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written, or in a dry run would be."""

    result: MergeResult
    findings: tuple[Finding, ...]
    kept: str | None  # the snapshot of the store as it was


def places(store: Store) -> list[Place]:
    """Return the tables of a store that take records, those with the memories first."""
    found: list[Place] = []
    for part in store.parts:
        made = engine(part.engine) if part.maps else None
        if isinstance(made, RowEngine):
            for map_ in part.maps:
                columns = made.columns(part, map_.table)
                if columns is not None:
                    found.append(place(store, part, map_, columns))
    return sorted(found, key=lambda one: (not one.map.primary, one.part.name))


def place(store: Store, part: Part, map_: TableMap, columns: Columns) -> Place:
    """Return a table with what turns records into its rows."""
    # An empty collection's map does not tell all vectors.
    whole = msgspec.structs.replace(map_, vectors=tuple(dict.fromkeys((*map_.vectors, *columns.vectors))))
    return Place(part, whole, shapes.mapper(store.system, whole), columns)


def rehearsed(store: Store, source: Fitted, into: list[Place], *, conflict: Conflict) -> MergeResult:
    """Return what `write` would say of empty tables that are not there yet, and that would refuse nothing."""
    tables = list(_counted(_Layer(targets.of_system(store.system), source, into, {}), into))
    return MergeResult(
        conflict=conflict,
        user=None,
        inserted=sum(one.inserted for one in tables),
        updated=0,
        skipped=0,
        same=0,
        failed=(),
        tables=tuple(tables),
    )


def _counted(layer: "_Layer", into: Iterable[Place]) -> Iterator[TableMerge]:
    """Yield how many rows go into empty tables."""
    for one in into:
        key = one.map.unique or (one.map.id,)
        found = {tuple(row.get(column) for column in key) for batch in layer.rows(one)() for row in batch}
        yield TableMerge(part=one.part.name, table=one.map.table, inserted=len(found), updated=0, skipped=0, same=0)


def vector_names(place: Place) -> dict[str, int]:
    """Return the vectors of a table by their portable names, with their dimensions; none of a table beside."""
    if not place.map.primary and place.mapper.shape.kind != "vectors":
        return {}
    return {place.mapper.vector_name(column): size for column, size in place.columns.vectors.items()}


def write(
    vault: Vault | None,
    store: Store,
    source: Fitted,
    *,
    conflict: Conflict,
    dry_run: bool,
    new: Sequence[Place] = (),
    events: Events = SILENT,
) -> Written:
    """Write the records of a source into a live store.

    `new` are tables that a real run makes first; a dry run counts what would go into them.

    Raises `RefusedError` (`conflicts`), `UsageError` for a store that takes none, and `StoreError`; then nothing has
    changed.
    """
    target = targets.of_system(store.system)
    into = places(store)
    if not any(one.map.primary for one in into):
        raise StoreError(
            f"{store.path} has no table that memories could go into",
            hint=f"memkeep discover {quoted(store.path)}",
        )
    layer = _Layer(target, source, into, known(store) if isinstance(target, NamingTarget) else {})
    kept = park(vault, store, events) if vault is not None and not dry_run else None
    wanted = Wanted(conflict=conflict)
    with scratch() as folder, ExitStack() as stack:
        done: list[tuple[Part, Merging]] = []
        for part in {one.part.name: one.part for one in into}.values():
            events.step(f"writing {part.name}")
            rows = {one.map.table: layer.rows(one) for one in into if one.part is part}
            made = engine(part.engine)
            assert isinstance(made, RowEngine)  # noqa: S101 - `places` has looked
            done.append((part, stack.enter_context(made.merge_rows(part, rows, wanted, folder))))
        refuse_conflicts(conflict, done)
        if not dry_run:
            commit_all(done, store, kept)
        result, findings = summed(done, conflict=conflict, user=None, mend=_MEND)
        more = [one for one in _counted(layer, new) if one.inserted] if dry_run else []
        inserted = result.inserted + sum(one.inserted for one in more)
        result = msgspec.structs.replace(result, inserted=inserted, tables=(*result.tables, *more))
    return Written(result=result, findings=tuple(findings), kept=kept)


class _Layer:
    """Lays out records as the rows of each table."""

    def __init__(self, target: Target, source: Fitted, into: list[Place], there: Known) -> None:
        self._target = target
        self._primary = [one for one in into if one.map.primary and one.mapper.shape.kind == "record"]
        self._collections = {one.map.collection for one in into}
        self._main = {one.map.collection for one in self._primary}
        self._placed = {name for one in into for name in vector_names(one)}
        self._system = system = self._primary[0].mapper.system
        self._source = source
        self._along = {one for theirs, one, primary in source.found.kinds if theirs == system and not primary}
        self._joined: dict[str, list[Relationship]] = {}  # of a target without a table for them, by where they begin
        if not any(one.mapper.shape.kind == "relationship" for one in into):
            for made in source.relationships():
                if made.system != system:
                    self._joined.setdefault(made.source, []).append(made)

        self._names: Any = None
        if isinstance(target, NamingTarget):
            ours = (made for made in source.records() if not made.primary and made.system == system)
            self._names = target.names_there(there, ours)

    def rows(self, place: Place) -> Rows:
        """Return what gives the rows of a table."""
        return lambda: _batches(self._laid(place))

    def _laid(self, place: Place) -> Iterator[Row]:
        kind = place.mapper.shape.kind
        if kind == "relationship":
            for joined in self._source.relationships():
                if joined.collection == place.map.collection or joined.system != self._system:
                    row = self._row(place, self._moved_relationship(joined))
                    yield row if joined.system == self._system else place.mapper.carry(row, joined)
            return
        beside = not place.map.primary and kind == "record"
        if not (self._has_carried() if kind == "carried" else not beside or self._has_beside(place)):
            return
        seen: set[object] = set()
        for made in self._source.records():
            if beside:
                yield from self._beside(place, made, seen)
            elif kind == "carried":
                yield from self._carried(place, made)
            elif self._belongs(place, made) and self._may_be_found(made):
                for row in self._settled(place, made, self._row(place, made)):
                    yield place.mapper.gathered(row)

    def _has_beside(self, place: Place) -> bool:
        """Say whether any record may have rows in a collection beside the memories."""
        return any(
            collection == place.map.collection
            if system == self._system and not primary
            else primary and (system != self._system or place.map.collection not in self._along)
            for system, collection, primary in self._source.found.kinds
        )

    def _has_carried(self) -> bool:
        """Say whether any record may have more than its product's own tables take."""
        return any(
            system != self._system or (not primary and collection not in self._collections)
            for system, collection, primary in self._source.found.kinds
        )

    def _belongs(self, place: Place, made: Record) -> bool:
        """Say whether a record goes into a table: into that of its own collection, or the first with memories."""
        if place.mapper.shape.kind == "vectors":
            return bool(made.vectors) and (
                made.collection == place.mapper.shape.of if made.system == self._system else made.primary
            )
        if made.system == self._system and made.collection in self._main:
            return made.collection == place.map.collection
        return made.primary and place is self._primary[0]

    def _may_be_found(self, made: Record) -> bool:
        """Say whether a record may lie where the product finds it: one that is no longer valid, only if it hides it."""
        return made.system == self._system or not self._is_gone(made) or self._target.hides(self._primary[0].map)

    def _is_gone(self, made: Record) -> bool:
        return gone(made.status, over(made, self._source.found.at), self._target)

    def _beside(self, place: Place, made: Record, seen: set[object]) -> Iterator[Row]:
        """Yield rows of a collection beside the memories: our own records of it, and what others' records need."""
        ours = made.system == self._system
        if ours and made.collection == place.map.collection:
            yield from self._settled(place, made, self._row(place, made))
        elif made.primary and not (ours and place.map.collection in self._along):
            for collection, row in self._target.beside(made, {}):
                key = tuple(row[column] for column in (place.map.unique or (place.map.id,)) if column in row)
                if collection == place.map.collection and key not in seen:
                    seen.add(key)
                    yield from self._settled(place, made, row)

    def _settled(self, place: Place, made: Record, row: Row) -> Iterator[Row]:
        """Yield a row with the ids that the store has for what it refers to; nothing for what is there already."""
        if self._names is None or not isinstance(self._target, NamingTarget):
            yield row
        elif (there := self._target.settled(made, place.map, row, self._names)) is not None:
            yield there

    def _identity(self, made: Record) -> str:
        """Return the id of a memory here: two of different collections never have the same one."""
        is_doubled = made.primary and (made.collection, made.id) in self._source.found.doubled
        return self._target.identity(made.system, f"{made.collection}:{made.id}" if is_doubled else made.id)

    def _named(self, made: Portable, identity: str | None) -> str | None:
        return None if identity is None else self._target.identity(made.system, identity)

    def _moved_relationship(self, joined: Relationship) -> Relationship:
        if joined.system == self._system:
            return joined
        source, target = self._named(joined, joined.source), self._named(joined, joined.target)
        return msgspec.structs.replace(joined, source=source or "", target=target or "")

    def _row(self, place: Place, made: Portable) -> Row:
        told = _timed(made, place) if isinstance(made, Relationship) else self._told(made)
        row = place.mapper.row(told, place.columns.names)
        if made.system == self._system:
            # What a product wrote in files may say less than its own table must have.
            if isinstance(made, Record) and any(name not in row for name in place.columns.needed):
                return self._target.complete(made, row, place.map) | row
            return row
        if isinstance(made, Record):
            row[place.map.id] = self._identity(made)
            row = self._target.complete(self._told(made), row, place.map)
            if place.mapper.shape.kind == "record":
                row = place.mapper.carry(row, made, self._with(made))
            return row
        name = made.id or f"{made.source} {made.type} {made.target}"
        row[place.map.id] = self._target.identity(made.system, name)
        if isinstance(self._target, JoiningTarget):
            row = self._target.complete_joined(row, place.map)
        return row

    def _told(self, made: Record) -> Record:
        """Return a record as its row tells it: one whose time is over as archived, if the product takes no notice."""
        if made.system == self._system or not made.primary or not is_valid(made.status) or not self._is_gone(made):
            return made
        return msgspec.structs.replace(made, status="archived")

    def _with(self, made: Record) -> With:
        apart = {name: one for name, one in made.vectors.items() if name not in self._placed}
        return With(self._joined.get(made.id, ()), apart)

    def _carried(self, place: Place, made: Record) -> Iterator[Row]:
        """Yield what a record of another product has more; the whole of one that the product has no place for."""
        if made.system == self._system and (made.primary or made.collection in self._collections):
            return
        joins = self._joined.get(made.id, ())
        main = self._primary[0]
        said: dict[str, object] = {}
        identity = self._identity(made)
        if not made.primary or not self._may_be_found(made):
            whole = plain_json(made)
            identity = f"{made.system}:{made.collection}:{made.id}:{short_digest(whole)}"
            said = {WHOLE: whole.decode(), "relationships": to_plain([*map(msgspec.structs.asdict, joins)])}
        elif main.mapper.shape.side:
            said = main.mapper.carried(self._row(main, made), made, self._with(made))
        if said:
            yield {place.map.id: identity, "record": json.dumps(said)}


def _timed(made: Relationship, place: Place) -> Relationship:
    """Return a relationship with the times that the table must have; what nobody knows is the beginning of time."""
    columns = place.mapper.shape.fields
    wanted = (field for field in ("created_at", "updated_at") if columns.get(field) in place.columns.needed)
    unknown = {field: _EPOCH for field in wanted if getattr(made, field) is None}
    return msgspec.structs.replace(made, **unknown) if unknown else made


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    waiting: list[Row] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting

"""Do what a plan says: delete the records that it names, with what belongs to them, after keeping all as it was."""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from memkeep.config import Config
from memkeep.engines.catalog import engine
from memkeep.engines.merging import MergeEngine, plain_id
from memkeep.engines.rows import Deleting, Gone, RowDeleter
from memkeep.errors import PlanStaleError, RefusedError, StoreError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Part, Store
from memkeep.ops import plan as plans
from memkeep.ops import records
from memkeep.ops.audits.orphans import named_by
from memkeep.ops.discover import discover
from memkeep.ops.in_server import park
from memkeep.ops.merged import commit_all
from memkeep.ops.plan import Line, Plan
from memkeep.records.record import Relationship
from memkeep.records.shape import Mapper
from memkeep.systems import shapes
from memkeep.vault.vault import Vault

_NAMED = 5


class DeletedRows(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of one table went."""

    part: str
    table: str
    rows: int
    named: bool  # False: the database took them along


class ApplyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or in a dry run would be done."""

    store: str
    system: str
    deleted: int  # records that the plan names
    kept: int
    tables: tuple[DeletedRows, ...]
    dry_run: bool
    snapshot: str | None  # the store as it was before
    undo: str | None  # the command that brings back what was deleted


def apply(
    vault: Vault | None, file: Path, *, dry_run: bool = False, config: Config | None = None, events: Events = SILENT
) -> ApplyResult:
    """Do what a plan says; all of it or nothing. A dry run needs no vault.

    Raises `PlanStaleError` when a record that the plan names, or one that it relies on, is not as it was seen,
    `RefusedError` where rows can't be deleted, `FileError`, `StoreError`.
    """
    plan = plans.read(file)
    store = _store(plan, config)
    doomed = plan.doomed()
    _refuse_losing_both(doomed)
    gone = _all_gone(store, plan, events)
    parts = {name: _deleter(store, name) for name in gone}
    kept = None
    if doomed and not dry_run:
        if vault is None:
            raise UsageError("what is deleted is kept in a vault first", hint="memkeep init")
        kept = park(vault, store, events)
    with ExitStack() as stack:
        done: list[tuple[Part, Deleting]] = []
        for name in gone:
            part, deleter = parts[name]
            events.step(f"deleting from {name}")
            done.append((part, stack.enter_context(deleter.delete_rows(part, gone[name]))))
        _refuse_others(store, doomed, done)
        if doomed and not dry_run:
            _check(store, plan, events)  # again: now nobody else can write where the engine has locks
            commit_all(done, store, kept)
        tables = _tables(done)
    return ApplyResult(
        store=store.path,
        system=store.system,
        deleted=len(doomed),
        kept=len(plan.lines) - len(doomed),
        tables=tables,
        dry_run=dry_run,
        snapshot=kept,
        undo=None if kept is None else _undo(store, kept, [part for part, _ in done], tables),
    )


def _store(plan: Plan, config: Config | None) -> Store:
    wanted = plan.header
    found = [one for one in discover([wanted.store], config) if (one.system, one.path) == (wanted.system, wanted.store)]
    if len(found) != 1:
        raise StoreError(
            f"the plan is of {wanted.store} ({wanted.system}), and no such store is there",
            hint=f"memkeep discover {shlex.quote(wanted.store)}",
        )
    return found[0]


def _refuse_losing_both(doomed: Sequence[Line]) -> None:
    going = {(line.collection, line.id) for line in doomed}
    both = [line for line in doomed if line.same_as is not None and (line.collection, line.same_as) in going]
    if both:
        raise RefusedError(
            f"{both[0].collection}:{both[0].id} and {both[0].same_as}, which says the same, would both be deleted",
            hint='change the "action" of one of them to "keep"; or remove the "same_as" of the first',
            code="plan_loses_both",
        )


def _all_gone(store: Store, plan: Plan, events: Events) -> dict[str, list[Gone]]:
    """Return by part the rows that go, after all that the plan relies on was found as it was."""
    doomed = plan.doomed()
    if not doomed:
        return {}
    names: dict[str, set[str]] = defaultdict(set)  # collection -> ids
    for line in doomed:
        names[line.collection].add(line.id)
    joined = _check(store, plan, events)
    for collection, identity in joined:
        names[collection].add(identity)
    ids = {plain_id(line.id) for line in doomed}
    gone: dict[str, list[Gone]] = defaultdict(list)
    # What belongs to a record goes before it: a database may insist on that order.
    for part in sorted(store.parts, key=lambda one: any(each.primary for each in one.maps)):
        for map_ in sorted(part.maps, key=lambda one: one.primary):
            mapper = shapes.mapper(store.system, map_)
            if map_.collection in names:
                chosen = tuple(sorted(names[map_.collection]))
                gone[part.name].append(Gone(table=map_.table, columns=(map_.id,), ids=chosen))
            columns = _columns(mapper, names)
            if columns:
                plain = tuple(sorted(ids))
                gone[part.name].append(Gone(table=map_.table, columns=columns, ids=plain, spelled=False))
    return dict(gone)


def _columns(mapper: Mapper, names: dict[str, set[str]]) -> tuple[str, ...]:
    """Return the columns of a collection by which its rows belong to records that go."""
    map_, shape = mapper.map, mapper.shape
    if shape.kind in {"vectors", "carried"} and shape.of in names:
        return (map_.id,)
    return map_.links


def _check(store: Store, plan: Plan, events: Events) -> list[tuple[str, str]]:
    """Read the store and compare it with what the plan saw; return what joins records that go, or stands beside them.

    Raises `PlanStaleError`.
    """
    doomed = plan.doomed()
    ids = {plain_id(line.id) for line in doomed}
    stale = []
    with records.of_store(store, filters=records.Filters(carried=False), events=events) as source:
        wanted = {(line.collection, line.id) for line in doomed}
        wanted |= {(line.collection, str(line.same_as)) for line in doomed if line.same_as is not None}
        seen, _ = plans.look_up(source, wanted)
        strangers = set(source.strangers)
        for line in doomed:
            name = (line.collection, line.id)
            there = name in strangers if not line.seen else seen.get(name) == line.seen
            if not there:
                stale.append(f"{line.collection}:{line.id}")
            elif line.same_as is not None and seen.get((line.collection, line.same_as)) != line.same_seen:
                stale.append(f"{line.collection}:{line.same_as}")
        joined = [plans.name_of(one) for one in source.relationships() if _joins(one, ids)]
        joined += [
            plans.name_of(one)
            for one in source.records()
            if not one.primary and any(plain_id(named) in ids for _, named in named_by(one))
        ]
    if stale:
        more = f" and {len(stale) - _NAMED} more" if len(stale) > _NAMED else ""
        raise PlanStaleError(
            f"not as the plan saw it any more: {', '.join(stale[:_NAMED])}{more}",
            hint=f"memkeep audit {shlex.quote(store.path)} --plan NEW-FILE",
        )
    return joined


def _joins(one: Relationship, ids: set[str]) -> bool:
    return plain_id(one.source) in ids or plain_id(one.target) in ids


def _deleter(store: Store, name: str) -> tuple[Part, RowDeleter]:
    part = next(one for one in store.parts if one.name == name)
    made = engine(part.engine)
    if not isinstance(made, RowDeleter):
        raise RefusedError(
            f"rows can't be deleted from {name} yet: it is kept by {part.engine}",
            hint="delete them with the product itself",
            code="delete_unsupported",
        )
    return part, made


def _refuse_others(store: Store, doomed: Sequence[Line], done: Sequence[tuple[Part, Deleting]]) -> None:
    """Raise `StoreError` when not exactly the rows that are named would go: an id that two rows have, or none."""
    wanted: dict[str, int] = defaultdict(int)
    for line in doomed:
        wanted[line.collection] += 1
    for part, one in done:
        for map_ in part.maps:
            found = one.result.tables.get(map_.table)
            if map_.primary and map_.collection in wanted and found != wanted[map_.collection]:
                raise StoreError(
                    f"{found} rows of {map_.table} have the ids of {wanted[map_.collection]} records",
                    hint=f"memkeep audit {shlex.quote(store.path)} --category orphans",
                )


def _tables(done: Sequence[tuple[Part, Deleting]]) -> tuple[DeletedRows, ...]:
    return tuple(
        DeletedRows(part=part.name, table=table, rows=rows, named=named)
        for part, one in done
        for tables, named in ((one.result.tables, True), (one.result.beside, False))
        for table, rows in tables.items()
        if rows
    )


def _undo(store: Store, kept: str, parts: Sequence[Part], tables: Sequence[DeletedRows]) -> str:
    """Return the command that brings back what was deleted: row by row where that brings back all, else the whole."""
    known = {(part.name, each.table) for part in store.parts for each in part.maps}
    by_rows = all(isinstance(engine(part.engine), MergeEngine) for part in parts)
    if by_rows and all((one.part, one.table) in known for one in tables):
        return f"memkeep restore {kept[:12]} --into {shlex.quote(store.path)} --conflict skip"
    return f"memkeep restore {kept[:12]} --in-place --confirm={store.system}"

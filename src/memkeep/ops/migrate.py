"""Move memory from any product into any other: what is kept, carried or lost is said field by field beforehand."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from memkeep.config import Config
from memkeep.engines.merging import Conflict
from memkeep.engines.rows import Columns
from memkeep.errors import UsageError, VaultMissingError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, Store, is_url
from memkeep.ops import destination, records, writing
from memkeep.ops.fates import FieldFate, Fitted, Room, Survey, Vectors, fates, survey
from memkeep.ops.merged import MergeResult
from memkeep.ops.scratch import scratch
from memkeep.records.formats.base import About, Source
from memkeep.records.record import Record, Relationship
from memkeep.systems import targets
from memkeep.systems.target import AskingTarget, Outline, ServedTarget, Target, Wish
from memkeep.vault.vault import Vault


class MigrateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved, or in a dry run would be: the same numbers."""

    source: str
    from_system: str
    to: str
    to_system: str
    created: bool
    dry_run: bool
    records: int
    relationships: int
    fields: tuple[FieldFate, ...]
    vectors: Vectors
    merged: MergeResult
    kept: str | None  # the snapshot of the target as it was
    undo: str | None
    findings: tuple[Finding, ...]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What `--map` says: a field of every record, or only where it has one value."""

    field: str
    was: str | None
    value: str


_CHANGED = ("scope", "user", "agent", "session", "category", "source", "status")


def change_of(text: str) -> Change:
    """Return what `scope=agent:main` (every record) or `scope:global=agent:main` (only those) says."""
    name, mark, value = text.partition("=")
    field, _, was = name.partition(":")
    if not mark or field not in _CHANGED:
        raise UsageError(
            f"--map {text!r} is not FIELD=VALUE or FIELD:OLD=VALUE; FIELD is one of {', '.join(_CHANGED)}",
            hint="memkeep migrate FROM --to STORE --map scope=global",
        )
    return Change(field=field, was=was if ":" in name else None, value=value)


def changes_of(map: Mapping[str, str]) -> list[Change]:
    """Return what a program says of fields: {"scope": "agent:main"}, {"scope:global": "agent:main"}."""
    return [change_of(f"{field}={value}") for field, value in map.items()]


def migrate(
    vault: Vault | None,
    name: str,
    to: str,
    *,
    changes: Sequence[Change] = (),
    conflict: Conflict = "skip",
    user: str | None = None,
    dims: int | None = None,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> MigrateResult:
    """Write the records of a snapshot or live store into another store, which is made when `to` is `system:place`.

    The source is only read. What a target with memories was is kept as a snapshot first: `VaultMissingError` when there
    is no vault. Raises `UsageError`, `StoreError`, `RefusedError`.
    """
    aim = destination.find(to, config, verb=f"migrate {shlex.quote(name)} --to")
    with records.of(vault, name, config=config, filters=records.Filters(user=user), events=events) as source:
        return move(
            vault,
            source,
            aim,
            changes=changes,
            conflict=conflict,
            dims=dims,
            dry_run=dry_run,
            named=name,
            events=events,
        )


def move(
    vault: Vault | None,
    source: Source,
    aim: destination.Destination,
    *,
    changes: Sequence[Change] = (),
    conflict: Conflict,
    dry_run: bool,
    named: str,
    dims: int | None = None,
    events: Events = SILENT,
) -> MigrateResult:
    """Write the records of a source to a destination; `dims` are those of a new store, unless given those of most."""
    changed: Source = _Changed(source, changes) if changes else source
    found = survey(changed)
    most, model = found.widest
    if dims is not None and dims != most:
        most, model = dims, None  # the vectors that are there stay behind
    wish = Wish(dims=most, model=model, rehearses=aim.place if dry_run else None)
    task = _Task(changed, found, conflict, named, dry_run, events)
    if aim.store is None and dry_run:
        return _tried(aim, wish, task)
    if aim.store is not None and aim.store.records != 0 and vault is None and not dry_run:
        raise VaultMissingError(
            f"{aim.store.path} would be changed, and there is no vault to keep it in first",
            hint=f"memkeep init && memkeep backup {shlex.quote(aim.place)}",
        )
    with destination.made(aim, wish) as made:
        return _fill(None if made.created else vault, made, aim.place, task)


class _Task(NamedTuple):
    """What is to be written, and how."""

    source: Source
    found: Survey
    conflict: Conflict
    named: str
    dry_run: bool
    events: Events


def _fill(vault: Vault | None, made: destination.Made, to: str, task: _Task) -> MigrateResult:
    """Write into a store that is there, or was made just now; say that it is at `to`."""
    source = task.source
    store = destination.ready(made.store) if made.created or not task.dry_run else made.store
    lacking = destination.lacking(store)  # in a dry run
    new = [] if lacking is None else [writing.place(store, *lacking, Columns(names=("id", "record")))]
    into = writing.places(store)
    fitted = Fitted(source, task.found, _sizes(into), _model(store), carries=_carries(into))
    plan = fates(fitted, _room(targets.of_system(store.system), store, into))
    written = writing.write(
        vault, store, fitted, conflict=task.conflict, dry_run=task.dry_run, new=new, events=task.events
    )
    undo = None if task.dry_run else made.undo
    if written.kept is not None:
        undo = f"memkeep restore {written.kept[:12]} --in-place --confirm={store.system}"
    return MigrateResult(
        source=task.named,
        from_system=source.about.system,
        to=store.path,
        to_system=store.system,
        created=made.created,
        dry_run=task.dry_run,
        records=source.about.records,
        relationships=source.about.relationships,
        fields=tuple(plan),
        vectors=fitted.vectors,
        merged=written.result,
        kept=written.kept,
        undo=undo,
        findings=(
            *(one for one in written.findings if not (made.created and one.code == "seen_later")),
            *_findings(source, plan, fitted, store, to),
        ),
    )


def _tried(aim: destination.Destination, wish: Wish, task: _Task) -> MigrateResult:
    """Say what would become of records in a store that is not there: one is made in a scratch folder to ask it."""
    target = targets.of_name(aim.name)
    if is_url(aim.place) and isinstance(target, ServedTarget):
        return _outlined(aim, target.outline(aim.place, wish), task)
    with scratch() as folder:
        place = folder / ("new.db" if aim.place.endswith((".db", ".sqlite")) else "new")
        with destination.made(aim._replace(place=str(place)), wish) as made:
            destination.refuse_taken(made.store, place, aim.place)
            result = _fill(None, made, aim.place, task)
    return msgspec.structs.replace(result, to=aim.place)


def _outlined(aim: destination.Destination, outline: Outline, task: _Task) -> MigrateResult:
    """Say what would become of records in a table of a server: it is known how it would look.

    Which rows it would refuse is not asked.
    """
    source, part = task.source, outline.part
    store = Store(system=aim.system, path=aim.place, root="", parts=(part,), records=0)
    into = [writing.place(store, part, part.maps[0], outline.columns)]
    fitted = Fitted(source, task.found, _sizes(into), None, carries=_carries(into))
    plan = fates(fitted, _room(targets.of_system(store.system), store, into))
    return MigrateResult(
        source=task.named,
        from_system=source.about.system,
        to=aim.place,
        to_system=aim.system,
        created=True,
        dry_run=True,
        records=source.about.records,
        relationships=source.about.relationships,
        fields=tuple(plan),
        vectors=fitted.vectors,
        merged=writing.rehearsed(store, fitted, into, conflict=task.conflict),
        kept=None,
        undo=None,
        findings=tuple(_findings(source, plan, fitted, store, aim.place)),
    )


class _Changed:
    """A source whose records say something else in some fields."""

    def __init__(self, source: Source, changes: Sequence[Change]) -> None:
        self._source = source
        self._changes = changes

    @property
    def about(self) -> About:
        """Where the records are from."""
        return self._source.about

    def records(self) -> Iterator[Record]:
        """Yield the records, changed."""
        for made in self._source.records():
            said = {
                one.field: one.value for one in self._changes if one.was is None or getattr(made, one.field) == one.was
            }
            yield msgspec.structs.replace(made, **said) if said and made.primary else made

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        return self._source.relationships()


def _room(target: Target, store: Store, into: Sequence[writing.Place]) -> Room:
    main = next(one for one in into if one.map.primary and one.mapper.shape.kind == "record")
    joins = any(one.mapper.shape.kind == "relationship" for one in into)
    side = any(part.engine == "sqlite" and part.maps for part in store.parts)  # see `destination.ready`
    return Room(
        target,
        main.mapper,
        main.columns,
        tuple(_sizes(into)),
        joins,
        side,
        {one.map.collection for one in into},
        _model(store),
    )


def _carries(into: Sequence[writing.Place]) -> bool:
    return any(one.mapper.shape.side or one.mapper.shape.free is not None for one in into if one.map.primary)


def _sizes(into: Sequence[writing.Place]) -> dict[str, int]:
    """Return the dimensions of the vectors that the memories can have, by their portable name."""
    return {name: size for one in into for name, size in writing.vector_names(one).items()}


def _model(store: Store) -> str | None:
    said = store.fingerprint.get("embedding")
    return said.get("model") if isinstance(said, dict) else None


def _findings(source: Source, plan: Sequence[FieldFate], fitted: Fitted, store: Store, to: str) -> Iterator[Finding]:
    vectors, target = fitted.vectors, targets.of_system(store.system)
    yield from source.about.unread
    for sentence in source.about.omitted:
        yield Finding(code="not_migrated", severity=Severity.WARNING, message=sentence)
    lost = [one for one in plan if one.fate == "lost"]
    if lost:
        named = ", ".join(f"{one.field.removeprefix('collection ')} ({one.records:,})" for one in lost)
        yield Finding(
            code="field_lost",
            severity=Severity.WARNING,
            message=f"the target has no place for {named}: they do not go along",
            mend="a snapshot of the source keeps them: memkeep backup",
        )
    if fitted.found.apart:
        yield Finding(
            code="id_repeated",
            severity=Severity.WARNING,
            message=f"{fitted.found.apart:,} memories have the id of another one: they get ids of their own",
        )
    if fitted.found.unowned and isinstance(target, AskingTarget):
        yield Finding(
            code="of_nobody",
            severity=Severity.WARNING,
            message=f"{fitted.found.unowned:,} records are of no user, agent or session: {target.of_nobody()}",
            mend="say whose they are: --map user=NAME",
        )
    if vectors.stretched and any(part.engine == "qdrant" and part.maps for part in store.parts):
        yield Finding(
            code="vectors_normalised",
            severity=Severity.INFO,
            message="not all vectors are of length one: Qdrant keeps where they point, not how far, which changes "
            "nothing of what is found",
        )
    if vectors.left:
        yield Finding(
            code="vectors_left",
            severity=Severity.WARNING,
            message=f"{vectors.left:,} vectors do not go along: {vectors.reason}",
            mend=f"memkeep embed {shlex.quote(to)} --missing",
        )

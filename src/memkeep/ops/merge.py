"""Put records of a snapshot among those of a live store, one by one."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from memkeep.engines.catalog import engine
from memkeep.engines.merging import Conflict, MergeEngine, Merging, Wanted, of_records
from memkeep.errors import StoreError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Omission, Part, PartImage, Role, Severity, Snapshot, Store
from memkeep.ops.freeze import UNREAD
from memkeep.ops.in_server import park
from memkeep.ops.materialise import materialise
from memkeep.ops.merged import MergeResult, commit_all, refuse_conflicts, summed
from memkeep.ops.scratch import scratch
from memkeep.vault.vault import Vault

# Engines whose commit has next to nothing left that could fail: they come last.


class Outcome(NamedTuple):
    """A merge and what was noticed beside it; `kept` is the snapshot of the store as it was."""

    result: MergeResult
    images: tuple[str, ...]  # names of the parts that were merged
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...]
    kept: str | None


class _Pair(NamedTuple):
    image: PartImage
    live: Part


def merge(
    vault: Vault,
    snapshot: Snapshot,
    images: Sequence[PartImage],
    store: Store,
    *,
    conflict: Conflict,
    user: str | None,
    dry_run: bool,
    events: Events = SILENT,
) -> Outcome:
    """Merge the records of all parts that take rows; what the store was is kept as a snapshot first.

    All parts change or none does. A row that a database refuses is in `failed`; the others go in. With `fail` a row
    that is there with other values refuses it all. Raises `RefusedError` (`conflicts`) and `StoreError`.
    """
    pairs, omitted = _pairs(images, store)
    if not pairs:
        raise StoreError(
            f"{store.path} has nothing that records of {snapshot.id[:8]} ({snapshot.system}) could go into",
            hint=f"memkeep restore {snapshot.id[:8]} --to DIR",
        )
    if user is not None and not any(each.primary for pair in pairs for each in pair.image.part.maps):
        raise StoreError(
            f"without the memories nobody can tell which of {', '.join(pair.image.part.name for pair in pairs)} "
            f"is of {user}: {'; '.join(f'{one.part}: {one.reason}' for one in omitted) or 'they were not chosen'}",
            hint=f"memkeep discover {shlex.quote(store.path)}",
        )
    kept = None
    if not dry_run:
        kept = park(vault, store, events)
    with scratch() as folder, ExitStack() as stack:
        done: list[tuple[Part, Merging]] = []
        wanted = Wanted(conflict=conflict, users=_owners(vault, images, user))
        for number, pair in enumerate(pairs):
            root = folder / str(number)
            root.mkdir()
            events.step(f"merging {pair.live.name}")
            materialise(vault, [pair.image], root, events, durable=False)
            one = stack.enter_context(_engine(pair.live).merge(pair.live, pair.image.part, root, wanted))
            done.append((pair.live, one))
            wanted = of_records(wanted, one.result.records)
        refuse_conflicts(conflict, done)
        if not dry_run:
            commit_all(done, store, kept)
        result, findings = summed(done, conflict=conflict, user=user)
        findings += [_not_merged(one) for one in omitted]
    return Outcome(result, tuple(pair.image.part.name for pair in pairs), tuple(omitted), tuple(findings), kept)


def _not_merged(left: Omission) -> Finding:
    return Finding(
        code=UNREAD,
        severity=Severity.ERROR,
        part=left.part,
        message=f"its records were not merged: {left.reason}",
        mend="restore the snapshot with --to DIR and take them from there",
    )


def _pairs(images: Sequence[PartImage], store: Store) -> tuple[list[_Pair], list[Omission]]:
    """Return which image goes into which live part, those with the memories first, and what goes nowhere."""
    pairs, omitted = [], []
    for image in images:
        live = _counterpart(image, store)
        if live is not None and isinstance(engine(live.engine), MergeEngine):
            pairs.append(_Pair(image, _mapped(live, image)))
        elif image.collections:
            reason = "the store has no such part" if live is None else f"rows are not merged into {live.engine} yet"
            omitted.append(Omission(part=image.part.name, reason=reason))
    return sorted(pairs, key=lambda pair: (not any(each.primary for each in pair.live.maps), pair.live.name)), omitted


def _counterpart(image: PartImage, store: Store) -> Part | None:
    """Return the live part for an image: the one of its name, else the only one with records of the same tables."""
    alike = [part for part in store.parts if part.engine == image.part.engine and image.collections]
    named = [part for part in alike if part.name == image.part.name]
    tables = {one.map.table for one in image.collections}
    fitting = named or [part for part in alike if tables & {each.table for each in part.maps}]
    if not fitting and len(tables) == 1:
        fitting = [part for part in alike if part.role is Role.CANONICAL and len(part.maps) <= 1]
    return fitting[0] if len(fitting) == 1 else None


def _mapped(live: Part, image: PartImage) -> Part:
    """Return the live part with what only the image's rows tell: keys of a payload, where no row is left."""
    known = {each.collection: each for each in image.part.maps}
    maps = [
        msgspec.structs.replace(each, fields={**known[each.collection].fields, **each.fields})
        if each.collection in known
        else each
        for each in live.maps
    ]
    there = {each.table for each in maps}
    if len(maps) == 1 or not maps:
        return msgspec.structs.replace(live, maps=tuple(maps) or image.part.maps)
    more = [each for each in image.part.maps if each.table not in there]
    return msgspec.structs.replace(live, maps=(*maps, *more))


def _engine(part: Part) -> MergeEngine:
    made = engine(part.engine)
    assert isinstance(made, MergeEngine)  # noqa: S101 - `_pairs` has looked
    return made


def _owners(vault: Vault, images: Sequence[PartImage], user: str | None) -> tuple[str, ...] | None:
    """Return what a user is called in the store: by name, and by the ids that collections of users give the name."""
    from memkeep.records.view import rows_by_id

    if user is None:
        return None
    names = [user]
    for image in images:
        for stored in image.collections:
            if stored.map.collection == "users":
                for group in stored.groups:
                    rows = rows_by_id(stored.map, vault.reader.chunk(group.chunk))
                    names += [key for key, row in rows.items() if user in (row.get("user_id"), row.get("name"))]
    return tuple(dict.fromkeys(names))

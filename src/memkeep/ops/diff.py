"""Which memories differ between two snapshots, or between a snapshot and a live store."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from memkeep.config import Config
from memkeep.errors import UsageError, quoted
from memkeep.model import Snapshot, Store, TableState
from memkeep.ops import sides
from memkeep.ops.discover import discover
from memkeep.ops.one_user import of_user
from memkeep.ops.sides import Side, Sides, States
from memkeep.records.view import changed_fields, shown_id
from memkeep.vault.vault import Vault

_NO_TABLE = (TableState(rows=0, digest=""), "")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A record that differs, and in which fields: name -> [before, after]."""

    id: str
    fields: dict[str, list[Any]]


class DiffResult(msgspec.Struct, frozen=True, kw_only=True):
    """Record ids in ascending order. Where no collection was compared, nothing is known of a difference."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    collections: int = 0  # that were compared
    # Tables, `part/table`, whose rows differ though no record in them does; not in JSON when there are none.
    others: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


def diff(vault: Vault, a: str, b: str, *, config: Config | None = None) -> DiffResult:
    """Compare two sides, each a snapshot's name, `latest`, or a live store: path, URL or name in the settings.

    Beside a live store `latest` is the latest snapshot of that one.
    Reads only the groups of records that differ. Raises `StoreError` for a name that fits nothing, `UsageError` when
    a path holds several stores and the other side does not say which.
    """
    stores = config.stores if config is not None else {}
    live = {name: discover([name], config) for name in (a, b) if sides.is_live(name, stores)}
    of = sides.of_stores([store for found in live.values() for store in found])
    known = {name: vault.resolve(name, of=of) for name in (a, b) if name not in live}
    (left, states), (right, states_after) = _sides(vault, a, b, known, live)
    added: list[str] = []
    removed: list[str] = []
    changed: list[Change] = []
    differing = set()
    for name in left.keys() | right.keys():
        before = len(added), len(removed), len(changed)
        _collection(left.get(name), right.get(name), added, removed, changed)
        if before != (len(added), len(removed), len(changed)):
            differing.add(name)
    return DiffResult(
        added=tuple(sorted(added)),
        removed=tuple(sorted(removed)),
        changed=tuple(sorted(changed, key=lambda change: change.id)),
        collections=len(left.keys() | right.keys()),
        others=tuple(sorted(_others(states, states_after, differing))) or msgspec.UNSET,
    )


def _others(left: States, right: States, differing: AbstractSet[str]) -> Iterator[str]:
    """Yield the tables that differ, without those of collections that do."""
    for name in left.keys() | right.keys():
        (before, collection), (after, other) = left.get(name, _NO_TABLE), right.get(name, _NO_TABLE)
        told = before.digest and after.digest  # not of a table that is not there, nor where secrets were taken out
        if before.rows == after.rows and (not told or before.digest == after.digest):
            continue
        if not {collection, other} & differing:
            yield name


def _sides(
    vault: Vault, a: str, b: str, known: dict[str, Snapshot], live: dict[str, list[Store]]
) -> tuple[tuple[Sides, States], tuple[Sides, States]]:
    if known.get(a) and known.get(b) and known[a].system != known[b].system:
        raise UsageError(
            f"{a} is of {known[a].system} and {b} of {known[b].system}: their records can't be compared",
            hint="memkeep snapshots",
        )
    made = {name: _of_snapshot(vault, one) for name, one in known.items()}
    for name, other in ((a, b), (b, a)):
        if name not in made:
            like = known.get(other)
            store = sides.one_store(live[name], name, like)
            if like is not None and like.user is not None:
                store = of_user(store, like.user)
            made[name] = sides.of_live(vault, store, made[other][0] if other in made else {})
            if like is not None and like.system != store.system and not made[name][0].keys() & made[other][0].keys():
                raise UsageError(
                    f"{other} is of {like.system} and {name} of {store.system}: their records can't be compared",
                    hint=f"memkeep backup {quoted(name)}",
                )
    return made[a], made[b]


def _of_snapshot(vault: Vault, snapshot: Snapshot) -> tuple[Sides, States]:
    images = [vault.image(part) for part in snapshot.parts]
    said: States = {}
    for image in images:
        said |= sides.states(image.part, image.baseline)
    return sides.of_images(vault, images), said


def _collection(
    left: Side | None, right: Side | None, added: list[str], removed: list[str], changed: list[Change]
) -> None:
    one = left or right
    if one is None:
        return
    table = (right or one).map
    if left is not None and right is not None and left.bits == right.bits:
        buckets = [n for n in left.groups.keys() | right.groups.keys() if left.groups.get(n) != right.groups.get(n)]
        before = {key: row for number in buckets for key, row in left.bucket(number).items()}
        after = {key: row for number in buckets for key, row in right.bucket(number).items()}
    else:
        before, after = left.all() if left else {}, right.all() if right else {}
    added.extend(shown_id(table, key) for key in after.keys() - before.keys())
    removed.extend(shown_id(table, key) for key in before.keys() - after.keys())
    for key in before.keys() & after.keys():
        fields = changed_fields(before[key], after[key])
        if fields:
            changed.append(Change(id=shown_id(table, key), fields=fields))

"""A side of a comparison: the records of a snapshot, or of a live store at this moment, in groups."""

from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from memkeep.errors import StoreError, UsageError, quoted
from memkeep.model import Baseline, Part, PartImage, Snapshot, Store, TableMap, TableState
from memkeep.ops.freeze import freeze
from memkeep.ops.one_user import narrow
from memkeep.ops.scratch import scratch
from memkeep.records.groups import bucket_of
from memkeep.records.view import rows_by_id
from memkeep.vault.reader import chunk_id
from memkeep.vault.vault import Vault

Records = dict[str, dict[str, Any]]


class Side(msgspec.Struct, kw_only=True):
    """One collection on one side: its groups by bucket, each named by a chunk id and read only when asked for."""

    map: TableMap
    bits: int
    groups: dict[int, bytes]  # bucket -> chunk id
    load: Callable[[bytes], bytes]

    def bucket(self, number: int) -> Records:
        """Return the records of a bucket."""
        chunk = self.groups.get(number)
        return rows_by_id(self.map, self.load(chunk)) if chunk is not None else {}

    def all(self) -> Records:
        """Return all records."""
        found: Records = {}
        for number in self.groups:
            found |= self.bucket(number)
        return found

    def find(self, record: str) -> dict[str, Any] | None:
        """Return one record, reading one group."""
        return self.bucket(bucket_of(record, self.bits)).get(record)


Sides = dict[str, Side]  # "<part>/<collection>" -> side


States = dict[str, tuple[TableState, str]]
"""What was in each table of the parts with records, by "<part>/<table>"; and the name in `Sides` that it has there."""


def of_snapshot(vault: Vault, snapshot: Snapshot) -> Sides:
    """Return the collections of a snapshot."""
    return of_images(vault, (vault.image(part) for part in snapshot.parts))


def of_images(vault: Vault, images: Iterable[PartImage]) -> Sides:
    """Return the collections in parts of a snapshot."""
    found: Sides = {}
    for image in images:
        for stored in image.collections:
            groups = {group.bucket: group.chunk for group in stored.groups}
            name = f"{image.part.name}/{stored.map.collection}"
            found[name] = Side(map=stored.map, bits=stored.bits, groups=groups, load=vault.reader.chunk)
    return found


def states(part: Part, baseline: Baseline) -> States:
    """Return what was in the tables of a part with records."""
    collections = {map_.table: f"{part.name}/{map_.collection}" for map_ in part.maps}
    return {
        f"{part.name}/{table}" if table else part.name: (state, collections.get(table, ""))
        for table, state in baseline.tables.items()
        if part.maps
    }


def of_live(vault: Vault, store: Store, like: Sides) -> tuple[Sides, States]:
    """Return the collections of a live store now, grouped as the other side is. Writes nothing anywhere."""
    found: Sides = {}
    said: States = {}
    parts = [part for part in store.parts if part.maps]
    with scratch() as folder, freeze(store, parts, folder) as moment:
        if store.user is not None:
            narrow(moment, store.user, folder / "one-user")
        if moment.errors:
            raise StoreError(f"{moment.omitted[0].part} could not be read: {moment.omitted[0].reason}")
        for held in moment.held:
            name = held.part.name
            bits = {
                m.collection: like[f"{name}/{m.collection}"].bits
                for m in held.part.maps
                if f"{name}/{m.collection}" in like
            }
            data: dict[bytes, bytes] = {}
            groups: dict[str, dict[int, bytes]] = {table.collection: {} for table in held.part.maps}
            used: dict[str, int] = {}
            for group in held.opened.scan(bits):
                chunk = chunk_id(vault.keys, group.data)
                data[chunk] = group.data
                groups[group.collection][group.bucket] = chunk
                used[group.collection] = group.bits
            said |= states(held.part, held.opened.baseline())
            for table in held.part.maps:
                found[f"{name}/{table.collection}"] = Side(
                    map=table,
                    bits=used.get(table.collection, 0),
                    groups=groups[table.collection],
                    load=data.__getitem__,
                )
    return found, said


def is_live(name: str, stores: Container[str] = ()) -> bool:
    """Say whether a side is named by a path, or as one of the stores in the settings, rather than by a snapshot."""
    return name != "latest" and (name in stores or any(mark in name for mark in "/\\.~") or Path(name).exists())


def of_stores(stores: Sequence[Store]) -> Callable[[Snapshot], bool]:
    """Return what is true of the snapshots of these stores."""
    named = {(store.system, store.path) for store in stores}
    return lambda snapshot: (snapshot.system, snapshot.path) in named


def one_store(stores: Sequence[Store], path: str, like: Snapshot | None) -> Store:
    """Choose the store at a path that fits the other side; `UsageError` when it is not clear which."""
    fitting = [store for store in stores if like is not None and store.system == like.system] or list(stores)
    if len(fitting) > 1 and like is not None:
        fitting = [store for store in fitting if store.path == like.path] or fitting
    if len(fitting) != 1:
        names = ", ".join(store.path for store in fitting)
        raise UsageError(f"{path} holds {len(fitting)} stores: {names}", hint=f"memkeep discover {quoted(path)}")
    return fitting[0]

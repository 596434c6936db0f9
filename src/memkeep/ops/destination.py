"""Where records are to go: a store that is there, or one of a product that is made for them."""

import shlex
from pathlib import Path
from typing import NamedTuple

from memkeep.config import Config
from memkeep.engines import sqlite_new
from memkeep.errors import StoreError, UsageError
from memkeep.model import Store, is_url
from memkeep.ops.records import store_at
from memkeep.records.shape import SIDE_TABLE
from memkeep.systems import servers, shapes, targets
from memkeep.systems.target import Wish


class Destination(NamedTuple):
    """A store, or what will be one."""

    name: str  # the product, as a person named it; "" for a store that is there
    place: str
    store: Store | None  # None: it is not there yet

    @property
    def system(self) -> str:
        """The system that it is of."""
        return self.store.system if self.store is not None else targets.of_name(self.name).name


def find(text: str, config: Config | None = None) -> Destination:
    """Return what `--to` or `--into` names: a path, a URL, a name in the settings, or `system:path` for a new store.

    Raises `StoreError` when there is no such store and no product was named, `UsageError` when another's is there.
    """
    name, place = targets.told(text)
    if not name:
        return Destination("", place, store_at(place, config))
    place = servers.told(place)[1] if is_url(place) else str(Path(place).expanduser().absolute())
    system = targets.of_name(name).name
    try:
        store = store_at(f"{system}:{place}" if is_url(place) else place, config)
    except StoreError as error:
        if error.code not in {"store_missing", "store_empty"}:
            raise
        return Destination(name, place, None)
    if store.system != system:
        if store.records or store.system != "custom":
            raise UsageError(
                f"{place} is a store of {store.system}, not of {system}", hint=f"memkeep discover {shlex.quote(place)}"
            )
        return Destination(name, place, None)
    return Destination(name, place, store)


def make(aim: Destination, wish: Wish) -> Store:
    """Return the store, made now when it is not there."""
    if aim.store is not None:
        return aim.store
    return targets.of_name(aim.name).create(aim.name, aim.place, wish)


def ready(store: Store) -> Store:
    """Return a store that has room for what its product has no column for: a table of its own beside the memories."""
    for part in store.parts:
        primary = [shapes.mapper(store.system, map_) for map_ in part.maps if map_.primary]
        known = any(map_.table == SIDE_TABLE for map_ in part.maps)
        if part.engine == "sqlite" and any(one.shape.side for one in primary) and not known:
            sqlite_new.add(Path(part.path), sqlite_new.side_table(SIDE_TABLE))
            return store_at(store.path)
    return store

"""Where records are to go: a store that is there, or one of a product that is made for them."""

import shlex
from pathlib import Path
from typing import NamedTuple

import msgspec

from memkeep.config import Config
from memkeep.engines import sqlite_new
from memkeep.errors import StoreError, UsageError
from memkeep.model import Store, is_url
from memkeep.ops.records import store_at
from memkeep.records.shape import SIDE_TABLE
from memkeep.systems import servers, targets
from memkeep.systems.maps import side_map
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
    """Return a store with a table for what its product has no place for, in the first of its databases with records."""
    databases = [part for part in store.parts if part.engine == "sqlite" and part.maps]
    if not databases or any(map_.collection == SIDE_TABLE for part in databases for map_ in part.maps):
        return store
    first = min(databases, key=lambda part: not any(map_.primary for map_ in part.maps))
    sqlite_new.add(Path(first.path), sqlite_new.side_table(SIDE_TABLE))
    side = side_map({SIDE_TABLE: ("id", "record")})
    assert side is not None  # noqa: S101 - it is given
    changed = msgspec.structs.replace(first, maps=(*first.maps, side))
    return msgspec.structs.replace(store, parts=tuple(changed if part is first else part for part in store.parts))

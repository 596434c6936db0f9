"""Where records are to go: a store that is there, or one of a product that is made for them."""

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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


class Made(NamedTuple):
    """A store, and what was not there before it was made."""

    store: Store
    created: bool
    new: tuple[Path, ...] = ()  # of a store in a server none


@contextmanager
def made(aim: Destination, wish: Wish) -> Iterator[Made]:
    """Give the store, made now when it is not there; when what is done with a new one fails, its files go again."""
    if aim.store is not None:
        yield Made(aim.store, created=False)
        return
    place = None if is_url(aim.place) else Path(aim.place)
    before = _inside(place)
    new: list[Path] = []
    try:
        try:
            store = targets.of_name(aim.name).create(aim.name, aim.place, wish)
        finally:
            new += _new(place, before)
        yield Made(store, created=True, new=tuple(new))
    except BaseException:
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _inside(place: Path | None) -> frozenset[Path] | None:
    """Return what a folder holds; None where nothing is."""
    if place is None or not os.path.lexists(place):
        return None
    return frozenset(place.iterdir()) if place.is_dir() else frozenset()


def _new(place: Path | None, before: frozenset[Path] | None) -> list[Path]:
    after = _inside(place)
    if place is None or after is None:
        return []
    return [place] if before is None else sorted(after - before)


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

"""Where records are to go: a store that is there, or one of a product that is made for them."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from memkeep.config import Config
from memkeep.engines import sqlite_new
from memkeep.errors import MemkeepError, RefusedError, StoreError, UsageError, quoted
from memkeep.model import Part, Store, TableMap, is_url
from memkeep.ops.records import store_at
from memkeep.records.shape import SIDE_TABLE
from memkeep.systems import servers, targets
from memkeep.systems.making import Making
from memkeep.systems.maps import side_map
from memkeep.systems.target import ServedTarget, Target, Wish


class Destination(NamedTuple):
    """A store, or what will be one."""

    name: str  # the product, as a person named it; "" for a store that is there
    place: str
    store: Store | None  # None: it is not there yet

    @property
    def system(self) -> str:
        """The system that it is of."""
        return self.store.system if self.store is not None else targets.of_name(self.name).name


def find(text: str, config: Config | None = None, *, verb: str = "migrate FROM --to") -> Destination:
    """Return what `--to` or `--into` names: a path, a URL, a name in the settings, or `system:path` for a new store.

    `verb` is what was typed before it, for the command that an error proposes.
    Raises `StoreError` when there is no such store and no product was named, `UsageError` when another's is there.
    """
    name, place = targets.told(text)
    if not name:
        try:
            return Destination("", place, store_at(place, config))
        except StoreError as error:
            if error.code == "store_missing" and not is_url(place):
                product, colon, new = place.partition(":")
                if not colon or not product.replace("-", "").isalnum():
                    product, new = "", place
                wrong = f"no product takes records under the name {product}" if product else f"{place} does not exist"
                raise StoreError(
                    f"{wrong}; a new store is named with its product, one of {', '.join(targets.NAMES)}",
                    hint=f"memkeep {verb} oc-memory:{shlex.quote(new)}",
                    code=error.code,
                ) from error
            raise
    target = targets.of_name(name)
    system = target.name
    place = _in_server(target, name, place) if is_url(place) else str(Path(place).expanduser().absolute())
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
    tables = [each.table for part in store.parts if part.engine == "postgres" for each in part.maps if each.primary]
    if is_url(place) and len(tables) > 1:
        raise UsageError(
            f"{place} has memories in several tables: {', '.join(tables)}",
            hint=f"--to {shlex.quote(f'{name}:{place}?table={tables[0]}')}",
        )
    return Destination(name, place, store)


def _in_server(target: Target, name: str, place: str) -> str:
    """Return the URL of a new store without its secrets; `UsageError` where the product's lie elsewhere."""
    url = servers.told(place)[1]
    scheme = url.partition(":")[0]
    if not isinstance(target, ServedTarget) or scheme not in target.schemes:
        raise UsageError(f"no store of {name} lies in such a server: {url}", hint="memkeep migrate --help")
    return target.settled(url)


def refuse_taken(rehearsed: Store, folder: Path, place: str) -> None:
    """Raise `RefusedError` when something lies where a store, rehearsed at `folder`, is to be."""
    for part in rehearsed.parts:
        if not is_url(part.path):
            there = Path(place) / Path(part.path).relative_to(folder)
            if there.exists():
                raise RefusedError(
                    f"there is something at {there} already",
                    hint=f"ls -l {quoted(there)}",
                    code="target_exists",
                )


class Made(NamedTuple):
    """A store, and whether it was made just now."""

    store: Store
    created: bool
    undo: str | None = None  # the command that takes it away


@contextmanager
def made(aim: Destination, wish: Wish) -> Iterator[Made]:
    """Give the store, made now when it is not there; when what is done with a new one fails, it goes again.

    What then can't be taken away is said by the error.
    """
    if aim.store is not None:
        yield Made(aim.store, created=False)
        return
    making = Making()
    try:
        store = targets.of_name(aim.name).create(aim.name, aim.place, wish, making)
        yield Made(store, created=True, undo=making.undo)
    except BaseException as error:
        if (left := making.take_back()) and isinstance(error, MemkeepError):
            stays = ", ".join(left)
            error.unchanged = f"What was made for this stays: {stays}. The same command again goes on with it."
        raise


def lacking(store: Store) -> tuple[Part, TableMap] | None:
    """Return the table for what a product has no place for, and the database that is to have it; None if it has it."""
    databases = [part for part in store.parts if part.engine == "sqlite" and part.maps]
    if not databases or any(map_.collection == SIDE_TABLE for part in databases for map_ in part.maps):
        return None
    side = side_map({SIDE_TABLE: ("id", "record")})
    assert side is not None  # noqa: S101 - it is given
    return min(databases, key=lambda part: not any(map_.primary for map_ in part.maps)), side


def ready(store: Store) -> Store:
    """Return a store with a table for what its product has no place for, in the first of its databases with records."""
    if (found := lacking(store)) is None:
        return store
    first, side = found
    sqlite_new.add(Path(first.path), sqlite_new.side_table(SIDE_TABLE))
    changed = msgspec.structs.replace(first, maps=(*first.maps, side))
    return msgspec.structs.replace(store, parts=tuple(changed if part is first else part for part in store.parts))

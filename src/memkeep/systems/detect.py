"""Find the stores at or below paths, or in the products' own places; changes nothing."""

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import msgspec

from memkeep.config import Config, StoreSettings
from memkeep.errors import StoreError, UsageError, quoted
from memkeep.model import Hooks, Store, is_url
from memkeep.systems import (
    custom,
    detect_urls,
    mem0,
    oc_memory,
    openclaw_core,
    openclaw_hybrid,
    openclaw_json,
    openclaw_lancedb,
    openmemory,
    servers,
    thanos,
)
from memkeep.systems.base import ManyUserSystem, OpenClaw, Places, SecretSystem, ServerSystem, System, TwofoldSystem
from memkeep.systems.look import DEPTH, Look

SYSTEMS: tuple[System, ...] = (
    openclaw_core,
    openclaw_hybrid,
    openclaw_lancedb,
    oc_memory,
    openmemory,
    thanos,
    mem0,
)
SERVER_SYSTEMS: tuple[ServerSystem, ...] = (openmemory, thanos, mem0)
SECRET_SYSTEMS: tuple[SecretSystem, ...] = (openmemory,)
MANY_USER_SYSTEMS: tuple[ManyUserSystem, ...] = (thanos,)
TWOFOLD_SYSTEMS: tuple[TwofoldSystem, ...] = (openmemory,)
NAMES = (*(system.name for system in SYSTEMS), custom.name)


def discover(
    places: Sequence[str | PathLike[str]] | None = None,
    *,
    config: Config | None = None,
    environ: Mapping[str, str] = os.environ,
    trouble: Callable[[str, StoreError], None] | None = None,
) -> list[Store]:
    """Return the stores at or below the given paths, or at URLs; without any those in the places that products use.

    A place may also be the name of a store in the settings. What lies at a path and is no known product's is one
    `custom` store. Several systems may lie side by side in one folder; a store is told by its system and path.
    Raises `StoreError` for a given path that does not exist, can't be read or holds nothing to keep, and
    `UsageError` for settings that don't fit what is there. `trouble`, where it is given, hears of each place without
    paths that can't be read and of stores in the settings that are not there; the others are still returned.
    """
    config = config or Config()
    usual = _places(environ)
    if places is None:
        tops, urls = _usual_tops(config, usual), detect_urls.of_settings(config)
    else:
        given = [_named(os.fspath(place), config) for place in places]
        tops = dict.fromkeys((_given(Path(place), usual) for place in given if not is_url(place)), DEPTH)
        urls = [place for place in given if is_url(place)]
    look = Look(tops, (query for queries in (*(each.queries for each in SYSTEMS), custom.queries) for query in queries))
    folders = {}
    for top, depth in tops.items():
        with _telling(trouble, top):
            folders[top] = _surveyed(look, top, depth)
    usual = _with_configs(look, folders, usual)
    found: dict[tuple[str, str], Store] = {}
    for top, inside in folders.items():
        with _telling(trouble, top):
            for store in _stores_at(look, top, inside, usual, config, expected=places is not None):
                found.setdefault((store.system, store.path), _with_hooks(store, config, usual, top))
    for url in urls:
        with _telling(trouble, servers.told(url)[1]):
            for store in detect_urls.stores_at(look, url, usual, config, SERVER_SYSTEMS, NAMES):
                found.setdefault((store.system, store.path), _with_hooks(store, config, usual))
    for name, settings in config.stores.items() if trouble is not None else ():
        with _telling(trouble, path := _expanded(settings.path, usual.home)):
            if not is_url(settings.path) and not path.exists():
                raise StoreError(f"the store {name!r} of the settings is not there: {path}", code="store_missing")
    return list(found.values())


@contextmanager
def _telling(trouble: Callable[[str, StoreError], None] | None, place: Path | str) -> Iterator[None]:
    """Let `trouble` hear of what can't be read, if someone listens."""
    try:
        yield
    except StoreError as error:
        if trouble is None:
            raise
        trouble(str(place), error)


def _with_hooks(store: Store, config: Config, places: Places, top: Path | None = None) -> Store:
    """Return a store with the hooks that the settings give it, or the place that it was found at or below."""
    if is_url(store.path):
        _, settings = detect_urls.settings_of(store.path, config)
    else:
        name, settings = _settings_of(Path(store.path), config, places)
        for above in (top, *Path(store.path).parents) if not name else ():
            if above is not None and not name:
                name, settings = _settings_of(above, config, places)
    if settings.stop is None or settings.start is None:
        return store
    return msgspec.structs.replace(store, hooks=Hooks(stop=settings.stop, start=settings.start))


def _places(environ: Mapping[str, str]) -> Places:
    home = Path(environ.get("HOME") or Path.home())
    said = environ.get("OPENCLAW_STATE_DIR", "")
    state_dir = _expanded(said, home) if said else home / ".openclaw"
    places = Places(home=Path(os.path.realpath(home)), state_dir=Path(os.path.realpath(state_dir)), environ=environ)
    data = openclaw_json.read(places.state_dir / openclaw_json.FILE)
    return msgspec.structs.replace(
        places, configs=() if data is None else (OpenClaw(state_dir=places.state_dir, data=data),)
    )


def _with_configs(look: Look, folders: Mapping[Path, list[Path]], places: Places) -> Places:
    """Add the `openclaw.json` files in the folders that are looked at, and just above them."""
    near = [above for top in folders for above in (top.parent, top.parent.parent)]
    there = [
        folder for found in folders.values() for folder in found if openclaw_json.FILE in look.folder(folder).files
    ]
    configs = {config.state_dir: config for config in places.configs}
    for folder in (*there, *near):
        if folder not in configs and (data := openclaw_json.read(folder / openclaw_json.FILE)) is not None:
            configs[folder] = OpenClaw(state_dir=folder, data=data)
    return msgspec.structs.replace(places, configs=tuple(configs.values()))


def _named(place: str, config: Config) -> str:
    """Return the path or URL that a person means, by itself or by the name of a store in the settings."""
    if place in config.stores and not os.path.lexists(Path(place).expanduser()):
        return config.stores[place].path
    return place


def _given(path: Path, places: Places) -> Path:
    """Return the real path of one that a person named."""
    meant = _expanded(str(path), places.home)
    real = Path(os.path.realpath(meant))
    if not real.exists():
        broken = " is a link to a place that" if meant.is_symlink() else ""
        raise StoreError(f"{path}{broken} does not exist.", hint="memkeep discover", code="store_missing")
    if not real.is_dir() and not real.is_file():
        raise StoreError(f"{path} is neither a folder nor a file.", hint="memkeep discover")
    return real


def _usual_tops(config: Config, places: Places) -> dict[Path, int]:
    """Return the places to look in, and how deep: a plugin's folder is looked at by itself, not all that is below."""
    said = [
        places.state_dir,
        *(_expanded(store.path, places.home) for store in config.stores.values() if not is_url(store.path)),
    ]
    usual = [path for system in SYSTEMS for path in system.default_paths(places)]
    deep = dict.fromkeys((Path(os.path.realpath(path)) for path in said), DEPTH)
    tops = dict.fromkeys((Path(os.path.realpath(path)) for path in usual), 0) | deep
    return {path: depth for path, depth in tops.items() if path.exists()}


def _expanded(path: str, home: Path) -> Path:
    return Path.cwd() / (f"{home}{path[1:]}" if path == "~" or path.startswith("~/") else path)


def _surveyed(look: Look, top: Path, depth: int) -> list[Path]:
    if top.is_dir() and not look.is_table(top):
        folders = look.survey(top, depth=depth)
        if error := look.folder(top).error:
            raise StoreError(f"{top} cannot be read: {error}.", hint=f"ls -ld {quoted(top)}")
        return folders
    look.survey(top.parent, depth=0)  # what lies beside it says whose it is
    return []


def _stores_at(
    look: Look, top: Path, folders: list[Path], places: Places, config: Config, *, expected: bool
) -> list[Store]:
    name, settings = _settings_of(top, config, places)
    said_in = f"[stores.{name}] in {config.file}" if config.file else f"the settings of {name!r}"
    mapped = settings.parts or settings.servers
    wanted = settings.system or (custom.name if mapped else None)
    if wanted is not None and wanted not in NAMES:
        near = difflib.get_close_matches(wanted, NAMES, 1)
        raise UsageError(
            f"{said_in} names the system {wanted!r}" + (f"; did you mean {near[0]!r}?" if near else "."),
            hint="memkeep discover",
            code="config",
        )
    if wanted != custom.name and mapped:
        raise UsageError(
            f"{said_in} gives {'parts' if settings.parts else 'servers'}, which only a store of {custom.name!r} has, "
            f"and names the system {wanted!r}",
            hint="memkeep discover",
            code="config",
        )
    if wanted != custom.name:
        systems = [system for system in SYSTEMS if wanted in (None, system.name)]
        if stores := list(_known(look, top, folders, places, systems)):
            return stores
    if wanted in (None, custom.name) and (expected or name):
        store = custom.keep(look, top, settings if name else None, said_in)
        if store is not None:
            return [store]
    if expected or wanted:
        _refuse_links(look, top, folders)
        what = f"no store of {wanted}" if wanted not in (None, custom.name) else "nothing to keep"
        raise StoreError(f"{top} holds {what}.", hint="memkeep discover", code="store_empty")
    return []


def _refuse_links(look: Look, top: Path, folders: Iterable[Path]) -> None:
    """Raise `StoreError` for what holds nothing but a link to another place, and name that."""
    for folder in folders:
        for name, link in look.folder(folder).links.items():
            if link.leads_to.exists() and not link.leads_to.is_relative_to(top):
                raise StoreError(
                    f"{top} itself holds nothing to keep: {folder / name} is a link to {link.leads_to}, "
                    "and links are not followed.",
                    hint=f"memkeep backup {quoted(link.leads_to)}",
                    code="store_empty",
                )


def _settings_of(top: Path, config: Config, places: Places) -> tuple[str, StoreSettings]:
    for name, settings in config.stores.items():
        if not is_url(settings.path) and Path(os.path.realpath(_expanded(settings.path, places.home))) == top:
            return name, settings
    return "", StoreSettings(path=str(top))


def _known(look: Look, top: Path, folders: list[Path], places: Places, systems: Sequence[System]) -> Iterator[Store]:
    """Yield the stores of known products at or below a path, parents first."""
    if not folders:
        yield from _known_file(look, top, places, systems)
        return
    found: dict[str, list[Path]] = {}
    for folder in folders:
        databases = [folder / file for file in look.folder(folder).suspects if look.database(folder / file)]
        for system in systems:
            if any(folder.is_relative_to(root) for root in found.get(system.name, ())):
                continue  # it belongs to the store that was found above
            for path in (folder, *databases):
                for store in system.detect(look, path, places):
                    yield store
                    if path == folder:
                        found.setdefault(system.name, []).append(folder)


def _known_file(look: Look, file: Path, places: Places, systems: Sequence[System]) -> Iterator[Store]:
    """Yield the store that a file or Lance table is, or whose records it holds."""
    for system in systems:
        stores = system.detect(look, file, places)
        if not stores:
            beside = system.detect(look, file.parent, places)
            stores = [
                store
                for store in beside
                if any(part.path == str(file) and any(each.primary for each in part.maps) for part in store.parts)
            ]
        yield from stores

"""Find the stores at URLs: whose they are is told by what the server has, or said before the URL."""

from collections.abc import Sequence

from memkeep.config import Config, StoreSettings
from memkeep.engines import logins
from memkeep.errors import StoreError
from memkeep.model import Store, is_url
from memkeep.systems import custom, servers
from memkeep.systems.base import Places, ServerSystem
from memkeep.systems.look import Look


def stores_at(
    look: Look, text: str, places: Places, config: Config, systems: Sequence[ServerSystem], names: Sequence[str]
) -> list[Store]:
    """Return the stores at a URL as a person writes it.

    Raises `StoreError` when the server can't be reached or has nothing there.
    """
    said, url = servers.told(text)
    name, settings = settings_of(url, config)
    remember_login(url, config)
    _, only = servers.without_tables(url)
    wanted = said or settings.system or (custom.name if settings.parts or only else "")
    if wanted and wanted not in names:
        raise StoreError(f"there is no system called {wanted!r}: {', '.join(names)}", hint="memkeep discover --help")
    for system in systems if wanted != custom.name else ():
        if wanted in ("", system.name) and (stores := system.detect_url(look, url, places)):
            return stores
    if wanted in ("", custom.name):
        store = custom.keep_url(look, url, settings, f"[stores.{name}] in {config.file}" if name else "")
        if store is not None:
            return [store]
    what = f"no store of {wanted}" if wanted not in ("", custom.name) else "nothing to keep"
    raise StoreError(f"{url} holds {what}", hint="memkeep discover", code="store_empty")


def remember_login(url: str, config: Config) -> None:
    """Use for the server of a URL the password that the settings say for a store in it, where none is known.

    One server and user has one password, whatever the database or collection.
    """
    for settings in config.stores.values():
        for each in (settings.path, *settings.servers):
            if (
                settings.password_file
                and not logins.known(url)
                and is_url(each)
                and logins.same_server(servers.told(each)[1], url)
            ):
                logins.remember_file(url, settings.password_file)


def of_settings(config: Config) -> list[str]:
    """Return the URLs of the stores that the settings name, as they are written there."""
    return [store.path for store in config.stores.values() if is_url(store.path)]


def settings_of(url: str, config: Config) -> tuple[str, StoreSettings]:
    """Return the name and the settings of the store at a URL, empty ones when none has it."""
    for name, settings in config.stores.items():
        if is_url(settings.path) and servers.told(settings.path)[1] == url:
            return name, settings
    return "", StoreSettings(path=url)

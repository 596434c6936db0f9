"""From what the command line said to what the operations take: settings, the vault, the stores."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from memkeep.cli.face import Face
from memkeep.cli.output import clean
from memkeep.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from memkeep.config import Config, VaultSettings
    from memkeep.model import Store
    from memkeep.ops.age import Unlock
    from memkeep.ops.backup import FailedStore
    from memkeep.vault.vault import Vault


def settings(face: Face) -> "Config":
    """Read the settings file that `--config`, `MEMKEEP_CONFIG` or the platform names."""
    from memkeep.config import load

    if face.config is None:
        return load()
    if not Path(face.config).expanduser().is_file():
        raise UsageError(f"--config names {face.config}, which is not a file", hint=f"ls -l {quoted(face.config)}")
    return load({**os.environ, "MEMKEEP_CONFIG": face.config})


def named_vault(face: Face, config: "Config") -> str | None:
    """Return the vault that the flag, the environment or the settings name, as it was named; None when none does."""
    from memkeep.config import settle

    return settle(face.vault, os.environ.get("MEMKEEP_VAULT"), config.vault, None)


def vault_place(face: Face, config: "Config") -> "VaultSettings":
    """Return where the vault is and where its password comes from."""
    from memkeep.config import vault_settings
    from memkeep.ops.open import default_vault

    return vault_settings(config, named_vault(face, config) or default_vault())


def open_vault(face: Face, config: "Config", *, cached: bool = True, ahead: str = "memkeep.vault.vault") -> "Vault":
    """Open the vault; its password is looked for only when the vault is encrypted.

    The module `ahead`, which the verb imports next, is loaded while the vault's key is derived.
    """
    from memkeep.cli.secrets import password
    from memkeep.ops.open import open_vault as open_

    place = vault_place(face, config)

    def ask() -> str:
        Thread(target=_load, args=(ahead,), name="memkeep-load").start()
        return password(face, place)

    return open_(place.url, ask, settings=place, cached=cached, tell=_telling(face))


def _load(module: str) -> None:
    """Import a module; whoever imports it next waits until it is there, or meets the error."""
    with suppress(Exception):
        import_module(module)


def has_vault(face: Face, config: "Config") -> bool:
    """Say whether a vault lies where it is looked for; of a place that is far it is believed, not asked."""
    from memkeep.storage.places import storage_at
    from memkeep.vault.opening import exists

    place = vault_place(face, config)
    return ("://" in place.url and not place.url.startswith("file://")) or exists(storage_at(place.url))


def _telling(face: Face) -> "Callable[[str], None]":
    """Return what tells somebody at a terminal why nothing happens; others are told by the error, if there is one."""

    def tell(text: str) -> None:
        # A bar that is there makes way for what is written to `sys.stderr`.
        if sys.stderr.isatty() and not face.json and not face.quiet:
            print(clean(text), file=sys.stderr)  # noqa: T201 - for a person, now

    return tell


def _credentials(place: "VaultSettings") -> dict[str, str]:
    """Return where a second vault's credential is; only one that its settings name: the other is the first vault's."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return {"CREDENTIALS_DIRECTORY": folder} if folder and place.password_credential else {}


def open_other(
    face: Face, config: "Config", given: str, *, verb: str, flag: str, file: str | None, command: str | None
) -> "Vault":
    """Open a second vault, which `flag` of a verb named; its password comes from flags and variables of its own."""
    import shlex

    from memkeep.cli.secrets import password
    from memkeep.config import vault_settings
    from memkeep.errors import WrongKeyError
    from memkeep.ops.open import open_vault as open_

    word = flag.removeprefix("--")
    prefix = f"MEMKEEP_{word.upper()}_"
    place = vault_settings(config, given)
    environ = {
        "MEMKEEP_" + name.removeprefix(prefix): text for name, text in os.environ.items() if name.startswith(prefix)
    }
    environ |= _credentials(place)
    other = Face([])
    other.password_file, other.password_command = file, command
    try:
        return open_(place.url, lambda: password(other, place, environ=environ), settings=place, tell=_telling(face))
    except WrongKeyError as error:
        error.hint = f"memkeep {verb} {flag} {shlex.quote(given)} {flag}-password-file FILE"
        raise


def find_stores(
    paths: "tuple[str, ...]", config: "Config", unfound: "list[FailedStore] | None" = None
) -> "list[Store]":
    """Return the stores at the given paths, or at the products' own places when none is given.

    Stores of the settings that can't be found or read are added to `unfound` when that is given.
    """
    from memkeep.ops.discover import discover

    return discover(paths or None, config, unfound=unfound)


def unlocking(identities: "tuple[str, ...]", passphrase_file: str | None) -> "Unlock":
    """Return what may open a packed file."""
    from memkeep.cli.secrets import from_file
    from memkeep.ops.age import Unlock

    passphrase = from_file(passphrase_file) if passphrase_file else None
    return Unlock(identities=tuple(map(Path, identities)), passphrase=passphrase)

"""Name a vault, make one, open one."""

import contextlib
import hashlib
import os
import random
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from memkeep.config import VaultSettings
from memkeep.errors import RefusedError, UsageError
from memkeep.ops.scratch import scratch
from memkeep.storage.append_only import AppendOnlyStorage
from memkeep.storage.base import Storage
from memkeep.storage.cache import CachedStorage, origin
from memkeep.storage.limit import LimitedStorage
from memkeep.storage.local import TMP
from memkeep.storage.places import storage_at
from memkeep.storage.retry import RetryingStorage, silent
from memkeep.vault import format, opening

if TYPE_CHECKING:
    from memkeep.vault.vault import Vault

_ALL = 1 << 62  # bytes

Ask = Callable[[], str | None]
"""Gives the password when it is needed, or None when there is none to be had."""


class InitResult(msgspec.Struct, frozen=True, kw_only=True):
    """A vault that was made; the recovery key is shown this once."""

    vault: str
    id: str
    encrypted: bool
    recovery_key: str | None


def default_vault(environ: Mapping[str, str] = os.environ) -> str:
    """Return where the vault is when nobody says otherwise.

    That is the server to which oc-memory copies its database when there is one, in a folder beside that copy, and else
    the user's data folder.
    """
    if host := environ.get("OC_MEMORY_BACKUP_HOST"):
        return f"sftp://{host}/~/backups/memkeep"
    import platformdirs

    return str(Path(platformdirs.user_data_dir("memkeep")) / "vault")


def init_vault(
    url: str, password: str | None, *, encrypt: bool = True, settings: VaultSettings | None = None
) -> InitResult:
    """Make a vault, with the settings for that place.

    Raises `RefusedError` when one is there, `UsageError` when encryption lacks a password.
    """
    if encrypt and not password:
        raise UsageError(
            "an encrypted vault needs a password, and none was given",
            hint="memkeep init --password-file FILE   # or --no-encryption",
            code="password_missing",
        )
    settings = settings or VaultSettings(url=url)
    storage = _wrapped(storage_at(url), settings)
    _refuse_strangers(storage)
    holding = storage.capabilities.holding
    if holding is not None:
        holding.begin()
    # What is left of an `init` that was cut off must be removable: so it is held once it is a vault.
    loose = (
        _wrapped(storage_at(url), msgspec.structs.replace(settings, object_lock=None))
        if holding is not None
        else storage
    )
    vault, recovery = opening.create(loose, password if encrypt else None)
    from memkeep.ops.hold import hold
    from memkeep.vault.vault import Vault

    hold(Vault(storage, vault.config, vault.keys))
    return InitResult(vault=storage.url, id=vault.config.id, encrypted=encrypt, recovery_key=recovery)


def _refuse_strangers(storage: Storage) -> None:
    """Refuse a place with something in it that is no vault's, such as a store, save what a killed `init` left."""
    own = {format.CONFIG, TMP, "lost+found", *(prefix.rstrip("/") for prefix in format.PREFIXES)}
    names: Iterable[str] = (stat.key.partition("/")[0] for stat in storage.list(""))
    place = storage.url
    if storage.folder is not None:
        place = str(storage.folder.resolve())
        names = _names(Path(place))
    stranger = next((name for name in names if name not in own), None)
    if stranger is not None:
        raise RefusedError(
            f"{place} is not empty: it holds {stranger}",
            hint=f"memkeep init --vault {shlex.quote(place + '/vault')}",
            code="target_exists",
        )


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path.name for path in folder.iterdir())
    return []


def open_vault(
    url: str,
    password: str | Ask | None = None,
    *,
    settings: VaultSettings | None = None,
    cached: bool = True,
    tell: Callable[[str], None] = silent,
) -> "Vault":
    """Open a vault with the settings for that place; `password` may be a function, called only if it is encrypted.

    With `cached=False` all is read from the place itself: so for what proves it. `tell` hears of a place that does not
    answer, each time before it is asked again.
    """
    settings = settings or VaultSettings(url=url)
    storage = _wrapped(storage_at(url), settings, tell)
    if cached and settings.cache and not storage.capabilities.near:
        # Outermost: what is here is not limited, asked for again, or in need of anything.
        storage = CachedStorage(storage, cache_folder(url), settings.cache_size)
    return opening.open_vault(storage, password)


@contextlib.contextmanager
def afresh(vault: "Vault") -> "Iterator[Vault]":
    """Lend a vault as its place shows it now, whatever was kept of it here before.

    What is fetched from a place that is far is kept while this lasts, so that nothing is fetched twice.
    """
    if vault.storage.capabilities.near:
        yield vault
        return
    from memkeep.vault.vault import Vault

    with scratch() as folder:
        storage = CachedStorage(origin(vault.storage), folder / "fetched", _ALL)
        yield Vault(storage, vault.config, vault.keys)


def cache_folder(url: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where objects of a vault that is far are kept; it may be deleted at any time."""
    import platformdirs

    base = environ.get("MEMKEEP_CACHE_DIR") or platformdirs.user_cache_dir("memkeep")
    return Path(base).expanduser().absolute() / hashlib.sha256(url.encode()).hexdigest()[:16]


def same_place(one: str, other: str) -> bool:
    """Say whether two names of vaults are one place, as far as that can be told without asking there."""
    first, second = storage_at(one), storage_at(other)
    if first.folder is None or second.folder is None:
        return first.url == second.url
    return first.folder.resolve() == second.folder.resolve()


def _wrapped(storage: Storage, settings: VaultSettings, tell: Callable[[str], None] = silent) -> Storage:
    """Put around a storage what the settings ask for.

    The limit is innermost, so that what is sent again counts again. What holds objects is asked again like the rest.
    What append-only refuses is not tried at all.
    """
    if settings.upload_limit or settings.download_limit:
        storage = LimitedStorage(storage, up=settings.upload_limit, down=settings.download_limit)
    if settings.object_lock is not None:
        storage = _locking(storage, settings, settings.object_lock)
    storage = RetryingStorage(storage, random.random, tell)
    if settings.append_only:
        storage = AppendOnlyStorage(storage)
    return storage


def _locking(storage: Storage, settings: VaultSettings, period: timedelta) -> Storage:
    from memkeep.ops import run_state
    from memkeep.storage.holds import Holds
    from memkeep.storage.object_lock import LockingStorage
    from memkeep.storage.object_lock_s3 import S3Locks

    locks = S3Locks(storage.url, os.environ)
    mode = settings.object_lock_mode
    name = hashlib.sha256(f"{locks.endpoint} {storage.url} {mode}".encode()).hexdigest()[:16]
    holds = Holds(run_state.folder() / "holds" / name)
    return LockingStorage(storage, locks, holds, period=period, mode=mode, free=(format.LEASES, format.MARKS))

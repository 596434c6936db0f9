"""Name a vault, make one, open one."""

import contextlib
import random
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec

from memkeep.config import VaultSettings
from memkeep.errors import RefusedError, UsageError
from memkeep.storage.append_only import AppendOnlyStorage
from memkeep.storage.base import Storage
from memkeep.storage.limit import LimitedStorage
from memkeep.storage.local import TMP
from memkeep.storage.places import storage_at
from memkeep.storage.retry import RetryingStorage
from memkeep.vault import format
from memkeep.vault import vault as vaults
from memkeep.vault.vault import Vault

Ask = Callable[[], str | None]
"""Gives the password when it is needed, or None when there is none to be had."""


class InitResult(msgspec.Struct, frozen=True, kw_only=True):
    """A vault that was made; the recovery key is shown this once."""

    vault: str
    id: str
    encrypted: bool
    recovery_key: str | None


def default_vault() -> str:
    """Return where the vault is when nobody says otherwise: the user's data folder."""
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
            hint="memkeep init --password-file FILE   (or --no-encryption)",
            code="password_missing",
        )
    storage = _wrapped(storage_at(url), settings)
    if storage.folder is not None:
        _refuse_strangers(storage.folder.resolve())
    vault, recovery = vaults.create(storage, password if encrypt else None)
    return InitResult(vault=storage.url, id=vault.config.id, encrypted=encrypt, recovery_key=recovery)


def _refuse_strangers(root: Path) -> None:
    """Refuse a folder with something in it that is no vault's, such as a store, save what a killed `init` left."""
    own = {format.CONFIG, TMP, "lost+found"} | {
        prefix.rstrip("/") for prefix in (format.KEYS, format.DATA, format.INDEX, format.SNAPSHOTS, format.SEALS)
    }
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        strangers = sorted(path.name for path in root.iterdir() if path.name not in own)
        if strangers:
            raise RefusedError(
                f"{root} is not empty: it holds {strangers[0]}",
                hint=f"memkeep init --vault {shlex.quote(str(root / 'vault'))}",
                code="target_exists",
            )


def open_vault(url: str, password: str | Ask | None = None, *, settings: VaultSettings | None = None) -> Vault:
    """Open a vault with the settings for that place; `password` may be a function, called only if it is encrypted."""
    storage = _wrapped(storage_at(url), settings)
    if not vaults.is_encrypted(storage):
        return vaults.open_vault(storage, None)
    return vaults.open_vault(storage, password() if callable(password) else password)


def _wrapped(storage: Storage, settings: VaultSettings | None) -> Storage:
    """Put around a storage what the settings ask for.

    The limit is innermost, so that what is sent again counts again. What is refused goes neither into retries nor
    out to the storage.
    """
    if settings is not None and (settings.upload_limit or settings.download_limit):
        storage = LimitedStorage(storage, up=settings.upload_limit, down=settings.download_limit)
    storage = RetryingStorage(storage, random.random)
    if settings is not None and settings.append_only:
        storage = AppendOnlyStorage(storage)
    return storage

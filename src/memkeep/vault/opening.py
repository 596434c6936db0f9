"""Making a vault in a storage, and opening it with one of its secrets: `config` and the key slots."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from memkeep import clock
from memkeep.errors import DamagedError, RefusedError, UnsupportedError, VaultMissingError, WrongKeyError
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Stat, Storage
from memkeep.storage.cache import origin
from memkeep.vault import crypto
from memkeep.vault import format as layout
from memkeep.vault.crypto import Keys, Slot
from memkeep.vault.lease import Held
from memkeep.vault.objects import decoded, get_object

if TYPE_CHECKING:
    from memkeep.vault.vault import Vault

_SLOT = msgspec.json.Decoder(Slot)


def create(storage: Storage, password: str | None) -> "tuple[Vault, str | None]":
    """Make a vault in an empty storage; return it and, when encrypted, the recovery key to write down.

    Key slots and the first seal come first, `config` last: a crash leaves no vault rather than half of one.
    """
    with Held(storage, Keys(None, ""), "init", exclusive=True, nameless=password is not None):
        return _create(storage, password)


def _create(storage: Storage, password: str | None) -> "tuple[Vault, str | None]":
    from memkeep.vault.vault import Vault
    from memkeep.vault.writer import put_seal

    if exists(storage):
        raise _taken(storage)
    if _holds_backups(storage):
        raise _config_missing()
    for leftover in [*storage.list(layout.KEYS), *storage.list(layout.SEALS)]:  # of an `init` that was interrupted
        storage.delete(leftover.key)
    created = clock.now().isoformat()
    vault_id = crypto.new_master()[:16].hex()
    recovery = None
    master = None
    if password is not None:
        master = crypto.new_master()
        slot, recovery = crypto.recovery_slot(master, vault_id, created)
        put_slot(storage, crypto.password_slot(master, password, vault_id, created), password, master, vault_id)
        put_slot(storage, slot, recovery, master, vault_id)
    data = layout.encode_config(layout.Config(id=vault_id, created=created, encrypted=master is not None))
    config = layout.decode_config(data)
    vault = Vault(storage, config, Keys(master, vault_id))
    put_seal(storage, vault.keys, *vault.next_seal())
    try:
        storage.put_new(layout.CONFIG, [data])
    except ObjectExistsError as error:
        raise _taken(storage) from error
    if storage.get(layout.CONFIG) != data:
        storage.delete(layout.CONFIG)  # or the next `init` would take it for a vault
        raise DamagedError("the storage gives back another config than was written", obj=layout.CONFIG)
    return vault, recovery


def put_slot(storage: Storage, slot: Slot, secret: str, master: bytes, vault_id: str) -> str:
    """Store a key slot, and prove by what was stored that the secret opens it; return its key."""
    data = msgspec.json.encode(slot)
    key = layout.KEYS + layout.digest_of(data)
    storage.put_new(key, [data])
    stored = read_slot(origin(storage), Stat(key, len(data)))
    if crypto.unwrap(stored, secret, vault_id) != master:
        raise DamagedError(f"{key} does not open the vault: it is not what was written", obj=key)
    return key


def exists(storage: Storage) -> bool:
    """Say whether a vault lies in a storage."""
    try:
        storage.stat(layout.CONFIG)
    except ObjectMissingError:
        return False
    return True


def open_vault(storage: Storage, secret: str | Callable[[], str | None] | None) -> "Vault":
    """Open a vault with its password or recovery key; a function that gives it is called only if it is encrypted.

    What handles chunks is loaded after the key is derived: that takes longer, and another thread may load it meanwhile.
    """
    config = _config(storage)
    keys, damaged = _unlocked(storage, config, secret)
    from memkeep.vault.vault import Vault

    vault = Vault(storage, config, keys)
    vault.damaged.extend(damaged)
    return vault


def _unlocked(
    storage: Storage, config: layout.Config, secret: str | Callable[[], str | None] | None
) -> tuple[Keys, list[DamagedError]]:
    """Return a vault's keys, and an error for each key slot that is not what was written."""
    if not config.encrypted:
        if any(True for _ in storage.list(layout.KEYS)):
            # Or else who can write to the storage could have the next backup written in the clear.
            message = "config says that the vault is not encrypted, but it has key slots"
            raise DamagedError(message, obj=layout.CONFIG, hint="cp OTHER_COPY/config VAULT/config")
        return Keys(None, config.id), []
    if callable(secret):
        secret = secret()
    if secret is None:
        message = f"the vault {storage.url} is encrypted and no password was given"
        raise WrongKeyError(
            message, hint="export MEMKEEP_PASSWORD=... or add --password-file FILE", code="password_missing"
        )
    slots, damaged = read_slots(storage)
    if not slots and not damaged and not any(True for _ in storage.list(layout.KEYS)):
        message = "all key slots were removed: nothing opens the vault until one is put back from a copy"
        raise DamagedError(message, obj=layout.KEYS, hint="cp OTHER_COPY/keys/* VAULT/keys/")
    try:
        master = crypto.find_master(slots, secret, config.id, storage.url)
    except WrongKeyError:
        if damaged:
            raise damaged[0] from None
        raise
    return Keys(master, config.id), damaged


def read_slots(storage: Storage) -> tuple[list[Slot], list[DamagedError]]:
    """Return the readable key slots, and an error for each that is not what was written.

    Slots of a newer kind are passed over: an older one may do.
    """
    slots, damaged = [], []
    for stat in sorted(storage.list(layout.KEYS)):
        with suppress(UnsupportedError, ObjectMissingError):  # the latter: listed and then revoked
            try:
                slots.append(read_slot(storage, stat))
            except DamagedError as error:
                damaged.append(error)
    return slots, damaged


def read_slot(storage: Storage, stat: Stat) -> Slot:
    """Return a key slot that can be tried; raises `DamagedError`, or `UnsupportedError` for one of a newer kind."""
    data = get_object(storage, stat)
    return crypto.check_slot(decoded(_SLOT, data, stat.key, stat.key), stat.key)


def _config(storage: Storage) -> layout.Config:
    try:
        data = storage.get(layout.CONFIG)
    except ObjectMissingError:
        if _holds_backups(storage):
            raise _config_missing() from None
        message = f"there is no vault at {storage.url}"
        raise VaultMissingError(message, hint=f"memkeep init --vault {shlex.quote(storage.url)}") from None
    return layout.decode_config(data)


def _holds_backups(storage: Storage) -> bool:
    return any(True for prefix in (layout.SNAPSHOTS, layout.INDEX, layout.DATA) for _ in storage.list(prefix))


def _config_missing() -> DamagedError:
    message = "config is missing: the vault cannot be opened until it is put back from a copy"
    return DamagedError(message, obj=layout.CONFIG, hint="cp OTHER_COPY/config VAULT/config")


def _taken(storage: Storage) -> RefusedError:
    return RefusedError(f"{storage.url} is a vault already", hint="memkeep status")

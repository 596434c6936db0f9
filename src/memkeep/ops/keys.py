"""The ways into a vault: list its key slots, add a password, change or revoke one, make a new recovery key.

Every change is the same three steps, under a lease: the new slot is written and read back; one seal names it and
forgets what goes; what goes is deleted. Killed anywhere, the vault opens with the old secret or the new one, and what
was left half done is finished by the next change.

A slot only wraps the master key, which never changes: see the threat model for what revoking does not do.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import msgspec

from memkeep import clock
from memkeep.errors import (
    DamagedError,
    RefusedError,
    StorageError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from memkeep.storage.base import ObjectMissingError, Stat
from memkeep.vault import crypto, format
from memkeep.vault.crypto import Slot
from memkeep.vault.opening import put_slot, read_slot
from memkeep.vault.vault import Vault, remove_all

SHORT = 12
MAX_LABEL = 60
_LEAST_CONFIRMED = 8


class SlotRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key slot. `yours`: the password or recovery key that opened the vault opens it."""

    id: str
    kind: Literal["password", "recovery", "unknown"]
    created: str | None
    label: str | None
    state: Literal["good", "damaged", "newer", "revoked"]
    yours: bool


class KeyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and the key slots that there are now. The recovery key is shown this once."""

    slots: tuple[SlotRow, ...]
    added: str | None = None
    removed: tuple[str, ...] = ()
    recovery_key: str | None = None


def list_keys(vault: Vault, secret: str | None) -> KeyResult:
    """Return the key slots, oldest first; a vault without encryption has none."""
    return KeyResult(slots=tuple(_rows(vault, secret)))


def add_password(vault: Vault, secret: str, new: str, *, label: str = "") -> KeyResult:
    """Add a password."""
    with _alone(vault):
        added = _put(vault, _password(vault, new, label), new)
        _seal(vault, ())
    return KeyResult(slots=tuple(_rows(vault, secret)), added=added)


def change_password(vault: Vault, secret: str, new: str, *, label: str = "") -> KeyResult:
    """Put a new password in the place of the one that opened the vault; other passwords stay."""
    vault.check_removes()
    with _alone(vault):
        old = _used_password(vault, secret, "add")
        label = label or next((one.label for one in old if one.label), "")
        added = _put(vault, _password(vault, new, label), new)
        removed = _seal(vault, [one.id for one in old])
    return KeyResult(slots=tuple(_rows(vault, new)), added=added, removed=removed)


def remove_key(vault: Vault, secret: str, name: str | None, *, confirm: str | None) -> KeyResult:
    """Revoke the slot of that id, damaged ones too, or else all that the password opens; never the last way in.

    `confirm` must be the id, or its beginning of at least 8 digits. Raises `RefusedError` (`last_key`,
    `not_confirmed`) or `StoreError` when no slot has that id.
    """
    vault.check_removes()
    with _alone(vault):
        rows = list(_rows(vault, secret))
        chosen = [one for one in rows if one.id.startswith(name.lower())] if name else _yours(rows)
        if name and len(chosen) != 1:
            what = f"names {len(chosen)} keys" if chosen else "is the id of no key"
            raise StoreError(f"{name} {what}", code="no_key", hint="memkeep key list")
        going = {one.id for one in chosen}
        if all(one.state != "good" or one.id in going for one in rows):
            raise RefusedError(
                f"{chosen[0].id[:SHORT]} is the last way into the vault", hint="memkeep key add", code="last_key"
            )
        first = chosen[0].id
        if confirm is None or len(confirm) < _LEAST_CONFIRMED or not first.startswith(confirm.lower()):
            raise RefusedError(
                f"revoking the key {first[:SHORT]} must be confirmed by its id",
                hint=f"memkeep key remove {name or ''}{' ' if name else ''}--confirm={first[:SHORT]}",
                code="not_confirmed",
            )
        removed = _seal(vault, [one.id for one in chosen])
    return KeyResult(slots=tuple(_rows(vault, secret)), removed=removed)


def new_recovery(vault: Vault, secret: str) -> KeyResult:
    """Make a new recovery key and revoke the old one. Needs a password that opens the vault.

    With the recovery key alone nothing would open the vault if the new one were lost before it is read.
    """
    vault.check_removes()
    with _alone(vault):
        _used_password(vault, secret, "add")
        slot, spelled = crypto.recovery_slot(vault.keys.master, vault.config.id, clock.now().isoformat())
        old = [one.id for one in _rows(vault, None) if one.kind == "recovery"]
        added = _put(vault, slot, spelled)
        removed = _seal(vault, old)
    return KeyResult(slots=tuple(_rows(vault, secret)), added=added, removed=removed, recovery_key=spelled)


@contextmanager
def _alone(vault: Vault) -> Iterator[None]:
    """Hold the vault alone, and first finish what a change before this one left half done."""
    _ = vault.keys.master
    with vault.lease("key", exclusive=True):
        forgotten = _forgotten(vault)
        remove_all(vault.storage, [stat.key for stat in vault.storage.list(format.KEYS) if stat.key in forgotten])
        yield


def _forgotten(vault: Vault) -> set[str]:
    return {key for seal in vault.log()[0].values() for key in seal.forgotten if key.startswith(format.KEYS)}


def _password(vault: Vault, new: str, label: str) -> Slot:
    if len(label) > MAX_LABEL or not label.isprintable():
        raise UsageError(f"a label has at most {MAX_LABEL} printable characters", hint="memkeep key add --label laptop")
    return crypto.password_slot(vault.keys.master, new, vault.config.id, clock.now().isoformat(), label)


def _put(vault: Vault, slot: Slot, secret: str) -> str:
    """Store a slot that the secret opens; return its id."""
    return put_slot(vault.storage, slot, secret, vault.keys.master, vault.config.id).removeprefix(format.KEYS)


def _seal(vault: Vault, going: Sequence[str]) -> tuple[str, ...]:
    """Write the seal that names all slots and forgets some, and then remove these; return which."""
    try:
        refused = vault.remove([format.KEYS + name for name in going])
    except StorageError as error:
        error.unchanged = "Every key that opened the vault still opens it, and so may the new one."
        raise
    if refused:
        refused[0].unchanged = "The new key opens the vault, and so does the old one still."
        refused[0].hint = "memkeep key list"
        raise refused[0]
    return tuple(going)


def _used_password(vault: Vault, secret: str, instead: str) -> list[SlotRow]:
    """Return the password slots that a secret opens; `RefusedError` when it is the recovery key, or no key now."""
    rows = list(_rows(vault, secret))
    yours = _yours(rows)
    damaged = next((format.KEYS + row.id for row in rows if row.state == "damaged"), None)
    if not yours and damaged:
        message = f"{damaged} can't be read: whether it is the key that opened the vault can't be told"
        raise DamagedError(message, obj=damaged, unchanged="No key was changed.", hint="memkeep key list")
    if not yours:
        raise RefusedError(
            "this password opens the vault no more: a change of keys that was cut short is finished now",
            hint="memkeep key list   (with the new password)",
            code="password_revoked",
        )
    used = [one for one in yours if one.kind == "password"]
    if not used:
        raise RefusedError(
            "the vault was opened with its recovery key; this needs a password",
            hint=f"memkeep key {instead}   # and then the same with the new password",
            code="password_needed",
        )
    return used


def _yours(rows: Iterable[SlotRow]) -> list[SlotRow]:
    return [one for one in rows if one.yours]


def _rows(vault: Vault, secret: str | None) -> Iterator[SlotRow]:
    """Yield the key slots, oldest first; `secret` says which are `yours`."""
    forgotten = _forgotten(vault)
    found = []
    for stat in vault.storage.list(format.KEYS):
        with suppress(ObjectMissingError):  # listed and then revoked
            found.append(_row(vault, stat, secret, revoked=stat.key in forgotten))
    yield from sorted(found, key=lambda row: (row.created or "", row.id))


def _row(vault: Vault, stat: Stat, secret: str | None, *, revoked: bool) -> SlotRow:
    name = stat.key.removeprefix(format.KEYS)
    try:
        slot = read_slot(vault.storage, stat)
    except (DamagedError, UnsupportedError) as error:
        state: Literal["damaged", "newer"] = "newer" if isinstance(error, UnsupportedError) else "damaged"
        return SlotRow(id=name, kind="unknown", created=None, label=None, state=state, yours=False)
    yours = secret is not None and crypto.unwrap(slot, secret, vault.config.id) == vault.keys.master
    kind: Literal["password", "recovery"] = "recovery" if slot.kind == "recovery" else "password"
    return SlotRow(
        id=name,
        kind=kind,
        created=slot.created,
        label=slot.label or None,
        state="revoked" if revoked else "good",
        yours=yours,
    )

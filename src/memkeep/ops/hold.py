"""Hold what the snapshots of a vault need, where the storage can keep it from being removed."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from memkeep import clock
from memkeep.storage.base import ObjectMissingError
from memkeep.vault.vault import Vault

SLACK = 1 / 3  # of the period: what is held for longer than the rest of it is not prolonged, so that few are each day


def hold(vault: Vault) -> None:
    """Hold all that is in a vault but what a prune has marked; call it before a snapshot is committed.

    So who sees a new manifest knows that all beneath it is held, and older snapshots are held as long as they are
    listed. What a run left that was cut off before it was held, is held now. Raises `StorageError` when the storage
    refuses.
    """
    holding = vault.storage.capabilities.holding
    if holding is None:
        return
    going = {key for mark in vault.marks().values() for key in mark.objects}
    stays = {stat.key for stat in vault.storage.list("")} - going
    holding.hold(stays, clock.now() + holding.period * (1 - SLACK))


def held_until(vault: Vault, keys: Iterable[str]) -> dict[str, datetime]:
    """Return those of some objects that are held now, and until when: removed, they only seem to be gone."""
    holding = vault.storage.capabilities.holding
    found: dict[str, datetime] = {}
    if holding is None:
        return found
    for key in keys:
        with suppress(ObjectMissingError):
            until = holding.held_until(key)
            if until is not None and until > clock.now():
                found[key] = until
    return found

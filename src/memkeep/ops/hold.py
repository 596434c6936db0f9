"""Hold what a snapshot needs for as long as the snapshot itself, where the storage can."""

from memkeep import clock
from memkeep.ops.prove import packs_of
from memkeep.storage.base import EVER, Holding, Storage
from memkeep.vault import format
from memkeep.vault.vault import Vault

SLACK = 1 / 3  # of the period: what is held for longer than the rest of it is not prolonged, so that few are each day


def hold(vault: Vault, chunks: set[bytes]) -> None:
    """Hold all that a snapshot about to be committed leans on, by the chunks that it names; call it before the commit.

    So who sees a manifest that is held knows that all beneath is. What a backup put that was cut off before it was
    held, its manifest among it, is held now. Raises `StorageError` when the storage refuses.
    """
    holding = vault.storage.capabilities.holding
    if holding is None:
        return
    least = clock.now() + holding.period * (1 - SLACK)
    packs = packs_of(vault, chunks)
    segments = [key for key, described in vault.index.segments.items() if not set(packs).isdisjoint(described)]
    small = [stat.key for prefix in (format.KEYS, format.SEALS) for stat in vault.storage.list(prefix)]
    manifests = [stat.key for stat in vault.storage.list(format.SNAPSHOTS)]
    holding.hold(dict.fromkeys(manifests, EVER) | dict.fromkeys([format.CONFIG, *small, *segments, *packs], least))


def hold_all(storage: Storage, holding: Holding) -> None:
    """Hold everything that is in a storage: so for a new vault."""
    holding.hold(dict.fromkeys((stat.key for stat in storage.list("")), clock.now() + holding.period * (1 - SLACK)))

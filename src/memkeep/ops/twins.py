"""What a snapshot and its copies in other vaults have in common, and how an image is told in another vault's ids."""

from collections.abc import Callable

import msgspec

from memkeep.model import PartImage, Snapshot, StoredEntry
from memkeep.vault.reader import split_ids
from memkeep.vault.vault import Vault

Identity = tuple[str, str]  # of a memory's moment, whatever vault it is in: the first vault's id, the snapshot's there


def identity(vault: Vault, snapshot: Snapshot) -> Identity:
    """Return what a snapshot and all its copies have in common."""
    origin = snapshot.origin
    return (origin.vault, origin.snapshot) if origin is not None else (vault.config.id, snapshot.id)


def twins(vault: Vault) -> dict[Identity, Snapshot]:
    """Return a vault's snapshots by what they are copies of; of several the one that leaves out least."""
    found: dict[Identity, Snapshot] = {}
    for one in sorted(vault.snapshots(), key=lambda one: -len(one.omitted)):
        found[identity(vault, one)] = one
    return found


def with_ids(image: PartImage, ids: Callable[[bytes], bytes]) -> PartImage:
    """Return an image whose chunks are named by other ids."""
    return msgspec.structs.replace(
        image,
        entries=tuple(_entry_with_ids(one, ids) for one in image.entries),
        collections=tuple(
            msgspec.structs.replace(
                one, groups=tuple(msgspec.structs.replace(group, chunk=ids(group.chunk)) for group in one.groups)
            )
            for one in image.collections
        ),
    )


def _entry_with_ids(stored: StoredEntry, ids: Callable[[bytes], bytes]) -> StoredEntry:
    if stored.recipe is None:
        return stored
    named = b"".join(map(ids, split_ids(stored.recipe.ids)))
    return msgspec.structs.replace(stored, recipe=msgspec.structs.replace(stored.recipe, ids=named))

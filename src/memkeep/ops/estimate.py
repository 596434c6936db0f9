"""Say how large a backup or a restore would be, before anything is moved."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from memkeep.events import SILENT, Events
from memkeep.model import Omission, Store
from memkeep.ops.backup import FailedStore, Secrets, backup
from memkeep.storage.rehearsed import RehearsedStorage
from memkeep.vault.reader import split_ids
from memkeep.vault.vault import Vault


class StoreEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup of one store would read, and add to the vault."""

    system: str
    path: str
    records: int | None
    source_bytes: int
    added_bytes: int
    omitted: tuple[Omission, ...]


class BackupEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup would add to the vault; `free_bytes` and `fits` are null where nobody can know.

    `seconds` is the time that moving it takes at `speed` (bytes a second), null when no speed was given.
    """

    vault: str
    stores: tuple[StoreEstimate, ...]
    failed: tuple[FailedStore, ...]
    source_bytes: int
    added_bytes: int
    free_bytes: int | None
    fits: bool | None
    speed: int | None
    seconds: float | None


class RestoreEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore (or a pack) of a snapshot would read from the vault (`fetch_bytes`) and write (`bytes`)."""

    snapshot: str
    system: str
    records: int | None
    files: int
    bytes: int
    fetch_bytes: int
    to: str | None
    free_bytes: int | None
    fits: bool | None
    speed: int | None
    seconds: float | None


def estimate_backup(
    vault: Vault,
    stores: Sequence[Store],
    *,
    unfound: Sequence[FailedStore] = (),
    secrets: Secrets = "auto",
    speed: int | None = None,
    events: Events = SILENT,
) -> BackupEstimate:
    """Do all that a backup does, but for writing to the vault: so what it would add is counted and not guessed.

    No product is stopped for it.
    """
    stores = [msgspec.structs.replace(store, hooks=None) for store in stores]
    rehearsed = RehearsedStorage(vault.storage)
    stage = Vault(rehearsed, vault.config, vault.keys)
    done = backup(stage, stores, unfound=unfound, secrets=secrets, verify=False, events=events)
    rows = tuple(
        StoreEstimate(**{name: getattr(report, name) for name in StoreEstimate.__struct_fields__})
        for report in done.snapshots
    )
    free = _free(vault.storage.folder)
    return BackupEstimate(
        vault=vault.storage.url,
        stores=rows,
        failed=done.failed,
        source_bytes=sum(row.source_bytes for row in rows),
        added_bytes=rehearsed.put_bytes,
        free_bytes=free,
        fits=None if free is None else rehearsed.put_bytes <= free,
        speed=speed,
        seconds=_seconds(rehearsed.put_bytes, speed),
    )


def estimate_restore(
    vault: Vault, snapshot: str, *, to: Path | None = None, speed: int | None = None
) -> RestoreEstimate:
    """Count what a restore of a snapshot would fetch and write. Raises `StoreError` and `DamagedError` as that does."""
    chosen = vault.resolve(snapshot)
    images = [vault.image(part) for part in chosen.parts]
    recipes = [part.image for part in chosen.parts] + [stored.recipe for image in images for stored in image.entries]
    wanted = {one for recipe in recipes if recipe is not None for one in split_ids(recipe.ids)}
    fetch = sum(place.length for place in vault.reader.closure(wanted).values())
    size = sum(part.bytes for part in chosen.parts)
    target = to.expanduser().absolute() if to is not None else None
    free = _free(target)
    return RestoreEstimate(
        snapshot=chosen.id,
        system=chosen.system,
        records=chosen.records,
        files=sum(part.files for part in chosen.parts),
        bytes=size,
        fetch_bytes=fetch,
        to=str(target) if target is not None else None,
        free_bytes=free,
        fits=None if free is None else size <= free,
        speed=speed,
        seconds=_seconds(fetch, speed),
    )


def _free(folder: Path | None) -> int | None:
    """Return the bytes free where a folder is or would be; None when it is in no file system."""
    if folder is None:
        return None
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def _seconds(size: int, speed: int | None) -> float | None:
    return round(size / speed, 3) if speed else None

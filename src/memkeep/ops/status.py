"""Every store: its last snapshot, how far that was proven and when, and what is unprotected."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from memkeep import clock
from memkeep.model import BEFORE_RESTORE, Finding, Omission, Rung, Snapshot, Store, is_url
from memkeep.ops.run_state import LastRun, last_run
from memkeep.ops.schedule import Installed, installed
from memkeep.ops.snapshots import lost_snapshots, rung_of
from memkeep.vault.vault import Vault


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A store that is there now or was backed up once. `present` says whether it is there now.

    `last` is its newest backup: what a restore kept of it before is none, unless there is nothing else.
    """

    system: str
    path: str
    present: bool
    protected: bool
    records: int | None
    snapshots: int
    last: str | None  # id of its last snapshot
    last_at: str | None
    age_s: float | None
    rung: Rung
    rung_at: str | None
    unprotected: tuple[Omission, ...]  # what the last snapshot left out
    findings: tuple[Finding, ...]


class StatusResult(msgspec.Struct, frozen=True, kw_only=True):
    """The vault, if there is one, and the stores."""

    vault: str | None
    encrypted: bool | None
    snapshots: int
    stores: tuple[StoreStatus, ...]
    unreadable: tuple[str, ...] = ()  # ids of snapshots whose manifest is damaged or lost
    schedule: Installed | None = None  # of `memkeep run`
    last_run: LastRun | None = None


def status(vault: Vault | None, stores: Sequence[Store]) -> StatusResult:
    """Put the stores that were found beside the snapshots of the vault."""
    listed = vault.snapshots() if vault is not None else []
    by_store: dict[tuple[str, str], list[Snapshot]] = {}
    for one in (each for each in listed if each.user is None):  # the rest of the store is not in such a one
        by_store.setdefault((one.system, one.path), []).append(one)
    live = {(store.system, store.path): store for store in stores}
    rows = [_row(vault, key, live.get(key), by_store.get(key, [])) for key in dict.fromkeys((*live, *by_store))]
    return StatusResult(
        vault=vault.storage.url if vault is not None else None,
        encrypted=vault.config.encrypted if vault is not None else None,
        snapshots=len(listed),
        stores=tuple(rows),
        unreadable=tuple(lost_snapshots(vault)) if vault is not None else (),
        schedule=installed(),
        last_run=last_run(),
    )


def _row(vault: Vault | None, key: tuple[str, str], store: Store | None, snapshots: list[Snapshot]) -> StoreStatus:
    backups = [one for one in snapshots if one.tag != BEFORE_RESTORE] or snapshots
    last = backups[-1] if backups else None
    rung, at = rung_of(vault, last) if vault is not None and last is not None else (Rung.NONE, None)
    taken = clock.moment(last.created) if last is not None else None
    age = (clock.now() - taken).total_seconds() if taken is not None else None
    return StoreStatus(
        system=key[0],
        path=key[1],
        present=store is not None or is_url(key[1]) or Path(key[1]).exists(),
        protected=last is not None,
        records=store.records if store is not None else last.records if last is not None else None,
        snapshots=len(snapshots),
        last=last.id if last is not None else None,
        last_at=last.created if last is not None else None,
        age_s=round(age, 1) if age is not None else None,
        rung=rung,
        rung_at=at,
        unprotected=last.omitted if last is not None else (),
        findings=last.findings if last is not None else store.findings if store is not None else (),
    )

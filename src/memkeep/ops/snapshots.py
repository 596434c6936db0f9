"""List snapshots, and show what one holds."""

import re
from typing import Any

import msgspec

from memkeep.model import Finding, Omission, PartSummary, Role, Rung, Snapshot
from memkeep.ops import ledger
from memkeep.vault import format
from memkeep.vault.vault import Vault

_ID = re.compile("[0-9a-f]{64}")


class PartShown(msgspec.Struct, frozen=True, kw_only=True):
    """A part in a snapshot; `rows` has the tables that are not empty."""

    name: str
    engine: str
    role: Role
    how: str
    files: int
    bytes: int
    rows: dict[str, int]


class SnapshotRow(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot in a list."""

    id: str
    created: str
    system: str
    path: str
    user: str | None  # whose memory alone it holds
    records: int | None
    source_bytes: int
    added_bytes: int
    rung: Rung
    consistent: bool
    tag: str | None
    label: str | None


class SnapshotList(msgspec.Struct, frozen=True, kw_only=True):
    """Snapshots, oldest first; `unreadable` names manifests that are damaged or lost."""

    snapshots: tuple[SnapshotRow, ...]
    unreadable: tuple[str, ...]


class ShowResult(msgspec.Struct, frozen=True, kw_only=True):
    """All that the manifest of a snapshot says."""

    id: str
    created: str
    system: str
    path: str
    host: str
    parent: str | None
    tag: str | None
    label: str | None
    records: int | None
    source_bytes: int
    added_bytes: int
    duration_s: float
    rung: Rung
    rung_at: str
    consistent: bool
    categories: dict[str, int]
    scopes: dict[str, int]
    oldest: str | None
    newest: str | None
    collections: dict[str, int]
    vectors: dict[str, Any]
    fingerprint: dict[str, Any]
    mapping: str
    parts: tuple[PartShown, ...]
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...]
    memkeep: str


def list_snapshots(vault: Vault, *, system: str | None = None, tag: str | None = None) -> SnapshotList:
    """Return the snapshots of a vault, oldest first."""
    rows = tuple(
        SnapshotRow(
            **{name: getattr(one, name) for name in SnapshotRow.__struct_fields__} | {"rung": rung_of(vault, one)[0]}
        )
        for one in vault.snapshots()
        if (system is None or one.system == system) and (tag is None or one.tag == tag)
    )
    return SnapshotList(
        snapshots=rows,
        unreadable=tuple(format.SNAPSHOTS + identity for identity in lost_snapshots(vault)),
    )


def show(vault: Vault, name: str) -> ShowResult:
    """Return what one snapshot holds; raises `StoreError` when no snapshot is called so."""
    one = vault.resolve(name)
    rung, at = rung_of(vault, one)
    summary = one.summary
    same = {field: getattr(one, field) for field in ShowResult.__struct_fields__ if hasattr(one, field)}
    return ShowResult(
        **same
        | {
            "rung": rung,
            "rung_at": at,
            "categories": summary.get("categories", {}),
            "scopes": summary.get("scopes", {}),
            "oldest": summary.get("oldest"),
            "newest": summary.get("newest"),
            "collections": summary.get("collections", {}),
            "vectors": summary.get("vectors", {}),
            "parts": tuple(_shown(part) for part in one.parts),
        }
    )


def rung_of(vault: Vault, snapshot: Snapshot) -> tuple[Rung, str]:
    """Return the rung last proven on this machine and when, or what the backup itself reached.

    A later check that found damage counts more than an earlier one that reached higher.
    """
    check = ledger.read(vault.config.id).get(snapshot.id)
    if check is not None and (not check.good or check.rung.height >= snapshot.rung.height):
        return check.rung, check.at
    return snapshot.rung, snapshot.created


def lost_snapshots(vault: Vault) -> list[str]:
    """Return the ids of snapshots whose manifest can't be read, or was lost without being forgotten."""
    keys = {error.obj for error in vault.damaged}
    there = {stat.key for stat in vault.storage.list(format.SNAPSHOTS)}
    seals = vault.log()[0].values()
    sealed = {key for seal in seals for key in seal.snapshots}
    keys |= sealed - there - {key for seal in seals for key in seal.forgotten}
    names = {key.removeprefix(format.SNAPSHOTS) for key in keys if key.startswith(format.SNAPSHOTS)}
    return sorted(name for name in names if _ID.fullmatch(name))


def _shown(part: PartSummary) -> PartShown:
    return PartShown(**{name: getattr(part, name) for name in PartShown.__struct_fields__})

"""Forget snapshots: those that a retention policy does not keep, or those that are named.

What is forgotten is no longer listed and can't be restored; the space is given back by `prune`. Unless confirmed, the
last good snapshot of a store stays: the newest that was proven to `readable` or higher, or its last one at all when
none was.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import msgspec

from memkeep import clock
from memkeep.config import Retention
from memkeep.errors import RefusedError, StoreError
from memkeep.model import Rung, Snapshot
from memkeep.ops.hold import held_until
from memkeep.ops.retention import Candidate, Verdict, judge
from memkeep.ops.snapshots import lost_snapshots, rung_of
from memkeep.vault import format
from memkeep.vault.vault import Vault


class KeptRow(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that stays, and why. Named snapshots are forgotten for no rule: then what stays needs no reason."""

    snapshot: str
    created: str
    system: str
    path: str
    host: str
    tag: str | None
    rung: Rung
    reasons: tuple[str, ...]


class ForgottenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that goes. Of one whose manifest is `damaged` or lost only the id is known.

    Of one that is `locked_until` a day the storage keeps the bytes so long: Object Lock.
    """

    snapshot: str
    damaged: bool = False
    created: str | None = None
    system: str | None = None
    path: str | None = None
    host: str | None = None
    tag: str | None = None
    rung: Rung = Rung.NONE
    locked_until: str | None = None


class ForgetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What stays and what goes, each oldest first."""

    dry_run: bool
    kept: tuple[KeptRow, ...]
    forgotten: tuple[ForgottenRow, ...]


def forget(
    vault: Vault,
    names: Sequence[str] = (),
    *,
    retention: Retention | None = None,
    confirm: str | None = None,
    dry_run: bool = False,
) -> ForgetResult:
    """Forget the snapshots that are named, or else those that the policy does not keep.

    `confirm` names the system whose last good snapshot may go; a policy keeps at least one of each store even then.
    Raises `StoreError` for a name that fits no snapshot, `RefusedError` (`last_good`) for named ones that must be
    confirmed, `UsageError` for a policy that makes no sense, `VaultLeasedError` while another removes things.
    """
    with ExitStack() as held:
        if not dry_run:
            # Taken before looking: so no other can take away in between what this one counts on staying.
            vault.check_removes()
            lease = held.enter_context(vault.lease("forget", exclusive=True))
        listed = vault.snapshots()
        if names:
            damaged, gone = _named(vault, listed, names)
            candidates = [_candidate(vault, one) for one in listed]
            verdicts = [Verdict(snapshot=one, reasons=() if one.id in gone else ("not named",)) for one in candidates]
            _check_last_good(verdicts, confirm)
        else:
            damaged = []
            unguarded = frozenset([confirm]) if confirm is not None else frozenset()
            candidates = [_candidate(vault, one) for one in listed]
            verdicts = judge(candidates, retention or Retention(), now=clock.now(), unguarded=unguarded)
        result = ForgetResult(
            dry_run=dry_run,
            kept=tuple(_kept(one) for one in verdicts if one.reasons),
            forgotten=(
                *(ForgottenRow(snapshot=name, damaged=True) for name in damaged),
                *(_forgotten(one.snapshot) for one in verdicts if not one.reasons),
            ),
        )
        keys = [format.SNAPSHOTS + one.snapshot for one in result.forgotten]
        result = _with_days(result, held_until(vault, keys))
        if not dry_run and keys:
            lease.check()
            refused = vault.remove(keys)
            vault.damaged = [error for error in vault.damaged if error.obj not in keys]
            if refused:
                refused[0].unchanged = "What could not be removed is still there, although the log says that it may go."
                raise refused[0]
    return result


def _candidate(vault: Vault, snapshot: Snapshot) -> Candidate:
    return Candidate(
        id=snapshot.id,
        created=snapshot.created,
        system=snapshot.system,
        path=snapshot.path,
        host=snapshot.host,
        user=snapshot.user,
        tag=snapshot.tag,
        rung=rung_of(vault, snapshot)[0],
    )


def _named(vault: Vault, listed: Sequence[Snapshot], names: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the ids that names stand for: those of damaged or lost manifests, and those of readable ones."""
    broken = lost_snapshots(vault)
    damaged: dict[str, None] = {}
    gone = set()
    for name in names:
        fitting = [one for one in broken if one.startswith(name.lower())]
        readable = [one for one in listed if one.id.startswith(name.lower())]
        if len(fitting) == 1 and not readable:
            damaged |= dict.fromkeys(fitting)
        elif fitting:
            message = f"{name} names {len(fitting) + len(readable)} snapshots"
            raise StoreError(message, code="no_snapshot", hint="memkeep verify --all")
        else:
            gone.add(vault.resolve(name).id)
    return list(damaged), gone


def _check_last_good(verdicts: Sequence[Verdict], confirm: str | None) -> None:
    """Refuse to take a store's only good snapshots, or its only ones at all, unless that was confirmed."""
    stores: dict[tuple[str, str, str, str], list[Verdict]] = {}
    for one in verdicts:
        stores.setdefault(one.snapshot.store, []).append(one)
    for (system, path, *_), own in stores.items():
        good = [one for one in own if one.snapshot.good] or own
        if system == confirm or any(one.reasons for one in good):
            continue
        last = good[-1].snapshot
        named = " ".join(one.snapshot.id[:12] for one in own if not one.reasons)
        what = "good snapshot" if last.good else "snapshot"
        raise RefusedError(
            f"{last.id[:12]} is the last {what} of {system} at {path}",
            hint=f"memkeep forget {named} --confirm={system}",
            code="last_good",
        )


def _kept(verdict: Verdict) -> KeptRow:
    return KeptRow(**_shown(verdict.snapshot), reasons=verdict.reasons)


def _forgotten(one: Candidate) -> ForgottenRow:
    return ForgottenRow(**_shown(one))


def _with_days(result: ForgetResult, days: dict[str, datetime]) -> ForgetResult:
    rows = []
    for row in result.forgotten:
        day = days.get(format.SNAPSHOTS + row.snapshot)
        rows.append(msgspec.structs.replace(row, locked_until=day.isoformat() if day is not None else None))
    return msgspec.structs.replace(result, forgotten=tuple(rows))


def _shown(one: Candidate) -> dict[str, Any]:
    same = {name: getattr(one, name) for name in ("created", "system", "path", "host", "tag", "rung")}
    return same | {"snapshot": one.id}

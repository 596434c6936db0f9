"""Prove snapshots: the ladder, and the survey of the vault as a whole."""

import msgspec

from memkeep.errors import DamagedError, MemkeepError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, PartImage, Rung, Severity, Snapshot
from memkeep.ops import ledger
from memkeep.ops.compare import UNREADABLE, compare_part
from memkeep.ops.materialise import materialise
from memkeep.ops.prove import Packs, chunks_of, decode_all, packs_of
from memkeep.ops.scratch import scratch
from memkeep.ops.survey import survey
from memkeep.vault.vault import Vault


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True):
    """How far one snapshot was proven."""

    snapshot: str
    rung: Rung
    findings: tuple[Finding, ...]


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Results by snapshot, and what is wrong with the vault beside them."""

    snapshots: tuple[VerifyResult, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def damaged(self) -> bool:
        """Whether bytes are lost or changed."""
        return any(one.object for one in self.all_findings)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Findings of the vault and of all snapshots."""
        return (*self.findings, *(finding for one in self.snapshots for finding in one.findings))


def verify(
    vault: Vault,
    snapshot: str | None = None,
    *,
    rung: Rung = Rung.READABLE,
    all: bool = False,
    events: Events = SILENT,
) -> VerifyReport:
    """Climb the ladder to `rung` for one snapshot (default: the latest) or for all, and survey the vault.

    Findings with an `object` mean that bytes are damaged. Nothing in the vault is changed. Raises `StoreError` for a
    name that fits no snapshot.
    """
    packs = Packs(vault)
    found = survey(vault)
    if all:
        chosen = vault.snapshots()
    elif snapshot is None and not vault.snapshots() and found:
        chosen = []
    else:
        chosen = [vault.resolve(snapshot or "latest")]
    results = [_climb(vault, one, rung, packs, events) for one in chosen]
    hurt = _who_is_hurt(vault, {finding.object for finding in found if finding.object} | _objects(results))
    if all:
        loose = sorted(set(vault.index.packs) - {obj for finding in found if (obj := finding.object)})
        known = _objects(results)
        found += [_damage(error, ()) for error in packs.intact(loose, events) if error.obj not in known]
    report = VerifyReport(
        snapshots=tuple(
            msgspec.structs.replace(one, findings=tuple(_with_hurt(finding, hurt) for finding in one.findings))
            for one in results
        ),
        findings=tuple(_with_hurt(finding, hurt) for finding in found),
    )
    for one in report.snapshots:
        ledger.note(vault.config.id, one.snapshot, one.rung, good=one.rung.height >= rung.height and not one.findings)
    return report


def _climb(vault: Vault, snapshot: Snapshot, goal: Rung, packs: Packs, events: Events) -> VerifyResult:
    findings: list[Finding] = []

    def result(rung: Rung) -> VerifyResult:
        return VerifyResult(snapshot=snapshot.id, rung=rung, findings=tuple(findings))

    try:
        events.step(f"{snapshot.id[:8]} present")
        images, errors = _images(vault, snapshot)
        needed = packs_of(vault, chunks_of(vault, snapshot.parts, images))
    except DamagedError as error:
        findings.append(_damage(error, (snapshot.id,)))
        return result(Rung.NONE)
    errors += packs.present(needed)
    findings += [_damage(error, (snapshot.id,)) for error in errors]
    if findings or goal.height < Rung.INTACT.height:
        return result(Rung.NONE if findings else Rung.PRESENT)
    events.step(f"{snapshot.id[:8]} intact", sum(part.bytes for part in snapshot.parts))
    findings += [_damage(error, (snapshot.id,)) for error in packs.intact(needed, events)]
    if not findings:
        try:
            decode_all(vault, images, events)
        except DamagedError as error:
            findings.append(_damage(error, (snapshot.id,)))
    if findings or goal.height < Rung.READABLE.height:
        return result(Rung.PRESENT if findings else Rung.INTACT)
    events.step(f"{snapshot.id[:8]} readable")
    for image in images:
        with scratch() as folder:
            materialise(vault, [image], folder, events, durable=False)
            findings += compare_part(vault, image, folder, deep=False)
    if _bad(findings) or goal.height < Rung.RESTORABLE.height:
        return result(Rung.INTACT if _bad(findings) else Rung.READABLE)
    events.step(f"{snapshot.id[:8]} restorable")
    with scratch() as folder:
        materialise(vault, images, folder, events)
        if goal is Rung.EQUIVALENT:
            events.step(f"{snapshot.id[:8]} equivalent")
            for image in images:
                findings += compare_part(vault, image, folder, deep=True)
    if goal is Rung.RESTORABLE or _bad(findings):
        return result(Rung.RESTORABLE)
    return result(Rung.EQUIVALENT)


def _images(vault: Vault, snapshot: Snapshot) -> tuple[list[PartImage], list[DamagedError]]:
    images, errors = [], []
    for part in snapshot.parts:
        try:
            images.append(vault.image(part))
        except DamagedError as error:
            errors.append(error)
    return images, errors


def _bad(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR or finding.code in UNREADABLE for finding in findings)


def _damage(error: DamagedError, snapshots: tuple[str, ...]) -> Finding:
    return Finding(
        code="damaged",
        severity=Severity.ERROR,
        message=error.message,
        object=error.obj or "snapshot",
        snapshots=snapshots,
        mend="put the object back from a copy of the vault, or back up again",
    )


def _objects(results: list[VerifyResult]) -> set[str]:
    return {finding.object for one in results for finding in one.findings if finding.object}


def _with_hurt(finding: Finding, hurt: dict[str, tuple[str, ...]]) -> Finding:
    more = hurt.get(finding.object or "", ())
    return msgspec.structs.replace(finding, snapshots=tuple(dict.fromkeys((*finding.snapshots, *more))))


def _who_is_hurt(vault: Vault, objects: set[str]) -> dict[str, tuple[str, ...]]:
    """Return for each damaged pack the snapshots that need it."""
    if not objects:
        return {}
    hurt: dict[str, list[str]] = {}
    for snapshot in vault.snapshots():
        try:
            images, errors = _images(vault, snapshot)
            needed = set(packs_of(vault, chunks_of(vault, snapshot.parts, images))) | {error.obj for error in errors}
        except MemkeepError as error:
            needed = {getattr(error, "obj", "")}
            if needed & {"index/"}:
                needed |= {name for name in objects if name.startswith("index/")}
        for name in needed & objects:
            hurt.setdefault(name, []).append(snapshot.id)
    return {name: tuple(ids) for name, ids in hurt.items()}

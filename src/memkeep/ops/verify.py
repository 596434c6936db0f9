"""Prove snapshots: the ladder, and the survey of the vault as a whole."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from memkeep.errors import DamagedError, MemkeepError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, PartImage, Rung, Severity, Snapshot
from memkeep.ops import ledger
from memkeep.ops.compare import compare_part, spoiled
from memkeep.ops.entries import check_entries
from memkeep.ops.materialise import materialise
from memkeep.ops.open import afresh
from memkeep.ops.prove import Chunks, Packs, check_pieces, chunks_of, packs_of
from memkeep.ops.scratch import scratch
from memkeep.ops.survey import mend_of, survey
from memkeep.ops.vector_sizes import mixed_sizes
from memkeep.vault import format
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
    snapshot: str | Sequence[str] | None = None,
    *,
    rung: Rung = Rung.READABLE,
    all: bool = False,
    remember: bool = True,
    events: Events = SILENT,
) -> VerifyReport:
    """Climb the ladder to `rung` for one snapshot or several (default: the latest) or for all, and survey the vault.

    Findings with an `object` mean that bytes are damaged. Nothing in the vault is changed; what was proven is
    remembered in the user's state folder, unless `remember` is False. Raises `StoreError` for a
    name that fits no snapshot.
    """
    with afresh(vault) as now:
        report = _verify(now, snapshot, rung=rung, all=all, events=events)
        if report.damaged:
            report = _still_so(now, report, rung)
    for one in report.snapshots if remember else ():
        ledger.note(vault.config.id, one.snapshot, one.rung, good=one.rung.height >= rung.height and not one.findings)
    return report


def _verify(
    vault: Vault, snapshot: str | Sequence[str] | None, *, rung: Rung, all: bool, events: Events
) -> VerifyReport:
    packs = Packs(vault, vault.storage)
    found = survey(vault)
    if all:
        chosen = vault.snapshots()
    elif snapshot == []:
        chosen = []
    elif not snapshot and found:
        chosen = vault.snapshots()[-1:]  # whether a lost one is newer is among the findings
    else:
        chosen = [vault.resolve(name) for name in ([snapshot] if isinstance(snapshot, str) else snapshot or ["latest"])]
    chunks = Chunks(vault)
    if len(chosen) > 1 and rung.height >= Rung.INTACT.height:
        events.step("chunks of all snapshots", sum(part.bytes for one in chosen for part in one.parts))
        chunks.decode(set().union(*(_Climber(vault, one, packs, chunks, SILENT).to_decode() for one in chosen)), events)
    results = [_Climber(vault, one, packs, chunks, events).climb(rung) for one in chosen]
    hurt = _who_is_hurt(vault, {finding.object for finding in found if finding.object} | _objects(results))
    if all:
        # Those too that no index segment names: the segment may be what is damaged.
        there = {stat.key for stat in vault.storage.list(format.DATA)}
        packs.intact(sorted(there - {finding.object for finding in found if finding.object}), events)
    known = _objects(results) | {finding.object for finding in found}
    found += [_damage(error, ()) for error in packs.damaged() if error.obj not in known]
    return VerifyReport(
        snapshots=tuple(
            msgspec.structs.replace(one, findings=tuple(_with_hurt(finding, hurt) for finding in one.findings))
            for one in results
        ),
        findings=tuple(_with_hurt(finding, hurt) for finding in found),
    )


def _still_so(vault: Vault, report: VerifyReport, rung: Rung) -> VerifyReport:
    """Look again at what is damaged, in the vault as it is by now: a forget or a prune may have taken it meanwhile.

    A manifest that can't be read now is not gone; what is found only now is added.
    """
    hurt = {one.snapshot for one in report.snapshots if any(finding.object for finding in one.findings)}
    fresh = Vault(vault.storage, vault.config, vault.keys)
    there = {one.id for one in fresh.snapshots()}
    unread = {error.obj.removeprefix(format.SNAPSHOTS) for error in fresh.damaged}
    again = _verify(fresh, sorted(hurt & there), rung=rung, all=False, events=SILENT)
    results = {one.snapshot: one for one in again.snapshots}
    known = {finding.object for finding in again.all_findings}
    packs = Packs(fresh, fresh.storage)
    seen = {stat.key for stat in fresh.storage.list(format.DATA)}

    def lasts(finding: Finding) -> bool:
        name = finding.object or ""
        return not name or name in known or (name in seen and bool(packs.intact([name], SILENT)))

    lasting = [finding for finding in report.findings if lasts(finding)]
    said = {(finding.code, finding.object, finding.message) for finding in lasting}
    return VerifyReport(
        snapshots=tuple(
            results.get(one.snapshot, one)
            for one in report.snapshots
            if one.snapshot not in hurt or one.snapshot in results or one.snapshot in unread
        ),
        findings=(*lasting, *(one for one in again.findings if (one.code, one.object, one.message) not in said)),
    )


class _Climber:
    """Climbs the ladder for one snapshot; a step says whether its rung was reached."""

    def __init__(self, vault: Vault, snapshot: Snapshot, packs: Packs, chunks: Chunks, events: Events) -> None:
        self._vault = vault
        self._snapshot = snapshot
        self._packs = packs
        self._chunks = chunks
        self._events = events
        self._images: list[PartImage] = []
        self.findings: list[Finding] = []

    def climb(self, goal: Rung) -> VerifyResult:
        """Go up to `goal`, or as far as it goes."""
        steps = (self._present, self._intact, self._readable, self._restorable, self._equivalent)
        reached = Rung.NONE
        for rung, step in zip(list(Rung)[1:], steps, strict=True):
            if rung.height > goal.height:
                break
            self._events.step(f"{self._snapshot.id[:12]} {rung}", sum(part.bytes for part in self._snapshot.parts))
            try:
                if not step():
                    break
            except DamagedError as error:
                self._note([error])
                break
            reached = rung
        return VerifyResult(snapshot=self._snapshot.id, rung=reached, findings=tuple(dict.fromkeys(self.findings)))

    def _present(self) -> bool:
        self._images, errors = _images(self._vault, self._snapshot)
        errors += self._whole(self._packs.present)
        whole = self._note(errors)
        check_entries(self._images)
        return whole

    def _intact(self) -> bool:
        """Prove every byte of the packs, every chunk, and that the streams add up.

        What the digest of a stream says follows: its bytes are those of its chunks, and it was taken while they were
        cut. It is compared for itself when the stream is put together, from the next rung on.
        """
        errors = self._hash()
        if not errors:
            errors = self._chunks.decode(chunks_of(self._snapshot.parts, self._images), self._events)
        whole = self._note(errors)
        if whole:
            check_pieces(self._vault, self._images)
        return whole

    def to_decode(self) -> set[bytes]:
        """Return the chunks that the rung `intact` will decode: none when it will not get so far."""
        self._images, errors = _images(self._vault, self._snapshot)
        return set() if errors or self._hash() else chunks_of(self._snapshot.parts, self._images)

    def _hash(self) -> list[DamagedError]:
        return self._whole(lambda needed: self._packs.intact(needed, self._events))

    def _whole(self, look: Callable[[list[str]], list[DamagedError]]) -> list[DamagedError]:
        """Check the packs that are needed; where one is damaged, another may have copies of its chunks."""
        chunks = chunks_of(self._snapshot.parts, self._images)
        while True:
            try:
                errors = look(packs_of(self._vault, chunks))
            except DamagedError as error:
                return [error]
            if not any([self._vault.index.distrust(error.obj) for error in errors]):  # noqa: C419 - all of them
                return errors

    def _readable(self) -> bool:
        return self._compare(deep=False)

    def _restorable(self) -> bool:
        with scratch() as folder:
            materialise(self._vault, self._images, folder, self._events)
        return True

    def _equivalent(self) -> bool:
        return self._compare(deep=True)

    def _compare(self, *, deep: bool) -> bool:
        """Put each part into scratch space of its own, two at a time, and compare it with what it was."""

        def one(image: PartImage) -> list[Finding]:
            with scratch() as folder:
                materialise(self._vault, [image], folder, self._events, durable=False)
                found = compare_part(image, folder, against=self._vault if deep else None)
            return [*found, *mixed_sizes(image)]

        with ThreadPoolExecutor(2, "memkeep-compare") as pool:
            for found in pool.map(one, self._images):
                self.findings += found
        return not spoiled(self.findings)

    def _note(self, errors: list[DamagedError]) -> bool:
        self.findings += [_damage(error, (self._snapshot.id,)) for error in errors]
        return not errors


def _images(vault: Vault, snapshot: Snapshot) -> tuple[list[PartImage], list[DamagedError]]:
    images, errors = [], []
    for part in snapshot.parts:
        try:
            images.append(vault.image(part))
        except DamagedError as error:
            errors.append(error)
    return images, errors


def _damage(error: DamagedError, snapshots: tuple[str, ...]) -> Finding:
    return Finding(
        code="damaged",
        severity=Severity.ERROR,
        message=error.message,
        object=error.obj or "snapshot",
        snapshots=snapshots,
        mend=mend_of(error.obj),
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
            needed = set(packs_of(vault, chunks_of(snapshot.parts, images))) | {error.obj for error in errors}
        except MemkeepError as error:
            needed = {getattr(error, "obj", "")}
            if needed & {"index/"}:
                needed |= {name for name in objects if name.startswith("index/")}
        for name in needed & objects:
            hurt.setdefault(name, []).append(snapshot.id)
    return {name: tuple(ids) for name, ids in hurt.items()}

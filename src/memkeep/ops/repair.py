"""Mend a vault: describe anew the packs that lost their index, save what is readable of damaged ones, say what is lost.

What is mended is written before anything is removed. Index segments and log entries that can't be read are removed
then, and damaged packs only when every snapshot is whole without them: else more may be had of them one day.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec

from memkeep.errors import DamagedError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, PartImage, PartSummary, Severity
from memkeep.ops.prove import chunks_of
from memkeep.ops.survey import survey
from memkeep.storage.base import ObjectMissingError
from memkeep.vault import format
from memkeep.vault.codec import Coder
from memkeep.vault.index import Location
from memkeep.vault.lease import Held
from memkeep.vault.prune import Condemned, Due, condemn, dangling, sweep
from memkeep.vault.reader import split_ids
from memkeep.vault.rebuild import Rebuild, Span, walk
from memkeep.vault.segment import build_segment, read_segment
from memkeep.vault.vault import Vault, remove_all
from memkeep.vault.writer import SEGMENT, put_seal, put_segment

MEND = "memkeep backup (stores again what the store still has), or put the object back from a copy of the vault"


class LostPart(msgspec.Struct, frozen=True, kw_only=True):
    """What is lost of a part: all of it, or some of its files and record groups."""

    part: str
    whole: bool
    files: tuple[str, ...] = ()
    records: dict[str, int] = {}  # collection -> rows in the lost groups


class HurtSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that can't be made whole. What is not named can be restored."""

    snapshot: str
    created: str
    system: str
    path: str
    lost: tuple[LostPart, ...]


class RepairResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was mended (in a dry run: would be), and what can't be."""

    dry_run: bool
    rebuilt_packs: int  # that no index segment described
    rebuilt_chunks: int
    saved_chunks: int  # out of damaged packs
    damaged_packs: tuple[str, ...]
    removed: tuple[str, ...]  # index segments and log entries that could not be read
    whole: tuple[str, ...]  # snapshots
    hurt: tuple[HurtSnapshot, ...]
    findings: tuple[Finding, ...]  # after the repair


def repair(vault: Vault, *, dry_run: bool = False, events: Events = SILENT) -> RepairResult:
    """Read every pack, mend what can be mended, and look again; nobody else may repair or prune meanwhile.

    A repair that is killed at any write has removed nothing that could be read. Raises `VaultLeasedError`.
    """
    with vault.lease("repair", exclusive=True) as held:
        vault.refresh()
        run = _Run(vault, held, dry_run=dry_run, events=events)
        run.read_packs()
        run.describe()
        run.save()
        hurt = list(run.hurt())
        removed = run.reseal()
        if not hurt:
            removed += run.drop_damaged()
        return run.result(hurt, removed)


class _Run:
    """One repair."""

    def __init__(self, vault: Vault, held: Held, *, dry_run: bool, events: Events) -> None:
        self._vault = vault
        self._held = held
        self._dry_run = dry_run
        self._events = events
        self._sizes = {stat.key: stat.size for stat in vault.storage.list(format.DATA)}
        self._bad: dict[str, DamagedError] = {}
        self._broken: tuple[str, ...] = ()
        self._good = Rebuild(vault)  # of packs that nothing describes
        self._damaged = Rebuild(vault)
        self._described: set[str] = set()
        self._rebuilt: list[tuple[bytes, Location]] = []
        self._saved: set[bytes] = set()

    def read_packs(self) -> None:
        """Read and hash every pack; note where blobs may lie in those that are damaged or that nothing describes."""
        self._events.step("reading packs", sum(self._sizes.values()))
        for pack in sorted(self._sizes):
            self._held.renew()
            try:
                data = self._vault.storage.get(pack)
            except ObjectMissingError:
                continue  # removed by another process
            self._events.advance(len(data))
            if not pack.endswith("/" + hashlib.sha256(data).hexdigest()):
                self._bad[pack] = DamagedError(f"{pack} is not what was written (SHA-256 differs)", obj=pack)
                # The index knows where the blobs are even when a length is what is damaged.
                known = [Span(pack, place.offset, place.length) for _, place in self._vault.index.entries({pack})]
                inside = [one for one in known if one.offset + one.length <= len(data)]
                self._damaged.add([*inside, *walk(pack, data)])
            elif pack not in self._vault.index.packs:
                self._good.add(walk(pack, data))
        for pack in self._vault.index.packs.keys() - self._sizes.keys():
            self._bad[pack] = DamagedError(f"{pack} is missing", obj=pack)
        self._broken = tuple(sorted(self._bad))
        for pack in self._bad:
            self._vault.index.distrust(pack)

    def describe(self) -> None:
        """Write index segments of the packs that none described."""
        self._events.step("describing packs")
        for found in self._good.resolve():
            self._rebuilt.append((found.one, found.place))
            if len(self._rebuilt) % SEGMENT == 0:
                self._segment(self._rebuilt[-SEGMENT:])
        if rest := len(self._rebuilt) % SEGMENT:
            self._segment(self._rebuilt[-rest:])

    def save(self) -> None:
        """Store again what can be read of damaged packs, where it lies nowhere else."""
        if not self._damaged.unresolved:
            return
        self._events.step("saving what can be read")
        if self._dry_run:
            self._saved.update(found.one for found in self._damaged.resolve() if not self._has(found.one))
            self._saved.update(one for one, _ in self._doubtful())
            return
        depths: dict[bytes, int] = {}
        with self._vault.writer() as writer:
            for found in self._damaged.resolve():
                base = found.place.base
                if self._has(found.one) or found.one in self._saved:
                    continue
                depth = 0 if base is None else depths.get(base, self._depth(base)) + 1
                depths[found.one] = depth
                writer.put_encoded(found.one, found.blob, found.place.raw, depth, base)
                self._saved.add(found.one)
            writer.flush()
            for one, raw in self._doubtful():
                writer.put_encoded(one, Coder().full(raw), len(raw), 0, None)
                self._saved.add(one)
            writer.flush()
            self._described.update(writer.objects)

    def _doubtful(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield chunks whose base is damaged and that come out right even so: not where they need it."""
        lost = _Lost(self._vault, self._saved)
        for snapshot in self._vault.snapshots():
            for part in snapshot.parts:
                for chunks in (_named_by(part), self._named_in(part)):
                    for one in sorted(lost.of(sorted(chunks - self._saved))):
                        with suppress(DamagedError):
                            yield one, self._vault.reader.chunk(one)

    def _named_in(self, part: PartSummary) -> set[bytes]:
        try:
            return chunks_of((), [self._vault.image(part)])
        except DamagedError:
            return set()

    def hurt(self) -> Iterator[HurtSnapshot]:
        """Yield the snapshots that lack something, and what."""
        lost = _Lost(self._vault, self._saved if self._dry_run else set())
        for snapshot in self._vault.snapshots():
            parts = [found for part in snapshot.parts if (found := self._lost_of(part, lost)) is not None]
            if parts:
                yield HurtSnapshot(
                    snapshot=snapshot.id,
                    created=snapshot.created,
                    system=snapshot.system,
                    path=snapshot.path,
                    lost=tuple(parts),
                )

    def reseal(self) -> tuple[str, ...]:
        """Write a seal that says what there is, and remove the segments and log entries that can't be read."""
        seals, unreadable = self._vault.log()
        there = {stat.key for stat in self._vault.storage.list("")}
        forgotten = {key for seal in seals.values() for key in seal.forgotten}
        named = {key for seal in seals.values() for key in (*seal.previous, *seal.objects)} - forgotten
        gone = {key for key in named - there if key.startswith((format.INDEX, format.SEALS))}
        broken = {error.obj for error in [*self._vault.damaged, *unreadable]}
        broken = {key for key in broken & there if key.startswith((format.INDEX, format.SEALS))}
        seal, number = self._vault.next_seal()
        if not (gone or broken or seal.snapshots or self._described) or self._dry_run:
            return tuple(sorted(broken))
        put_seal(
            self._vault.storage,
            self._vault.keys,
            msgspec.structs.replace(
                seal,
                previous=tuple(key for key in seal.previous if key not in broken),
                objects=tuple(dict.fromkeys([*seal.objects, *sorted(self._described)])),
                forgotten=tuple(sorted(gone | broken)),
            ),
            number,
        )
        refused = remove_all(self._vault.storage, sorted(broken))
        if refused:
            raise refused[0]
        return tuple(sorted(broken))

    def drop_damaged(self) -> tuple[str, ...]:
        """Remove damaged packs, of which nothing is needed any more."""
        unreadable = any(error.obj.startswith(format.SNAPSHOTS) for error in self._vault.damaged)
        if unreadable or not self._bad or self._dry_run or self._lost_manifests():
            return ()
        index = self._vault.index
        lacking = dangling(self._vault, index.packs.keys() - self._bad.keys())
        changed = self._bad.keys() | {pack for _, pack in lacking}
        hit = {key: 0 for key, packs in index.segments.items() if not changed.isdisjoint(packs)}
        drop = {pack: index.packs.get(pack, self._sizes.get(pack, 0)) for pack in self._bad}
        found = Condemned(drop=drop, repack={}, copied={}, segments=hit, dangling=lacking)
        condemn(self._vault, found, self._held, grace=timedelta(0))
        marks = [key for key, mark in self._vault.marks().items() if set(mark.objects) == found.objects.keys()]
        refused = sweep(self._vault, Due(tuple(marks), found.objects, {}), self._held)
        if refused:
            raise refused[0]
        self._bad.clear()
        return tuple(sorted(drop))

    def _lost_manifests(self) -> bool:
        seals, _ = self._vault.log()
        there = {stat.key for stat in self._vault.storage.list(format.SNAPSHOTS)}
        gone = {key for seal in seals.values() for key in seal.forgotten}
        return any(not (set(seal.snapshots) - gone <= there) for seal in seals.values())

    def result(self, hurt: Sequence[HurtSnapshot], removed: tuple[str, ...]) -> RepairResult:
        """Look at the vault again, as another process finds it, and return all."""
        names = {one.snapshot for one in hurt}
        fresh = self._vault if self._dry_run else Vault(self._vault.storage, self._vault.config, self._vault.keys)
        findings = survey(fresh)
        known = {finding.object for finding in findings}
        for pack, error in self._bad.items():
            if pack not in known:
                findings.append(_damage(error, hurt))
        return RepairResult(
            dry_run=self._dry_run,
            rebuilt_packs=len({place.pack for _, place in self._rebuilt}),
            rebuilt_chunks=len(self._rebuilt),
            saved_chunks=len(self._saved),
            damaged_packs=self._broken,
            removed=removed,
            whole=tuple(one.id for one in self._vault.snapshots() if one.id not in names),
            hurt=tuple(hurt),
            findings=tuple(findings),
        )

    def _segment(self, entries: Sequence[tuple[bytes, Location]]) -> None:
        packs = {pack: self._sizes[pack] for pack in dict.fromkeys(place.pack for _, place in entries)}
        if self._dry_run:
            self._vault.index.add("index/of a dry run", read_segment("index/", build_segment(entries, packs)))
            return
        self._held.renew()
        key, _ = put_segment(self._vault.storage, self._vault.keys, self._vault.index, entries, packs)
        self._described.update([key, *packs])

    def _depth(self, chunk: bytes) -> int:
        place = self._vault.index.find(chunk)
        return place.depth if place is not None else 0

    def _has(self, chunk: bytes) -> bool:
        place = self._vault.index.find(chunk)
        return place is not None and self._vault.index.trusts(place)

    def _lost_of(self, part: PartSummary, lost: "_Lost") -> LostPart | None:
        if part.image is None or lost.of(list(_named_by(part))):
            return LostPart(part=part.name, whole=True)
        try:
            image = self._vault.image(part)
        except DamagedError:
            return LostPart(part=part.name, whole=True)
        return _lost_in(image, lost)


class _Lost:
    """Tells which chunks can't be read: not in the index, in a damaged pack only, or made against one that can't."""

    def __init__(self, vault: Vault, saved: set[bytes]) -> None:
        self._index = vault.index
        self._known: dict[bytes, bool] = dict.fromkeys(saved, False)

    def of(self, chunks: Sequence[bytes]) -> set[bytes]:
        """Return those chunks that are lost."""
        above: dict[bytes, bytes | None] = {}
        todo = list(chunks)
        while todo:
            todo = [one for one in dict.fromkeys(todo) if one not in self._known and one not in above]
            for one, place in zip(todo, self._index.find_all(todo), strict=True):
                if place is None or not self._index.trusts(place):
                    self._known[one] = True
                else:
                    above[one] = place.base
            todo = [base for one in todo if (base := above.get(one)) is not None]
        for one in above:
            self._settle(one, above)
        return {one for one in chunks if self._known[one]}

    def _settle(self, one: bytes, above: dict[bytes, bytes | None]) -> None:
        chain: list[bytes] = []
        at: bytes | None = one
        while at is not None and at not in self._known and at not in chain:
            chain.append(at)
            at = above[at]
        lost = at is not None and self._known.get(at, True)  # who comes back to itself is lost too
        self._known.update(dict.fromkeys(chain, lost))


def _named_by(part: PartSummary) -> set[bytes]:
    return chunks_of([part], [])


def _lost_in(image: PartImage, lost: _Lost) -> LostPart | None:
    if not lost.of(list(chunks_of((), [image]))):
        return None
    files = [one.entry.path for one in image.entries if one.recipe is not None and lost.of(split_ids(one.recipe.ids))]
    records = {}
    for collection in image.collections:
        gone = lost.of([group.chunk for group in collection.groups])
        if gone:
            records[collection.map.collection] = sum(one.rows for one in collection.groups if one.chunk in gone)
    return LostPart(part=image.part.name, whole=False, files=tuple(files), records=records)


def _damage(error: DamagedError, hurt: Sequence[HurtSnapshot]) -> Finding:
    names = tuple(one.snapshot for one in hurt)
    return Finding(
        code="damaged",
        severity=Severity.ERROR if names else Severity.WARNING,
        message=error.message + ("" if names else "; no snapshot needs what is lost of it"),
        object=error.obj,
        snapshots=names,
        mend=MEND if names else "memkeep prune",
    )

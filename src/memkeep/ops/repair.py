"""Mend a vault: describe anew the packs that lost their index, save what is readable of damaged ones, say what is lost.

What is mended is written before anything is removed. Index segments and log entries that can't be read are removed
then, and damaged packs only when every snapshot is whole without them: else more may be had of them one day.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from memkeep.errors import DamagedError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, PartSummary, Severity
from memkeep.ops.heal import heal
from memkeep.ops.losses import HurtSnapshot, Losses
from memkeep.ops.prove import chunks_of
from memkeep.ops.scratch import scratch
from memkeep.ops.survey import survey
from memkeep.storage.base import ObjectMissingError
from memkeep.storage.cache import origin
from memkeep.storage.local import LocalStorage
from memkeep.storage.rehearsed import RehearsedStorage
from memkeep.vault import format
from memkeep.vault.codec import Coder
from memkeep.vault.lease import Held
from memkeep.vault.objects import read_named, read_object
from memkeep.vault.prune import Condemned, Due, condemn, dangling, sweep
from memkeep.vault.rebuild import Found, Rebuild, Span, walk
from memkeep.vault.vault import Vault, remove_all
from memkeep.vault.writer import SEGMENT, Writer, put_named, put_seal, put_segment

if TYPE_CHECKING:
    from memkeep.vault.index import Location

_PACKS = 256  # whose entries are looked up at once
MEND = "memkeep backup (stores again what the store still has), or put the object back from a copy of the vault"


class RepairResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was mended (in a dry run: would be), and what can't be."""

    dry_run: bool
    rebuilt_packs: int  # that no index segment described
    rebuilt_chunks: int
    saved_chunks: int  # out of damaged packs
    brought_bytes: int  # packs of what a mirror gave
    damaged_packs: tuple[str, ...]
    removed: tuple[str, ...]  # index segments and log entries that could not be read
    whole: tuple[str, ...]  # snapshots
    hurt: tuple[HurtSnapshot, ...]
    lost: tuple[str, ...]  # snapshots whose manifest is damaged or gone: nothing else is known of them
    findings: tuple[Finding, ...]  # after the repair


def repair(
    vault: Vault, *, mirror: Vault | None = None, dry_run: bool = False, events: Events = SILENT
) -> RepairResult:
    """Read every pack, mend what can be mended, and look again; nobody else may repair or prune meanwhile.

    What snapshots have lost is brought from their twins in a `mirror`, which holds copies of them or what they were
    copied from.
    Everything is read from the place itself, whatever is kept of it here. A repair that is killed at any write has
    removed nothing that could be read. A dry run does all of it in a scratch folder. Raises `VaultLeasedError`.
    """
    place = origin(vault.storage)
    if dry_run:
        with scratch() as folder:
            stage = Vault(RehearsedStorage(place, LocalStorage(folder)), vault.config, vault.keys)
            return msgspec.structs.replace(_repaired(stage, mirror, events), dry_run=True)
    result = _repaired(Vault(place, vault.config, vault.keys), mirror, events)
    vault.refresh()
    return result


def _repaired(vault: Vault, mirror: Vault | None, events: Events) -> RepairResult:
    with vault.lease("repair", exclusive=True) as held:
        vault.refresh()
        run = _Run(vault, held, events=events)
        run.read_packs()
        run.mend()
        hurt = list(run.hurt())
        if hurt and mirror is not None:
            run.heal(mirror, [one.snapshot for one in hurt])
            hurt = list(run.hurt())
        run.prove_written()
        removed = run.reseal(undescribed=bool(hurt) and run.lacks_entries())
        if not hurt:
            removed += run.drop_damaged()
        return run.result(hurt, removed)


class _Run:
    """One repair."""

    def __init__(self, vault: Vault, held: Held, *, events: Events) -> None:
        self._vault = vault
        self._held = held
        self._events = events
        self._sizes = {stat.key: stat.size for stat in vault.storage.list(format.DATA)}
        self._bad: dict[str, DamagedError] = {}
        self._misplaced: dict[str, str] = {}  # key of what is no pack and damaged -> SHA-256 of what lies there
        self._broken: tuple[str, ...] = ()
        self._search = Rebuild(vault)
        self._described: set[str] = set()
        self._fresh: list[tuple[bytes, Location]] = []  # found in sound packs, and in no index segment yet
        self._rebuilt: set[tuple[str, int]] = set()  # packs and offsets that no segment described
        self._saved: set[bytes] = set()
        self._brought = 0

    def read_packs(self) -> None:
        """Read and hash every pack; note where blobs may lie in those that are damaged or not described to the end."""
        self._events.step("reading packs", sum(self._sizes.values()))
        packs = sorted(self._sizes | self._vault.index.packs)  # a list may not show yet what was just put
        for start in range(0, len(packs), _PACKS):
            some = packs[start : start + _PACKS]
            known: dict[str, dict[int, int]] = {}  # where the index says that blobs lie, and how long they are
            for _, place in self._vault.index.entries(set(some)):
                known.setdefault(place.pack, {})[place.offset] = place.length
            for pack in some:
                self._held.renew()
                try:
                    data = read_object(self._vault.storage, pack)
                except ObjectMissingError:
                    if pack in self._vault.index.packs:
                        self._bad[pack] = DamagedError(f"{pack} is missing", obj=pack)
                    continue
                self._events.advance(len(data))
                self._sizes[pack] = len(data)
                self._look_into(pack, data, known.get(pack, {}))
        for error in [*self._vault.damaged, *self._vault.log()[1]]:
            self._look_under(error.obj)
        self._broken = tuple(sorted(self._bad))
        for pack in self._bad:
            self._vault.index.distrust(pack)

    def _look_into(self, pack: str, data: bytes, known: dict[int, int]) -> None:
        if not pack.endswith("/" + hashlib.sha256(data).hexdigest()):
            self._bad[pack] = DamagedError(f"{pack} is not what was written (SHA-256 differs)", obj=pack)
            # The index knows where the blobs are even when a length is what is damaged.
            self._search.add(Span(pack, at, length) for at, length in known.items() if at + length <= len(data))
            self._search.add(walk(pack, data))
            return
        # Of several segments that describe it together one may be lost, or a base may have come back since.
        rest = [span for span in walk(pack, data) if span.offset not in known]
        if rest:
            self._search.add(rest)

    def _look_under(self, key: str) -> None:
        """Note what of a pack or a manifest lies under the key of something else: objects may have changed places."""
        if not key.startswith((format.INDEX, format.SEALS, format.SNAPSHOTS)):
            return
        try:
            data = read_object(self._vault.storage, key)
        except ObjectMissingError:
            return
        self._misplaced[key] = hashlib.sha256(data).hexdigest()
        if not key.endswith(self._misplaced[key]):
            self._search.add(walk(key, data))

    def mend(self) -> None:
        """Describe what was found in sound packs; store again what is readable of others and lies nowhere else."""
        self._events.step("mending")
        saving = any(not self._is_sound(span.pack) for span in self._search.unresolved)
        with self._vault.writer() as writer:
            done = -1
            while done < len(self._rebuilt) + len(self._saved):  # what was saved may be a base that others wait for
                done = len(self._rebuilt) + len(self._saved)
                self._take_all(writer)
                if saving:
                    for one, raw in self._doubtful():
                        self._save(writer, one, Coder().full(raw), len(raw), 0, None)
                    writer.flush()
            self._described.update(writer.objects)
        self._put_manifests_back()

    def _take_all(self, writer: Writer) -> None:
        """Take what can be decoded now."""
        for found in self._search.resolve():
            self._take(found, writer)
            if len(self._fresh) >= SEGMENT:
                self._describe()
        self._describe()
        writer.flush()

    def _take(self, found: Found, writer: Writer) -> None:
        one, place = found.one, found.place
        known = self._vault.index.find(one)
        [usable] = self._vault.index.find_usable([one])
        if usable is None and known is not None and known.pack not in self._bad and place.depth:
            # A delta whose base has gone would be taken for this one, but not for a full chunk.
            if one not in self._saved:
                self._save(writer, one, Coder().full(found.raw), len(found.raw), 0, None)
        elif self._is_sound(place.pack):
            self._fresh.append((one, place))
        elif usable is None and one not in self._saved:
            self._save(writer, one, found.blob, place.raw, place.depth, place.base)

    def _save(self, writer: Writer, one: bytes, blob: bytes, raw: int, depth: int, base: bytes | None) -> None:
        self._saved.add(one)
        writer.put_encoded(one, blob, raw, depth, base)

    def _put_manifests_back(self) -> None:
        """Give manifests that lie under other keys their own, where those are free."""
        there = {stat.key for stat in self._vault.storage.list(format.SNAPSHOTS)}
        sealed = self._sealed_snapshots()
        damaged = set(self._misplaced)
        for key, digest in list(self._misplaced.items()):
            name = format.SNAPSHOTS + digest
            if name not in there and name in sealed:
                put_named(self._vault.storage, name, [self._vault.storage.get(key)])
            if name not in damaged:  # there it is itself now, or not wanted
                del self._misplaced[key]

    def _is_sound(self, pack: str) -> bool:
        return pack in self._sizes and pack not in self._bad

    def _doubtful(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield chunks whose base is damaged and that come out right even so: not where they need it."""
        lost = Losses(self._vault, self._bad, self._saved)
        for snapshot in self._vault.snapshots():
            for part in snapshot.parts:
                for chunks in (chunks_of([part], []), self._named_in(part)):
                    for one in sorted(lost.of(sorted(chunks - self._saved))):
                        with suppress(DamagedError):
                            yield one, self._vault.reader.chunk(one)

    def _named_in(self, part: PartSummary) -> set[bytes]:
        try:
            return chunks_of((), [self._vault.image(part)])
        except DamagedError:
            return set()

    def heal(self, mirror: Vault, names: Sequence[str]) -> None:
        """Bring from a mirror what those snapshots have lost."""
        written = heal(mirror, self._vault, names, events=self._events)
        self._described.update(written)
        self._brought = sum(self._vault.index.packs.get(key, 0) for key in written)

    def hurt(self) -> Iterator[HurtSnapshot]:
        """Yield the snapshots that lack something, and what."""
        return Losses(self._vault, self._bad).hurt()

    def prove_written(self) -> None:
        """Read what was written: what it stands for is going to be removed. Raises `DamagedError`."""
        for key in sorted(self._described):
            self._held.renew()
            try:
                read_named(self._vault.storage, key)
            except DamagedError as error:
                error.unchanged = "Nothing was removed."
                error.hint = "memkeep repair"
                raise

    def lacks_entries(self) -> bool:
        """Say whether snapshots need what no index segment describes, wherever it may lie."""
        return any(True for _ in Losses(self._vault, ()).hurt())

    def reseal(self, *, undescribed: bool) -> tuple[str, ...]:
        """Write a seal that says what there is, and remove the segments and log entries that can't be read.

        A segment stays as long as something is `undescribed` that snapshots need: it may be what the segment described.
        """
        seals, unreadable = self._vault.log()
        there = {stat.key for stat in self._vault.storage.list("")}
        forgotten = {key for seal in seals.values() for key in seal.forgotten}
        named = {key for seal in seals.values() for key in (*seal.previous, *seal.objects)} - forgotten
        kinds: tuple[str, ...] = (format.INDEX, format.SEALS)
        if not (undescribed or self.lost()):
            kinds += (format.DATA,)  # which nothing that is there needs
        gone = self._vault.gone(key for key in named - there - self._vault.index.packs.keys() if key.startswith(kinds))
        broken = {error.obj for error in [*self._vault.damaged, *unreadable]}
        # What is unreadable here may be the only copy of a manifest that has changed places with it.
        broken = {
            key
            for key in broken & there - self._misplaced.keys()
            if key.startswith(format.SEALS if undescribed else (format.INDEX, format.SEALS))
        }
        if broken:
            broken &= self._unreadable_to_others()
        seal, number = self._vault.next_seal()
        if not (gone or broken or seal.snapshots or self._described):
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

    def _unreadable_to_others(self) -> set[str]:
        """Return what can't be read by who opens the vault now: nothing is removed that was misread here."""
        other = Vault(self._vault.storage, self._vault.config, self._vault.keys)
        return {error.obj for error in [*other.damaged, *other.log()[1]]}

    def drop_damaged(self) -> tuple[str, ...]:
        """Remove damaged packs, of which nothing is needed any more."""
        if not self._bad or self.lost():
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

    def lost(self) -> tuple[str, ...]:
        """Return the snapshots whose manifest is damaged or gone, so that nothing else is known of them."""
        there = {stat.key for stat in self._vault.storage.list(format.SNAPSHOTS)}
        damaged = {error.obj for error in self._vault.damaged if error.obj.startswith(format.SNAPSHOTS)}
        gone = self._vault.gone(self._sealed_snapshots() - there)
        return tuple(sorted(key.removeprefix(format.SNAPSHOTS) for key in gone | (damaged & there)))

    def _sealed_snapshots(self) -> set[str]:
        seals, _ = self._vault.log()
        forgotten = {key for seal in seals.values() for key in seal.forgotten}
        return {key for seal in seals.values() for key in seal.snapshots} - forgotten

    def result(self, hurt: Sequence[HurtSnapshot], removed: tuple[str, ...]) -> RepairResult:
        """Look at the vault again, as another process finds it, and return all."""
        names = {one.snapshot for one in hurt}
        findings = survey(Vault(self._vault.storage, self._vault.config, self._vault.keys))
        known = {finding.object for finding in findings}
        for pack, error in self._bad.items():
            if pack not in known:
                findings.append(_damage(error, hurt))
        return RepairResult(
            dry_run=False,
            rebuilt_packs=len({pack for pack, _ in self._rebuilt}),
            rebuilt_chunks=len(self._rebuilt),
            saved_chunks=len(self._saved),
            brought_bytes=self._brought,
            damaged_packs=self._broken,
            removed=removed,
            whole=tuple(one.id for one in self._vault.snapshots() if one.id not in names),
            hurt=tuple(hurt),
            lost=self.lost(),
            findings=tuple(findings),
        )

    def _describe(self) -> None:
        """Write an index segment of what was found in sound packs since the one before."""
        if not self._fresh:
            return
        packs = {pack: self._sizes[pack] for pack in dict.fromkeys(place.pack for _, place in self._fresh)}
        self._held.renew()
        key, _ = put_segment(self._vault.storage, self._vault.keys, self._vault.index, self._fresh, packs)
        self._described.update([key, *packs])
        self._rebuilt.update((place.pack, place.offset) for _, place in self._fresh)
        self._fresh.clear()


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

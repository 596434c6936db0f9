"""Mirror snapshots from one vault into another, chunk by chunk, without restoring them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from memkeep.errors import DamagedError, RefusedError
from memkeep.events import SILENT, Events
from memkeep.model import (
    Finding,
    Omission,
    Origin,
    PartImage,
    PartSummary,
    Recipe,
    Role,
    Rung,
    Severity,
    Snapshot,
    StoredEntry,
)
from memkeep.ops import secrets
from memkeep.ops.heal import heal, wounds
from memkeep.ops.losses import Losses
from memkeep.ops.prove import Packs, chunks_of, commit, packs_of, pruned, read_back
from memkeep.ops.twins import Identity, identity, twins, with_ids
from memkeep.records.summary import summarise
from memkeep.storage.base import ObjectMissingError
from memkeep.vault import format
from memkeep.vault.reader import split_ids
from memkeep.vault.transfer import Transfer
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Writer, put_seal


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot and its copy, whose id is empty in a dry run."""

    source: str
    snapshot: str
    created: str
    system: str
    path: str
    added_bytes: int
    omitted: tuple[Omission, ...]


class CopyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied, what was there already, and what can't be copied. In a dry run: what would be."""

    vault: str  # the target
    copied: tuple[Copied, ...]
    present: tuple[str, ...]  # ids in the source
    healed: tuple[str, ...]  # of the present: those whose copy had lost something that was brought again
    failed: tuple[str, ...]  # ids in the source
    bytes: int  # that were read from the source; at most so many are written
    added_bytes: int
    dry_run: bool
    findings: tuple[Finding, ...]


def copy(
    source: Vault,
    target: Vault,
    snapshots: Sequence[str] = (),
    *,
    include_secrets: bool = False,
    dry_run: bool = False,
    events: Events = SILENT,
) -> CopyResult:
    """Copy snapshots (default: all), oldest first, that the target has no copy of yet.

    A copy keeps all that a snapshot says, and says where it came from. Secret parts and values go into an encrypted
    target, and into another only with `include_secrets`. What the source has lost is a finding, and the others are
    copied; what was written is read back before a copy is listed. Copies that are there already and lack packs or
    index segments are healed as far as the source can, or told; a flipped bit in them is for `verify` to find. Raises
    `RefusedError` when both are one vault.
    """
    if source.config.id == target.config.id:
        raise same_vault(target.storage.url)
    run = _Run(source, target, take_secrets=target.keys.encrypted or include_secrets, events=events)
    chosen = run.choose(snapshots)
    size = run.plan(chosen)
    run.look_for_hurt()
    if dry_run:
        return run.result([_row(one, "", 0, run.left_out(one)) for one in run.planned], size, dry_run=True)
    run.heal()
    with target.writer(check=True) as writer:
        run.carry(writer)
        return run.result(list(run.commit_all(writer)), size, dry_run=False)


def same_vault(place: str) -> RefusedError:
    """Return the error that a vault would be copied into itself."""
    message = f"{place} is the same vault: a copy goes into another one"
    return RefusedError(message, hint="memkeep init --vault ANOTHER", code="same_vault")


class _Run:
    """One copying of snapshots."""

    def __init__(self, source: Vault, target: Vault, *, take_secrets: bool, events: Events) -> None:
        self._source = source
        self._target = target
        self._take_secrets = take_secrets
        self._events = events
        self._transfer = Transfer(source, target)
        self._packs = Packs(target)
        self._proven: set[bytes] = set()  # chunks of the target
        self._trusted: set[str] = set()  # packs of a far target that were read back when they were written
        self._old = set(target.index.packs)
        self._owners: dict[bytes, int] = {}  # chunk of the source -> which planned snapshot is the first to need it
        self._added = 0
        self._present: list[str] = []
        self._hurt: dict[str, str] = {}  # of the present: id in the source -> id of its copy that lacks something
        self._findings: dict[str, list[Finding]] = {}  # by snapshot
        self._healed: dict[str, Finding] = {}  # damaged packs of the target
        self.planned: list[Snapshot] = []

    def choose(self, names: Sequence[str]) -> list[Snapshot]:
        """Return the snapshots that are asked for, oldest first, but for those that are there."""
        self._target.refresh()
        listed = self._source.snapshots()
        if names:
            chosen = {}
            for name in names:
                try:
                    one = self._source.resolve(name)
                except DamagedError as error:
                    self._fail(error.obj.removeprefix(format.SNAPSHOTS), error)
                else:
                    chosen[one.id] = one
            listed = sorted(chosen.values(), key=lambda one: (one.created, one.id))
        else:
            for noted in self._source.damaged:
                if noted.obj.startswith(format.SNAPSHOTS):
                    self._fail(noted.obj.removeprefix(format.SNAPSHOTS), noted)
        there = twins(self._target)
        self._present = [one.id for one in listed if self._is_there(one, there)]
        return [one for one in listed if one.id not in self._present]

    def plan(self, chosen: Sequence[Snapshot]) -> int:
        """Read what snapshots are made of; return how many stored bytes their chunks have that are to be carried."""
        self._events.step("looking", len(chosen))
        self._learn(chosen)
        size = 0
        for one in chosen:
            try:
                places = self._source.reader.closure(self._transfer.missing(self._needs(self._images(one))))
            except DamagedError as error:
                self._fail(one.id, error)
                continue
            fresh = places.keys() - self._owners.keys()
            self._owners |= dict.fromkeys(fresh, len(self.planned))
            size += sum(places[chunk].length for chunk in fresh)
            self.planned.append(one)
            self._events.advance()
        return size

    def look_for_hurt(self) -> None:
        """Note the copies that are there and lack packs or index segments."""
        bad = wounds(self._target)
        if bad is None:
            return
        hurt = {one.snapshot for one in Losses(self._target, bad).hurt()}
        there = twins(self._target)
        mine = {
            one.id: there[identity(self._source, one)].id for one in self._source.snapshots() if one.id in self._present
        }
        self._hurt = {name: twin for name, twin in mine.items() if twin in hurt}

    def heal(self) -> None:
        """Bring again what copies lack that are there already; tell those that are not whole even then."""
        if not self._hurt:
            return
        if heal(self._source, self._target, self._hurt.values(), events=self._events):
            put_seal(self._target.storage, self._target.keys, *self._target.next_seal())
        left = {one.snapshot for one in Losses(self._target, wounds(self._target) or ()).hurt()}
        for name, twin in self._hurt.items():
            if twin in left:
                self._fail(
                    name,
                    DamagedError(f"its copy {twin[:8]} lacks what is not to be had here", obj=format.SNAPSHOTS + twin),
                )

    def carry(self, writer: Writer) -> None:
        """Bring all chunks over, each once."""
        self._bring(writer, set(self._owners))

    def commit_all(self, writer: Writer) -> Iterator[Copied]:
        """Commit every copy, and yield what it is."""
        owned: Counter[int] = Counter()
        for chunk, length in self._transfer.stored.items():
            owned[self._owners[chunk]] += length
        for number, one in enumerate(self.planned):
            there = twins(self._target)  # another copy may have been quicker
            if self._is_there(one, there):
                self._present.append(one.id)
                continue
            self._events.step(f"copying {one.id[:12]}")
            try:
                writer.added_bytes = owned[number]
                made = self._commit_healing(writer, one, there)
            except DamagedError as error:
                if error.obj in self._target.index.packs:
                    raise
                self._fail(one.id, error)
                continue
            self._added += made.added_bytes
            yield _row(one, made.id, made.added_bytes, made.omitted)

    def left_out(self, snapshot: Snapshot) -> tuple[Omission, ...]:
        """Return what a copy will not have."""
        omitted = list(snapshot.omitted)
        for part in snapshot.parts:
            if not self._takes(part):
                omitted.append(Omission(part=part.name, reason="secret, and the vault is not encrypted"))
            elif not self._take_secrets:
                image = self._source.image(part)
                if image.part.secrets:
                    omitted.append(Omission(part=part.name, reason=secrets.reason(image.part)))
        return tuple(dict.fromkeys(omitted))

    def result(self, copied: Sequence[Copied], size: int, *, dry_run: bool) -> CopyResult:
        """Return what was done."""
        return CopyResult(
            vault=self._target.storage.url,
            copied=tuple(copied),
            present=tuple(self._present),
            healed=tuple(name for name in self._hurt if name not in self._findings),
            failed=tuple(self._findings),
            bytes=size,
            added_bytes=self._added,
            dry_run=dry_run,
            findings=(*(one for found in self._findings.values() for one in found), *self._healed.values()),
        )

    # -- what there is ------------------------------------------------------------------------------------------

    def _is_there(self, snapshot: Snapshot, there: dict[Identity, Snapshot]) -> bool:
        """Say whether the target has a copy that leaves out no more than a new one would."""
        twin = there.get(identity(self._source, snapshot))
        return twin is not None and (not self._take_secrets or set(twin.omitted) <= set(snapshot.omitted))

    def _takes(self, part: PartSummary) -> bool:
        return self._take_secrets or part.role is not Role.SECRET

    def _images(self, snapshot: Snapshot) -> list[PartImage]:
        return [self._source.image(part) for part in snapshot.parts if self._takes(part)]

    def _redacts(self, image: PartImage) -> bool:
        return bool(image.part.secrets) and not self._take_secrets

    def _needs(self, images: Sequence[PartImage]) -> set[bytes]:
        """Return the chunks that go over as they are."""
        whole = [one for one in images if not self._redacts(one)]
        rest = [msgspec.structs.replace(one, entries=()) for one in images if self._redacts(one)]
        return chunks_of((), [*whole, *rest])

    def _learn(self, chosen: Sequence[Snapshot]) -> None:
        """Take the new ids of chunks from copies that were made before: of the chosen snapshots' parents.

        A stream has the same digest in every vault, so two recipes that agree in it name the same chunks.
        """
        mine = {one.id: one for one in self._source.snapshots()}
        there = twins(self._target)
        for parent in {one.parent or "" for one in chosen} & mine.keys() - {one.id for one in chosen}:
            copied = there.get(identity(self._source, mine[parent]))
            if copied is None:
                continue
            before = self._recipes(self._source, mine[parent])
            for place, recipe in self._recipes(self._target, copied).items():
                known = before.get(place)
                if known is not None and _alike(known, recipe):
                    self._transfer.ids.update(zip(split_ids(known.ids), split_ids(recipe.ids), strict=True))
                    if copied.rung.height >= Rung.INTACT.height:
                        self._proven.update(split_ids(recipe.ids))
        if not self._target.storage.capabilities.near:
            with suppress(DamagedError):  # what of it is needed is found when it is read back
                self._trusted.update(packs_of(self._target, self._proven))

    def _recipes(self, vault: Vault, snapshot: Snapshot) -> dict[tuple[str, str], Recipe]:
        found = {}
        for part in snapshot.parts:
            try:
                image = vault.image(part)
            except DamagedError:
                continue  # nothing is learned from it; whether it is needed shows later
            found.update({(part.name, one.entry.path): one.recipe for one in image.entries if one.recipe is not None})
        return found

    # -- bringing it over ---------------------------------------------------------------------------------------

    def _bring(self, writer: Writer, chunks: set[bytes]) -> None:
        places = self._source.reader.closure(chunks)
        self._events.step("copying", sum(place.length for place in places.values()))
        self._transfer.carry(places, writer, self._events)

    def _commit_healing(self, writer: Writer, snapshot: Snapshot, there: dict[Identity, Snapshot]) -> Snapshot:
        """Commit a copy; bring again what it needs of packs that turn out to be damaged, or that a prune has marked."""
        while True:
            try:
                return self._commit(writer, snapshot, there)
            except DamagedError as error:
                if pruned(self._target, error):
                    self._target.index.distrust(error.obj)
                else:
                    self._note_healed(error)
                self._bring(writer, self._needs(self._images(snapshot)))  # all: a base may be what is damaged

    def _note_healed(self, error: DamagedError) -> None:
        """Note a damaged pack of the target, which is not leaned on again; raise what can't be mended so."""
        if error.obj not in self._old or error.obj in self._healed:
            raise error
        self._target.index.distrust(error.obj)
        self._healed[error.obj] = Finding(
            code="vault_damaged",
            severity=Severity.ERROR,
            object=error.obj,
            message=f"{error.message}; what the copies need of it was stored again",
            mend="memkeep repair",
        )

    def _commit(self, writer: Writer, snapshot: Snapshot, there: dict[Identity, Snapshot]) -> Snapshot:
        images = self._images(snapshot)
        for chunk in self._needs(images) & self._transfer.lost.keys():
            raise self._transfer.lost[chunk]
        parent = there.get(self._parent_identity(snapshot))
        before = {part.name: part.image for part in parent.parts} if parent is not None else {}
        old = {part.name: part for part in snapshot.parts}
        copies = [self._translated(writer, image) for image in images]
        summaries = tuple(
            msgspec.structs.replace(
                old[image.part.name],
                bytes=sum(one.entry.size for one in image.entries if one.entry.kind == "file"),
                image=writer.put_stream([msgspec.msgpack.encode(image)], before.get(image.part.name), text=True),
            )
            for image in copies
        )
        writer.flush()
        proven = self._proven | writer.checked  # blobs that were carried were decoded as they are stored
        read_back(
            self._target,
            summaries,
            copies,
            packs=self._packs,
            proven=proven,
            trusted=self._trusted,
            events=self._events,
        )
        chunks = chunks_of(summaries, copies)
        self._proven |= chunks
        manifest = self._manifest(snapshot, summaries, copies, parent)
        made = commit(self._target, writer, manifest, chunks)
        writer.objects.clear()  # they are sealed
        return made

    def _manifest(
        self, snapshot: Snapshot, parts: tuple[PartSummary, ...], images: Sequence[PartImage], parent: Snapshot | None
    ) -> Snapshot:
        """Return what the snapshot says, of what was copied of it."""
        vault, name = identity(self._source, snapshot)
        same = msgspec.structs.replace(
            snapshot,
            parent=parent.id if parent is not None else None,
            parts=parts,
            omitted=self.left_out(snapshot),
            # Every byte of it was read back.
            rung=max(snapshot.rung, Rung.INTACT, key=lambda rung: rung.height),
            origin=Origin(vault=vault, snapshot=name),
        )
        if len(parts) == len(snapshot.parts):
            return same
        mapped = any(table.primary for image in images for table in image.part.maps)
        rows = sum(one.rows for image in images for one in image.collections if one.map.primary)
        return msgspec.structs.replace(
            same,
            records=rows if mapped else snapshot.records,
            source_bytes=sum(part.bytes for part in parts),
            summary=summarise(images),
        )

    def _translated(self, writer: Writer, image: PartImage) -> PartImage:
        """Return an image by the ids of the target; the secrets of a configuration are taken out where they must."""
        if not self._redacts(image):
            return with_ids(image, self._transfer.ids.__getitem__)
        redact = secrets.redactor(image.part)
        entries = []
        for one in image.entries:
            if one.recipe is None:
                entries.append(one)
                continue
            recipe = writer.put_stream([redact(self._source.reader.read(one.recipe))])
            entries.append(StoredEntry(entry=msgspec.structs.replace(one.entry, size=recipe.size), recipe=recipe))
        bare = with_ids(msgspec.structs.replace(image, entries=()), self._transfer.ids.__getitem__)
        # The digests are of what was there, not of what is stored.
        tables = {name: msgspec.structs.replace(state, digest="") for name, state in image.baseline.tables.items()}
        baseline = msgspec.structs.replace(image.baseline, tables=tables)
        return msgspec.structs.replace(bare, entries=tuple(entries), baseline=baseline)

    def _parent_identity(self, snapshot: Snapshot) -> Identity:
        listed = {one.id: one for one in self._source.snapshots()}
        parent = listed.get(snapshot.parent or "")
        return identity(self._source, parent) if parent is not None else (self._source.config.id, snapshot.parent or "")

    def _fail(self, name: str, error: DamagedError) -> None:
        try:
            self._source.storage.stat(format.SNAPSHOTS + name)
        except ObjectMissingError:
            return  # it was forgotten since it was listed: nothing is damaged
        self._findings.setdefault(name, []).append(
            Finding(
                code="damaged",
                severity=Severity.ERROR,
                message=f"snapshot {name[:12]} can't be copied whole: {error.message}",
                object=error.obj or format.SNAPSHOTS + name,
                snapshots=(name,),
                mend="memkeep repair",
            )
        )


def _row(one: Snapshot, made: str, added: int, omitted: tuple[Omission, ...]) -> Copied:
    return Copied(
        source=one.id,
        snapshot=made,
        created=one.created,
        system=one.system,
        path=one.path,
        added_bytes=added,
        omitted=omitted,
    )


def _alike(one: Recipe, other: Recipe) -> bool:
    return (one.size, one.digest, one.starts, one.lengths) == (other.size, other.digest, other.starts, other.lengths)

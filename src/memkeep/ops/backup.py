"""Take one snapshot of each store: freeze, store, read back, commit."""

import glob
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeGuard

import msgspec

from memkeep import __version__, clock
from memkeep.engines.catalog import server_engine
from memkeep.errors import DamagedError, MemkeepError, StoreError, UnstableError
from memkeep.events import SILENT, Events
from memkeep.model import (
    Finding,
    Omission,
    Part,
    PartImage,
    PartSummary,
    Recipe,
    Role,
    Rung,
    Severity,
    Snapshot,
    Store,
    is_url,
)
from memkeep.ops import secrets
from memkeep.ops.compare import UNREADABLE
from memkeep.ops.drift import drift
from memkeep.ops.freeze import UNREAD, Held, Moment, freeze, unread
from memkeep.ops.hooks import stopped
from memkeep.ops.in_place import refuse_interrupted
from memkeep.ops.one_user import narrow, of_user
from memkeep.ops.prove import Packs, chunks_of, commit, packs_of, pruned, read_back
from memkeep.ops.scratch import scratch
from memkeep.ops.store_part import Scan, store_part
from memkeep.records.summary import summarise
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Writer

Secrets = Literal["auto", "include", "exclude"]
RETRIES = 3
PRUNED = 8  # times that a prune may take what a backup leans on

_UNASKED = frozenset(
    {UNREAD, "store_unreachable", "store_denied", "store_missing"}
)  # of parts that nobody could look at


class SnapshotReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one backup did. In a dry run `id` is empty and nothing was added."""

    id: str
    system: str
    path: str
    user: str | None = None  # whose memory alone was taken
    records: int | None
    source_bytes: int
    added_bytes: int
    duration_s: float
    rung: Rung
    consistent: bool
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...]


class FailedStore(msgspec.Struct, frozen=True, kw_only=True):
    """A store that no snapshot was made of, and why; `system` is empty when the store could not be told."""

    system: str
    path: str
    code: str
    message: str
    hint: str
    exit: int


class BackupResult(msgspec.Struct, frozen=True, kw_only=True):
    """One report a store, in the order that they were given, and the stores of which there is none."""

    snapshots: tuple[SnapshotReport, ...]
    failed: tuple[FailedStore, ...] = ()


def backup(
    vault: Vault,
    stores: Sequence[Store],
    *,
    unfound: Sequence[FailedStore] = (),
    user: str | None = None,
    tag: str | None = None,
    label: str | None = None,
    secrets: Secrets = "auto",
    dry_run: bool = False,
    verify: bool = True,
    events: Events = SILENT,
) -> BackupResult:
    """Take one snapshot of each store, while their agents go on writing.

    With `user` only what is of one user is taken, which is another store to the vault than the whole is.
    `secrets="auto"` takes secret parts into an encrypted vault and leaves them out of another. With `verify` the
    snapshot is read back before it is listed: all that it leans on where reading costs nothing; in a far storage what
    was written, while the older packs are listed if the backup before has read them. A store that fails does not keep
    others from being backed up: it is in `failed` beside those that were `unfound`. Raises what the first one met when
    no snapshot was made at all.
    """
    reports: list[SnapshotReport] = []
    failed = list(unfound)
    errors: list[MemkeepError] = []
    for store in [store if user is None else of_user(store, user) for store in stores]:
        take = secrets == "include" or (secrets == "auto" and vault.keys.encrypted)
        try:
            if dry_run:
                reports.append(_Run(vault, store, take_secrets=take, events=events).rehearse())
            else:
                reports.append(_take(vault, store, secrets=take, tag=tag, label=label, verify=verify, events=events))
        except MemkeepError as error:
            errors.append(error)
            failed.append(failed_store(store.path, error, system=store.system))
    if failed and not reports:
        raise errors[0] if errors else StoreError(failed[0].message, hint=failed[0].hint, code=failed[0].code)
    return BackupResult(snapshots=tuple(reports), failed=tuple(failed))


def failed_store(path: str, error: MemkeepError, *, system: str = "") -> FailedStore:
    """Return what to say of a store that no snapshot could be made of."""
    return FailedStore(
        system=system, path=path, code=error.code, message=error.message, hint=error.hint, exit=error.exit
    )


def _take(
    vault: Vault, store: Store, *, secrets: bool, tag: str | None, label: str | None, verify: bool, events: Events
) -> SnapshotReport:
    """Take a snapshot; store again what it needs of packs that turn out to be damaged, or that a prune has marked."""
    healed: list[Finding] = []
    old = set(vault.index.packs)  # where what is written now is damaged at once, writing it again would never end
    tries = 0
    while True:
        tries += 1
        run = _Run(vault, store, take_secrets=secrets, events=events, findings=healed)
        try:
            return run.take(tag=tag, label=label, verify=verify)
        except DamagedError as error:
            if tries <= PRUNED and pruned(vault, error):
                vault.index.distrust(error.obj)
                continue  # a prune came between; what it takes is not leaned on again
            if error.obj not in old or any(error.obj == one.object for one in healed):
                raise
            vault.index.distrust(error.obj)
            healed.append(
                Finding(
                    code="vault_damaged",
                    severity=Severity.ERROR,
                    object=error.obj,
                    message=f"{error.message}; what this snapshot needs of it was stored again",
                    mend="memkeep verify --all",
                )
            )


class _Run:
    """The backup of one store."""

    def __init__(
        self, vault: Vault, store: Store, *, take_secrets: bool, events: Events, findings: Sequence[Finding] = ()
    ) -> None:
        self._vault = vault
        self._store = store
        self._take_secrets = take_secrets
        self._events = events
        self._started = clock.monotonic()
        self._omitted = list(store.omitted)
        self._findings = [*store.findings, *findings]
        self._parts = self._choose()

    def rehearse(self) -> SnapshotReport:
        """Say what a backup would read and leave out, without freezing or writing anything."""
        size = 0
        for part in self._parts:
            try:
                size += _size_of(part)
            except StoreError as error:  # a server that does not answer
                self._omitted.append(Omission(part=part.name, reason=error.message))
                self._findings.append(unread(part, error))
        return self._report(
            Snapshot(
                created="",
                system=self._store.system,
                path=self._store.path,
                user=self._store.user,
                host="",
                records=self._store.records,
                source_bytes=size,
                omitted=tuple(dict.fromkeys(self._omitted)),
                findings=tuple(dict.fromkeys(self._findings)),
            )
        )

    def take(self, *, tag: str | None, label: str | None, verify: bool) -> SnapshotReport:
        """Take the snapshot."""
        refuse_interrupted(self._store)
        parent = self._vault.latest_of(self._store.system, self._store.path, self._store.user)
        old = {part.name: part for part in parent.parts} if parent else {}
        before = self._old_images(parent)
        packs = Packs(self._vault)
        with (
            scratch() as folder,
            ThreadPoolExecutor(1, "memkeep-hash") as background,
            # What is written is read back while more is written.
            self._vault.writer(
                check=verify, stored=lambda pack: verify and background.submit(packs.intact, [pack], SILENT)
            ) as writer,
        ):
            near = self._vault.storage.capabilities.near
            if verify and near and parent is not None:
                # While the store is scanned: the packs of the parent are most of what the snapshot will need.
                background.submit(packs.intact, _packs(self._vault, parent, before), SILENT)
            self._events.step("freezing")
            images, consistent = self._store_all(writer, before, folder, check=verify)
            summaries = tuple(
                _summary(image, writer.put_stream([msgspec.msgpack.encode(image)], _image_of(old, image), text=True))
                for image in images
            )
            writer.flush()
            self._findings += drift(self._vault, self._store.system, images)
            rung = Rung.NONE
            if verify:
                self._events.step("reading back")
                background.shutdown()
                read_back(
                    self._vault,
                    summaries,
                    images,
                    packs=packs,
                    proven=writer.checked | _proven(parent, before),
                    trusted=() if near or not _is_proven(parent) else set(_packs(self._vault, parent, before)),
                    events=self._events,
                )
                rung = self._reached(images)
            snapshot = Snapshot(
                created=clock.now().isoformat(timespec="microseconds"),
                system=self._store.system,
                path=self._store.path,
                user=self._store.user,
                host=socket.gethostname(),
                parent=parent.id if parent else None,
                tag=tag,
                label=label,
                records=self._count(images),
                source_bytes=sum(entry.entry.size for image in images for entry in image.entries),
                duration_s=round(clock.monotonic() - self._started, 3),
                rung=rung,
                consistent=consistent,
                parts=summaries,
                omitted=tuple(dict.fromkeys(self._omitted)),
                findings=tuple(dict.fromkeys(self._findings)),
                mapping=self._store.mapping,
                fingerprint=self._store.fingerprint,
                summary=summarise(images),
                memkeep=__version__,
            )
            self._events.step("committing")
            return self._report(commit(self._vault, writer, snapshot, chunks_of(summaries, images)))

    def _choose(self) -> list[Part]:
        """Leave out secret parts where they may not go, and the vault itself if it lies in the store."""
        chosen = []
        where = "--no-secrets was given" if self._vault.keys.encrypted else "the vault is not encrypted"
        folder = self._vault.storage.folder
        vault = folder.resolve() if folder is not None else None
        around = vault.parents if vault is not None else ()
        for part in self._store.parts:
            live = Path("" if is_url(part.path) else part.path)
            if vault is not None and (live == vault or vault in live.parents):
                continue
            if part.role is Role.SECRET and not self._take_secrets:
                self._omitted.append(Omission(part=part.name, reason=f"secret, and {where}"))
            elif vault is not None and live in around:
                inside = glob.escape(vault.relative_to(live).as_posix())
                chosen.append(msgspec.structs.replace(part, exclude=(*part.exclude, inside)))
            else:
                chosen.append(part)
        if vault is not None and self._store.root and Path(self._store.root) in around:
            inside = vault.relative_to(self._store.root).as_posix()
            self._omitted.append(Omission(part=inside, reason="the vault itself"))
        return chosen

    def _count(self, images: Sequence[PartImage]) -> int | None:
        """Return how many records are in the images; of a store without a mapping what it says of itself."""
        if any(table.primary for part in self._store.parts for table in part.maps):
            return sum(one.rows for image in images for one in image.collections if one.map.primary)
        return self._store.records

    def _old_images(self, parent: Snapshot | None) -> dict[str, PartImage]:
        """Return the parent's images by part; a damaged one costs space, never the backup; verify names the damage."""
        found = {}
        for part in parent.parts if parent is not None else ():
            with suppress(DamagedError):
                found[part.name] = self._vault.image(part)
        return found

    def _store_all(
        self, writer: Writer, before: dict[str, PartImage], folder: Path, *, check: bool
    ) -> tuple[list[PartImage], bool]:
        """Freeze all parts and store them; all over again when one did not stay one moment while it was read."""
        for attempt in range(RETRIES):
            with stopped(self._store.hooks, Path(self._store.root or "/"), self._findings):
                moment = freeze(self._store, self._parts, folder / str(attempt))
            with moment:
                for held in moment.held:
                    held.part = secrets.at_moment(self._store.system, held.part, held.opened)
                if self._store.user is not None:
                    narrow(moment, self._store.user, folder / f"{attempt}-one-user")
                stored = self._store_moment(writer, moment, before, check=check)
                broken = [held.part.path for held in moment.held if not held.opened.held()]
                if not broken:
                    images = [image for image, _, _ in stored]
                    # A server that did not answer before may do so now, and else the moment says why not.
                    tried = {*(image.part.name for image in images), *(one.part for one in moment.omitted)}
                    self._findings = [
                        one for one in self._findings if one.code not in _UNASKED or one.part not in tried
                    ]
                    self._findings += [*moment.findings, *(one for _, findings, _ in stored for one in findings)]
                    self._omitted += [*moment.omitted, *(one for _, _, omitted in stored for one in omitted)]
                    return images, moment.consistent
        raise UnstableError(
            f"{broken[0]} kept changing while it was read",
            unchanged="No snapshot was made; earlier ones are whole.",
            hint="memkeep backup",
        )

    def _store_moment(
        self, writer: Writer, moment: Moment, before: dict[str, PartImage], *, check: bool
    ) -> list[tuple[PartImage, list[Finding], list[Omission]]]:
        with ThreadPoolExecutor(2, "memkeep-scan") as pool:
            scans = [Scan(held, before.get(held.part.name), check=check, pool=pool) for held in moment.held]
            try:
                return [
                    self._store_held(writer, held, scan, before.get(held.part.name))
                    for held, scan in zip(moment.held, scans, strict=True)
                ]
            except BaseException:
                for scan in scans:
                    scan.stop()
                raise

    def _store_held(
        self, writer: Writer, held: Held, scan: Scan, parent: PartImage | None
    ) -> tuple[PartImage, list[Finding], list[Omission]]:
        self._events.step(held.part.name)
        redact = None if self._take_secrets or not held.part.secrets else secrets.redactor(held.part)
        image, findings, omitted = store_part(
            self._vault, writer, held, scan, parent=parent, redact=redact, events=self._events
        )
        if redact is not None:
            omitted = [*omitted, Omission(part=held.part.name, reason=secrets.reason(held.part))]
        return image, findings, omitted

    def _reached(self, images: Sequence[PartImage]) -> Rung:
        """Say how far up the ladder a snapshot is whose bytes have been read back.

        The databases' own checks ran on the frozen moment; bytes that read back equal have passed them too.
        """
        names = {image.part.name for image in images}
        bad = [one for one in self._findings if one.severity is Severity.ERROR or one.code in UNREADABLE]
        return Rung.INTACT if any(one.part in names for one in bad) else Rung.READABLE

    def _report(self, snapshot: Snapshot) -> SnapshotReport:
        values = {name: getattr(snapshot, name) for name in SnapshotReport.__struct_fields__}
        return SnapshotReport(**values | {"duration_s": round(clock.monotonic() - self._started, 3)})


def _summary(image: PartImage, recipe: Recipe) -> PartSummary:
    files = [one for one in image.entries if one.entry.kind == "file"]
    return PartSummary(
        name=image.part.name,
        engine=image.part.engine,
        role=image.part.role,
        how=image.how,
        files=len(files),
        bytes=sum(one.entry.size for one in files),
        rows={table: state.rows for table, state in image.baseline.tables.items() if state.rows},
        image=recipe,
    )


def _proven(parent: Snapshot | None, images: dict[str, PartImage]) -> set[bytes]:
    """Return the chunks that the parent's own backup has decoded."""
    return chunks_of(parent.parts, list(images.values())) if _is_proven(parent) else set()


def _is_proven(parent: Snapshot | None) -> TypeGuard[Snapshot]:
    return parent is not None and parent.rung.height >= Rung.INTACT.height


def _packs(vault: Vault, parent: Snapshot, images: dict[str, PartImage]) -> list[str]:
    try:
        return packs_of(vault, chunks_of(parent.parts, list(images.values())))
    except DamagedError:
        return []  # what of it the new snapshot needs is found when it is read back


def _image_of(old: dict[str, PartSummary], image: PartImage) -> Recipe | None:
    part = old.get(image.part.name)
    return part.image if part else None


def _size_of(part: Part) -> int:
    if is_url(part.path):
        return server_engine(part.path).size(part)
    path = Path(part.path)
    if path.is_dir():
        return sum(one.lstat().st_size for one in path.rglob("*") if one.is_file() and not one.is_symlink())
    return path.stat().st_size if path.exists() else 0

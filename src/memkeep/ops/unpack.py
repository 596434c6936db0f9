"""Bring back what a packed file holds, on a machine that needs no vault; or only prove that it could be."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from memkeep.config import Config
from memkeep.errors import DamagedError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Omission, PartImage, Rung, Severity, StoredEntry, is_url
from memkeep.ops import age, in_server, parcel
from memkeep.ops.compare import compare_part, spoiled
from memkeep.ops.drift import Mending, can_come_apart, mending_of_files
from memkeep.ops.entries import place
from memkeep.ops.materialise import Stream, lay_out
from memkeep.ops.new_folder import new_folder, refuse_inside, refuse_taken
from memkeep.ops.parcel_read import Parcel, open_parcel
from memkeep.ops.restore import RestoreResult
from memkeep.ops.scratch import scratch
from memkeep.ops.verify import VerifyResult

_PIECE = 1 << 20


def restore_file(
    file: Path,
    *,
    to: Path | str,
    parts: Sequence[str] = (),
    unlock: age.Unlock | None = None,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> RestoreResult:
    """Restore a packed file, or some of its parts, into a folder that does not exist or is empty, or into a server.

    All of the file is read and compared before the folder appears, and its databases have been opened by then: what is
    wrong with them, as it was when they were backed up, is in `findings`; ids that a database had destroyed are mended
    after that. Raises `RefusedError` (target exists),
    `DamagedError` (some byte is not what was packed), `WrongKeyError` (it is encrypted).
    """
    file = file.expanduser().absolute()
    said = shlex.quote(str(file))
    with open_parcel(file, unlock or age.Unlock()) as source:
        images = _choose(source.images, parts, file)
        if is_url(str(to)):
            url = in_server.address(str(to), config)
            return _into_server(source, images, url, said, dry_run=dry_run, events=events)
        target = Path(to).expanduser().absolute()
        refuse_taken(target, said)
        refuse_inside(target, said, {"the live store": Path(source.manifest.path)})
        findings: list[Finding] = []
        if not dry_run:
            with new_folder(target) as staging:
                events.step("restoring", sum(one.entry.size for image in images for one in image.entries))
                mends = _lay_out(source, images, staging, events)
                events.step("checking")
                findings = _check(images, staging)
                mends.mend(staging)
                findings += mends.findings(images)
        findings += in_server.as_files(images, target)
        return _result(source.manifest, images, str(target), findings, dry_run=dry_run)


def _lay_out(source: Parcel, images: list[PartImage], staging: Path, events: Events) -> Mending:
    """Write some parts, all of the file compared; return what is to be mended in them, which may take other parts."""
    system = source.manifest.system
    if not can_come_apart(system):
        lay_out(source.stream, images, staging, events)
        source.finish()
        return Mending()
    with scratch() as folder:
        lay_out(source.stream, source.images, folder, SILENT, durable=False)
        source.finish()
        lay_out(_files(folder), images, staging, events)
        return mending_of_files(system, source.images, folder)


def _into_server(
    source: Parcel, images: list[PartImage], url: str, said: str, *, dry_run: bool, events: Events
) -> RestoreResult:
    """Put what fits into a server where nothing of it is yet, when all of the file has been compared."""
    aimed = in_server.aimed(images, url, said)
    in_server.refuse_taken(aimed)
    chosen = [image for image, _ in aimed]
    findings: list[Finding] = []
    if not dry_run:
        with scratch() as folder:
            events.step("restoring", sum(one.entry.size for image in chosen for one in image.entries))
            lay_out(source.stream, chosen, folder, events, durable=False)
            source.finish()
            findings = in_server.load(aimed, folder, replace=False, events=events)
    return _result(source.manifest, chosen, url, findings, left=in_server.left(images, aimed), dry_run=dry_run)


def _result(
    manifest: parcel.Manifest,
    images: Sequence[PartImage],
    to: str,
    findings: Sequence[Finding],
    *,
    left: Sequence[Omission] = (),
    dry_run: bool,
) -> RestoreResult:
    names = {image.part.name for image in images}
    chosen = [part for part in manifest.parts if part.part.name in names]
    files = [stored.entry for image in images for stored in image.entries if stored.entry.kind == "file"]
    return RestoreResult(
        snapshot=manifest.snapshot,
        system=manifest.system,
        to=to,
        parts=tuple(image.part.name for image in images),
        files=len(files),
        bytes=sum(entry.size for entry in files),
        records=_records(chosen),
        rung=Rung.NONE if dry_run else Rung.INTACT if spoiled(findings) else Rung.RESTORABLE,
        dry_run=dry_run,
        parked=None,
        undo=None,
        omitted=(*manifest.omitted, *left),
        findings=tuple(findings),
    )


def verify_file(
    file: Path, *, rung: Rung = Rung.READABLE, unlock: age.Unlock | None = None, events: Events = SILENT
) -> VerifyResult:
    """Climb the ladder for a packed file, up to `restorable`; a finding with an `object` means damage."""
    file = file.expanduser().absolute()
    snapshot = ""
    try:
        with open_parcel(file, unlock or age.Unlock()) as source, scratch() as folder:
            snapshot = source.manifest.snapshot
            events.step("verifying", source.manifest.bytes)
            if rung.height < Rung.READABLE.height:
                source.finish()
                return VerifyResult(snapshot=snapshot, rung=min(rung, Rung.INTACT, key=_height), findings=())
            lay_out(source.stream, source.images, folder, events, durable=False)
            source.finish()
            findings = _check(source.images, folder)
    except DamagedError as error:
        found = Finding(
            code="damaged", severity=Severity.ERROR, message=error.message, object=error.obj, mend=error.hint
        )
        return VerifyResult(snapshot=snapshot, rung=Rung.NONE, findings=(found,))
    reached = Rung.INTACT if spoiled(findings) else min(rung, Rung.RESTORABLE, key=_height)
    return VerifyResult(snapshot=snapshot, rung=reached, findings=tuple(findings))


def _height(rung: Rung) -> int:
    return rung.height


def _choose(images: list[PartImage], parts: Sequence[str], file: Path) -> list[PartImage]:
    unknown = set(parts) - {image.part.name for image in images}
    if unknown:
        names = ", ".join(image.part.name for image in images)
        message = f"{file} has no part called {min(unknown)}; it has {names}"
        raise UsageError(message, hint=f"memkeep restore {shlex.quote(str(file))} --to DIR --dry-run")
    return [image for image in images if not parts or image.part.name in parts]


def _check(images: Sequence[PartImage], root: Path) -> list[Finding]:
    """Open a copy of each part, since an engine may leave files beside what it opens."""
    findings = []
    for image in images:
        with scratch() as folder:
            lay_out(_files(root), [image], folder, SILENT, durable=False)
            findings += compare_part(image, folder)
    return findings


def _files(root: Path) -> Stream:
    """Return what gives the bytes of entries that lie under a folder."""

    def stream(stored: StoredEntry) -> Iterator[bytes]:
        with place(root, stored.entry.path).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    return stream


def _records(parts: Sequence[parcel.PackedPart]) -> int | None:
    primary = [part.records.get(table.collection, 0) for part in parts for table in part.part.maps if table.primary]
    return sum(primary) if primary else None

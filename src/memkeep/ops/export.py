"""Write records as open files: all or nothing, counted, with checksums, and with what is lost said beforehand."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memkeep.errors import UnsupportedError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, Value
from memkeep.ops import export_git
from memkeep.ops.exported import CHECKSUMS, Counts, files_in, seal
from memkeep.ops.replace_folder import own_files, refuse, replaced
from memkeep.records.formats.base import About, Format, Source
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.formats.objects import provenance
from memkeep.records.record import Record, Relationship
from memkeep.records.redaction import Redacted

_STEP = 1000  # records between two signs of progress


class ExportResult(Value):
    """What was exported, and what of it is not in the files."""

    folder: str
    format: str
    system: str
    snapshot: str | None
    memories: int
    relationships: int
    collections: dict[str, int]  # of what is beside the memories
    files: tuple[str, ...]  # without `checksums.json`
    bytes: int
    checksum: str  # the combined one
    losses: dict[str, int]  # field -> in how many records the format has no place for it
    redacted: dict[str, int] | None  # kind of secret -> how many; None: nobody looked
    omitted: tuple[str, ...]  # what of the store could not be read, or is no record
    changes: export_git.Changes | None  # against the export that was here; None without git
    commit: str | None
    pushed: bool
    dry_run: bool
    findings: tuple[Finding, ...]


def export(
    source: Source,
    folder: Path,
    format: str,
    *,
    redact: bool | None = None,
    git: bool = False,
    push: bool = False,
    dry_run: bool = False,
    events: Events = SILENT,
) -> ExportResult:
    """Write records into a folder, in the place of an earlier export there.

    `redact` takes secrets out of texts; None: when it goes into git. `git` commits the files where they lie. With
    `dry_run` records are only counted. Raises `RefusedError` when the folder holds other files (with `git`: files in
    the way), `UsageError` for no format, `StorageError`, and `MemkeepError` when git fails after the files are there.
    """
    chosen = _format(format)
    if push and not git:
        raise UsageError("only what is committed can be pushed", hint="memkeep export latest --git --push -o DIR")
    target = folder.expanduser().resolve()
    redacted = Redacted(source) if redact or (redact is None and git) else None
    taken = _Taken(redacted or source, events)
    refuse(target, shared=git)
    try:
        losses = _losses(taken, chosen, events) if dry_run or not chosen.lossless else {}
        findings = _named(losses, chosen, events)
        files: tuple[str, ...] = ()
        size, checksum = 0, ""
        made, committed = None, None
        if not dry_run:
            top = export_git.workspace(target) if git else None
            before = export_git.seen(target) if git else {}
            old = own_files(target) if target.is_dir() else []
            with replaced(target, shared=git) as staging:
                events.step(f"writing {chosen.name}", taken.about.records)
                chosen.write(taken, staging)
                checksum = seal(staging, _metadata(taken, chosen, losses, redacted))
                files = tuple(files_in(staging))
                size = sum((staging / name).stat().st_size for name in files)
                made = export_git.changes(target, staging, before) if git else None
            if made is not None:
                if top is None:
                    export_git.begin(target)
                committed = export_git.commit(target, {*files, CHECKSUMS, *old}, taken.about.system, made)
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"the format {chosen.name} needs {error.name}, which is not installed", hint="pip install 'memkeep[export]'"
        ) from error
    if push and committed is not None:
        export_git.push(target, committed)
    counts = taken.counts
    return ExportResult(
        folder=str(target),
        format=chosen.name,
        system=taken.about.system,
        snapshot=taken.about.snapshot,
        memories=counts.memories,
        relationships=counts.relationships,
        collections=counts.collections,
        files=files,
        bytes=size,
        checksum=checksum,
        losses=losses,
        redacted=redacted.found if redacted is not None else None,
        omitted=taken.about.omitted,
        changes=made,
        commit=committed,
        pushed=push and committed is not None,
        dry_run=dry_run,
        findings=(*taken.about.unread, *findings, *_kept_vectors(redacted)),
    )


class _Taken:
    """A source that counts what is read of it."""

    def __init__(self, source: Source, events: Events) -> None:
        self._source = source
        self._events = events
        self._memories = self._relationships = 0
        self._beside: Counter[str] = Counter()
        self.about: About = source.about

    @property
    def counts(self) -> Counts:
        """How many there were the last time."""
        beside = dict(sorted(self._beside.items()))
        return Counts(memories=self._memories, relationships=self._relationships, collections=beside)

    def records(self) -> Iterator[Record]:
        self._memories = 0
        self._beside.clear()
        for number, one in enumerate(self._source.records(), 1):
            if one.primary:
                self._memories += 1
            else:
                self._beside[one.collection] += 1
            if number % _STEP == 0:
                self._events.advance(_STEP)
            yield one

    def relationships(self) -> Iterator[Relationship]:
        self._relationships = 0
        for one in self._source.relationships():
            self._relationships += 1
            yield one


def _format(name: str) -> Format:
    for one in FORMATS:
        if one.name == name:
            return one
    raise UsageError(
        f"there is no format {name!r}: {', '.join(one.name for one in FORMATS)}",
        hint="memkeep export latest --format json -o DIR",
    )


def _losses(source: Source, chosen: Format, events: Events) -> dict[str, int]:
    """Return how many records have something that the format has no place for, by what it is."""
    events.step("looking", source.about.records)
    found: Counter[str] = Counter()
    for one in source.records():
        found.update(set(chosen.losses(one)))
    for joined in source.relationships():
        found.update(set(chosen.losses(joined)))
    return dict(sorted(found.items()))


def _named(losses: dict[str, int], chosen: Format, events: Events) -> list[Finding]:
    """Say, before a byte is written, what will not be in the files."""
    found = [
        Finding(
            code="export_loses",
            severity=Severity.WARNING,
            message=f"{chosen.name} does not carry {what} of {many:,} {'record' if many == 1 else 'records'}",
        )
        for what, many in losses.items()
    ]
    for one in found:
        events.note(one.message)
    return found


def _kept_vectors(redacted: Redacted | None) -> Sequence[Finding]:
    if redacted is None or not redacted.found:
        return ()
    many = sum(redacted.found.values())
    text = f"{many:,} {'secret was' if many == 1 else 'secrets were'} taken out of texts"
    return (Finding(code="export_redacted", severity=Severity.INFO, message=f"{text}; vectors are as they were"),)


def _metadata(taken: _Taken, chosen: Format, losses: dict[str, int], redacted: Redacted | None) -> dict[str, Any]:
    counts = taken.counts
    said: dict[str, Any] = provenance(taken.about)
    said |= {"format": chosen.name, "memory_count": counts.memories, "relationship_count": counts.relationships}
    said |= {"collection_counts": counts.collections, "losses": losses}
    return said | ({"redacted": redacted.found} if redacted is not None else {})

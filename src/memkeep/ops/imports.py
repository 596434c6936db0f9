"""Read what other programs wrote, an export of memkeep or of a product, into a store.

The records get the ids that they had, or always the same ones, and all go in or none; so an import that was cut off is
begun again, and one that is repeated changes nothing.
"""

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from memkeep.clock import now
from memkeep.config import Config
from memkeep.engines.merging import Conflict
from memkeep.errors import FileError, StoreError, UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, Value
from memkeep.ops import destination, records
from memkeep.ops.discover import discover
from memkeep.ops.hybrid_facts import Recognised
from memkeep.ops.migrate import Change, MigrateResult, move
from memkeep.ops.scratch import scratch
from memkeep.records.formats.base import About, Source
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.readers import archive, hybrid_export, notes, notes_history, openmemory
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.catalog import READERS, reader_of
from memkeep.records.record import Record, Relationship
from memkeep.records.spool import Spool
from memkeep.systems import custom
from memkeep.vault.vault import Vault

_ARCHIVE = "openclaw backup"


class RefusedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the file that could not be read."""

    where: str
    reason: str


class ImportResult(MigrateResult, frozen=True, kw_only=True):
    """What was imported, or in a dry run would be: the same numbers."""

    format: str
    refused: tuple[RefusedRecord, ...]


class _Files(NamedTuple):
    """What reads a file, and its name."""

    name: str
    read: Iterable[Read]


class FileSource:
    """The records of a file, which wait on disk in order; a `records.formats.base.Source`."""

    def __init__(self, files: _Files, path: Path, folder: Path) -> None:
        """Read all. Raises `FileError`."""
        self.refused: list[RefusedRecord] = []
        self._records, self._relationships = Spool(folder), Spool(folder)
        systems: dict[str, int] = {}
        for made in files.read:
            if isinstance(made, Refused):
                self.refused.append(RefusedRecord(where=made.where, reason=made.reason))
            elif isinstance(made, Record):
                systems[made.system] = systems.get(made.system, 0) + 1
                self._records.add(f"{'' if made.primary else '~'}\0{made.collection}\0{made.id}", made)
            else:
                self._relationships.add(f"{made.source}\0{made.target}\0{made.type}\0{made.id or ''}", made)
        self.about = About(
            system=max(systems, key=systems.__getitem__, default=files.name) or files.name,
            path=str(path),
            taken=now().isoformat(),
            records=len(self._records),
            relationships=len(self._relationships),
        )

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        for made in self._records:
            assert isinstance(made, Record)  # noqa: S101 - nothing else was put in
            yield made

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        for made in self._relationships:
            assert isinstance(made, Relationship)  # noqa: S101 - nothing else was put in
            yield made

    def close(self) -> None:
        """Let go of what waits."""
        self._records.close()
        self._relationships.close()


class Reading(Value, kw_only=True):
    """What a file does not tell of itself."""

    zone: str | None = None  # of the host that wrote times without one, `Europe/Berlin`
    history: bool = False  # of a folder of notes all that its git repository remembers


class _Opened(NamedTuple):
    """The records of a file, and what of it could not be read."""

    name: str
    source: Source
    refused: Sequence[RefusedRecord] = ()
    omitted: Sequence[str] = ()


def import_(
    vault: Vault | None,
    path: str,
    into: str,
    *,
    reading: Reading | None = None,
    changes: Sequence[Change] = (),
    conflict: Conflict = "skip",
    dims: int | None = None,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> ImportResult:
    """Put what a file or folder holds into a store. Raises `FileError` for what nothing reads, else as `migrate`."""
    aim = destination.find(into, config, verb=f"import {shlex.quote(str(path))} --into")
    file = Path(path).expanduser().absolute()
    if not file.exists():
        raise FileError(f"there is no {path}", hint="memkeep import --help", code="file_missing")
    events.step(f"reading {path}")
    with _opened(file, aim, reading or Reading()) as found:
        moved = move(
            vault,
            found.source,
            aim,
            changes=changes,
            conflict=conflict,
            dims=dims,
            dry_run=dry_run,
            named=path,
            events=events,
        )
    said = {name: getattr(moved, name) for name in moved.__struct_fields__}
    said["findings"] = (*moved.findings, *_findings(found))
    return ImportResult(**said, format=found.name, refused=tuple(found.refused))


@contextmanager
def _opened(path: Path, aim: destination.Destination, reading: Reading) -> Iterator[_Opened]:
    with scratch() as folder:
        if archive.fits(path):
            with _stored(path, folder, aim.system) as found:
                yield found
            return
        files = _history(path) if reading.history else _reader(path, reading.zone)
        source = FileSource(files, path, folder)
        try:
            if files.name == hybrid_export.name and aim.store is not None and aim.system == hybrid_export.SYSTEM:
                yield _Opened(files.name, Recognised(source, aim.store), source.refused)
            else:
                yield _Opened(files.name, source, source.refused)
        finally:
            source.close()


@contextmanager
def _stored(path: Path, folder: Path, system: str) -> Iterator[_Opened]:
    """Open the store in an archive of OpenClaw that fits the target."""
    place = folder / "archive"
    place.mkdir()
    unpacked = archive.unpack(path, place)
    stores = discover([str(place)])
    fitting = [store for store in stores if store.system == system] or stores
    if len(fitting) != 1:
        names = ", ".join(f"{one.system} in {Path(one.path).relative_to(place)}" for one in stores)
        raise FileError(
            f"{path} holds {len(stores)} stores: {names}",
            hint=f"tar -xf {shlex.quote(str(path))} -C DIR   # then memkeep migrate DIR/... --to STORE",
        )
    with records.of_store(fitting[0]) as stored:
        yield _Opened(_ARCHIVE, stored, omitted=unpacked.omitted)


def _history(path: Path) -> _Files:
    if not notes_history.is_repository(path):
        raise UsageError(
            f"{path} lies in no git repository: it has no history", hint=f"git -C {shlex.quote(str(path))} log -1"
        )
    return _Files(f"{notes.name}-history", notes_history.read_history(path))


def _reader(path: Path, zone: str | None) -> _Files:
    one = next((each for each in FORMATS if each.fits(path)), None) or reader_of(path)
    if one is not None:
        if zone is None:
            return _Files(one.name, one.read(path))
        if one.name != openmemory.name:
            raise UsageError(f"--zone is for {openmemory.name}, and {path} is {one.name}", hint="memkeep import --help")
        return _Files(one.name, openmemory.read(path, zone=zone))
    with contextlib.suppress(StoreError):
        for store in discover([str(path)]):
            if store.system != custom.name:  # else any text is one
                raise FileError(
                    f"{path} is no export but a store of {store.system}",
                    hint=f"memkeep migrate {shlex.quote(str(path))} --to STORE",
                    code="format_unknown",
                )
    known = ", ".join(sorted({one.name for one in (*FORMATS, *READERS)}))
    raise FileError(
        f"{path} is none of the formats that can be read: {known}, {_ARCHIVE}",
        hint="memkeep import --help",
        code="format_unknown",
    )


def _findings(found: _Opened) -> Iterator[Finding]:
    for one in found.refused:
        yield Finding(
            code="record_refused",
            severity=Severity.ERROR,
            record=one.where,
            message=f"could not be read, the others were: {one.reason}",
            mend="mend it in the file and import again: what is there already stays as it is",
        )
    for sentence in found.omitted:
        yield Finding(code="entry_left", severity=Severity.WARNING, message=sentence)

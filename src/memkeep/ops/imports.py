"""Read what other programs wrote, an export of memkeep or of a product, into a store.

The records get the ids that they had, or always the same ones, and all go in or none; so an import that was cut off is
begun again, and one that is repeated changes nothing.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from memkeep.clock import now
from memkeep.config import Config
from memkeep.engines.merging import Conflict
from memkeep.errors import FileError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity
from memkeep.ops import destination, records
from memkeep.ops.discover import discover
from memkeep.ops.migrate import Change, MigrateResult, move
from memkeep.ops.scratch import scratch
from memkeep.records.formats.base import About
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.readers import archive
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.catalog import READERS
from memkeep.records.record import Record, Relationship
from memkeep.records.spool import Spool
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


def import_(
    vault: Vault | None,
    path: str,
    into: str,
    *,
    changes: Sequence[Change] = (),
    conflict: Conflict = "skip",
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> ImportResult:
    """Put what a file or folder holds into a store. Raises `FileError` for what nothing reads, else as `migrate`."""
    aim = destination.find(into, config)
    file = Path(path).expanduser().absolute()
    if not file.exists():
        raise FileError(f"there is no {path}", hint="memkeep import --help", code="file_missing")
    with _opened(file, aim.system) as (name, source):
        refused = tuple(source.refused) if isinstance(source, FileSource) else ()
        moved = move(vault, source, aim, changes=changes, conflict=conflict, dry_run=dry_run, named=path, events=events)
    said = msgspec.structs.asdict(moved)
    said["findings"] = (*moved.findings, *_refusals(refused))
    return ImportResult(**said, format=name, refused=refused)


@contextmanager
def _opened(path: Path, system: str) -> Iterator[tuple[str, FileSource | records.RecordSource]]:
    """Open the records of a file or folder; of an archive of OpenClaw those of the store in it that fits the target."""
    with scratch() as folder:
        if archive.fits(path):
            (folder / "archive").mkdir()
            archive.unpack(path, folder / "archive")
            stores = discover([str(folder / "archive")])
            fitting = [store for store in stores if store.system == system] or stores
            if len(fitting) != 1:
                names = ", ".join(f"{one.system} in {Path(one.path).relative_to(folder / 'archive')}" for one in stores)
                raise FileError(
                    f"{path} holds {len(stores)} stores: {names}",
                    hint=f"tar -xf {shlex.quote(str(path))} -C DIR   # then memkeep migrate DIR/... --to STORE",
                )
            with records.of_store(fitting[0]) as stored:
                yield _ARCHIVE, stored
            return
        files = _reader(path)
        source = FileSource(files, path, folder)
        try:
            yield files.name, source
        finally:
            source.close()


def _reader(path: Path) -> _Files:
    for one in (*FORMATS, *READERS):
        if one.fits(path):
            return _Files(one.name, one.read(path))
    known = ", ".join(dict.fromkeys(one.name for one in (*FORMATS, *READERS)))
    raise FileError(
        f"{path} is none of the formats that can be read: {known}",
        hint=f"memkeep discover {shlex.quote(str(path))}   # a store is migrated, not imported",
        code="format_unknown",
    )


def _refusals(refused: Sequence[RefusedRecord]) -> Iterator[Finding]:
    for one in refused:
        yield Finding(
            code="record_refused",
            severity=Severity.ERROR,
            record=one.where,
            message=f"could not be read, the others were: {one.reason}",
            mend="mend it in the file and import again: what is there already stays as it is",
        )

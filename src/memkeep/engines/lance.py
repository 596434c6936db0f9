"""LanceDB tables: one version is held by descriptors on all of its files, and read through them.

A part is one table's folder, `<name>.lance`. Its image is the newest version: the manifest, the files that it names,
and its transaction; older versions are left out, as are tags of them. The files need no library to be held, copied and
put back; with the `lance` package (the format's own library, not `lancedb`) the rows are read too.
"""

import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.engines import lance_files, lance_leaving, lance_pin
from memkeep.engines.lance_inspect import LanceInspection, inspect
from memkeep.engines.lance_pin import Pin
from memkeep.engines.lance_read import RESTORE, Reader, installed, load
from memkeep.engines.merging import Wanted, left_out
from memkeep.engines.rows import Columns, Gone, Rows, no_table
from memkeep.errors import StoreError, UnsupportedError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity, TableMap, TableState
from memkeep.records.groups import Group
from memkeep.records.shape import Row

if TYPE_CHECKING:
    from memkeep.engines.lance_delete import LanceDelete
    from memkeep.engines.lance_merge import LanceMerge

__all__ = ["LanceEngine", "LanceInspection", "LanceOpened", "inspect"]

_ASIDE = {
    "_refs": "tags and branches name other versions, which are not kept",
    "tree": "a branch of the table; only its main line is kept",
    "_mem_wal": "rows that the product has not yet merged into the table",
}


class LanceEngine:
    """Holds, checks and reads one Lance table."""

    name = "lance"

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> "Iterator[LanceOpened]":
        """Hold the newest version. Raises `StoreError` and `UnstableError` as `lance_pin.pin` does."""
        folder = Path(part.path)
        opened = LanceOpened(part, lance_pin.pin(folder, root, scratch), scratch)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def open(self, part: Part, root: Path) -> "Iterator[LanceOpened]":
        """Open a table that was written under `root`."""
        opened = LanceOpened(part, lance_pin.hold_folder(root / part.name), None)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> "Iterator[LanceMerge]":
        """Merge an image into the live table; see `lance_merge`."""
        from memkeep.engines import lance_merge

        one = lance_merge.LanceMerge(Path(live.path), _map(live), wanted, root / "merged.arrow")
        one.take(*lance_merge.stored(root / image.name, one.schema))
        yield one

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return what the live table takes."""
        seen = inspect(Path(live.path)) if table == _table(live.path) else None
        return None if seen is None else Columns(names=tuple(seen.columns), vectors=seen.vectors)

    @contextmanager
    def merge_rows(
        self, live: Part, rows: Mapping[str, Rows], wanted: Wanted, scratch: Path | None = None
    ) -> "Iterator[LanceMerge]":
        """Merge rows into the live table."""
        from memkeep.engines import lance_given, lance_merge

        map_ = _map(live)
        with tempfile.TemporaryDirectory(prefix="memkeep-", dir=scratch) as folder:
            one = lance_merge.LanceMerge(Path(live.path), map_, wanted, Path(folder) / "merged.arrow")
            given = lance_given.Given(map_, one.schema)
            given.left.update(dict.fromkeys(left_out(rows, (map_,))))
            one.take(given.fitted(rows[map_.table]() if map_.table in rows else (), one.has), given.left)
            yield one

    @contextmanager
    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> "Iterator[LanceDelete]":
        """Delete rows of the live table."""
        from memkeep.engines.lance_delete import LanceDelete

        yield LanceDelete(Path(live.path), gone)

    def count(self, part: Part, table: str) -> int | None:
        """Count the rows of the table by its manifest."""
        seen = inspect(Path(part.path)) if table == _table(part.path) else None
        return seen.rows if seen is not None else None


class LanceOpened:
    """One version of a table."""

    def __init__(self, part: Part, pin: Pin, scratch: Path | None) -> None:
        """Take over a pin; `scratch` is where side files may be made, None for a folder that is not live."""
        self.how = f"pinned version {pin.manifest.version}"
        self._part = part
        self._pin = pin
        self._scratch = scratch
        self._table = _table(str(pin.folder))
        self._shadow: Path | None = None
        self._reader: Reader | None = None
        self._findings: list[Finding] = []
        self._baseline: Baseline | None = None
        self._outside = lance_files.outside(pin.manifest)
        if self._outside:
            message = (
                f"{self._table} has files in another place, which are not kept, and cannot be read without them: "
                f"{', '.join(self._outside[:3])}{', ...' if len(self._outside) > 3 else ''}."  # noqa: PLR2004
            )
            mend = "Make a whole copy of the table with its own product, and back that up."
            self._note("lance_files_outside", message, Severity.ERROR, mend)
        for name in self._aside():
            if name != "_refs":
                message = f"{self._table} has {name}/, which is left out: {_ASIDE[name]}."
                self._note("lance_left_out", message, Severity.WARNING, "Let the product merge it, then back up again.")
        if not installed():
            self._findings.append(self._missing())

    def entries(self) -> list[Entry]:
        """Return the files of the version and the folders that they lie in."""
        found = []
        for folder in sorted({parent for name in self._pin.files for parent in Path(name).parents}):
            with suppress(FileNotFoundError):  # the live table is gone; its files are held
                now = (self._pin.folder / folder).stat()
                path = self._path("" if folder == Path() else folder.as_posix())
                found.append(Entry(path=path, kind="dir", mode=stat.S_IMODE(now.st_mode), mtime_ns=now.st_mtime_ns))
        found += [
            Entry(path=self._path(held.name), size=held.size, mode=held.mode, mtime_ns=held.mtime_ns)
            for held in self._pin.files.values()
        ]
        return found

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes from its descriptor."""
        if entry.kind != "file":
            return
        try:
            yield from self._pin.stream(self._file(entry))
        except OSError as error:
            raise StoreError(f"{entry.path} cannot be read: {error.strerror}") from error

    def runs(self, entry: Entry) -> tuple[Run, ...]:
        """Return where vectors lie in a data file; empty before `scan`."""
        return self._reader.finder.runs(self._file(entry)) if self._reader is not None and entry.kind == "file" else ()

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every row; a table that cannot be read to its end is a finding, and gives no records."""
        self._baseline = self._without_rows()
        reader = self._read()
        if reader is None:
            if self._missing() not in self._findings:
                self._findings.append(self._missing())
            return
        rows = reader.scan(self._maps(), bits, probes, self._scratch)
        if reader.findings and self._shadowed():
            if rows is not None:
                rows.close()
            reader = self._read() or reader
            rows = reader.scan(self._maps(), bits, probes, self._scratch)
        if rows is None:
            return
        try:
            yield from rows.groups()
        finally:
            rows.close()
        facts = self._facts() | {"summary": rows.summary(), "vectors": rows.vectors(self._table)}
        state = TableState(rows=rows.count, digest=rows.digest())
        self._baseline = Baseline(tables={self._table: state}, probes=reader.answers, facts=facts)

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the rows of the table in the order that it has; see `engines.rows.RowReader`."""
        if table.table != self._table or table.id not in self._pin.manifest.columns:
            raise no_table(table.table, self._pin.folder)
        done = 0
        while (reader := self._read()) is not None:
            try:
                for found in lance_leaving.leaving(reader.batches(done), table.vectors):
                    done += len(found)
                    yield found
            except StoreError:
                if self._shadowed():
                    continue
                raise
            return
        raise UnsupportedError(self._missing().message, hint="pip install 'memkeep[lance]'")

    def baseline(self) -> Baseline:
        """Return rows, digest, facts and probes; after `scan`."""
        return self._baseline or self._without_rows()

    def check(self) -> list[Finding]:
        """Compare files and rows with what the manifest says; rows are read here unless `scan` has read them."""
        found = [
            self._finding("lance_unreadable", f"{name} is missing from {self._table}.", Severity.ERROR, RESTORE)
            for name in self._pin.missing
        ]
        for name, size in self._sizes().items():
            held = self._pin.files.get(name)
            if held is not None and size and held.size != size:
                message = f"{name} of {self._table} has {held.size} bytes, its manifest says {size}."
                found.append(self._finding("lance_unreadable", message, Severity.ERROR, RESTORE))
        if load() is None:
            return [*found, self._missing()]
        reader = self._read()
        if reader is not None:
            reader.validate()
            if reader.findings and self._shadowed():
                runs = reader.finder
                reader = self._read() or reader
                reader.finder = runs
                reader.validate()
            found += [one for one in reader.findings if one not in found]
        return found

    def moved(self) -> bool:
        """Say whether there is a newer version."""
        return self._scratch is not None and self._pin.moved()

    def held(self) -> bool:
        """Say whether the held files are what they were: they are immutable, so they are."""
        return self._pin.unchanged()

    def omitted(self) -> list[Omission]:
        """Return what belongs to the version but lies elsewhere, and what of the folder belongs to no version."""
        found = [
            Omission(part=self._part.name, reason=f"outside of the table's folder: {name}") for name in self._outside
        ]
        return [*found, *(Omission(part=self._path(name), reason=_ASIDE[name]) for name in self._aside())]

    def findings(self) -> list[Finding]:
        """Return what was noticed."""
        read = self._reader.findings if self._reader is not None else []
        return [*self._findings, *read]

    def close(self) -> None:
        """Let go of everything."""
        self._reader = None
        self._pin.close()

    def _read(self) -> Reader | None:
        """Return the reader, made at first use; None without the library."""
        library = load()
        if self._reader is None and library is not None:
            self._reader = Reader(library, self._shadow or self._pin.folder, self._pin, self._part.name, self._table)
        return self._reader

    def _shadowed(self) -> bool:
        """Turn from the live folder to links to what is held, when a clean-up may have come in between.

        Rows are first read where they lie, since making links takes longer than that on some disks. Says whether
        there is something new to try.
        """
        if self._shadow is not None or self._scratch is None:
            return False
        self._shadow = self._pin.shadow(self._scratch / "shadow")
        self._reader = None
        return True

    def _maps(self) -> list[TableMap]:
        """Return the maps of this table; one whose id column is not there is a finding."""
        wanted = [map_ for map_ in self._part.maps if map_.table == self._table]
        for map_ in wanted:
            if map_.id not in self._pin.manifest.columns:
                message = (
                    f"{self._table} has no column {map_.id}: {map_.collection} has no records, the image is whole."
                )
                self._note("lance_map_missing", message, Severity.WARNING, "memkeep discover")
        return [map_ for map_ in wanted if map_.id in self._pin.manifest.columns]

    def _without_rows(self) -> Baseline:
        tables = {self._table: TableState(rows=self._pin.manifest.rows, digest="")}
        return Baseline(tables=tables, facts=self._facts() | {"summary": {}, "vectors": {}})

    def _facts(self) -> dict[str, Any]:
        manifest = self._pin.manifest
        return {
            "lance_version": manifest.version,
            "fragments": len(manifest.fragments),
            "columns": manifest.columns,
            "storage_version": manifest.storage_version,
            "writer": manifest.writer,
            "indices": [
                {
                    "name": index.name,
                    "kind": index.kind,
                    "columns": [manifest.field_names.get(field, str(field)) for field in index.fields],
                }
                for index in manifest.indices
            ],
        }

    def _sizes(self) -> dict[str, int]:
        """Return the sizes that the manifest says, 0 where it does not."""
        manifest = self._pin.manifest
        sizes = {file.path: file.size for fragment in manifest.fragments for file in fragment.files}
        for index in manifest.indices:
            sizes.update({f"_indices/{index.uuid}/{name}": size for name, size in index.files.items()})
        return sizes

    def _aside(self) -> list[str]:
        return [name for name in _ASIDE if (self._pin.folder / name).exists()]

    def _path(self, name: str) -> str:
        return "/".join(piece for piece in (self._part.name, name) if piece)

    def _file(self, entry: Entry) -> str:
        return entry.path.removeprefix(f"{self._part.name}/")

    def _missing(self) -> Finding:
        message = "The Lance library is not installed: the files are kept whole, but their rows were not read."
        return self._finding("lance_reader_missing", message, Severity.WARNING, "pip install 'memkeep[lance]'")

    def _finding(self, code: str, message: str, severity: Severity, mend: str) -> Finding:
        return Finding(code=code, severity=severity, message=message, part=self._part.name, mend=mend)

    def _note(self, code: str, message: str, severity: Severity, mend: str) -> None:
        finding = self._finding(code, message, severity, mend)
        if finding not in self._findings:
            self._findings.append(finding)


def _map(live: Part) -> TableMap:
    found = next((each for each in live.maps if each.table == _table(live.path)), None)
    if found is None:
        raise StoreError(f"{live.path} has no records that are known", hint="memkeep discover")
    return found


def _table(path: str) -> str:
    return Path(path).name.removesuffix(".lance")

"""Read the rows of a held Lance table with the format's own library.

Rows are asked for a few MiB at a time, as ranges: a scan of everything reads far ahead (it took twice the memory), and
the library's setting for that, `io_buffer_size`, makes it wait for ever when a batch is larger. Small fragments are
read several at once, since each read costs a millisecond, and a table filled a row at a time has thousands of them.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from memkeep.engines.lance_manifest import Fragment, Manifest
from memkeep.engines.lance_pin import Pin
from memkeep.engines.lance_probes import Prober
from memkeep.engines.lance_rows import Rows
from memkeep.engines.lance_runs import Finder
from memkeep.engines.lance_values import Vectors, element_bytes, is_plain, values, vectors
from memkeep.errors import MemkeepError, StoreError
from memkeep.model import Finding, Probe, Severity, TableMap

RESTORE = "memkeep restore of an earlier snapshot brings back the table as it was."
_READ_BYTES = 1 << 20
_READ_ROWS = 8192
_BATCH_ROWS = 1024
_SMALLEST_READ = 32
_ROW_ADDRESS = "_rowaddr"  # fragment << 32 | row in the fragment


def installed() -> bool:
    """Say whether the library is there, without the time that loading it takes."""
    return find_spec("lance") is not None


def load() -> Any | None:
    """Return the library, None when it is not installed."""
    try:
        import lance
    except ImportError:
        return None
    return lance


class Reader:
    """The pinned version, opened in `folder`: where it lies, or links to what the pin holds."""

    def __init__(self, library: Any, folder: Path, pin: Pin, part: str, table: str) -> None:
        """Open; when that fails there is a finding, and everything below does nothing."""
        self.findings: list[Finding] = []
        self.finder = Finder(pin.read)
        self._read_file = pin.read
        self.answers: tuple[Probe, ...] = ()
        self._manifest = pin.manifest
        self._part = part
        self._table = table
        self._dataset: Any = None
        self._whole = False
        self._fields = {
            fragment.id: {name: file.path for file in fragment.files for name in _names(pin.manifest, file.fields)}
            for fragment in pin.manifest.fragments
        }
        with self._guard("lance_unreadable", "does not open"):
            self._dataset = library.dataset(str(folder), version=pin.manifest.version)
            self._schema = self._dataset.schema

    def scan(
        self, maps: Sequence[TableMap], bits: dict[str, int], probes: tuple[Probe, ...] | None, folder: Path | None
    ) -> Rows | None:
        """Read every row once, and ask the probes; None (and a finding) when not all rows can be read."""
        self._whole = False
        self.finder = Finder(self._read_file)
        if self._dataset is None:
            return None
        rows = Rows(
            self._schema.names,
            {field.name: width for field in self._schema if (width := element_bytes(field.type))},
            plain={field.name for field in self._schema if is_plain(field.type)},
            maps=maps,
            bits=bits,
            expected=self._manifest.rows,
            folder=folder,
        )
        with self._guard("lance_unreadable", "cannot be read to its end"):
            prober = self._prober(maps, probes)
            for batch in self._batches():
                self._take(batch, rows, prober)
            self._whole = True
            self._count(rows.count)
            with self._guard("lance_probe", "does not answer", Severity.WARNING):
                self.answers = prober.answers() if prober is not None else ()
        if self._whole:
            return rows
        rows.close()
        return None

    def batches(self, after: int) -> Iterator[Any]:
        """Yield the rows after so many, as Arrow batches. Raises `StoreError`."""
        if self._dataset is not None:
            with self._guard("lance_unreadable", "cannot be read to its end"):
                for batch in self._batches():
                    skipped, after = min(after, batch.num_rows), max(0, after - batch.num_rows)
                    yield batch.slice(skipped).select(self._schema.names)
                return
        raise StoreError(self.findings[-1].message, hint="memkeep verify")

    def validate(self) -> None:
        """Let the library check the version, and read all rows unless they have been read."""
        if self._dataset is None:
            return
        with self._guard("lance_validate", "is not valid"):
            self._dataset.validate()
        with self._guard("lance_unreadable", "cannot be counted"):
            self._count(self._dataset.count_rows())
        if not self._whole:
            with self._guard("lance_unreadable", "cannot be read to its end"):
                self._count(sum(batch.num_rows for batch in self._batches()))
                self._whole = True

    def _prober(self, maps: Sequence[TableMap], probes: tuple[Probe, ...] | None) -> Prober | None:
        with self._guard("lance_probe", "does not answer", Severity.WARNING):
            chosen = next((map_ for map_ in maps if map_.primary), maps[0] if maps else None)
            return Prober(self._dataset, self._manifest, self._table, chosen, probes)
        return None

    def _take(self, batch: Any, rows: Rows, prober: Prober | None) -> None:
        """Hand a batch to everything that wants it."""
        if not batch.num_rows:
            return
        columns: list[list[Any]] = []
        found: dict[str, tuple[Vectors, Any]] = {}
        for name in rows.columns:
            array = batch.column(name)
            if element_bytes(array.type):
                read = vectors(array)
                columns.append(read.packed)
                if read.rows is not None:
                    found[name] = (read, array.type)
            else:
                columns.append(values(array))
        rows.add(columns)
        addresses = batch.column(_ROW_ADDRESS).to_numpy()
        for name, (read, type_) in found.items():
            self._find(name, addresses, read)
            if prober is not None and name in prober.columns and read.rows is not None:
                matrix = read.rows.view(f"<f{element_bytes(type_)}")
                prober.add(name, columns[rows.columns.index(prober.id)], matrix, read.valid)

    def _find(self, column: str, addresses: Any, read: Vectors) -> None:
        """Look for the vectors of a batch in the files of its fragments."""
        import numpy as np

        fragments = addresses >> np.uint64(32)
        places = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
        cuts = [0, *(np.flatnonzero(np.diff(fragments)) + 1).tolist(), len(fragments)]
        for start, end in pairwise(cuts):
            file = self._fields.get(int(fragments[start]), {}).get(column)
            if file is not None and read.rows is not None:
                valid = None if read.valid is None else read.valid[start:end]
                self.finder.add(file, column, places[start:end], read.rows[start:end], valid)

    def _batches(self) -> Iterator[Any]:
        """Yield all rows in order; the next range is read while one is worked on."""
        step = self._rows_a_read()
        fragments = {fragment.fragment_id: fragment for fragment in self._dataset.get_fragments()}
        options = {"blob_handling": "all_binary"} if self._manifest.blobs else {}

        def read(group: list[Fragment], offset: int | None, limit: int | None) -> list[Any]:
            scanner = self._dataset.scanner(
                fragments=[fragments[fragment.id] for fragment in group],
                offset=offset,
                limit=limit,
                with_row_address=True,
                batch_size=min(step, _BATCH_ROWS),
                scan_in_order=True,
                **options,
            )
            return list(scanner.to_batches())

        with ThreadPoolExecutor(1, "memkeep-lance") as ahead:
            reads = [ahead.submit(list[Any])]
            for one in _reads(self._manifest.fragments, step):
                reads.append(ahead.submit(read, *one))
                yield from reads.pop(0).result()
            yield from reads.pop(0).result()

    def _rows_a_read(self) -> int:
        rows = sum(fragment.physical_rows for fragment in self._manifest.fragments)
        size = sum(file.size for fragment in self._manifest.fragments for file in fragment.files)
        each = size // rows if rows else 0
        if not each:  # old manifests do not say sizes
            each = sum(8 * dims for dims in self._manifest.vectors.values())
        return max(_SMALLEST_READ, min(_READ_ROWS, _READ_BYTES // max(each, 1)))

    def _count(self, rows: int) -> None:
        if rows != self._manifest.rows:
            message = f"{self._table} gives {rows} rows, its manifest says {self._manifest.rows}."
            self._note("lance_count", message, Severity.ERROR)

    def _guard(self, code: str, what: str, severity: Severity = Severity.ERROR) -> "_Guard":
        return _Guard(lambda why: self._note(code, f"The table {self._table} {what}: {why}", severity))

    def _note(self, code: str, message: str, severity: Severity) -> None:
        finding = Finding(code=code, severity=severity, message=message, part=self._part, mend=RESTORE)
        if finding not in self.findings:
            self.findings.append(finding)


class _Guard:
    """Turns whatever the library raises into a finding."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None or isinstance(error, MemkeepError):
            return False
        # Rust panics come as an exception that is not an `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            return False
        self._note((str(error).splitlines() or [type(error).__name__])[0][:300])
        return True


def _names(manifest: Manifest, fields: Sequence[int]) -> list[str]:
    return [manifest.field_names[field] for field in fields if field in manifest.field_names]


def _reads(fragments: Sequence[Fragment], step: int) -> Iterator[tuple[list[Fragment], int | None, int | None]]:
    """Yield what to read at once: several small fragments, or a range of rows of a large one."""
    group: list[Fragment] = []
    rows = 0
    for fragment in fragments:
        if group and rows + fragment.rows > step:
            yield group, None, None
            group, rows = [], 0
        if fragment.rows > step:
            for offset in range(0, fragment.rows, step):
                yield [fragment], offset, step
        elif fragment.rows:
            group.append(fragment)
            rows += fragment.rows
    if group:
        yield group, None, None

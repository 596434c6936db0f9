"""Postgres tables as files: written from a server, and read without one. See `engines.base.Opened`.

<part>/tables.json                 what the tables are (see `postgres_tables`)
<part>/schema.sql, finish.sql      the same as SQL: what makes the tables; keys, indexes and so on, for afterwards
<part>/restore.sql                 for `psql --single-transaction -f restore.sql`, in this folder
<part>/<schema>.<table>/rows/*.copy          all columns but the vectors, cut where the keys say so
<part>/<schema>.<table>/vectors/<column>.copy   dimensions and vector, row by row in the same order
"""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkeep.engines import postgres_row_values
from memkeep.engines.postgres_probes import Prober, prober
from memkeep.engines.postgres_rows import Reading
from memkeep.engines.postgres_tables import FILE, Table, Tables, decode
from memkeep.engines.rows import no_table
from memkeep.errors import StoreError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity, TableMap, TableState
from memkeep.records.groups import Group
from memkeep.records.shape import Row

_BUFFER = 1 << 20


class Image:
    """One moment of some tables, as files under `root`."""

    how = "image"

    def __init__(self, part: Part, root: Path, scratch: Path | None, marks: Path | None = None) -> None:
        """Open; `scratch` is where side files may be made. `StoreError` when there is no image.

        `marks` is where the digests of the vectors lie already, in folders like those of the tables.
        """
        self.part = part
        self._root = root
        self._folder = root / part.name
        self._scratch = scratch
        self._marks = marks
        file = self._folder / FILE
        try:
            data = file.read_bytes()
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror}", hint="memkeep verify --all") from error
        self.tables: Tables = decode(data, str(file))
        self._found: list[Finding] = []
        self._baseline: Baseline | None = None
        self.asked: list[Prober] = []  # the questions of the last scan

    def entries(self) -> list[Entry]:
        """Return the files and folders of the image."""
        found = []
        for path in (self._folder, *sorted(self._folder.rglob("*"))):
            name = path.relative_to(self._root).as_posix()
            now = path.stat()
            if path.is_dir():
                found.append(Entry(path=name, kind="dir", mode=stat.S_IMODE(now.st_mode), mtime_ns=now.st_mtime_ns))
            else:
                found.append(Entry(path=name, size=now.st_size, mode=0o600, mtime_ns=now.st_mtime_ns))
        return found

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes."""
        if entry.kind != "file":
            return
        with (self._root / entry.path).open("rb", buffering=0) as file:
            while data := file.read(_BUFFER):
                yield data

    def runs(self, entry: Entry) -> tuple[Run, ...]:  # noqa: ARG002 - the contract's
        """Return nothing: only who wrote the files knows."""
        return ()

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every row of every table once."""
        self._found = []
        self.asked = []
        states: dict[str, TableState] = {}
        answers: list[Probe] = []
        facts: dict[str, Any] = {"postgres": self.tables.server, "summary": {}, "vectors": {}}
        facts["extensions"] = {name: one.version for name, one in self.tables.extensions.items()}
        for table in self.tables.tables:
            maps = self._maps(table)
            asker = prober(table, maps, probes)
            reading = Reading(table, maps, bits, asker, self._scratch)
            folder = self._folder / table.folder
            try:
                if asker is not None and probes is not None:
                    asker.look_up(folder)
                self._read(table, reading, folder)
                yield from reading.groups()
            finally:
                reading.close()
            states[table.full] = TableState(rows=reading.digest.count, digest=reading.digest.hex())
            facts["summary"] |= reading.summary()
            facts["vectors"] |= reading.vectors()
            if asker is not None:
                self.asked.append(asker)
                answers += asker.answers()
        self._miss()
        if probes is not None:
            there = {(one.kind, one.table, one.column, one.question) for one in answers}
            answers += [
                Probe(kind=one.kind, table=one.table, column=one.column, question=one.question, ids=(), scores=())
                for one in probes
                if (one.kind, one.table, one.column, one.question) not in there
            ]
        self._baseline = Baseline(tables=states, probes=tuple(answers), facts=facts)

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the rows of a map's table in the order that the server gave them. Raises `StoreError`."""
        for one in self.tables.tables:
            if one.full == table.table:
                words = {name for name, made in self.tables.types.items() if " AS ENUM (" in made}
                enums = frozenset(name.rpartition(".")[2].strip('"') for name in words)
                yield from postgres_row_values.read(one, self._folder / one.folder, enums)
                return
        raise no_table(table.table, self.part.name)

    def look_up(self, probes: tuple[Probe, ...]) -> list[Prober]:
        """Return some questions with the vectors that the image has for them. Raises `StoreError`."""
        found = []
        for table in self.tables.tables:
            asker = prober(table, self._maps(table), probes)
            if asker is not None:
                asker.look_up(self._folder / table.folder)
                found.append(asker)
        return found

    def baseline(self) -> Baseline:
        """Return counts, digests, probes and facts; `RuntimeError` before `scan` ended."""
        if self._baseline is None:
            raise RuntimeError("baseline() before scan() was read to its end")
        return self._baseline

    def check(self) -> list[Finding]:
        """Compare the rows with what the image says of itself."""
        found = []
        for table in self.tables.tables:
            state = self._baseline.tables.get(table.full) if self._baseline is not None else None
            if state is not None and state.rows != table.rows:
                message = f"{table.full} has {state.rows} rows, its image says {table.rows}."
                found.append(self.finding("postgres_unreadable", message, Severity.ERROR))
        return found

    def moved(self) -> bool:
        """Say that files do not move."""
        return False

    def held(self) -> bool:
        """Say that files stay as they are."""
        return True

    def omitted(self) -> list[Omission]:
        """Return nothing: an image is all there is."""
        return []

    def findings(self) -> list[Finding]:
        """Return what the last scan noticed."""
        return list(self._found)

    def finding(self, code: str, message: str, severity: Severity, mend: str = "") -> Finding:
        """Return a finding about this part."""
        return Finding(code=code, severity=severity, message=message, part=self.part.name, mend=mend or None)

    def _read(self, table: Table, reading: Reading, folder: Path) -> None:
        """Read a table; one whose files are not what was written is a finding, and what was read of it is kept."""
        try:
            reading.read(folder, self._marks and self._marks / table.folder)
        except (StoreError, OSError, ValueError, ArithmeticError) as error:
            message = f"{table.full} could be read up to row {reading.digest.count} only: {error}."
            mend = "memkeep restore of an earlier snapshot brings back the table as it was."
            self._found.append(self.finding("postgres_unreadable", message, Severity.ERROR, mend))

    def _maps(self, table: Table) -> tuple[TableMap, ...]:
        names = {column.name for column in table.others}
        return tuple(map_ for map_ in self.part.maps if map_.table == table.full and map_.id in names)

    def _miss(self) -> None:
        mapped = {map_.collection for table in self.tables.tables for map_ in self._maps(table)}
        for map_ in self.part.maps:
            if map_.collection not in mapped:
                message = (
                    f"There is no column {map_.id} of {map_.table}: the collection {map_.collection} has no records."
                )
                self._found.append(self.finding("postgres_map_missing", message, Severity.WARNING, "memkeep discover"))

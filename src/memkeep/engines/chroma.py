"""Chroma's persistent directory: `chroma.sqlite3` and a folder of HNSW files for each collection, held together.

Neither is whole without the other (see `chroma_rows`). The database is held as any SQLite database. The HNSW files are
written only when a collection is synchronised, and then all of them: they are copied aside while their stamps stand
still, before the database is held until after they were copied, so that what they hold is what the database knows of.
The image is these files as they are, for Chroma to open.

Vectors of cosine collections come out of the HNSW files within one rounding of float32 of what they were in the queue:
on the day after a collection was synchronised they differ in their digests.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import Any

from memkeep import clock
from memkeep.engines import chroma_rows, point_rows, sqlite
from memkeep.engines.base import ServerTable
from memkeep.engines.chroma_delete import ChromaDelete, deleting
from memkeep.engines.chroma_files import DATABASE, is_segment
from memkeep.engines.chroma_merge import ChromaMerge, merging, merging_rows
from memkeep.engines.chroma_rows import Collection, Joined, collections
from memkeep.engines.chroma_segment import Vectors
from memkeep.engines.merging import Wanted
from memkeep.engines.payload_rows import PayloadRows
from memkeep.engines.qdrant_edge import Point
from memkeep.engines.qdrant_probes import QUESTIONS, Asker
from memkeep.engines.rows import Columns, Gone, Rows, no_table
from memkeep.engines.sqlite import SqliteEngine, SqliteOpened
from memkeep.engines.sqlite_copy import Stamp, copy_bytes, quiet_stamps, stamps
from memkeep.errors import StoreError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity, TableMap, TableState
from memkeep.records.groups import Group
from memkeep.records.shape import Row

COUNTS = """
SELECT c.name, c.dimension, d.tenant_id, d.name,
  (SELECT count(*) FROM embeddings e JOIN segments s ON s.id = e.segment_id WHERE s.collection = c.id), c.id
FROM collections c LEFT JOIN databases d ON d.id = c.database_id ORDER BY c.id
"""
KEYS = """
SELECT s.collection, m.key FROM segments s JOIN embedding_metadata m
ON m.id IN (SELECT e.id FROM embeddings e WHERE e.segment_id = s.id LIMIT 200) WHERE s.scope = 'METADATA'
GROUP BY 1, 2 ORDER BY 1, 2
"""
_ATTEMPTS = 12
_PAUSE = 0.05  # seconds, times the number of the attempt
_RECENT = 10  # seconds in which files are written one after another
_BUFFER = 1 << 20
_NAMED = 20
_METRICS = {"cosine": "Cosine", "ip": "Dot"}  # else Euclid


def tables(counts: Iterable[tuple[Any, ...]], keys: Iterable[tuple[Any, ...]]) -> tuple[ServerTable, ...]:
    """Return what collections there are, by the database's answers to `COUNTS` and `KEYS`."""
    by_collection: dict[str, dict[str, str]] = {}
    for collection, key in keys:
        name = "document" if key == chroma_rows.DOCUMENT else "metadata.document" if key == "document" else key
        by_collection.setdefault(collection, {})[name] = "document" if name == "document" else "metadata"
    return tuple(
        ServerTable(
            name=chroma_rows.full_name(name, tenant, database),
            columns={"id": "id", **by_collection.get(id_, {}), "vector": "vector"},
            vectors={"vector": dims or 0},
            key="id",
            rows=rows,
        )
        for name, dims, tenant, database, rows, id_ in counts
    )


class ChromaEngine:
    """Holds, checks and reads one persistent directory."""

    name = "chroma"

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> "Iterator[ChromaOpened]":
        """Hold one moment. Raises as `SqliteEngine.freeze` does."""
        folder = Path(part.path)
        for attempt in range(_ATTEMPTS):
            aside = scratch / str(attempt)
            with ExitStack() as stack:
                held = self._together(part, root, aside, stack)
                opened = held and ChromaOpened(part, held[0], aside / "files", folder, held[1])
                last = attempt == _ATTEMPTS - 1
                if opened is not None and (last or not opened.torn()):
                    yield opened
                    return
                if last:
                    break
            shutil.rmtree(aside)
            clock.pause(_PAUSE * (attempt + 1))
        with ExitStack() as stack:
            stamped, files = self._copied(folder, aside / "at-last")
            held_database = self._database(part, root, aside / "sqlite-at-last", stack)
            opened = ChromaOpened(part, held_database, files, folder, stamped)
            opened.note(
                "chroma_unsettled",
                Severity.WARNING,
                "The vector files were written to each time they were copied: they may be of another moment than the"
                " database.",
                "back up again at a quieter time",
            )
            yield opened

    @contextmanager
    def open(self, part: Part, root: Path) -> "Iterator[ChromaOpened]":
        """Open the image that lies under a private folder; its bytes stay as they are."""
        folder = root / part.name
        with SqliteEngine().open(_database_of(part, folder), root) as held:
            yield ChromaOpened(part, held, folder, folder, None)

    @contextmanager
    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> Iterator[ChromaMerge]:
        """Merge an image into the live directory; see `chroma_merge`."""
        folder = root / image.name
        with SqliteEngine().open(_database_of(image, folder), root) as held:
            there = {one.name: one for one in collections(held.ask)}
            alike = {each.collection: each.table for each in image.maps}
            sources = {
                each.table: each.table if each.table in there else alike.get(each.collection) for each in live.maps
            }
            streams = {
                table: Joined(held.ask, there[source], folder).records()
                for table, source in sources.items()
                if source is not None and source in there
            }
            with merging(Path(live.path), streams, live.maps, wanted) as one:
                yield one

    @contextmanager
    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> Iterator[ChromaDelete]:
        """Delete records of the live directory; see `chroma_delete`."""
        with deleting(Path(live.path), gone) as one:
            yield one

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return what a collection of the live directory takes: anything in its metadata."""
        found = next((one for one in _tables(live) if one.name == table), None)
        return None if found is None else Columns(names=("id", "document", "vector"), vectors=found.vectors)

    @contextmanager
    def merge_rows(
        self,
        live: Part,
        rows: Mapping[str, Rows],
        wanted: Wanted,
        scratch: Path | None = None,  # noqa: ARG002 - the contract's signature
    ) -> Iterator[ChromaMerge]:
        """Merge rows into the live directory."""
        with merging_rows(Path(live.path), rows, live.maps, wanted) as one:
            yield one

    def count(self, part: Part, table: str) -> int | None:
        """Count the records of a live collection; None when it can't be read."""
        return next((one.rows for one in _tables(part) if one.name == table), None)

    def _together(
        self, part: Part, root: Path, aside: Path, stack: ExitStack
    ) -> tuple[SqliteOpened, dict[Path, Stamp | None]] | None:
        """Hold the database and copy the files; None when these were written to meanwhile."""
        folder = Path(part.path)
        before = quiet_stamps(_files(folder))
        held = self._database(part, root, aside / "sqlite", stack)
        _copy(folder, before, aside / "files")
        now = stamps(_files(folder))
        return (held, before) if now == before else None

    def _database(self, part: Part, root: Path, aside: Path, stack: ExitStack) -> SqliteOpened:
        aside.mkdir(parents=True)
        return stack.enter_context(SqliteEngine().freeze(_database_of(part, Path(part.path)), root, aside))

    def _copied(self, folder: Path, aside: Path) -> tuple[dict[Path, Stamp | None], Path]:
        now = stamps(_files(folder))
        _copy(folder, now, aside)
        return now, aside


class ChromaOpened:
    """One moment of a directory: the held database, and the HNSW files in a folder that nobody changes."""

    def __init__(
        self, part: Part, held: SqliteOpened, files: Path, live: Path, stamped: dict[Path, Stamp | None] | None
    ) -> None:
        """Take over; `stamped` are the live files as they were copied, None for an image."""
        self.how = f"{held.how}; vector files unchanged while copied" if stamped is not None else held.how
        self._part = part
        self._held = held
        self._files = files
        self._live = live
        self._stamped = stamped
        self._noted: list[Finding] = []
        self._found: list[Finding] = []
        self._baseline = Baseline(facts={"summary": {}, "vectors": {}})

    def torn(self) -> bool:
        """Say whether the files of some segment do not fit each other, and were written just now: they still are."""
        recent = clock.now().timestamp() - _RECENT
        return any(
            one.trouble and any(file.stat().st_mtime > recent for file in one.folder.glob("*"))
            for one in self._segments()
        )

    def entries(self) -> list[Entry]:
        """Return the database, and the segments' folders and files."""
        found = list(self._held.entries())
        for folder in _segments(self._files):
            with suppress(FileNotFoundError):
                now = (self._live / folder.name).stat()
                name = self._path(folder.name)
                found.append(Entry(path=name, kind="dir", mode=S_IMODE(now.st_mode), mtime_ns=now.st_mtime_ns))
        for path in _files(self._files):
            now = path.stat()
            name = self._path(path.relative_to(self._files).as_posix())
            found.append(Entry(path=name, size=now.st_size, mode=S_IMODE(now.st_mode), mtime_ns=now.st_mtime_ns))
        return found

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes."""
        if entry.kind != "file":
            return
        inside = entry.path if self._part.name == "." else entry.path.removeprefix(f"{self._part.name}/")
        if inside.startswith(DATABASE):
            yield from self._held.stream(entry)
            return
        try:
            with (self._files / inside).open("rb", buffering=0) as file:
                while buffer := file.read(_BUFFER):
                    yield buffer
        except OSError as error:
            raise StoreError(f"{entry.path} cannot be read: {error.strerror}") from error

    def runs(self, entry: Entry) -> tuple[Run, ...]:  # noqa: ARG002 - the contract's
        """Return nothing: an element stays where it is in its file, with its links beside it."""
        return ()

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every record of every collection; compare rows and vectors."""
        self._found = []
        self._baseline = Baseline(facts={"summary": {}, "vectors": {}})
        states: dict[str, TableState] = {}
        facts: dict[str, Any] = {"summary": {}, "vectors": {}, "spaces": {}}
        answers: list[Probe] = []
        try:
            for collection in collections(self._held.ask):
                joined = Joined(self._held.ask, collection, self._files)
                rows, asker = self._read(joined, bits, probes)
                try:
                    yield from rows.groups()
                finally:
                    rows.close()
                self._compare(joined)
                states[collection.name] = TableState(rows=rows.count, digest=rows.digest())
                facts["summary"] |= rows.summary()
                facts["vectors"] |= rows.vectors()
                facts["spaces"][collection.name] = collection.space
                answers += asker.answers(probes)
        except StoreError as error:
            message = f"The collections were not read to their end: {error.message}"
            self._find("chroma_unreadable", Severity.ERROR, message)
        self._baseline = Baseline(tables=states, probes=tuple(answers), facts=facts)

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the records of a collection. Raises `StoreError`."""
        for collection in collections(self._held.ask):
            if collection.name == table.table:
                for points in Joined(self._held.ask, collection, self._files).records():
                    yield list(map(point_rows.to_row, points))
                return
        raise no_table(table.table, self._part.name)

    def baseline(self) -> Baseline:
        """Return records, digests, facts and probes; after `scan`."""
        return self._baseline

    def check(self) -> list[Finding]:
        """Run SQLite's own checks, and look at the files of every segment."""
        found = [self._own(one) for one in self._held.check() if not _of_schema(one)]
        for vectors in self._segments():
            found += [self._damaged(vectors.folder, each) for each in vectors.trouble]
        return found

    def moved(self) -> bool:
        """Say whether anything was written since."""
        return self._stamped is not None and (self._held.moved() or stamps(_files(self._live)) != self._stamped)

    def held(self) -> bool:
        """Say whether what was read is still one moment."""
        return self._held.held()

    def omitted(self) -> list[Omission]:
        """Return nothing."""
        return self._held.omitted()

    def findings(self) -> list[Finding]:
        """Return what freezing and the last scan noticed."""
        return [*(self._own(one) for one in self._held.findings()), *self._noted, *self._found]

    def note(self, code: str, severity: Severity, message: str, mend: str) -> None:
        """Add a finding about how the moment was held."""
        self._noted.append(Finding(code=code, severity=severity, message=message, part=self._part.name, mend=mend))

    def _read(
        self, joined: Joined, bits: dict[str, int], probes: tuple[Probe, ...] | None
    ) -> tuple[PayloadRows, Asker]:
        collection = joined.collection
        maps = [map_ for map_ in self._part.maps if map_.table == collection.name]
        sql = f"SELECT count(*) FROM embeddings WHERE segment_id = {chroma_rows.quoted(collection.metadata)}"  # noqa: S608 - quoted
        expected = sum(batch[0][0] for batch in self._held.ask(sql))
        scratch = None if self._stamped is None else self._files.parent
        rows = PayloadRows(collection.name, maps, bits, expected, scratch)
        asker, width = _asker(joined, probes)
        try:
            for points in joined.records():
                rows.add(points)
                asker.add([_asked(collection, point.id, joined.vector(str(point.id)), width) for point in points])
        except BaseException:
            rows.close()
            raise
        return rows, asker

    def _compare(self, joined: Joined) -> None:
        """Say which records have no vector and which vectors no record, and of which vectors the size differs."""
        collection = joined.collection
        for ids, code, severity, what in (
            (joined.missing, "chroma_vector_missing", Severity.ERROR, "is in {} without a vector"),
            (joined.extra, "chroma_vector_extra", Severity.WARNING, "has a vector in {}, but is not there"),
        ):
            for record in ids[:_NAMED]:
                self._find(code, severity, f"{record} {what.format(collection.name)}.", record)
            if len(ids) > _NAMED:
                self._find(code, severity, f"{len(ids) - _NAMED} more: each {what.format(collection.name)}.")
        dims = joined.segment.dims
        if dims and collection.dims and dims != collection.dims:
            message = f"{collection.name} is said to have {collection.dims} dimensions, its vectors have {dims}."
            self._find("chroma_dims", Severity.ERROR, message)
        if collection.vectors_to and not joined.segment.written:
            message = f"The vector files of {collection.name} are gone: {collection.vectors}/."
            self._find("chroma_segment_missing", Severity.ERROR, message)
        for each in joined.segment.trouble:
            self._found.append(self._damaged(joined.segment.folder, each))

    def _segments(self) -> list[Vectors]:
        try:
            known = collections(self._held.ask)
        except StoreError:  # `scan` says it
            return []
        return [Vectors(self._files / one.vectors, cosine=one.space == "cosine") for one in known if one.vectors]

    def _damaged(self, folder: Path, what: str) -> Finding:
        return self._made("chroma_segment_damaged", Severity.ERROR, f"{folder.name}: {what}.")

    def _find(self, code: str, severity: Severity, message: str, record: str | None = None) -> None:
        self._found.append(self._made(code, severity, message, record))

    def _made(self, code: str, severity: Severity, message: str, record: str | None = None) -> Finding:
        mend = "add the records again, or restore an older snapshot"
        return Finding(code=code, severity=severity, message=message, part=self._part.name, record=record, mend=mend)

    def _own(self, finding: Finding) -> Finding:
        import msgspec

        return msgspec.structs.replace(finding, part=self._part.name)

    def _path(self, inside: str) -> str:
        return inside if self._part.name == "." else f"{self._part.name}/{inside}"


def _tables(live: Part) -> tuple[ServerTable, ...]:
    file = Path(live.path) / DATABASE
    seen = sqlite.inspect([file], {file: [COUNTS]})[file]
    return tables(seen.results[0], ()) if seen.results else ()


def _of_schema(finding: Finding) -> bool:
    """Say whether a finding is about Chroma's own schema, in which segments refer to a table that never was."""
    return finding.code == "foreign_key" and "rows of segments point to missing rows of collection;" in finding.message


def _database_of(part: Part, folder: Path) -> Part:
    name = DATABASE if part.name == "." else f"{part.name}/{DATABASE}"
    return Part(name=name, engine="sqlite", role=part.role, path=str(folder / DATABASE))


def _segments(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if is_segment(each.name) and each.is_dir())
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[Path]:
    """Return the files of all segments, in order."""
    found = []
    for segment in _segments(folder):
        with suppress(FileNotFoundError):
            found += sorted(each for each in segment.iterdir() if each.is_file() and not each.is_symlink())
    return found


def _copy(folder: Path, wanted: Iterable[Path], target: Path) -> None:
    """Copy files of segments with their modes and times, as far as they are still there."""
    target.mkdir(parents=True, exist_ok=True)
    for segment in _segments(folder):
        (target / segment.name).mkdir(exist_ok=True)
    for path in wanted:
        to = target / path.relative_to(folder)
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            now = os.fstat(source)
            to.parent.mkdir(exist_ok=True)
            copy_bytes(source, path, to)
        finally:
            os.close(source)
        to.chmod(S_IMODE(now.st_mode) | 0o400)
        os.utime(to, ns=(now.st_mtime_ns, now.st_mtime_ns))


def _asker(joined: Joined, probes: tuple[Probe, ...] | None) -> tuple[Asker, int]:
    """Choose the questions, or take those given; return the bytes of their vectors too."""
    collection = joined.collection
    if probes is None:
        some = joined.some(QUESTIONS)
    else:
        ids = [one.question for one in probes if one.kind == "vector" and one.table == collection.name]
        some = [(record, vector) for record in ids if (vector := joined.vector(record)) is not None]
    width = len(some[0][1]) if some else 0
    points = [_asked(collection, record, vector, width) for record, vector in some]
    metric = _METRICS.get(collection.space, "Euclid")
    return Asker(collection.name, {"": metric}, [("", point) for point in points]), width


def _asked(collection: Collection, record: int | str, vector: bytes | None, width: int) -> Point:
    """Return a record as its vector is compared: at unit length where distances are cosine."""
    import numpy as np

    if vector is None or len(vector) != width:
        return Point(record, {}, {})
    if collection.space == "cosine":
        wide = np.frombuffer(vector, "<f4").astype(np.float64)
        length = float(np.linalg.norm(wide))
        if not 0 < length < float("inf"):
            return Point(record, {}, {})
        vector = (wide / length).astype("<f4").tobytes()
    return Point(record, {}, {"": vector})

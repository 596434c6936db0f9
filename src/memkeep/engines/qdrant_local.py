"""Qdrant's local mode: one collection, which is an SQLite database with a pickle in each row.

The image is the database as it is (`collection/NAME/storage.sqlite`, for qdrant-client to open beside its
`meta.json`), held as any SQLite database while its owner has the folder locked. The pickles are never given to
Python's unpickler (see `pickles`). Layout and classes: qdrant-client 1.20, `qdrant_client/local/persistence.py`;
older versions kept an id that is spelled in two ways in two rows, of which the later one counts.

Vectors are as they were given, not normalised. Recall questions are answered by the collection's own distance, which
`meta.json` says; in an image, where that is another part, the questions say it themselves, and those of older
snapshots were asked by cosine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from memkeep.engines import point_rows
from memkeep.engines.base import ServerTable
from memkeep.engines.merging import Wanted, left_out
from memkeep.engines.payload_rows import PayloadRows
from memkeep.engines.qdrant_edge import Point, Vector
from memkeep.engines.qdrant_local_merge import (
    QdrantLocalDelete,
    QdrantLocalMerge,
    deleting,
    distances,
    merging,
    merging_rows,
    sizes,
)
from memkeep.engines.qdrant_local_read import Reading, as_is, keys_of, read_points
from memkeep.engines.qdrant_probes import QUESTIONS, Asker, column
from memkeep.engines.rows import Columns, Gone, Rows, no_table
from memkeep.engines.sqlite import SqliteEngine, SqliteOpened
from memkeep.errors import StoreError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity, TableMap, TableState
from memkeep.records.groups import Group
from memkeep.records.shape import Row

COUNT = "SELECT count(*) FROM points"
SAMPLE = "SELECT rowid, id, point FROM points ORDER BY rowid DESC LIMIT 50"
_ROWS = "SELECT rowid, id, point FROM points ORDER BY rowid DESC"
_NAMED = 20  # points that can't be read, by their rows
_USUAL = "Cosine"


class _Form(NamedTuple):
    """What the vectors of one name are, as far as questions are asked."""

    width: int  # bytes
    metric: str


def table(file: Path, count: int, some: Iterable[Sequence[Any]]) -> ServerTable:
    """Return what a collection is, by the answers of its database to `COUNT` and `SAMPLE`."""
    columns: dict[str, str] = {"id": "id"}
    vectors: dict[str, int] = {}
    for point in read_points(some):
        columns |= {key: "payload" for key in point.payload if key != "id"}
        for name, vector in point.vectors.items():
            vectors[column(name)] = len(vector) // 4 if isinstance(vector, bytes) else 0
    return ServerTable(
        name=file.parent.name, columns=columns | dict.fromkeys(vectors, "vector"), vectors=vectors, key="id", rows=count
    )


class QdrantLocalEngine:
    """Freezes and opens collections of a folder that qdrant-client uses by itself."""

    name = "qdrant-local"

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> "Iterator[QdrantLocalOpened]":
        """Hold one moment of the live database. Raises as `SqliteEngine.freeze` does."""
        with SqliteEngine().freeze(_bare(part), root, scratch) as held:
            yield QdrantLocalOpened(part, held, Path(part.path), scratch)

    @contextmanager
    def open(self, part: Part, root: Path) -> "Iterator[QdrantLocalOpened]":
        """Open the image that lies under a private folder."""
        with SqliteEngine().open(_bare(part), root) as held:
            yield QdrantLocalOpened(part, held, root / part.name, None)

    @contextmanager
    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> Iterator[QdrantLocalMerge]:
        """Merge an image into the live collection; see `qdrant_local_merge`."""
        file, map_ = Path(live.path), _map(live)
        with SqliteEngine().open(_bare(image), root) as held, merging(file, held.ask(_ROWS), map_, wanted) as one:
            yield one

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return the vectors that a live collection takes, beside `id` and any key; None when it is not there."""
        file = Path(live.path)
        if table != file.parent.name or not file.exists():
            return None
        vectors = {column(name): size for name, size in sizes(file).items()}
        return Columns(names=("id", *vectors), vectors=vectors)

    @contextmanager
    def merge_rows(
        self,
        live: Part,
        rows: Mapping[str, Rows],
        wanted: Wanted,
        scratch: Path | None = None,  # noqa: ARG002 - the contract's signature
    ) -> Iterator[QdrantLocalMerge]:
        """Merge rows into the live collection; see `qdrant_local_merge`."""
        map_ = _map(live)
        with merging_rows(Path(live.path), rows.get(map_.table, lambda: iter(())), map_, wanted) as one:
            one.result = msgspec.structs.replace(one.result, left=left_out(rows, (map_,)))
            yield one

    @contextmanager
    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> Iterator[QdrantLocalDelete]:
        """Delete points of the live collection."""
        with deleting(Path(live.path), gone) as one:
            yield one

    def count(self, part: Part, table: str) -> int | None:
        """Count the points of the live collection; None when it can't be read."""
        return SqliteEngine().count(part, "points") if table == Path(part.path).parent.name else None


class QdrantLocalOpened:
    """One moment of a collection."""

    def __init__(self, part: Part, held: SqliteOpened, path: Path, scratch: Path | None) -> None:
        """Take over a held database; `scratch` is where records may wait."""
        self.how = held.how
        self._part = part
        self._held = held
        self._path = path
        self._table = path.parent.name
        self._scratch = scratch
        self._noted: list[Finding] = []
        self._baseline = Baseline(facts={"summary": {}, "vectors": {}})

    def entries(self) -> list[Entry]:
        """Return the database."""
        return self._held.entries()

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes."""
        return self._held.stream(entry)

    def runs(self, entry: Entry) -> tuple[Run, ...]:
        """Return nothing: vectors lie in pickles."""
        return self._held.runs(entry)

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every point; one that can't be read is a finding that names it, and the others are read."""
        self._noted = []
        maps = [map_ for map_ in self._part.maps if map_.table == self._table]
        expected = sum(batch[0][0] for batch in self._held.ask(COUNT))
        rows = PayloadRows(self._table, maps, bits, expected, self._scratch)
        asker, forms = self._asker(probes)
        reading = Reading()
        try:
            for points in reading.points(self._held.ask(_ROWS)):
                rows.add(points)
                asker.add([_asked(point, forms) for point in points])
            yield from rows.groups()
        except StoreError as error:
            self._note("qdrant_unreadable", Severity.ERROR, f"The points of {self._table} were not read: {error}")
            return
        finally:
            rows.close()
            self._noted += self._of(reading)
        self._baseline = Baseline(
            tables={self._table: TableState(rows=rows.count, digest=rows.digest())},
            probes=asker.answers(probes),
            facts={"summary": rows.summary(), "vectors": rows.vectors()},
        )

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the points, the newest first; `StoreError` at the end when some can't be read, which names them."""
        if table.table != self._table:
            raise no_table(table.table, self._part.name)
        reading = Reading(as_is)
        for points in reading.points(self._held.ask(_ROWS)):
            yield list(map(point_rows.to_row, points))
        if reading.refused:
            told = "; ".join(f"{record}: {why}" for record, why in reading.refused[:_NAMED])
            raise StoreError(
                f"{len(reading.refused)} points of {self._table} can't be read: {told}", hint="memkeep history ID"
            )

    def baseline(self) -> Baseline:
        """Return points, digest, facts and probes; after `scan`."""
        return self._baseline

    def check(self) -> list[Finding]:
        """Run SQLite's own checks."""
        return self._held.check()

    def moved(self) -> bool:
        """Say whether somebody has committed since."""
        return self._held.moved()

    def held(self) -> bool:
        """Say whether what was read is still one moment."""
        return self._held.held()

    def omitted(self) -> list[Omission]:
        """Return nothing: a database is taken whole."""
        return self._held.omitted()

    def findings(self) -> list[Finding]:
        """Return what freezing and the last scan noticed."""
        return [*self._held.findings(), *self._noted]

    def _asker(self, probes: tuple[Probe, ...] | None) -> tuple[Asker, "dict[str, _Form]"]:
        """Choose the questions, or take those given; return the form of their vectors too, by the vector's name."""
        if probes is None:
            wanted = Reading().points(self._held.ask(f"SELECT rowid, id, point FROM points LIMIT {QUESTIONS}"))  # noqa: S608 - a number
        else:
            ids = {probe.question for probe in probes if probe.kind == "vector" and probe.table == self._table}
            keys = [key for one in ids for key in keys_of(one)]
            listed = ", ".join(f"'{key}'" for key in keys)  # of base 64
            wanted = Reading().points(self._held.ask(f"SELECT rowid, id, point FROM points WHERE id IN ({listed})"))  # noqa: S608
        try:
            found = [point for points in wanted for point in points]
        except StoreError:  # `scan` says it
            found = []
        metrics = self._metrics(probes)
        forms: dict[str, _Form] = {}
        for point in found:
            for name, vector in point.vectors.items():
                if isinstance(vector, bytes):
                    forms.setdefault(name, _Form(len(vector), metrics.get(column(name)) or _USUAL))
        asked, names = [_asked(point, forms) for point in found], sorted(forms)
        if probes is not None:
            chosen = {(probe.column, probe.question) for probe in probes}
            pairs = [(name, point) for point in asked for name in names if (column(name), str(point.id)) in chosen]
        else:
            each = max(1, QUESTIONS // max(1, len(names)))
            pairs = [(name, point) for name in names[:QUESTIONS] for point in asked[:each]]
        return Asker(self._table, {name: form.metric for name, form in forms.items()}, pairs), forms

    def _metrics(self, probes: tuple[Probe, ...] | None) -> dict[str, str]:
        """Return the distances by which some questions are asked, or new ones of the live collection, by column."""
        if probes is not None:
            return {probe.column: probe.metric for probe in probes if probe.table == self._table}
        with suppress(StoreError):
            return {column(name): metric for name, metric in distances(self._path).items()}
        return {}

    def _of(self, reading: "Reading") -> Iterator[Finding]:
        for record, why in reading.refused[:_NAMED]:
            message = f"A point of {self._table}, {record}, can't be read: {why}. The image holds its bytes."
            yield self._finding("qdrant_point_unreadable", Severity.ERROR, message, record)
        more = len(reading.refused) - _NAMED
        if more > 0:
            message = f"{more} more points of {self._table} can't be read."
            yield self._finding("qdrant_point_unreadable", Severity.ERROR, message)
        if reading.outdated:
            message = f"{self._table} has {reading.outdated} older copies of points, which the client passes over."
            yield self._finding("qdrant_outdated", Severity.INFO, message)

    def _note(self, code: str, severity: Severity, message: str) -> None:
        self._noted.append(self._finding(code, severity, message))

    def _finding(self, code: str, severity: Severity, message: str, record: str | None = None) -> Finding:
        mend = "An older snapshot may hold it: memkeep history ID" if severity is Severity.ERROR else None
        return Finding(code=code, severity=severity, message=message, part=self._part.name, record=record, mend=mend)


def _map(live: Part) -> TableMap:
    """Return the map of the live collection."""
    file = Path(live.path)
    found = next((each for each in live.maps if each.table == file.parent.name), None)
    if found is None:
        raise StoreError(f"{file} has no records that are known", hint="memkeep discover")
    return found


def _bare(part: Part) -> Part:
    return Part(name=part.name, engine="sqlite", role=part.role, path=part.path)


def _asked(point: Point, forms: dict[str, _Form]) -> Point:
    """Return a point with its plain vectors of these forms as they are compared: for cosine of unit length."""
    import numpy as np

    compared: dict[str, Vector] = {}
    for name, vector in point.vectors.items():
        form = forms.get(name)
        if form is None or not isinstance(vector, bytes) or len(vector) != form.width:
            continue
        if form.metric != _USUAL:
            compared[name] = vector
            continue
        wide = np.frombuffer(vector, "<f4").astype(np.float64)
        length = float(np.linalg.norm(wide))
        if 0 < length < float("inf"):
            compared[name] = (wide / length).astype("<f4").tobytes()
    return point._replace(vectors=compared)

"""Qdrant's local mode: one collection, which is an SQLite database with a pickle in each row.

The image is the database as it is (`collection/NAME/storage.sqlite`, for qdrant-client to open beside its
`meta.json`), held as any SQLite database while its owner has the folder locked. The pickles are never given to
Python's unpickler (see `pickles`). Layout and classes: qdrant-client 1.20, `qdrant_client/local/persistence.py`;
older versions kept an id that is spelled in two ways in two rows, of which the later one counts.

Vectors are as they were given, not normalised. Recall questions are answered by cosine, whatever the collection's
distance, which is said in another file.
"""

import base64
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from memkeep.engines import pickles
from memkeep.engines.base import ServerTable
from memkeep.engines.lance_values import to_cell
from memkeep.engines.payload_rows import PayloadRows
from memkeep.engines.pickles import Floats, PickleError, Record
from memkeep.engines.qdrant_edge import Point, Sparse, Vector
from memkeep.engines.qdrant_probes import QUESTIONS, Asker, column
from memkeep.engines.sqlite import SqliteEngine, SqliteOpened
from memkeep.errors import StoreError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity, TableState
from memkeep.records.groups import Group

COUNT = "SELECT count(*) FROM points"
SAMPLE = "SELECT rowid, id, point FROM points ORDER BY rowid DESC LIMIT 50"
_MODELS = "qdrant_client.http.models.models."
_CLASSES = (f"{_MODELS}PointStruct", f"{_MODELS}SparseVector")
_NAMED = 20  # points that can't be read, by their rows
_INTEGERS = range(-(1 << 63), 1 << 64)


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


def read_points(rows: Iterable[Sequence[Any]]) -> Iterator[Point]:
    """Yield the points of rows of row id, key and pickle, without those that can't be read."""
    for points in _Reading().points([rows]):
        yield from points


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
        expected = sum(batch[0][0] for batch in self._held.rows(COUNT))
        rows = PayloadRows(self._table, maps, bits, expected, self._scratch)
        asker, widths = self._asker(probes)
        reading = _Reading()
        try:
            for points in reading.points(self._held.rows("SELECT rowid, id, point FROM points ORDER BY rowid DESC")):
                rows.add(points)
                asker.add([_unit(point, widths) for point in points])
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

    def _asker(self, probes: tuple[Probe, ...] | None) -> tuple[Asker, dict[str, int]]:
        """Choose the questions, or take those given; return the bytes of their vectors too, by the vector's name."""
        if probes is None:
            wanted = _Reading().points(self._held.rows(f"SELECT rowid, id, point FROM points LIMIT {QUESTIONS}"))  # noqa: S608 - a number
        else:
            ids = {probe.question for probe in probes if probe.kind == "vector" and probe.table == self._table}
            keys = [key for one in ids for key in _keys(one)]
            listed = ", ".join(f"'{key}'" for key in keys)  # of base 64
            wanted = _Reading().points(self._held.rows(f"SELECT rowid, id, point FROM points WHERE id IN ({listed})"))  # noqa: S608
        try:
            found = [point for points in wanted for point in points]
        except StoreError:  # `scan` says it
            found = []
        widths: dict[str, int] = {}
        for point in found:
            for name, vector in point.vectors.items():
                if isinstance(vector, bytes):
                    widths.setdefault(name, len(vector))
        asked, names = [_unit(point, widths) for point in found], sorted(widths)
        if probes is not None:
            chosen = {(probe.column, probe.question) for probe in probes}
            pairs = [(name, point) for point in asked for name in names if (column(name), str(point.id)) in chosen]
        else:
            each = max(1, QUESTIONS // max(1, len(names)))
            pairs = [(name, point) for name in names[:QUESTIONS] for point in asked[:each]]
        return Asker(self._table, dict.fromkeys(names, "Cosine"), pairs), widths

    def _of(self, reading: "_Reading") -> Iterator[Finding]:
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


class _Stored(NamedTuple):
    """One row: its key, which is the pickled id in base 64, and the pickled point."""

    row: int
    key: str
    point: bytes


class _Reading:
    """Turns rows, the newest first, into points."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []
        self.outdated = 0
        self._seen: set[int | str] = set()

    def points(self, batches: Iterable[Iterable[Sequence[Any]]]) -> Iterator[list[Point]]:
        for batch in batches:
            found = []
            for row in batch:
                stored = _Stored(*row)
                try:
                    point = _point(stored)
                except PickleError as error:
                    self.refused.append((_name(stored), str(error)))
                    continue
                if point.id in self._seen:
                    self.outdated += 1
                    continue
                self._seen.add(point.id)
                found.append(point)
            yield found


def _bare(part: Part) -> Part:
    return Part(name=part.name, engine="sqlite", role=part.role, path=part.path)


def _name(stored: _Stored) -> str:
    """Return what a row that can't be read is called: its id, if at least that can be read."""
    try:
        return str(_id(pickles.loads(base64.b64decode(stored.key, validate=True))))
    except (ValueError, TypeError):
        return f"row {stored.row}"


def _keys(record: str) -> list[str]:
    """Return the keys that a point with an id may be stored under; nothing but ids is ever pickled here."""
    ids: list[int | str] = [record, *([int(record)] if record.isdecimal() and len(record) <= 20 else [])]  # noqa: PLR2004 - digits of 64 bits
    return [base64.b64encode(pickle.dumps(one, protocol=4)).decode() for one in ids]


def _point(stored: _Stored) -> Point:
    if not isinstance(stored.point, bytes):
        raise PickleError("it is no pickle")
    read = _attributes(pickles.loads(stored.point, _CLASSES), _CLASSES[0])
    payload = read.get("payload")
    if payload is None:
        payload = {}
    if not isinstance(payload, dict) or not all(isinstance(key, str) and _is_text(key) for key in payload):
        raise PickleError("its payload is none")
    record = _id(read.get("id"))
    if _name(stored) != str(record):
        raise PickleError(f"it lies where {_name(stored)} should")
    return Point(record, {key: _json(pickles.plain(value)) for key, value in payload.items()}, _vectors(read))


def _attributes(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Record) or value.name != name or not isinstance(value.state.get("__dict__"), dict):
        raise PickleError("it holds something else than it should")
    found: dict[str, Any] = value.state["__dict__"]
    return found


def _id(value: Any) -> int | str:
    """Return an id; a UUID in its usual spelling, as the client has it."""
    if isinstance(value, str) and _is_text(value):
        try:
            return str(UUID(value))
        except ValueError:
            return value
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INTEGERS:
        raise PickleError("its id is neither text nor a number")
    return value


def _vectors(read: dict[str, Any]) -> dict[str, Vector]:
    vector = read.get("vector")
    if vector is None:
        return {}
    by_name = vector if isinstance(vector, dict) else {"": vector}
    return {str(name): _vector(one) for name, one in by_name.items() if one is not None}


def _vector(value: Any) -> Vector:
    if isinstance(value, Record):
        read = pickles.plain(_attributes(value, _CLASSES[1]))
        indices, values = read.get("indices"), read.get("values")
        if not isinstance(indices, list) or not isinstance(values, list) or len(indices) != len(values):
            raise PickleError("its sparse vector is none")
        if not all(isinstance(one, int) and 0 <= one < 1 << 32 for one in indices):
            raise PickleError("its sparse vector is none")
        pairs = sorted(zip(indices, map(_number, values), strict=True))
        return Sparse(tuple(one for one, _ in pairs), tuple(one for _, one in pairs))
    if isinstance(value, list) and value and isinstance(value[0], list):
        return tuple(_floats(one) for one in value)
    return _floats(value)


def _floats(value: Any) -> bytes:
    import numpy as np

    if not isinstance(value, list):
        raise PickleError("its vector is none")
    pieces = [one.values if isinstance(one, Floats) else [_number(one)] for one in value]
    with np.errstate(over="ignore"):
        return np.concatenate([np.empty(0), *pieces]).astype("<f4").tobytes()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PickleError("its vector is none")
    return float(value)


def _json(value: Any) -> Any:
    """Return a value of a payload as JSON has it; what JSON has no form for as the cell that stands for it."""
    if isinstance(value, str) and not _is_text(value):
        return {"text": value.encode("utf-8", "surrogatepass").hex()}
    if isinstance(value, int) and value not in _INTEGERS:
        return str(value)
    if isinstance(value, list):
        return [_json(one) for one in value]
    if isinstance(value, dict):
        return {key if _is_text(key) else ascii(key): _json(one) for key, one in value.items()}
    return to_cell(value)


def _is_text(value: Any) -> bool:
    """Say whether a value is text that UTF-8 has a form for."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _unit(point: Point, widths: dict[str, int]) -> Point:
    """Return a point with its plain vectors of so many bytes as of unit length."""
    import numpy as np

    scaled: dict[str, Vector] = {}
    for name, vector in point.vectors.items():
        if isinstance(vector, bytes) and len(vector) == widths.get(name):
            wide = np.frombuffer(vector, "<f4").astype(np.float64)
            length = float(np.linalg.norm(wide))
            if 0 < length < float("inf"):
                scaled[name] = (wide / length).astype("<f4").tobytes()
    return point._replace(vectors=scaled)

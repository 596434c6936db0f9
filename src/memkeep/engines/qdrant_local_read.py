"""Rows of a collection of Qdrant's local mode as points: what is in their pickles, nothing of it ever run."""

import base64
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from memkeep.engines import pickles
from memkeep.engines.lance_values import to_cell
from memkeep.engines.pickles import Floats, PickleError, Record
from memkeep.engines.point_rows import is_text
from memkeep.engines.qdrant_edge import Point, Sparse, Vector

_MODELS = "qdrant_client.http.models.models."
POINT, SPARSE = f"{_MODELS}PointStruct", f"{_MODELS}SparseVector"
_CLASSES = (POINT, SPARSE)
_INTEGERS = range(-(1 << 63), 1 << 64)
_DIGITS = 20  # of the largest id


class Stored(NamedTuple):
    """One row: its key, which is the pickled id in base 64, and the pickled point."""

    row: int
    key: str
    point: bytes


class Reading:
    """Turns rows, the newest first, into points."""

    def __init__(self, value: Callable[[Any], Any] | None = None) -> None:
        """Begin; `value` says what becomes of a value of a payload, if not what JSON has a form for."""
        self._value = value or _json
        self.refused: list[tuple[str, str]] = []
        self.outdated = 0
        self._seen: set[int | str] = set()

    def points(self, batches: Iterable[Iterable[Sequence[Any]]]) -> Iterator[list[Point]]:
        """Yield the points of rows of row id, key and pickle; which could not be read is in `refused`."""
        for batch in self.stored(batches):
            yield [point for point, _ in batch]

    def stored(self, batches: Iterable[Iterable[Sequence[Any]]]) -> Iterator[list[tuple[Point, Stored]]]:
        """Do so, with the rows."""
        for batch in batches:
            found = []
            for row in batch:
                stored = Stored(*row)
                try:
                    point = _point(stored, self._value)
                except PickleError as error:
                    self.refused.append((_name(stored), str(error)))
                    continue
                if point.id in self._seen:
                    self.outdated += 1
                    continue
                self._seen.add(point.id)
                found.append((point, stored))
            yield found


def _name(stored: Stored) -> str:
    """Return what a row that can't be read is called: its id, if at least that can be read."""
    try:
        return str(_id(pickles.loads(base64.b64decode(stored.key, validate=True))))
    except (ValueError, TypeError):
        return f"row {stored.row}"


def keys_of(record: str) -> list[str]:
    """Return the keys that a point with an id, as text, may be stored under."""
    ids: list[int | str] = [record, *([int(record)] if record.isdecimal() and len(record) <= _DIGITS else [])]
    return [key_of(one) for one in ids]


def key_of(record: int | str) -> str:
    """Return the key that the client stores a point under; nothing but ids is ever pickled here."""
    return base64.b64encode(pickle.dumps(record, protocol=4)).decode()


def _point(stored: Stored, form: Callable[[Any], Any]) -> Point:
    if not isinstance(stored.point, bytes):
        raise PickleError("it is no pickle")
    read = attributes(stored)
    payload = read.get("payload")
    if payload is None:
        payload = {}
    if not isinstance(payload, dict) or not all(isinstance(key, str) and is_text(key) for key in payload):
        raise PickleError("its payload is none")
    record = _id(read.get("id"))
    if _name(stored) != str(record):
        raise PickleError(f"it lies where {_name(stored)} should")
    return Point(record, {key: form(pickles.plain(value)) for key, value in payload.items()}, _vectors(read))


def attributes(stored: Stored) -> dict[str, Any]:
    """Return what the pickle of a row holds, as it is. Raises `PickleError`."""
    return _attributes(pickles.loads(stored.point, _CLASSES), POINT)


def _attributes(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Record) or value.name != name or not isinstance(value.state.get("__dict__"), dict):
        raise PickleError("it holds something else than it should")
    found: dict[str, Any] = value.state["__dict__"]
    return found


def _id(value: Any) -> int | str:
    """Return an id; a UUID in its usual spelling, as the client has it."""
    if isinstance(value, str) and is_text(value):
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
        read = pickles.plain(_attributes(value, SPARSE))
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


def as_is(value: Any) -> Any:
    """Return a value of a payload."""
    return value


def _json(value: Any) -> Any:
    """Return a value of a payload as JSON has it; what JSON has no form for as the cell that stands for it."""
    if isinstance(value, str) and not is_text(value):
        return {"text": value.encode("utf-8", "surrogatepass").hex()}
    if isinstance(value, int) and value not in _INTEGERS:
        return str(value)
    if isinstance(value, list):
        return [_json(one) for one in value]
    if isinstance(value, dict):
        return {key if is_text(key) else ascii(key): _json(one) for key, one in value.items()}
    return to_cell(value)


def read_points(rows: Iterable[Sequence[Any]]) -> Iterator[Point]:
    """Yield the points of rows of row id, key and pickle, without those that can't be read."""
    for points in Reading().points([rows]):
        yield from points

"""Any record, and a source of some, for the tests of formats."""

import math
from collections.abc import Iterator

import msgspec
import numpy as np
from hypothesis import strategies as st

from memkeep.records.formats.base import About
from memkeep.records.record import Portable, Record, Relationship, Vector

texts = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "a\nb",
        "- [fact] (sal: 0.50, accessed: 0x) c",
        "$bytes",
        "```",
        "memkeep",
        "\r\n",
        "\u2028",
        "=1+1",
        "'=1",
        "'",
        '"',
        "\ufeff",
    ]
)
floats = st.floats() | st.sampled_from([0.3, 0.7, 0.71, -0.0])
_scalars = st.none() | st.booleans() | st.integers() | floats | st.binary(max_size=9) | texts
values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
metadata = st.dictionaries(texts | st.sampled_from(["client", "project", "entity", "tags"]), values, max_size=4)
times = st.none() | st.sampled_from(
    [
        "2026-01-02T03:04:05.678901+00:00",
        "0000-12-31T00:00:00+00:00",
        "+12026-02-03T00:00:00+00:00",
        "-0044-03-15T12:00:00+00:00",
        "1969-07-20T20:17:40+00:00",
        "9999-12-31T23:59:59.123456789+00:00",
    ]
)


def _vector(drawn: tuple[str, int, int, str | None]) -> Vector:
    kind, dims, seed, model = drawn
    rng = np.random.default_rng(seed)
    if kind == "sparse":
        data = np.arange(dims, dtype="<u4").tobytes() + rng.random(dims, dtype="f4").tobytes()
        return Vector(data=data, type="sparse", dims=dims, model=model)
    if kind == "multi":
        return Vector(data=rng.random(3 * dims, dtype="f4").tobytes(), type="multi", dims=dims, model=model)
    sizes = {"f16": 2, "f32": 4, "f64": 8}
    data = bytes(rng.integers(0, 256, sizes[kind] * dims, dtype="u1"))  # any bits: NaN and infinities too
    if seed % 2:
        data = rng.standard_normal(dims).astype({"f16": "<f2", "f32": "<f4", "f64": "<f8"}[kind]).tobytes()
    return Vector(data=data, type=kind, dims=dims, model=model)  # type: ignore[arg-type]  # one of the five


dims = st.integers(1, 40) | st.sampled_from([768, 4096])
vectors = st.tuples(
    st.sampled_from(["f16", "f32", "f64", "sparse", "multi"]), dims, st.integers(0, 9), st.none() | texts
).map(_vector)
_maybe = st.none() | texts
records = st.builds(
    Record,
    id=texts,
    text=texts,
    collection=st.sampled_from(["memories", "facts", "cells", "scenes", "procedures"]) | texts,
    primary=st.booleans(),
    category=_maybe,
    scope=_maybe,
    user=_maybe,
    agent=_maybe,
    session=_maybe,
    source=_maybe,
    title=_maybe,
    summary=_maybe,
    tags=st.lists(texts, max_size=3).map(tuple),
    importance=st.none() | floats,
    confidence=st.none() | floats,
    heat=st.none() | floats,
    access_count=st.none() | st.integers(-1, 1 << 40),
    status=st.none() | st.sampled_from(["active", "superseded", "archived", "deleted", "paused"]) | texts,
    created_at=times,
    updated_at=times,
    last_accessed_at=times,
    valid_from=times,
    valid_until=times,
    expires_at=times,
    superseded_by=_maybe,
    supersedes=_maybe,
    metadata=metadata,
    vectors=st.dictionaries(st.just("") | texts, vectors, max_size=2),
    native=metadata,
    system=st.sampled_from(["oc-memory", "thanos", "openclaw-hybrid"]) | texts,
)
relationships = st.builds(
    Relationship,
    source=texts,
    target=texts,
    type=texts,
    id=_maybe,
    collection=texts,
    strength=st.none() | floats,
    created_at=times,
    updated_at=times,
    metadata=metadata,
    native=metadata,
    system=texts,
)


def vector(*numbers: float, type: str = "f32", model: str | None = None) -> Vector:
    """Return a vector of these numbers."""
    data = np.array(numbers, {"f32": "<f4", "f64": "<f8"}[type]).tobytes()
    return Vector(data=data, type=type, dims=len(numbers), model=model)  # type: ignore[arg-type]  # one of the two


class Given:
    """A source of what a test gives."""

    def __init__(self, *made: Portable, system: str = "thanos") -> None:
        self._records = sorted(
            (each for each in made if isinstance(each, Record)),
            key=lambda one: (not one.primary, one.collection, one.id),
        )
        self._relationships = [each for each in made if isinstance(each, Relationship)]
        self.about = About(
            system=system,
            path="/home/anna/memory",
            taken="2026-05-06T07:08:09+00:00",
            snapshot="a1b2",
            records=len(self._records),
            relationships=len(self._relationships),
        )

    def records(self) -> Iterator[Record]:
        return iter(self._records)

    def relationships(self) -> Iterator[Relationship]:
        return iter(self._relationships)


def plain(made: Portable) -> object:
    """Return a record as something that `==` compares, NaN with NaN."""
    return type(made).__name__, _plain(msgspec.structs.asdict(made))


def unordered(made: object) -> list[str]:
    """Return records as texts in an order of their own."""
    return sorted(repr(plain(each)) for each in made)  # type: ignore[attr-defined]  # an iterable


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return sorted((repr(key), _plain(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Vector):
        return ("vector", value.data, value.type, value.dims, value.model)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return (type(value).__name__, repr(value))

"""What becomes of each field of records that go into a product: kept as its own, carried beside, or lost."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from memkeep.engines.rows import Columns
from memkeep.records.formats.base import About, Source
from memkeep.records.record import Record, Relationship, Vector
from memkeep.records.shape import Mapper
from memkeep.systems.target import Target

Fate = Literal["native", "metadata", "lost"]
_INVALID = "records that are no longer valid"
_MODEL = "the name of the vectors' model"
_EMPTY = frozenset({type(None), tuple, dict})
_ROUNDED = 1e-5
_OWN = frozenset({"primary", "collection", "system", "native"})
_FIELDS = tuple(field for field in Record.__struct_fields__ if field not in _OWN)


class FieldFate(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one field, and in how many records it is."""

    field: str
    fate: Fate
    records: int
    column: str | None = None  # where it is kept
    reason: str = ""


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """How many vectors go along, and why others do not."""

    kept: int
    left: int
    reason: str = ""
    stretched: bool = False  # whether any is not of length one


class Room(msgspec.Struct, frozen=True):
    """What a store has room for."""

    target: Target
    mapper: Mapper  # of the memories
    columns: Columns
    vectors: Collection[str]  # portable names
    joins: bool  # a table for relationships
    side: bool  # a table for what the product has no place for
    collections: Collection[str]  # that it has tables for
    model: str | None  # whose vectors it has, where it says that


def fates(source: Source, room: Room) -> list[FieldFate]:
    """Return what becomes of the fields of the memories, of their metadata key by key, and of relationships."""
    mapper = room.mapper
    aside: Fate = "metadata" if room.side else "lost"
    ours = source.about.system
    counted: Counter[tuple[str, Fate, str | None]] = Counter()
    seen: dict[tuple[str, bool], tuple[str, Fate, str | None]] = {}
    for made in source.records():
        if not made.primary:
            known = made.system == mapper.system and made.collection in room.collections
            counted[f"collection {made.collection}", "native" if known else aside, None] += 1
            continue
        same = made.system == mapper.system
        if not same and not room.target.hides(made):
            counted[_INVALID, aside, None] += 1
        for field, value in _fields(made):
            entry = seen.get((field, same))
            if entry is None:
                entry = seen[field, same] = (field, *_fate(field, value, room, same=same))
            counted[entry] += 1
        if any(one.model for one in made.vectors.values()) and same and room.model is None:
            counted[_MODEL, "lost", None] += 1
    keeps = mapper.shape.free is not None or room.side
    for _ in source.relationships():
        counted["relationships", "native" if room.joins else "metadata" if keeps else "lost", None] += 1
    found = [
        FieldFate(field=field, fate=fate, records=number, column=column, reason=_reason(field, fate, ours))
        for (field, fate, column), number in counted.items()
    ]
    return sorted(found, key=lambda one: (("native", "metadata", "lost").index(one.fate), one.field))


def _fields(made: Record) -> Iterator[tuple[str, object]]:
    for field in _FIELDS:
        value = getattr(made, field)
        if not value and value.__class__ in _EMPTY:
            continue
        if field == "metadata":
            yield from ((f"metadata.{key}", item) for key, item in value.items() if item is not None)
        elif field == "vectors":
            yield from ((f"vectors.{name}" if name else "vectors", one) for name, one in value.items())
        else:
            yield field, value


def _fate(field: str, value: object, room: Room, *, same: bool) -> tuple[Fate, str | None]:
    mapper = room.mapper
    if field == "id":
        return "native", mapper.map.id
    if isinstance(value, Vector):
        name = field.removeprefix("vectors").removeprefix(".")
        carries = not same and (mapper.shape.free is not None or mapper.shape.side)
        carried: Fate = "metadata" if carries else "lost"
        return ("native" if name in room.vectors else carried), mapper.vector_column(name)
    if same:
        named = mapper.column(field.removeprefix("metadata."), room.columns.names)
        return "native", mapper.shape.fields.get(field, named)
    column = mapper.shape.fields.get(field)
    if column is None or not mapper.fits(column, room.columns.names):
        return ("metadata" if mapper.shape.free is not None or mapper.shape.side else "lost"), None
    return "native", column


def _reason(field: str, fate: Fate, system: str) -> str:
    if fate != "lost":
        return ""
    if field == _INVALID:
        return "the product would recall them"
    if field == _MODEL:
        return "only the product's settings have it, which are not moved"
    if field.startswith("collection "):
        return f"a kind of record that only {system or 'its product'} has"
    return "the product has no place for it"


class VectorKind(NamedTuple):
    """What decides whether a vector fits."""

    name: str
    type: str
    dims: int
    model: str | None


class Survey(NamedTuple):
    """What a source holds: its kinds of records, and how many vectors of each kind the memories have."""

    kinds: frozenset[tuple[str, str, bool]]  # system, collection, whether they are memories
    vectors: Mapping[VectorKind, int]  # of a kind that only records beside the memories have 0
    stretched: bool  # whether any vector is not of length one

    @property
    def widest(self) -> tuple[int | None, str | None]:
        """The dimensions that most of the main vectors have, and the model that they are of; None without any."""
        main = {one: many for one, many in self.vectors.items() if not one.name and one.type != "sparse" and many}
        most = max(main, key=main.__getitem__, default=None)
        return (None, None) if most is None else (most.dims, most.model)


def survey(source: Source) -> Survey:
    """Look through all records once."""
    kinds: set[tuple[str, str, bool]] = set()
    vectors: dict[VectorKind, int] = {}
    stretched = False
    for made in source.records():
        kinds.add((made.system, made.collection, made.primary))
        for name, one in made.vectors.items():
            kind = VectorKind(name, one.type, one.dims, one.model)
            vectors[kind] = vectors.get(kind, 0) + made.primary
            stretched = stretched or (made.primary and _is_stretched(one))
    return Survey(frozenset(kinds), vectors, stretched)


class Fitted:
    """A source whose vectors are only those that fit: of the right size, and of the model that is there."""

    def __init__(
        self, source: Source, found: Survey, sizes: dict[str, int], model: str | None, *, carries: bool
    ) -> None:
        """Take what columns of vectors take, by the portable name of the vector, 0 for any; and the model there.

        `carries` says that a sparse vector, which is small, goes along where there is no column for it.
        """
        self.kinds = found.kinds
        self._carries = carries
        self._source = source
        self._sizes = sizes
        self._model = model
        unfit = {kind: reason for kind in found.vectors if (reason := self._unfit(kind))}
        self._left = unfit.keys()
        reasons: Counter[str] = Counter()
        for kind, reason in unfit.items():
            reasons[reason] += found.vectors[kind]
        left = reasons.total()
        self.vectors = Vectors(
            kept=sum(found.vectors.values()) - left,
            left=left,
            reason=reasons.most_common(1)[0][0] if left else "",
            stretched=found.stretched,
        )

    @property
    def about(self) -> About:
        """Where the records are from."""
        return self._source.about

    def records(self) -> Iterator[Record]:
        """Yield the records with the vectors that fit."""
        if not self._left:
            yield from self._source.records()
            return
        for made in self._source.records():
            fitting = {
                name: one
                for name, one in made.vectors.items()
                if VectorKind(name, one.type, one.dims, one.model) not in self._left
            }
            yield made if len(fitting) == len(made.vectors) else msgspec.structs.replace(made, vectors=fitting)

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        return self._source.relationships()

    def _unfit(self, one: VectorKind) -> str:
        name = one.name
        size = self._sizes.get(name)
        if size is None:
            if self._carries and one.type == "sparse":
                return ""
            return f"there is no place for a vector {name or 'of this kind'}"
        if size and one.dims != size:
            return f"it has {one.dims} dimensions, the store's have {size}"
        if self._model and one.model and one.type != "sparse" and not same_model(self._model, one.model):
            return f"it is of {one.model}, the store's are of {self._model}"
        return ""


def _is_stretched(one: Vector) -> bool:
    """Say whether a vector of float32 is longer or shorter than one, by more than rounding."""
    import numpy as np

    if one.type != "f32":
        return False
    numbers = np.frombuffer(one.data, "<f4")
    return bool(abs(float(numbers @ numbers) - 1) > _ROUNDED)


def same_model(one: str, other: str) -> bool:
    """Say whether two names are of one model: with or without the provider before it."""
    return one == other or one.rpartition("/")[2] == other.rpartition("/")[2]

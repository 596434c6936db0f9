"""What becomes of each field of records that go into a product: kept as its own, carried beside, or lost."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec

from memkeep import clock
from memkeep.engines.rows import Columns
from memkeep.records import moments
from memkeep.records.formats.base import About, Source
from memkeep.records.groups import short_digest
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record, Relationship, Vector
from memkeep.records.shape import Mapper
from memkeep.records.spool import Names
from memkeep.records.wire import plain_json
from memkeep.systems.target import ENDS, Target, is_valid

Fate = Literal["native", "metadata", "lost"]
_INVALID = "records that are no longer valid"
_MODEL = "the name of the vectors' model"
_ROUNDED = 1e-5
_SEVERAL = 2
_APART = frozenset({"primary", "collection", "system", "native", "metadata", "vectors"})
_FIELDS = tuple(field for field in Record.__struct_fields__ if field not in _APART)
_values = attrgetter(*_FIELDS)


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


def fates(fitted: "Fitted", room: Room) -> list[FieldFate]:
    """Return what becomes of the fields of the memories, of their metadata key by key, and of relationships."""
    mapper = room.mapper
    found = fitted.found
    aside: Fate = "metadata" if room.side else "lost"
    counted: Counter[tuple[str, Fate, str | None]] = Counter()
    for (system, collection, primary), number in found.kinds.items():
        if not primary:
            known = system == mapper.system and collection in room.collections
            counted[f"collection {collection}", "native" if known else aside, None] += number
    for (system, status, ends), number in found.statuses.items():
        if system != mapper.system and not room.target.hides(mapper.map) and gone(status, ends, room.target):
            counted[_INVALID, aside, None] += number
    for (system, field), number in found.fields.items():
        counted[field, *_fate(field, room, same=system == mapper.system)] += number
    for (system, primary, kinds), number in found.sets.items():
        fitting = [one for one in kinds if one not in fitted.left] if primary else []
        same = system == mapper.system
        for kind in fitting:
            field = f"vectors.{kind.name}" if kind.name else "vectors"
            counted[field, *_vector_fate(kind.name, room, same=same)] += number
        if same and room.model is None and any(one.model for one in fitting):
            counted[_MODEL, "lost", None] += number
    keeps = mapper.shape.free is not None or room.side
    for _ in fitted.relationships():
        counted["relationships", "native" if room.joins else "metadata" if keeps else "lost", None] += 1
    ours = fitted.about.system
    said = [
        FieldFate(field=field, fate=fate, records=number, column=column, reason=_reason(field, fate, ours))
        for (field, fate, column), number in counted.items()
    ]
    return sorted(said, key=lambda one: (("native", "metadata", "lost").index(one.fate), one.field))


def _vector_fate(name: str, room: Room, *, same: bool) -> tuple[Fate, str | None]:
    mapper = room.mapper
    carries = not same and (mapper.shape.free is not None or mapper.shape.side)
    carried: Fate = "metadata" if carries else "lost"
    return ("native" if name in room.vectors else carried), mapper.vector_column(name)


def _fate(field: str, room: Room, *, same: bool) -> tuple[Fate, str | None]:
    mapper = room.mapper
    if field == "id":
        return "native", mapper.map.id
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


Ends = tuple[str, ...]
"""Fields of a record that say until when it was valid, and that are past."""


def over(made: Record, at: int) -> Ends:
    """Return which ends of a record are past at a moment."""
    if made.expires_at is None and made.valid_until is None:
        return ()
    told = ((name, getattr(made, name)) for name in ENDS)
    return tuple(name for name, text in told if text and (end := moments.order(text)) is not None and end <= at)


def gone(status: str | None, ends: Ends, target: Target) -> bool:
    """Say whether a product must be told, or must not be given, that a record is no longer valid.

    A time that it goes by itself tells it already.
    """
    return not is_valid(status) or any(name not in target.heeds for name in ends)


class VectorKind(NamedTuple):
    """What decides whether a vector fits."""

    name: str
    type: str
    dims: int
    model: str | None


class Survey(NamedTuple):
    """What a source holds: its kinds of records, and what the memories among them have."""

    kinds: Counter[tuple[str, str, bool]]  # system, collection, whether they are memories
    statuses: Counter[tuple[str, str | None, Ends]]  # by the system, of memories; and which of their times are over
    fields: Counter[tuple[str, str]]  # system and field, the keys of metadata one by one; without vectors
    sets: Counter[tuple[str, bool, tuple[VectorKind, ...]]]  # system, whether they are memories, their vectors
    stretched: bool  # whether any vector of a memory is not of length one
    at: int  # when this was found out, as `moments.order` has it: what is over then
    unowned: int = 0  # memories of no user, agent or session
    doubled: frozenset[tuple[str, str]] = frozenset()  # collection and id of memories whose id an earlier one's has too
    firsts: Mapping[tuple[str, str], str] = {}  # of ids that several memories of a collection have: the first's digest
    apart: int = 0  # memories that are not the first of their id, and say something else

    @property
    def vectors(self) -> dict[VectorKind, int]:
        """How many vectors of each kind the memories have; of one that only records beside them have 0."""
        found: dict[VectorKind, int] = {}
        for (_, primary, kinds), number in self.sets.items():
            for one in kinds:
                found[one] = found.get(one, 0) + primary * number
        return found

    @property
    def widest(self) -> tuple[int | None, str | None]:
        """The dimensions that most of the main vectors have, and the model that they are of; None without any."""
        main = {one: many for one, many in self.vectors.items() if not one.name and one.type != "sparse" and many}
        most = max(main, key=main.__getitem__, default=None)
        return (None, None) if most is None else (most.dims, most.model)


def survey(source: Source) -> Survey:
    """Look through all records once."""
    at = moments.order(clock.now().isoformat()) or 0
    alike: Counter[tuple[Any, ...]] = Counter()  # records of which all is the same that is asked of one
    keys: Counter[tuple[str, str]] = Counter()
    names: dict[str, Names] = {}  # of the memories of each collection
    stretched = False
    for made in source.records():
        held = tuple([(name, one.type, one.dims, one.model) for name, one in made.vectors.items()])
        if not made.primary:
            alike[made.system, made.collection, False, None, (), (), held] += 1
            continue
        names.setdefault(made.collection, Names()).add(made.id)
        has = tuple([value is not None and value != () for value in _values(made)])
        alike[made.system, made.collection, True, made.status, over(made, at), has, held] += 1
        if made.metadata:
            keys.update([(made.system, key) for key, value in made.metadata.items() if value is not None])
        stretched = stretched or any(map(_is_stretched, made.vectors.values()))
    owners = [_FIELDS.index(name) for name in ("user", "agent", "session")]
    unowned = sum(many for (*_, has, _), many in alike.items() if has and not any(has[at] for at in owners))
    found = Survey(Counter(), Counter(), Counter(), Counter(), stretched, at, unowned)
    for (system, collection, primary, status, ends, has, held), number in alike.items():
        found.kinds[system, collection, primary] += number
        if held:
            found.sets[system, primary, tuple(itertools.starmap(VectorKind, held))] += number
        if primary:
            found.statuses[system, status, ends] += number
        for field in itertools.compress(_FIELDS, has):
            found.fields[system, field] += number
    found.fields.update({(system, f"metadata.{key}"): number for (system, key), number in keys.items()})
    firsts, apart = _repeated(source, names)
    return found._replace(doubled=frozenset(_doubled(source, names)), firsts=firsts, apart=apart)


def _doubled(source: Source, names: Mapping[str, Names]) -> Iterator[tuple[str, str]]:
    """Yield the collection and the id of memories whose id is also that of one in a collection before theirs."""
    if len(names) < _SEVERAL:
        return
    before = {each: [names[one] for one in sorted(names) if one < each] for each in names}
    for made in source.records():
        if made.primary and any(made.id in each for each in before[made.collection]):
            yield made.collection, made.id


def _repeated(source: Source, names: Mapping[str, Names]) -> tuple[dict[tuple[str, str], str], int]:
    """Return which memory comes first of each id that several of a collection have, and how many others there are."""
    several = {collection: repeated for collection, each in names.items() if len(repeated := each.repeated())}
    firsts: dict[tuple[str, str], str] = {}
    others: set[tuple[str, str, str]] = set()
    for made in source.records() if several else ():
        if made.primary and made.collection in several and made.id in several[made.collection]:
            digest = _digest(made)
            if firsts.setdefault((made.collection, made.id), digest) != digest:
                others.add((made.collection, made.id, digest))
    return firsts, len(others)


def _digest(made: Record) -> str:
    return short_digest(plain_json(made))


class Fitted:
    """A source whose vectors are only those that fit: of the right size, and of the model that is there.

    No two memories of a collection that say different things have the same id: all but the first get one of their own.
    """

    def __init__(
        self, source: Source, found: Survey, sizes: dict[str, int], model: str | None, *, carries: bool
    ) -> None:
        """Take what columns of vectors take, by the portable name of the vector, 0 for any; and the model there.

        `carries` says that a sparse vector, which is small, goes along where there is no column for it.
        """
        self.found = found
        self._carries = carries
        self._source = source
        self._sizes = sizes
        self._model = model
        vectors = found.vectors
        unfit = {kind: reason for kind in vectors if (reason := self._unfit(kind))}
        self.left = unfit.keys()
        reasons: Counter[str] = Counter()
        for kind, reason in unfit.items():
            reasons[reason] += vectors[kind]
        left = reasons.total()
        self.vectors = Vectors(
            kept=sum(vectors.values()) - left,
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
        named = map(self._named, self._source.records()) if self.found.firsts else self._source.records()
        if not self.left:
            yield from named
            return
        for made in named:
            fitting = {
                name: one
                for name, one in made.vectors.items()
                if VectorKind(name, one.type, one.dims, one.model) not in self.left
            }
            yield made if len(fitting) == len(made.vectors) else msgspec.structs.replace(made, vectors=fitting)

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        return self._source.relationships()

    def _named(self, made: Record) -> Record:
        first = self.found.firsts.get((made.collection, made.id)) if made.primary else None
        if first is None or (digest := _digest(made)) == first:
            return made
        return msgspec.structs.replace(made, id=as_uuid(made.system, f"{made.collection}:{made.id}:{digest}"))

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

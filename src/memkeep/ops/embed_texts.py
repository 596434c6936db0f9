"""What of a store has a text that a vector is made of: where texts and vectors lie, and which of them want one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from memkeep.embedding.journal import KEY
from memkeep.engines.base import Opened
from memkeep.engines.catalog import engine
from memkeep.engines.merging import plain_id
from memkeep.engines.rows import NO_TABLE, RowEngine, RowReader
from memkeep.errors import StoreError
from memkeep.events import Events
from memkeep.model import Part, Role, Snapshot, Store, TableMap
from memkeep.ops.freeze import freeze
from memkeep.ops.materialise import materialise
from memkeep.ops.scratch import scratch
from memkeep.records.record import Record, Vector
from memkeep.records.shape import Row, Shape
from memkeep.records.spool import Names, Spool
from memkeep.systems import shapes, targets
from memkeep.systems.base import Refine
from memkeep.vault.vault import Vault

NUMPY = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}
_POINTS = frozenset({"chroma", "qdrant", "qdrant-local"})  # engines whose rows have a vector that no map needs to name
_POINT = "vector"
_GONE = frozenset({"superseded", "archived", "deleted"})  # products keep no vector of these


class Place(NamedTuple):
    """One table with a text and the vector that is made of it."""

    part: Part
    map: TableMap
    shape: Shape
    text: str  # columns
    vector: str

    @property
    def name(self) -> str:
        """Its name for a person."""
        return f"{self.part.name}/{self.map.collection}"


class Text(NamedTuple):
    """A row with a text. `row` is None of a record whose row has yet to be made: then `record` is it."""

    id: Any
    text: str
    vector: Vector | None
    record: Record | None = None


def places(store: Store) -> list[Place]:
    """Return where the texts and vectors of a store lie; what its product makes again by itself is left out."""
    found = []
    for part in store.parts:
        if part.role in {Role.DISPOSABLE, Role.SECRET} or not isinstance(engine(part.engine), RowEngine):
            continue
        for map_ in part.maps:
            text = map_.fields.get("text")
            vector = map_.vectors[0] if map_.vectors else _POINT if part.engine in _POINTS else None
            if text is not None and vector is not None:
                found.append(Place(part, map_, shapes.mapper(store.system, map_).shape, text, vector))
    return found


class Opening:
    """The parts of a store at one moment."""

    def __init__(self, store: Store, held: dict[str, Opened]) -> None:
        self._store = store
        self._held = held

    @property
    def store(self) -> Store:
        """Whose parts they are."""
        return self._store

    def texts(self, place: Place) -> Iterator[Text]:
        """Yield the rows of a place, then the records that have no row there yet."""
        known = Names()
        lacking = place.shape.kind == "vectors"
        for row in self.rows(place.part, place.map):
            said, vector = row.get(place.text), row.get(place.vector)
            if lacking:
                known.add(plain_id(row[place.map.id]))
            if isinstance(said, str):
                yield Text(row[place.map.id], said, vector if isinstance(vector, Vector) else None)
        if lacking:
            yield from self._without_row(place, known)

    def _without_row(self, place: Place, known: Names) -> Iterator[Text]:
        """Yield the records of the collection that a table of vectors belongs to and that have none in it."""
        for part in self._store.parts:
            for map_ in part.maps:
                if map_.collection != place.shape.of or part.name not in self._held:
                    continue
                mapper, refine = shapes.mapper(self._store.system, map_), self._refine()
                for row in self.rows(part, map_):
                    name = str(row[map_.id])
                    made = mapper.record(row)
                    if isinstance(made, Record) and made.text and plain_id(name) not in known:
                        made = msgspec.structs.replace(refine(made), id=name)  # one from elsewhere has that of there
                        if made.status not in _GONE:
                            yield Text(name, made.text, None, made)

    def _refine(self) -> Refine:
        wanted = shapes.lookups(self._store.system)
        known = {
            map_.collection: list(self.rows(part, map_))
            for part in self._store.parts
            for map_ in part.maps
            if map_.collection in wanted and part.name in self._held
        }
        return shapes.refine(self._store.system, known)

    def rows(self, part: Part, map_: TableMap) -> Iterator[Row]:
        """Yield the rows of a table; none where it is not there."""
        opened = self._held.get(part.name)
        if not isinstance(opened, RowReader):
            return
        try:
            for batch in opened.rows(map_):
                yield from batch
        except StoreError as error:
            if error.code != NO_TABLE:
                raise


@contextmanager
def opened_snapshot(vault: Vault, snapshot: Snapshot, events: Events) -> Iterator[tuple[Opening, list[Place]]]:
    """Open the parts of a snapshot that have texts and vectors. Raises `StoreError` and `DamagedError`."""
    images = [image for part in snapshot.parts if (image := vault.image(part)).part.maps]
    store = Store(system=snapshot.system, path=snapshot.path, root="", parts=tuple(image.part for image in images))
    with scratch() as folder, ExitStack() as stack:
        materialise(vault, images, folder, events, durable=False)
        held = {
            image.part.name: stack.enter_context(engine(image.part.engine).open(image.part, folder)) for image in images
        }
        yield Opening(store, held), places(store)


@contextmanager
def opened(store: Store, chosen: Sequence[Place], more: Sequence[Part] = ()) -> Iterator[Opening]:
    """Hold the parts that the places need, and others, at one moment. Raises `StoreError` when one can't be read."""
    wanted = {part.name for part in (*(place.part for place in chosen), *more)}
    of = {place.shape.of for place in chosen if place.shape.kind == "vectors"}
    looked = set(shapes.lookups(store.system)) if of else set()
    wanted |= {part.name for part in store.parts if (of | looked) & {map_.collection for map_ in part.maps}}
    parts = [part for part in store.parts if part.name in wanted]
    with scratch() as folder, freeze(store, parts, folder) as moment:
        if moment.errors:
            raise moment.errors[0]
        yield Opening(store, {held.part.name: held.opened for held in moment.held})


def new_row(store: Store, place: Place, made: Record, vector: Vector, columns: Sequence[str]) -> Row:
    """Return the row of a record that has none yet in a table of vectors."""
    whole = msgspec.structs.replace(made, vectors={"": vector})
    row = shapes.mapper(store.system, place.map).row(whole, columns)
    return targets.of_system(store.system).complete(whole, row | {place.vector: vector}, place.map)


def usable(vector: Vector | None) -> bool:
    """Say whether anything can be found with a vector: it is finite, and not of zeros only."""
    import numpy as np

    if vector is None or not vector.data:
        return False
    if vector.type not in NUMPY:
        return True
    numbers = np.frombuffer(vector.data, NUMPY[vector.type])
    return bool(np.isfinite(numbers).all() and numbers.any())


def key_of(identity: str, text: str) -> bytes:
    """Return the name under which the vector of a text is kept."""
    from blake3 import blake3

    return blake3(f"{identity}\0{text}".encode("utf-8", "surrogatepass")).digest(KEY)


def sendable(text: str) -> str:
    """Return a text that has only characters: what was no UTF-8 in the store is shown as such."""
    return text.encode("utf-8", "replace").decode()


class Waiting:
    """Texts that want a vector, each once, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder)
        self.dims: Counter[int] = Counter()  # of the usable vectors that are there
        self.rows = 0  # that want a vector
        self.seen = 0

    def add(self, key: bytes, text: str) -> None:
        """Take in the text of a row that wants a vector."""
        self.rows += 1
        self._spool.add(key.hex(), Record(id=key.hex(), text=text))

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        last = ""
        for made in self._spool:
            assert isinstance(made, Record)  # noqa: S101 - nothing else was put in
            if made.id != last:
                last = made.id
                yield bytes.fromhex(made.id), made.text

    def close(self) -> None:
        """Let go of all."""
        self._spool.close()

"""The collections of a Chroma database, and their records: rows of SQLite, vectors of the segments, and the queue.

Everything that is written goes into a queue first. From there it is taken into the tables of metadata, and, once there
is enough of it (`sync_threshold`, 1000), into the files of the vector segment; `max_seq_id` says how far either is.
What has been taken by both is purged, save the last. So a vector lies in the queue or in the files, and what the
tables lack is in the queue: `Collection.records` puts them together as Chroma does when it reads.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from memkeep.engines.chroma_segment import Vectors
from memkeep.engines.qdrant_edge import Point

Ask = Callable[[str], Iterator[list[list[Any]]]]

DOCUMENT = "chroma:document"
_ADD, _UPDATE, _UPSERT, _DELETE = range(4)  # `operation` of the queue
_HOME = ("default_tenant", "default_database")


class Collection(NamedTuple):
    """A collection: where its rows and vectors are, and how far each has taken in the queue."""

    id: str
    name: str  # with tenant and database before it, where these are not the default ones
    dims: int | None
    space: str
    vectors: str  # segment, whose folder has the same name
    metadata: str  # segment
    vectors_to: int
    metadata_to: int


class _Change(NamedTuple):
    """One entry of the queue."""

    seq: int
    operation: int
    record: str
    vector: bytes | None
    metadata: dict[str, Any]


class Joined:
    """The records of one collection put together; `missing` and `extra` are complete after `records` ended."""

    def __init__(self, ask: Ask, collection: Collection, folder: Path) -> None:
        """Read the queue and the files of the vector segment, which lie in a folder that nobody changes."""
        self.collection = collection
        self.missing: list[str] = []  # ids of records without a vector
        self.extra: list[str] = []  # ids of vectors without a record
        self.segment = Vectors(folder / collection.vectors, cosine=collection.space == "cosine")
        self._ask = ask
        changes = list(_changes(ask, collection.id))
        self._queued: dict[str, bytes | None] = {}  # None: deleted
        for one in changes:
            if one.seq > collection.vectors_to:
                self._vector_change(one)
        self._pending: dict[str, list[_Change]] = {}
        for one in changes:
            if one.seq > collection.metadata_to:
                self._pending.setdefault(one.record, []).append(one)

    def _vector_change(self, one: _Change) -> None:
        there = self._queued[one.record] is not None if one.record in self._queued else self.segment.has(one.record)
        if one.operation == _DELETE:
            self._queued[one.record] = None
        elif one.vector is not None and (one.operation == _UPSERT or there == (one.operation == _UPDATE)):
            self._queued[one.record] = one.vector

    def vector(self, record: str) -> bytes | None:
        """Return a record's vector, float32 little-endian; None when it has none."""
        return self._queued[record] if record in self._queued else self.segment.get(record)

    def records(self) -> Iterator[list[Point]]:
        """Yield the records, some at a time."""
        seen: set[str] = set()
        for rows in self._rows():
            found = []
            for record, stored in rows:
                seen.add(record)
                metadata = _applied(stored, self._pending.get(record, ()))
                if metadata is not None:
                    found.append(self._point(record, metadata))
            yield found
        new = [(record, changes) for record, changes in self._pending.items() if record not in seen]
        added = [(record, metadata) for record, some in new if (metadata := _applied(None, some)) is not None]
        yield [self._point(record, metadata) for record, metadata in added]
        living = {record for record, vector in self._queued.items() if vector is not None}
        living |= {record for record in self.segment.ids if record not in self._queued}
        gone = {record for record in seen if _applied({}, self._pending.get(record, ())) is None}
        self.extra = sorted(living - (seen - gone) - {record for record, _ in added})

    def some(self, count: int) -> list[tuple[str, bytes]]:
        """Return the ids and vectors of a few records."""
        sql = f"SELECT embedding_id FROM embeddings WHERE segment_id = {quoted(self.collection.metadata)} LIMIT {count}"  # noqa: S608 - quoted
        names = [row[0] for rows in self._ask(sql) for row in rows]
        return [(name, vector) for name in names if (vector := self.vector(name)) is not None]

    def _point(self, record: str, metadata: dict[str, Any]) -> Point:
        vector = self.vector(record)
        if vector is None:
            self.missing.append(record)
        document = {"document": metadata[DOCUMENT]} if DOCUMENT in metadata else {}
        rest = {
            ("metadata.document" if key == "document" else key): v for key, v in metadata.items() if key != DOCUMENT
        }
        return Point(record, document | rest, {} if vector is None else {"": vector})

    def _rows(self) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """Yield ids and metadata as the tables have them."""
        segment = quoted(self.collection.metadata)
        arrays = _arrays(self._ask, segment)
        rows = self._ask(
            "SELECT e.id, e.embedding_id, m.key, m.string_value, m.int_value, m.float_value, m.bool_value"  # noqa: S608 - quoted
            f" FROM embeddings e LEFT JOIN embedding_metadata m ON m.id = e.id WHERE e.segment_id = {segment}"
            " ORDER BY e.id, m.key"
        )
        number: int | None = None
        found: list[tuple[str, dict[str, Any]]] = []
        for batch in rows:
            for row, record, key, *values in batch:
                if row != number:
                    number = row
                    found.append((record, dict(arrays.get(row, {}))))
                if key is not None:
                    found[-1][1][key] = _value(values)
            yield found[:-1]
            found = found[-1:]
        yield found


def collections(ask: Ask) -> list[Collection]:
    """Return the collections of a database. Raises `StoreError` when it is none of Chroma."""
    columns = {row[0] for rows in ask("SELECT name FROM pragma_table_info('collections')") for row in rows}
    said = [column if column in columns else "NULL" for column in ("config_json_str", "schema_str")]
    spaces = {
        row[0]: row[1]
        for rows in ask("SELECT collection_id, str_value FROM collection_metadata WHERE key = 'hnsw:space'")
        for row in rows
    }
    reached = {row[0]: seq_of(row[1]) for rows in ask("SELECT segment_id, seq_id FROM max_seq_id") for row in rows}
    segments = {(row[0], row[1]): row[2] for rows in ask("SELECT collection, scope, id FROM segments") for row in rows}
    sql = (
        f"SELECT c.id, c.name, c.dimension, {said[0]}, {said[1]}, d.tenant_id, d.name FROM collections c"  # noqa: S608 - constants
        " LEFT JOIN databases d ON d.id = c.database_id ORDER BY c.id"
    )
    found = []
    for rows in ask(sql):
        for id_, name, dims, config, schema, tenant, database in rows:
            vectors, metadata = segments.get((id_, "VECTOR"), ""), segments.get((id_, "METADATA"), "")
            full = full_name(name, tenant, database)
            space = _space(config, schema) or spaces.get(id_) or "l2"
            found.append(
                Collection(id_, full, dims, space, vectors, metadata, reached.get(vectors, 0), reached.get(metadata, 0))
            )
    return found


def full_name(name: str, tenant: str | None, database: str | None) -> str:
    """Return a collection's name, with tenant and database before it where these are not the default ones."""
    return name if (tenant, database) in (_HOME, (None, None)) else f"{tenant}/{database}/{name}"


def quoted(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _space(config: str | None, schema: str | None) -> str:
    """Return the distance that a collection's settings name, in the forms of 1.x and 0.6; "" for none."""
    places = (
        (schema, ("keys", "#embedding", "float_list", "vector_index", "config", "space")),
        (schema, ("defaults", "float_list", "vector_index", "config", "space")),
        (config, ("hnsw", "space")),
        (config, ("hnsw_configuration", "space")),
    )
    for text, keys in places:
        try:
            said: Any = json.loads(text or "null")
        except ValueError:
            continue
        for key in keys:
            said = said.get(key) if isinstance(said, dict) else None
        if isinstance(said, str):
            return said
    return ""


def seq_of(value: Any) -> int:
    """Return how far something is in the queue."""
    return int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)  # bytes before 0.6


def _value(values: list[Any]) -> Any:
    """Return the one value of those of each type."""
    text, whole, number, truth = values
    if truth is not None:
        return bool(truth)
    return next((value for value in (text, whole, number) if value is not None), None)


def _arrays(ask: Ask, segment: str) -> dict[int, dict[str, list[Any]]]:
    there = list(ask("SELECT 1 FROM sqlite_schema WHERE name = 'embedding_metadata_array'"))
    found: dict[int, dict[str, list[Any]]] = {}
    if there:
        sql = (
            "SELECT m.id, m.key, m.string_value, m.int_value, m.float_value, m.bool_value"  # noqa: S608 - quoted
            " FROM embedding_metadata_array m JOIN embeddings e ON e.id = m.id"
            f" WHERE e.segment_id = {segment} ORDER BY m.rowid"
        )
        for rows in ask(sql):
            for row, key, *values in rows:
                found.setdefault(row, {}).setdefault(key, []).append(_value(values))
    return found


def _changes(ask: Ask, collection: str) -> Iterator[_Change]:
    """Yield what the queue has for a collection, the oldest first."""
    sql = (
        "SELECT seq_id, operation, id, vector, encoding, metadata FROM embeddings_queue"  # noqa: S608 - quoted
        f" WHERE substr(topic, -{len(collection)}) = {quoted(collection)} ORDER BY seq_id"
    )
    for rows in ask(sql):
        for seq, operation, record, vector, encoding, metadata in rows:
            yield _Change(seq_of(seq), operation, record, _float32(vector, encoding), _metadata(metadata))


def _float32(vector: Any, encoding: Any) -> bytes | None:
    if not isinstance(vector, bytes):
        return None
    if encoding == "INT32":
        import numpy as np

        return np.frombuffer(vector, "<i4").astype("<f4").tobytes()
    return vector


def _metadata(text: Any) -> dict[str, Any]:
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _applied(stored: dict[str, Any] | None, changes: "list[_Change] | tuple[()]") -> dict[str, Any] | None:
    """Return the metadata of a record after some changes; None when it is not there."""
    for one in changes:
        if one.operation == _DELETE:
            stored = None
        elif stored is None and one.operation != _UPDATE:
            stored = one.metadata
        elif stored is not None and one.operation != _ADD:
            merged = stored | one.metadata
            stored = {key: value for key, value in merged.items() if value is not None}
    return stored

"""Between a product's rows and portable records, both ways, as a `Shape` says.

A row is {column: value}: None, bool, int, float, str, bytes, lists and dicts as the database gives them, and `Vector`
for what a map calls a vector. The keys of a JSON object in a column of Postgres are columns, `payload.user_id`. In a
record they have the names that they have in the object, so that a point of Qdrant and a row of pgvector are the same
record; one that is called like a column keeps the prefix, as `point_rows` has it of points.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from memkeep.model import TableMap, TimeUnit, Value
from memkeep.records import moments
from memkeep.records.plain import from_plain, to_plain
from memkeep.records.record import Portable, Record, Relationship, Vector

Row = dict[str, Any]
Form = Literal["comma", "json", "list"]
"""How a column spells tags: `a,b`, the text of a JSON list, or a list."""

CARRIED = "memkeep"
"""The key under which a product that takes any key keeps what it has no field for."""

SIDE_TABLE = "memkeep_carried"
"""The table in which a database keeps that where the product takes no key but its own: `id`, and `record`, JSON."""

WHOLE = "whole"
"""The key under which that table has a record as `wire.plain_json` spells it: one that the product must not find."""

_TEXT = "{}"
"""The key of `native` with the text of the JSON object that a record was, where its column is of text."""

_NUMBERS = frozenset({"importance", "confidence", "heat", "strength"})
_BORNE = frozenset({"id", "text", "collection", "primary", "system", "native", "vectors"})
_PLAIN_TEXTS, _PLAIN_COUNTS, _PLAIN_NUMBERS = frozenset({str}), frozenset({int}), frozenset({int, float})
_KEPT = frozenset({str, int, float})
_MANY = 4096  # raw values of which it is remembered what they are
_REFERENCES = frozenset({"supersedes", "superseded_by"})  # ids of records, which have others in another product
_EMPTY: tuple[Any, ...] = (None, (), {})


class Shape(Value, kw_only=True):
    """Which columns of a collection are which fields of a record, and how they spell them."""

    kind: Literal["record", "relationship", "vectors", "carried"] = "record"
    of: str = ""  # of `vectors` and `carried`: the collection whose records they belong to, by the same id
    product: str = ""  # whose records these are where a system is several products; "": the system's
    fields: dict[str, str] = {}  # field of `Record` or `Relationship` -> column; `id` is the map's own
    times: dict[str, TimeUnit] = {}
    forms: dict[str, Form] = {}
    inner: str | None = None  # a column with the text of a JSON object; fields may lie in it, `metadata.tier`
    free: str | None = None  # "" or "payload.": the product takes any key under this prefix; None: no such
    spread: str | None = None  # a column with the text of a JSON object whose keys are columns, as in Postgres
    side: bool = False  # what has no column is carried in `SIDE_TABLE`
    numbers: Literal["any", "whole", "float"] = "any"  # what times that are numbers are
    like: str = "2026-01-02T03:04:05+00:00"  # how the product spells a time as text


def of_map(map_: TableMap) -> Shape:
    """Return the shape that a map alone gives."""
    known = {field: column for field, column in map_.fields.items() if field in Record.__struct_fields__}
    return Shape(fields=known, times={field: unit for field, unit in map_.times.items() if field in known})


class With(NamedTuple):
    """What goes with a record and has no place of its own: relationships that begin at it, vectors without a column."""

    joins: Sequence[Relationship] = ()
    vectors: Mapping[str, Vector] = MappingProxyType({})


NOTHING = With()


class Mapper:
    """Turns the rows of one collection into records, and records into its rows."""

    def __init__(self, map_: TableMap, shape: Shape, system: str) -> None:
        self.map = map_
        self.shape = shape
        self.system = shape.product or system
        self.filled: Collection[str] = ()  # columns whose NULL is not what a row has that does not say so
        inner = f"{shape.inner}." if shape.inner else None
        known = Relationship if shape.kind == "relationship" else Record
        fields = {field: column for field, column in shape.fields.items() if field in known.__struct_fields__}
        self._fields = {f: c for f, c in fields.items() if c != map_.id and not (inner and c.startswith(inner))}
        self._inner = {f: c.removeprefix(inner) for f, c in fields.items() if inner and c.startswith(inner)}
        self._plan = [(field, column, self._plain(field)) for field, column in self._fields.items()]
        self._known: dict[tuple[str, type, Any], tuple[Any, bool]] = {}  # times and tags come again and again
        self._values: dict[tuple[str, type, Any], Any] = {}
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._carried = None if shape.free is None else f"{shape.free}{CARRIED}"
        self._prefix = shape.free or "" if shape.inner is None else ""
        self._text = next((c for f, c in self._fields.items() if f == "text" and self._is_free(c)), None)
        self.taken = [(field, column, column == self._text) for field, column in self._fields.items()]
        self._reserved = {map_.id, "vector", *map_.vectors}

    def record(self, row: Row) -> Portable:
        """Return the record, or the relationship, that a row is. Nothing is lost: `row` gives it back."""
        native: Row = {}
        cells = self._spread(row, native)
        identity = cells.pop(self.map.id, None)
        name = _id(identity)
        if identity.__class__ is not str:
            native[self.map.id] = identity
        vectors = {
            _vector_name(column, self.map): cells.pop(column)
            for column in [column for column, value in row.items() if value.__class__ is Vector]
        }
        fields = self._take_fields(cells, native)
        native |= {column: None for column in self.filled if column in row and row[column] is None}
        cells = {column: value for column, value in cells.items() if value is not None or self._is_free(column)}
        carried = self._take_carried(cells)
        if self._prefix:
            cells, native = ({self._portable(c, row): v for c, v in each.items()} for each in (cells, native))
        common: dict[str, Any] = {"collection": self.map.collection, "system": self.system}
        made: Portable
        if self.shape.kind == "relationship" and {"source", "target", "type"} <= fields.keys():
            made = Relationship(id=name, metadata=cells, native=native, **fields, **common)
        else:
            fields = {"text": ""} | {f: v for f, v in fields.items() if f in Record.__struct_fields__}
            primary = self.map.primary
            made = Record(id=name, primary=primary, vectors=vectors, metadata=cells, native=native, **fields, **common)
        return self.restored(made, carried) if carried else made

    def _take_fields(self, cells: Row, native: Row) -> dict[str, Any]:
        """Move what are fields out of the cells; where a field alone would not give it back, into `native`."""
        fields: dict[str, Any] = {}
        for field, column, plain in self._plan:
            if column not in cells:
                continue
            raw = cells.pop(column)
            if raw.__class__ in plain:
                fields[field] = raw
                continue
            if raw is None:
                if field == "text":
                    native[column] = None
                continue
            value, exact = self._told(field, raw)
            if value is not None:
                fields[field] = value
            if not exact:
                native[column] = raw
        if self._text is not None and fields.get("text") == "":
            native[self._text] = ""  # it is there, and empty
        if self.shape.inner is not None:
            self._take_inner(self.shape.inner, cells, native, fields)
        return fields

    def _take_inner(self, inner: str, cells: Row, native: Row, fields: dict[str, Any]) -> None:
        """Read the JSON text of a column, which stays in the cells, as an object."""
        held = _object(cells.get(inner))
        if held is None:
            return
        if _text(held) != cells[inner]:
            native[inner] = cells[inner]
        cells[inner] = held
        for field, key in self._inner.items():
            if (value := self._read(field, held.get(key))) is not None:
                fields.setdefault(field, value)

    def _told(self, field: str, raw: Any) -> tuple[Any, bool]:
        """Return a raw value as a field's, and whether that alone would give it back."""
        key = (field, raw.__class__, raw) if raw.__class__ in _KEPT else None
        if key is not None and key in self._known:
            return self._known[key]
        value = self._read(field, raw)
        told = value, value is not None and _same(raw, self._write(field, value))
        if key is not None:
            if len(self._known) >= _MANY:
                self._known.clear()
            self._known[key] = told
        return told

    def _remembered(self, field: str, raw: Any) -> Any:
        """Return a raw value as a field's, as `_read` does."""
        if raw.__class__ not in _KEPT:
            return self._read(field, raw)
        key = (field, raw.__class__, raw)
        if key in self._values:
            return self._values[key]
        if len(self._values) >= _MANY:
            self._values.clear()
        value = self._values[key] = self._read(field, raw)
        return value

    def row(self, made: Portable, columns: Collection[str]) -> Row:
        """Return the row for a record in a table that has these columns; what nothing is known of is not in it.

        What came from this product comes back exactly, except where the record was changed since.
        """
        ours = made.system == self.system
        layout = self._layout(columns)
        row, native = self._own(made, layout) if ours else ({}, {})
        raw = native.get(self.map.id)
        row[self.map.id] = raw if raw is not None and _id(raw) == made.id else made.id
        for field, column, is_text in layout.ours if ours else layout.theirs:
            value = getattr(made, field, None)
            if column in native:
                if self._remembered(field, native[column]) != (value or None):
                    row[column] = None if value is None else self._write(field, value)
            elif value is not None and value != () and not (is_text and value == ""):
                row[column] = self._write(field, value)
        if (inner := self.shape.inner) is not None and inner in columns:
            row[inner] = self._inner_text(made, row.get(inner), native.get(inner), ours=ours)
        if isinstance(made, Record):
            for name, vector in made.vectors.items():
                if (into := _vector_column(name, self.map)) is not None:
                    row[into] = vector
        # Of another product's record NULL says nothing: a new row has it there anyway.
        return row if ours else {name: value for name, value in row.items() if value is not None}

    def _own(self, made: Portable, layout: "_Layout") -> tuple[Row, Row]:
        """Return the columns that the product's own record names itself, and those of them that are in `native`."""
        row: Row = {}
        native: Row = {}
        for name, value in made.metadata.items():
            column, fits = layout.of(name)
            if fits:
                row[column] = value
        for name, value in made.native.items():
            if name != _TEXT:
                column, fits = layout.of(name)
                native[column] = value
                if fits:
                    row[column] = value
        if self.shape.spread is not None and _TEXT in made.native:
            row[self.shape.spread] = made.native[_TEXT]
        return row, native

    def _layout(self, columns: Collection[str]) -> "_Layout":
        """Return how records lie in a table with these columns; it is found out once for a table."""
        names = columns if isinstance(columns, tuple) else tuple(columns)
        found = self._layouts.get(names)
        if found is None:
            found = self._layouts[names] = _Layout(self, names)
        return found

    def carry(self, row: Row, made: Portable, with_: With = NOTHING) -> Row:
        """Return the row of another product's record with all that it must carry, where the product takes any key."""
        if self._carried is None:
            return row
        said = self.carried(row, made, with_)
        if self.shape.inner is None:
            return row | {self._carried: said}
        return row | {self.shape.inner: _text((_object(row.get(self.shape.inner)) or {}) | {CARRIED: said})}

    def carried(self, row: Row, made: Portable, with_: With = NOTHING) -> dict[str, Any]:
        """Return what is not in the row of another product's record, so that the way back loses nothing; plain JSON.

        `exact` has fields that the row spells in another way: what the record says, and what the row gives back.
        """
        fields = self.shape.fields.keys() - _REFERENCES
        said = {field: value for field, value in _said(made).items() if value not in _EMPTY}
        left = {f: to_plain(value) for f, value in said.items() if f not in fields and f not in {"text", "vectors"}}
        cells = row | {
            f"{self.shape.inner}.{k}": v for k, v in (_object(row.get(self.shape.inner or "")) or {}).items()
        }
        seen = {field: self._read(field, cells.get(self.shape.fields[field])) for field in sorted(fields)}
        exact = {
            f: [to_plain(said.get(f)), to_plain(v)] for f, v in seen.items() if (v or v != ()) and v != said.get(f)
        }
        models = {name: one.model for name, one in _vectors(made).items() if one.model}
        joined = [
            {name: to_plain(item) for name, item in _said(one).items() if item not in _EMPTY} for one in with_.joins
        ]
        apart = {name: to_plain(msgspec.structs.asdict(one)) for name, one in with_.vectors.items()}
        more = {"exact": exact, "models": models, "relationships": joined, "vectors_apart": apart}
        return left | {name: value for name, value in more.items() if value}

    def restored(self, made: Portable, said: Any) -> Portable:
        """Return a record with what was carried for it; what was changed here since stays changed."""
        if not isinstance(said, dict) or not isinstance(said.get("system"), str):
            return made
        try:
            known = {name: from_plain(value) for name, value in said.items() if name in made.__struct_fields__}
            for field, (value, seen) in dict(said.get("exact") or {}).items():
                now = getattr(made, field, None)
                if (list(now) or None if isinstance(now, tuple) else now) == from_plain(seen):
                    known[field] = from_plain(value) if value is not None or field != "tags" else ()
            apart = {name: Vector(**from_plain(one)) for name, one in dict(said.get("vectors_apart") or {}).items()}
        except (ValueError, TypeError):
            return made
        if "tags" in known:
            known["tags"] = tuple(known["tags"])
        if isinstance(made, Record):
            known["vectors"] = with_models(made.vectors, said) | apart
        return msgspec.structs.replace(made, **({"native": {}, "metadata": {}} | known))

    def said(self, row: Row) -> Any:
        """Return what the row of another product's record carries; None for none."""
        if self._carried is None:
            return None
        if self.shape.inner is None:
            return self._spread(row, {}).get(self._carried)
        text = row.get(self.shape.inner)
        return (_object(text) or {}).get(CARRIED) if isinstance(text, str) and f'"{CARRIED}"' in text else None

    def gathered(self, row: Row) -> Row:
        """Return a complete row as the table takes it: the keys of a JSON object as its text, where that is a column.

        The text that it was stays while it says the same.
        """
        into = self.shape.spread
        if into is None:
            return row
        held = {n.removeprefix(f"{into}."): value for n, value in row.items() if n.startswith(f"{into}.")}
        rest = {n: value for n, value in row.items() if not n.startswith(f"{into}.")}
        if into in rest and (_object(rest[into]) or {}) == held:
            return rest
        return rest | {into: _text(held)}

    def column(self, name: str, columns: Collection[str]) -> str:
        """Return the column that a key of a record's metadata is in a table with these columns."""
        if not self._prefix:
            return name
        return name if self._is_taken(name, columns) else f"{self._prefix}{name}"

    def _portable(self, column: str, row: Row) -> str:
        """Return the key of a record's metadata that a column is: that in the JSON object, which is `column`'s undo."""
        if not self._prefix or not column.startswith(self._prefix):
            return column
        key = column.removeprefix(self._prefix)
        return column if self._is_taken(key, row) else key

    def _is_taken(self, key: str, columns: Collection[str]) -> bool:
        """Say whether a key, less any prefixes, is called like a column."""
        while key.startswith(self._prefix):
            key = key.removeprefix(self._prefix)
        column = key in columns and f"{key}." != self._prefix
        return column or key in self._reserved or key.startswith("vector.")

    def _spread(self, row: Row, native: Row) -> Row:
        """Return the row with the keys of a JSON object as columns, and what its text was in `native`."""
        column = self.shape.spread
        if column is None or column not in row:
            return dict(row)
        native[_TEXT] = row[column]
        held = _object(row[column]) or {}
        return {n: v for n, v in row.items() if n != column} | {f"{column}.{key}": v for key, v in held.items()}

    def lost(self, made: Portable) -> list[str]:
        """Return the fields of a record that the product has no place for at all."""
        gone = [
            f"vectors.{name}" if name else "vectors" for name in _vectors(made) if not _vector_column(name, self.map)
        ]
        if self.shape.free is None and not self.shape.side:
            taken = _BORNE | self.shape.fields.keys()
            gone += [field for field, value in _said(made).items() if field not in taken and value not in _EMPTY]
        return gone

    def _inner_text(self, made: Portable, said: Any, native: Any, *, ours: bool) -> Any:
        """Return the text of the JSON object; the product's own while it still says what the record says."""
        before = made.metadata.get(self.shape.inner or "") if ours else {}
        if not isinstance(before, dict) and not any(getattr(made, field, None) for field in self._inner):
            return said
        held = dict(before) if isinstance(before, dict) else {}
        for field, key in self._inner.items():
            value = getattr(made, field, None) if ours or field not in _REFERENCES else None
            if self._read(field, held.get(key)) != (value or None):
                held[key] = None if value is None else self._write(field, value)
        return native if isinstance(native, str) and _object(native) == held else _text(held)

    def _take_carried(self, cells: Row) -> Any:
        if self._carried is None:
            return None
        if self.shape.inner is not None:
            held = cells.get(self.shape.inner)
            return held.pop(CARRIED, None) if isinstance(held, dict) else None
        return cells.pop(self._carried, None)

    def fits(self, column: str, columns: Collection[str]) -> bool:
        """Say whether a table with these columns takes this one."""
        inner = self.shape.inner
        return column in columns or self._is_free(column) or (inner in columns and column.startswith(f"{inner}."))

    def vector_name(self, column: str) -> str:
        """Return the portable name of a column of vectors."""
        return _vector_name(column, self.map)

    def vector_column(self, name: str) -> str | None:
        """Return the column of a vector by its portable name."""
        return _vector_column(name, self.map)

    def _is_free(self, column: str) -> bool:
        """Say whether a column is a key that the product takes whatever it is called."""
        return self.shape.free is not None and self.shape.inner is None and column.startswith(self.shape.free)

    def _plain(self, field: str) -> frozenset[type]:
        """Return the types of raw values that are the field's own, as they are."""
        if field in self.shape.times or field == "tags":
            return frozenset()
        return _PLAIN_NUMBERS if field in _NUMBERS else _PLAIN_COUNTS if field == "access_count" else _PLAIN_TEXTS

    def _read(self, field: str, raw: Any) -> Any:
        """Return a raw value as a field's; None when it is no such thing."""
        if raw is None:
            return None
        if field in self.shape.times:
            return moments.from_raw(raw, self.shape.times[field])
        if field == "tags":
            return _tags(raw, self.shape.forms.get(field, "json"))
        kind = raw.__class__
        if field in _NUMBERS:
            return raw if kind is float or kind is int else None
        if field == "access_count":
            return raw if kind is int else None
        return raw if kind is str else str(raw) if kind is int else None

    def _write(self, field: str, value: Any) -> Any:
        unit = self.shape.times.get(field)
        if unit == "iso":
            return moments.to_text(value, like=self.shape.like) or value
        if unit is not None:
            number = moments.to_number(value, "s" if unit == "auto" else unit)
            if number is None or self.shape.numbers == "any":
                return number
            return math.floor(number) if self.shape.numbers == "whole" else float(number)
        if field == "tags":
            form = self.shape.forms.get(field, "json")
            if form == "json":
                return json.dumps(list(value), ensure_ascii=False)
            return ",".join(value) if form == "comma" else list(value)
        return value


class _Layout:
    """Where a mapper puts what is in records, in a table with some columns."""

    def __init__(self, mapper: Mapper, columns: tuple[str, ...]) -> None:
        self._mapper = mapper
        self._columns = columns
        self._names: dict[str, tuple[str, bool]] = {}
        fitting = [one for one in mapper.taken if mapper.fits(one[1], columns)]
        self.ours = fitting  # field, column, and whether it is a text whose empty one says nothing
        self.theirs = [one for one in fitting if one[0] not in _REFERENCES]

    def of(self, name: str) -> tuple[str, bool]:
        """Return the column of a key of metadata, and whether the table takes it."""
        found = self._names.get(name)
        if found is None:
            if len(self._names) >= _MANY:
                self._names.clear()
            column = self._mapper.column(name, self._columns)
            found = self._names[name] = column, self._mapper.fits(column, self._columns)
        return found


def with_models(vectors: dict[str, Vector], said: Any) -> dict[str, Vector]:
    """Return vectors with the names of their models, where what was carried with them says these."""
    models = said.get("models") if isinstance(said, dict) else None
    if not isinstance(models, dict):
        return vectors
    return {n: v if v.model else msgspec.structs.replace(v, model=models.get(n)) for n, v in vectors.items()}


def carried_joins(said: Any) -> list[Relationship]:
    """Return the relationships that were carried with a record."""
    if not isinstance(said, dict) or not isinstance(said.get("relationships"), list):
        return []
    try:
        return [msgspec.convert(from_plain(one), Relationship) for one in said["relationships"]]
    except (msgspec.ValidationError, ValueError):
        return []


def _said(made: Portable) -> dict[str, Any]:
    return msgspec.structs.asdict(made)


def _vectors(made: Portable) -> dict[str, Vector]:
    return made.vectors if isinstance(made, Record) else {}


def _same(one: Any, other: Any) -> bool:
    return one.__class__ is other.__class__ and one == other


def _object(said: Any) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None when it is none."""
    if not isinstance(said, str):
        return None
    try:
        held = json.loads(said)
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


def _text(held: dict[str, Any]) -> str:
    """Return JSON text as JavaScript spells it."""
    text = json.dumps(held, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() or text.encode("utf-8", "replace").decode() == text else json.dumps(held)


def _tags(raw: Any, form: Form) -> tuple[str, ...] | None:
    if form == "comma" and isinstance(raw, str):
        return tuple(part for part in raw.split(",") if part)
    if form == "json" and isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return tuple(raw) if isinstance(raw, list) and all(isinstance(one, str) for one in raw) else None


def _vector_name(column: str, map_: TableMap) -> str:
    """Return a vector's portable name: "" for the first column, or the part of Qdrant's `vector.<name>`."""
    if column == "vector" or (map_.vectors and column == map_.vectors[0]):
        return ""
    return column.removeprefix("vector.")


def _vector_column(name: str, map_: TableMap) -> str | None:
    if not name:
        return map_.vectors[0] if map_.vectors else None
    return next((column for column in map_.vectors if column in (name, f"vector.{name}")), None)


def _id(raw: Any) -> str:
    return raw if raw.__class__ is str else raw.hex() if isinstance(raw, bytes) else str(raw)

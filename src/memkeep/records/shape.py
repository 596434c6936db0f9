"""Between a product's rows and portable records, both ways, as a `Shape` says.

A row is {column: value}: None, bool, int, float, str, bytes, lists and dicts as the database gives them, and `Vector`
for what a map calls a vector. The keys of a JSON object in a column are columns of their own, `payload.user_id`.
"""

import json
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from memkeep.model import TableMap, TimeUnit, Value
from memkeep.records import moments
from memkeep.records.plain import from_plain, to_plain
from memkeep.records.record import Portable, Record, Relationship, Vector

Row = dict[str, Any]
Form = Literal["comma", "json", "list"]
"""How a column spells tags: `a,b`, the text of a JSON list, or a list."""

CARRIED = "memkeep"
"""The key under which a free-form target keeps what it has no column for."""

_NUMBERS = ("importance", "confidence", "heat", "strength")


class Shape(Value, kw_only=True):
    """Which columns of a collection are which fields of a record, and how they spell them."""

    kind: Literal["record", "relationship", "vectors"] = "record"
    of: str = ""  # of `vectors`: the collection whose records they belong to, by the same id
    fields: dict[str, str] = {}  # field of `Record` or `Relationship` -> column; `id` is the map's own
    times: dict[str, TimeUnit] = {}
    forms: dict[str, Form] = {}
    spread: tuple[str, ...] = ()  # columns that hold the text of a JSON object: their keys are columns
    free: str | None = None  # "" or "payload.": any key under this prefix is taken by the product; None: no such
    like: str = "2026-01-02T03:04:05.678901+00:00"  # how the product spells a time as text


def of_map(map_: TableMap) -> Shape:
    """Return the shape that a map alone gives."""
    known = {field: column for field, column in map_.fields.items() if field in Record.__struct_fields__}
    return Shape(fields=known, times={field: unit for field, unit in map_.times.items() if field in known})


def decode(row: Row, map_: TableMap, shape: Shape, system: str) -> Portable:
    """Return the record, or the relationship, that a row is. Nothing of the row is lost: `encode` gives it back."""
    cells, texts = _spread(row, shape)
    taken = {map_.id}
    fields: dict[str, Any] = {}
    for field, column in shape.fields.items():
        if column in cells and column not in taken and not isinstance(cells[column], Vector):
            value = _read(field, cells[column], shape)
            if value is not None:
                fields[field] = value
                taken.add(column)
            elif cells[column] is None:
                taken.add(column)
    vectors = {_vector_name(column, map_): value for column, value in cells.items() if isinstance(value, Vector)}
    rest = {column: value for column, value in cells.items() if column not in taken and not isinstance(value, Vector)}
    carried = rest.pop(f"{shape.free}{CARRIED}", None) if shape.free is not None else None
    common: dict[str, Any] = {"collection": map_.collection, "system": system, "metadata": rest}
    made: Portable
    if shape.kind == "relationship" and {"source", "target", "type"} <= fields.keys():
        made = Relationship(id=_id(row.get(map_.id)), **fields, **common)
    else:
        made = Record(id=_id(row.get(map_.id)), vectors=vectors, primary=map_.primary, **_whole(fields), **common)
    native = {
        column: cells[column]
        for column in (*taken, *texts)
        if column in cells or column in row
        if not _same(_cell_again(made, column, map_, shape), cells.get(column))
    }
    native |= {column: text for column, text in texts.items() if _folded(cells, column) != text}
    return _with_carried(msgspec.structs.replace(made, native=native), carried)


def encode(made: Portable, map_: TableMap, shape: Shape, system: str, columns: Collection[str]) -> Row:
    """Return the row for a record in a table that has these columns; what came from this system comes back exactly.

    Columns that nothing is known for are not in it. What has no column is carried where the product takes any key.
    """
    row: Row = {map_.id: made.id}
    column: str | None
    for field, column in shape.fields.items():
        value = getattr(made, field, None)
        if column != map_.id and _fits(column, columns, shape) and value not in (None, ()):
            row[column] = _write(field, value, shape)
    if isinstance(made, Record):
        for name, vector in made.vectors.items():
            column = _vector_column(name, map_)
            if column is not None:
                row[column] = vector
    if made.system == system:
        known = {name: value for name, value in made.metadata.items() if _fits(name, columns, shape)}
        row |= known | {name: value for name, value in made.native.items() if _fits(name, columns, shape)}
    elif shape.free is not None:
        row[f"{shape.free}{CARRIED}"] = carried(made, shape)
    return _fold(row, shape)


def carried(made: Portable, shape: Shape) -> dict[str, Any]:
    """Return what a product without a field for it must carry so that the way back loses nothing; plain JSON."""
    left = {
        field: to_plain(value)
        for field, value in msgspec.structs.asdict(made).items()
        if field not in {"id", "vectors", "text", *shape.fields} and value not in (None, (), {}, "")
    }
    models = {name: one.model for name, one in made.vectors.items() if one.model} if isinstance(made, Record) else {}
    return left | ({"models": models} if models else {})


def lost(made: Portable, shape: Shape, map_: TableMap) -> list[str]:
    """Return the fields of a record that the target has no place for at all."""
    kept = {"id", "text", "collection", "primary", "system", "native", "vectors", *shape.fields}
    if shape.free is not None:
        return []
    said = msgspec.structs.asdict(made)
    gone = [field for field, value in said.items() if field not in kept and value not in (None, (), {}, "")]
    if isinstance(made, Record):
        gone += [f"vectors.{name}" if name else "vectors" for name in made.vectors if not _vector_column(name, map_)]
    return gone


def _with_carried(made: Portable, said: Any) -> Portable:
    """Put back what another product carried for this record."""
    if not isinstance(said, dict) or not isinstance(said.get("system"), str):
        return made
    known = {name: from_plain(value) for name, value in said.items() if name in type(made).__struct_fields__}
    if "tags" in known:
        known["tags"] = tuple(known["tags"])
    if isinstance(made, Record):
        models = said.get("models") or {}
        known["vectors"] = {
            name: msgspec.structs.replace(one, model=one.model or models.get(name))
            for name, one in made.vectors.items()
        }
    return msgspec.structs.replace(made, **{"native": {}, "metadata": {}} | known)


def _whole(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record, of which a text is one whatever the row has."""
    names = Record.__struct_fields__
    return {"text": ""} | {field: value for field, value in fields.items() if field in names}


def _spread(row: Row, shape: Shape) -> tuple[Row, dict[str, str]]:
    """Return the row with the keys of its JSON texts as columns, and those texts."""
    cells, texts = dict(row), dict[str, str]()
    for column in shape.spread:
        said = cells.get(column)
        try:
            held = json.loads(said) if isinstance(said, str) else None
        except (ValueError, RecursionError):
            continue
        if isinstance(held, dict):
            texts[column] = cells.pop(column)
            cells |= {f"{column}.{key}": value for key, value in held.items()}
    return cells, texts


def _fold(row: Row, shape: Shape) -> Row:
    """Undo `_spread`; a text that `native` has as it was wins."""
    for column in shape.spread:
        keys = {name for name in row if name.startswith(f"{column}.")}
        if keys and not isinstance(row.get(column), str):
            row[column] = _folded(row, column)
        row = {name: value for name, value in row.items() if name not in keys}
    return row


def _folded(cells: Row, column: str) -> str:
    """Return the JSON text of a column as JavaScript spells it."""
    held = {name.removeprefix(f"{column}."): item for name, item in cells.items() if name.startswith(f"{column}.")}
    return json.dumps(to_plain(held), ensure_ascii=False, separators=(",", ":"))


def _cell_again(made: Portable, column: str, map_: TableMap, shape: Shape) -> Any:
    if column == map_.id:
        return made.id
    field = next((field for field, name in shape.fields.items() if name == column), "")
    value = getattr(made, field, None)
    return None if value is None else _write(field, value, shape)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _read(field: str, raw: Any, shape: Shape) -> Any:
    """Return a raw value as a field's; None when it is no such thing."""
    if raw is None:
        return None
    if field in shape.times or field.endswith("_at"):
        return moments.from_raw(raw, shape.times.get(field, "auto"))
    if field == "tags":
        return _tags(raw, shape.forms.get(field, "json"))
    if field in _NUMBERS:
        return raw if isinstance(raw, int | float) and not isinstance(raw, bool) else None
    if field == "access_count":
        return raw if isinstance(raw, int) and not isinstance(raw, bool) else None
    return raw if isinstance(raw, str) else str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else None


def _write(field: str, value: Any, shape: Shape) -> Any:
    if field in shape.times or field.endswith("_at"):
        unit = shape.times.get(field, "iso")
        if unit == "iso":
            return moments.to_text(value, like=shape.like) or value
        return moments.to_number(value, "s" if unit == "auto" else unit)
    if field == "tags":
        form = shape.forms.get(field, "json")
        return ",".join(value) if form == "comma" else list(value) if form == "list" else _json_list(value)
    return value


def _json_list(tags: Collection[str]) -> str:
    return json.dumps(list(tags), ensure_ascii=False)


def _tags(raw: Any, form: Form) -> tuple[str, ...] | None:
    if form == "comma" and isinstance(raw, str):
        return tuple(part for part in raw.split(",") if part)
    if form == "json" and isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return tuple(raw) if isinstance(raw, list) and all(isinstance(one, str) for one in raw) else None


def _fits(column: str, columns: Collection[str], shape: Shape) -> bool:
    if column in columns or any(column.startswith(f"{each}.") and each in columns for each in shape.spread):
        return True
    return shape.free is not None and column.startswith(shape.free)


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
    return raw.hex() if isinstance(raw, bytes) else str(raw)

"""The JSON object that a record is in `json` and `jsonl`, and from which the cells of `csv` are made.

The names are those of Thanos's guide where it has one: `content`, `user_id`, `embedding`; `source_id`, `target_id`,
`rel_type` of a relationship. What has its default is left out, except for what everybody expects to find. The main
vector, if it is of finite float32, is `embedding`, a list of numbers; any other stands in `vectors` by its name:

    {"type": "f32" | "f64" | "multi", "model": ..., "values": [numbers, or rows of them]}
    {"type": "sparse", "model": ..., "indices": [...], "values": [...]}
    {"type": ..., "dims": ..., "model": ..., "data": "<base64>"}          what numbers would not give back

Numbers of float32 are the shortest decimals that name them, and are read as the very same float32 again.
"""

import base64
import math
from typing import Any, Literal, cast

import msgspec

from memkeep.records.formats.base import About
from memkeep.records.plain import from_plain, to_plain
from memkeep.records.record import Portable, Record, Relationship, Vector, VectorType

Wire = dict[str, Any]
Section = Literal["memories", "collections", "relationships"]
VERSION = "1.0"
MAKER = "memkeep"

RECORD_NAMES = {"text": "content", "user": "user_id"}
RELATIONSHIP_NAMES = {"source": "source_id", "target": "target_id", "type": "rel_type"}
FIRST = ("id", "content", "user_id", "metadata", "created_at", "heat")
"""What comes first of a record, as people expect it."""
FIRST_OF_RELATIONSHIP = ("source_id", "target_id", "rel_type", "strength", "metadata")


def _fields(kind: type[Portable], names: dict[str, str], first: tuple[str, ...]) -> dict[str, tuple[str, Any]]:
    """Return field -> (its name, its default), in the order in which they are written."""
    held = {one.name: (names.get(one.name, one.name), one.default) for one in msgspec.structs.fields(kind)}
    order = sorted(held, key=lambda field: first.index(held[field][0]) if held[field][0] in first else len(first))
    return {field: held[field] for field in order if field not in ("vectors", "primary")}


_RECORD = _fields(Record, RECORD_NAMES, FIRST)
_RELATIONSHIP = _fields(Relationship, RELATIONSHIP_NAMES, FIRST_OF_RELATIONSHIP)
_CUT, _MIDDLE = 0x1FFFFFFF, 0x10000000  # of a float64 the bits that a float32 has not; half of what they can be
_MARKED: frozenset[type] = frozenset({dict, list})  # what may stand for another value
_SMALLEST, _LARGEST = 2.0**-126, 2.0**127
_FIELD_OF_RECORD = {name: field for field, (name, _) in _RECORD.items()}
_FIELD_OF_RELATIONSHIP = {name: field for field, (name, _) in _RELATIONSHIP.items()}
RECORD_COLUMNS = tuple(_FIELD_OF_RECORD)
RELATIONSHIP_COLUMNS = tuple(_FIELD_OF_RELATIONSHIP)


def field_of(name: str, kind: type[Portable]) -> str:
    """Return the field of a record that has a name here."""
    return (_FIELD_OF_RECORD if kind is Record else _FIELD_OF_RELATIONSHIP)[name]


def encode(made: Portable) -> bytes:
    """Return the object of a record as one line of strict JSON, UTF-8, without its end."""
    import orjson

    wire = to_wire(made)
    try:
        return orjson.dumps(wire, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a text with lone surrogates, or an integer beyond 64 bits
        texts = (str, tuple)  # all else is plain already
        return dump({name: to_plain(value) if value.__class__ in texts else value for name, value in wire.items()})


def dump(value: Any) -> bytes:
    """Return a value, of which JSON keeps everything, as JSON: however deep it is."""
    import orjson

    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        import json

        shown = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_listed)
        return shown.encode()


def load(data: bytes) -> Any:
    """Return the value of a JSON text; raises `ValueError`."""
    import orjson

    try:
        return orjson.loads(data)
    except ValueError:
        import json

        try:
            return json.loads(data)  # deeper than orjson goes; whatever else is wrong is wrong here too
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error


def to_wire(made: Portable) -> Wire:
    """Return the object of a record; vectors are arrays of numpy. Texts may have lone surrogates: see `encode`."""
    wire: Wire = {}
    record = isinstance(made, Record)
    expected = FIRST if record else FIRST_OF_RELATIONSHIP
    for field, (name, default) in (_RECORD if record else _RELATIONSHIP).items():
        value = getattr(made, field)
        if value.__class__ is dict:
            if value or field == "metadata":
                wire[name] = to_plain(value)
        elif value != default or (name in expected and name != "user_id"):
            wire[name] = to_plain(value) if value.__class__ in (float, int) else value
    if isinstance(made, Record) and made.vectors:
        _add_vectors(wire, made.vectors)
    return wire


def from_wire(wire: Any, section: Section, vectors: dict[str, Vector] | None = None) -> Portable:
    """Return the record that an object is; raises `ValueError` or `TypeError` when it is none.

    What has a name that no field has is taken into the metadata. `vectors` are those of an object that has none itself.
    """
    if not isinstance(wire, dict):
        raise TypeError("it is not an object")
    relationship = section == "relationships"
    known = _FIELD_OF_RELATIONSHIP if relationship else _FIELD_OF_RECORD
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in wire.items():
        if (field := known.get(name)) is not None:
            if value is not None or name == "metadata":
                fields[field] = from_plain(value) if value.__class__ in _MARKED else value
        elif relationship or name not in ("embedding", "embedding_model", "vectors"):
            extra[name] = from_plain(value)
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise TypeError("its metadata are no object")
    fields["metadata"] = metadata | extra if extra else metadata
    if relationship:
        return Relationship(**fields)
    if not isinstance(fields["id"], str):
        fields["id"] = str(fields["id"])
    if not isinstance(fields.get("text", ""), str):
        raise TypeError("its content is no text")
    fields["tags"] = tuple(fields.get("tags", ()))
    fields.setdefault("text", "")
    return Record(primary=section == "memories", vectors=_vectors(wire) if vectors is None else vectors, **fields)


def provenance(about: About) -> Wire:
    """Return what is said of an export as a whole, plain, in the order in which it is written."""
    said: Wire = {"made_by": MAKER, "version": VERSION, "timestamp": about.taken}
    if about.filters.get("user") is not None:
        said["user_id"] = about.filters["user"]
    said |= {"system": about.system, "path": about.path, "snapshot": about.snapshot}
    said |= {"fingerprint": about.fingerprint, "filters": about.filters, "omitted": list(about.omitted)}
    return cast("Wire", to_plain(said))


def _add_vectors(wire: Wire, vectors: dict[str, Vector]) -> None:
    more = {}
    for name, vector in vectors.items():
        numbers = _numbers(vector)
        if name == "" and vector.type == "f32" and numbers is not None:
            wire["embedding"] = numbers["values"]
            if vector.model is not None:
                wire["embedding_model"] = vector.model  # `encode` sees to its letters, as to those of any text
            continue
        shown: Wire = {"type": vector.type} | (numbers or {"dims": vector.dims})
        if numbers is None:
            shown["data"] = base64.b64encode(vector.data).decode("ascii")
        if vector.model is not None:
            shown["model"] = to_plain(vector.model)
        more[name] = shown
    if more:
        marked = to_plain(dict.fromkeys(more))  # by its names alone: what is under them is plain
        names = more.values()
        wire["vectors"] = (
            {"$object": [[name, shown] for (name, _), shown in zip(marked["$object"], names, strict=True)]}
            if list(marked) == ["$object"]
            else more
        )


def _numbers(vector: Vector) -> Wire | None:
    """Return a vector as arrays of finite numbers; None when they would not give it back."""
    import numpy as np

    data, dims = vector.data, vector.dims
    if vector.type == "f32" and dims and len(data) == 4 * dims:
        return {"values": array} if _finite(array := np.frombuffer(data, "<f4")) else None
    if vector.type == "f64" and dims and len(data) == 8 * dims:
        return {"values": array} if _finite(array := np.frombuffer(data, "<f8")) else None
    if vector.type == "multi" and dims and data and len(data) % (4 * dims) == 0:
        array = np.frombuffer(data, "<f4")
        return {"values": array.reshape(-1, dims)} if _finite(array) else None
    if vector.type == "sparse" and dims and len(data) == 8 * dims:
        array = np.frombuffer(data, "<f4", offset=4 * dims)
        return {"indices": np.frombuffer(data, "<u4", count=dims), "values": array} if _finite(array) else None
    return None


def _finite(array: Any) -> bool:
    import numpy as np

    return bool(np.isfinite(array).all())


def _vectors(wire: Wire) -> dict[str, Vector]:
    held: dict[str, Vector] = {}
    if wire.get("embedding") is not None:
        model = wire.get("embedding_model")
        held[""] = Vector.f32(f32_of(wire["embedding"]), None if model is None else from_plain(model))
    shown = wire.get("vectors")
    if shown:
        for name, said in _named(shown):
            held[name] = _vector(said)
    return held


def _named(shown: Any) -> Any:
    """Return the vectors by name: of the object's values only the name is marked, the rest is read by `_vector`."""
    if isinstance(shown, dict) and list(shown) == ["$object"]:
        return [(from_plain(name), said) for name, said in shown["$object"]]
    return shown.items()


def _vector(said: Wire) -> Vector:
    import numpy as np

    type_ = cast("VectorType", said["type"])
    model = from_plain(said.get("model"))
    if "data" in said:
        return Vector(data=base64.b64decode(said["data"], validate=True), type=type_, dims=said["dims"], model=model)
    values = said["values"]
    if type_ == "f64":
        return Vector(data=_f64(values).tobytes(), type=type_, dims=len(values), model=model)
    if type_ == "multi":
        return Vector(data=b"".join(map(f32_of, values)), type=type_, dims=len(values[0]), model=model)
    if type_ == "sparse":
        data = np.array(said["indices"], "<u4").tobytes() + f32_of(values)
        return Vector(data=data, type=type_, dims=len(values), model=model)
    return Vector(data=f32_of(values), type=type_, dims=len(values), model=model)


def _f64(values: Any) -> Any:
    import numpy as np

    numbers = np.array(values if isinstance(values, list) else [None], "<f8")
    with np.errstate(over="ignore", invalid="ignore"):
        square = numbers.dot(numbers) if numbers.ndim == 1 else 0.0  # quicker than a look at each
    if math.isnan(square) and (not isinstance(values, list) or None in values):  # numpy takes it for NaN
        raise TypeError("its vector is no list of numbers")
    return numbers


def f32_of(values: Any) -> bytes:
    """Return the float32 that decimals name.

    They come as float64, and rounding twice may round wrong: by a value in the very middle of two float32, about one
    in 500 million. Of the two the one that is spelled so is right.
    """
    import numpy as np

    wide = _f64(values)
    if _is_plain(wide):
        return cast("bytes", wide.astype("<f4").tobytes())
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype("<f4")
        rest = wide - narrow
        if rest.any():
            other = narrow + 2 * rest
            for at in np.flatnonzero((rest != 0) & (other.astype("<f4") == other)):
                twin = np.float32(other[at])
                if float(str(twin)) == wide[at]:
                    narrow[at] = twin
    return cast("bytes", narrow.tobytes())


def _is_plain(wide: Any) -> bool:
    """Say whether all float64 are within what float32 has all bits for, and none in the very middle of two.

    There the bits that are cut off are 1000...
    """
    import numpy as np

    if not wide.size or ((wide.view("<i8") & _CUT) == _MIDDLE).any():
        return False
    sizes = np.abs(wide)
    return bool(sizes.min() >= _SMALLEST and sizes.max() < _LARGEST)


def _listed(value: Any) -> Any:
    """Spell an array for the library that knows none: its decimals are those of its own type."""
    if value.dtype in ("<f8", "<u4"):
        return value.tolist()
    return [_listed(row) for row in value] if value.ndim > 1 else [float(str(one)) for one in value]

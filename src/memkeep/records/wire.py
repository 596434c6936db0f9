"""A record as bytes, for files of this program's own: exact, compact and quick; no format to exchange.

The first byte says what follows: a record or a relationship in msgpack, or the JSON of its plain form where msgpack
can't hold a value (lone surrogates, integers beyond 64 bits).
"""

import base64
import json
from typing import Any

import msgspec

from memkeep.records.plain import from_plain, to_plain
from memkeep.records.record import Portable, Record, Relationship, Vector

_KINDS: tuple[type[Record] | type[Relationship], ...] = (Record, Relationship)
_SIZES = {"f16": 2, "f32": 4, "f64": 8, "sparse": 8}  # bytes of one element
_PLAIN = 2  # added to the kind where JSON follows
_encode = msgspec.msgpack.Encoder().encode
_vectors = msgspec.msgpack.Decoder(dict[str, Vector])
_decoders = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)


def pack(made: Portable) -> bytes:
    """Return a record as bytes."""
    kind = 0 if made.__class__ is Record else 1
    try:
        return bytes((kind,)) + _encode(made)
    except (UnicodeEncodeError, OverflowError):
        return bytes((kind + _PLAIN,)) + plain_json(made)


def unpack(data: bytes | memoryview) -> Portable:
    """Return what `pack` was given."""
    kind, body = data[0], data[1:]
    if kind < _PLAIN:
        return _decoders[kind].decode(body)
    return from_json(bytes(body), _KINDS[kind - _PLAIN])


def pack_vectors(vectors: dict[str, Vector]) -> bytes:
    """Return the vectors of a record as bytes."""
    return _encode(vectors)


def unpack_vectors(data: bytes) -> dict[str, Vector]:
    """Return what `pack_vectors` was given; none for no bytes."""
    return _vectors.decode(data) if data else {}


def plain_json(made: Portable) -> bytes:
    """Return a record as strict JSON; the bytes of vectors are base64."""
    return json.dumps(to_object(made), ensure_ascii=True, allow_nan=False).encode()


def from_json(data: bytes, kind: type[Record] | type[Relationship]) -> Portable:
    """Return the record that `plain_json` gave; raises `ValueError` for anything else."""
    return from_object(json.loads(data), kind)


def to_object(made: Portable) -> dict[str, Any]:
    """Return a record as an object that strict JSON can hold; the bytes of vectors are base64."""
    said: dict[str, Any] = to_plain(_builtins(made))
    return said


def from_object(said: Any, kind: type[Record] | type[Relationship]) -> Portable:
    """Return the record that `to_object` gave; raises `ValueError` for anything else."""
    try:
        made = msgspec.convert(from_plain(said), kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None
    for vector in made.vectors.values() if isinstance(made, Record) else ():
        check(vector)
    return made


def check(vector: Vector) -> None:
    """Raise `ValueError` for a vector whose bytes are not what its type and dimensions say."""
    size, dims = len(vector.data), vector.dims
    if dims < 0 or (size % max(1, 4 * dims) if vector.type == "multi" else size != _SIZES[vector.type] * dims):
        raise ValueError(f"a vector of {dims} dimensions ({vector.type}) has {size} bytes")


def _builtins(made: Portable) -> dict[str, Any]:
    said = {name: value for name, value in msgspec.structs.asdict(made).items() if value not in (None, (), {})}
    if isinstance(made, Record) and made.vectors:
        said["vectors"] = {
            name: {**msgspec.structs.asdict(one), "data": base64.b64encode(one.data).decode()}
            for name, one in made.vectors.items()
        }
    return said

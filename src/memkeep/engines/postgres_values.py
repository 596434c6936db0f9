"""Values of columns, from their binary form to what records hold: JSON values, and text for what JSON has not.

Numbers that JSON cannot hold exactly (`numeric`) and times are text; a type that is not known here is bytes, of which
a record holds the digest. Sources: the `..._send` functions of the server, and pgvector's.
"""

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec

Decode = Callable[[bytes], Any]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_DAY = date(2000, 1, 1)
_FOREVER = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}
_ALWAYS = {(1 << 31) - 1: "infinity", -(1 << 31): "-infinity"}
_NOT_A_NUMBER, _INFINITE, _NEGATIVE_INFINITE, _NEGATIVE = 0xC000, 0xD000, 0xF000, 0x4000
_UUID = 16
_json = msgspec.json.Decoder().decode


def decoder(kind: str, *, as_text: bool = False) -> Decode:
    """Return what reads the values of a type, by its bare name."""
    if as_text:
        return text
    if kind.startswith("_"):
        return _array
    return _DECODERS.get(kind, bytes)


def is_known(kind: str) -> bool:
    """Say whether values of a type are read here; those of others are bytes."""
    return kind in _DECODERS or kind == "bytea"


def text(data: bytes) -> Any:
    """Read text; what is no UTF-8 becomes the cell that says so."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"text": data.hex()}


def json(data: bytes) -> Any:
    """Read JSON; a text that holds numbers or escapes beyond what JSON means stays text."""
    try:
        return _json(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return text(data)


def _jsonb(data: bytes) -> Any:
    return json(data[1:])


def _uuid(data: bytes) -> Any:
    digits = data.hex()
    if len(data) != _UUID:
        return data
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _whole(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _natural(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _float(data: bytes) -> float:
    number: float = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]  # noqa: PLR2004
    return number


def _numeric(data: bytes) -> str:
    digits, weight, sign, scale = struct.unpack_from(">hhHh", data)
    if sign in {_NOT_A_NUMBER, _INFINITE, _NEGATIVE_INFINITE}:
        return {_NOT_A_NUMBER: "NaN", _INFINITE: "Infinity", _NEGATIVE_INFINITE: "-Infinity"}[sign]
    groups = struct.unpack_from(f">{digits}H", data, 8)
    whole = "".join(f"{groups[i] if i < digits else 0:04}" for i in range(weight + 1)).lstrip("0") or "0"
    after = range(weight + 1, weight + 2 + (scale + 3) // 4)
    part = "".join(f"{groups[i] if 0 <= i < digits else 0:04}" for i in after)[:scale]
    return ("-" if sign == _NEGATIVE else "") + whole + ("." + part if scale > 0 else "")


def _moment(data: bytes, zone: str) -> str:
    microseconds = _whole(data)
    if microseconds in _FOREVER:
        return _FOREVER[microseconds]
    try:
        when = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:  # a year that Python has not
        return f"{microseconds} microseconds after 2000-01-01"
    return when.replace(tzinfo=None).isoformat(sep="T") + zone


def _date(data: bytes) -> str:
    days = _whole(data)
    try:
        return _ALWAYS.get(days) or (_DAY + timedelta(days=days)).isoformat()
    except OverflowError:
        return f"{days} days after 2000-01-01"


def _time(data: bytes) -> str:
    seconds, microseconds = divmod(_whole(data[:8]), 1_000_000)
    if seconds == 86400:  # noqa: PLR2004 - Postgres has a 24:00:00
        told = "24:00:00"
    else:
        told = time(seconds // 3600, seconds // 60 % 60, seconds % 60, microseconds).isoformat()
    if len(data) == 8:  # noqa: PLR2004
        return told
    west = _whole(data[8:])
    hours, rest = divmod(abs(west), 3600)
    return f"{told}{'-' if west > 0 else '+'}{hours:02}:{rest // 60:02}"


def _interval(data: bytes) -> str:
    microseconds, days, months = struct.unpack(">qii", data)
    return f"{months} mons {days} days {microseconds} us"


def _bit(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data[4:])[: _whole(data[:4])]


def _sparse(data: bytes) -> dict[str, Any]:
    dims, count, _ = struct.unpack_from(">iii", data)
    places = struct.unpack_from(f">{count}i", data, 12)
    numbers = struct.unpack_from(f">{count}f", data, 12 + 4 * count)
    return {"dims": dims, "indices": list(places), "values": list(numbers)}


def _array(data: bytes) -> Any:
    """Read an array of one of the server's own types; `sizes` of more than one dimension nest."""
    dimensions, _, element = struct.unpack_from(">iiI", data)
    sizes = [struct.unpack_from(">ii", data, 12 + 8 * i)[0] for i in range(dimensions)]
    read = _BY_NUMBER.get(element, bytes)
    at = 12 + 8 * dimensions
    found: list[Any] = []
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        found.append(None if length < 0 else read(data[at : at + length]))
        at += max(0, length)
    for size in reversed(sizes[1:]):
        found = [found[i : i + size] for i in range(0, len(found), size)]
    return found


_DECODERS: dict[str, Decode] = {
    "bool": lambda data: data != b"\0",
    "int2": _whole,
    "int4": _whole,
    "int8": _whole,
    "oid": _natural,
    "xid": _natural,
    "xid8": _natural,
    "float4": _float,
    "float8": _float,
    "numeric": _numeric,
    "money": lambda data: str(_whole(data)),
    "text": text,
    "varchar": text,
    "bpchar": text,
    "name": text,
    "char": text,
    "xml": text,
    "citext": text,
    "unknown": text,
    "json": json,
    "jsonb": _jsonb,
    "uuid": _uuid,
    "date": _date,
    "time": _time,
    "timetz": _time,
    "timestamp": lambda data: _moment(data, ""),
    "timestamptz": lambda data: _moment(data, "+00:00"),
    "interval": _interval,
    "bit": _bit,
    "varbit": _bit,
    "sparsevec": _sparse,
}
# The server's own types have the same numbers in every database.
_BY_NUMBER: dict[int, Decode] = {
    number: _DECODERS[kind]
    for number, kind in {
        16: "bool", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid", 114: "json",
        142: "xml", 700: "float4", 701: "float8", 790: "money", 1042: "bpchar", 1043: "varchar", 1082: "date",
        1083: "time", 1114: "timestamp", 1184: "timestamptz", 1186: "interval", 1266: "timetz", 1560: "bit",
        1562: "varbit", 1700: "numeric", 2950: "uuid", 3802: "jsonb",
    }.items()
}  # fmt: skip

"""Any value of a record as strict JSON can hold it, and back, without loss.

* Bytes are {"$bytes": "<base64>"}; NaN and infinities {"$float": "nan" | "inf" | "-inf"}.
* Integers beyond 64 bits are {"$int": "<digits>"}.
* A text with lone surrogates is {"$text": "<base64 of UTF-8 with the surrogates passed>"}.
* An object with one key that begins with "$", or with a key that is no good text, is {"$object": [[key, value], ...]}.
"""

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1


def to_plain(value: Any) -> Any:
    """Return a value of which JSON keeps everything."""
    spell = _SPELL.get(value.__class__)
    return value if spell is None else spell(value)


def from_plain(value: Any) -> Any:
    """Return what `to_plain` was given; raises `ValueError` for a mark that says nonsense."""
    kind = value.__class__
    if kind is list:
        return [from_plain(item) for item in value]
    if kind is not dict:
        return value
    if len(value) == 1:
        name, said = next(iter(value.items()))
        if name in _READ:
            try:
                return _READ[name](said)
            except (TypeError, AttributeError, UnicodeDecodeError) as error:
                raise ValueError(f"{name} says {said!r}") from error
    return {key: from_plain(item) for key, item in value.items()}


def _from_text(value: str) -> Any:
    return value if value.isascii() or _is_good(value) else {"$text": _b64(value.encode("utf-8", "surrogatepass"))}


def _from_dict(value: dict[str, Any]) -> Any:
    marked = len(value) == 1 and next(iter(value))[:1] == "$"
    if marked or not all(map(_is_good, value)):
        return {"$object": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    return {key: to_plain(item) for key, item in value.items()}


def _from_list(value: Sequence[Any]) -> Any:
    return [to_plain(item) for item in value]


_SPELL: dict[type, Callable[[Any], Any]] = {
    str: _from_text,
    float: lambda value: value if math.isfinite(value) else {"$float": str(value)},
    int: lambda value: value if _LEAST <= value <= _MOST else {"$int": str(value)},
    dict: _from_dict,
    list: _from_list,
    tuple: _from_list,
    bytes: lambda value: {"$bytes": _b64(value)},
}
_READ: dict[str, Callable[[Any], Any]] = {
    "$bytes": lambda said: base64.b64decode(said, validate=True),
    "$float": float,
    "$int": int,
    "$text": lambda said: base64.b64decode(said, validate=True).decode("utf-8", "surrogatepass"),
    "$object": lambda said: {from_plain(key): from_plain(item) for key, item in said},
}


def _is_good(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

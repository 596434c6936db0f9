"""Write pickles of plain data, and of points as qdrant-client keeps them: its classes are named, never imported.

Plain data is pickled by Python itself; around it go the few opcodes that make an instance of a pydantic model, and
vectors are written at once. Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py. What is written
here `pickles` reads, and so does Python.
"""

import pickle
from typing import Any

from memkeep.engines.pickles import Floats, Record
from memkeep.engines.point_rows import is_text

_PROTOCOL = 3  # its pieces have no frames, and so may stand one after another
_PIECE = slice(2, -1)  # of a pickle: without the protocol before it and the stop behind it
_PLAIN = (int, float, bool, type(None))
_DEPTH = 200


def dumps(value: Any) -> bytes:
    """Return the pickle of plain data, `Record`s and `Floats` in lists. Raises `ValueError` for anything else."""
    return pickle.PROTO + b"\x04" + _piece(value) + pickle.STOP


def instance(name: str, attributes: dict[str, Any]) -> Record:
    """Return what an instance of a pydantic model is in a pickle; `name` is that of its class, with its module."""
    return Record(name, {"__dict__": attributes})


def _piece(value: Any) -> bytes:
    if isinstance(value, Record):
        return _instance(value)
    if isinstance(value, Floats):
        return _floats(value)
    if isinstance(value, list) and any(isinstance(one, Floats | list) for one in value):
        return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_piece, value)) + pickle.APPENDS
    if isinstance(value, dict) and any(isinstance(one, Record | list) for one in value.values()):
        return _dict({_key(key): _piece(one) for key, one in value.items()})
    return _data(value)


def _instance(record: Record) -> bytes:
    module, _, name = record.name.rpartition(".")
    attributes = record.state["__dict__"]
    made = pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    state = {
        "__dict__": _dict({_data(key): _piece(one) for key, one in attributes.items()}),
        "__pydantic_extra__": _data(None),
        "__pydantic_fields_set__": pickle.EMPTY_SET
        + pickle.MARK
        + b"".join(map(_data, sorted(attributes)))
        + pickle.ADDITEMS,
        "__pydantic_private__": _data(None),
    }
    return made + _dict({_data(key): one for key, one in state.items()}) + pickle.BUILD


def _dict(items: dict[bytes, bytes]) -> bytes:
    return pickle.EMPTY_DICT + pickle.MARK + b"".join(key + one for key, one in items.items()) + pickle.SETITEMS


def _floats(floats: Floats) -> bytes:
    """Return opcodes that push each number."""
    import numpy as np

    wide = np.ascontiguousarray(floats.values, ">f8")
    rows = np.empty((len(wide), 9), np.uint8)
    rows[:, 0] = ord("G")
    rows[:, 1:] = wide.view(np.uint8).reshape(-1, 8)
    return rows.tobytes()


def _data(value: Any) -> bytes:
    if why := _odd(value, 0):
        raise ValueError(why)
    return pickle.dumps(value, _PROTOCOL)[_PIECE]


def _key(key: Any) -> bytes:
    if type(key) is not str or not is_text(key):
        raise ValueError("it has a key that is no text")
    return _data(key)


def _odd(value: Any, depth: int) -> str:
    """Return why a value is no plain data, "" when it is; a client that reads other data opens no collection at all."""
    if type(value) in _PLAIN or depth > _DEPTH:
        return "it is nested too deeply" if depth > _DEPTH else ""
    if type(value) is str:
        return "" if is_text(value) else "it has text that is no Unicode"
    if type(value) is list:
        return next(filter(None, (_odd(one, depth + 1) for one in value)), "")
    if type(value) is dict:
        if not all(type(key) is str and is_text(key) for key in value):
            return "it has a key that is no text"
        return next(filter(None, (_odd(one, depth + 1) for one in value.values())), "")
    return f"it has {type(value).__name__}, which is no plain data"

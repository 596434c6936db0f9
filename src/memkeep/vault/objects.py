"""Reading objects that are named by their content."""

from typing import TypeVar

import msgspec

from memkeep.errors import DamagedError
from memkeep.storage.base import Stat, Storage
from memkeep.vault import format as layout

MAX_OBJECT = 1 << 28  # bytes of an object other than a pack, as stored and decompressed
T = TypeVar("T")


def read_object(storage: Storage, key: str) -> bytes:
    """Return an object as it is stored; one that is not what its name says only after a second reading.

    A disk or a line may give other bytes once: nothing may be removed, or said to be lost, because of that.
    """
    return read_hashed(storage, key)[0]


def read_hashed(storage: Storage, key: str) -> tuple[bytes, str]:
    """Return an object as `read_object` does, and the digest of what was read."""
    data = storage.get(key)
    digest = layout.digest_of(data)
    if not key.endswith(digest):
        data = storage.get(key)
        digest = layout.digest_of(data)
    return data, digest


def read_named(storage: Storage, key: str) -> bytes:
    """Return an object, checked against its name; raises `DamagedError`."""
    data = read_object(storage, key)
    layout.check_name(key, data)
    return data


def get_object(storage: Storage, stat: Stat) -> bytes:
    """Return an object that is read whole, checked against its name."""
    if stat.size > MAX_OBJECT:
        message = f"{stat.key} has {stat.size} bytes: it is not what was written"
        raise DamagedError(message, obj=stat.key)
    return read_named(storage, stat.key)


def decoded(
    decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes | memoryview, what: str, obj: str = ""
) -> T:
    """Return what a decoder gives; `DamagedError` for whatever it raises over bytes that are not of its type."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        message = f"{what} can't be read: {error}"
        raise DamagedError(message, obj=obj) from error

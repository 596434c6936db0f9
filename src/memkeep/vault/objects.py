"""Reading objects that are named by their content."""

from memkeep.storage.base import Storage
from memkeep.vault import format as layout


def read_object(storage: Storage, key: str) -> bytes:
    """Return an object as it is stored; one that is not what its name says only after a second reading.

    A disk or a line may give other bytes once: nothing may be removed, or said to be lost, because of that.
    """
    data = storage.get(key)
    return data if key.endswith(layout.digest_of(data)) else storage.get(key)


def read_named(storage: Storage, key: str) -> bytes:
    """Return an object, checked against its name; raises `DamagedError`."""
    data = read_object(storage, key)
    layout.check_name(key, data)
    return data

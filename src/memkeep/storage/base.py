"""The contract of a storage: immutable objects under keys. Storages know bytes, not vaults."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from memkeep.errors import StorageError


class ObjectMissingError(StorageError):
    """There is no object under the key."""

    code = "object_missing"


class ObjectExistsError(StorageError):
    """`put_new` found an object under the key; it was left as it is."""

    code = "object_exists"


class Stat(NamedTuple):
    """An object's key and its size in bytes."""

    key: str
    size: int


class Storage(Protocol):
    """Objects under keys such as `data/ab/abcd...`: ASCII, `/`-separated, never starting or ending with `/`.

    Retrying is the business of a wrapper, never of the caller. All methods may be called from several threads.
    Other failures raise `StorageError` with the key and the reason.
    """

    url: str
    """How a person would name this place."""

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object from buffers; return its size.

        Atomic (nobody ever sees a part of it), create-only (`ObjectExistsError`) and durable when it returns.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return a whole object; `ObjectMissingError` when there is none."""
        ...

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`, fewer only where the object ends."""
        ...

    def stat(self, key: str) -> Stat:
        """Return the key and its size; `ObjectMissingError` when there is none."""
        ...

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield all objects whose key starts with `prefix`, in any order."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; `ObjectMissingError` when there is none."""
        ...

"""The contract of a storage: immutable objects under keys. Storages know bytes, not vaults."""

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from memkeep.errors import StorageError

_KEY = re.compile(r"(?!tmp(/|$))[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}){0,15}")


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


class Holding(Protocol):
    """What a storage can do that keeps the bytes of its objects until a day, whoever deletes them.

    Every object that is put there is held for a period, which can be prolonged. Deleting one that is held hides it.
    """

    period: timedelta
    """How long an object is held from the day on that it was put."""

    def begin(self) -> None:
        """Forget what was known of the place; `StorageError` where it can't hold, as far as that can be told."""
        ...

    def hold(self, keys: Collection[str], least: datetime) -> None:
        """Hold those objects for a whole period from now that are not held until the day `least`.

        What is not there, and what must stay removable (leases), is passed over. Whoever was cut off calls it again.
        """
        ...

    def held_until(self, key: str) -> datetime | None:
        """Return until when an object is held, None when it is not, or when that can't be known."""
        ...


class Capabilities(NamedTuple):
    """What a storage can promise beyond the contract; a wrapper passes on those of the storage beneath it."""

    exclusive: bool = True
    """Of several `put_new` of one key at once exactly one succeeds. Where not, several may, and one of them stays."""

    fresh: bool = True
    """A list shows everything that was put, and nothing that was deleted, before it began, by whomever."""

    near: bool = True
    """Reading costs next to nothing, so that what was written is read back whole, and nothing is cached."""

    removes: bool = True
    """Objects may be removed. Where it is known beforehand that none may, nothing is begun that has to."""

    holding: Holding | None = None
    """Keeps objects from being removed for a while, where the settings ask for it."""


class Storage(Protocol):
    """Objects under keys such as `data/ab/abcd...`: see `check_key`.

    Retrying is the business of a wrapper, never of the caller: what is worth another try raises
    `StorageUnreachableError`. All methods may be called from several threads. Other failures raise `StorageError`
    with the key and the reason.
    """

    url: str
    """How a person would name this place."""

    folder: Path | None
    """The folder that the objects lie in as files, None when they lie elsewhere."""

    @property
    def capabilities(self) -> Capabilities:
        """What the storage can promise, as far as that is known by now."""
        ...

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
        """Yield all objects whose key starts with `prefix`, in any order. What is no object is not listed."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; `ObjectMissingError` when there is none."""
        ...


def is_key(text: str) -> bool:
    """Say whether a text can name an object.

    ASCII letters, digits, `_`, `-` and `.`, in pieces of at most 200 that are joined by `/` and do not begin with a
    dot. `tmp` is where a storage may keep what is not yet an object.
    """
    return _KEY.fullmatch(text) is not None


def check_key(text: str) -> None:
    """Raise `StorageError` unless a text can name an object: so no key ever leaves the storage's own place."""
    if not is_key(text):
        message = f"{text!r} is not a key"
        raise StorageError(message)

"""A storage in front of another that passes everything on: what a wrapper does not change, it inherits."""

from collections.abc import Iterable, Iterator

from memkeep.storage.base import Capabilities, Stat, Storage


class StorageWrapper:
    """Passes every call on to the storage beneath."""

    def __init__(self, beneath: Storage) -> None:
        self._beneath = beneath
        self.url = beneath.url
        self.folder = beneath.folder

    @property
    def capabilities(self) -> Capabilities:
        """What the storage beneath can promise."""
        return self._beneath.capabilities

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object."""
        return self._beneath.put_new(key, data)

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        return self._beneath.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object."""
        return self._beneath.get_range(key, offset, length)

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        return self._beneath.stat(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield objects by prefix."""
        return self._beneath.list(prefix)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._beneath.delete(key)

"""A storage from which nothing is removed."""

import shlex
from collections.abc import Iterable, Iterator

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, Stat, Storage


class AppendOnlyStorage:
    """Refuses `delete`: with `put_new`, which never replaces, nothing that is there can be changed.

    This keeps memkeep itself from it. Against who takes over the machine only the storage's own rules help:
    credentials without the right to delete, and Object Lock.
    """

    def __init__(self, beneath: Storage) -> None:
        self._beneath = beneath
        self.url = beneath.url
        self.folder = beneath.folder

    @property
    def capabilities(self) -> Capabilities:
        """What the storage beneath can promise, save that nothing is removed."""
        return self._beneath.capabilities._replace(removes=False)

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
        """Refuse, with code `append_only`; `ObjectMissingError` when there is nothing to remove."""
        self._beneath.stat(key)
        raise StorageError(
            f"{key} is not removed from {self.url}: this machine's settings say append_only for it",
            hint=f"memkeep prune --vault {shlex.quote(self.url)}   # on a machine whose settings let it delete",
            code="append_only",
        )

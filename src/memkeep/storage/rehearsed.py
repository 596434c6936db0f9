"""A storage that shows what is in another and keeps nothing: to try what a command would do there."""

import threading
from collections.abc import Iterable, Iterator

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Stat, Storage, check_key
from memkeep.storage.memory import MemoryStorage

KEPT = 1 << 20  # bytes of an object that is remembered, since it may be read again; of a longer one only the size is


class RehearsedStorage:
    """Reads through; what is put is counted, and dropped unless it is small; what is deleted is only hidden.

    With `kept` what is put is put there, whole, and can be read again. `put_bytes` is the sum of all sizes.
    """

    def __init__(self, beneath: Storage, kept: Storage | None = None) -> None:
        self.beneath = beneath
        self.url = beneath.url
        self.folder = beneath.folder
        self.put_bytes = 0
        self._kept: Storage = kept or MemoryStorage()
        self._keeps_all = kept is not None
        self._sizes: dict[str, int] = {}
        self._hidden: set[str] = set()
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """Return what the storage beneath promises, save that nothing is held: it is not put there."""
        return self.beneath.capabilities._replace(holding=None)

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Count an object."""
        check_key(key)
        if key in self._sizes or self._lies_beneath(key):
            message = f"{key} is there already"
            raise ObjectExistsError(message)
        size = self._kept.put_new(key, data) if self._keeps_all else self._put_small(key, data)
        with self._lock:
            self._sizes[key] = size
            self.put_bytes += size
        return size

    def get(self, key: str) -> bytes:
        """Return an object."""
        return self._holder(key).get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object."""
        return self._holder(key).get_range(key, offset, length)

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        return Stat(key, self._sizes[key]) if key in self._sizes else self._holder(key).stat(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield what is beneath, and what would be."""
        yield from (stat for stat in self.beneath.list(prefix) if stat.key not in self._hidden)
        with self._lock:
            put = [Stat(key, size) for key, size in self._sizes.items() if key.startswith(prefix)]
        yield from put

    def delete(self, key: str) -> None:
        """Forget an object that was put in the rehearsal, or hide one that is beneath."""
        if key not in self._sizes:
            self.stat(key)
            with self._lock:
                self._hidden.add(key)
            return
        with self._lock:
            del self._sizes[key]
        try:
            self._kept.delete(key)
        except ObjectMissingError:
            return  # it was not small

    def _put_small(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        size, pieces = 0, []
        for piece in data:
            size += len(piece)
            if size <= KEPT:
                pieces.append(bytes(piece))
        if size <= KEPT:
            self._kept.put_new(key, pieces)
        return size

    def _lies_beneath(self, key: str) -> bool:
        if key in self._hidden:
            return False
        try:
            self.beneath.stat(key)
        except ObjectMissingError:
            return False
        return True

    def _holder(self, key: str) -> Storage:
        """Return where an object is to be read."""
        if key in self._hidden and key not in self._sizes:
            message = f"there is no {key} in the vault"
            raise ObjectMissingError(message)
        if key not in self._sizes:
            return self.beneath
        if self._keeps_all or self._sizes[key] <= KEPT:
            return self._kept
        message = f"{key} was not kept in a rehearsal"
        raise StorageError(message)

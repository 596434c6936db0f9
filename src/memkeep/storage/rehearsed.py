"""A storage that shows what is in another and keeps nothing: to try what a command would write there."""

import threading
from collections.abc import Iterable, Iterator

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Stat, Storage, check_key

KEPT = 1 << 20  # bytes of an object that is remembered, since it may be read again; of a longer one only the size is


class RehearsedStorage:
    """Reads through; what is put is counted, and dropped unless it is small. `put_bytes` is the sum of all sizes."""

    def __init__(self, beneath: Storage) -> None:
        self.beneath = beneath
        self.url = beneath.url
        self.folder = beneath.folder
        self.put_bytes = 0
        self._sizes: dict[str, int] = {}
        self._small: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """Return what the storage beneath promises."""
        return self.beneath.capabilities

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Count an object."""
        check_key(key)
        if key in self._sizes or self._lies_beneath(key):
            message = f"{key} is there already"
            raise ObjectExistsError(message)
        size, pieces = 0, []
        for piece in data:
            size += len(piece)
            if size <= KEPT:
                pieces.append(bytes(piece))
        with self._lock:
            self._sizes[key] = size
            self.put_bytes += size
            if size <= KEPT:
                self._small[key] = b"".join(pieces)
        return size

    def get(self, key: str) -> bytes:
        """Return an object."""
        return self._kept(key) if key in self._sizes else self.beneath.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object."""
        if key in self._sizes:
            return self._kept(key)[offset : offset + length]
        return self.beneath.get_range(key, offset, length)

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        return Stat(key, self._sizes[key]) if key in self._sizes else self.beneath.stat(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield what is beneath, and what would be."""
        yield from self.beneath.list(prefix)
        with self._lock:
            put = [Stat(key, size) for key, size in self._sizes.items() if key.startswith(prefix)]
        yield from put

    def delete(self, key: str) -> None:
        """Forget an object that was put in the rehearsal; what is beneath is never removed."""
        if key in self._sizes:
            with self._lock:
                del self._sizes[key]
                self._small.pop(key, None)
            return
        message = f"{key} is not removed in a rehearsal"
        raise StorageError(message)

    def _lies_beneath(self, key: str) -> bool:
        try:
            self.beneath.stat(key)
        except ObjectMissingError:
            return False
        return True

    def _kept(self, key: str) -> bytes:
        if key not in self._small:
            message = f"{key} was not kept in a rehearsal"
            raise StorageError(message)
        return self._small[key]

"""A dictionary as storage, for tests and for trying things."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Stat, check_key


class MemoryStorage:
    """Objects in memory; gone with the process."""

    url = "memory:"
    folder: Path | None = None
    capabilities = Capabilities()

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object."""
        check_key(key)
        whole = b"".join(data)
        with self._lock:
            if key in self.objects:
                message = f"{key} is there already"
                raise ObjectExistsError(message)
            self.objects[key] = whole
        return len(whole)

    def get(self, key: str) -> bytes:
        """Return an object."""
        check_key(key)
        with self._lock:
            return self._existing(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object."""
        return self.get(key)[offset : offset + length]

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        return Stat(key, len(self.get(key)))

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield objects by prefix."""
        with self._lock:
            found = [Stat(key, len(data)) for key, data in self.objects.items() if key.startswith(prefix)]
        yield from found

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        with self._lock:
            self._existing(key)
            del self.objects[key]

    def _existing(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            message = f"there is no {key} in the vault"
            raise ObjectMissingError(message) from None

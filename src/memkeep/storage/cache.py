"""A storage whose objects are kept in a folder of this machine, so that what was written or read isn't fetched again.

Only objects whose name ends in the SHA-256 of their bytes are kept, as they are stored (so encrypted, where the vault
is). A kept file is used only when it hashes to its name: whatever happens to the folder costs time, never an answer.
"""

import hashlib
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, ObjectMissingError, Stat, Storage
from memkeep.storage.local import LocalStorage

PACKS = "data/"
LARGE = 1 << 20  # bytes of one range that are worth fetching its whole pack,
ENOUGH = 4 << 20  # or of several ranges together: a quarter of a full pack
REQUEST = 1 << 18  # bytes that cost as much as asking does
RESERVE = 1 << 28  # bytes that stay free on the disk of the folder
_NAMED = re.compile(r"(?:(?:keys|index|snapshots)/|seals/\d+-|data/[0-9a-f]{2}/)[0-9a-f]{64}")


def origin(storage: Storage) -> Storage:
    """Return a storage as it is, whatever is kept of it here: for what proves it."""
    return storage.beneath if isinstance(storage, CachedStorage) else storage


class CachedStorage:
    """Answers from `folder` what never changes; asks the storage beneath for what there is (`list`, `stat`).

    Packs together are kept under `limit` bytes: those that went longest without use go first. Everything else is
    small, and goes when a listing no longer shows it. The folder may be deleted at any moment, and used by several
    processes; where it can't be written, nothing is kept. An object that is kept is returned even when it has gone
    from the storage since: who wants to know must ask `stat` or `list`, or the storage itself.
    """

    def __init__(self, beneath: Storage, folder: Path, limit: int) -> None:
        self.beneath = beneath
        self._files = LocalStorage(folder)
        self._root = folder
        self._limit = limit
        self.url = beneath.url
        self.folder = beneath.folder
        self._asked: Counter[str] = Counter()  # bytes that were asked of packs that are not here
        self._apart: set[str] = set()  # packs that can't be kept: fetched in ranges for good
        self._hashed: dict[str, tuple[tuple[int, int], bool]] = {}  # packs here: which file it was, whether it is good
        self._size: int | None = None  # bytes of packs, when known
        self._lock = threading.Lock()
        self._turns = tuple(threading.RLock() for _ in range(16))  # to fetch or hash one pack once, by its key

    @property
    def capabilities(self) -> Capabilities:
        """What the storage beneath can promise."""
        return self.beneath.capabilities

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object, and keep it."""
        if _NAMED.fullmatch(key) is None:
            return self.beneath.put_new(key, data)
        buffers = data if isinstance(data, list | tuple) else [bytes(one) for one in data]
        size = self.beneath.put_new(key, buffers)
        self._keep(key, buffers)
        return size

    def get(self, key: str) -> bytes:
        """Return a whole object, from here if it is here."""
        if _NAMED.fullmatch(key) is None:
            return self.beneath.get(key)
        with suppress(StorageError):
            data = self._files.get(key)
            if hashlib.sha256(data).hexdigest() == key[-64:]:
                self._use(key)
                return data
            self._drop(key)
        return self._fetch(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object; a pack of which much is wanted is fetched whole, and kept."""
        if _NAMED.fullmatch(key) is None or not key.startswith(PACKS):
            return self.beneath.get_range(key, offset, length)
        piece = self._piece(key, offset, length)
        if piece is not None:
            return piece
        with self._lock:
            self._asked[key] += max(length, REQUEST)
            much = length >= LARGE or self._asked[key] >= ENOUGH
        if not much or key in self._apart:
            return self.beneath.get_range(key, offset, length)
        with self._turn(key):
            piece = self._piece(key, offset, length)  # another thread may have fetched it meanwhile
            self._asked.pop(key, None)  # when it goes again, it is not fetched again for a little
            return piece if piece is not None else self._fetch(key)[offset : offset + length]

    def stat(self, key: str) -> Stat:
        """Ask the storage how large an object is."""
        try:
            return self.beneath.stat(key)
        except ObjectMissingError:
            self._drop(key)
            raise

    def list(self, prefix: str) -> Iterator[Stat]:
        """Ask the storage for objects by prefix; what it does not name any more is not kept."""
        seen = set()
        for stat in self.beneath.list(prefix):
            seen.add(stat.key)
            yield stat
        fresh = self.capabilities.fresh
        with suppress(StorageError):
            for stat in self._files.list(prefix):
                # What a listing does not show yet is easily fetched again, unless it is large.
                if stat.key not in seen and (fresh or not stat.key.startswith(PACKS)):
                    self._drop(stat.key)

    def delete(self, key: str) -> None:
        """Remove an object, here too."""
        self._drop(key)
        self.beneath.delete(key)

    # -- what is kept -------------------------------------------------------------------------------------------

    def _fetch(self, key: str) -> bytes:
        try:
            data = self.beneath.get(key)
        except ObjectMissingError:
            self._drop(key)
            raise
        self._keep(key, [data])
        return data

    def _keep(self, key: str, buffers: Sequence[bytes | memoryview]) -> None:
        """Write an object into the folder, if there is room and it is what its name says."""
        hasher = hashlib.sha256()
        for buffer in buffers:
            hasher.update(buffer)
        size = sum(map(len, buffers))
        pack = key.startswith(PACKS)
        if hasher.hexdigest() == key[-64:] and (not pack or (size <= self._limit and self._has_room(size))):
            # Full, denied, deleted meanwhile, or written by another process: then it is not kept by this one.
            with suppress(StorageError):
                self._files.put_new(key, buffers)
                if pack:
                    self._make_room(size)
                return
        self._apart.add(key)

    def _drop(self, key: str) -> None:
        if _NAMED.fullmatch(key) is not None:
            with suppress(StorageError):
                self._files.delete(key)
                with self._lock:
                    self._size = None

    def _piece(self, key: str, offset: int, length: int) -> bytes | None:
        """Return a piece of a pack that is here and good."""
        try:
            with (self._root / key).open("rb") as file:
                found = os.fstat(file.fileno())
                which = (found.st_ino, found.st_size)
                with self._turn(key):
                    known = self._hashed.get(key)
                    if known is None or known[0] != which:
                        good = hashlib.file_digest(file, "sha256").hexdigest() == key[-64:]
                        self._hashed[key] = known = (which, good)
                        if good:
                            self._use(key)
                        else:
                            self._drop(key)
                if not known[1]:
                    return None
                file.seek(offset)
                piece = file.read(length)
                return piece if len(piece) == max(0, min(length, found.st_size - offset)) else None
        except OSError:
            return None

    def _use(self, key: str) -> None:
        """Note that a pack was used: by the time of its file, which all processes see."""
        if key.startswith(PACKS):
            with suppress(OSError):
                os.utime(self._root / key)

    def _has_room(self, size: int) -> bool:
        """Say whether the disk has room: a cache must not be what fills it up."""
        try:
            disk = os.statvfs(self._root)
        except OSError:
            return True  # it is not there yet
        return disk.f_bavail * disk.f_frsize >= size + RESERVE

    def _make_room(self, size: int) -> None:
        """Remove the packs that were not used for longest, when there are more than the limit allows."""
        with self._lock:
            if self._size is not None and self._size + size <= self._limit:
                self._size += size
                return
            packs = []
            for stat in self._files.list(PACKS):
                with suppress(OSError):
                    packs.append(((self._root / stat.key).stat().st_mtime_ns, stat))
            total = sum(stat.size for _, stat in packs)
            for _, stat in sorted(packs):
                if total <= self._limit:
                    break
                with suppress(StorageError):  # another process may have
                    self._files.delete(stat.key)
                total -= stat.size
            self._size = total

    def _turn(self, key: str) -> threading.RLock:
        return self._turns[hash(key) % len(self._turns)]

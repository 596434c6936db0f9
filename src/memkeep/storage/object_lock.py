"""A storage whose bytes nobody can remove for a while: Object Lock, set and prolonged by memkeep itself."""

import threading
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import repeat
from typing import Literal, NamedTuple, Protocol

from memkeep import clock
from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Storage
from memkeep.storage.holds import Holds
from memkeep.storage.wrapper import StorageWrapper

Mode = Literal["GOVERNANCE", "COMPLIANCE"]
AT_ONCE = 8  # requests


class Retention(NamedTuple):
    """How an object is held, and until when."""

    mode: Mode
    until: datetime


class Locks(Protocol):
    """Where the retention of objects is asked for and set. Errors are those of a storage."""

    def check(self) -> None:
        """Raise `StorageError` (`object_lock_missing`) where objects can't be held."""
        ...

    def get(self, key: str) -> Retention | None:
        """Return the retention of an object: None for none, and when this user may not know it."""
        ...

    def set(self, key: str, retention: Retention) -> None:
        """Set the retention of an object; `storage_denied` for one that is weaker than what it has."""
        ...


class LockingStorage(StorageWrapper):
    """Holds each object for `period` from when it was put; what begins with one of the prefixes `free` is not held.

    An object is put first and held then, so that a crash in between leaves one that is not: `hold` finds and mends
    that, and so does a repeated `put_new`. A bucket with Object Lock has versions: what is deleted is hidden under a
    marker, and its bytes are there until its day.
    """

    def __init__(
        self, beneath: Storage, locks: Locks, holds: Holds, *, period: timedelta, mode: Mode, free: tuple[str, ...]
    ) -> None:
        super().__init__(beneath)
        self._locks = locks
        self._holds = holds
        self._mode: Mode = mode
        self._free = free
        self._checked = False
        self._lock = threading.Lock()
        self.period = period

    @property
    def capabilities(self) -> Capabilities:
        """What the storage beneath can promise, and that this one holds."""
        return self._beneath.capabilities._replace(holding=self)

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object and hold it."""
        self._check()
        if key.startswith(self._free):
            return self._beneath.put_new(key, data)
        try:
            size = self._beneath.put_new(key, data)
        except ObjectExistsError:
            # It may be one's own, of a put whose answer was lost, or of a run that was cut off before it was held.
            self._hold(key, clock.now())
            raise
        self._retain(key)
        return size

    # -- Holding ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ask whether the place can hold objects, whatever an earlier vault there left known here."""
        self._holds.clear()
        self._check()

    def hold(self, keys: Collection[str], least: datetime) -> None:
        """Prolong what is not held for long enough, several at a time; ask only for what is not known here."""
        self._check()
        known = self._holds.known()
        due = [key for key in keys if key not in known or known[key] < least]
        due = [key for key in due if not key.startswith(self._free)]
        if due:
            with ThreadPoolExecutor(AT_ONCE, "memkeep-hold") as pool:
                for _ in pool.map(self._hold, due, repeat(least)):
                    pass

    def held_until(self, key: str) -> datetime | None:
        """Return until when an object is held; ask where it is not known here to be held now."""
        if key.startswith(self._free):
            return None
        until = self._holds.known().get(key)
        if until is not None and until > clock.now():
            return until
        found = self._locks.get(key)
        return found.until if found is not None else None

    def _check(self) -> None:
        """Ask once whether the place can hold objects; where some are held it can."""
        with self._lock:
            if not self._checked and not self._holds.known():
                self._locks.check()
            self._checked = True

    def _hold(self, key: str, least: datetime) -> None:
        try:
            if key not in self._holds.known():
                found = self._locks.get(key)
                if found is not None and found.until >= least and self._is_as_strong(found):
                    self._holds.note(key, found.until)
                    return
            self._retain(key)
        except ObjectMissingError:
            return

    def _retain(self, key: str) -> None:
        until = (clock.now() + self.period).replace(microsecond=0)
        try:
            self._locks.set(key, Retention(self._mode, until))
        except StorageError as error:
            # A retention can't be made shorter or weaker: so where the bucket's default, or another machine, has set
            # a longer or stricter one, that one stays, and is prolonged as what it is.
            found = self._locks.get(key) if error.code == "storage_denied" else None
            if found is None or not self._is_as_strong(found):
                raise
            if found.until < until:
                if found.mode == self._mode:
                    raise
                self._locks.set(key, Retention(found.mode, until))
            until = max(until, found.until)
        self._holds.note(key, until)

    def _is_as_strong(self, found: Retention) -> bool:
        return found.mode in {self._mode, "COMPLIANCE"}

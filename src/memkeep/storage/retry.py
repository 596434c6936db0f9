"""A storage that asks again when what lies beneath did not answer."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from memkeep import clock
from memkeep.errors import StorageError, StorageUnreachableError
from memkeep.storage.base import Capabilities, Holding, ObjectExistsError, ObjectMissingError, Stat, Storage

TRIES = 7  # of one request, at most
TOTAL = 120.0  # seconds after its first failure in which a try may begin
FIRST_TRIES = 4  # of a request before any was answered: who mistyped a host, or is off line, wants to know it soon;
FIRST_TOTAL = 5.0  # seconds in which those may begin
FIRST_WAIT = 0.5  # seconds, at most, before the second try; doubled for each one after it,
LONGEST_WAIT = 16.0  # up to this
COMPARED = 1 << 20  # bytes of an object that may be fetched to see whether it is one's own
_UNKNOWN = "Earlier snapshots are whole; whether this last step was done is not known."

T = TypeVar("T")


def silent(_: str) -> None:
    """Tell nobody."""


class RetryingStorage:
    """Repeats what raised `StorageUnreachableError`, with growing pauses; what else is raised is the answer.

    A request that was tried before may have been done although its answer was lost. So a repeated `put_new` that
    finds an object of the same size and bytes (beyond 1 MiB: of the same size and end) was its own, and a repeated
    `delete` that finds nothing was done. Who needs to know which of two writers came first must write what differs.
    `chance` gives numbers from 0 to 1, by which the pauses of several machines differ. `tell` hears of each pause.
    """

    def __init__(self, beneath: Storage, chance: Callable[[], float], tell: Callable[[str], None] = silent) -> None:
        self._beneath = beneath
        self._chance = chance
        self.tell = tell
        self.answered = False  # something, ever
        self.url = beneath.url
        self.folder = beneath.folder

    @property
    def capabilities(self) -> Capabilities:
        """What the storage beneath can promise."""
        found = self._beneath.capabilities
        if found.holding is None:
            return found
        return found._replace(holding=_RetryingHolding(found.holding, self))

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object; its buffers are kept until it is there."""
        # What an iterator has given is gone, and a view may be of a buffer that is filled anew.
        buffers = data if isinstance(data, list | tuple) else [bytes(one) for one in data]

        def put(tries: int) -> int:
            try:
                return self._beneath.put_new(key, buffers)
            except ObjectExistsError:
                if tries and self._is(key, buffers):
                    return sum(map(len, buffers))
                raise

        return self.until_answered(put, unchanged=_UNKNOWN)

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        return self.until_answered(lambda _: self._beneath.get(key))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object."""
        return self.until_answered(lambda _: self._beneath.get_range(key, offset, length))

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        return self.until_answered(lambda _: self._beneath.stat(key))

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield objects by prefix; a listing that broke off starts over, and leaves out what was yielded."""
        seen: set[str] = set()
        tries = _Tries(self)
        while True:
            try:
                for stat in self._beneath.list(prefix):
                    self.answered = True
                    if stat.key not in seen:
                        seen.add(stat.key)
                        yield stat
            except StorageUnreachableError as error:
                tries.failed(error)
            else:
                self.answered = True
                return

    def delete(self, key: str) -> None:
        """Remove an object."""

        def delete(tries: int) -> None:
            try:
                self._beneath.delete(key)
            except ObjectMissingError:
                if not tries:
                    raise

        self.until_answered(delete, unchanged=_UNKNOWN)

    def pause_before(self, tries: int) -> float:
        """Return the seconds to wait after so many failures."""
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - 1)) * (0.5 + 0.5 * self._chance())

    def until_answered(self, ask: Callable[[int], T], unchanged: str = "") -> T:
        """Return what `ask` returns; it is given the number of tries before."""
        tries = _Tries(self, unchanged)
        while True:
            try:
                given = ask(tries.number)
            except StorageUnreachableError as error:
                tries.failed(error)
            except StorageError:
                self.answered = True
                raise
            else:
                self.answered = True
                return given

    def _is(self, key: str, buffers: Sequence[bytes | memoryview]) -> bool:
        """Say whether the object under a key has just these bytes."""
        whole = b"".join(buffers)
        try:
            if self._beneath.stat(key).size != len(whole):
                return False
            start = max(0, len(whole) - COMPARED)
            return self._beneath.get_range(key, start, COMPARED) == whole[start:]
        except ObjectMissingError:
            return False


class _RetryingHolding:
    """Repeats what holds objects: each call may be made again whatever became of it."""

    def __init__(self, beneath: Holding, storage: RetryingStorage) -> None:
        self._beneath = beneath
        self._storage = storage
        self.period = beneath.period

    def begin(self) -> None:
        self._storage.until_answered(lambda _: self._beneath.begin())

    def hold(self, keys: Collection[str], least: datetime) -> None:
        self._storage.until_answered(lambda _: self._beneath.hold(keys, least))

    def held_until(self, key: str) -> datetime | None:
        return self._storage.until_answered(lambda _: self._beneath.held_until(key))


class _Tries:
    """The failures of one request."""

    def __init__(self, storage: RetryingStorage, unchanged: str = "") -> None:
        self._storage = storage
        self._unchanged = unchanged
        self._began = 0.0
        self.number = 0

    def failed(self, error: StorageUnreachableError) -> None:
        """Wait before the next try; raise the error, saying how often it was tried, when there shall be none."""
        now = clock.monotonic()
        if not self.number:
            self._began = now
        self.number += 1
        wait = self._storage.pause_before(self.number)
        most, total = (TRIES, TOTAL) if self._storage.answered else (FIRST_TRIES, FIRST_TOTAL)
        if self.number < most and now + wait - self._began <= total:
            self._storage.tell(f"{error.message}; trying again ({self.number + 1} of {most})")
            clock.pause(wait)
            return
        times = f"{self.number} times in {now - self._began:.0f} s" if self.number > 1 else "once"
        raise StorageUnreachableError(
            f"{error.message} (tried {times})",
            unchanged=self._unchanged or error.unchanged,
            hint=error.hint or "memkeep status",
            code=error.code,
        ) from error

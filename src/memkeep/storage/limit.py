"""A storage that is given and asked for no more than so many bytes a second."""

import threading
from collections.abc import Iterable, Iterator

from memkeep import clock
from memkeep.storage.base import Storage
from memkeep.storage.wrapper import StorageWrapper

PIECE = 1 << 16  # bytes sent at once
FETCHED = 1 << 20  # bytes asked for at once, or a second's worth where that is more
CREDIT = 0.1  # seconds for which what was not used can be caught up


class LimitedStorage(StorageWrapper):
    """Holds the bytes of all threads together under a rate each way (bytes a second; None: no limit).

    Uploads are held back piece by piece. That is even for a storage that sends buffers as it is given them (a folder,
    SFTP); one that gathers an object before it sends it (S3 and its kin) waits as long and then sends it in one go.
    Downloads are asked for in ranges of 1 MiB, or of a second's worth, each of which may come in one go. Over more
    than one object the average is kept everywhere. What goes along with requests and listings is not counted.
    """

    def __init__(self, beneath: Storage, *, up: int | None, down: int | None) -> None:
        super().__init__(beneath)
        self._up = _Bucket(up) if up else None
        self._down = _Bucket(down) if down else None

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object, at the rate at which its buffers are let through."""
        return self._beneath.put_new(key, data if self._up is None else _paced(self._up, data))

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        return self._beneath.get(key) if self._down is None else self._fetch(self._down, key, 0, None)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object."""
        if self._down is None:
            return self._beneath.get_range(key, offset, length)
        return self._fetch(self._down, key, offset, length)

    def _fetch(self, bucket: "_Bucket", key: str, offset: int, length: int | None) -> bytes:
        """Return a range, or all from `offset`. Objects never change, so that it may be put together from several."""
        most = max(FETCHED, bucket.rate)
        pieces: list[bytes] = []
        got = 0
        while True:
            wanted = most if length is None else min(most, length - got)
            piece = self._beneath.get_range(key, offset + got, wanted)
            bucket.take(len(piece))
            pieces.append(piece)
            got += len(piece)
            if len(piece) < wanted or got == length:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Bucket:
    """Bytes that may pass; each taker waits until all taken before it, and its own, have had their time."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._paid = clock.monotonic()  # until when all bytes so far have been accounted for
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until so many bytes may have passed."""
        with self._lock:
            now = clock.monotonic()
            self._paid = max(self._paid, now - CREDIT) + size / self.rate
            wait = self._paid - now
        if wait > 0:
            clock.pause(wait)


def _paced(bucket: _Bucket, data: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    for buffer in data:
        view = memoryview(buffer).cast("B")
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            bucket.take(len(piece))
            yield piece

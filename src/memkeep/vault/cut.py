"""Cutting streams: into chunks of one size, or at the boundaries of vectors."""

from collections.abc import Iterable, Iterator

from blake3 import blake3


def cut(buffers: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of `size` bytes; buffers that are whole multiples are not copied twice."""
    rest = b""
    for buffer in buffers:
        data = rest + buffer if rest else buffer
        whole = len(data) - len(data) % size
        for at in range(0, whole, size):
            yield data[at : at + size]
        rest = data[whole:]
    if rest:
        yield rest


class Source:
    """A stream to take exact amounts from, hashing all that passes."""

    def __init__(self, buffers: Iterable[bytes]) -> None:
        self._buffers = iter(buffers)
        self._buffer = b""
        self._used = 0
        self._hasher = blake3()
        self.at = 0

    def take(self, amount: int | None, piece: int) -> Iterator[bytes]:
        """Yield the next `amount` bytes (None: all) in pieces of `piece` bytes, the last perhaps shorter."""
        while amount is None or amount > 0:
            raw = self._read(piece if amount is None else min(piece, amount))
            if not raw:
                return
            if amount is not None:
                amount -= len(raw)
            yield raw

    def digest(self) -> bytes:
        """Return the digest of all that was taken."""
        return self._hasher.digest()

    def _read(self, amount: int) -> bytes:
        raw = self._buffer[self._used : self._used + amount]
        self._used += len(raw)
        while len(raw) < amount:
            buffer = next(self._buffers, None)
            if buffer is None:
                break
            self._hasher.update(buffer)
            self._buffer = buffer
            self._used = min(amount - len(raw), len(buffer))
            raw += buffer[: self._used]
        self.at += len(raw)
        return raw


class Pieces:
    """A recipe being written; pieces that follow each other in one chunk become one.

    Fresh bytes are gathered into a chunk whose id is not known before it is full: `settle` fills it in.
    """

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.starts: list[int] = []
        self.lengths: list[int] = []
        self._waiting: list[int] = []
        self._fresh = 0

    def add(self, one: bytes, start: int, length: int) -> None:
        """Add bytes of a chunk."""
        if self.ids and self.ids[-1] == one and self.starts[-1] + self.lengths[-1] == start:
            self.lengths[-1] += length
        else:
            self.ids.append(one)
            self.starts.append(start)
            self.lengths.append(length)

    def add_fresh(self, length: int) -> None:
        """Add the next bytes of the chunk that is being gathered."""
        before = len(self.ids)
        self.add(b"", self._fresh, length)
        self._fresh += length
        self._waiting += range(before, len(self.ids))

    def settle(self, one: bytes) -> None:
        """Say which chunk the fresh bytes have become."""
        for position in self._waiting:
            self.ids[position] = one
        self._waiting.clear()
        self._fresh = 0

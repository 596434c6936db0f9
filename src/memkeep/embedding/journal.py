"""Vectors that were paid for and are not yet where they belong: a file that a killed run leaves to the next one.

A line of JSON says the number of dimensions, then come records of one size: 16 bytes that name text and model, the
float32 of the vector, 8 bytes of the BLAKE3 of both. A torn end is cut off.
"""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from memkeep.errors import RefusedError, StorageError, quoted

if TYPE_CHECKING:
    import numpy as np

KEY = 16  # bytes
_SUM = 8


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    memkeep: str  # what the file is
    dims: int


class Journal:
    """The vectors of one store and one model. Only one process has it; its methods are called from one thread."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it; raises `RefusedError` while another process has it."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._meant(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise RefusedError(
                "another `memkeep embed` is at work on this store",
                hint="ps -C memkeep   # wait for it",
                code="already_running",
            ) from None
        self.dims: int | None = None  # of the vectors in it
        self._start = 0  # of the first record
        self._count = 0
        self._index: tuple[Any, Any] | None = None
        self._recover()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._count:
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def __len__(self) -> int:
        return self._count

    def keys(self) -> set[bytes]:
        """Return the names of all vectors in it."""
        if not self._count:
            return set()
        return {key.ljust(KEY, b"\0") for key in self._records()["key"].tolist()}

    def add(self, keys: "list[bytes]", vectors: "np.ndarray[Any, np.dtype[np.float32]]") -> None:
        """Keep some vectors; they are on disk when this returns."""
        from blake3 import blake3

        data, at = bytearray(), self._start + self._count * self._size
        if self.dims is None:
            self.dims = int(vectors.shape[1])
            data += msgspec.json.encode(_Head(memkeep="embed/1", dims=self.dims)) + b"\n"
            self._start, at = len(data), 0
        for key, row in zip(keys, vectors, strict=True):
            record = key + row.astype("<f4", copy=False).tobytes()
            data += record + blake3(record).digest(_SUM)
        try:
            _write(self._file, data, at)
            os.fsync(self._file)
        except OSError as error:
            raise self._meant(error) from error
        self._count += len(keys)
        self._index = None

    def find(self, keys: "list[bytes]") -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the vectors of these names, which must be in it, in their order."""
        import numpy as np

        records = self._records()
        if self._index is None:
            order = np.argsort(records["key"], kind="stable")
            self._index = records["key"][order], order
        names, order = self._index
        return records["vector"][order[np.searchsorted(names, np.array(keys, f"S{KEY}"))]]

    def clear(self) -> None:
        """Forget all: it is where it belongs, or of no use."""
        os.ftruncate(self._file, 0)
        self.dims, self._start, self._count, self._index = None, 0, 0, None

    @property
    def _size(self) -> int:
        return KEY + 4 * (self.dims or 0) + _SUM

    def _records(self) -> "np.ndarray[Any, Any]":
        import numpy as np

        kind = np.dtype([("key", f"S{KEY}"), ("vector", "<f4", (self.dims or 0,)), ("sum", f"S{_SUM}")])
        return np.memmap(self._path, kind, "r", offset=self._start, shape=(self._count,))

    def _recover(self) -> None:
        """Find out how much of the file is whole, and cut off the rest."""
        from blake3 import blake3

        head = os.pread(self._file, 4096, 0).partition(b"\n")
        try:
            said = msgspec.json.decode(head[0], type=_Head) if head[1] else None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            said = None
        if said is None or said.dims < 1:
            os.ftruncate(self._file, 0)
            return
        self.dims, self._start = said.dims, len(head[0]) + 1
        at = self._start
        while len(record := os.pread(self._file, self._size, at)) == self._size:
            if blake3(record[:-_SUM]).digest(_SUM) != record[-_SUM:]:
                break
            at += self._size
            self._count += 1
        os.ftruncate(self._file, at)

    def _meant(self, error: OSError) -> StorageError:
        return StorageError(
            f"what was embedded can't be kept in {self._path}: {error.strerror}",
            hint=f"df -h {quoted(self._path.parent)}",
        )


def _write(descriptor: int, data: bytes | bytearray, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done

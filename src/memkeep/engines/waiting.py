"""Packed rows that wait for the other rows of their bucket, in an unnamed file, so that memory stays small."""

import os
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from memkeep.records import groups

_NEIGHBOURHOODS = 5  # bits: buckets are written in at most 32 of them
_TAIL = 64 << 10  # bytes of one that wait in memory
_TOLERANCE = 2  # bits: groups four times too large or too small are cut anew


class Waiting:
    """The rows of one collection, by the bucket that their id chooses."""

    def __init__(self, kept: int | None, expected: int, folder: Path | None) -> None:
        """Begin; `kept` are the bucket bits of the parent snapshot, if any, `folder` is where the file lies."""
        best = groups.bits_for(expected)
        self.bits = kept if kept is not None and abs(kept - best) <= _TOLERANCE else best
        self._mask = (1 << self.bits) - 1
        self._shift = max(0, self.bits - _NEIGHBOURHOODS)
        self._near = [_Near() for _ in range((1 << self.bits) >> self._shift)]
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`

    def add(self, record: str, packed: bytes) -> None:
        """Take in a row by its id."""
        bucket = zlib.crc32(record.encode("utf-8", "surrogatepass")) & self._mask
        near = self._near[bucket >> self._shift]
        near.tail += packed
        near.lengths.append(len(packed))
        near.buckets.append(bucket)
        if len(near.tail) >= _TAIL:
            self._write(near)

    def buckets(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the rows of each bucket that has some, in ascending order, and let go of them."""
        for i, near in enumerate(self._near):
            self._near[i] = _Near()
            rows: dict[int, list[bytes]] = {}
            at = 0
            data = b"".join([*(os.pread(self._file.fileno(), size, start) for start, size in near.extents), near.tail])
            for length, bucket in zip(near.lengths, near.buckets, strict=True):
                rows.setdefault(bucket, []).append(data[at : at + length])
                at += length
            for bucket in sorted(rows):
                yield bucket, rows.pop(bucket)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, near: "_Near") -> None:
        start = self._file.seek(0, os.SEEK_END)
        view = memoryview(near.tail)
        while view:
            view = view[self._file.write(view) :]
        view.release()
        near.extents.append((start, len(near.tail)))
        near.tail = bytearray()


class _Near:
    """Rows of some neighbouring buckets: the last ones in memory, those before in extents of the file."""

    def __init__(self) -> None:
        self.tail = bytearray()
        self.extents: list[tuple[int, int]] = []
        self.lengths = array("I")
        self.buckets = array("I")

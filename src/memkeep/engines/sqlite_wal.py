"""Read a WAL-mode database at one moment straight from its files: which page comes from where.

Why the bytes are those of one moment. A SQLite connection of the same process holds a read transaction, so that it
owns a shared lock on one of the read marks of the wal-index (`-shm`). `snapshot_of` is given the wal-index as it was
before that transaction began and as it was after its first read; when both are equal, and both copies of the header
in each, the transaction sees exactly the header's `mxFrame` frames. From then on

* nBackfill == mxFrame: everything is in the database already and SQLite took mark 0. A checkpoint needs mark 0
  exclusively before it writes the first page, so the database file does not change. The WAL may be started over by a
  writer; it is not read.
* nBackfill < mxFrame: SQLite took a mark 1..4 whose value is at most mxFrame. A checkpoint copies no frame beyond the
  lowest mark in use, so every page that it may write has a frame that is ours; those pages are taken from the WAL (the
  last frame of each that is <= mxFrame), all others from the database file, which nobody writes. The WAL can't be
  started over while the mark is held, and neither file can be deleted, because that needs an exclusive lock on the
  database, which the connection holds shared.

Formats: sqlite.org/walformat.html ("The WAL-Index File Format") and sqlite.org/fileformat2.html#walformat. The header
of the wal-index, 48 bytes in native byte order, twice: iVersion, unused, iChange (u32 each), isInit, bigEndCksum
(u8 each), szPage (u16; 1 means 65536), mxFrame, nPage (u32 each), aFrameCksum[2], aSalt[2], aCksum[2]; then nBackfill
(u32). From byte 136 on, in blocks of 32 KiB, the page number of every frame: 4062 in the first block, 4096 in others.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from memkeep.engines.sqlite_io import BUFFER, read_at

WAL_HEADER = 32
FRAME_HEADER = 24
_HEADER = 48
_INDEX = struct.Struct("=3I2BH2I8s8s8sI")  # one copy of the header without the second, then nBackfill
_BLOCK = 32768
_FIRST_AT = 136
_FIRST = 4062
_OTHER = 4096


class IndexHeader(NamedTuple):
    """What the wal-index says of the last commit."""

    change: int
    page_size: int
    frames: int  # mxFrame: valid frames in the WAL
    pages: int  # size of the database at that commit; 0 when only the file knows
    salts: bytes  # as they stand in the WAL, 8 bytes
    backfilled: int
    raw: bytes  # the whole header, for comparison


class WalChangedError(Exception):
    """A frame is not the one that the snapshot names: somebody broke the locking rules."""


def read_index(shm: int) -> IndexHeader | None:
    """Return the wal-index header, or None while it is being written or was never made."""
    data = os.pread(shm, 2 * _HEADER + 4, 0)
    if len(data) < 2 * _HEADER + 4 or data[:_HEADER] != data[_HEADER : 2 * _HEADER]:
        return None
    fields = _INDEX.unpack(data[:_HEADER] + data[2 * _HEADER :])
    _, _, change, ready, _, size, frames, pages, _, salts, _, backfilled = fields
    if not ready:
        return None
    return IndexHeader(change, page_size(size), frames, pages, salts, backfilled, data[:_HEADER])


def page_size(stored: int) -> int:
    """Return the page size that a 16-bit field means (65536 does not fit and is stored as 1)."""
    return (stored & 0xFE00) | (stored & 1) << 16


def snapshot_of(before: IndexHeader | None, after: IndexHeader | None) -> IndexHeader | None:
    """Return the header that a read transaction begun between the two readings sees, None when that is not sure."""
    return before if before is not None and before == after else None


def frame_pages(shm: int, frames: int) -> list[int]:
    """Return the page number of each of the first `frames` frames of the WAL, from the wal-index."""
    pages: list[int] = []
    block = 0
    while len(pages) < frames:
        start, room = (_FIRST_AT, _FIRST) if block == 0 else (block * _BLOCK, _OTHER)
        count = min(room, frames - len(pages))
        data = os.pread(shm, 4 * count, start)
        if len(data) != 4 * count:
            raise WalChangedError("the wal-index is shorter than it says")
        pages.extend(struct.unpack(f"={count}I", data))
        block += 1
    return pages


class Overlay:
    """The image of a database at one moment: its file with the newest frames of a WAL laid over it.

    `pages` are the page numbers of the WAL's frames, first to last; none when the file alone is the image.
    """

    def __init__(self, database: int, wal: int, *, size: int, step: int, salts: bytes, pages: list[int]) -> None:
        self.size = size
        self._database = database
        self._wal = wal
        self._step = step
        self._salts = salts
        count = size // step
        last = dict(zip(pages, range(len(pages)), strict=True))  # a later frame replaces an earlier one
        self._frame_of = {page: frame for page, frame in last.items() if 0 < page <= count}
        self._pages = sorted(self._frame_of)

    def buffers(self) -> Iterator[memoryview]:
        """Yield the image in buffers of up to 1 MiB, each valid until the next is asked for."""
        buffer = bytearray(BUFFER)
        view = memoryview(buffer)
        step = self._step
        for start in range(0, self.size, BUFFER):
            length = min(BUFFER, self.size - start)
            had = read_at(self._database, view[:length], start)
            if had < length:  # the file ends before its newest pages, which are all in the WAL
                buffer[had:length] = bytes(length - had)
            first, beyond = start // step + 1, (start + length) // step + 1
            for page in self._pages[bisect_left(self._pages, first) : bisect_left(self._pages, beyond)]:
                at = (page - first) * step
                self._read_frame(page, view[at : at + step])
            yield view[:length]

    def _read_frame(self, page: int, into: memoryview) -> None:
        frame = self._frame_of[page]
        head = bytearray(FRAME_HEADER)
        size = os.preadv(self._wal, [head, into], WAL_HEADER + frame * (FRAME_HEADER + self._step))
        if size != FRAME_HEADER + self._step or head[:4] != page.to_bytes(4, "big") or head[8:16] != self._salts:
            raise WalChangedError(f"frame {frame + 1} of the WAL is not page {page} of the frozen generation")


def wal_salts(wal: int) -> bytes:
    """Return the salts of the WAL's present generation, 8 bytes (fewer when it has no header yet)."""
    return os.pread(wal, 8, 16)

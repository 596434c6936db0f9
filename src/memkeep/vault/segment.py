"""Index segments: where some chunks lie, as columns that are used just as they are stored.

    segment = packs (u32) | entries (u32) | deltas (u32) | zero (u32)
            | heads, tails (u64 an entry each)               the two halves of the chunk ids; heads ascend
            | bases (16 bytes a delta)                       of those entries whose depth is not 0, in order
            | sizes (u64 a pack)
            | offset, length, raw, pack (u32 an entry each)
            | names (32 bytes a pack)
            | depth (1 byte an entry)

All integers are little endian, and every column lies on a multiple of its width. Ids are random and nothing else is
large, so compressing a segment would cost more than it gives: loading one is reading, hashing and looking over it.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.errors import DamagedError
from memkeep.vault.codec import ID_SIZE, MAX_BLOB, MAX_CHUNK
from memkeep.vault.crypto import HEADER_SIZE, TAG_SIZE
from memkeep.vault.index import Columns, Location, pack_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PACK = 1 << 32  # offsets are 32 bits
_COUNTS = struct.Struct("<4I")
_NAME_SIZE = 32
_ENTRY_SIZE = 2 * 8 + 4 * 4 + 1
_PACK_SIZE = 8 + _NAME_SIZE
_BLOCK = 1 << 15  # entries looked over at once: what comes up in between stays in the cache


class Segment(NamedTuple):
    """Packs with their sizes, and entries; `columns.pack` counts in the order of `packs`."""

    packs: tuple[tuple[str, int], ...]
    columns: Columns


def build_segment(entries: Iterable[tuple[bytes, Location]], packs: Mapping[str, int]) -> bytes:
    """Return the segment of some entries; `packs` gives the sizes of all packs that they lie in, by key."""
    import numpy as np

    number = {name: position for position, name in enumerate(packs)}
    listed = sorted(entries, key=lambda entry: entry[0][7::-1])  # little endian
    places = [place for _, place in listed]
    halves = np.frombuffer(b"".join(chunk for chunk, _ in listed), "<u8").reshape(-1, 2)
    bases = [place.base for place in places if place.base is not None]
    numbers = ("offset", "length", "raw")
    return b"".join(
        [
            _COUNTS.pack(len(packs), len(listed), len(bases), 0),
            halves[:, 0].tobytes(),
            halves[:, 1].tobytes(),
            *bases,
            np.array(list(packs.values()), "<u8").tobytes(),
            *(np.array([getattr(place, name) for place in places], "<u4").tobytes() for name in numbers),
            np.array([number[place.pack] for place in places], "<u4").tobytes(),
            *(bytes.fromhex(name.rpartition("/")[2]) for name in packs),
            bytes(place.depth for place in places),
        ]
    )


def read_segment(key: str, plain: bytes | memoryview) -> Segment:
    """Return what a segment says; its columns are views of `plain`. `DamagedError` when it points out of its packs."""
    import numpy as np

    if len(plain) < _COUNTS.size:
        raise _bad(key)
    packs, entries, deltas, zero = _COUNTS.unpack_from(plain)
    if zero or len(plain) != _COUNTS.size + packs * _PACK_SIZE + entries * _ENTRY_SIZE + deltas * ID_SIZE:
        raise _bad(key)
    at = _COUNTS.size

    def column(dtype: str, count: int) -> "NDArray[Any]":
        nonlocal at
        values = np.frombuffer(plain, dtype, count, at)
        at += values.nbytes
        return values

    head, tail = column("<u8", entries), column("<u8", entries)
    base = column(f"V{ID_SIZE}", deltas)
    sizes = column("<u8", packs)
    offset, length, raw, pack = (column("<u4", entries) for _ in range(4))
    names = bytes(plain[at : at + packs * _NAME_SIZE])
    at += len(names)
    columns = Columns(head, tail, pack, offset, length, raw, column("u1", entries), base)
    if not _fits(columns, sizes):
        raise _bad(key)
    keys = [pack_key(names[start : start + _NAME_SIZE]) for start in range(0, len(names), _NAME_SIZE)]
    return Segment(tuple(zip(keys, sizes.tolist(), strict=True)), columns)


def _fits(columns: Columns, sizes: "NDArray[Any]") -> bool:
    """Say whether heads ascend, every delta has a base, and every blob lies inside of its pack."""
    import numpy as np

    if len(sizes) and not HEADER_SIZE <= int(sizes.min()) <= int(sizes.max()) <= MAX_PACK + MAX_BLOB + TAG_SIZE:
        return False
    if int(np.count_nonzero(columns.depth)) != len(columns.base):
        return False
    for start in range(0, len(columns.head), _BLOCK):
        some = slice(start, start + _BLOCK)
        head, offset, length, pack = columns.head[some], columns.offset[some], columns.length[some], columns.pack[some]
        before = columns.head[max(start - 1, 0) : start + len(head) - 1]
        fits = (
            int(pack.max()) < len(sizes)
            and int(length.max()) <= MAX_BLOB + TAG_SIZE
            and int(columns.raw[some].max()) <= MAX_CHUNK
            and int(offset.min()) >= HEADER_SIZE
            and (head[len(head) - len(before) :] >= before).all()
            and (sizes[pack] >= offset + length.astype(np.uint64)).all()
        )
        if not fits:
            return False
    return True


def _bad(key: str) -> DamagedError:
    return DamagedError(f"{key} is not an index segment", obj=key)

"""How one chunk becomes a blob and a chunk again, to the bit.

    blob  = 0x01 | raw length (u32) | kinds | pages                    a full chunk
          | 0x02 | raw length (u32) | base id (16) | kinds | pages     a page delta against another chunk
          | 0x03 | raw length (u32) | base id (16) | zstd frame        a text delta against another chunk
    pages = length of the exponent frame (u32) | exponent frame | mantissas | plain frame

A chunk is cut into pages of 4096 bytes (the last may be shorter). `kinds` has four bits a page, page 0 in the low half
of the first byte: 0 a plain page, 1 to 4 a page of float32 whose sign-and-exponent bytes are at places p, p+4, p+8 ...
with p = kind - 1 (whole pages only), 5 a page that equals the base's page at that place (whole pages only). Pages of
kind 5 are not stored. Of the float pages, ordered by kind and then by place, the exponent bytes make the exponent
frame; the other three bytes of each float are noise, so they are stored as they are: for each kind the bytes at
places p^1, p^1+4 ... of all its pages, then the other two of each float of all its pages. Set apart like this vectors
shrink to 0.84. The plain pages, in order, are the plain frame. Its dictionary in a page delta is what the base has at
the places of all stored pages; in a text delta it is the whole base. Dictionaries are raw content; one shorter than 8
bytes is not used. A frame is one zstd frame that says its content size, or nothing when there is no content. All
integers are little endian.
"""

import struct
import threading
from typing import TYPE_CHECKING

import numpy as np  # noqa: TID253 - every chunk goes through it; only verbs that open a vault import this module
import zstandard

from memkeep.errors import DamagedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

PAGE = 4096
CHUNK = 131072
MAX_CHUNK = 1 << 26
MAX_BLOCK = 1 << 17  # of a vector
MAX_BLOB = MAX_CHUNK + (MAX_CHUNK >> 6) + PAGE  # what does not shrink grows by less than this
FULL, PAGES, TEXT = 1, 2, 3
ID_SIZE = 16
_HEAD = struct.Struct("<BI")
_LENGTH = struct.Struct("<I")
_FLOATS = 1024  # a page
_PLAIN, _SAME = 0, 5  # page kinds; those between are float32
_STEADY, _RANDOM = 12, 100  # spread of the low 7 bits over the sampled floats of a page
_SHORTEST = 8  # bytes: zstd takes no shorter dictionary
_LEVEL_FULL = 1
_LEVEL_TEXT = 3
_LEVEL_DELTA = 10  # little is left to compress, and it is what every later day costs
_LEVEL_PAGES = 6  # of changed pages a higher level saves nothing


class Coder:
    """Encodes and decodes chunks. Keeps compression contexts from one to the next, so each thread needs its own.

    Making one costs as much as many a chunk: see `Coders`.
    """

    def __init__(self) -> None:
        self._fast = zstandard.ZstdCompressor(level=_LEVEL_FULL)
        self._exponents = zstandard.ZstdCompressor(
            # Exponents repeat by chance only: looking hard for matches costs time and, by those it finds, space.
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                _LEVEL_FULL, strategy=zstandard.STRATEGY_FAST, hash_log=6, min_match=7
            )
        )
        self._thorough = zstandard.ZstdCompressor(level=_LEVEL_TEXT)
        self._decompressor = zstandard.ZstdDecompressor()
        self._room = np.empty((2, CHUNK // PAGE, PAGE), np.uint8)  # memory that is warm already

    def full(self, raw: bytes, *, text: bool = False) -> bytes:
        """Encode a chunk by itself; `text` spends more effort, for JSON and the like."""
        kinds = np.zeros(_page_count(len(raw)), np.uint8)
        if not text:
            _mark_floats(raw, kinds)
        pages = self._pack_pages(raw, kinds, self._thorough if text else self._fast)
        return b"".join([_HEAD.pack(FULL, len(raw)), _pack_kinds(kinds), *pages])

    def pages(self, raw: bytes, base: bytes, base_id: bytes) -> bytes:
        """Encode a chunk as the pages in which it differs from another."""
        kinds = np.zeros(_page_count(len(raw)), np.uint8)
        _mark_same(raw, base, kinds)
        _mark_floats(raw, kinds)
        pages = self._pack_pages(raw, kinds, _compressor(_LEVEL_PAGES, _dictionary(base, kinds)))
        return b"".join([_HEAD.pack(PAGES, len(raw)), base_id, _pack_kinds(kinds), *pages])

    def text(self, raw: bytes, base: bytes, base_id: bytes) -> bytes:
        """Encode a chunk with another as its dictionary."""
        frame = _compressor(_LEVEL_DELTA, base).compress(raw) if raw else b""
        return b"".join([_HEAD.pack(TEXT, len(raw)), base_id, frame])

    def decode(self, blob: bytes, base: bytes, name: str) -> bytes:
        """Return the chunk of a blob; `base` is the chunk that `base_of` names, or nothing.

        Raises `DamagedError` on anything that does not fit, before it takes memory for it: a blob's own word for its
        length is trusted up to `MAX_CHUNK`, and every frame must say the size that this length leaves for it.
        """
        kind, size = _head(blob, name)
        try:
            if kind == TEXT:
                return _inflate(self._with(base), memoryview(blob)[_HEAD.size + ID_SIZE :], size)
            at = _HEAD.size if kind == FULL else _HEAD.size + ID_SIZE
            pages = _page_count(size)
            kinds = _unpack_kinds(blob[at : at + (pages + 1) // 2], pages)
            at += (pages + 1) // 2
            decompressor = self._with(_dictionary(base, kinds)) if kind == PAGES else self._decompressor
            return self._unpack_pages(memoryview(blob)[at:], size, kinds, base, decompressor)
        except (zstandard.ZstdError, ValueError, IndexError, struct.error) as error:
            raise _bad(name) from error

    def _pack_pages(self, raw: bytes, kinds: "Bytes", compressor: zstandard.ZstdCompressor) -> list[bytes]:
        order, counts = _by_kind(kinds)
        body = np.frombuffer(raw, np.uint8, len(raw) // PAGE * PAGE).reshape(-1, PAGE)
        exponents, mantissas = [], []
        at = counts[_PLAIN]
        for kind in range(1, _SAME):
            if counts[kind]:
                cells = body[order[at : at + counts[kind]]]
                at += counts[kind]
                high, middle, low = _places(cells, kind)
                exponents.append(high.tobytes())
                mantissas += [middle.tobytes(), low.tobytes()]
        if counts[_PLAIN] == len(kinds):
            plain = raw
        else:
            plain = body[order[: counts[_PLAIN]]].tobytes() if not len(raw) % PAGE else _plain(raw, body, order, counts)
        frame = self._exponents.compress(b"".join(exponents)) if exponents else b""
        return [_LENGTH.pack(len(frame)), frame, *mantissas, compressor.compress(plain) if plain else b""]

    def _unpack_pages(
        self, data: memoryview, size: int, kinds: "Bytes", base: bytes, decompressor: zstandard.ZstdDecompressor
    ) -> bytes:
        (length,) = _LENGTH.unpack_from(data)
        order, counts = _by_kind(kinds)
        tail = size % PAGE
        if tail and kinds[-1] != _PLAIN:
            message = "a short page can only be plain"
            raise ValueError(message)
        floats = len(kinds) - counts[_PLAIN] - counts[_SAME]
        cut = _LENGTH.size + length
        exponents = _inflate(self._decompressor, data[_LENGTH.size : cut], floats * _FLOATS)
        noise = np.frombuffer(data, np.uint8, floats * _FLOATS * 3, cut)
        plain_size = counts[_PLAIN] * PAGE - (PAGE - tail if tail else 0)
        plain = _inflate(decompressor, data[cut + len(noise) :], plain_size)
        if counts[_PLAIN] == len(kinds):
            return plain
        # The pages in the order of their kinds, and in their own.
        stored, out = (self._room if size <= CHUNK else np.empty((2, len(kinds), PAGE), np.uint8))[:, : len(kinds)]
        stored.reshape(-1)[:plain_size] = np.frombuffer(plain, np.uint8)
        self._unpack_floats(stored[counts[_PLAIN] :], counts, np.frombuffer(exponents, np.uint8), noise)
        if counts[_SAME]:
            theirs = np.frombuffer(base, np.uint8, len(base) // PAGE * PAGE).reshape(-1, PAGE)
            stored[len(kinds) - counts[_SAME] :] = theirs[order[len(kinds) - counts[_SAME] :]]
        out[order] = stored
        chunk: bytes = out.reshape(-1)[:size].tobytes()
        return chunk

    def _unpack_floats(self, stored: "Bytes", counts: list[int], exponents: "Bytes", noise: "Bytes") -> None:
        done = 0
        for kind in range(1, _SAME):
            pages = counts[kind]
            if pages:
                high, middle, low = _places(stored[done : done + pages], kind)
                amount = pages * _FLOATS
                high[:] = exponents[done * _FLOATS :][:amount].reshape(pages, _FLOATS)
                start = done * _FLOATS * 3
                middle[:] = noise[start:][:amount].reshape(pages, _FLOATS)
                low[:] = noise[start + amount :][: amount * 2].view(np.uint16).reshape(pages, _FLOATS)
                done += pages

    def _with(self, dictionary: bytes) -> zstandard.ZstdDecompressor:
        if len(dictionary) < _SHORTEST:
            return self._decompressor
        content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        return zstandard.ZstdDecompressor(dict_data=content)


class Coders(threading.local):
    """A coder for each thread that asks for `own`."""

    def __init__(self) -> None:
        self.own = Coder()


def base_of(blob: bytes, name: str) -> bytes | None:
    """Return the id of the chunk that a blob is a delta against, if it is one."""
    kind, _ = _head(blob, name)
    return None if kind == FULL else blob[_HEAD.size : _HEAD.size + ID_SIZE]


def rebase(blob: bytes, base_id: bytes) -> bytes:
    """Return a delta that names its base by another id; the base's bytes must be the same."""
    return b"".join([blob[: _HEAD.size], base_id, blob[_HEAD.size + ID_SIZE :]])


def size_of(blob: bytes, name: str) -> int:
    """Return the length of the chunk that a blob says it holds."""
    return _head(blob, name)[1]


def inflate(data: bytes | memoryview, limit: int, name: str) -> bytes:
    """Return what one zstd frame holds; `DamagedError` when it is none, or says no size or one over `limit` bytes."""
    try:
        size = zstandard.frame_content_size(data)
        if 0 <= size <= limit:
            return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        message = f"{name} does not decompress"
        raise DamagedError(message, obj=name) from error
    message = f"{name} does not decompress to at most {limit} bytes"
    raise DamagedError(message, obj=name)


def _inflate(decompressor: zstandard.ZstdDecompressor, frame: memoryview, size: int) -> bytes:
    """Decompress a frame that must hold exactly `size` bytes; zstandard itself would trust the frame's own word."""
    if not size and not len(frame):
        return b""
    if not size or zstandard.frame_content_size(frame) != size:
        message = "a frame does not have the size that is left for it"
        raise ValueError(message)
    raw: bytes = decompressor.decompress(frame, allow_extra_data=False)
    if len(raw) != size:
        message = "a frame is shorter than it says"
        raise ValueError(message)
    return raw


def _head(blob: bytes, name: str) -> tuple[int, int]:
    if len(blob) < _HEAD.size:
        raise _bad(name)
    kind, size = _HEAD.unpack_from(blob)
    if kind not in {FULL, PAGES, TEXT} or size > MAX_CHUNK or (kind != FULL and len(blob) < _HEAD.size + ID_SIZE):
        raise _bad(name)
    return kind, size


def _bad(name: str) -> DamagedError:
    return DamagedError(f"{name} holds a blob that is not one", obj=name)


def _page_count(size: int) -> int:
    return (size + PAGE - 1) // PAGE


def _pack_kinds(kinds: "Bytes") -> bytes:
    even = kinds[0::2].copy()
    odd = kinds[1::2]
    even[: len(odd)] |= odd << 4
    return even.tobytes()


def _unpack_kinds(data: bytes, pages: int) -> "Bytes":
    packed = np.frombuffer(data, np.uint8)
    kinds = np.empty((len(packed), 2), np.uint8)
    np.bitwise_and(packed, 15, out=kinds[:, 0])
    np.right_shift(packed, 4, out=kinds[:, 1])
    flat = kinds.reshape(-1)
    if len(flat) < pages or (pages and flat.max() > _SAME) or flat[pages:].any():
        message = "page kinds out of range"
        raise ValueError(message)
    return flat[:pages]


def _by_kind(kinds: "Bytes") -> "tuple[NDArray[np.intp], list[int]]":
    """Return the pages ordered by kind, then by place, and how many there are of each kind."""
    return kinds.argsort(kind="stable"), np.bincount(kinds, minlength=_SAME + 1).tolist()


def _places(pages: "Bytes", kind: int) -> "tuple[Bytes, Bytes, NDArray[np.uint16]]":
    """Return views of whole float pages: exponent bytes, their neighbours, and the other halves."""
    cells = pages.reshape(-1, _FLOATS, 4)
    place = kind - 1
    return cells[:, :, place], cells[:, :, place ^ 1], pages.view(np.uint16)[:, 1 - place // 2 :: 2]


def _mark_same(raw: bytes, base: bytes, kinds: "Bytes") -> None:
    whole = min(len(raw), len(base)) // PAGE
    if whole:
        left = np.frombuffer(raw, np.uint64, whole * PAGE // 8).reshape(whole, -1)
        right = np.frombuffer(base, np.uint64, whole * PAGE // 8).reshape(whole, -1)
        kinds[:whole][(left == right).all(axis=1)] = _SAME


def _mark_floats(raw: bytes, kinds: "Bytes") -> None:
    """Tell pages full of float32: one byte of four (sign and exponent) hardly varies, another (mantissa) is random."""
    whole = len(raw) // PAGE
    candidates = np.flatnonzero(kinds[:whole] == _PLAIN)
    if len(candidates):
        cells = np.frombuffer(raw, np.uint8, whole * PAGE).reshape(whole, _FLOATS, 4)
        # Every 16th float; the first few are left out: SQLite's overflow pages begin with a page number.
        sample = cells[:, 4::16, :] if len(candidates) == whole else cells[candidates, 4::16, :]
        # The sampled floats first: so the extremes are taken over rows that lie together.
        low = np.bitwise_and(sample.transpose(1, 0, 2), 0x7F, order="C")
        spread = low.max(axis=0) - low.min(axis=0)
        floats = (spread.min(axis=1) <= _STEADY) & (spread.max(axis=1) >= _RANDOM)
        kinds[candidates[floats]] = spread[floats].argmin(axis=1) + 1


def _plain(raw: bytes, body: "Bytes", order: "NDArray[np.intp]", counts: list[int]) -> bytes:
    """Return the plain pages of a chunk whose last page is short, and so plain."""
    return body[order[: counts[_PLAIN] - 1]].tobytes() + raw[len(body) * PAGE :]


def _dictionary(base: bytes, kinds: "Bytes") -> bytes:
    """Return what the base has at the places of the stored pages."""
    places = [page * PAGE for page, kind in enumerate(kinds.tobytes()) if kind != _SAME]
    return b"".join([base[place : place + PAGE] for place in places])


def _compressor(level: int, dictionary: bytes) -> zstandard.ZstdCompressor:
    if len(dictionary) < _SHORTEST:
        return zstandard.ZstdCompressor(level=level)
    content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(level=level, dict_data=content)

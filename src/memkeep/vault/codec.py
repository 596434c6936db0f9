"""How one chunk becomes a blob and a chunk again, to the bit.

    blob  = 0x01 | raw length (u32) | kinds | pages                    a full chunk
          | 0x02 | raw length (u32) | base id (16) | kinds | pages     a page delta against another chunk
          | 0x03 | raw length (u32) | base id (16) | zstd frame        a text delta against another chunk
    pages = length of the exponent frame (u32) | exponent frame | mantissas | plain frame

A chunk is cut into pages of 4096 bytes (the last may be shorter). `kinds` has four bits a page, page 0 in the low half
of the first byte: 0 a plain page, 1 to 4 a page of float32 whose sign-and-exponent bytes are at places p, p+4, p+8 ...
with p = kind - 1 (whole pages only), 5 a page that equals the base's page at that place. Pages of kind 5 are not
stored. Of the float pages, ordered by kind and then by place, the exponent bytes make the exponent frame (zstd;
absent with length 0 if there are none) and the other three bytes of each float, in their order, are the mantissas,
stored as they are: they are noise, and set apart like this vectors shrink to 0.84. The plain pages, in order, are the plain frame (zstd). Its
dictionary in a page delta is what the base has at the places of all stored pages; in a text delta it is the whole
base. Dictionaries are raw content; one shorter than 8 bytes is not used. All integers are little endian.
"""

import struct
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from memkeep.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PAGE = 4096
CHUNK = 65536
MAX_CHUNK = 1 << 26
FULL, PAGES, TEXT = 1, 2, 3
ID_SIZE = 16
_HEAD = struct.Struct("<BI")
_LENGTH = struct.Struct("<I")
_SAME = 5  # page kind: equals the base's
_OTHERS = (slice(1, 4), [0, 2, 3], [0, 1, 3], slice(0, 3))  # the places of the mantissa bytes
_STEADY, _RANDOM = 12, 100  # spread of the low 7 bits over the sampled floats of a page
_SHORTEST = 8  # bytes: zstd takes no shorter dictionary
_LEVEL_FULL = 1
_LEVEL_TEXT = 6
_LEVEL_DELTA = 6


def encode_full(raw: bytes, *, text: bool = False) -> bytes:
    """Encode a chunk by itself; `text` spends more effort, for JSON and the like."""
    kinds = np.zeros(_page_count(len(raw)), np.uint8)
    if not text:
        _mark_floats(raw, kinds)
    compressor = zstandard.ZstdCompressor(level=_LEVEL_TEXT if text else _LEVEL_FULL)
    return _HEAD.pack(FULL, len(raw)) + _pack_kinds(kinds) + _pack_pages(raw, kinds, compressor)


def encode_pages(raw: bytes, base: bytes, base_id: bytes) -> bytes:
    """Encode a chunk as the pages in which it differs from another."""
    kinds = np.zeros(_page_count(len(raw)), np.uint8)
    _mark_same(raw, base, kinds)
    _mark_floats(raw, kinds)
    compressor = _compressor(_LEVEL_DELTA, _dictionary(base, kinds))
    return _HEAD.pack(PAGES, len(raw)) + base_id + _pack_kinds(kinds) + _pack_pages(raw, kinds, compressor)


def encode_text(raw: bytes, base: bytes, base_id: bytes) -> bytes:
    """Encode a chunk with another as its dictionary."""
    return _HEAD.pack(TEXT, len(raw)) + base_id + _compressor(_LEVEL_TEXT, base).compress(raw)


def base_of(blob: bytes, name: str) -> bytes | None:
    """Return the id of the chunk that a blob is a delta against, if it is one."""
    kind, _ = _head(blob, name)
    return None if kind == FULL else blob[_HEAD.size : _HEAD.size + ID_SIZE]


def decode(blob: bytes, fetch: "Callable[[bytes], bytes]", name: str) -> bytes:
    """Return the chunk of a blob; `fetch` gives a base chunk by id. `DamagedError` on anything that does not fit."""
    kind, size = _head(blob, name)
    at = _HEAD.size
    base = b""
    if kind != FULL:
        base = fetch(blob[at : at + ID_SIZE])
        at += ID_SIZE
    try:
        if kind == TEXT:
            raw = _decompressor(base).decompress(blob[at:], max_output_size=size)
        else:
            pages = _page_count(size)
            kinds = _unpack_kinds(blob[at : at + (pages + 1) // 2], pages)
            decompressor = _decompressor(_dictionary(base, kinds) if kind == PAGES else b"")
            raw = _unpack_pages(memoryview(blob)[at + (pages + 1) // 2 :], size, kinds, base, decompressor)
    except (zstandard.ZstdError, ValueError, IndexError, struct.error) as error:
        raise _bad(name) from error
    if len(raw) != size:
        raise _bad(name)
    return raw


def _head(blob: bytes, name: str) -> tuple[int, int]:
    if len(blob) < _HEAD.size:
        raise _bad(name)
    kind, size = _HEAD.unpack_from(blob)
    if kind not in {FULL, PAGES, TEXT} or size > MAX_CHUNK:
        raise _bad(name)
    return kind, size


def _bad(name: str) -> DamagedError:
    return DamagedError(f"{name} holds a blob that is not one", obj=name)


def _page_count(size: int) -> int:
    return (size + PAGE - 1) // PAGE


def _pack_kinds(kinds: "NDArray[np.uint8]") -> bytes:
    even = kinds[0::2].copy()
    odd = kinds[1::2]
    even[: len(odd)] |= odd << 4
    return even.tobytes()


def _unpack_kinds(data: bytes, pages: int) -> "NDArray[np.uint8]":
    packed = np.frombuffer(data, np.uint8)
    kinds = np.empty(len(packed) * 2, np.uint8)
    kinds[0::2] = packed & 15
    kinds[1::2] = packed >> 4
    if len(kinds) < pages or (kinds > _SAME).any():
        message = "page kinds out of range"
        raise ValueError(message)
    return kinds[:pages]


def _mark_same(raw: bytes, base: bytes, kinds: "NDArray[np.uint8]") -> None:
    whole = min(len(raw), len(base)) // PAGE
    if whole:
        left = np.frombuffer(raw, np.uint64, whole * PAGE // 8).reshape(whole, -1)
        right = np.frombuffer(base, np.uint64, whole * PAGE // 8).reshape(whole, -1)
        kinds[:whole][(left == right).all(axis=1)] = _SAME


def _mark_floats(raw: bytes, kinds: "NDArray[np.uint8]") -> None:
    """Tell pages full of float32: one byte of four (sign and exponent) hardly varies, another (mantissa) is random."""
    whole = len(raw) // PAGE
    candidates = np.flatnonzero(kinds[:whole] == 0)
    if len(candidates):
        cells = np.frombuffer(raw, np.uint8, whole * PAGE).reshape(whole, PAGE // 4, 4)
        # Every 16th float; the first few are left out: SQLite's overflow pages begin with a page number.
        sample = cells[candidates, 4::16, :] & 0x7F
        spread = sample.max(axis=1).astype(np.int16) - sample.min(axis=1)
        floats = (spread.min(axis=1) <= _STEADY) & (spread.max(axis=1) >= _RANDOM)
        kinds[candidates[floats]] = spread[floats].argmin(axis=1) + 1


def _pack_pages(raw: bytes, kinds: "NDArray[np.uint8]", compressor: zstandard.ZstdCompressor) -> bytes:
    whole = len(raw) // PAGE
    body = np.frombuffer(raw, np.uint8, whole * PAGE).reshape(whole, PAGE // 4, 4)
    exponents, mantissas = [], []
    for kind in range(1, _SAME):
        pages = np.flatnonzero(kinds == kind)
        if len(pages):
            cells = body[pages]
            exponents.append(cells[:, :, kind - 1].tobytes())
            mantissas.append(cells[:, :, _OTHERS[kind - 1]].tobytes())
    plain = b"".join(raw[page * PAGE : (page + 1) * PAGE] for page in np.flatnonzero(kinds == 0))
    frame = zstandard.ZstdCompressor(level=_LEVEL_FULL).compress(b"".join(exponents)) if exponents else b""
    return b"".join([_LENGTH.pack(len(frame)), frame, *mantissas, compressor.compress(plain)])


def _unpack_pages(
    data: memoryview, size: int, kinds: "NDArray[np.uint8]", base: bytes, decompressor: zstandard.ZstdDecompressor
) -> bytes:
    (length,) = _LENGTH.unpack_from(data)
    floats = np.flatnonzero((kinds > 0) & (kinds < _SAME))
    cut = _LENGTH.size + length
    end = cut + len(floats) * PAGE // 4 * 3
    exponents = b""
    if len(floats):
        exponents = zstandard.ZstdDecompressor().decompress(data[_LENGTH.size : cut], max_output_size=size)
    if len(exponents) != len(floats) * PAGE // 4 or len(data) < end:
        message = "stored pages do not add up"
        raise ValueError(message)
    plain = decompressor.decompress(data[end:], max_output_size=size)
    if not len(floats) and not (kinds == _SAME).any():
        return plain
    out = np.empty(len(kinds) * PAGE, np.uint8)
    body = out.reshape(-1, PAGE)
    done = 0
    for kind in range(1, _SAME):
        pages = np.flatnonzero(kinds == kind)
        if len(pages):
            cells = np.empty((len(pages), PAGE // 4, 4), np.uint8)
            shape = (len(pages), PAGE // 4)
            cells[:, :, kind - 1] = np.frombuffer(exponents, np.uint8, len(pages) * PAGE // 4, done // 4).reshape(shape)
            rest = np.frombuffer(data, np.uint8, len(pages) * PAGE // 4 * 3, cut + done // 4 * 3)
            cells[:, :, _OTHERS[kind - 1]] = rest.reshape(*shape, 3)
            body[pages] = cells.reshape(-1, PAGE)
            done += len(pages) * PAGE
    same = np.flatnonzero(kinds == _SAME)
    if len(same):
        theirs = np.frombuffer(base, np.uint8, len(base) // PAGE * PAGE).reshape(-1, PAGE)
        body[same] = theirs[same]
    _place_plain(out, body, kinds, plain, size)
    return out[:size].tobytes()


def _place_plain(
    out: "NDArray[np.uint8]", body: "NDArray[np.uint8]", kinds: "NDArray[np.uint8]", plain: bytes, size: int
) -> None:
    pages = np.flatnonzero(kinds == 0)
    tail = size % PAGE
    short = bool(tail and kinds[-1] == 0)
    if tail and not short:
        message = "a short page can only be plain"
        raise ValueError(message)
    whole = len(pages) - short
    if len(plain) != whole * PAGE + (tail if short else 0):
        message = "stored pages do not add up"
        raise ValueError(message)
    stored = np.frombuffer(plain, np.uint8)
    body[pages[:whole]] = stored[: whole * PAGE].reshape(whole, PAGE)
    if short:
        out[size - tail : size] = stored[whole * PAGE :]


def _dictionary(base: bytes, kinds: "NDArray[np.uint8]") -> bytes:
    """Return what the base has at the places of the stored pages."""
    return b"".join(base[page * PAGE : (page + 1) * PAGE] for page in np.flatnonzero(kinds != _SAME))


def _compressor(level: int, dictionary: bytes) -> zstandard.ZstdCompressor:
    if len(dictionary) < _SHORTEST:
        return zstandard.ZstdCompressor(level=level)
    content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(level=level, dict_data=content)


def _decompressor(dictionary: bytes) -> zstandard.ZstdDecompressor:
    if len(dictionary) < _SHORTEST:
        return zstandard.ZstdDecompressor()
    content = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=content)

import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from memkeep.errors import DamagedError
from memkeep.vault import codec
from memkeep.vault.codec import CHUNK, PAGE, Coder

ID = b"i" * 16
CODER = Coder()


def page(kind: str, seed: int) -> bytes:
    """Return a page of a kind of data that stores have."""
    noise = np.random.default_rng(seed)
    if kind == "floats":
        return (noise.standard_normal(PAGE // 4) * 0.03).astype("<f4").tobytes()
    if kind.startswith("shifted"):  # vectors in SQLite overflow pages begin anywhere
        shift = int(kind[-1])
        return bytes(shift) + page("floats", seed)[: PAGE - shift]
    if kind == "text":
        return (b"the user prefers %d cups of tea; " % seed * PAGE)[:PAGE]
    if kind == "noise":
        return noise.bytes(PAGE)
    return bytes(PAGE)


PAGES = st.builds(
    page, st.sampled_from(["floats", "shifted1", "shifted2", "shifted3", "text", "noise", "zeros"]), st.integers(0, 9)
)
CHUNKS = st.builds(lambda pages, tail: b"".join(pages) + tail, st.lists(PAGES, max_size=6), st.binary(max_size=40))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a base, and what it has become."""
    base = draw(CHUNKS)
    raw = bytearray(base)
    for change in draw(st.lists(st.sampled_from(["byte", "page", "cut", "grow", "insert", "other"]), max_size=3)):
        if change == "other":
            raw = bytearray(draw(CHUNKS))
        elif change == "grow":
            raw += draw(CHUNKS)
        elif change == "cut":
            del raw[draw(st.integers(0, len(raw))) :]
        elif change == "insert":
            at = draw(st.integers(0, len(raw)))
            raw[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif raw and change == "byte":
            raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
        elif len(raw) >= PAGE:
            at = draw(st.integers(0, len(raw) // PAGE - 1)) * PAGE
            raw[at : at + PAGE] = draw(PAGES)
    return base, bytes(raw)


def encoders(base: bytes) -> list[Callable[[bytes], bytes]]:
    return [
        CODER.full,
        lambda raw: CODER.full(raw, text=True),
        lambda raw: CODER.pages(raw, base, ID),
        lambda raw: CODER.text(raw, base, ID),
    ]


def assert_damage_or_a_chunk(blob: bytes, base: bytes) -> None:
    try:
        found: bytes | DamagedError = CODER.decode(blob, base, "data/pack")
    except DamagedError as error:
        found = error
    if isinstance(found, DamagedError):
        assert found.obj == "data/pack"
    else:
        assert len(found) == codec.size_of(blob, "data/pack")


@pytest.mark.property
@given(pairs())
def test_whatever_is_encoded_comes_back_to_the_bit(pair: tuple[bytes, bytes]) -> None:
    base, raw = pair
    for number, encode in enumerate(encoders(base)):
        blob = encode(raw)
        assert len(blob) <= codec.MAX_BLOB
        assert codec.base_of(blob, "blob") == (ID if number > 1 else None)
        assert codec.size_of(blob, "blob") == len(raw)
        assert CODER.decode(blob, base, "blob") == raw


@pytest.mark.property
@given(pairs(), st.integers(0, 3), st.data())
def test_a_mangled_blob_gives_damage_or_as_many_bytes_as_it_says(
    pair: tuple[bytes, bytes], which: int, data: st.DataObject
) -> None:
    base, raw = pair
    blob = bytearray(encoders(base)[which](raw))
    for change in data.draw(st.lists(st.sampled_from(["flip", "cut", "insert", "head"]), min_size=1, max_size=3)):
        at = data.draw(st.integers(0, max(0, len(blob) - 1)))
        if change == "cut":
            del blob[at:]
        elif change == "insert":
            blob[at:at] = data.draw(st.binary(max_size=8))
        elif change == "head" and len(blob) >= 5:
            blob[data.draw(st.integers(0, 4))] = data.draw(st.integers(0, 255))
        elif blob:
            blob[at] ^= 1 << data.draw(st.integers(0, 7))
    assert_damage_or_a_chunk(bytes(blob), base)


@pytest.mark.property
@given(st.binary(max_size=200), CHUNKS)
def test_any_bytes_at_all_are_damage_or_a_chunk(blob: bytes, base: bytes) -> None:
    assert_damage_or_a_chunk(blob, base)


@pytest.mark.property
@given(pairs(), CHUNKS)
@settings(max_examples=50)
def test_a_delta_on_another_base_never_fails_otherwise_than_as_damage(pair: tuple[bytes, bytes], other: bytes) -> None:
    base, raw = pair
    for encode in encoders(base)[2:]:
        blob = encode(raw)
        assert_damage_or_a_chunk(blob, other)


def boast(size: int) -> bytes:
    """Return a zstd frame that says that it holds `size` bytes, and holds one block of nothing."""
    return struct.pack("<IBQ", 0xFD2FB528, 0xE0, size) + b"\x01\x00\x00"


def silent(data: bytes) -> bytes:
    """Return a zstd frame that doesn't say how much it holds."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


HEAD = struct.Struct("<BI")


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x01",
        HEAD.pack(4, 0),
        HEAD.pack(codec.FULL, codec.MAX_CHUNK + 1),
        HEAD.pack(codec.FULL, 0xFFFFFFFF) + bytes(40),
        HEAD.pack(codec.TEXT, 100),
        HEAD.pack(codec.TEXT, 100) + ID + boast(1 << 40),
        HEAD.pack(codec.TEXT, 100) + ID + boast(100),
        HEAD.pack(codec.TEXT, 100) + ID + silent(bytes(100)),
        HEAD.pack(codec.TEXT, 0) + ID + boast(1 << 40),
        HEAD.pack(codec.FULL, 100) + b"\x00" + bytes(4) + boast(1 << 40),
        HEAD.pack(codec.FULL, 100) + b"\x00" + bytes(4) + silent(bytes(100)),
        HEAD.pack(codec.FULL, 100) + b"\x00" + bytes(4) + zstandard.compress(bytes(100)) + b"more",
        HEAD.pack(codec.FULL, 100) + b"\x00" + b"\xff\xff\xff\xff" + zstandard.compress(bytes(100)),
        HEAD.pack(codec.FULL, PAGE) + b"\x01" + struct.pack("<I", 13) + boast(1 << 40) + bytes(3072),
        HEAD.pack(codec.FULL, PAGE) + b"\x05" + bytes(4),
        HEAD.pack(codec.FULL, PAGE) + b"\x06" + bytes(4),
        CODER.full(page("floats", 1)).replace(HEAD.pack(codec.FULL, PAGE) + b"\4", HEAD.pack(codec.FULL, PAGE) + b"\6"),
        CODER.full(b"text").replace(HEAD.pack(codec.FULL, 4) + b"\0", HEAD.pack(codec.FULL, 4) + b"\x10"),
        HEAD.pack(codec.FULL, 100) + b"\x01" + bytes(4),
        HEAD.pack(codec.PAGES, PAGE) + ID + b"\x05" + bytes(3),
        HEAD.pack(codec.FULL, codec.MAX_CHUNK) + bytes(codec.MAX_CHUNK // PAGE // 2) + bytes(4) + boast(1 << 40),
    ],
)
def test_a_hostile_blob_is_refused_without_taking_the_memory_that_it_asks_for(blob: bytes) -> None:
    coder = Coder()
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError) as error:
            coder.decode(blob, b"", "data/pack")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert error.value.obj == "data/pack"


@pytest.mark.parametrize("frame", [boast(1 << 40), boast(1001), silent(bytes(10)), b"", b"no frame at all", boast(5)])
def test_an_envelope_that_boasts_is_refused(frame: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError) as error:
            codec.inflate(frame, 1000, "index/x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert error.value.obj == "index/x"


def test_an_envelope_of_the_largest_size_is_read() -> None:
    assert codec.inflate(zstandard.compress(bytes(1000)), 1000, "index/x") == bytes(1000)


def test_pages_full_of_floats_are_told_wherever_they_begin_and_shrink() -> None:
    for shift in range(4):
        raw = bytes(shift) + b"".join(page("floats", seed) for seed in range(16))
        raw = raw[:CHUNK]
        assert len(CODER.full(raw)) < 0.87 * len(raw) < len(zstandard.compress(raw, 1))


def test_a_chunk_with_few_changed_pages_costs_only_those() -> None:
    base = b"".join(page("noise", seed) for seed in range(16))
    raw = bytearray(base)
    raw[5 * PAGE + 100] ^= 1
    raw[9 * PAGE + 7] ^= 1
    assert len(CODER.pages(bytes(raw), base, ID)) < 200


def test_the_largest_chunk_round_trips() -> None:
    raw = np.random.default_rng(1).bytes(1 << 20) * 64
    assert len(raw) == codec.MAX_CHUNK
    blob = CODER.full(raw, text=True)
    assert CODER.decode(blob, b"", "blob") == raw


def test_one_coder_serves_chunks_of_all_sizes_one_after_another() -> None:
    coder = Coder()
    raws = [
        b"".join(page(kind, n) for n in range(pages))
        for pages in (CHUNK // PAGE, 1, CHUNK // PAGE + 1, 3)
        for kind in ("floats", "text")
    ]
    mixed = [page("floats", 1) + page("zeros", 1) + page("shifted2", 2) + b"tail"]
    for raw in raws + mixed + raws:
        assert coder.decode(coder.full(raw), b"", "blob") == raw

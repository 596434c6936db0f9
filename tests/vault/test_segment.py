import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memkeep.errors import DamagedError
from memkeep.vault.index import Index, Location, pack_key
from memkeep.vault.segment import build_segment, read_segment

PACKS = [pack_key(bytes([number]) * 32) for number in range(2)]
ENTRIES = [
    (b"b" * 16, Location(PACKS[1], 152, 100, 200, 1, b"a" * 16)),
    (b"a" * 16, Location(PACKS[0], 52, 100, 200, 0, None)),
]
GOOD = build_segment(ENTRIES, {PACKS[0]: 152, PACKS[1]: 252})
# Where the columns of two entries, one of them a delta, in two packs begin.
HEADS, TAILS, BASES, SIZES, OFFSETS, LENGTHS, RAWS, NUMBERS, NAMES, DEPTHS = (
    16, 32, 48, 64, 80, 88, 96, 104, 112, 176,
)  # fmt: skip


def changed(at: int, *numbers: int, width: int = 4) -> bytes:
    data = bytearray(GOOD)
    for number in numbers:
        data[at : at + width] = number.to_bytes(width, "little")
        at += width
    return bytes(data)


def test_a_segment_is_laid_out_as_the_format_says() -> None:
    numbers = struct.pack("<8I", 52, 152, 100, 100, 200, 200, 0, 1)
    names = bytes(32) + b"\1" * 32
    halves = b"a" * 8 + b"b" * 8
    assert (
        struct.pack("<4I", 2, 2, 1, 0)
        + halves * 2
        + b"a" * 16
        + struct.pack("<2Q", 152, 252)
        + numbers
        + names
        + (b"\0\1")
        == GOOD
    )
    segment = read_segment("index/good", GOOD)
    assert segment.packs == ((PACKS[0], 152), (PACKS[1], 252))


def test_what_was_built_is_found() -> None:
    index = Index()
    index.add("index/good", read_segment("index/good", GOOD))
    assert index.find_all([one for one, _ in ENTRIES]) == [place for _, place in ENTRIES]


def test_heads_ascend_as_little_endian_numbers() -> None:
    ids = [bytes([0, 0, 0, 0, 0, 0, 0, 2]) + bytes(8), bytes([1, 0, 0, 0, 0, 0, 0, 1]) + bytes(8)]
    place = Location(PACKS[0], 52, 100, 200, 0, None)
    segment = read_segment("index/x", build_segment([(one, place) for one in ids], {PACKS[0]: 152}))
    assert segment.columns.head.tobytes() == ids[1][:8] + ids[0][:8]


def test_two_entries_may_be_of_one_chunk() -> None:
    entries = [(b"a" * 16, place) for _, place in ENTRIES]
    index = Index()
    index.add("index/x", read_segment("index/x", build_segment(entries, {PACKS[0]: 152, PACKS[1]: 252})))
    assert index.find(b"a" * 16) == ENTRIES[1][1]
    index.distrust(PACKS[0])
    assert index.find(b"a" * 16) == ENTRIES[0][1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:15],
        GOOD[:-1],
        GOOD + b"\0",
        bytes(17),
        changed(0, 1),
        changed(0, 3),
        changed(0, 0xFFFFFFFF),
        changed(4, 1),
        changed(4, 0xFFFFFFFF),
        changed(4, 1 << 31),
        changed(8, 0),
        changed(8, 2),
        changed(12, 1),
        changed(HEADS, 0xFFFFFFFFFFFFFFFF, width=8),
        changed(SIZES, 151, width=8),
        changed(SIZES, 47, width=8),
        changed(SIZES, 1 << 63, width=8),
        changed(SIZES, 152, 251, width=8),
        changed(SIZES, (1 << 32) + (1 << 28), width=8),
        changed(OFFSETS, 47),
        changed(OFFSETS, 53),
        changed(OFFSETS, 52, 0xFFFFFFFF),
        changed(LENGTHS, 101),
        changed(LENGTHS, 100, 0xFFFFFFFF),
        changed(RAWS, 200, (1 << 26) + 1),
        changed(NUMBERS, 0, 2),
        changed(NUMBERS, 0xFFFFFFFF),
        changed(DEPTHS, 1, 1, width=1),
        changed(DEPTHS, 0, 0, width=1),
    ],
)
def test_a_segment_that_contradicts_itself_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError, match="index/bad") as error:
        read_segment("index/bad", data)
    assert error.value.obj == "index/bad"


def test_what_is_wrong_far_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memkeep.vault.segment._BLOCK", 7)
    place = Location(PACKS[0], 52, 100, 200, 0, None)
    ids = [bytes(7) + bytes([number]) + bytes(8) for number in range(1, 31)]
    good = build_segment([(one, place) for one in ids], {PACKS[0]: 152})
    read_segment("index/x", good)
    for entry in range(1, 30):
        for at, width in ((16 + 8 * entry, 8), (16 + 30 * 16 + 8 + 4 * entry, 4)):
            bad = bytearray(good)
            bad[at : at + width] = bytes(width)  # a head, an offset
            with pytest.raises(DamagedError):
                read_segment("index/x", bytes(bad))


@pytest.mark.property
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.binary(max_size=400))
@example(0, 0, 0, b"")
@example(1, 0, 0, bytes(7) + b"\1" + bytes(32))
def test_any_segment_is_taken_in_or_is_damage(packs: int, entries: int, deltas: int, rest: bytes) -> None:
    size = packs * 40 + entries * 33 + deltas * 16
    data = struct.pack("<4I", packs, entries, deltas, 0) + (rest * (size // (len(rest) or 1) + 1))[:size]
    index = Index()
    with contextlib.suppress(DamagedError):
        index.add("index/x", read_segment("index/x", data))
        assert len(index) == entries
        assert len(index.packs) <= packs
    assert index.find(bytes(16)) is None or len(index)

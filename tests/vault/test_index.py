import contextlib
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkeep.errors import DamagedError
from memkeep.vault.index import Index, Location, Segment, build_segment, pack_key

PACKS = [pack_key(bytes([number]) * 32) for number in range(4)]
# Few halves, so that ids share the first or the last.
HALVES = st.sampled_from([bytes(8), bytes(7) + b"\1", b"\xff" * 8, b"\1" + bytes(7), b"\x80" + bytes(7)])
IDS = st.builds(lambda head, tail: head + tail, HALVES, HALVES)


@st.composite
def segments(draw: st.DrawFn) -> tuple[dict[bytes, Location], dict[str, int]]:
    """Draw what a writer would describe: places in packs of its own."""
    packs = dict.fromkeys(draw(st.lists(st.sampled_from(PACKS), min_size=1, unique=True)), 100_000)
    entries = {}
    for one in draw(st.lists(IDS, unique=True, max_size=12)):
        depth = draw(st.integers(0, 3))
        entries[one] = Location(
            draw(st.sampled_from(sorted(packs))),
            draw(st.integers(48, 9000)),
            draw(st.integers(0, 9000)),
            draw(st.integers(0, 65536)),
            depth,
            draw(IDS) if depth else None,
        )
    return entries, packs


@pytest.mark.property
@given(st.lists(segments(), max_size=4), st.lists(IDS, max_size=10))
def test_of_many_entries_of_a_chunk_the_first_of_the_lowest_depth_is_found(
    written: list[tuple[dict[bytes, Location], dict[str, int]]], asked: list[bytes]
) -> None:
    index = Index()
    model: dict[bytes, Location] = {}
    for number, (entries, packs) in enumerate(written):
        index.add(f"index/{number}", build_segment(entries.items(), packs))
        for one, place in entries.items():
            if one not in model or place.depth < model[one].depth:
                model[one] = place
        assert index.find_all([*model, *asked]) == [*model.values(), *(model.get(one) for one in asked)]
    assert [index.find(one) for one in asked] == [model.get(one) for one in asked]
    assert index.find_all([]) == []
    assert len(index) == sum(len(entries) for entries, _ in written)


@pytest.mark.property
@given(st.lists(segments(), min_size=1, max_size=3), st.sets(st.sampled_from(PACKS)))
def test_a_copy_in_a_pack_that_is_not_damaged_is_preferred(
    written: list[tuple[dict[bytes, Location], dict[str, int]]], bad: set[str]
) -> None:
    index = Index()
    for number, (entries, packs) in enumerate(written):
        index.add(f"index/{number}", build_segment(entries.items(), packs))
    for pack in bad:
        assert index.distrust(pack) == (pack in index.packs)
        assert not index.distrust(pack)
    for one in itertools.chain.from_iterable(entries for entries, _ in written):
        copies = [entries[one] for entries, _ in written if one in entries]
        place = index.find(one)
        assert place is not None
        assert index.trusts(place) == any(copy.pack not in bad for copy in copies)


def test_packs_and_segments_are_remembered() -> None:
    index = Index()
    place = Location(PACKS[1], 52, 10, 20, 0, None)
    index.add("index/a", build_segment([(b"a" * 16, place)], {PACKS[1]: 100, PACKS[2]: 200}))
    index.add("index/b", build_segment([], {PACKS[3]: 48}))
    assert index.packs == {PACKS[1]: 100, PACKS[2]: 200, PACKS[3]: 48}
    assert index.segments == {"index/a": (PACKS[1], PACKS[2]), "index/b": (PACKS[3],)}


def test_an_empty_index_finds_nothing() -> None:
    assert Index().find(bytes(16)) is None
    assert Index().find_all([bytes(16), b"x" * 16]) == [None, None]
    assert len(Index()) == 0


GOOD = build_segment(
    [
        (b"a" * 16, Location(PACKS[0], 52, 100, 200, 0, None)),
        (b"b" * 16, Location(PACKS[1], 152, 100, 200, 1, b"a" * 16)),
    ],
    {PACKS[0]: 152, PACKS[1]: 252},
)


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": GOOD.ids[:-1]},
        {"ids": GOOD.ids[:16]},
        {"ids": GOOD.ids + b"c" * 16},
        {"pack": u32(0)},
        {"pack": u32(0, 2)},
        {"pack": u32(0, 0xFFFFFFFF)},
        {"pack": u32(0, 1) + b"x"},
        {"offset": u32(52, 47)},
        {"offset": u32(53, 152)},
        {"offset": u32(52, 0xFFFFFFFF)},
        {"length": u32(101, 100)},
        {"length": u32(100, 0xFFFFFFFF)},
        {"raw": u32(200, (1 << 26) + 1)},
        {"raw": b""},
        {"depth": b"\0"},
        {"depth": b"\1\1"},
        {"depth": b"\0\0"},
        {"bases": b""},
        {"bases": b"a" * 15},
        {"packs": [bytes(32)]},
        {"packs": [bytes(32), b"short"]},
        {"sizes": [152]},
        {"sizes": [152, -1]},
        {"sizes": [152, 47]},
        {"sizes": [152, 1 << 63]},
        {"packs": [], "sizes": []},
    ],
)
def test_a_segment_that_contradicts_itself_is_damage_and_leaves_the_index_as_it_was(change: dict[str, object]) -> None:
    index = Index()
    index.add("index/good", GOOD)
    with pytest.raises(DamagedError, match="index/bad") as error:
        index.add("index/bad", msgspec.structs.replace(GOOD, **change))
    assert error.value.obj == "index/bad"
    assert len(index) == 2
    assert list(index.segments) == ["index/good"]
    assert index.find(b"b" * 16) == Location(PACKS[1], 152, 100, 200, 1, b"a" * 16)


@pytest.mark.property
@given(
    st.builds(
        Segment,
        packs=st.lists(st.binary(max_size=33), max_size=2),
        sizes=st.lists(st.integers(-1, 300), max_size=2),
        ids=st.binary(max_size=40),
        pack=st.binary(max_size=9),
        offset=st.binary(max_size=9),
        length=st.binary(max_size=9),
        raw=st.binary(max_size=9),
        depth=st.binary(max_size=3),
        bases=st.binary(max_size=33),
    )
)
@settings(max_examples=200)
def test_any_segment_is_taken_in_or_is_damage(segment: Segment) -> None:
    index = Index()
    with contextlib.suppress(DamagedError):
        index.add("index/x", segment)
        assert len(segment.ids) == 16 * len(index)
    assert index.find(bytes(16)) is None or len(index)

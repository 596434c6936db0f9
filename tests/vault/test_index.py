import itertools
import random
import threading
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.vault.index import Index, Location, pack_key
from memkeep.vault.segment import build_segment, read_segment

PACKS = [pack_key(bytes([number]) * 32) for number in range(4)]
# Few halves, so that ids share the first or the last.
HALVES = st.sampled_from([bytes(8), bytes(7) + b"\1", b"\xff" * 8, b"\1" + bytes(7), b"\x80" + bytes(7)])
APART_AND_MERGED = pytest.mark.parametrize("small", [0, 1 << 20], ids=["apart", "merged"])
IDS = st.builds(lambda head, tail: head + tail, HALVES, HALVES)


def add(index: Index, key: str, entries: Iterable[tuple[bytes, Location]], packs: dict[str, int]) -> None:
    """Take in a segment as one that was read."""
    index.add(key, read_segment(key, build_segment(entries, packs)))


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


@APART_AND_MERGED
@pytest.mark.property
@given(written=st.lists(segments(), max_size=4), asked=st.lists(IDS, max_size=10))
def test_of_many_entries_of_a_chunk_the_first_of_the_lowest_depth_is_found(
    small: int, written: list[tuple[dict[bytes, Location], dict[str, int]]], asked: list[bytes]
) -> None:
    index = Index(small)
    model: dict[bytes, Location] = {}
    for number, (entries, packs) in enumerate(written):
        add(index, f"index/{number}", entries.items(), packs)
        for one, place in entries.items():
            if one not in model or place.depth < model[one].depth:
                model[one] = place
        assert index.find_all([*model, *asked]) == [*model.values(), *(model.get(one) for one in asked)]
    assert [index.find(one) for one in asked] == [model.get(one) for one in asked]
    assert index.find_all([]) == []
    assert len(index) == sum(len(entries) for entries, _ in written)


@APART_AND_MERGED
@pytest.mark.property
@given(written=st.lists(segments(), min_size=1, max_size=3), bad=st.sets(st.sampled_from(PACKS)))
def test_a_copy_in_a_pack_that_is_not_damaged_is_preferred(
    small: int, written: list[tuple[dict[bytes, Location], dict[str, int]]], bad: set[str]
) -> None:
    index = Index(small)
    for number, (entries, packs) in enumerate(written):
        add(index, f"index/{number}", entries.items(), packs)
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
    add(index, "index/a", [(b"a" * 16, place)], {PACKS[1]: 100, PACKS[2]: 200})
    add(index, "index/b", [], {PACKS[3]: 48})
    assert index.packs == {PACKS[1]: 100, PACKS[2]: 200, PACKS[3]: 48}
    assert index.segments == {"index/a": (PACKS[1], PACKS[2]), "index/b": (PACKS[3],)}


def test_an_empty_index_finds_nothing() -> None:
    assert Index().find(bytes(16)) is None
    assert Index().find_all([bytes(16), b"x" * 16]) == [None, None]
    assert len(Index()) == 0


def test_many_small_segments_become_few_runs_and_large_ones_stay_as_they_are() -> None:
    index = Index()
    rng = random.Random(1)
    places = {}
    for number, count in enumerate([5000, *[20] * 300, 9000, *[20] * 300]):
        entries = {
            rng.randbytes(16): Location(
                PACKS[number % 4], 48 + rng.randrange(900), 9, 9, depth, b"b" * 16 if depth else None
            )
            for depth in rng.choices([0, 0, 3], k=count)
        }
        places |= entries
        add(index, f"index/{number}", entries.items(), dict.fromkeys(PACKS, 1000))
        if number % 50 == 0:
            assert index.find_all(list(entries)) == list(entries.values())
    assert index.find_all(list(places)) == list(places.values())
    assert len(index._runs) <= 6
    assert len(index) == len(places) == 26_000
    assert {5000, 9000} <= {len(run) for run in index._runs}


def test_look_ups_are_right_while_segments_are_added() -> None:
    index = Index()
    rng = random.Random(2)
    segments = [
        {rng.randbytes(16): Location(PACKS[0], 48 + number, 9, 9, 0, None) for _ in range(60)} for number in range(150)
    ]
    wrong = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            known = segments[: len(index.segments)]
            wrong.extend(one for one in known if index.find_all(list(one)) != list(one.values()))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number, entries in enumerate(segments):
        add(index, f"index/{number}", entries.items(), {PACKS[0]: 1000})
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_takes_little_memory() -> None:
    index = Index()
    rng = random.Random(3)
    count = 40_000
    entries = [
        (rng.randbytes(16), Location(PACKS[0], 48, 9, 9, n % 2, b"b" * 16 if n % 2 else None)) for n in range(count)
    ]
    plain = build_segment(entries, {PACKS[0]: 1000})
    tracemalloc.start()
    index.add("index/a", read_segment("index/a", plain))
    assert index.find(entries[0][0]) == entries[0][1]
    taken = len(plain) + tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken / count < 60

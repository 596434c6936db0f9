from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from memkeep.errors import DamagedError
from memkeep.storage.memory import MemoryStorage
from memkeep.vault import chains, codec, crypto
from memkeep.vault import format as layout
from memkeep.vault.chains import prove, windows
from memkeep.vault.codec import CHUNK
from memkeep.vault.index import Location
from memkeep.vault.reader import split_ids
from memkeep.vault.segment import build_segment
from memkeep.vault.vault import Vault

Reopen = Callable[[], Vault]
DAYS = 6
CHUNKS = 8


@pytest.fixture
def days(vault: Vault) -> list[list[bytes]]:
    """Write one file on six days, of which each changes every chunk; return its chunks by day."""
    data = bytearray(np.random.default_rng(1).bytes(CHUNKS * CHUNK))
    recipe = None
    found = []
    for day in range(DAYS):
        for chunk in range(CHUNKS):
            data[chunk * CHUNK + day] ^= 0xFF
        with vault.writer() as writer:
            recipe = writer.put_stream([bytes(data)], recipe)
            writer.flush()
        found.append(split_ids(recipe.ids))
    return found


def proven(vault: Vault, chunks: set[bytes]) -> dict[bytes, DamagedError]:
    lost: dict[bytes, DamagedError] = {}
    for _, some in prove(vault.reader, vault.reader.closure(chunks)):
        lost |= some
    return lost


def test_every_chunk_comes_right_after_its_base_or_after_others_that_need_that_base() -> None:
    ids = [bytes([number]) * 16 for number in range(7)]
    bases = [None, 0, 1, 0, None, 4, 4]
    places = {
        one: Location(
            "data/x", 900 - number, 400 << 10, 1, 0 if base is None else 1, None if base is None else ids[base]
        )
        for number, (one, base) in enumerate(zip(ids, bases, strict=True))
    }
    order = [one for window in windows(places) for one in window]
    assert [ids.index(one) for one in order] == [4, 6, 5, 0, 3, 1, 2]
    assert len(list(windows({one: place._replace(length=5 << 20) for one, place in places.items()}))) == 7


def test_each_chunk_is_decoded_once_for_all_snapshots(
    vault: Vault, days: list[list[bytes]], reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = {one for day in days for one in day}
    assert len(everything) == DAYS * CHUNKS
    decoded: Counter[bytes] = Counter()
    original = codec.Coder.decode

    def count(coder: codec.Coder, blob: bytes, base: bytes, name: str) -> bytes:
        decoded[blob] += 1
        return original(coder, blob, base, name)

    monkeypatch.setattr(codec.Coder, "decode", count)
    found = reopen()
    # The newest need all those before them as bases.
    assert proven(found, set(days[-1])) == {}
    assert len(decoded) == DAYS * CHUNKS
    assert set(decoded.values()) == {1}
    decoded.clear()
    assert proven(found, everything) == {}
    assert set(decoded.values()) == {1}


@pytest.mark.parametrize("job", [1, 1 << 30], ids=["many jobs", "one job"])
@pytest.mark.damage
def test_a_changed_byte_loses_the_chunk_and_all_that_need_it(
    vault: Vault,
    storage: MemoryStorage,
    days: list[list[bytes]],
    reopen: Reopen,
    monkeypatch: pytest.MonkeyPatch,
    job: int,
) -> None:
    monkeypatch.setattr(chains, "_JOB_BYTES", job)
    place = vault.index.find(days[2][3])
    assert place is not None
    bad = bytearray(storage.objects[place.pack])
    bad[place.offset + place.length // 2] ^= 1
    storage.objects[place.pack] = bytes(bad)
    lost = proven(reopen(), {one for day in days for one in day})
    assert lost.keys() == {day[3] for day in days[2:]}
    assert {error.obj for error in lost.values()} == {place.pack}


@pytest.mark.damage
def test_a_missing_pack_loses_what_it_held_and_all_that_need_it(
    vault: Vault, storage: MemoryStorage, days: list[list[bytes]], reopen: Reopen
) -> None:
    place = vault.index.find(days[4][0])
    assert place is not None
    del storage.objects[place.pack]
    lost = proven(reopen(), {one for day in days for one in day})
    assert lost.keys() == {one for day in days[4:] for one in day}
    assert {error.obj for error in lost.values()} == {place.pack}


@pytest.mark.damage
def test_what_was_stored_again_elsewhere_is_not_lost(
    vault: Vault, storage: MemoryStorage, days: list[list[bytes]], reopen: Reopen
) -> None:
    raws = {one: vault.reader.chunk(one) for one in days[0]}
    first = vault.index.find(days[0][0])
    assert first is not None
    vault.index.distrust(first.pack)
    with vault.writer() as writer:
        assert [writer.put_blob(raw) for raw in raws.values()] == days[0]
        writer.flush()
    storage.objects[first.pack] = storage.objects[first.pack][:-1] + b"x"
    assert proven(reopen(), {one for day in days for one in day}) == {}


@pytest.mark.damage
def test_chains_that_go_round_are_lost_and_keep_nothing_else_from_being_proven(
    vault: Vault, days: list[list[bytes]], reopen: Reopen
) -> None:
    (pack, *_), *_ = vault.index.segments.values()
    ids = [bytes([number]) * 16 for number in range(3)]
    entries = [(one, Location(pack, 52, 100, CHUNK, 1, ids[(number + 1) % 3])) for number, one in enumerate(ids)]
    data = vault.keys.envelope(crypto.INDEX, build_segment(entries, vault.index.packs))
    vault.storage.put_new(layout.INDEX + layout.digest_of(data), [data])
    lost = proven(reopen(), {ids[0], *days[-1]})
    assert lost.keys() == set(ids)
    assert all("does not end" in error.message for error in lost.values())

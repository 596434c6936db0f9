import threading
from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memkeep.errors import DamagedError, MemkeepError, StoreError
from memkeep.model import Recipe, Run
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import codec, crypto, opening, writer
from memkeep.vault import format as layout
from memkeep.vault.codec import CHUNK, PAGE
from memkeep.vault.index import Index, Location
from memkeep.vault.reader import Reader
from memkeep.vault.segment import build_segment
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Blocks, Writer, block_digest

Reopen = Callable[[], Vault]


def noise(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def vectors(count: int, seed: int, dims: int = 256) -> bytes:
    return (np.random.default_rng(seed).standard_normal((count, dims)) * 0.05).astype("<f4").tobytes()


def stored(storage: MemoryStorage, prefix: str = "") -> int:
    return sum(stat.size for stat in storage.list(prefix))


EDITS = st.tuples(
    st.sampled_from(["byte", "page", "append", "cut", "insert", "other", "remove"]), st.integers(0, 2**31)
)
DAYS = st.lists(
    st.lists(st.tuples(st.sampled_from(["a.db", "b.db", "näme with spaces"]), EDITS), max_size=4), max_size=4
)


def edited(data: bytes, edit: tuple[str, int]) -> bytes | None:
    kind, seed = edit
    raw = bytearray(data)
    at = seed % max(1, len(raw))
    if kind == "remove":
        return None
    if kind == "append":
        raw += noise(seed % (3 * CHUNK), seed)
    elif kind == "other" or not raw:
        raw = bytearray(vectors(seed % 200, seed))
    elif kind == "byte":
        raw[at] ^= 1 + seed % 255
    elif kind == "page":
        at -= at % PAGE
        raw[at : at + PAGE] = noise(PAGE, seed)
    elif kind == "cut":
        del raw[at:]
    else:
        raw[at:at] = b"inserted"
    return bytes(raw)


@pytest.mark.property
@given(DAYS, st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_snapshot_is_what_a_plain_copy_of_that_day_would_be(
    days: list[list[tuple[str, tuple[str, int]]]],
    encrypted: bool,  # noqa: FBT001 - drawn
    check: bool,  # noqa: FBT001 - drawn
) -> None:
    storage = MemoryStorage()
    vault, _ = opening.create(storage, "pw" if encrypted else None)
    model: list[dict[str, bytes]] = []
    files = {"a.db": noise(100_000, 1) + vectors(150, 2), "empty": b""}
    for number, edits in enumerate([[], *days]):
        for name, edit in edits:
            data = edited(files.get(name, b""), edit)
            files = {other: files[other] for other in files if other != name} | (
                {name: data} if data is not None else {}
            )
        take(vault, files, created=f"2026-01-{number + 1:02}", check=check)
        model.append(files)
    for found in (vault, opening.open_vault(storage, "pw" if encrypted else None)):
        assert [read(found, snapshot) for snapshot in found.snapshots()] == model
        assert found.damaged == []


def test_what_the_vault_has_is_not_stored_again(vault: Vault, storage: MemoryStorage, reopen: Reopen) -> None:
    data = noise(10 * CHUNK + 77, 1)
    take(vault, {"a": data, "again": data, "part": data[: 3 * CHUNK]}, created="1")
    assert stored(storage, layout.DATA) < 1.02 * len(data)
    before = stored(storage, layout.DATA)
    take(reopen(), {"renamed": data}, created="2")
    assert stored(storage, layout.DATA) - before < 2000  # the new image
    assert len(list(storage.list(layout.DATA))) == 2


def test_a_day_without_changes_writes_no_pack(vault: Vault, storage: MemoryStorage, reopen: Reopen) -> None:
    files = {"a": noise(5 * CHUNK, 1), "b": b""}
    first = take(vault, files, created="1")
    objects = set(storage.objects)
    second = take(reopen(), files, created="2")
    assert {key.split("/")[0] for key in set(storage.objects) - objects} == {"snapshots", "seals"}
    assert second.added_bytes < 1000 < first.added_bytes
    assert second.parts == first.parts


def test_a_changed_page_costs_a_page(vault: Vault, storage: MemoryStorage, reopen: Reopen) -> None:
    data = bytearray(noise(40 * CHUNK, 1))
    take(vault, {"a": bytes(data)}, created="1")
    before = stored(storage, layout.DATA)
    for chunk in (3, 17, 30):
        data[chunk * CHUNK + 5000 : chunk * CHUNK + 5100] = bytes(100)
    snapshot = take(reopen(), {"a": bytes(data)}, created="2")
    assert stored(storage, layout.DATA) - before < 3 * PAGE
    assert read(reopen(), snapshot) == {"a": bytes(data)}


def test_what_was_added_is_counted_once_and_in_full(vault: Vault, storage: MemoryStorage, reopen: Reopen) -> None:
    before = stored(storage)
    snapshot = take(vault, {"a": noise(40 << 20, 1)}, created="1")
    assert len(list(storage.list(layout.DATA))) == 3
    seals = stored(storage, layout.SEALS) - stored(storage, layout.SEALS + "00000001")
    assert snapshot.added_bytes == stored(storage) - before - seals
    assert reopen().snapshots()[0] == snapshot


def test_chains_of_deltas_end_and_every_day_stays_readable(
    vault: Vault, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_DEPTH", 18)
    data = bytearray(noise(6 * CHUNK, 1))
    days = []
    for day in range(30):
        for chunk in range(6):
            data[chunk * CHUNK + day] ^= 0xFF
        days.append(bytes(data))
        take(vault, {"a": days[-1]}, created=f"{day:02}")
    found = reopen()
    assert [read(found, snapshot)["a"] for snapshot in found.snapshots()] == days
    recipes = [part.image for snapshot in found.snapshots() for part in snapshot.parts if part.image]
    named = {one for recipe in recipes for one in ids_of(recipe)}
    named |= {
        one
        for snapshot in found.snapshots()
        for part in snapshot.parts
        for stored in found.image(part).entries
        if stored.recipe
        for one in ids_of(stored.recipe)
    }
    depths = [place.depth for place in found.reader.closure(named).values()]
    assert 2 < max(depths) <= 18
    assert depths.count(0) > 6


@pytest.mark.property
@given(st.lists(st.tuples(st.binary(max_size=3000), st.integers(-1, 4)), max_size=12))
@settings(max_examples=50, deadline=None)
def test_blobs_come_back_in_order_whatever_they_are_based_on(blobs: list[tuple[bytes, int]]) -> None:
    vault, _ = opening.create(MemoryStorage(), None)
    ids: list[bytes] = []
    raws = [(raw * 30, base) for raw, base in blobs]
    for half in (raws[::2], raws[1::2]):
        with vault.writer() as one:
            made = [one.put_blob(raw, ids[base] if 0 <= base < len(ids) else None) for raw, base in half]
            one.flush()
        ids += made
    wanted = [raw for half in (raws[::2], raws[1::2]) for raw, _ in half]
    assert list(vault.reader.chunks(ids)) == wanted
    assert [vault.reader.chunk(one) for one in ids] == wanted


def test_a_blob_costs_what_is_new_against_its_base(vault: Vault, storage: MemoryStorage) -> None:
    base = b"".join(b'{"id": %d, "text": "%s"}' % (n, noise(40, n).hex().encode()) for n in range(200))
    raw = base.replace(b'{"id": 7,', b'{"id": 7, "new": true,')
    with vault.writer(check=True) as one:
        first = one.put_blob(base)
        one.flush()
        before = stored(storage, layout.DATA)
        second = one.put_blob(raw, first)
        assert one.put_blob(raw, second) == second
        one.flush()
    assert stored(storage, layout.DATA) - before < 300
    assert one.checked == {first, second}
    assert vault.reader.chunk(second) == raw


def test_a_piece_that_no_vault_can_hold_is_refused(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_CHUNK", 1000)
    with vault.writer() as one:
        one.put_blob(bytes(1000))
        with pytest.raises(MemkeepError, match="1001 bytes") as error:
            one.put_blob(bytes(1001))
        assert error.value.code == "too_large"
        one.flush()


# -- vectors ----------------------------------------------------------------------------------------------------

STRIDE = 1024


def blocks_of(recipe: Recipe, vault: Vault) -> Blocks:
    """Return where every vector of a file lies, as `ops.blocks` does it, by reading the file."""
    known: dict[bytes, tuple[bytes, int]] = {}
    ids = [recipe.ids[at : at + 16] for at in range(0, len(recipe.ids), 16)]
    starts = np.frombuffer(recipe.starts, "<u4").tolist()
    lengths = np.frombuffer(recipe.lengths, "<u4").tolist()
    for one, start, length in zip(ids, starts, lengths, strict=True):
        raw = vault.reader.chunk(one)
        for at in range(start, start + length - STRIDE + 1, STRIDE):
            known.setdefault(block_digest(raw[at : at + STRIDE]), (one, at))
    return Blocks(known)


def put_blocks(vault: Vault, data: bytes, runs: tuple[Run, ...], known: Blocks | None, cuts: int = 99_991) -> Recipe:
    with vault.writer(check=True) as one:
        recipe = one.put_blocks([data[at : at + cuts] for at in range(0, len(data), cuts)], runs, known)
        one.flush()
    assert vault.reader.read(recipe) == data
    assert recipe.size == len(data)
    return recipe


def test_vectors_that_a_compaction_moved_are_found_again(vault: Vault, storage: MemoryStorage) -> None:
    head, tail = b"header" * 100, b"footer" * 2000
    rows = [vectors(1, seed) for seed in range(500)]
    first = put_blocks(vault, head + b"".join(rows) + tail, (Run(offset=600, count=500, stride=STRIDE),), None)
    before = stored(storage, layout.DATA)
    order = np.random.default_rng(1).permutation(500).tolist()
    moved = [rows[n] for n in order[:300]] + [vectors(1, 1000 + n) for n in range(20)] + [rows[n] for n in order[300:]]
    data = b"other header" * 7 + b"".join(moved) + tail
    second = put_blocks(vault, data, (Run(offset=84, count=520, stride=STRIDE),), blocks_of(first, vault))
    assert stored(storage, layout.DATA) - before < 20 * STRIDE + 3000
    assert second.runs == (Run(offset=84, count=520, stride=STRIDE),)
    third = put_blocks(vault, data[:-5] + b"12345", second.runs, blocks_of(second, vault))
    assert len(third.ids) < 16 * 600
    assert vault.reader.read(first) == head + b"".join(rows) + tail


def test_vectors_are_cut_alike_whether_or_not_others_are_known(vault: Vault) -> None:
    data = b"head" * 50 + vectors(700, 1, dims=750) + b"foot" * 9
    run = (Run(offset=200, count=700, stride=3000),)
    assert put_blocks(vault, data, run, None) == put_blocks(vault, data, run, Blocks({}))


def test_a_writer_tells_of_every_pack_as_soon_as_it_is_there(vault: Vault, storage: MemoryStorage) -> None:
    told = []
    with vault.writer(stored=lambda pack: told.append((pack, storage.stat(pack).size))) as one:
        for seed in range(3):
            one.put_blob(noise(writer.PACK_SIZE - 1000, seed))
        one.flush()
    assert sorted(told) == sorted((stat.key, stat.size) for stat in storage.list(layout.DATA))


@pytest.mark.property
@given(
    st.integers(0, 60_000),
    st.lists(
        st.builds(Run, offset=st.integers(0, 70_000), count=st.integers(-1, 40), stride=st.integers(0, 3000)),
        max_size=4,
    ),
    st.integers(1, 70_000),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_runs_are_claimed_the_file_comes_back(
    size: int,
    runs: list[Run],
    cuts: int,
    known: bool,  # noqa: FBT001 - drawn
) -> None:
    vault, _ = opening.create(MemoryStorage(), None)
    data = vectors(60_000 // STRIDE + 1, 1)[:size]
    blocks = None
    if known:
        blocks = blocks_of(put_blocks(vault, data, (Run(offset=0, count=size // STRIDE, stride=STRIDE),), None), vault)
    recipe = put_blocks(vault, data, tuple(runs), blocks, cuts)
    assert all(run.offset + run.count * run.stride <= size for run in recipe.runs)


# -- when things go wrong ------------------------------------------------------------------------------------------


def test_a_source_that_fails_half_way_leaves_a_writer_that_loses_nothing(vault: Vault, reopen: Reopen) -> None:
    data = noise(70 * CHUNK, 1)

    def source(until: int) -> Iterator[bytes]:
        for at in range(0, len(data), CHUNK):
            if at >= until:
                message = "the disk of the store failed"
                raise StoreError(message)
            yield data[at : at + CHUNK]

    with vault.writer() as one:
        for until in (3 * CHUNK, 50 * CHUNK):
            with pytest.raises(StoreError, match="the disk of the store"):
                one.put_stream(source(until))
        recipe = one.put_stream(source(len(data)))
        one.flush()
    assert reopen().reader.read(recipe) == data


def test_two_writers_at_once_may_store_the_same(vault: Vault, reopen: Reopen) -> None:
    base = noise(8 * CHUNK, 1)
    take(vault, {"a": base}, created="0")
    changed = bytearray(base)
    changed[100] ^= 1
    others = [reopen(), reopen()]
    start = threading.Barrier(2)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait()
            take(others[number], {"a": bytes(changed), f"own {number}": noise(CHUNK, number)}, created=f"{number + 1}")
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = reopen()
    assert [read(found, snapshot)["a"] for snapshot in found.snapshots()] == [base, bytes(changed), bytes(changed)]
    vault.refresh()
    assert [read(vault, snapshot)["a"] for snapshot in vault.snapshots()] == [base, bytes(changed), bytes(changed)]


def test_deltas_that_lean_on_each_other_in_two_segments_are_read_by_the_full_copies(
    vault: Vault, storage: MemoryStorage
) -> None:
    one, other = noise(CHUNK, 1), bytearray(noise(CHUNK, 1))
    other[5] ^= 1
    # Two writers that knew nothing of each other: each stored one of the chunks whole and the other as a delta.
    for first, second in ((one, bytes(other)), (bytes(other), one)):
        index = Index()
        with Writer(storage, vault.keys, index, Reader(storage, vault.keys, index)) as writing:
            recipe = writing.put_stream([first])
            writing.flush()
            writing.put_stream([second], recipe)
            writing.flush()
    found = opening.open_vault(storage, "correct horse")
    assert len(found.index) == 4
    with found.writer() as writing:
        ids = [writing.put_blob(one), writing.put_blob(bytes(other))]
    places = found.index.find_all(ids)
    assert [place.depth for place in places if place] == [0, 0]
    assert [found.reader.chunk(one) for one in ids] == [one, bytes(other)]


def add_segment(vault: Vault, entries: Iterable[tuple[bytes, Location]], packs: dict[str, int]) -> str:
    """Write an index segment as someone with the key could."""
    data = vault.keys.envelope(crypto.INDEX, build_segment(entries, packs))
    key = layout.INDEX + layout.digest_of(data)
    vault.storage.put_new(key, [data])
    return key


def test_an_index_that_goes_round_in_circles_is_damage(vault: Vault, reopen: Reopen) -> None:
    recipe_of(vault, noise(CHUNK, 1))
    (pack,) = vault.index.packs
    ids = [bytes([number]) * 16 for number in range(4)]
    entries = [(one, Location(pack, 52, 100, CHUNK, 1, ids[(number + 1) % 4])) for number, one in enumerate(ids)]
    entries.append((b"x" * 16, Location(pack, 52, 100, CHUNK, 1, b"x" * 16)))
    add_segment(vault, entries, vault.index.packs)
    found = reopen()
    assert found.reader.closure({ids[0]}).keys() == set(ids)
    for one in (ids[0], b"x" * 16):
        with pytest.raises(DamagedError, match="does not end") as error:
            found.reader.chunk(one)
        assert error.value.obj == pack
        with pytest.raises(DamagedError):
            list(found.reader.chunks([one] * 3))


@pytest.mark.parametrize("change", ["offset", "length", "raw", "base"])
def test_an_index_that_says_something_else_of_a_chunk_is_damage(
    vault: Vault, storage: MemoryStorage, reopen: Reopen, change: str
) -> None:
    recipe = recipe_of(vault, noise(3 * CHUNK, 1))
    one, base = recipe.ids[:16], recipe.ids[16:32]
    good, other = vault.index.find_all([one, base])
    assert good is not None
    assert other is not None
    bad = {
        "offset": good._replace(offset=good.offset + 1),
        "length": good._replace(length=good.length - 1),
        "raw": good._replace(raw=good.raw - 1),
        "base": good._replace(base=base, depth=1),
    }[change]
    for key in vault.index.segments:
        del storage.objects[key]
    add_segment(vault, [(one, bad), (base, other)], vault.index.packs)
    with pytest.raises(DamagedError) as error:
        reopen().reader.chunk(one)
    assert error.value.obj == good.pack
    assert len(reopen().reader.chunk(base)) == CHUNK


@pytest.mark.damage
def test_without_encryption_a_changed_byte_is_found_by_the_id_of_its_chunk() -> None:
    storage = MemoryStorage()
    vault, _ = opening.create(storage, None)
    data = vectors(200, 1) + noise(5000, 2) + b"text " * 3000
    recipe = recipe_of(vault, data)
    changed = bytearray(data)
    changed[70_000] ^= 1
    with vault.writer() as one:
        later = one.put_stream([bytes(changed)], recipe)
        one.flush()
    ids = ids_of(recipe) + ids_of(later)
    wanted = dict(zip(ids, vault.reader.chunks(ids), strict=True))
    found = 0
    for pack in vault.index.packs:
        good = storage.objects[pack]
        for place in range(48, len(good), 997):
            storage.objects[pack] = good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :]
            reader = opening.open_vault(storage, None).reader
            for chunk, raw in wanted.items():
                try:
                    assert reader.chunk(chunk) == raw
                except DamagedError as error:
                    found += error.obj == pack
        storage.objects[pack] = good
    assert found > sum(vault.index.packs.values()) // 997


def ids_of(recipe: Recipe) -> list[bytes]:
    return [recipe.ids[at : at + 16] for at in range(0, len(recipe.ids), 16)]


def recipe_of(vault: Vault, data: bytes) -> Recipe:
    with vault.writer() as one:
        recipe = one.put_stream([data])
        one.flush()
    return recipe


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": 5}, "does not add up"),
        ({"size": -1}, "does not add up"),
        ({"ids": bytes(15)}, "does not add up"),
        ({"ids": b""}, "does not add up"),
        ({"starts": b"\0"}, "does not add up"),
        ({"lengths": bytes(4)}, "does not add up"),
        ({"lengths": b"", "size": 0}, "does not add up"),
        ({"starts": b"\1\0\0\0" + bytes(4)}, "shorter than a recipe says"),
        ({"starts": b"\xff\xff\xff\xff" + bytes(4)}, "shorter than a recipe says"),
        ({"digest": bytes(32)}, "does not have the digest"),
        ({"digest": b""}, "does not have the digest"),
        ({"ids": bytes(32)}, "in no index segment"),
    ],
)
def test_a_recipe_that_does_not_fit_is_damage(vault: Vault, change: dict[str, object], says: str) -> None:
    recipe = recipe_of(vault, noise(CHUNK + 100, 1))
    assert len(vault.reader.read(recipe)) == CHUNK + 100
    with pytest.raises(DamagedError, match=says):
        vault.reader.read(msgspec.structs.replace(recipe, **change))


def test_a_reader_that_stops_early_leaves_nothing_behind(vault: Vault) -> None:
    recipe = recipe_of(vault, noise(300 * CHUNK, 1))
    stream = vault.reader.stream(recipe)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("memkeep-read")]


def test_a_damaged_image_names_the_snapshot(vault: Vault, reopen: Reopen) -> None:
    snapshot = take(vault, {"a": b"data"}, created="1")
    with vault.writer() as one:
        wrong = one.put_stream([b"\xc1 no image"], text=True)
        listed = msgspec.structs.replace(snapshot.parts[0], image=wrong)
        missing = msgspec.structs.replace(snapshot.parts[0], name="missing", image=None)
        bad = one.commit(msgspec.structs.replace(snapshot, created="2", parts=(listed, missing)), *vault.next_seal())
    found = reopen()
    for part in found.resolve(bad.id).parts:
        with pytest.raises(DamagedError) as error:
            found.image(part)
        assert error.value.obj == f"snapshots/{bad.id}"


@pytest.mark.parametrize(
    "run", [Run(offset=-1, count=1, stride=1), Run(offset=0, count=1, stride=0), Run(offset=0, count=5, stride=1)]
)
def test_an_image_with_vectors_outside_of_their_file_is_damage(vault: Vault, run: Run) -> None:
    snapshot = take(vault, {"a": b"data"}, created="1")
    image = vault.image(snapshot.parts[0])
    entry = image.entries[0]
    assert entry.recipe is not None
    recipe = msgspec.structs.replace(entry.recipe, runs=(run,))
    bad = msgspec.structs.replace(image, entries=(msgspec.structs.replace(entry, recipe=recipe),))
    with vault.writer() as one:
        part = msgspec.structs.replace(snapshot.parts[0], image=one.put_stream([msgspec.msgpack.encode(bad)]))
        one.flush()
    with pytest.raises(DamagedError, match="point out of the file"):
        vault.image(part)


def test_a_lost_pack_is_stored_again(vault: Vault, storage: MemoryStorage, reopen: Reopen) -> None:
    data = noise(30 * CHUNK, 1)
    first = take(vault, {"a": data}, created="1")
    (pack,) = [stat.key for stat in storage.list(layout.DATA)]
    del storage.objects[pack]
    found = reopen()
    with pytest.raises(DamagedError) as error:
        read(found, first)
    assert error.value.obj == pack
    # That reading has told the vault that the pack is bad.
    take(found, {"a": data, "b": b"new"}, created="2")
    for one in (found, reopen()):
        assert [read(one, snapshot)["a"] for snapshot in one.snapshots()[1:]] == [data]


def test_a_lost_pack_that_another_thread_has_met_first_is_passed_by_too(
    vault: Vault, storage: MemoryStorage, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(3 * CHUNK, 1)
    first = take(vault, {"a": data}, created="1")
    reading, again = reopen(), reopen()
    (pack,) = [stat.key for stat in storage.list(layout.DATA)]
    del storage.objects[pack]
    again.index.distrust(pack)
    take(again, {"a": data}, created="2")
    reading.refresh()
    distrust = reading.index.distrust
    monkeypatch.setattr(reading.index, "distrust", lambda bad: distrust(bad) and False)
    assert read(reading, first) == {"a": data}


def test_what_was_stored_again_heals_older_snapshots(vault: Vault, storage: MemoryStorage, reopen: Reopen) -> None:
    data = noise(30 * CHUNK, 1)
    first = take(vault, {"a": data}, created="1")
    (pack,) = [stat.key for stat in storage.list(layout.DATA)]
    damaged = bytearray(storage.objects[pack])
    damaged[CHUNK * 5] ^= 1
    storage.objects[pack] = bytes(damaged)
    found = reopen()
    with pytest.raises(DamagedError, match=pack):
        read(found, first)
    take(found, {"a": data}, created="2")
    for one in (found, reopen()):
        assert [read(one, snapshot) for snapshot in one.snapshots()] == [{"a": data}] * 2


def test_chunks_that_an_unreadable_index_segment_named_are_stored_again(
    vault: Vault, storage: MemoryStorage, reopen: Reopen
) -> None:
    data = noise(30 * CHUNK, 1)
    first = take(vault, {"a": data}, created="1")
    (segment,) = [stat.key for stat in storage.list(layout.INDEX)]
    del storage.objects[segment]
    found = reopen()
    with pytest.raises(DamagedError, match="in no index segment"):
        read(found, first)
    with found.writer() as one:
        recipe = one.put_stream([data])
        one.flush()
    assert reopen().reader.read(recipe) == data


def test_at_most_two_packs_are_in_memory(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_SIZE", 1 << 20)
    monkeypatch.setattr(writer, "BATCH_BYTES", 1 << 18)
    written = threading.Event()
    started = threading.Event()
    real = vault.storage.put_new

    def put_new(key: str, data: Iterable[bytes | memoryview]) -> int:
        if key.startswith("data/"):
            started.set()
            assert written.wait(30)
        return real(key, data)

    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for number in range(128):
            taken += 1 << 16
            yield noise(1 << 16, number)

    def run() -> None:
        with vault.writer() as one:
            one.put_stream(source())
            one.flush()

    monkeypatch.setattr(vault.storage, "put_new", put_new)
    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    thread.join(0.5)
    most = taken
    written.set()
    thread.join()
    assert (1 << 20) < most < 5 << 20
    assert taken == 8 << 20

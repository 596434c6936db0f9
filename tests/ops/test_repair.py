"""Repair makes again what can be made again, saves what can be read, and says of the rest exactly what is lost."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from memkeep.errors import DamagedError, StorageError
from memkeep.ops.prune import prune
from memkeep.ops.repair import repair
from memkeep.ops.survey import survey
from memkeep.storage.base import Stat
from memkeep.storage.cache import CachedStorage
from memkeep.storage.memory import MemoryStorage
from memkeep.testing.faults import Call, Fault, FaultyStorage
from memkeep.testing.snapshots import read, take
from memkeep.vault import opening, writer
from memkeep.vault.codec import Coder
from memkeep.vault.crypto import ARGON
from memkeep.vault.reader import chunk_id
from memkeep.vault.vault import Vault
from memkeep.vault.writer import put_segment

Objects = dict[str, bytes]


def days(number: int) -> list[dict[str, bytes]]:
    base = random.Random(1).randbytes(500_000)
    return [
        {"a.db": base[:70_000] + b"day %d" % day + base[70_006:], "log": b"a line, " * (3000 + 900 * day)}
        for day in range(number)
    ]


@pytest.fixture(params=[None, "pw"], ids=["plain", "encrypted"])
def secret(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    for name, value in {"memory_kib": 32, "iterations": 1, "lanes": 1}.items():
        monkeypatch.setitem(ARGON, name, value)
    monkeypatch.setattr(writer, "PACK_SIZE", 200_000)
    given: str | None = request.param
    return given


@pytest.fixture
def objects(secret: str | None) -> Objects:
    """Return the objects of a vault with four days."""
    storage = MemoryStorage()
    vault = opening.create(storage, secret)[0]
    for day, files in enumerate(days(4)):
        take(vault, files, created=f"{day}", check=True)
    return storage.objects


def opened(objects: Objects, secret: str | None) -> Vault:
    storage = MemoryStorage()
    storage.objects = objects
    return opening.open_vault(storage, secret)


def readable(vault: Vault) -> dict[str, dict[str, bytes]]:
    found = {}
    for one in vault.snapshots():
        try:
            found[one.created] = read(vault, one)
        except DamagedError:
            continue
    return found


ALL = {f"{day}": files for day, files in enumerate(days(4))}


def test_a_sound_vault_is_left_as_it_is(objects: Objects, secret: str | None) -> None:
    vault = opened(dict(objects), secret)
    result = repair(vault)
    assert (result.rebuilt_packs, result.saved_chunks, result.removed, result.hurt, result.findings) == (
        0,
        0,
        (),
        (),
        (),
    )
    assert vault.storage.objects == objects  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["drop", "flip", "cut"])
def test_any_segment_and_all_of_them_are_made_again(objects: Objects, secret: str | None, how: str) -> None:
    segments = [key for key in objects if key.startswith("index/")]
    for lost in [*([key] for key in segments), segments]:
        hurt = dict(objects)
        for key in lost:
            data = bytearray(hurt.pop(key))
            data[len(data) // 2] ^= 1
            if how != "drop":
                hurt[key] = bytes(data) if how == "flip" else bytes(data[:50])
        before = dict(hurt)
        tried = repair(opened(hurt, secret), dry_run=True)
        assert hurt == before
        result = repair(opened(hurt, secret))
        assert (result.hurt, result.findings) == ((), ())
        assert (tried.hurt, tried.rebuilt_chunks) == ((), result.rebuilt_chunks)
        assert readable(opened(hurt, secret)) == ALL
        again = repair(opened(hurt, secret))
        assert (again.rebuilt_packs, again.removed, again.findings) == (0, (), ())


def test_one_flipped_bit_costs_one_chunk_and_says_which_files(objects: Objects, secret: str | None) -> None:
    packs = [key for key in objects if key.startswith("data/")]
    for pack in packs:
        hurt = dict(objects)
        data = bytearray(hurt[pack])
        data[len(data) // 2] ^= 16
        hurt[pack] = bytes(data)
        sound = readable(opened(dict(hurt), secret))
        result = repair(opened(hurt, secret))
        assert result.damaged_packs == (pack,)
        after = readable(opened(hurt, secret))
        assert sound.items() <= after.items()
        vault = opened(hurt, secret)
        by_id = {one.id: one for one in vault.snapshots()}
        assert {by_id[one.snapshot].created for one in result.hurt} == ALL.keys() - after.keys()
        for one in result.hurt:
            [part] = one.lost
            if part.whole:
                continue
            image = vault.image(by_id[one.snapshot].parts[0])
            for entry in image.entries:
                assert entry.recipe is not None
                if entry.entry.path in part.files:
                    with pytest.raises(DamagedError):
                        vault.reader.read(entry.recipe)
                else:
                    assert vault.reader.read(entry.recipe) == ALL[by_id[one.snapshot].created][entry.entry.path]
        if not result.hurt:
            assert result.findings == ()
        if result.hurt:
            assert {finding.object for finding in result.findings} == {pack}
        second = repair(opened(hurt, secret))
        assert second.saved_chunks == 0
        assert readable(opened(hurt, secret)) == after


def test_a_dropped_pack_and_a_cut_one_are_told_with_what_they_hurt(objects: Objects, secret: str | None) -> None:
    for pack in [key for key in objects if key.startswith("data/")]:
        for size in (0, 60, len(objects[pack]) - 1, -1):
            hurt = dict(objects)
            if size < 0:
                del hurt[pack]
            else:
                hurt[pack] = hurt[pack][:size]
            result = repair(opened(hurt, secret))
            after = readable(opened(hurt, secret))
            assert len(result.hurt) + len(after) == 4
            assert len(result.whole) == len(after)


def test_a_backup_of_what_the_store_still_has_makes_hurt_snapshots_whole(objects: Objects, secret: str | None) -> None:
    pack = max((key for key in objects if key.startswith("data/")), key=lambda key: len(objects[key]))
    hurt = dict(objects)
    hurt[pack] = hurt[pack][:100]
    assert repair(opened(hurt, secret)).hurt
    vault = opened(hurt, secret)
    vault.index.distrust(pack)  # as a backup that reads back does
    for day, files in enumerate(days(4)):
        take(vault, files, created=f"9{day}")
    result = repair(opened(hurt, secret))
    assert result.hurt == ()
    assert result.findings == ()
    assert readable(opened(hurt, secret)).items() >= ALL.items()


def test_a_damaged_or_lost_entry_of_the_log_is_written_anew(objects: Objects, secret: str | None) -> None:
    for key in [key for key in objects if key.startswith("seals/")]:
        for drop in (True, False):
            hurt = dict(objects)
            data = hurt.pop(key)
            if not drop:
                hurt[key] = data[:-1] + bytes([data[-1] ^ 1])
            assert repair(opened(hurt, secret)).findings == ()
            assert survey(opened(hurt, secret)) == []
            assert readable(opened(hurt, secret)) == ALL


def torn(objects: Objects) -> None:
    """Take away an index segment, cut another, and wipe the end of a pack."""
    segments = [key for key in objects if key.startswith("index/")]
    pack = min((key for key in objects if key.startswith("data/")), key=lambda key: len(objects[key]))
    objects[segments[0]] = objects[segments[0]][:-1]
    for key in segments[1:]:
        del objects[key]
    objects[pack] = objects[pack][:-30] + bytes(30)


def swapped(objects: Objects) -> None:
    """Let two packs change places, and a manifest and an index segment."""
    for prefixes in (("data/", "data/"), ("index/", "snapshots/")):
        one, other = (max(key for key in objects if key.startswith(prefix)) for prefix in prefixes)
        if one == other:
            other = min(key for key in objects if key.startswith("data/"))
        objects[one], objects[other] = objects[other], objects[one]


def emptied(objects: Objects) -> None:
    """Let a manifest end up under the key of a lost index segment, which leaves none."""
    manifest = min(key for key in objects if key.startswith("snapshots/"))
    data = objects.pop(manifest)
    for key in [key for key in objects if key.startswith("index/")]:
        objects[key] = data


@pytest.mark.parametrize("harm", [torn, swapped, emptied])
def test_killed_or_refused_at_any_write_all_that_was_readable_stays(
    objects: Objects, secret: str | None, harm: Callable[[Objects], None]
) -> None:
    start = dict(objects)
    harm(start)
    before = readable(opened(dict(start), secret))
    best = dict(start)
    result = repair(opened(best, secret))
    wanted = readable(opened(best, secret))
    if harm is emptied:
        assert wanted == ALL
    if harm is swapped:
        assert (len(wanted), result.hurt, len(result.lost)) == (3, (), 1)
    for call in ("put_new", "delete"):
        for number in range(1, 30):
            hurt = dict(start)
            storage = MemoryStorage()
            storage.objects = hurt
            fault = Fault(call=call, number=number, kind="refuse", lasting=True)  # type: ignore[arg-type]
            ended = True
            try:
                repair(opening.open_vault(FaultyStorage(storage, fault), secret))
            except StorageError:
                ended = False
            for key in [key for key in hurt if key.startswith("leases/")]:
                del hurt[key]  # it would end by itself
            assert readable(opened(dict(hurt), secret)).items() >= before.items()
            repair(opened(hurt, secret))
            assert readable(opened(hurt, secret)) == wanted
            if ended and call == "put_new":
                break


def test_of_two_segments_for_one_pack_either_may_be_lost(objects: Objects, secret: str | None) -> None:
    vault = opened(objects, secret)
    pack = max(vault.index.packs, key=lambda key: vault.index.packs[key])
    entries = [one for one in vault.index.entries({pack}) if one[1].pack == pack]
    for key, packs in list(vault.index.segments.items()):
        if pack in packs:
            rest = [one for one in vault.index.entries(set(packs)) if one[1].pack != pack]
            put_segment(vault.storage, vault.keys, vault.index, rest, vault.index.packs) if rest else None
            del objects[key]
    half = len(entries) // 2
    sizes = {pack: vault.index.packs[pack]}
    both = [
        put_segment(vault.storage, vault.keys, vault.index, some, sizes)[0] for some in (entries[:half], entries[half:])
    ]
    repair(opened(objects, secret))  # the log lacked some
    for lost in both:
        hurt = dict(objects)
        del hurt[lost]
        result = repair(opened(hurt, secret))
        assert (result.rebuilt_packs, result.hurt, result.findings) == (1, (), ())
        assert result.rebuilt_chunks == (half if lost == both[0] else len(entries) - half)
        assert readable(opened(hurt, secret)) == ALL


def test_deltas_that_are_each_others_base_come_back_as_long_as_one_whole_chunk_is_left(secret: str | None) -> None:
    storage = MemoryStorage()
    vault = opening.create(storage, secret)[0]
    files = [{"a": b"a word and another, " * 900 + b"%d" % day} for day in range(2)]
    for day, some in enumerate(files):
        take(vault, some, created=f"{day}")
    coder = Coder()
    raws = [some["a"] for some in files]
    ids = [chunk_id(vault.keys, raw) for raw in raws]
    before = set(storage.objects)
    for here, there in ((0, 1), (1, 0)):  # as two writers may have done that did not see each other
        with vault.writer() as made:
            made.put_encoded(ids[here], coder.full(raws[here]), len(raws[here]), 0, None)
            made.flush()
            blob = coder.text(raws[there], raws[here], ids[here])
            made.put_encoded(ids[there], blob, len(raws[there]), 1, ids[here])
    new = [key for key in storage.objects if key.startswith("data/") and key not in before]
    full = [key for key in new if len(storage.objects[key]) == max(len(storage.objects[one]) for one in new)]
    for key in [key for key in storage.objects if key.startswith("index/")]:
        del storage.objects[key]
    for gone in range(len(full) + 1):
        hurt = dict(storage.objects)
        for key in full[:gone]:
            del hurt[key]
        assert repair(opened(hurt, secret)).hurt == ()
        assert readable(opened(hurt, secret)) == {f"{day}": some for day, some in enumerate(files)}
    # Nothing but the deltas: none can be read, and the search for what they need ends.
    for key in before:
        if key.startswith("data/"):
            del hurt[key]
    result = repair(opened(hurt, secret))
    assert len(result.hurt) == 2
    assert (result.rebuilt_chunks, readable(opened(hurt, secret))) == (0, {})


def test_deltas_that_a_prune_left_without_their_base_are_let_be(objects: Objects, secret: str | None) -> None:
    vault = opened(objects, secret)
    vault.forget([one.id for one in vault.snapshots()[:3]])
    prune(vault, grace=timedelta(0))
    wanted = readable(opened(dict(objects), secret))
    assert wanted == {"3": ALL["3"]}
    left = dict(objects)
    result = repair(opened(objects, secret))
    assert (result.rebuilt_chunks, result.saved_chunks, result.hurt, result.findings) == (0, 0, (), ())
    assert objects == left
    for key in [key for key in objects if key.startswith("index/")]:
        del objects[key]
    assert repair(opened(objects, secret)).hurt == ()
    assert readable(opened(objects, secret)) == wanted
    take(opened(objects, secret), ALL["1"], created="9")
    assert readable(opened(objects, secret)) == {**wanted, "9": ALL["1"]}


def test_a_damaged_or_lost_manifest_is_named_and_keeps_every_pack(objects: Objects, secret: str | None) -> None:
    for key in [key for key in objects if key.startswith("snapshots/")]:
        for data in (None, b"", objects[key][:-1], bytes(len(objects[key]))):
            hurt = dict(objects)
            hurt.pop(key)
            if data is not None:
                hurt[key] = data
            result = repair(opened(hurt, secret))
            assert (result.lost, result.hurt, len(result.whole)) == ((key.removeprefix("snapshots/"),), (), 3)
            assert {finding.object for finding in result.findings} == {key}
            for pack in [pack for pack in hurt if pack.startswith("data/")]:
                torn_too = {**hurt, pack: hurt[pack][:-1]}
                repair(opened(torn_too, secret))
                assert pack in torn_too  # more may be had of it, when the manifest is back
            hurt[key] = objects[key]  # put back from a copy of the vault
            assert repair(opened(hurt, secret)).findings == ()
            assert readable(opened(hurt, secret)) == ALL


def test_damage_far_away_is_seen_although_a_good_copy_is_kept_here(
    objects: Objects, secret: str | None, tmp_path: Path
) -> None:
    far = MemoryStorage()
    far.objects = objects
    vault = opening.open_vault(CachedStorage(far, tmp_path, 1 << 30), secret)
    for key in [key for key in objects if key.startswith("data/")]:
        vault.storage.get(key)
        objects[key] = objects[key][:-9] + bytes(9)
    assert repair(vault, dry_run=True).damaged_packs
    assert repair(vault).damaged_packs


@pytest.mark.parametrize(
    "tail",
    [
        b"\xff\xff\xff\xff",
        b"\x40\0\0\0short",
        b"\0\0\0\0",
        b"\x05\0\0\0\x01\xff\xff\xff\xff",
        b"\x05\0\0\0\x02\0\0\0\x04",
    ],
)
def test_a_hostile_pack_gives_nothing_and_harms_nothing(objects: Objects, tail: bytes) -> None:
    from hashlib import sha256

    storage = MemoryStorage()
    vault = opening.create(storage, None)[0]
    take(vault, days(1)[0], created="0")
    loop = bytes([3]) + (9).to_bytes(4, "little") + bytes(16)
    data = vault.keys.header(b"P") + len(loop).to_bytes(4, "little") + loop + tail
    name = sha256(data).hexdigest()
    storage.objects[f"data/{name[:2]}/{name}"] = data
    result = repair(opening.open_vault(storage, None))
    assert (result.rebuilt_chunks, result.hurt, result.findings) == (0, (), ())
    assert readable(opening.open_vault(storage, None)) == {"0": days(1)[0]}


class Behind(MemoryStorage):
    """A storage whose lists do not show one object yet."""

    hidden = ""

    def list(self, prefix: str) -> Iterator[Stat]:
        return (stat for stat in super().list(prefix) if stat.key != self.hidden)


def test_what_a_late_list_does_not_show_is_neither_called_lost_nor_given_up(
    objects: Objects, secret: str | None
) -> None:
    for key in objects:
        storage = Behind()
        storage.objects = dict(objects)
        vault = opening.open_vault(storage, secret)
        storage.hidden = key
        assert key not in {one.object for one in survey(vault)}
        result = repair(vault)
        assert (result.hurt, result.damaged_packs, key in result.removed) == ((), (), False)
        sound = opened(storage.objects, secret)
        assert readable(sound) == ALL
        assert survey(sound) == []


@pytest.mark.parametrize("call", ["get", "get_range"])
def test_what_is_given_wrong_once_costs_nothing(objects: Objects, secret: str | None, call: Call) -> None:
    lost = dict(objects)
    del lost[sorted(key for key in lost if key.startswith("index/"))[1]]
    number, calls = 1, 4
    while (number := number + 3) <= calls:  # all of them are tried by the exhaustive tests of tests/faults
        storage = MemoryStorage()
        storage.objects = dict(lost)
        vault = opening.open_vault(storage, secret)
        wrong = FaultyStorage(storage, Fault(call=call, number=number, kind="corrupt"))
        result = repair(Vault(wrong, vault.config, vault.keys))
        calls = sum(made == call for made, _ in wrong.calls)
        assert (result.removed, result.damaged_packs, result.hurt, result.lost) == ((), (), (), ())
        assert lost.keys() <= storage.objects.keys()
        assert readable(opened(storage.objects, secret)) == ALL


def test_nothing_is_removed_when_what_was_written_is_given_back_otherwise(objects: Objects, secret: str | None) -> None:
    segments = [key for key in objects if key.startswith("index/")]
    hurt = dict(objects) | {key: objects[key][:-1] for key in segments}
    storage = MemoryStorage()
    storage.objects = dict(hurt)
    vault = opening.open_vault(storage, secret)
    wrong = FaultyStorage(storage, Fault(call="put_new", number=1, kind="corrupt", prefix="index/"))
    with pytest.raises(DamagedError) as caught:
        repair(Vault(wrong, vault.config, vault.keys))
    assert caught.value.unchanged == "Nothing was removed."
    assert hurt.keys() <= storage.objects.keys()
    assert repair(opened(storage.objects, secret)).hurt == ()
    assert readable(opened(storage.objects, secret)) == ALL


def test_a_segment_that_cannot_be_read_stays_as_long_as_snapshots_lack_something(
    objects: Objects, secret: str | None
) -> None:
    hurt = dict(objects)
    segment = next(key for key in hurt if key.startswith("index/"))
    hurt[segment] = hurt[segment][:-1]
    pack = next(iter(opened(dict(objects), secret).index.segments[segment]))
    kept = hurt.pop(pack)
    assert repair(opened(hurt, secret)).hurt
    assert segment in hurt
    hurt[pack] = kept
    assert repair(opened(hurt, secret)).removed == (segment,)
    assert readable(opened(hurt, secret)) == ALL

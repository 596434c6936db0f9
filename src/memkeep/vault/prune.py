"""Give back the space of what no snapshot needs, while backups go on: mark, wait, sweep.

1. `condemn`: needed blobs that lie in wasteful packs are copied into new packs, new index segments describe everything
   that stays, and a mark names the packs and segments that are no longer needed. Nothing that was there is touched.
   Writers that see the mark store again what they need of those packs; one that has not seen it may still commit a
   snapshot that leans on them.
2. `sweep`, when the mark's time has come: what no snapshot needs by then is removed. A marked pack that one does need
   stays; what is needed of it is described again. A seal says beforehand what is going to be missing.

A crash between any two writes leaves packs that are stored twice, or marked and still there: the next prune goes on.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from memkeep import clock
from memkeep.errors import DamagedError, StorageError
from memkeep.storage.base import ObjectMissingError, Storage
from memkeep.storage.cache import origin
from memkeep.vault import format as layout
from memkeep.vault.crypto import HEADER_SIZE, MARK, PACK
from memkeep.vault.format import Mark
from memkeep.vault.index import Location
from memkeep.vault.lease import LIFETIME, Held
from memkeep.vault.objects import read_named
from memkeep.vault.pack import Pack
from memkeep.vault.vault import Vault, remove_all
from memkeep.vault.writer import PACK_SIZE, SEGMENT, put_named, put_seal, put_segment

WASTE = 0.25  # of a pack, from which on its needed blobs are worth copying
SMALL = 1 << 20  # bytes of a pack, below which it is worth joining with others,
MANY_SMALL = 32  # when there are as many
MANY = 8  # segments, from which on they are worth joining
LOG = 64  # seals that are not recent, from which on one is written that says what all of them say
RECENT = timedelta(days=2)  # in which who has seen what is forgotten now may still name it in a seal
SKEW = 2 * LIFETIME  # between the clocks of two machines: where there is more, a lease counts as ended


class Condemned(NamedTuple):
    """What is no longer needed where it lies: all sizes in bytes."""

    drop: dict[str, int]  # packs of which nothing is needed
    repack: dict[str, int]  # packs of which little is needed
    copied: dict[bytes, Location]  # what is needed of those
    segments: dict[str, int]  # index segments that others replace
    dangling: frozenset[tuple[bytes, str]] = frozenset()  # chunks, and packs that stay, where they lack their base then

    @property
    def objects(self) -> dict[str, int]:
        """All that goes."""
        return self.drop | self.repack | self.segments


class Due(NamedTuple):
    """What marks name whose time has come."""

    marks: tuple[str, ...]
    objects: dict[str, int]  # to be removed
    needed: dict[bytes, Location]  # what stays, marked or not, and must be found afterwards


def judge(vault: Vault, needed: set[bytes]) -> Condemned:
    """Compare what is stored, and not marked yet, with the chunks that snapshots name.

    Raises `DamagedError` when the index lacks one of them, or a pack that is needed is not there.
    """
    marked = {key for mark in vault.marks().values() for key in mark.objects}
    there = _sizes(vault.storage, layout.DATA)
    for pack in vault.index.packs.keys() - there.keys():
        vault.index.distrust(pack)  # what lay in it may lie elsewhere too
    places = vault.reader.closure(needed)
    used: dict[str, int] = {}
    for place in places.values():
        used[place.pack] = used.get(place.pack, 0) + place.length
    for pack in sorted(used.keys() - there.keys()):
        message = f"{pack} is missing: as long as it is, nothing can be removed"
        raise DamagedError(message, obj=pack)
    packs = {pack: size for pack, size in (vault.index.packs | there).items() if pack not in marked}
    drop = {pack: size for pack, size in packs.items() if pack not in used}
    live = {pack: size for pack, size in packs.items() if pack in used}
    repack = {pack: size for pack, size in live.items() if used[pack] < (size - HEADER_SIZE) * (1 - WASTE)}
    small = {pack: size for pack, size in live.items() if size < SMALL}
    if len(small) >= MANY_SMALL:
        repack |= small
    described = {key: packs for key, packs in vault.index.segments.items() if key not in marked}
    going = drop.keys() | repack.keys()
    lacking = dangling(vault, live.keys() - going, places) if going else frozenset()
    # One that describes what was marked before, too: a repair may have written it since.
    changed = going | marked | {pack for _, pack in lacking}
    sizes = _sizes(vault.storage, layout.INDEX)
    return Condemned(
        drop=drop,
        repack=repack,
        copied={chunk: place for chunk, place in places.items() if place.pack in repack},
        segments={
            key: sizes.get(key, 0)
            for key, packs in described.items()
            if len(described) > MANY or not changed.isdisjoint(packs)
        },
        dangling=lacking,
    )


def dangling(vault: Vault, stays: set[str], needed: Container[bytes] = frozenset()) -> frozenset[tuple[bytes, str]]:
    """Return the deltas in packs that stay which lack a base when only those packs stay, and whatever is needed.

    No snapshot needs them, but a look-up would find them, and take them for what they were.
    """
    whole: set[bytes] = set()
    lacking = set()
    for chunk, place in sorted(vault.index.entries(stays), key=lambda entry: entry[1].depth):
        if chunk in needed or place.base is None or place.base in whole or place.base in needed:
            whole.add(chunk)
        else:
            lacking.add((chunk, place.pack))
    return frozenset(lacking)


def condemn(vault: Vault, found: Condemned, held: Held, *, grace: timedelta) -> None:
    """Copy what is needed of what goes, describe what stays, and mark the rest; under an exclusive lease."""
    copied = _copy(vault, found.copied, held)
    marked = {key for mark in vault.marks().values() for key in mark.objects}
    stays = {pack for key in found.segments for pack in vault.index.segments[key]} - found.objects.keys() - marked
    kept = [entry for entry in vault.index.entries(stays) if (entry[0], entry[1].pack) not in found.dangling]
    _describe(vault, [*kept, *copied], held)
    if found.objects:
        now = clock.now()
        mark = Mark(created=now.isoformat(), ready=(now + grace).isoformat(), objects=tuple(found.objects))
        data = vault.keys.envelope(MARK, msgspec.json.encode(mark))
        vault.storage.put_new(layout.MARKS + layout.digest_of(data), [data])
        held.check()  # who has taken the vault before the mark was there may have removed what was copied
        vault.refresh()


def due(vault: Vault, held: Held) -> dict[str, Mark]:
    """Return the marks whose time has come, and which every backup that is running has seen."""
    now = clock.now()
    running = [clock.moment(one.since) for one in held.others() if not one.exclusive]

    def seen(mark: Mark) -> bool:
        made = clock.moment(mark.created)
        return made is not None and all(since is not None and made + SKEW < since for since in running)

    found = {}
    for key, mark in vault.marks().items():
        ready = clock.moment(mark.ready)
        if ready is not None and ready <= now and (not running or seen(mark)):
            found[key] = mark
    return found


def condemned_by(vault: Vault, marks: dict[str, Mark], needed: set[bytes]) -> Due:
    """Compare marks with the chunks that snapshots name now: list the snapshots after the marks, not before."""
    objects = {key for mark in marks.values() for key in mark.objects}
    places = vault.reader.closure(needed)
    going = objects - {place.pack for place in places.values()}
    sizes = _sizes(vault.storage, layout.DATA) | _sizes(vault.storage, layout.INDEX)
    return Due(tuple(marks), {key: sizes[key] for key in sorted(going) if key in sizes}, places)


def sweep(vault: Vault, found: Due, held: Held) -> list[StorageError]:
    """Remove what is due; return an error for each object that the storage does not give up (it stays marked)."""
    _describe_lost(vault, found, held)
    over = _seal(vault, found.objects)
    # First the segments: who opens the vault now sees nothing that is about to go.
    going = sorted(found.objects, key=lambda key: not key.startswith(layout.INDEX))
    refused = []
    for key in going:
        held.renew()
        refused += remove_all(vault.storage, [key])
    if not refused:
        refused += remove_all(vault.storage, found.marks)
    return refused + remove_all(vault.storage, over)


def _describe_lost(vault: Vault, found: Due, held: Held) -> None:
    """Describe again what is needed and would not be found any more, or elsewhere: so a sweep changes no look-up."""
    if not any(key.startswith(layout.INDEX) for key in found.objects):
        return
    index = vault.index_without(found.objects)
    chunks = list(found.needed)
    places = zip(chunks, index.find_all(chunks), strict=True)
    lost = [chunk for chunk, place in places if place is None or place[:2] != found.needed[chunk][:2]]
    _describe(vault, [(chunk, found.needed[chunk]) for chunk in lost], held)


def _copy(vault: Vault, chunks: dict[bytes, Location], held: Held) -> list[tuple[bytes, Location]]:
    """Copy blobs as they are, sealed anew, into new packs; return their new places."""
    by_pack: dict[str, list[tuple[bytes, Location]]] = {}
    for chunk, place in chunks.items():
        by_pack.setdefault(place.pack, []).append((chunk, place))
    entries: list[tuple[bytes, Location]] = []
    pack = Pack(vault.keys)
    for key in sorted(by_pack):
        data = _whole(vault.storage, key)
        cipher = vault.keys.cipher(data[:HEADER_SIZE], PACK, key)
        for chunk, place in sorted(by_pack[key], key=lambda one: one[1].offset):
            blob = cipher.unseal(memoryview(data)[place.offset : place.offset + place.length], place.offset)
            pack.append(chunk, blob, place.raw, place.depth, place.base)
            if pack.size >= PACK_SIZE:
                entries += _store(vault, pack, held)
                pack = Pack(vault.keys)
    return entries + _store(vault, pack, held)


def _store(vault: Vault, pack: Pack, held: Held) -> list[tuple[bytes, Location]]:
    if not pack.chunks:
        return []
    held.renew()
    key = pack.close()
    put_named(vault.storage, key, pack.buffers)
    _whole(origin(vault.storage), key)  # what it replaces is going to be removed
    vault.index.packs[key] = pack.size
    return pack.entries()


def _describe(vault: Vault, entries: Sequence[tuple[bytes, Location]], held: Held) -> None:
    """Write index segments of some places."""
    for start in range(0, len(entries), SEGMENT):
        held.renew()
        some = entries[start : start + SEGMENT]
        packs = {pack: vault.index.packs[pack] for pack in dict.fromkeys(place.pack for _, place in some)}
        key, _ = put_segment(vault.storage, vault.keys, vault.index, some, packs)
        _whole(origin(vault.storage), key)


def _seal(vault: Vault, going: Iterable[str]) -> list[str]:
    """Say in the log what is going to be missing; return seals that are no longer needed, since this one says it all.

    A seal that another forgets says nothing any more, so it does not matter how many of them a crash leaves.
    """
    seals, damaged = vault.log()
    there = {stat.key for stat in vault.storage.list(layout.SEALS)}
    # Only what a seal says: one that is there and was not read may be one that a stale list did not show before.
    over = {key for one in seals.values() for key in one.forgotten} & there
    seal, number = vault.next_seal()
    gone = set(going)
    before = (clock.now() - RECENT).isoformat()
    old = {key: one for key, one in seals.items() if one.created < before}
    if len(old) >= LOG and not damaged:
        over |= old.keys()
        forgotten = {key for one in old.values() for key in one.forgotten}
        seal = msgspec.structs.replace(
            seal,
            # Also what is not there although no seal forgets it: it was lost.
            snapshots=tuple(sorted({key for one in (*old.values(), seal) for key in one.snapshots} - forgotten)),
            objects=tuple(sorted({key for one in (*old.values(), seal) for key in one.objects} - forgotten - gone)),
        )
        gone |= {key for key in forgotten if key.startswith(layout.KEYS)}  # a slot that was revoked stays so
    if gone or over:
        put_seal(
            vault.storage, vault.keys, msgspec.structs.replace(seal, forgotten=(*sorted(gone), *sorted(over))), number
        )
    return sorted(over)


def _whole(storage: Storage, key: str) -> bytes:
    """Return a pack or segment, checked against its name: what is copied is what was written."""
    try:
        return read_named(storage, key)
    except ObjectMissingError as error:
        message = f"{key} is missing"
        raise DamagedError(message, obj=key) from error


def _sizes(storage: Storage, prefix: str) -> dict[str, int]:
    return {stat.key: stat.size for stat in storage.list(prefix)}

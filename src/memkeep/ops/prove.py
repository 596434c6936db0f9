"""The ladder up to `intact`: are all objects there, does every byte hash right, does every chunk decode."""

from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from memkeep.errors import DamagedError
from memkeep.events import Events
from memkeep.model import PartImage, PartSummary, Snapshot
from memkeep.ops.hold import hold
from memkeep.storage.base import ObjectMissingError, Storage
from memkeep.storage.cache import origin
from memkeep.vault import format
from memkeep.vault.chains import prove
from memkeep.vault.objects import read_hashed
from memkeep.vault.reader import split_ids
from memkeep.vault.vault import Vault
from memkeep.vault.writer import Writer

MARKED = "pack_marked"


class Packs:
    """Whether packs are whole; each is read at most once, from the place itself unless `storage` is given."""

    def __init__(self, vault: Vault, storage: Storage | None = None) -> None:
        self._vault = vault
        self._storage = storage or origin(vault.storage)
        self._known: dict[str, DamagedError | None] = {}

    def present(self, packs: Iterable[str]) -> list[DamagedError]:
        """Return an error for each pack that is missing or has another size than the index says."""
        there = {stat.key: stat.size for stat in self._vault.storage.list(format.DATA)}
        return [error for pack in packs if (error := _absent(pack, there.get(pack), self._vault)) is not None]

    def intact(self, packs: Sequence[str], events: Events) -> list[DamagedError]:
        """Return an error for each pack whose bytes do not have the SHA-256 that is its name."""
        unknown = [pack for pack in packs if pack not in self._known]
        with ThreadPoolExecutor(2, "memkeep-hash") as pool:
            for pack, error in zip(unknown, pool.map(lambda one: _changed(self._storage, one), unknown), strict=True):
                self._known[pack] = error
                events.advance(self._vault.index.packs.get(pack, 0))
        return [error for pack in packs if (error := self._known[pack]) is not None]

    def damaged(self) -> list[DamagedError]:
        """Return the errors of all packs that were read."""
        return [error for error in self._known.values() if error is not None]


class Chunks:
    """Whether chunks decode to what their ids say; each is decoded at most once."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._proven: set[bytes] = set()
        self._lost: dict[bytes, DamagedError] = {}

    def decode(self, chunks: set[bytes], events: Events) -> list[DamagedError]:
        """Return an error for each object that keeps some of the chunks from being what was written.

        Many at once cost far less than some after others: a delta is decoded while its base is at hand.
        """
        unknown = chunks - self._proven - self._lost.keys()
        try:
            places = self._vault.reader.closure(unknown)
        except DamagedError as error:
            return [error]
        for size, lost in prove(self._vault.reader, places):
            self._lost |= lost
            events.advance(size)
        self._proven |= places.keys() - self._lost.keys()
        found = (self._lost[one] for one in chunks if one in self._lost)
        return list({one.obj: one for one in found}.values())


def chunks_of(summaries: Sequence[PartSummary], images: Sequence[PartImage]) -> set[bytes]:
    """Return every chunk that a snapshot names (not the bases that those need)."""
    found: set[bytes] = set()
    for summary in summaries:
        if summary.image is not None:
            found.update(split_ids(summary.image.ids))
    for image in images:
        for stored in image.entries:
            if stored.recipe is not None:
                found.update(split_ids(stored.recipe.ids))
        for collection in image.collections:
            found.update(group.chunk for group in collection.groups)
    return found


def packs_of(vault: Vault, chunks: set[bytes]) -> list[str]:
    """Return the packs that chunks and their bases lie in; `DamagedError` when the index lacks one."""
    return sorted({place.pack for place in vault.reader.closure(chunks).values()})


def check_pieces(vault: Vault, images: Sequence[PartImage]) -> None:
    """Raise `DamagedError` unless every piece of every stream lies inside of its chunk."""
    import numpy as np

    for image in images:
        for stored in image.entries:
            if stored.recipe is not None:
                recipe = stored.recipe
                places = vault.index.find_all(split_ids(recipe.ids))
                ends = np.frombuffer(recipe.starts, "<u4").astype("u8") + np.frombuffer(recipe.lengths, "<u4")
                if any(place is None or end > place.raw for place, end in zip(places, ends.tolist(), strict=True)):
                    raise DamagedError(f"a piece of {stored.entry.path} lies out of its chunk")


def read_back(
    vault: Vault,
    summaries: Sequence[PartSummary],
    images: Sequence[PartImage],
    *,
    packs: Packs,
    proven: set[bytes],
    trusted: Container[str] = (),
    events: Events,
) -> None:
    """Prove a snapshot that is about to be committed; `DamagedError` when storage gives other bytes.

    Every pack that it needs is read and hashed, but for the `trusted`. `proven` are the chunks that have been decoded
    from the same bytes before: when their blobs were made, or for the parent snapshot. All others are decoded now.
    """
    chunks = chunks_of(summaries, images)
    errors = packs.intact([pack for pack in packs_of(vault, chunks) if pack not in trusted], events)
    if errors:
        raise errors[0]
    for summary, image in zip(summaries, images, strict=True):
        if vault.image(summary) != image:
            raise DamagedError(f"the image of {image.part.name} does not read back as it was written")
    with ThreadPoolExecutor(2, "memkeep-read") as pool:
        for _ in vault.reader.chunks(sorted(chunks - proven), pool):
            pass


def commit(vault: Vault, writer: Writer, snapshot: Snapshot, chunks: set[bytes]) -> Snapshot:
    """Commit a snapshot of some chunks; `DamagedError` (`MARKED`) when a prune takes what it leans on, and it is not.

    A process that was at a standstill, or whose clock is far off, is not seen by a prune. That shows when the manifest
    is there: either the prune has seen it, or the lease is gone; then what it leans on is looked for once more.
    """
    still_there(vault, chunks)
    hold(vault)
    made = writer.commit(snapshot, *vault.next_seal())
    if not writer.kept():
        try:
            still_there(vault, chunks)
        except DamagedError:
            vault.remove([format.SNAPSHOTS + made.id])
            raise
    return made


def pruned(vault: Vault, error: DamagedError) -> bool:
    """Say whether what is missing was removed, or is going to be, by a prune: then nothing is damaged.

    So it is with a chunk that this process has found or stored, and that no index segment names any more.
    """
    return (
        error.code == MARKED
        or error.obj == format.INDEX
        or any(error.obj in seal.forgotten for seal in vault.log()[0].values())
    )


def still_there(vault: Vault, chunks: set[bytes]) -> None:
    """Raise `DamagedError` for a pack that a snapshot leans on and that is missing or that a prune has marked."""
    marked = vault.refresh()
    packs = packs_of(vault, chunks)
    errors = Packs(vault).present(packs)
    errors += [
        DamagedError(f"{pack} is about to be removed", obj=pack, code=MARKED) for pack in packs if pack in marked
    ]
    if errors:
        raise errors[0]


def _absent(pack: str, size: int | None, vault: Vault) -> DamagedError | None:
    want = vault.index.packs[pack]
    if size is None:
        try:
            size = vault.storage.stat(pack).size  # a list may not show yet what was just written
        except ObjectMissingError:
            return DamagedError(f"{pack} is missing", obj=pack)
    if size != want:
        return DamagedError(f"{pack} has {size} bytes, not the {want} that were written", obj=pack)
    return None


def _changed(storage: Storage, key: str) -> DamagedError | None:
    try:
        data, digest = read_hashed(storage, key)
    except ObjectMissingError:
        return DamagedError(f"{key} is missing", obj=key)
    if digest != key[-64:]:
        what = "is empty" if not data else "is not what was written (SHA-256 differs)"
        return DamagedError(f"{key} {what}", obj=key)
    return None

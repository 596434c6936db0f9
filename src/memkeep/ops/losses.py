"""What is lost of snapshots when some packs are: which files and records, by name."""

from collections.abc import Collection, Iterator, Sequence

import msgspec

from memkeep.errors import DamagedError
from memkeep.model import PartImage, PartSummary
from memkeep.ops.prove import chunks_of
from memkeep.vault.reader import split_ids
from memkeep.vault.vault import Vault


class LostPart(msgspec.Struct, frozen=True, kw_only=True):
    """What is lost of a part: all of it, or some of its files and record groups."""

    part: str
    whole: bool
    files: tuple[str, ...] = ()
    records: dict[str, int] = {}  # collection -> rows in the lost groups


class HurtSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that can't be made whole. What is not named can be restored."""

    snapshot: str
    created: str
    system: str
    path: str
    lost: tuple[LostPart, ...]


class Losses:
    """Tells which chunks can't be read: not in the index, in a bad pack only, or made against one that can't."""

    def __init__(self, vault: Vault, bad: Collection[str], saved: Collection[bytes] = ()) -> None:
        self._vault = vault
        self._bad = bad  # packs
        self._known: dict[bytes, bool] = dict.fromkeys(saved, False)

    def of(self, chunks: Sequence[bytes]) -> set[bytes]:
        """Return those chunks that are lost."""
        above: dict[bytes, bytes | None] = {}
        todo = list(chunks)
        while todo:
            todo = [one for one in dict.fromkeys(todo) if one not in self._known and one not in above]
            for one, place in zip(todo, self._vault.index.find_all(todo), strict=True):
                if place is None or place.pack in self._bad:
                    self._known[one] = True
                else:
                    above[one] = place.base
            todo = [base for one in todo if (base := above.get(one)) is not None]
        for one in above:
            self._settle(one, above)
        return {one for one in chunks if self._known[one]}

    def _settle(self, one: bytes, above: dict[bytes, bytes | None]) -> None:
        chain: list[bytes] = []
        at: bytes | None = one
        while at is not None and at not in self._known and at not in chain:
            chain.append(at)
            at = above[at]
        lost = at is not None and self._known.get(at, True)  # who comes back to itself is lost too
        self._known.update(dict.fromkeys(chain, lost))

    def hurt(self) -> Iterator[HurtSnapshot]:
        """Yield the snapshots that lack something, and what."""
        listed = self._vault.snapshots()
        self._vault.refresh()  # a backup may have ended since the index was read
        for snapshot in listed:
            parts = [found for part in snapshot.parts if (found := self._lost_of(part)) is not None]
            if parts:
                yield HurtSnapshot(
                    snapshot=snapshot.id,
                    created=snapshot.created,
                    system=snapshot.system,
                    path=snapshot.path,
                    lost=tuple(parts),
                )

    def _lost_of(self, part: PartSummary) -> LostPart | None:
        if part.image is None or self.of(list(chunks_of([part], []))):
            return LostPart(part=part.name, whole=True)
        try:
            image = self._vault.image(part)
        except DamagedError:
            return LostPart(part=part.name, whole=True)
        return self._lost_in(image)

    def _lost_in(self, image: PartImage) -> LostPart | None:
        if not self.of(list(chunks_of((), [image]))):
            return None
        files = [
            one.entry.path for one in image.entries if one.recipe is not None and self.of(split_ids(one.recipe.ids))
        ]
        records = {}
        for collection in image.collections:
            gone = self.of([group.chunk for group in collection.groups])
            if gone:
                records[collection.map.collection] = sum(one.rows for one in collection.groups if one.chunk in gone)
        return LostPart(part=image.part.name, whole=False, files=tuple(files), records=records)

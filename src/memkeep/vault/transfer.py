"""Carrying chunks from one vault into another without encoding them again.

Ids are keyed, so a chunk has another one in another vault, and a delta names its base by id. Every chunk is decoded,
which proves it, and named anew; its blob stays as it is but for the base's id. A chunk is decoded right after its base,
so each is decoded once, and only the chain that leads to it is in memory.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from memkeep.errors import DamagedError
from memkeep.events import Events
from memkeep.vault import codec
from memkeep.vault.chains import windows
from memkeep.vault.index import Location
from memkeep.vault.reader import chunk_id
from memkeep.vault.vault import Vault
from memkeep.vault.writer import MAX_DEPTH, Writer


class Transfer:
    """What has been carried from `source` to `target`; all ids that it is asked for are those of the source."""

    def __init__(self, source: Vault, target: Vault) -> None:
        self._source = source
        self._target = target
        self.ids: dict[bytes, bytes] = {}  # source id -> target id
        self.stored: dict[bytes, int] = {}  # source id -> bytes of the blob that was written
        self.lost: dict[bytes, DamagedError] = {}  # chunks that can't be had from the source
        self._depths: dict[bytes, int] = {}  # in the target, by source id

    def missing(self, chunks: Iterable[bytes]) -> set[bytes]:
        """Return those chunks that the target is not known to have."""
        listed = list(chunks)
        known = [one for one in listed if one in self.ids]
        there = self._there([self.ids[one] for one in known])
        return set(listed).difference(one for one, place in zip(known, there, strict=True) if place is not None)

    def carry(self, places: dict[bytes, Location], writer: Writer, events: Events) -> None:
        """Bring chunks, given with all that their deltas need, into the target where it lacks them.

        What the source can't give is noted in `lost`. All that was brought is durable at the end.
        """
        chain: list[tuple[bytes, bytes]] = []  # the chunk that was decoded last and its bases, first to last
        coder = codec.Coder()
        for window, blobs in self._read(places):
            ready: list[tuple[bytes, bytes]] = []
            for one in window:
                place = places[one]
                while chain and chain[-1][0] != place.base:
                    chain.pop()
                try:
                    blob, raw = self._opened(one, place, blobs[one], chain, coder)
                except DamagedError as error:
                    self.lost[one] = error
                    continue
                self.ids[one] = chunk_id(self._target.keys, raw)
                chain.append((one, raw))
                ready.append((one, blob))
            self._write(ready, places, writer)
            events.advance(sum(places[one].length for one in window))
        for one in places.keys() - self.ids.keys() - self.lost.keys():
            self.lost[one] = DamagedError(f"the chain of chunk {one.hex()} does not end", obj=places[one].pack)
        writer.flush()

    def _write(self, ready: list[tuple[bytes, bytes]], places: dict[bytes, Location], writer: Writer) -> None:
        """Store those chunks, given as blobs, that the target lacks."""
        ids = [self.ids[one] for one, _ in ready]
        leftovers = self._target.index.find_all(ids)
        for (one, blob), found, left in zip(ready, self._there(ids), leftovers, strict=True):
            if found is not None:
                self._depths[one] = found.depth
                continue
            encoded, base, depth = blob, places[one].base, 0
            if codec.base_of(blob, "new blob") is not None and base is not None:
                depth = self._depths[base] + 1
            # A delta that lacks its base would be taken for this one, but not for a full chunk.
            if depth > MAX_DEPTH or (depth and left is not None and self._target.index.trusts(left)):
                encoded, depth = codec.Coder().full(self._source.reader.chunk(one)), 0
            self._depths[one] = depth
            theirs = self.ids[base] if depth and base is not None else None
            writer.put_encoded(self.ids[one], encoded, places[one].raw, depth, theirs)
            self.stored[one] = len(encoded)

    def _opened(
        self,
        one: bytes,
        place: Location,
        blob: bytes | DamagedError,
        chain: list[tuple[bytes, bytes]],
        coder: codec.Coder,
    ) -> tuple[bytes, bytes]:
        """Return the blob that stands for a chunk in the target, and the chunk, which that blob was decoded to."""
        try:
            if isinstance(blob, DamagedError):
                raise blob
            base = b""
            if place.base is not None:
                if not chain:
                    raise self.lost[place.base]
                base = chain[-1][1]
            raw = self._source.reader.decode(one, place, blob, base, coder)
            if place.base is not None:
                blob = codec.rebase(blob, self.ids[place.base])
        except DamagedError:
            raw = self._source.reader.chunk(one)  # it may have been stored again elsewhere
            return coder.full(raw), raw
        return blob, raw

    def _there(self, ids: list[bytes]) -> list[Location | None]:
        """Return where the target has chunks, by its own ids; what needs a damaged pack it has not."""
        return self._target.index.find_usable(ids)

    def _read(self, places: dict[bytes, Location]) -> Iterator[tuple[list[bytes], dict[bytes, bytes | DamagedError]]]:
        """Yield windows of chunks, each chunk behind its base, with their blobs; one window is read ahead."""
        with ThreadPoolExecutor(1, "memkeep-fetch") as pool:
            before: tuple[list[bytes], Future[dict[bytes, bytes | DamagedError]]] | None = None
            for window in windows(places):
                following = window, pool.submit(self._blobs, {one: places[one] for one in window})
                if before is not None:
                    yield before[0], before[1].result()
                before = following
            if before is not None:
                yield before[0], before[1].result()

    def _blobs(self, places: dict[bytes, Location]) -> dict[bytes, bytes | DamagedError]:
        found: dict[bytes, bytes | DamagedError] = {}
        try:
            found.update(self._source.reader.blobs(places))
        except DamagedError:
            for one, place in places.items():
                try:
                    found.update(self._source.reader.blobs({one: place}))
                except DamagedError as error:
                    found[one] = error
        return found

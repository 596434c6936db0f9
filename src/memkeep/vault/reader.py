"""Reading chunks: ranges of packs fetched together, blobs decoded on two threads, every chunk checked by its id."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from blake3 import blake3

from memkeep.errors import DamagedError
from memkeep.model import Recipe
from memkeep.storage.base import ObjectMissingError, Storage
from memkeep.vault import codec
from memkeep.vault.codec import ID_SIZE
from memkeep.vault.crypto import HEADER_SIZE, PACK, Cipher, Keys
from memkeep.vault.index import Index, Location

JOB_CHUNKS = 32  # decoded by one thread at a time,
JOB_BYTES = 2 << 20  # or fewer, if they have as many bytes
AHEAD_BYTES = 8 << 20  # decoded before they are asked for
KEPT_BYTES = 32 << 20  # chunks that a recipe names again later
GAP = 65536  # bytes between two wanted blobs that are fetched along rather than asked for apart
SPAN = 4 << 20  # most bytes fetched at once, but for a longer blob
_LONGEST = 255  # deltas after each other: a depth is one byte
_PACKS = "data/"
_CIPHERS = 512  # kept; nothing depends on how many


class Reader:
    """Chunks by id. Safe to use from several threads."""

    def __init__(
        self, storage: Storage, keys: Keys, index: Index, *, missing: Callable[[], object] = lambda: None
    ) -> None:
        self._storage = storage
        self._missing = missing  # called when a pack or a chunk is not there: others may have put it elsewhere
        self._keys = keys
        self._index = index
        self._ciphers: OrderedDict[str, Cipher] = OrderedDict()
        self._lock = threading.Lock()
        self._coders = codec.Coders()

    def chunk(self, chunk: bytes) -> bytes:
        """Return one chunk, checked."""
        return self.some([chunk])[chunk]

    def some(self, wanted: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return a few chunks, checked, all at once and on this thread.

        A chunk whose pack turns out to be damaged is looked for elsewhere: it may have been stored again since.
        """
        chunks = list(dict.fromkeys(wanted))
        while True:
            try:
                return self._decode(chunks)
            except DamagedError as error:
                news = self._index.distrust(error.obj)
                with self._lock:
                    self._ciphers.pop(error.obj, None)  # made from bytes that may have been others
                if isinstance(error.__cause__, ObjectMissingError):
                    self._missing()
                # No news: another thread has met it too, and the chunks may be known to lie elsewhere by now.
                if not news and (not error.obj.startswith(_PACKS) or self._leans_on(error.obj, chunks)):
                    raise

    def _leans_on(self, pack: str, chunks: list[bytes]) -> bool:
        return any(place.pack == pack for place in self.closure(set(chunks)).values())

    def chunks(self, wanted: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> Iterator[bytes]:
        """Yield chunks in the order of their ids, reading ahead."""
        kept = _Kept(wanted)
        ahead: deque[tuple[list[bytes], int, Future[dict[bytes, bytes]]]] = deque()
        waiting = 0
        with _workers(pool) as workers:
            try:
                for job, size in self._jobs(wanted):
                    ahead.append((job, size, workers.submit(self._serve, job, kept)))
                    waiting += size
                    while waiting > AHEAD_BYTES:
                        done, served, future = ahead.popleft()
                        waiting -= served
                        yield from map(future.result().__getitem__, done)
                while ahead:
                    done, _, future = ahead.popleft()
                    yield from map(future.result().__getitem__, done)
            finally:
                for _, _, future in ahead:
                    future.cancel()

    def stream(self, recipe: Recipe, pool: ThreadPoolExecutor | None = None) -> Iterator[bytes]:
        """Yield the bytes of a recipe in pieces; `DamagedError` when they are not the bytes that were written."""
        ids, starts, lengths = pieces(recipe)
        hasher = blake3()
        for one, start, length, data in zip(ids, starts, lengths, self.chunks(ids, pool), strict=True):
            if start + length > len(data):
                message = f"chunk {one.hex()} is shorter than a recipe says"
                raise DamagedError(message)
            piece = data if length == len(data) else data[start : start + length]
            hasher.update(piece)
            yield piece
        if hasher.digest() != recipe.digest:
            message = f"a stream of {recipe.size} bytes does not have the digest that its recipe says"
            raise DamagedError(message)

    def read(self, recipe: Recipe) -> bytes:
        """Return all bytes of a (small) recipe."""
        return b"".join(self.stream(recipe))

    def blobs(self, places: dict[bytes, Location]) -> dict[bytes, bytes]:
        """Return the blobs that lie at some places, opened but not decoded; neighbours are read in one go."""
        sealed = self._fetch(places)
        return {one: self._cipher(place.pack).unseal(sealed[one], place.offset) for one, place in places.items()}

    def decode(
        self, one: bytes, place: Location, blob: bytes, base: bytes, coder: codec.Coder, *, check: bool = True
    ) -> bytes:
        """Return the chunk of an opened blob; `DamagedError` when index, blob and, with `check`, id don't agree."""
        if codec.base_of(blob, place.pack) == place.base and codec.size_of(blob, place.pack) == place.raw:
            raw = coder.decode(blob, base, place.pack)
            if not check or chunk_id(self._keys, raw) == one:
                return raw
        message = f"{place.pack} holds something else than chunk {one.hex()}"
        raise DamagedError(message, obj=place.pack)

    def closure(self, chunks: set[bytes]) -> dict[bytes, Location]:
        """Return the places of chunks and of all that their deltas need; `DamagedError` when the index lacks one."""
        found: dict[bytes, Location] = {}
        todo = list(chunks)
        while todo:
            places = self._locate(todo)
            found |= places
            todo = list({place.base for place in places.values() if place.base is not None} - found.keys())
        return found

    def _locate(self, chunks: Sequence[bytes]) -> dict[bytes, Location]:
        places = {}
        found = self._index.find_all(chunks)
        if None in found:
            self._missing()  # who lists a snapshot may have read the index before it was made
            found = self._index.find_all(chunks)
        for chunk, place in zip(chunks, found, strict=True):
            if place is None:
                message = f"chunk {chunk.hex()} is in no index segment"
                raise DamagedError(message, obj="index/")
            places[chunk] = place
        return places

    def _jobs(self, wanted: Sequence[bytes]) -> Iterator[tuple[list[bytes], int]]:
        """Cut a long list into jobs, each with the bytes that its chunks will have."""
        for start in range(0, len(wanted), 16 * JOB_CHUNKS):
            some = wanted[start : start + 16 * JOB_CHUNKS]
            places = self._locate(list(dict.fromkeys(some)))
            job: list[bytes] = []
            size = 0
            for chunk in some:
                raw = places[chunk].raw
                if job and (len(job) >= JOB_CHUNKS or size + raw > JOB_BYTES):
                    yield job, size
                    job, size = [], 0
                job.append(chunk)
                size += raw
            yield job, size

    def _serve(self, job: list[bytes], kept: "_Kept") -> dict[bytes, bytes]:
        done = kept.take(job)
        missing = [chunk for chunk in job if chunk not in done]
        if missing:
            fresh = self.some(missing)
            kept.offer(fresh)
            done |= fresh
        return done

    def _decode(self, wanted: list[bytes]) -> dict[bytes, bytes]:
        """Unseal and decode chunks, each from its root up, so that a long chain needs no deep recursion."""
        places = self.closure(set(wanted))
        sealed = self._fetch(places)
        ciphers = {place.pack: self._cipher(place.pack) for place in places.values()}
        coder = self._coders.own

        def build(chunk: bytes, *, check: bool) -> bytes:
            raw = b""
            for one in reversed(_chain(chunk, places)):
                place = places[one]
                blob = ciphers[place.pack].unseal(sealed[one], place.offset)
                raw = self.decode(one, place, blob, raw, coder, check=check or one == chunk)
            return raw

        done: dict[bytes, bytes] = {}
        for chunk in wanted:
            try:
                done[chunk] = build(chunk, check=False)
            except DamagedError:
                # A base that is not itself may only show above it: check every link, to name the pack that is wrong.
                done[chunk] = build(chunk, check=True)
        return done

    def _fetch(self, places: dict[bytes, Location]) -> "dict[bytes, memoryview | bytes]":
        """Read the sealed blobs at some places, neighbours in one go."""
        blobs = sorted((place.pack, place.offset, place.length, chunk) for chunk, place in places.items())
        sealed: dict[bytes, memoryview | bytes] = {}
        start = 0
        while start < len(blobs):
            pack, low, length, _ = blobs[start]
            high = low + length
            end = start + 1
            while end < len(blobs):
                other, offset, length, _ = blobs[end]
                if other != pack or offset - high > GAP or offset + length - low > SPAN:
                    break
                high = max(high, offset + length)
                end += 1
            data = memoryview(self._range(pack, low, high - low))
            for _, offset, length, chunk in blobs[start:end]:
                sealed[chunk] = data[offset - low : offset - low + length]
            start = end
        return sealed

    def _range(self, pack: str, offset: int, length: int) -> bytes:
        try:
            data = self._storage.get_range(pack, offset, length)
        except ObjectMissingError as error:
            message = f"{pack} is missing"
            raise DamagedError(message, obj=pack) from error
        if len(data) != length:
            message = f"{pack} is cut off: it ends before byte {offset + length}"
            raise DamagedError(message, obj=pack)
        return data

    def _cipher(self, pack: str) -> Cipher:
        with self._lock:
            cipher = self._ciphers.get(pack)
        if cipher is None:
            cipher = self._keys.cipher(self._range(pack, 0, HEADER_SIZE), PACK, pack)
            with self._lock:
                self._ciphers[pack] = cipher
                while len(self._ciphers) > _CIPHERS:
                    self._ciphers.popitem(last=False)
        return cipher


class _Kept:
    """Decoded chunks that a list names more than once: vectors that were moved lie scattered over old chunks."""

    def __init__(self, wanted: Sequence[bytes]) -> None:
        self._again = {chunk for chunk, times in Counter(wanted).items() if times > 1}
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def take(self, job: list[bytes]) -> dict[bytes, bytes]:
        """Return those of a job's chunks that are here."""
        found: dict[bytes, bytes] = {}
        if self._again:
            with self._lock:
                for chunk in job:
                    if chunk in self._chunks:
                        self._chunks.move_to_end(chunk)
                        found[chunk] = self._chunks[chunk]
        return found

    def offer(self, fresh: dict[bytes, bytes]) -> None:
        """Keep what is named more than once; the longest unused goes first."""
        if self._again:
            with self._lock:
                for chunk in fresh.keys() & self._again - self._chunks.keys():
                    self._chunks[chunk] = fresh[chunk]
                    self._size += len(fresh[chunk])
                while self._size > KEPT_BYTES:
                    self._size -= len(self._chunks.popitem(last=False)[1])


@contextmanager
def _workers(given: ThreadPoolExecutor | None) -> Iterator[ThreadPoolExecutor]:
    """Lend a given pool, left open, or a new one of two threads, closed at the end."""
    if given is not None:
        yield given
    else:
        with ThreadPoolExecutor(2, "memkeep-read") as own:
            yield own


def _chain(chunk: bytes, places: dict[bytes, Location]) -> list[bytes]:
    """Return a chunk and the bases that it needs, one after the other; `DamagedError` when they go round."""
    chain = [chunk]
    base = places[chunk].base
    while base is not None:
        if len(chain) > _LONGEST:
            message = f"the chain of chunk {chunk.hex()} does not end"
            raise DamagedError(message, obj=places[chunk].pack)
        chain.append(base)
        base = places[base].base
    return chain


def pieces(recipe: Recipe) -> tuple[list[bytes], list[int], list[int]]:
    """Return a recipe's chunks, and where in each a piece begins and how long it is; checks that all adds up."""
    import numpy as np

    count = len(recipe.ids) // ID_SIZE
    if len(recipe.ids) == count * ID_SIZE and len(recipe.starts) == len(recipe.lengths) == count * 4:
        starts: list[int] = np.frombuffer(recipe.starts, "<u4").tolist()
        lengths: list[int] = np.frombuffer(recipe.lengths, "<u4").tolist()
        if sum(lengths) == recipe.size:
            return split_ids(recipe.ids), starts, lengths
    message = f"a recipe of {recipe.size} bytes does not add up"
    raise DamagedError(message)


def chunk_id(keys: Keys, raw: bytes | memoryview) -> bytes:
    """Return the 16-byte id of a chunk: keyed BLAKE3, so that ids say nothing to those without the key."""
    return blake3(raw, key=keys.chunk_key).digest(ID_SIZE)


def split_ids(ids: bytes) -> list[bytes]:
    """Cut joined ids apart."""
    return [ids[at : at + ID_SIZE] for at in range(0, len(ids), ID_SIZE)]

"""Reading chunks: ranges of packs fetched together, blobs decoded on two threads, every chunk checked by its id."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3

from memkeep.errors import DamagedError
from memkeep.model import Recipe
from memkeep.storage.base import ObjectMissingError, Storage
from memkeep.vault import codec
from memkeep.vault.crypto import HEADER_SIZE, PACK, Cipher, Keys
from memkeep.vault.index import ID_SIZE, Index, Location

WINDOW = 128  # chunks decoded ahead: at most 8 MiB of 64 KiB chunks
GAP = 65536  # bytes between two wanted blobs that are fetched along rather than asked for apart
SPAN = 4 << 20  # most bytes fetched at once
_LENGTH = 4


class Reader:
    """Chunks by id. Safe to use from several threads."""

    def __init__(self, storage: Storage, keys: Keys, index: Index) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._ciphers: OrderedDict[str, Cipher] = OrderedDict()
        self._lock = threading.Lock()

    def chunk(self, chunk: bytes) -> bytes:
        """Return one chunk, checked."""
        return self._decode(chunk, {})

    def chunks(self, wanted: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> Iterator[bytes]:
        """Yield chunks in the order of their ids, reading ahead."""
        with _pool(pool) as workers:
            for start in range(0, len(wanted), WINDOW):
                window = wanted[start : start + WINDOW]
                blobs = self._fetch(dict.fromkeys(window))
                done = dict(
                    zip(blobs.wanted, workers.map(lambda one: self._decode(one, blobs.sealed), blobs.wanted), strict=True)  # noqa: B023 - consumed before the next window
                )
                for one in window:
                    yield done[one]

    def stream(self, recipe: Recipe, pool: ThreadPoolExecutor | None = None) -> Iterator[bytes]:
        """Yield the bytes of a recipe in pieces; `DamagedError` when they are not the bytes that were written."""
        import numpy as np  # noqa: PLC0415 - heavy

        ids = split_ids(recipe.ids)
        starts = np.frombuffer(recipe.starts, "<u4").tolist()
        lengths = np.frombuffer(recipe.lengths, "<u4").tolist()
        if not len(ids) == len(starts) == len(lengths) or sum(lengths) != recipe.size:
            message = "a recipe does not add up"
            raise DamagedError(message)
        hasher = blake3()
        for one, start, length, data in zip(ids, starts, lengths, self.chunks(ids, pool), strict=True):
            if start + length > len(data):
                message = f"chunk {one.hex()} is shorter than a recipe says"
                raise DamagedError(message)
            piece = data if length == len(data) else data[start : start + length]
            hasher.update(piece)
            yield piece
        if hasher.digest() != recipe.digest:
            message = "a stream does not have the digest that its recipe says"
            raise DamagedError(message)

    def read(self, recipe: Recipe) -> bytes:
        """Return all bytes of a (small) recipe."""
        return b"".join(self.stream(recipe))

    def closure(self, chunks: set[bytes]) -> dict[bytes, Location]:
        """Return the places of chunks and of all that their deltas need; `DamagedError` when the index lacks one."""
        found: dict[bytes, Location] = {}
        todo = list(chunks)
        while todo:
            one = todo.pop()
            if one not in found:
                found[one] = self._locate(one)
                base = found[one].base
                if base is not None:
                    todo.append(base)
        return found

    def _locate(self, chunk: bytes) -> Location:
        place = self._index.find(chunk)
        if place is None:
            message = f"chunk {chunk.hex()} is in no index segment"
            raise DamagedError(message, obj="index/")
        return place

    def _fetch(self, wanted: dict[bytes, None]) -> "_Blobs":
        """Read the sealed blobs of some chunks and their bases, neighbours in one go."""
        places = self.closure(set(wanted))
        by_pack: dict[str, list[tuple[int, int, bytes]]] = {}
        for chunk, place in places.items():
            by_pack.setdefault(place.pack, []).append((place.offset, place.length, chunk))
        sealed: dict[bytes, bytes] = {}
        for pack, blobs in by_pack.items():
            blobs.sort()
            start = 0
            while start < len(blobs):
                end = start + 1
                low = blobs[start][0]
                high = low + blobs[start][1]
                while end < len(blobs) and blobs[end][0] - high <= GAP and blobs[end][0] + blobs[end][1] - low <= SPAN:
                    high = max(high, blobs[end][0] + blobs[end][1])
                    end += 1
                data = self._range(pack, low, high - low)
                for offset, length, chunk in blobs[start:end]:
                    sealed[chunk] = data[offset - low : offset - low + length]
                start = end
        return _Blobs(list(wanted), sealed)

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

    def _decode(self, chunk: bytes, sealed: dict[bytes, bytes]) -> bytes:
        """Unseal and decode one chunk, from its root up, so that a long chain needs no deep recursion."""
        chain: list[tuple[bytes, Location]] = []
        one: bytes | None = chunk
        while one is not None:
            place = self._locate(one)
            if chain and place.depth >= chain[-1][1].depth:
                message = f"the chain of chunk {chunk.hex()} does not go down"
                raise DamagedError(message, obj=place.pack)
            chain.append((one, place))
            one = place.base
        raw = b""
        for one, place in reversed(chain):
            data = sealed.get(one)
            if data is None:
                data = self._range(place.pack, place.offset, place.length)
            blob = self._cipher(place.pack).unseal(data, place.offset)
            base = raw
            raw = codec.decode(blob, lambda _, base=base: base, place.pack)
            if codec.base_of(blob, place.pack) != place.base or chunk_id(self._keys, raw) != one:
                message = f"{place.pack} holds something else than chunk {one.hex()}"
                raise DamagedError(message, obj=place.pack)
        return raw

    def _cipher(self, pack: str) -> Cipher:
        with self._lock:
            cipher = self._ciphers.get(pack)
        if cipher is None:
            cipher = self._keys.cipher(self._range(pack, 0, HEADER_SIZE), PACK, pack)
            with self._lock:
                self._ciphers[pack] = cipher
                while len(self._ciphers) > 512:  # noqa: PLR2004 - a bound, nothing depends on it
                    self._ciphers.popitem(last=False)
        return cipher


class _Blobs:
    """The wanted chunks, and the sealed blobs of them and of their bases."""

    def __init__(self, wanted: list[bytes], sealed: dict[bytes, bytes]) -> None:
        self.wanted = wanted
        self.sealed = sealed


class _pool:  # noqa: N801 - reads as a function
    """A given pool, left open, or a new one of two threads, closed at the end."""

    def __init__(self, given: ThreadPoolExecutor | None) -> None:
        self._given = given
        self._own = None if given else ThreadPoolExecutor(2, "memkeep-read")

    def __enter__(self) -> ThreadPoolExecutor:
        return self._given or self._own  # type: ignore[return-value]  # one of them is there

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._own.shutdown()


def chunk_id(keys: Keys, raw: bytes | memoryview) -> bytes:
    """Return the 16-byte id of a chunk: keyed BLAKE3, so that ids say nothing to those without the key."""
    return blake3(raw, key=keys.chunk_key).digest(ID_SIZE)


def split_ids(ids: bytes) -> list[bytes]:
    """Cut joined ids apart."""
    return [ids[at : at + ID_SIZE] for at in range(0, len(ids), ID_SIZE)]

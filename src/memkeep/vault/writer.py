"""Writing a snapshot: chunks into packs, packs and one index segment into storage, then the manifest, then its seal.

Nothing refers to a pack before it is durable, and nothing lists a snapshot before its manifest is. A writer that dies
at any instant leaves packs that nobody refers to; the next backup of the same bytes finds those that an index segment
names.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

import msgspec
import zstandard
from blake3 import blake3

from memkeep.errors import DamagedError
from memkeep.model import Recipe, Run, Snapshot
from memkeep.storage.base import ObjectExistsError, Storage
from memkeep.vault import codec, format
from memkeep.vault.crypto import HEADER_SIZE, INDEX, PACK, SEAL, SNAPSHOT, Keys
from memkeep.vault.index import Index, Location, build_segment, pack_key
from memkeep.vault.reader import Reader, chunk_id, split_ids

PACK_SIZE = 16 << 20
BATCH = 64  # chunks encoded at a time
MAX_DEPTH = 48  # of a chain of deltas; a longer one would make restores slow
_LENGTH = 4


class Blocks:
    """Where known vectors lie: 8-byte digests, sorted, and the chunk and byte that each is at."""

    def __init__(self, known: dict[bytes, tuple[bytes, int]]) -> None:
        self._known = known

    def find(self, digest: bytes) -> tuple[bytes, int] | None:
        """Return the chunk id and the first byte in it of a block, or None."""
        return self._known.get(digest)


class Writer:
    """Takes in streams and blobs, and commits one snapshot (or none). Use as a context manager."""

    def __init__(self, storage: Storage, keys: Keys, index: Index, reader: Reader, *, check: bool = False) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._reader = reader
        self._pending: dict[bytes, Location | None] = {}  # None: being encoded
        self._packs: dict[str, int] = {}
        self._pack = _Pack(keys)
        self._workers = ThreadPoolExecutor(2, "memkeep-encode")
        self._uploader = ThreadPoolExecutor(1, "memkeep-upload")
        self._uploads: list[Future[int]] = []
        self._objects: list[str] = []
        self._check = check
        self.added_bytes = 0
        self.checked: set[bytes] = set()  # chunks whose blobs were decoded again and found equal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._uploader.shutdown(cancel_futures=True)

    # -- taking in ----------------------------------------------------------------------------------------------

    def put_stream(self, buffers: Iterable[bytes], parent: Recipe | None = None, *, text: bool = False) -> Recipe:
        """Store a stream in page-aligned chunks of 64 KiB, changed ones as deltas against the parent's at that place."""
        theirs = split_ids(parent.ids) if parent is not None and not parent.runs else []
        ids: list[bytes] = []
        lengths: list[int] = []
        hasher = blake3()
        batch: list[tuple[bytes, bytes, bytes | None]] = []
        for raw in _cut(buffers, codec.CHUNK):
            hasher.update(raw)
            one = chunk_id(self._keys, raw)
            base = theirs[len(ids)] if len(ids) < len(theirs) else None
            ids.append(one)
            lengths.append(len(raw))
            self._offer(batch, one, raw, base, text=text)
        self._encode(batch, text=text)
        return _recipe(ids, [0] * len(ids), lengths, hasher.digest())

    def put_blob(self, raw: bytes, base: bytes | None = None) -> bytes:
        """Store one text-like chunk whole (at most 64 MiB), as a delta against `base` if that pays; return its id."""
        one = chunk_id(self._keys, raw)
        batch: list[tuple[bytes, bytes, bytes | None]] = []
        self._offer(batch, one, raw, base, text=True)
        self._encode(batch, text=True)
        return one

    def put_blobs(self, blobs: Iterable[tuple[bytes, bytes | None]]) -> Iterator[bytes]:
        """Store many text-like chunks, each with an optional base; yield their ids in order."""
        batch: list[tuple[bytes, bytes, bytes | None]] = []
        for raw, base in blobs:
            one = chunk_id(self._keys, raw)
            self._offer(batch, one, raw, base, text=True)
            yield one
        self._encode(batch, text=True)

    def put_blocks(self, buffers: Iterable[bytes], runs: tuple[Run, ...], known: Blocks | None) -> Recipe:
        """Store a file that holds runs of vectors: a vector that is known already costs only a reference."""
        source = _Source(buffers)
        pieces = _Pieces()
        batch: list[tuple[bytes, bytes, bytes | None]] = []
        literal = _Literal(pieces)

        def flush() -> None:
            raw = literal.take()
            if raw:
                one = chunk_id(self._keys, raw)
                literal.settle(one)
                self._offer(batch, one, raw, None, text=False)

        for run in sorted(runs, key=lambda run: run.offset):
            if run.offset < source.at or run.count < 1 or not 0 < run.stride <= codec.CHUNK:
                continue
            for raw in source.take(run.offset - source.at, codec.CHUNK):
                pieces.whole(chunk_id(self._keys, raw), len(raw))
                self._offer(batch, pieces.last, raw, None, text=False)
            for block in source.take(run.count * run.stride, run.stride):
                place = known.find(block_digest(block)) if known is not None and len(block) == run.stride else None
                if place is not None:
                    pieces.slice(place[0], place[1], len(block))
                else:
                    literal.add(block)
                    if literal.size + run.stride > codec.CHUNK:
                        flush()
            flush()
        for raw in source.take(None, codec.CHUNK):
            pieces.whole(chunk_id(self._keys, raw), len(raw))
            self._offer(batch, pieces.last, raw, None, text=False)
        self._encode(batch, text=False)
        recipe = pieces.recipe(source.digest())
        return msgspec.structs.replace(recipe, runs=runs)

    # -- encoding -----------------------------------------------------------------------------------------------

    def _offer(
        self, batch: list[tuple[bytes, bytes, bytes | None]], one: bytes, raw: bytes, base: bytes | None, *, text: bool
    ) -> None:
        if one in self._pending or self._index.find(one) is not None:
            return
        self._pending[one] = None
        batch.append((one, raw, base))
        if len(batch) >= BATCH:
            self._encode(batch, text=text)

    def _encode(self, batch: list[tuple[bytes, bytes, bytes | None]], *, text: bool) -> None:
        """Encode a batch on the workers and append it to the pack in order."""
        work = list(batch)
        batch.clear()
        for (one, raw, _), (blob, base, depth) in zip(
            work, self._workers.map(lambda job: self._encode_one(job[1], job[2], text=text), work), strict=True
        ):
            self._append(one, blob, len(raw), base, depth)

    def _encode_one(self, raw: bytes, base: bytes | None, *, text: bool) -> tuple[bytes, bytes | None, int]:
        blob, base, depth, theirs = self._encode_raw(raw, base, text=text)
        if self._check and codec.decode(blob, lambda _: theirs, "new blob") != raw:
            message = "a chunk did not decode to what was encoded: this machine computes wrongly"
            raise DamagedError(message, hint="check the machine's memory")
        return blob, base, depth

    def _encode_raw(self, raw: bytes, base: bytes | None, *, text: bool) -> tuple[bytes, bytes | None, int, bytes]:
        if base is not None:
            place = self._index.find(base)
            if place is not None and place.depth < MAX_DEPTH - base[0] % 16:  # not all chains end on one day
                try:
                    theirs = self._reader.chunk(base)
                except DamagedError:
                    theirs = b""  # a damaged base must not spread; verify names it
                if theirs:
                    blob = codec.encode_text(raw, theirs, base) if text else codec.encode_pages(raw, theirs, base)
                    if len(blob) < len(raw) * 0.8:
                        return blob, base, place.depth + 1, theirs
        return codec.encode_full(raw, text=text), None, 0, b""

    def _append(self, one: bytes, blob: bytes, raw: int, base: bytes | None, depth: int) -> None:
        offset, length = self._pack.append(blob)
        self._pending[one] = Location("", offset, length, raw, depth, base)
        self._pack.chunks.append(one)
        if self._check:
            self.checked.add(one)
        if self._pack.size >= PACK_SIZE:
            self._finish_pack()

    def _finish_pack(self) -> None:
        pack, self._pack = self._pack, _Pack(self._keys)
        if not pack.chunks:
            return
        # At most two packs in memory: the one being filled and the one being written.
        for upload in self._uploads:
            self.added_bytes += upload.result()
        self._uploads = [self._uploader.submit(self._store_pack, pack)]

    def _store_pack(self, pack: "_Pack") -> int:
        key = pack_key(pack.digest())
        self._put(key, pack.buffers)
        self._packs[key] = pack.size
        for one in pack.chunks:
            place = self._pending[one]
            if place is not None:
                self._pending[one] = place._replace(pack=key)
        return pack.size

    def _put(self, key: str, buffers: list[bytes]) -> int:
        with suppress(ObjectExistsError):  # the name is the content: what is there is what we would write
            return self._storage.put_new(key, buffers)
        return 0

    # -- finishing ----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make every chunk durable and known: packs, then one index segment."""
        self._finish_pack()
        for upload in self._uploads:
            self.added_bytes += upload.result()
        self._uploads = []
        entries = [(one, place) for one, place in self._pending.items() if place is not None]
        if not entries:
            return
        self._objects.extend(self._packs)
        segment = build_segment(entries, self._packs)
        plain = zstandard.ZstdCompressor(level=3).compress(msgspec.msgpack.encode(segment))
        data = self._keys.envelope(INDEX, plain)
        key = format.INDEX + format.digest_of(data)
        self._put(key, [data])
        self._objects.append(key)
        self.added_bytes += len(data)
        self._index.add(key, segment)
        self._pending.clear()
        self._packs.clear()

    def commit(self, snapshot: Snapshot, seal: format.Seal, number: int) -> Snapshot:
        """Write the manifest, which is what makes the snapshot, and then its seal; return it with its id."""
        manifest = msgspec.json.encode(msgspec.structs.replace(snapshot, id="", added_bytes=self.added_bytes))
        data = self._keys.envelope(SNAPSHOT, zstandard.ZstdCompressor(level=9).compress(manifest))
        name = format.digest_of(data)
        self._put(format.SNAPSHOTS + name, [data])
        sealed = msgspec.structs.replace(
            seal, snapshots=(*seal.snapshots, format.SNAPSHOTS + name), objects=tuple(self._objects)
        )
        put_seal(self._storage, self._keys, sealed, number)
        return msgspec.structs.replace(snapshot, id=name, added_bytes=self.added_bytes + len(data))


def put_seal(storage: Storage, keys: Keys, seal: format.Seal, number: int) -> None:
    """Write one entry of the vault's log."""
    data = keys.envelope(SEAL, msgspec.json.encode(seal))
    with suppress(ObjectExistsError):
        storage.put_new(f"{format.SEALS}{number:08d}-{format.digest_of(data)}", [data])


def block_digest(block: bytes) -> bytes:
    """Return the 8 bytes by which a vector is found again (never its proof: the whole file's digest is)."""
    return blake3(block).digest(8)


class _Pack:
    """A pack being filled: header, then `length (u32) | sealed blob` after each other."""

    def __init__(self, keys: Keys) -> None:
        header = keys.header(PACK)
        self._cipher = keys.cipher(header, PACK, "new pack")
        self.buffers: list[bytes] = [header]
        self.size = HEADER_SIZE
        self.chunks: list[bytes] = []

    def append(self, blob: bytes) -> tuple[int, int]:
        offset = self.size + _LENGTH
        sealed = self._cipher.seal(blob, offset)
        self.buffers += [len(sealed).to_bytes(_LENGTH, "little"), sealed]
        self.size = offset + len(sealed)
        return offset, len(sealed)

    def digest(self) -> bytes:
        hasher = hashlib.sha256()
        for buffer in self.buffers:
            hasher.update(buffer)
        return hasher.digest()


class _Source:
    """A stream to take exact amounts from, hashing all that passes."""

    def __init__(self, buffers: Iterable[bytes]) -> None:
        self._buffers = iter(buffers)
        self._rest = memoryview(b"")
        self._hasher = blake3()
        self.at = 0

    def take(self, amount: int | None, piece: int) -> Iterator[bytes]:
        """Yield the next `amount` bytes (None: all) in pieces of `piece` bytes, the last perhaps shorter."""
        while amount is None or amount > 0:
            raw = self._read(piece if amount is None else min(piece, amount))
            if not raw:
                return
            if amount is not None:
                amount -= len(raw)
            yield raw

    def digest(self) -> bytes:
        """Return the digest of all that was taken."""
        return self._hasher.digest()

    def _read(self, amount: int) -> bytes:
        parts: list[bytes] = []
        while amount > 0:
            if not self._rest:
                buffer = next(self._buffers, None)
                if buffer is None:
                    break
                self._hasher.update(buffer)
                self._rest = memoryview(buffer)
                continue
            parts.append(bytes(self._rest[:amount]))
            self._rest = self._rest[amount:]
            amount -= len(parts[-1])
        raw = parts[0] if len(parts) == 1 else b"".join(parts)
        self.at += len(raw)
        return raw


class _Pieces:
    """A recipe being written; pieces that follow each other in one chunk become one."""

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.starts: list[int] = []
        self.lengths: list[int] = []

    @property
    def last(self) -> bytes:
        return self.ids[-1]

    def whole(self, one: bytes, length: int) -> None:
        self._add(one, 0, length)

    def slice(self, one: bytes, start: int, length: int) -> None:
        if self.ids and self.ids[-1] == one and self.starts[-1] + self.lengths[-1] == start:
            self.lengths[-1] += length
        else:
            self._add(one, start, length)

    def _add(self, one: bytes, start: int, length: int) -> None:
        self.ids.append(one)
        self.starts.append(start)
        self.lengths.append(length)

    def recipe(self, digest: bytes) -> Recipe:
        return _recipe(self.ids, self.starts, self.lengths, digest)


class _Literal:
    """New vectors gathered into a chunk; the recipe's pieces get its id when it is full."""

    def __init__(self, pieces: _Pieces) -> None:
        self._pieces = pieces
        self._parts: list[bytes] = []
        self._waiting: list[int] = []
        self._placeholder = b""
        self.size = 0

    def add(self, block: bytes) -> None:
        before = len(self._pieces.ids)
        self._pieces.slice(self._placeholder, self.size, len(block))
        if len(self._pieces.ids) > before:
            self._waiting.append(before)
        self._parts.append(block)
        self.size += len(block)

    def take(self) -> bytes:
        raw = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return raw

    def settle(self, one: bytes) -> None:
        for position in self._waiting:
            self._pieces.ids[position] = one
        self._waiting.clear()


def _recipe(ids: list[bytes], starts: list[int], lengths: list[int], digest: bytes) -> Recipe:
    import numpy as np  # noqa: PLC0415 - heavy

    return Recipe(
        size=sum(lengths),
        digest=digest,
        ids=b"".join(ids),
        starts=np.array(starts, "<u4").tobytes(),
        lengths=np.array(lengths, "<u4").tobytes(),
    )


def _cut(buffers: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of `size` bytes; buffers that are whole multiples are not copied twice."""
    rest = b""
    for buffer in buffers:
        data = rest + buffer if rest else buffer
        whole = len(data) - len(data) % size
        for at in range(0, whole, size):
            yield data[at : at + size]
        rest = data[whole:]
    if rest:
        yield rest

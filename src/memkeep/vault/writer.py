"""Writing a snapshot: chunks into packs, packs and one index segment into storage, then the manifest, then its seal.

Nothing refers to a pack before it is durable, and nothing lists a snapshot before its manifest is. A writer that dies
at any instant leaves packs that nobody refers to; the next backup of the same bytes finds those that an index segment
names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, Self, TypeVar

import msgspec
import zstandard
from blake3 import blake3

from memkeep.errors import DamagedError, MemkeepError, StorageError
from memkeep.model import Recipe, Run, Snapshot
from memkeep.storage.base import ObjectExistsError, Storage
from memkeep.vault import codec
from memkeep.vault import format as layout
from memkeep.vault.crypto import INDEX, SEAL, SNAPSHOT, Keys
from memkeep.vault.cut import Pieces, Source, cut
from memkeep.vault.index import Index, Location
from memkeep.vault.lease import Held
from memkeep.vault.pack import Pack
from memkeep.vault.reader import Reader, chunk_id, split_ids
from memkeep.vault.segment import build_segment, read_segment

PACK_SIZE = 16 << 20
BATCH_CHUNKS = 32  # encoded by one thread at a time,
BATCH_BYTES = 2 << 20  # or fewer, if they have as many bytes
IN_FLIGHT = 2  # batches being encoded while the next is gathered
SEGMENT = 1 << 18  # most chunks an index segment describes
MAX_DEPTH = 48  # of a chain of deltas; a longer one would make restores slow
WORTH = 0.8  # of a chunk's bytes, above which a delta is not worth the chain


T = TypeVar("T")


class Blocks:
    """Where known vectors lie: their digests, and the chunk and byte that each is at."""

    def __init__(self, known: dict[bytes, tuple[bytes, int]]) -> None:
        self._known = known

    def find(self, digest: bytes) -> tuple[bytes, int] | None:
        """Return the chunk id and the first byte in it of a block, or None."""
        return self._known.get(digest)


class _Job(NamedTuple):
    """A chunk to be stored, perhaps as a delta."""

    one: bytes
    raw: bytes
    base: bytes | None
    text: bool


class _Blob(NamedTuple):
    """A chunk encoded."""

    one: bytes
    blob: bytes
    raw: int
    depth: int
    base: bytes | None


class Writer:
    """Takes in streams and blobs, and commits one snapshot (or none).

    Use as a context manager, from one thread. What a source raises while it is read leaves the writer usable; an
    error of storage does not: it is raised by the call that meets it and by every later one.
    """

    def __init__(
        self,
        storage: Storage,
        keys: Keys,
        index: Index,
        reader: Reader,
        *,
        check: bool = False,
        held: Held | None = None,
        stored: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Begin; `stored` is told the key of every pack that is durable, on another thread."""
        self._storage = storage
        self._held = held  # renewed while the writer works
        self._tell = stored
        self._keys = keys
        self._index = index
        self._reader = reader
        self._taken: set[bytes] = set()  # chunks since the last segment
        self._batch: list[_Job] = []
        self._batch_bytes = 0
        self._encoding: list[Future[list[_Blob]]] = []
        self._pack = Pack(keys)
        self._upload: Future[int] | None = None
        self._stored: list[Pack] = []  # durable, and in no index segment yet
        self._described = 0  # packs in this writer's segments
        self._workers = ThreadPoolExecutor(2, "memkeep-encode")
        self._uploader = ThreadPoolExecutor(1, "memkeep-upload")
        self.objects: list[str] = []  # the packs and segments that were written
        self._failed: BaseException | None = None
        self._check = check
        self._coders = codec.Coders()
        self.added_bytes = 0
        self.checked: set[bytes] = set()  # chunks whose blobs were decoded again and found equal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._uploader.shutdown(cancel_futures=True)

    # -- taking in ----------------------------------------------------------------------------------------------

    def put_stream(self, buffers: Iterable[bytes], parent: Recipe | None = None, *, text: bool = False) -> Recipe:
        """Store a stream in chunks of 128 KiB, changed ones as deltas against the parent's at that place.

        What was added at the end is a delta against the parent's last chunk: it has the same words and structures.
        """
        theirs = split_ids(parent.ids) if parent is not None and not parent.runs else []
        ids: list[bytes] = []
        hasher = blake3()
        size = 0
        for raw in cut(buffers, codec.CHUNK):
            hasher.update(raw)
            base = theirs[min(len(ids), len(theirs) - 1)] if theirs else None
            ids.append(self._take(raw, base, text=text))
            size += len(raw)
        lengths = [codec.CHUNK] * (size // codec.CHUNK) + [size % codec.CHUNK] * bool(size % codec.CHUNK)
        return _recipe(ids, [0] * len(ids), lengths, hasher.digest())

    def put_blob(self, raw: bytes, base: bytes | None = None) -> bytes:
        """Store one text-like chunk whole (at most 64 MiB), as a delta against `base` if that pays; return its id."""
        return self._take(raw, base, text=True)

    def put_blocks(self, buffers: Iterable[bytes], runs: tuple[Run, ...], known: Blocks | None) -> Recipe:
        """Store a file that holds runs of vectors: a vector that is known already costs only a reference."""
        source = Source(buffers)
        pieces = Pieces()
        for run in sorted(runs, key=lambda run: run.offset):
            if run.offset < source.at or run.count < 1 or not 0 < run.stride <= codec.MAX_BLOCK:
                continue
            for raw in source.take(run.offset - source.at, codec.CHUNK):
                pieces.add(self._take(raw, None, text=False), 0, len(raw))
            self._put_run(source, run, known, pieces)
        for raw in source.take(None, codec.CHUNK):
            pieces.add(self._take(raw, None, text=False), 0, len(raw))
        recipe = _recipe(pieces.ids, pieces.starts, pieces.lengths, source.digest())
        # A file that is shorter than its runs say was cut while it was read; they must not point out of it.
        inside = tuple(run for run in runs if run.offset + run.count * run.stride <= recipe.size)
        return msgspec.structs.replace(recipe, runs=inside)

    def _put_run(self, source: Source, run: Run, known: Blocks | None, pieces: Pieces) -> None:
        """Store the next blocks of a stream, those that are not known in chunks of whole blocks."""
        length = run.count * run.stride
        if known is None:
            for raw in source.take(length, max(1, codec.CHUNK // run.stride) * run.stride):
                pieces.add(self._take(raw, None, text=False), 0, len(raw))
            return
        fresh: list[bytes] = []
        for block in source.take(length, run.stride):
            place = known.find(block_digest(block)) if len(block) == run.stride else None
            if place is not None:
                pieces.add(place[0], place[1], len(block))
                continue
            pieces.add_fresh(len(block))
            fresh.append(block)
            if (len(fresh) + 1) * run.stride > codec.CHUNK:
                pieces.settle(self._take(b"".join(fresh), None, text=False))
                fresh.clear()
        if fresh:
            pieces.settle(self._take(b"".join(fresh), None, text=False))

    def put_encoded(self, one: bytes, blob: bytes, raw: int, depth: int, base: bytes | None) -> None:
        """Store a chunk of `raw` bytes by its blob, which the caller has decoded; its base must be stored before it."""
        self._raise_failed()
        if one in self._taken:
            return
        if len(self._taken) >= SEGMENT:
            self.flush()
        self._taken.add(one)
        self._pack.append(one, blob, raw, depth, base)
        self.checked.add(one)
        if self._pack.size >= PACK_SIZE:
            self._finish_pack()

    # -- encoding -----------------------------------------------------------------------------------------------

    def _take(self, raw: bytes, base: bytes | None, *, text: bool) -> bytes:
        """Note a chunk to be stored, unless this writer has it; return its id."""
        if len(raw) > codec.MAX_CHUNK:
            message = f"a piece of {len(raw)} bytes is more than a vault takes as one ({codec.MAX_CHUNK})"
            raise MemkeepError(message, unchanged="No snapshot was made; earlier ones are whole.", code="too_large")
        one = chunk_id(self._keys, raw)
        if one not in self._taken:
            if len(self._taken) >= SEGMENT:
                self.flush()
            if self._batch and (len(self._batch) >= BATCH_CHUNKS or self._batch_bytes + len(raw) > BATCH_BYTES):
                self._encode_batch()
            self._taken.add(one)
            self._batch.append(_Job(one, raw, base, text))
            self._batch_bytes += len(raw)
        return one

    def _encode_batch(self) -> None:
        """Have a batch encoded, but for chunks that the vault has; append what was encoded before to the pack."""
        self._raise_failed()
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        places = self._index.find_usable([job.one for job in batch])
        new = [job for job, place in zip(batch, places, strict=True) if place is None]
        if new:
            self._encoding.append(self._workers.submit(self._encode, new))
        self._drain(IN_FLIGHT)

    def _drain(self, left: int) -> None:
        while len(self._encoding) > left:
            for one in self._settled(self._encoding.pop(0)):
                self._pack.append(*one)
                if self._check:
                    self.checked.add(one.one)
                if self._pack.size >= PACK_SIZE:
                    self._finish_pack()

    def _encode(self, jobs: list[_Job]) -> list[_Blob]:
        """Encode chunks, on a worker."""
        coder = self._coders.own
        bases = self._bases(jobs)
        deltas = [job.one for job in jobs if job.base in bases]
        # One that is there but lacks what it needs is stored whole: then nobody takes the other for it.
        there = {one for one, place in zip(deltas, self._index.find_all(deltas), strict=True) if place is not None}
        blobs = []
        for job in jobs:
            theirs, encoded = b"", None
            if job.base is not None and job.base in bases and job.one not in there:
                theirs, depth = bases[job.base]
                encode = coder.text if job.text else coder.pages
                blob = encode(job.raw, theirs, job.base)
                if len(blob) < len(job.raw) * WORTH:
                    encoded = _Blob(job.one, blob, len(job.raw), depth + 1, job.base)
            if encoded is None:
                encoded = _Blob(job.one, coder.full(job.raw, text=job.text), len(job.raw), 0, None)
            if self._check and coder.decode(encoded.blob, theirs if encoded.depth else b"", "new blob") != job.raw:
                message = "a chunk did not decode to what was encoded: this machine computes wrongly"
                raise DamagedError(message, hint="check the machine's memory")
            blobs.append(encoded)
        return blobs

    def _bases(self, jobs: list[_Job]) -> dict[bytes, tuple[bytes, int]]:
        """Return those chunks that a delta may be made against, and their depths."""
        wanted = list({job.base for job in jobs if job.base is not None and job.base != job.one})
        places = {
            base: place
            for base, place in zip(wanted, self._index.find_usable(wanted), strict=True)
            # Not all chains end on one day.
            if place is not None and place.depth < MAX_DEPTH - base[0] % 16
        }
        try:
            return {base: (raw, places[base].depth) for base, raw in self._reader.some(places).items()}
        except (DamagedError, StorageError):
            # What can't be read must neither stop the backup nor spread: its chunks are stored whole, verify names it.
            return {}

    # -- packs --------------------------------------------------------------------------------------------------

    def _finish_pack(self) -> None:
        if not self._pack.chunks:
            return
        pack, self._pack = self._pack, Pack(self._keys)
        # At most two packs in memory: the one being filled and the one being written.
        self._wait()
        self._upload = self._uploader.submit(self._store, pack)

    def _store(self, pack: Pack) -> int:
        """Store a pack, on the uploader, and now and then a segment: what it names a later run need not send again.

        Segments come at first after every pack, then after an eighth of those before: few segments, little to lose.
        """
        added = put_named(self._storage, pack.close(), pack.buffers)
        pack.buffers.clear()
        self._tell(pack.key)
        self._stored.append(pack)
        if self._held is not None:
            self._held.renew()
        if len(self._stored) > self._described // 8:
            added += self._describe()
        return added

    def _describe(self) -> int:
        """Write the index segment of the stored packs; return its bytes."""
        packs = {pack.key: pack.size for pack in self._stored}
        if not packs:
            return 0
        key, added = put_segment(
            self._storage, self._keys, self._index, [entry for pack in self._stored for entry in pack.entries()], packs
        )
        self.objects += [*packs, key]
        self._described += len(packs)
        self._stored.clear()
        return added

    def _wait(self) -> None:
        self._raise_failed()
        if self._upload is not None:
            self.added_bytes += self._settled(self._upload)
            self._upload = None

    def _settled(self, future: Future[T]) -> T:
        try:
            return future.result()
        except BaseException as error:
            self._failed = error
            raise

    def _raise_failed(self) -> None:
        """Refuse to go on after a failure: chunks that are taken to be stored are not."""
        if self._failed is not None:
            raise self._failed

    # -- finishing ----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make every chunk durable and known: packs, then their index segment."""
        self._raise_failed()
        if self._batch:
            self._encode_batch()
        self._drain(0)
        self._finish_pack()
        self._wait()
        self.added_bytes += self._settled(self._uploader.submit(self._describe))
        self._taken.clear()

    def commit(self, snapshot: Snapshot, seal: layout.Seal, number: int) -> Snapshot:
        """Write the manifest, which is what makes the snapshot, and then its seal; return it with its id."""
        self.flush()
        manifest = msgspec.json.encode(msgspec.structs.replace(snapshot, id="", added_bytes=self.added_bytes))
        data = self._keys.envelope(SNAPSHOT, zstandard.ZstdCompressor(level=9).compress(manifest))
        name = layout.digest_of(data)
        self._put_last(layout.SNAPSHOTS + name, data)
        sealed = msgspec.structs.replace(
            seal,
            snapshots=(*seal.snapshots, layout.SNAPSHOTS + name),
            objects=tuple(dict.fromkeys([*seal.objects, *self.objects])),
        )
        try:
            put_seal(self._storage, self._keys, sealed, number)
        except StorageError as error:
            error.unchanged = f"The snapshot {name[:8]} was made and is whole; the next backup writes its seal."
            raise
        return msgspec.structs.replace(snapshot, id=name, added_bytes=self.added_bytes)

    def kept(self) -> bool:
        """Say whether every prune has seen that this writer was at work: ask when something was committed."""
        return self._held is None or self._held.kept()

    def _put_last(self, key: str, data: bytes) -> None:
        try:
            self.added_bytes += put_named(self._storage, key, [data])
        except BaseException as error:
            self._failed = error
            raise


def put_segment(
    storage: Storage,
    keys: Keys,
    index: Index,
    entries: Sequence[tuple[bytes, Location]],
    packs: Mapping[str, int],
) -> tuple[str, int]:
    """Store the index segment of some entries and take it into the index; return its key and how many bytes it added.

    `packs` gives the sizes of all packs that the entries lie in.
    """
    plain = build_segment(entries, packs)
    data = keys.envelope(INDEX, plain)
    key = layout.INDEX + layout.digest_of(data)
    added = put_named(storage, key, [data])
    index.add(key, read_segment(key, plain))
    return key, added


def put_named(storage: Storage, key: str, buffers: Iterable[bytes]) -> int:
    """Store an object whose name is its content; return how many bytes that added, none if it is there already."""
    with suppress(ObjectExistsError):
        return storage.put_new(key, buffers)
    return 0


def put_seal(storage: Storage, keys: Keys, seal: layout.Seal, number: int) -> None:
    """Write one entry of the vault's log."""
    data = keys.envelope(SEAL, msgspec.json.encode(seal))
    with suppress(ObjectExistsError):
        storage.put_new(f"{layout.SEALS}{number:08d}-{layout.digest_of(data)}", [data])


def block_digest(block: bytes) -> bytes:
    """Return the 16 bytes by which a vector is found again (never its proof: the whole file's digest is)."""
    return blake3(block).digest(16)


def _recipe(ids: list[bytes], starts: list[int], lengths: list[int], digest: bytes) -> Recipe:
    import numpy as np

    return Recipe(
        size=sum(lengths),
        digest=digest,
        ids=b"".join(ids),
        starts=np.array(starts, "<u4").tobytes(),
        lengths=np.array(lengths, "<u4").tobytes(),
    )

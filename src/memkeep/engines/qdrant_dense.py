"""The plain vectors of a shard, read from the files of its segments, and where they lie in these.

`vector_storage[-NAME]/vectors/` has chunks of whole vectors one after another, `chunk_N.mmap`, each of
`chunk_size_vectors` as its `config.json` says; `status.dat` has the number of vectors, u64. Beside it
`deleted/flags_{a,b}.dat` has a bit a place, 1 where the point has no such vector; `deleted/status.dat` the number of
bits, u64, and which of the two files counts, u64.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from blake3 import blake3

from memkeep.engines.qdrant_ids import UnknownLayoutError
from memkeep.model import Run

if TYPE_CHECKING:
    import numpy as np

MARK = 16  # bytes by which a vector is known
_BUFFER = 1 << 20
_TYPES = {None: "<f4", "float32": "<f4", "float16": "<f2", "uint8": "u1"}
_SMALLEST = 256  # bytes a vector; below that runs of them cost more than they save
_STORAGES = {"InRamChunkedMmap", "ChunkedMmap"}
_decode = msgspec.json.Decoder().decode

Extents = dict[Path, list[tuple[int, int]]]
"""Start and length of some pieces of files."""


def plain_vectors(segment: Path) -> list[str]:
    """Return the names of a segment's vectors that can be read here, "" for the unnamed one."""
    return [
        name
        for name, config in _decode((segment / "segment.json").read_bytes())["config"]["vector_data"].items()
        if config["storage_type"] in _STORAGES
        and not config.get("multivector_config")
        and config.get("datatype") in _TYPES
    ]


class Known(NamedTuple):
    """What stands for a plain vector where only its digest is wanted."""

    dims: int
    digest: bytes  # the first 16 bytes of the BLAKE3 of its elements, float32, little-endian


Marks = list[dict[str, bytes]]
"""The digests of all plain vectors of a shard: by segment, by name, one after another by place."""


class Dense:
    """The vectors of one name in one segment."""

    def __init__(self, segment: Path, name: str) -> None:
        """Look at the files. Raises `UnknownLayoutError`."""
        import numpy as np

        config = _decode((segment / "segment.json").read_bytes())["config"]["vector_data"][name]
        self._folder = segment / (f"vector_storage-{name}" if name else "vector_storage")
        layout = _decode((self._folder / "vectors/config.json").read_bytes())
        self._type = np.dtype(_TYPES[config.get("datatype")])
        self.size: int = config["size"]
        self.stride = self.size * self._type.itemsize
        self._each = layout["chunk_size_vectors"]
        if layout["dim"] != config["size"] or layout["chunk_size_bytes"] // self.stride != self._each:
            raise UnknownLayoutError
        self.count = int.from_bytes((self._folder / "vectors/status.dat").read_bytes()[:8], "little")
        status = (self._folder / "deleted/status.dat").read_bytes()
        flags = (self._folder / f"deleted/flags_{'b' if status[8] else 'a'}.dat").read_bytes()
        bits = int.from_bytes(status[:8], "little")
        self._missing = np.unpackbits(np.frombuffer(flags, "u1", -(-bits // 8)), bitorder="little")[:bits]
        self._open: dict[int, int] = {}

    def has(self, place: int) -> bool:
        """Say whether there is a vector at a place."""
        return place < self.count and not (place < len(self._missing) and self._missing[place])

    def vector(self, place: int) -> bytes | None:
        """Return a vector as float32, little-endian; None when the point has none."""
        if not self.has(place):
            return None
        raw = os.pread(self._descriptor(place // self._each), self.stride, place % self._each * self.stride)
        if len(raw) != self.stride:
            raise UnknownLayoutError
        if self._type.itemsize == 4:  # noqa: PLR2004 - float32 already
            return raw
        import numpy as np

        return np.frombuffer(raw, self._type).astype("<f4").tobytes()

    def blocks(self) -> "Iterator[tuple[int, np.ndarray[Any, Any]]]":
        """Yield all vectors, those of no point too, as float32 (n, size), and the place of the first of each block."""
        import numpy as np

        each = max(1, _BUFFER // self.stride)
        for begin in range(0, self.count, self._each):
            end = min(begin + self._each, self.count)
            for first in range(begin, end, each):
                wanted = min(each, end - first) * self.stride
                raw = os.pread(self._descriptor(begin // self._each), wanted, (first - begin) * self.stride)
                if len(raw) != wanted:
                    raise UnknownLayoutError
                yield first, np.frombuffer(raw, self._type).astype("<f4", copy=False).reshape(-1, self.size)

    def there(self, first: int, count: int) -> "np.ndarray[Any, Any]":
        """Say of some places whether the point has such a vector."""
        import numpy as np

        found = np.ones(count, bool)
        missing = self._missing[first : first + count]
        found[: len(missing)] = missing == 0
        return found

    def marks(self) -> bytes:
        """Return the first 16 bytes of the BLAKE3 of each vector, as float32, by place."""
        return b"".join(blake3(vector).digest(MARK) for _, block in self.blocks() for vector in block.view("u1"))

    def extent(self, place: int) -> tuple[Path, tuple[int, int]]:
        """Return the file of a vector, and start and length there."""
        return self._chunk(place // self._each), (place % self._each * self.stride, self.stride)

    def files(self) -> list[Path]:
        """Return the files of the vectors."""
        return sorted((self._folder / "vectors").glob("chunk_*.mmap"))

    def runs(self) -> Iterator[tuple[Path, Run]]:
        """Yield where vectors lie in which file."""
        for first in range(0, self.count, self._each):
            path = self._chunk(first // self._each)
            yield path, Run(offset=0, count=min(self._each, self.count - first), stride=self.stride)

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _descriptor(self, chunk: int) -> int:
        if chunk not in self._open:
            self._open[chunk] = os.open(self._chunk(chunk), os.O_RDONLY)
        return self._open[chunk]

    def _chunk(self, chunk: int) -> Path:
        return self._folder / f"vectors/chunk_{chunk}.mmap"


class Shelf:
    """The plain vectors of all segments of a shard."""

    def __init__(self, segments: list[Path]) -> None:
        """Open those vectors that can be read in every segment. Raises `UnknownLayoutError`."""
        self.names: list[str] = []
        self._dense: list[dict[str, Dense]] = []
        try:
            per_segment = [set(plain_vectors(segment)) for segment in segments]
            self.names = sorted(set.intersection(*per_segment)) if per_segment else []
            self._dense = [{name: Dense(segment, name) for name in self.names} for segment in segments]
        except (OSError, LookupError, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise UnknownLayoutError from error

    def vectors(self, place: tuple[int, int]) -> dict[str, bytes]:
        """Return the plain vectors of the point at a place, float32."""
        found = {name: dense.vector(place[1]) for name, dense in self._dense[place[0]].items()}
        return {name: vector for name, vector in found.items() if vector is not None}

    def known(self, place: tuple[int, int], marks: Marks) -> dict[str, Known]:
        """Return the plain vectors of the point at a place, by their digests."""
        number, at = place
        return {
            name: Known(dense.size, marks[number][name][at * MARK : (at + 1) * MARK])
            for name, dense in self._dense[number].items()
            if dense.has(at)
        }

    def marks(self) -> Marks:
        """Return the digests of all vectors. Raises `UnknownLayoutError`."""
        return [{name: dense.marks() for name, dense in segment.items()} for segment in self._dense]

    def segments(self) -> "list[dict[str, Dense]]":
        """Return the vectors by segment and name."""
        return self._dense

    def extents(self, places: Iterable[tuple[int, int]]) -> Extents:
        """Return all files of vectors, and where in them those of some points lie."""
        found: Extents = {path: [] for segment in self._dense for dense in segment.values() for path in dense.files()}
        for number, place in places:
            for dense in self._dense[number].values():
                if place < dense.count:
                    path, extent = dense.extent(place)
                    found[path].append(extent)
        return found

    def runs(self) -> Iterator[tuple[Path, Run]]:
        """Yield where vectors lie in which file."""
        for segment in self._dense:
            for dense in segment.values():
                yield from dense.runs() if dense.stride >= _SMALLEST else ()

    def close(self) -> None:
        """Let go of the files."""
        for segment in self._dense:
            for dense in segment.values():
                dense.close()

"""Reading the points of a shard without a server, by Qdrant's own engine on a disposable copy: it writes on opening.

The engine reads payloads, sparse and multiple vectors. Plain vectors, which it would give number by number, are read
from the files where their layout is known (see `qdrant_dense`), after a comparison of some points with the engine's
answers; else the engine gives them too.
"""

import ctypes
import os
import shutil
import struct
from array import array
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from mmap import MADV_DONTNEED
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from memkeep.engines import qdrant_tar
from memkeep.engines.qdrant_dense import Extents, Known, Marks, Shelf
from memkeep.engines.qdrant_ids import Places, UnknownLayoutError
from memkeep.errors import StoreError

_BATCH = 512
_LET_GO = 16  # batches, after which pages that were read need not stay in memory
_COMPARED = 32  # points
_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


class Sparse(NamedTuple):
    """A sparse vector."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


Vector = bytes | Sparse | tuple[bytes, ...]  # float32, little-endian; several of them for a multivector


class Point(NamedTuple):
    """A point as the server has it."""

    id: int | str
    payload: dict[str, Any]
    vectors: dict[str, Vector]  # "" for the unnamed one
    known: dict[str, Known] = {}  # what stands for plain vectors that were not asked for


def installed() -> bool:
    """Say whether the engine is there."""
    return find_spec("qdrant_edge") is not None


class Shard:
    """A shard's points, read from its files under `folder`, which stay as they are."""

    def __init__(self, folder: Path, aside: Path, *, plain: bool) -> None:
        """Copy the files to `aside` and open them; `plain` asks for the fast way. `StoreError` when it can't be."""
        self._folder = folder
        self._aside = aside
        self._shelf: Shelf | None = None
        self._places: Places | None = None
        self._marks: Marks | None = None
        self._edge: Any = None
        if not plain or not self._look(sorted(one / "files" for one in (folder / "segments").iterdir())):
            self._load({})
        self.count: int = self._counted()

    @property
    def plain(self) -> bool:
        """Say whether plain vectors are read the fast way."""
        return self._shelf is not None

    def points(self, marks: Marks | None = None) -> Iterator[list[Point]]:
        """Yield all points in batches, in the order of their ids. Raises `StoreError`.

        With the `marks` of the shelf plain vectors that are read the fast way are `known` only.
        """
        self._marks = marks
        offset, number = None, 0
        while True:
            try:
                batch, after = self._batch(offset)
            except UnknownLayoutError:
                self._give_up()
                batch, after = self._batch(offset)
            yield batch
            offset, number = after, number + 1
            if number % _LET_GO == 0:
                _let_go(self._aside)
            if offset is None:
                return

    def blocks(self) -> "Iterator[tuple[str, Sequence[str], Any]]":
        """Yield the plain vectors in the order of the files: their name, ids and elements, float32 (n, size).

        Nothing when they are not read the fast way. Raises `UnknownLayoutError`.
        """
        if self._shelf is None or self._places is None:
            return
        for number, segment in enumerate(self._shelf.segments()):
            for name, dense in segment.items():
                rows = self._places.rows(number, dense.count)
                for first, block in dense.blocks():
                    here = rows[first : first + len(block)]
                    kept = (here >= 0) & dense.there(first, len(block))
                    yield name, _Names(self._places, here[kept]), block if kept.all() else block[kept]

    def some(self, count: int) -> list[int | str]:
        """Return the ids of some points, spread over all of them."""
        if self._places is not None:
            return self._places.some(count)
        from qdrant_edge import ScrollRequest

        with _meant(self._aside):
            records, _ = self._edge.scroll(ScrollRequest(limit=count, with_payload=False))
        return [_id(record) for record in records]

    def retrieve(self, ids: Sequence[int | str]) -> list[Point]:
        """Return those of the points that are here."""
        try:
            return self._retrieve(ids)
        except UnknownLayoutError:
            self._give_up()
            return self._retrieve(ids)

    def close(self) -> None:
        """Let go of the files and remove the copy."""
        self._put_away()
        self._let_close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _load(self, some: Extents) -> None:
        """Open a copy of the files, `some` of which are holes but for these extents. Raises `StoreError`."""
        from qdrant_edge import EdgeShard

        with _meant(self._folder):
            self._let_close()
            _copy(self._folder, self._aside, some)
            self._edge = EdgeShard.load(str(self._aside))

    def _let_close(self) -> None:
        if self._edge is not None:
            self._edge.close()
            self._edge = None

    def _counted(self) -> int:
        from qdrant_edge import CountRequest

        with _meant(self._folder):
            return int(self._edge.count(CountRequest(exact=True)))

    def _retrieve(self, ids: Sequence[int | str]) -> list[Point]:
        with _meant(self._aside):
            records = self._edge.retrieve(list(ids), with_payload=True, with_vector=self._wanted())
        return self._pointed(records)

    def _wanted(self) -> bool | list[str]:
        """Return the vectors that the engine is asked for."""
        if self._shelf is None:
            return True
        return [name for name in self._names if name not in self._shelf.names]

    def _give_up(self) -> None:
        """Let the engine give plain vectors too."""
        self._put_away()
        self._load({})

    def _put_away(self) -> None:
        if self._shelf is not None:
            self._shelf.close()
        self._shelf = self._places = None

    def _batch(self, offset: Any) -> tuple[list[Point], Any]:
        """Return some points, and where to go on. Raises `UnknownLayoutError` when the fast way fails."""
        from qdrant_edge import ScrollRequest

        with _meant(self._aside):
            request = ScrollRequest(offset=offset, limit=_BATCH, with_payload=True, with_vector=self._wanted())
            records, after = self._edge.scroll(request)
        return self._pointed(records), after

    def _pointed(self, records: Sequence[Any]) -> list[Point]:
        """Return what the engine gave, with the plain vectors. Raises `UnknownLayoutError` when the fast way fails."""
        points = [Point(_id(record), record.payload or {}, _vectors(record.vector)) for record in records]
        if self._shelf is not None and self._places is not None:
            found = zip(points, self._places.find([point.id for point in points]), strict=True)
            if (marks := self._marks) is not None:
                shelf = self._shelf
                return [Point(*point[:3], shelf.known(place, marks)) for point, place in found]
            for point, place in found:
                point.vectors.update(self._shelf.vectors(place))
        return points

    def _look(self, segments: list[Path]) -> bool:
        """Take the fast way, and say so, when it gives what the engine gives of some points.

        The engine is opened without the plain vectors but for those of these points: it finds them only where the
        layout is the one that is known here.
        """
        try:
            shelf, places = Shelf(segments), Places(segments)
        except (OSError, UnknownLayoutError):
            return False
        agreed = False
        try:
            if shelf.names:
                asked = places.some(_COMPARED)
                at = places.find(asked)
                self._load(shelf.extents(at))
                agreed = len(places) == self._counted() and self._agree(shelf, dict(zip(asked, at, strict=True)))
        except (OSError, UnknownLayoutError, StoreError):
            agreed = False
        if agreed:
            self._shelf, self._places, self._names = shelf, places, _names(segments)
        else:
            shelf.close()
        return agreed

    def _agree(self, shelf: Shelf, asked: dict[int | str, tuple[int, int]]) -> bool:
        """Say whether files and engine give the same vectors of some points."""
        points = self._retrieve(list(asked))
        if len(points) != len(asked):
            return False
        for point in points:
            known = {name: vector for name, vector in point.vectors.items() if name in shelf.names}
            if shelf.vectors(asked[point.id]) != known:
                return False
        return True


class _Names(Sequence[str]):
    """The ids of some points, told when they are asked for: those of a few of many."""

    def __init__(self, places: Places, rows: Any) -> None:
        self._places = places
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        return self._places.name(int(self._rows[at]))


def _names(segments: Sequence[Path]) -> list[str]:
    """Return the names of all vectors."""
    found: dict[str, None] = {}
    for segment in segments:
        config = _decode((segment / "segment.json").read_bytes())["config"]
        found.update(dict.fromkeys([*config.get("vector_data", {}), *config.get("sparse_vector_data", {})]))
    return list(found)


def _copy(folder: Path, aside: Path, some: Extents) -> None:
    """Copy a shard as the engine wants it: its own layout, no indexes of payloads, and nothing in memory."""
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "segments").mkdir(parents=True)
    for name in ("shard_config.json", "replica_state.json", "newest_clocks.json"):
        if (folder / name).is_file():
            qdrant_tar.copy(folder / name, aside / name)
    for segment in (folder / "segments").iterdir():
        for path in sorted((segment / "files").rglob("*")):
            inside = path.relative_to(segment / "files")
            target = aside / "segments" / segment.name / inside
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif inside.parts[0] != "payload_index":
                target.parent.mkdir(parents=True, exist_ok=True)
                qdrant_tar.copy(path, target, some.get(path))
        _frugal(aside / "segments" / segment.name)


def _frugal(segment: Path) -> None:
    """Have the engine read from the files what it would keep in memory."""
    state = _decode((segment / "segment.json").read_bytes())
    for vector in state["config"]["vector_data"].values():
        if vector.get("storage_type") == "InRamChunkedMmap":
            vector["storage_type"] = "ChunkedMmap"
        if vector.get("index", {}).get("type") == "hnsw":
            vector["index"]["options"]["on_disk"] = True
    for sparse in state["config"].get("sparse_vector_data", {}).values():
        if sparse["index"].get("index_type") == "ImmutableRam":
            sparse["index"]["index_type"] = "Mmap"
    (segment / "segment.json").write_bytes(_encode(state))
    (segment / "payload_index").mkdir(exist_ok=True)
    (segment / "payload_index/config.json").write_bytes(b'{"indexed_fields":{}}')


def _id(record: Any) -> int | str:
    one = record.id  # made anew each time
    return one if isinstance(one, int) else str(one)


def _vectors(found: Any) -> dict[str, Vector]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        found = {"": found}
    return {name: _vector(vector) for name, vector in found.items()}


def _vector(found: Any) -> Vector:
    if not isinstance(found, list):
        return Sparse(tuple(found.indices), tuple(found.values))
    if found and isinstance(found[0], list):
        return tuple(_floats(row) for row in found)
    return _floats(found)


def _floats(numbers: list[float]) -> bytes:
    packed = array("f", numbers)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        packed.byteswap()
    return packed.tobytes()


class _meant:  # noqa: N801 - reads as a word of the statement
    """Say as a `StoreError` what the engine says, its panics too."""

    def __init__(self, folder: Path) -> None:
        self._name = folder.name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, StoreError | KeyboardInterrupt | SystemExit | GeneratorExit):
            return
        raise StoreError(f"shard {self._name} cannot be read without its server: {error}") from error


def _let_go(folder: Path) -> None:
    """Take the pages of files under a folder out of this process's memory; they are read again when needed."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return  # another system than Linux: its own paging must do
    libc = ctypes.CDLL(None, use_errno=True)
    for line in lines:
        span, rights, *_ = line.split()
        if rights.endswith("s") and f"{os.fspath(folder)}/" in line:
            start, end = (int(one, 16) for one in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)

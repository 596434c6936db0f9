"""One vector segment of Chroma: the five files of an HNSW index, read without the library that wrote them.

    header.bin            version, counts and offsets; all integers little-endian
    data_level0.bin       for each element: links, vector (float32), label (u64)
    length.bin            for each element the length of its vector, where distances are cosine: float32
    link_lists.bin        for each element the size of its upper links (u32), and these
    index_metadata.pickle which id has which label; only from the first time on that the index was written

The header's count is to be trusted, not the size of a file, which may be allocated ahead. Vectors of cosine collections
lie at unit length; times the length they are what was given within one rounding of float32. Layout as chromadb 1.5
writes it (hnswlib, `saveIndex` in hnswalg.h); before 0.6 the pickle held an object of a class.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines import pickles
from memkeep.engines.pickles import PickleError, Record

if TYPE_CHECKING:
    import numpy as np

FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")
_HEADER = struct.Struct("<i6QiI3QdQ")
_CLASS = "chromadb.segment.impl.vector.local_persistent_hnsw.PersistentData"
_COUNT = 4  # bytes before an element's links: how many, and whether it was removed
_LINK = 4
_LABEL = 8
_FLOAT = 4
_REMOVED = 1
_TOLERANCE = 1e-3  # of a unit vector's length


class _Shape(NamedTuple):
    """What the header says."""

    elements: int
    stride: int
    label: int
    vector: int
    entry: int

    @property
    def dims(self) -> int:
        return (self.label - self.vector) // _FLOAT


class Vectors:
    """The vectors of a segment by id; `trouble` says what is wrong with its files."""

    def __init__(self, folder: Path, *, cosine: bool) -> None:
        """Read what lies in a folder, which nobody else changes."""
        self.folder = folder
        self.trouble: list[str] = []
        self.dims = 0
        self.written = any((folder / name).exists() for name in FILES)
        self._labels: dict[str, int] = {}
        self._place: dict[int, int] = {}
        self._rows: Any = None
        self._lengths: Any = None
        self._cosine = cosine
        try:
            self._read(folder)
        except _DamagedError as error:
            self.trouble.append(str(error))
        except OSError as error:
            self.trouble.append(f"{Path(error.filename or '').name} can't be read: {error.strerror}")

    @property
    def ids(self) -> list[str]:
        """The ids that have a vector here."""
        return [record for record, label in self._labels.items() if label in self._place]

    def has(self, record: str) -> bool:
        """Say whether an id has a vector here."""
        return self._labels.get(record, -1) in self._place

    def get(self, record: str) -> bytes | None:
        """Return a vector as it was given, float32 little-endian; None when there is none."""
        import numpy as np

        place = self._place.get(self._labels.get(record, -1))
        if place is None:
            return None
        vector = self._rows[place]
        if self._cosine and self._lengths is not None:
            vector = vector * np.float32(self._lengths[place])
        return bytes(vector.astype("<f4").tobytes())

    def _read(self, folder: Path) -> None:
        import numpy as np

        if not self.written:
            return
        shape = _shape((folder / "header.bin").read_bytes())
        pickle = folder / "index_metadata.pickle"
        if not shape.elements and not pickle.exists():
            return  # nothing was ever written but the empty index
        self._labels = _labels(pickle.read_bytes())
        self.dims = shape.dims
        size = (folder / "data_level0.bin").stat().st_size
        if size < shape.elements * shape.stride:
            raise _DamagedError(f"data_level0.bin has {size} bytes, and {shape.elements} elements of {shape.stride}")
        if not shape.elements:
            self._compare(shape, np.empty(0, np.uint8))
            return
        data = np.memmap(folder / "data_level0.bin", np.uint8, "r", shape=(shape.elements, shape.stride))
        labels = np.ascontiguousarray(data[:, shape.label : shape.label + _LABEL]).view("<u8").ravel()
        self._place = {label: place for place, label in enumerate(labels.tolist())}
        self._rows = np.lib.stride_tricks.as_strided(
            np.ndarray((shape.elements, shape.dims), "<f4", data, shape.vector, (shape.stride, _FLOAT)), writeable=False
        )
        self._read_lengths(folder / "length.bin", shape)
        self._compare(shape, data)
        self.trouble += _links(data, shape)
        self.trouble += _upper_links(folder / "link_lists.bin", shape)
        self.trouble += self._odd_vectors()

    def _read_lengths(self, file: Path, shape: _Shape) -> None:
        import numpy as np

        if not self._cosine:
            return
        if not file.exists() or file.stat().st_size < shape.elements * _FLOAT:
            self.trouble.append("length.bin is missing or too short: the vectors are known at unit length only")
            return
        self._lengths = np.fromfile(file, "<f4", shape.elements)
        odd = int(np.count_nonzero(~(np.isfinite(self._lengths) & (self._lengths >= 0))))
        if odd:
            self.trouble.append(f"length.bin has {odd} lengths that are none")

    def _compare(self, shape: _Shape, data: "np.ndarray[Any, Any]") -> None:
        """Compare the ids with the elements."""
        lost = [record for record, label in self._labels.items() if label not in self._place]
        if lost:
            self.trouble.append(f"{len(lost)} ids have no element, the first is {lost[0]}")
        removed = int((data[:, 2] & _REMOVED).sum()) if shape.elements else 0
        living = shape.elements - removed
        if len(self._place) != shape.elements:
            self.trouble.append(f"{shape.elements - len(self._place)} elements have the label of another")
        elif not lost and living != len(self._labels):
            self.trouble.append(f"data_level0.bin has {living} elements, index_metadata.pickle {len(self._labels)} ids")

    def _odd_vectors(self) -> list[str]:
        import numpy as np

        with np.errstate(all="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", self._rows, self._rows, dtype=np.float64))
        odd = ~np.isfinite(lengths)
        if self._cosine:
            odd |= (np.abs(lengths - 1) > _TOLERANCE) & (lengths > _TOLERANCE)
        count = int(np.count_nonzero(odd))
        return [f"data_level0.bin has {count} vectors that are none, or not of unit length"] if count else []


class _DamagedError(Exception):
    """A file is not what its name says."""


def _shape(header: bytes) -> _Shape:
    if len(header) != _HEADER.size:
        raise _DamagedError(f"header.bin has {len(header)} bytes, not {_HEADER.size}")
    (version, start, _, count, stride, label, vector, _, entry, most, most_first, *_) = _HEADER.unpack(header)
    whole = (
        version == 1
        and start == 0
        and 0 < most <= most_first
        and vector == _COUNT + most_first * _LINK
        and vector < label
        and (label - vector) % _FLOAT == 0
        and stride == label + _LABEL
        and (entry < count or not count)
    )
    if not whole:
        raise _DamagedError("header.bin does not describe an index")
    return _Shape(count, stride, label, vector, entry)


def _labels(data: bytes) -> dict[str, int]:
    """Return the label of each id."""
    try:
        said = pickles.plain(pickles.loads(data, (_CLASS,)))
    except PickleError as error:
        raise _DamagedError(f"index_metadata.pickle was not read: {error}") from error
    said = said.state if isinstance(said, Record) else said
    labels = said.get("id_to_label") if isinstance(said, dict) else None
    back = said.get("label_to_id") if isinstance(said, dict) else None
    if not isinstance(labels, dict) or not isinstance(back, dict):
        raise _DamagedError("index_metadata.pickle does not say which id has which label")
    good = all(isinstance(record, str) and isinstance(label, int) for record, label in labels.items())
    if not good or {label: record for record, label in labels.items()} != back:
        raise _DamagedError("index_metadata.pickle says two things of which id has which label")
    return labels


def _links(data: "np.ndarray[Any, Any]", shape: _Shape) -> list[str]:
    """Compare the links of the lowest level with what there is to link to."""
    import numpy as np

    count = np.ascontiguousarray(data[:, :2]).view("<u2").ravel().astype(np.int64)
    links = np.ascontiguousarray(data[:, _COUNT : shape.vector]).view("<u4")
    used = np.arange(links.shape[1])[None, :] < count[:, None]
    wrong = int(np.count_nonzero((count > links.shape[1]) | (used & (links >= shape.elements)).any(axis=1)))
    return [f"data_level0.bin has {wrong} elements that are linked to what is not there"] if wrong else []


def _upper_links(file: Path, shape: _Shape) -> list[str]:
    data = file.read_bytes() if file.exists() else b""
    at = 0
    for _ in range(shape.elements):
        if at + _LINK > len(data):
            return ["link_lists.bin ends too early"]
        at += _LINK + int.from_bytes(data[at : at + _LINK], "little")
    return [] if at == len(data) else ["link_lists.bin does not end where it should"]

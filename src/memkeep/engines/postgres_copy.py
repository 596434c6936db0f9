r"""Files in PostgreSQL's binary COPY format: written from what a server sends, and read without one.

A file is the header `PGCOPY\n\xff\r\n\0`, two zero int32 (flags, length of an extension), tuples, and int16 -1. A
tuple is an int16 count of fields and for each an int32 length (-1: NULL) and its bytes. All integers are big-endian.
A server sends each tuple as one message.

A column of vectors lies in a file of its own, a tuple of two fields a row: its dimensions, int16, and the vector. With
the dimensions a tuple takes a multiple of four bytes, so that all floats of a file are aligned alike.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from blake3 import blake3

from memkeep.engines.postgres_tables import Table, vector_file
from memkeep.errors import StoreError
from memkeep.model import Run

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
FIRST = "first.copy"
SMALLEST = 256  # bytes a vector's tuple; below that pieces cost more than they save
_SEGMENT = 8  # bits: about 256 rows a segment,
_SEGMENTS = 12  # bits: and about 4096 segments at most
_BUFFER = 1 << 20
_COUNT = struct.Struct(">h")
_LENGTH = struct.Struct(">i")
_NO_VECTOR = struct.pack(">hii", 2, -1, -1)
_HEAD = struct.pack(">hi", 2, 2)
_ALONE = 12  # bytes of a tuple before its vector: the fields, the dimensions, the vector's length
ELEMENTS = 4  # bytes of a vector before its elements: its dimensions and an unused number
MARK = 16  # bytes by which a vector is known
_NO_MARK = bytes(MARK)


class _File:
    """A file being written, in large pieces, and where tuples of equal size lie in it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._waiting = [HEADER]
        self._size = len(HEADER)
        self._end = len(HEADER)
        self._runs: list[list[int]] = []

    def add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _BUFFER:
            self._write()

    def add_vector(self, data: bytes) -> None:
        stride = len(data)
        if self._runs and self._runs[-1][2] == stride:
            self._runs[-1][1] += 1
        else:
            self._runs.append([self._end, 1, stride])
        self._end += stride
        self.add(data)

    def runs(self) -> tuple[Run, ...]:
        return tuple(
            Run(offset=offset, count=count, stride=stride) for offset, count, stride in self._runs if stride >= SMALLEST
        )

    def finish(self) -> None:
        self.add(TRAILER)
        self._write()
        self.close()

    def close(self) -> None:
        self._file.close()

    def _write(self) -> None:
        view = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        self._size = 0
        while view:
            view = view[self._file.write(view) :]


class Written(msgspec.Struct):
    """What became of a table's rows."""

    rows: int
    segments: tuple[str, ...]
    runs: dict[str, tuple[Run, ...]]  # by file, under the table's folder


class Writer:
    """Writes the rows of one table as they come, in segments that are cut where a row's key says so.

    A row that is added or gone changes one segment, and each keeps its name, whatever comes before it.
    """

    def __init__(self, table: Table, folder: Path, marks: Path, expected: int) -> None:
        """Begin; `expected` is about how many rows there will be, `marks` is a folder for what `marks_in` reads."""
        self._folder = folder / "rows"
        self._folder.mkdir(parents=True)
        (folder / "vectors").mkdir()
        self._names = dict.fromkeys([FIRST])
        self._rows = _File(self._folder / FIRST)
        self._vectors = {vector_file(column): _File(folder / vector_file(column)) for column in table.vectors}
        (marks / "vectors").mkdir(parents=True)
        self._marks = [(marks / name).open("xb") for name in self._vectors]
        places = [column.name for column in table.others]
        self._key = [places.index(name) for name in table.key] if set(table.key) <= set(places) else []
        self._mask = (1 << max(_SEGMENT, expected.bit_length() - _SEGMENTS)) - 1
        self._fields = _COUNT.pack(len(places))
        self._width = len(table.columns)
        self._count = 0

    def add(self, message: bytes | bytearray | memoryview) -> None:
        """Take in what the server sent: a row, vectors first; the header may stand before it, or the trailer alone."""
        found = message_fields(bytes(message), self._width, len(self._vectors))
        if found is None:
            return
        fields, rest = found
        for file, marks, vector in zip(self._vectors.values(), self._marks, fields, strict=True):
            marks.write(mark(vector))  # now: the server takes longer to send a row than this takes
            if vector is None:
                file.add_vector(_NO_VECTOR)
            else:
                file.add_vector(b"".join((_HEAD, vector[:2], _LENGTH.pack(len(vector)), vector)))
        key = self._key_of(rest)
        if self._count and not zlib.crc32(key) & self._mask:
            name = f"{blake3(key).hexdigest(8)}.copy"
            if name not in self._names:  # two rows without a key may be the same
                self._rows.finish()
                self._names[name] = None
                self._rows = _File(self._folder / name)
        self._rows.add(self._fields + rest)
        self._count += 1

    def finish(self) -> Written:
        """End all files."""
        for file in (self._rows, *self._vectors.values()):
            file.finish()
        runs = {name: file.runs() for name, file in self._vectors.items()}
        return Written(self._count, tuple(self._names), runs)

    def close(self) -> None:
        """Let go of the files, finished or not."""
        for file in (self._rows, *self._vectors.values()):
            file.close()
        for marks in self._marks:
            marks.close()

    def _key_of(self, row: bytes) -> bytes:
        if not self._key:
            return row
        if self._key == [0]:
            return row[4 : 4 + max(0, _LENGTH.unpack_from(row)[0])]
        fields, _ = _fields(row, 0, max(self._key) + 1)
        return b"\0".join(fields[i] or b"" for i in self._key)


def _fields(data: bytes, at: int, count: int) -> tuple[list[bytes | None], int]:
    found: list[bytes | None] = []
    unpack = _LENGTH.unpack_from
    for _ in range(count):
        (length,) = unpack(data, at)
        at += 4
        if length < 0:
            found.append(None)
        else:
            found.append(data[at : at + length])
            at += length
    return found, at


def tuples(paths: Iterable[Path]) -> Iterator[tuple[bytes, list[bytes | None]]]:
    """Yield the tuples of some files: their bytes, and their fields; `StoreError` where a file is not well formed."""
    for path in paths:
        with path.open("rb") as file:
            yield from _of_file(file, path)


def _of_file(file: BinaryIO, path: Path) -> Iterator[tuple[bytes, list[bytes | None]]]:
    data = file.read(_BUFFER)
    if not data.startswith(HEADER):
        raise _broken(path)
    at, floor = len(HEADER), 0
    while True:
        try:
            (count,) = _COUNT.unpack_from(data, at)
            if count < 0:
                if count != -1 or len(data) != at + 2 or file.read(1):
                    raise _broken(path)
                return
            fields, end = _fields(data, at + 2, count)
        except struct.error:
            fields, end = [], len(data) + 1
        if end > len(data):
            more = file.read(max(_BUFFER, len(data) - at - floor))
            if not more:
                raise _broken(path)
            data, at = data[at:] + more, 0
            continue
        yield data[at:end], fields
        at = end


def vectors(path: Path) -> "Iterator[bytes | memoryview | None]":
    """Yield the vectors of a file of them, None where a row has none; `StoreError` as `tuples` does.

    Vectors of one size are cut out of a large piece at once, when all heads in it are the same.
    """
    with path.open("rb") as file:
        data = file.read(_BUFFER)
        if not data.startswith(HEADER):
            raise _broken(path)
        at = len(HEADER)
        while data[at : at + 2] != TRAILER:
            head = data[at : at + len(_NO_VECTOR) + 2]
            if head.startswith(_NO_VECTOR):
                yield None
                at += len(_NO_VECTOR)
                continue
            size = _ALONE + _LENGTH.unpack_from(head, _ALONE - 4)[0] if len(head) >= _ALONE else len(data)
            count = (len(data) - at) // size if size > _ALONE and head.startswith(_HEAD) else 0
            if count:
                same = _same(data, at, size, count)
                view = memoryview(data)
                for start in range(at + _ALONE, at + same * size, size):
                    yield view[start : start + size - _ALONE]
                at += same * size
            else:
                more = file.read(max(_BUFFER, size))
                if not more:
                    raise _broken(path)
                data, at = data[at:] + more, 0
        if len(data) != at + 2 or file.read(1):
            raise _broken(path)


def mark(vector: bytes | memoryview | None) -> bytes:
    """Return the BLAKE3 of a vector's elements, 16 bytes; zeros for none."""
    return _NO_MARK if vector is None else blake3(memoryview(vector)[ELEMENTS:]).digest(MARK)


def marks_in(path: Path) -> Iterator[bytes]:
    """Yield the marks of a column's vectors, which a `Writer` has left."""
    with path.open("rb") as file:
        while data := file.read(_BUFFER):
            for at in range(0, len(data), MARK):
                yield data[at : at + MARK]


def _same(data: bytes, at: int, size: int, count: int) -> int:
    """Return how many tuples of one size have the same head, from the first on."""
    import numpy as np

    heads = np.frombuffer(data, np.uint8, size * count, at).reshape(count, size)[:, :_ALONE]
    equal = (heads == heads[0]).all(axis=1)
    return count if equal.all() else int(equal.argmin())


def _broken(path: Path) -> StoreError:
    return StoreError(f"{path.name} is not what a server wrote", hint="memkeep verify --all", code="store_unreadable")


def message_fields(data: bytes, width: int, vectors: int) -> tuple[list[bytes | None], bytes] | None:
    """Return the vectors of a message from a server, and the bytes of its other fields; None when it has no row."""
    at = len(HEADER) if data.startswith(HEADER) else 0
    if at == len(data) or data[at:] == TRAILER:
        return None
    if _COUNT.unpack_from(data, at)[0] != width:
        raise StoreError("the server sent something else than a row of the table", hint="memkeep backup")
    fields, at = _fields(data, at + 2, vectors)
    return fields, data[at:]

"""The tar files that Qdrant's shards travel in: unpacked from a stream into a folder, and packed again.

Most files of a shard are mostly holes; the server writes them as GNU sparse members, and so does `pack`.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO

from memkeep.errors import StoreError

BUFFER = 1 << 20
_PAGE = 4096
_BLOCK = 512
_ZEROS = bytes(BUFFER)
_LARGEST = 8**11  # bytes, of numbers written in octal digits
_FIRST, _MORE = 4, 21  # places of a sparse map in the header, and in each block behind it


class _Body:
    """A stream as a file, which notes how long it was and where its last byte stood that is not zero."""

    def __init__(self, buffers: Iterable[bytes]) -> None:
        self._buffers = iter(buffers)
        self.size = 0
        self.end = 0

    def read(self, _: int) -> bytes:
        """Return the next bytes, any number of them; none at the end."""
        for buffer in self._buffers:
            held = len(buffer.rstrip(b"\0"))
            if held:
                self.end = self.size + held
            self.size += len(buffer)
            if buffer:
                return buffer
        return b""


def unpack(buffers: Iterable[bytes], folder: Path) -> None:
    """Write the files of a streamed tar under a folder; holes stay holes.

    Raises `StoreError` when the stream is cut or garbled, or names a place outside of the folder.
    """
    body = _Body(buffers)
    try:
        with tarfile.open(fileobj=body, mode="r|", bufsize=BUFFER) as archive:  # type: ignore[call-overload]
            for member in archive:
                _write(archive, member, folder / _inside(member.name))
            end = archive.offset
        while body.read(0):
            pass
    except (tarfile.TarError, EOFError) as error:
        raise _garbled(str(error)) from error
    if body.size - end < _BLOCK:
        raise _garbled("it ends too early")
    if body.end > end:
        raise _garbled(f"what stands at byte {end} is no header")


def pack(folder: Path, out: IO[bytes]) -> str:
    """Write the files under a folder as a tar; return its SHA-256, hex."""
    hasher = sha256()

    def put(data: bytes) -> None:
        out.write(data)
        hasher.update(data)

    for path in sorted(folder.rglob("*")):
        info = tarfile.TarInfo(path.relative_to(folder).as_posix())
        info.mtime = int(path.stat().st_mtime)
        if path.is_dir():
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            put(info.tobuf(tarfile.GNU_FORMAT))
            continue
        with path.open("rb", buffering=0) as file:
            info.size = os.fstat(file.fileno()).st_size
            held = 0
            full = list(_pages(file)) if info.size < _LARGEST else [(0, info.size)]
            put(_header(info, full))
            for start, length in full:
                for at in range(start, start + length, BUFFER):
                    put(os.pread(file.fileno(), min(BUFFER, start + length - at), at))
                held += length
            put(bytes(-held % _BLOCK))
    put(bytes(2 * _BLOCK))
    out.flush()
    return hasher.hexdigest()


def extents(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield start and length of what the file system holds of a file, without its holes."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at - start


def copy(source: Path, target: Path, only: Iterable[tuple[int, int]] | None = None) -> None:
    """Copy a file with its holes; all is hole but the extents `only`, start and length, when these are given."""
    with source.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        os.ftruncate(new.fileno(), os.fstat(old.fileno()).st_size)
        for start, length in extents(old) if only is None else only:
            for at in range(start, start + length, BUFFER):
                _put(new, os.pread(old.fileno(), min(BUFFER, start + length - at), at), at)


def _put(file: IO[bytes], data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file.fileno(), view, at)
        view, at = view[done:], at + done


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or not path.parts:
        raise _garbled(f"it names a place outside of the shard: {name!r}")
    return path


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    if not member.isreg():
        raise _garbled(f"{member.name!r} is neither a file nor a folder")
    stream = archive.fileobj  # what lies between holes stands there one after another
    if stream is None:
        raise _garbled("it is closed")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("xb", buffering=0) as out:
            os.ftruncate(out.fileno(), member.size)
            stream.seek(member.offset_data)
            full: list[tuple[int, int]] = getattr(member, "sparse", None) or [(0, member.size)]
            for start, length in full:
                for at in range(start, start + length, BUFFER):
                    wanted = min(BUFFER, start + length - at)
                    data = stream.read(wanted)
                    if len(data) != wanted:
                        raise _garbled("it ends too early")
                    _put(out, data, at)
    except FileExistsError as error:
        raise _garbled(f"it has {member.name!r} twice") from error
    os.utime(target, ns=(int(member.mtime) * 10**9,) * 2)


def _pages(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield start and length of the pages that are not all zeros, neighbours together."""
    begin = end = 0
    for start, length in extents(file):
        for at in range(start - start % _PAGE, start + length, BUFFER):
            data = os.pread(file.fileno(), min(BUFFER, start + length - at), at)
            if data == _ZEROS[: len(data)]:
                continue
            for page in range(0, len(data), _PAGE):
                piece = data[page : page + _PAGE]
                if piece == _ZEROS[: len(piece)]:
                    continue
                if at + page != end:
                    if end > begin:
                        yield begin, end - begin
                    begin = at + page
                end = at + page + len(piece)
    if end > begin:
        yield begin, end - begin


def _header(info: tarfile.TarInfo, full: list[tuple[int, int]]) -> bytes:
    """Return the header blocks of a file, sparse when it has holes."""
    size = info.size
    if full == [(0, size)] or not size:
        return info.tobuf(tarfile.GNU_FORMAT)
    info.size = sum(length for _, length in full)
    blocks = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    places = [*full, (size, 0)]
    head = memoryview(blocks)[-_BLOCK:]
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[345:500] = bytes(155)
    head[386 : 386 + 24 * _FIRST] = _places(places[:_FIRST], _FIRST)
    rest = places[_FIRST:]
    head[482] = bool(rest)
    head[483:495] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    out = bytearray(blocks)
    while rest:
        more, rest = rest[:_MORE], rest[_MORE:]
        out += _places(more, _MORE) + bytes([bool(rest)]) + bytes(7)
    return bytes(out)


def _places(places: list[tuple[int, int]], count: int) -> bytes:
    return b"".join(b"%011o\0%011o\0" % place for place in places).ljust(24 * count, b"\0")


def _garbled(why: str) -> StoreError:
    return StoreError(f"the shard's snapshot did not arrive whole: {why}", hint="memkeep backup")

"""Read a packed file from its beginning to its end, comparing all of it with what its manifest says must be there."""

import hashlib
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from blake3 import blake3

from memkeep.errors import DamagedError, StorageError, StoreError, quoted
from memkeep.model import StoredEntry
from memkeep.ops import age, parcel, tar
from memkeep.ops.entries import check_entries
from memkeep.ops.parcel import damaged

_PIECE = 1 << 20
_MAX_WINDOW = 1 << 23  # bytes; what is packed needs 2 MiB


def is_parcel(name: str) -> bool:
    """Say whether a name is that of a packed file, by what the file begins with; one that is damaged has its suffix.

    Raises `StoreError` for a name that can only be a file's, when there is none.
    """
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            first = file.read(len(parcel.AGE_MAGIC))
    except FileNotFoundError as error:
        if "/" in name or "." in name:  # which no name of a snapshot has
            raise StoreError(f"there is no file {name}", hint=f"ls -l {shlex.quote(name)}", code="no_file") from error
        return False
    except (OSError, ValueError):
        return False
    return first.startswith(parcel.ZSTD_MAGIC) or first == parcel.AGE_MAGIC or "." in path.name


class Parcel:
    """A packed file that is being read; its files can be asked for once, in their order, and some passed over."""

    def __init__(self, source: BinaryIO) -> None:
        """Read up to the first file."""
        self._source = _Source(source)
        self._at = parcel.MANIFEST
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        readable: Any = self._source
        self._zstd = decompressor.stream_reader(readable, read_across_frames=True, closefd=False)
        self.manifest = self._read_manifest()
        self.images = parcel.images(self.manifest)
        try:
            check_entries(self.images)
        except DamagedError as error:
            raise damaged(parcel.MANIFEST, f"says what can't be: {error.message}") from error
        self._members = parcel.members(self.manifest)

    def stream(self, stored: StoredEntry) -> Iterator[bytes]:
        """Yield the bytes of a file; `DamagedError` when they are not what was packed."""
        path = f"{parcel.FILES}/{stored.entry.path}"
        for member in self._members:
            self._expect(member)
            if member.stored is not None and member.path == path:
                yield from self._bytes(member.stored, path)
                return
            self._pass(member)
        raise LookupError(path)

    def finish(self) -> None:
        """Read what is left, and compare the sums, and the digest of the whole; `DamagedError` when one differs."""
        for member in self._members:
            self._expect(member)
            self._pass(member)
        self._at = parcel.SUMS
        sums = parcel.sums(self._digests)
        if self._exactly(len(head := parcel.sums_header(self.manifest, len(sums)))) != head:
            raise damaged(parcel.SUMS, "is not as long as it must be")
        text = self._exactly(len(sums))
        for line, must in zip(text.splitlines(keepends=True), sums.splitlines(keepends=True), strict=False):
            if line != must:  # of texts of one length one line differs, or none
                raise damaged(must.decode()[66:].strip(), "is not what SHA256SUMS says")
        rest = tar.padding(len(sums)) + tar.END
        if self._exactly(len(rest)) != rest or self._read(1):
            raise damaged("the end", "is not what was packed")
        self._source.finish()

    def _read_manifest(self) -> parcel.Manifest:
        """Read the only header that must be taken at its word: it says how long the manifest is."""
        head = self._exactly(2 * tar.BLOCK)
        said = head[tar.BLOCK :][tar.SIZE]
        size = int(said, 8) if re.fullmatch(rb"[0-7]{11}", said) else -1
        if not 0 <= size <= parcel.MAX_MANIFEST:
            raise damaged(parcel.MANIFEST, "is not where it must be")
        data = self._exactly(size)
        manifest = parcel.decode(data)
        if head != parcel.head(manifest, size) or self._exactly(-size % tar.BLOCK) != tar.padding(size):
            raise damaged(parcel.MANIFEST, "is not of this archive")
        self._digests = [(parcel.MANIFEST, hashlib.sha256(data).hexdigest())]
        return manifest

    def _expect(self, member: parcel.Member) -> None:
        self._at = member.path or parcel.FILES
        if self._exactly(len(member.header)) != member.header:
            raise damaged(self._at, "is not where the manifest says, or has another kind, name, size, mode or time")

    def _pass(self, member: parcel.Member) -> None:
        if member.stored is not None:
            for _ in self._bytes(member.stored, member.path):
                pass

    def _bytes(self, stored: StoredEntry, path: str) -> Iterator[bytes]:
        entry = stored.entry
        sha, own, left = hashlib.sha256(), blake3(), entry.size
        while left:
            piece = self._exactly(min(left, _PIECE))
            sha.update(piece)
            own.update(piece)
            left -= len(piece)
            yield piece
        if stored.recipe is None or own.digest() != stored.recipe.digest:
            raise damaged(path, "is not what was packed (BLAKE3 differs)")
        if self._exactly(-entry.size % tar.BLOCK) != tar.padding(entry.size):
            raise damaged(path, "is longer than the manifest says")
        self._digests.append((path, sha.hexdigest()))

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._read(min(size, _PIECE))
            if not piece:
                raise damaged(self._at, "is cut off")
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, size: int) -> bytes:
        try:
            return self._zstd.read(size)
        except (zstandard.ZstdError, MemoryError) as error:
            raise damaged(self._at, f"can't be unpacked: {error}") from error


class _Source:
    """A file to read but for its last bytes, which say what all the others must hash to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self._last = b""

    def read(self, size: int = _PIECE) -> bytes:
        """Return some bytes; none at the end."""
        while len(self._last) <= parcel.TRAILER_SIZE:
            try:
                piece = self._file.read(size)
            except OSError as error:
                raise StorageError(f"the packed file cannot be read: {error.strerror}", hint="dmesg") from error
            if not piece:
                return b""
            self._last += piece
        data, self._last = self._last[: -parcel.TRAILER_SIZE], self._last[-parcel.TRAILER_SIZE :]
        self._hasher.update(data)
        return data

    def finish(self) -> None:
        """Compare the digest of all that was read."""
        while self.read():
            pass
        if self._last != parcel.trailer(self._hasher.digest()):
            raise damaged("some byte", "is not what was packed (its last 32 bytes are the SHA-256 of those before)")


@contextmanager
def open_parcel(path: Path, unlock: age.Unlock) -> Iterator[Parcel]:
    """Open a packed file. Raises `DamagedError`, `WrongKeyError`, and `StorageError` when it can't be read."""
    with ExitStack() as stack:
        try:
            file: BinaryIO = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}", hint=f"ls -l {quoted(path)}") from error
        first = file.read(len(parcel.AGE_MAGIC))
        file.seek(0)
        if first == parcel.AGE_MAGIC:
            file = stack.enter_context(age.decrypted(file, str(path), unlock))
        elif not first.startswith(parcel.ZSTD_MAGIC):
            hint = "copy it again from where it was made"
            raise DamagedError(f"{path} does not begin as a packed file does", obj=str(path), hint=hint)
        try:
            yield Parcel(file)
        except DamagedError as error:
            if error.hint == parcel.COMPARE:
                # Who reads an archive knows its parts, not its name.
                error.hint = f"sha256sum {quoted(path)}{parcel.COMPARE}"
            raise

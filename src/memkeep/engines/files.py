"""Plain files: one file, or a folder with all that is in it.

A small file is read whole when it is frozen, its state compared before and after, so that its bytes are one state of
it. A large one is held by a descriptor: a file that is replaced stays as it was, and one that is written in place is
noticed (`held`). One that only grew is what it was, up to the size that was frozen.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from memkeep import clock
from memkeep.engines import descriptors
from memkeep.engines.files_notes import Note, is_note, note_groups, note_rows, summary
from memkeep.engines.files_walk import VANISHED, Seen, Walk, seen_file
from memkeep.engines.rows import no_table
from memkeep.errors import StoreError, UnstableError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, TableMap, TableState
from memkeep.records.groups import Group
from memkeep.records.shape import Row

if TYPE_CHECKING:
    from io import FileIO

SMALL = 1 << 20  # bytes up to which a file is read when it is frozen; also the largest buffer
ATTEMPTS = 20
_PAUSE = 0.005  # seconds, times the number of the attempt
_IN_MEMORY = 8 << 20  # bytes of small files that are kept in memory; those beyond go to a file in scratch
_LOG = 4  # times a file must have only grown to be taken for a log, which may grow faster than it can be read twice
_FRESH = 50_000_000  # nanoseconds: a change within the same tick of the file system's clock cannot be seen
_encode = msgspec.msgpack.Encoder().encode


class FilesEngine:
    """Holds and reads plain files."""

    name = "files"

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> "Iterator[FilesOpened]":
        """Hold the files. Raises `StoreError` when the part is gone, `UnstableError` when a file never held still."""
        with ExitStack() as stack:
            opened = FilesOpened(part, root, Path(part.path), stack, scratch)
            opened.take()
            yield opened

    @contextmanager
    def open(self, part: Part, root: Path) -> "Iterator[FilesOpened]":
        """Open files that were written under `root`."""
        with ExitStack() as stack:
            opened = FilesOpened(part, root, root / part.name, stack, None)
            opened.take()
            yield opened

    def count(self, part: Part, table: str) -> int | None:
        """Count the notes in a live part; None when it can't be read."""
        map_ = next((map_ for map_ in part.maps if map_.table == table == ""), None)
        if map_ is None:
            return None
        try:
            seen = Walk(part, Path(part.path).parent, Path(part.path)).look()
        except StoreError:
            return None
        return sum(is_note(one, map_) for one in seen)


class _Kept(msgspec.Struct):
    """Where the bytes of one file are: in memory, in the spool, or behind a descriptor or path."""

    seen: Seen  # as the bytes are
    data: bytes | None = None
    offset: int = -1
    descriptor: int = -1
    digest: bytes = b""  # of the bytes as they were first read


class FilesOpened:
    """The files of a part at one moment."""

    how = "each file read whole, its state compared before and after"

    def __init__(self, part: Part, root: Path, top: Path, stack: ExitStack, scratch: Path | None) -> None:
        """Begin; `take` does the work. Without `scratch` nobody else uses the folder, and files are read when asked."""
        self._part = part
        self._walk = Walk(part, root, top)
        self._root = root
        self._top = top
        self._stack = stack
        self._scratch = scratch
        self._seen: list[Seen] = []
        self._kept: dict[str, _Kept] = {}
        self._spool: FileIO | None = None
        self._in_memory = 0
        self._torn = False
        self._baseline: Baseline | None = None

    def take(self) -> None:
        """List everything and hold it."""
        self._seen = self._walk.look()
        large = sum(one.kind == "file" and one.size > SMALL for one in self._seen)
        room = descriptors.room(large) if large and self._scratch is not None else 0
        for one in self._seen:
            if one.kind != "file":
                continue
            try:
                kept = self._hold(one, room) if self._scratch is not None else _Kept(one)
            except FileNotFoundError:
                self._walk.leave(one.path, VANISHED)
            except OSError as error:
                self._walk.unread(one.path, error)
            else:
                self._kept[one.path] = kept
                room -= kept.descriptor >= 0

    def entries(self) -> list[Entry]:
        """Return files, folders and links."""
        found = []
        for one in self._seen:
            if one.kind == "file" and one.path in self._kept:
                now = self._kept[one.path].seen
                found.append(Entry(path=now.path, size=now.size, mode=now.mode, mtime_ns=now.mtime_ns))
            elif one.kind == "dir":
                found.append(Entry(path=one.path, kind="dir", mode=one.mode, mtime_ns=one.mtime_ns))
            elif one.kind == "link":
                found.append(Entry(path=one.path, kind="link", mode=one.mode, mtime_ns=one.mtime_ns, target=one.target))
        return found

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes; `UnstableError` when it has become shorter since."""
        if entry.kind == "file":
            yield from self._stream(self._kept[entry.path])

    def runs(self, entry: Entry) -> tuple[Run, ...]:  # noqa: ARG002 - the contract
        """Return nothing: there are no vectors in notes."""
        return ()

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:  # noqa: ARG002
        """Read all files; yield the notes of the part's maps."""
        summaries = {}
        for map_ in self._part.maps:
            if map_.table == "":
                mine = [kept.seen for kept in self._kept.values() if is_note(kept.seen, map_)]
                notes = [Note(one.path, one.size, one.mtime_ns) for one in mine]
                yield from note_groups(map_, notes, self._read, bits)
                summaries[map_.collection] = summary(map_, notes)
        self._baseline = Baseline(
            tables={"": TableState(rows=len(self._kept), digest=self._digest())},
            facts={"bytes": sum(kept.seen.size for kept in self._kept.values()), "summary": summaries, "vectors": {}},
        )

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the notes of a map, by path; see `engines.rows.RowReader`."""
        if table.table:
            raise no_table(table.table, self._top)
        mine = [kept.seen for kept in self._kept.values() if is_note(kept.seen, table)]
        notes = sorted(Note(one.path, one.size, one.mtime_ns) for one in mine)
        yield from note_rows(notes, self._read)

    def baseline(self) -> Baseline:
        """Return the number of files, and after `scan` their digest."""
        return self._baseline or Baseline(tables={"": TableState(rows=len(self._kept), digest="")})

    def check(self) -> list[Finding]:
        """Return nothing: files have no integrity checks of their own."""
        return []

    def moved(self) -> bool:
        """Say whether anything has appeared, vanished or changed."""
        if self._scratch is None:
            return False
        try:
            now = Walk(self._part, self._root, self._top).look()
        except StoreError:
            return True
        return _states(now) != _states(
            [self._kept[one.path].seen if one.path in self._kept else one for one in self._seen]
        )

    def held(self) -> bool:
        """Say whether the large files still begin with the bytes that were read."""
        if self._torn:
            return False
        return not any(self._differs(kept) for kept in self._kept.values() if kept.digest and self._scratch is not None)

    def omitted(self) -> list[Omission]:
        """Return what was left out, and why."""
        return list(self._walk.omitted)

    def findings(self) -> list[Finding]:
        """Return what was noticed."""
        return list(self._walk.findings)

    def _hold(self, seen: Seen, room: int) -> _Kept:
        if seen.size > SMALL:
            descriptor = _open(seen.place)
            now = seen_file(seen.place, seen.path, seen.under, os.fstat(descriptor))
            if room > 0:
                self._stack.callback(os.close, descriptor)
                return _Kept(now, descriptor=descriptor)
            os.close(descriptor)
            return _Kept(now)
        now, data = _read_still(seen)
        if self._in_memory + len(data) <= _IN_MEMORY:
            self._in_memory += len(data)
            return _Kept(now, data=data)
        return _Kept(now, offset=self._to_spool(data))

    def _to_spool(self, data: bytes) -> int:
        if self._spool is None:
            self._spool = self._stack.enter_context(
                tempfile.TemporaryFile(dir=self._scratch, buffering=0)  # noqa: SIM115
            )
        offset = self._spool.seek(0, os.SEEK_END)
        view = memoryview(data)
        while view:
            view = view[self._spool.write(view) :]
        return offset

    def _stream(self, kept: _Kept) -> Iterator[bytes]:
        if kept.data is not None:
            yield from [kept.data] if kept.data else []
            return
        hasher, at, size = blake3(), 0, kept.seen.size
        with self._descriptor(kept) as (descriptor, start):
            while at < size:
                piece = os.pread(descriptor, min(SMALL, size - at), start + at)
                if not piece:
                    self._torn = True
                    raise UnstableError(f"{kept.seen.place} became shorter while it was read", hint="memkeep backup")
                hasher.update(piece)
                at += len(piece)
                yield piece
        self._compare(kept, hasher.digest())

    @contextmanager
    def _descriptor(self, kept: _Kept) -> Iterator[tuple[int, int]]:
        """Give a descriptor and where in it the file begins."""
        if kept.offset >= 0 and self._spool is not None:
            yield self._spool.fileno(), kept.offset
        elif kept.descriptor >= 0:
            yield kept.descriptor, 0
        else:
            try:
                descriptor = _open(kept.seen.place)
            except OSError as error:
                raise StoreError(f"{kept.seen.place} cannot be read: {error.strerror}") from error
            try:
                if self._scratch is not None and os.fstat(descriptor).st_ino != kept.seen.state[1]:
                    self._torn = True
                yield descriptor, 0
            finally:
                os.close(descriptor)

    def _compare(self, kept: _Kept, digest: bytes) -> None:
        """Remember the first digest of a file; another one later means that it is written in place."""
        if kept.digest and kept.digest != digest:
            self._torn = True
        kept.digest = kept.digest or digest

    def _differs(self, kept: _Kept) -> bool:
        """Say whether a large file was written to since it was read, other than at its end."""
        try:
            with self._descriptor(kept) as (descriptor, start):
                now = os.fstat(descriptor)
            same = start or (now.st_size, now.st_mtime_ns) == (kept.seen.size, kept.seen.mtime_ns)
            return not same and (now.st_size < kept.seen.size or self._hash(kept) != kept.digest)
        except StoreError:
            return True

    def _read(self, path: str) -> bytes:
        return b"".join(self._stream(self._kept[path]))

    def _hash(self, kept: _Kept) -> bytes:
        hasher = blake3()
        for piece in self._stream(kept):
            hasher.update(piece)
        return hasher.digest()

    def _digest(self) -> str:
        """Return BLAKE3 over the msgpack array of path, kind, BLAKE3 of the bytes and target of each, by path."""
        hasher = blake3()
        for one in self._seen:
            kept = self._kept.get(one.path)
            if one.kind != "file" or kept is not None:
                hasher.update(_encode((one.path, one.kind, self._hash(kept) if kept is not None else b"", one.target)))
        return hasher.hexdigest()


def _read_still(seen: Seen) -> tuple[Seen, bytes]:
    """Read a small file until its state is the same before and after; raises `OSError` and `UnstableError`."""
    before: tuple[Seen, bytes] | None = None
    grown = 0
    for attempt in range(ATTEMPTS):
        if attempt:
            clock.pause(_PAUSE * attempt)
        descriptor = _open(seen.place)
        try:
            first = seen_file(seen.place, seen.path, seen.under, os.fstat(descriptor))
            data = os.pread(descriptor, first.size + 1, 0) if first.size else b""
            last = seen_file(seen.place, seen.path, seen.under, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        fresh = abs(clock.now().timestamp() * 1e9 - last.mtime_ns) < _FRESH
        if first.state == last.state and len(data) == last.size:
            if not fresh:
                return last, data
            if before is not None and data == before[1]:
                return last, data
            grown = grown + 1 if before is not None and data.startswith(before[1]) else 0
            if before is not None and grown >= _LOG and before[1].endswith(b"\n"):
                return before
            before = last, data
    if before is not None:  # unchanged while it was read, as far as the clock of the file system can tell
        return before
    raise UnstableError(f"{seen.place} kept changing while it was read", hint="memkeep backup")


def _open(place: Path) -> int:
    # Not blocking: something else may have been put in the file's place, such as a pipe.
    return os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _states(seen: list[Seen]) -> dict[str, tuple[object, ...]]:
    return {one.path: (one.kind, one.state, one.mode, one.target) for one in seen}

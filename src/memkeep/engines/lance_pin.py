"""Hold one version of a live Lance table: a descriptor on every file that it names.

Lance's files are immutable; the only thing that happens to them is that a clean-up removes those that no newer version
needs. A file that was opened stays readable after that. So: read the newest manifest, open all that it names, and when
one of them is gone already, begin again with what is newest then. Neither the library nor a tag is needed (while a
tag exists, the product's own clean-up fails).

Files that the manifest names by a folder only (those of an index in older tables, the blobs beside a data file) are
listed and opened first; then the newest version must still be the pinned one. Before that no clean-up can have removed
any of them, since it spares the newest version.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from memkeep import clock
from memkeep.engines import descriptors, lance_files, lance_manifest
from memkeep.engines.lance_manifest import Manifest, VersionFile
from memkeep.errors import StoreError, UnstableError, quoted

PROC = Path("/proc")
ATTEMPTS = 40
_PATIENCE = 4  # attempts that find the same version broken in the same way; then it is broken, not moving
_PAUSE = 0.01  # seconds, times the number of the attempt
_LONGEST_PAUSE = 0.2
_BUFFER = 1 << 20


class HeldFile(msgspec.Struct):
    """One file of the version: a descriptor, or a path where it can be opened when needed."""

    name: str  # under the table's folder, POSIX
    size: int
    mode: int
    mtime_ns: int
    descriptor: int = -1
    path: str = ""


class _GoneError(Exception):
    """A file that the manifest names is not there."""


class Pin:
    """One version of a table, held until `close`."""

    def __init__(self, folder: Path, manifest_name: str, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest_name = manifest_name
        self.manifest = manifest
        self.files: dict[str, HeldFile] = {}
        self.missing: list[str] = []  # only in a folder that is not live
        self._identity: tuple[int, ...] = ()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a file; fewer only where it ends. Raises `OSError`."""
        held = self.files[name]
        descriptor = held.descriptor if held.descriptor >= 0 else os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            if held.descriptor < 0:
                os.close(descriptor)

    def stream(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes, at most 1 MiB at a time."""
        size, at = self.files[name].size, 0
        while at < size:
            piece = self.read(name, at, min(_BUFFER, size - at))
            if not piece:
                raise StoreError(f"{self.folder / name} ends after {at} of its {size} bytes")
            yield piece
            at += len(piece)

    def unchanged(self) -> bool:
        """Say whether the held files are, by size and time, what they were; they should be for ever."""
        for held in self.files.values():
            if held.descriptor >= 0:
                now = os.fstat(held.descriptor)
                if (now.st_size, now.st_mtime_ns) != (held.size, held.mtime_ns):
                    return False
        return True

    def moved(self) -> bool:
        """Say whether the table has a newer version, or was made anew."""
        try:
            newest = lance_manifest.newest(self.folder)
            return newest is None or newest.name != self.manifest_name or self._identity != self._look()
        except OSError:
            return True

    def _look(self) -> tuple[int, ...]:
        now = (self.folder / "_versions" / self.manifest_name).stat()
        return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)

    def shadow(self, under: Path) -> Path:
        """Make a folder that the library can open as this table: links to the descriptors. Returns its path."""
        table = under / self.folder.name
        for held in self.files.values():
            place = table / held.name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = held.path or f"{PROC}/{os.getpid()}/fd/{held.descriptor}"
            if Path(target).exists():
                place.symlink_to(target)
                continue
            with place.open("xb") as file:  # a host without /proc
                for piece in self.stream(held.name):
                    file.write(piece)
        return table

    def close(self) -> None:
        """Let go of all descriptors."""
        for held in self.files.values():
            if held.descriptor >= 0:
                os.close(held.descriptor)
        self.files.clear()

    def keep(self, name: str, descriptor: int) -> None:
        """Take over an open descriptor."""
        now = os.fstat(descriptor)
        self.files[name] = _held(name, now, descriptor=descriptor)
        if name == f"_versions/{self.manifest_name}":
            self._identity = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)


def pin(folder: Path, root: Path, scratch: Path) -> Pin:
    """Hold the newest version of the live table in `folder`, reading only.

    Raises `StoreError` when the folder is no Lance table, cannot be read, or names a file that is missing or lies
    outside of it; `UnstableError` when the table was cleaned up faster than it could be held.
    """
    _stays(folder, root)
    failure: Exception | None = None
    seen: tuple[str, str] = ("", "")
    repeated = 0
    for attempt in range(ATTEMPTS):
        if attempt:
            clock.pause(min(_PAUSE * attempt, _LONGEST_PAUSE))
        version: VersionFile | None = None
        try:
            version = _newest(folder)
            return _attempt(folder, version, scratch)
        except (_GoneError, StoreError) as error:
            failure = error
        except OSError as error:
            raise StoreError(
                f"the Lance table {folder} cannot be read: {error.strerror}", hint=f"ls -la {quoted(folder)}"
            ) from error
        now = (version.name if version else "", str(failure))
        repeated = repeated + 1 if now == seen else 1
        seen = now
        if repeated >= _PATIENCE:
            _give_up(folder, failure)
    raise UnstableError(
        f"the Lance table {folder} was cleaned up {ATTEMPTS} times while it was being opened: {failure}",
        hint="memkeep backup, when the agent is less busy",
    ) from failure


def hold_folder(folder: Path) -> Pin:
    """Read a table in a folder that nobody else uses; files that are missing are listed, not refused."""
    version = _newest(folder)
    try:
        name = f"_versions/{version.name}"
        manifest = lance_manifest.parse((folder / name).read_bytes(), str(folder / name), version.version)
        held = Pin(folder, version.name, manifest)
        for listed in [
            name,
            *lance_files.listed(folder, manifest),
            *lance_files.named(manifest),
            *lance_files.transaction(manifest),
        ]:
            path = folder / listed
            if path.is_file():
                held.files[listed] = _held(listed, path.stat(), path=str(path))
            elif listed not in lance_files.transaction(manifest):
                held.missing.append(listed)
    except OSError as error:
        raise StoreError(f"the Lance table {folder} cannot be read: {error.strerror}") from error
    return held


def _newest(folder: Path) -> VersionFile:
    try:
        version = lance_manifest.newest(folder)
    except (FileNotFoundError, NotADirectoryError):
        version = None
    except OSError as error:
        raise StoreError(
            f"the Lance table {folder} cannot be read: {error.strerror}", hint=f"ls -la {quoted(folder)}"
        ) from error
    if version is None:
        message = f"{folder} is not a Lance table: it has no version under _versions"
        raise StoreError(message, hint=f"ls {quoted(folder)}", code="not_a_lance_table")
    return version


def _attempt(folder: Path, version: VersionFile, scratch: Path) -> Pin:
    """Open everything once; raises `_GoneError` when a file is not there."""
    name = f"_versions/{version.name}"
    descriptor = _open(folder, name)
    try:
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        manifest = lance_manifest.parse(data, str(folder / name), version.version)
        held = Pin(folder, version.name, manifest)
    except BaseException:
        os.close(descriptor)
        raise
    held.keep(name, descriptor)
    try:
        listed = lance_files.listed(folder, manifest)
        names = list(dict.fromkeys((*listed, *lance_files.named(manifest))))
        room = descriptors.room(len(names) + 1)
        for file in listed[:room]:
            held.keep(file, _open(folder, file))
        if manifest.indices or manifest.blobs:
            _still(folder, version)
        for file in names[len(listed[:room]) : room]:
            held.keep(file, _open(folder, file))
        for number, file in enumerate(names[room:]):
            _copy(held, file, scratch / "copies" / str(number))
        for file in lance_files.transaction(manifest):
            if (folder / file).exists():  # the version is whole without it
                held.keep(file, _open(folder, file))
    except BaseException:
        held.close()
        raise
    return held


def _held(name: str, now: os.stat_result, *, descriptor: int = -1, path: str = "") -> HeldFile:
    return HeldFile(
        name=name,
        size=now.st_size,
        mode=stat.S_IMODE(now.st_mode),
        mtime_ns=now.st_mtime_ns,
        descriptor=descriptor,
        path=path,
    )


def _still(folder: Path, version: VersionFile) -> None:
    if _newest(folder) != version:
        raise _GoneError("a newer version came while the files of an index were listed")


def _open(folder: Path, name: str) -> int:
    try:
        return os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise _GoneError(f"{name} is missing") from None


def _copy(held: Pin, name: str, target: Path) -> None:
    """Copy a file for which there is no descriptor left."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(_open(held.folder, name), "rb") as source, target.open("wb") as copy:
        now = os.fstat(source.fileno())
        shutil.copyfileobj(source, copy, _BUFFER)
    if target.stat().st_size != now.st_size:
        raise _GoneError(f"{name} changed while it was copied")
    held.files[name] = _held(name, now, path=str(target))


def _stays(folder: Path, root: Path) -> None:
    """Refuse a table, or a folder in it, that is a link out of the store."""
    real = Path(os.path.realpath(folder))
    bounds: Sequence[tuple[Path, Path]] = [
        (real / name, real) for name in ("_versions", "data", "_deletions", "_indices", "_transactions")
    ]
    if folder.is_relative_to(root):
        bounds = [(real, Path(os.path.realpath(root))), *bounds]
    for path, bound in bounds:
        if not Path(os.path.realpath(path)).is_relative_to(bound):
            raise StoreError(
                f"{path} is a symbolic link that leaves the store",
                hint=f"memkeep backup {os.path.realpath(path)}",
                code="link_leaves_store",
            )


def _give_up(folder: Path, failure: Exception) -> NoReturn:
    if isinstance(failure, StoreError):
        raise failure
    raise StoreError(
        f"the newest version of the Lance table {folder} is not whole: {failure}",
        unchanged="The table was not changed, and nothing of it was taken.",
        hint="restore the table from an earlier snapshot: memkeep snapshots",
        code="lance_incomplete",
    ) from failure

"""Unpack what `openclaw backup create` writes, so that the stores in it can be looked for.

Facts are from OpenClaw 2026.9.6: a `.tar.gz` with one folder, in it `manifest.json` and `payload/posix/` followed by
the absolute path that each file had. An archive may come from anywhere, so nothing in it is trusted: only files and
folders are made, below the folder given, none of them twice; links, devices and pipes are left out and told; and a
small archive that would become a very large folder is refused before it does.
"""

import gzip
import json
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from memkeep.errors import FileError, RefusedError, quoted
from memkeep.model import Value

MANIFEST = "manifest.json"
_STEP = 1 << 20
_LONGEST = 16 << 20  # bytes that are asked for at once: more is a header that lies
_ENTRIES = 1_000_000
_RATIO = 200
_LEAST = 1 << 30
_DEEPEST = 200
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError)


class Asset(Value, kw_only=True):
    """One folder or file that the archive says it holds."""

    kind: str  # `state`, `workspace`, ... as the product calls it
    source: str  # where it was
    path: Path  # where it is now


class Unpacked(Value, kw_only=True):
    """An archive that was unpacked."""

    root: Path
    files: int
    assets: tuple[Asset, ...] = ()
    omitted: tuple[str, ...] = ()  # entries that are neither files nor folders, one sentence each
    manifest: dict[str, Any] = {}


def fits(path: Path) -> bool:
    """Say whether a file is a compressed tar whose first entry lies in a folder that is named as such a backup."""
    try:
        if not path.is_file():
            return False
        with gzip.open(path) as plain, _opened(plain, _LEAST) as archive:
            first = archive.next()
            return first is not None and _parts(first.name)[0].endswith("openclaw-backup")
    except _DAMAGED:
        return False


def unpack(path: Path, folder: Path, *, limit: int | None = None) -> Unpacked:
    """Unpack an archive into an empty folder; `limit` is the most bytes, by default 200 times the archive's and 1 GiB.

    Raises `FileError` for what is damaged, dangerous or too large; what was unpacked until then stays in the folder.
    """
    if any(folder.iterdir()):
        raise RefusedError(f"{folder} is not empty", hint=f"ls {quoted(folder)}")
    most = limit if limit is not None else max(_LEAST, _RATIO * path.stat().st_size)
    try:
        with gzip.open(path) as plain, _opened(plain, most) as archive:
            files, omitted = _unpack(archive, folder)
            _check_end(archive)
    except _DAMAGED as error:
        raise FileError(f"{path} can't be unpacked: {error}", hint=f"tar -tzf {quoted(path)}") from error
    roots = [each for each in folder.iterdir() if each.is_dir()]
    root = roots[0] if len(roots) == 1 else folder
    manifest = _manifest(root / MANIFEST)
    return Unpacked(root=root, files=files, assets=_assets(folder, manifest), omitted=tuple(omitted), manifest=manifest)


def _unpack(archive: tarfile.TarFile, folder: Path) -> tuple[int, list[str]]:
    files, omitted = 0, list[str]()
    for number, member in enumerate(archive):
        if number >= _ENTRIES:
            raise tarfile.TarError(f"more than {_ENTRIES:,} entries")
        archive.members = []  # type: ignore[attr-defined]  # else all of them are kept in memory
        target = folder.joinpath(*_parts(member.name))
        if member.isdir():
            _make(target)
        elif member.isreg():
            _make(target.parent)
            _write(archive, member, target)
            files += 1
        else:
            omitted.append(f"{member.name} is neither a file nor a folder")
    return files, omitted


def _opened(plain: gzip.GzipFile, most: int) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast("IO[bytes]", _Guarded(plain, most)), mode="r:")


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise `TarError` when the end is not where the entries end: the library takes a damaged header for it."""
    plain = cast("IO[bytes]", archive.fileobj)
    plain.seek(archive.offset)
    if plain.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.TarError("it is cut off, or the header of an entry is damaged")
    while plain.read(_STEP):  # to its end, where the checksum of all stands
        pass


class _Guarded:
    """A plain stream of which no more is read than was allowed, and not too much at once."""

    def __init__(self, plain: gzip.GzipFile, most: int) -> None:
        self._plain = plain
        self._most = most

    def read(self, size: int = -1) -> bytes:
        """Read some bytes."""
        if not 0 <= size <= _LONGEST:
            raise tarfile.TarError(f"a header of {size:,} bytes")
        self._check(self.tell() + size)
        return self._plain.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        """Go on from elsewhere; what lies between is decompressed and passed over."""
        self._check(position)
        return self._plain.seek(position, whence)

    def tell(self) -> int:
        """Return how many bytes came before."""
        return self._plain.tell()

    def _check(self, position: int) -> None:
        if position > self._most + _LONGEST:
            raise tarfile.TarError(f"it unpacks to more than {self._most:,} bytes")


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of an entry's name; raises `ValueError` for one that leads elsewhere."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in name or len(pure.parts) > _DEEPEST:
        raise ValueError(f"the entry {name[:200]!r} leads out of the folder")
    return pure.parts


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise ValueError(f"the entry {member.name!r} has no content")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        left = member.size
        while left:
            data = source.read(min(_STEP, left))
            if not data:
                raise EOFError(f"it ends in the middle of {member.name!r}")
            out.write(data)
            left -= len(data)


def _manifest(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_bytes()) if file.is_file() and file.stat().st_size <= _LONGEST else {}
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _assets(folder: Path, manifest: dict[str, Any]) -> tuple[Asset, ...]:
    """Return what the manifest lists, as far as it is there and lies in the folder."""
    listed = manifest.get("assets")
    found: list[Asset] = []
    for each in listed if isinstance(listed, list) else []:
        said: dict[str, Any] = each if isinstance(each, dict) else {}
        kind, source, inside = (said.get(key) for key in ("kind", "sourcePath", "archivePath"))
        if isinstance(kind, str) and isinstance(source, str) and isinstance(inside, str):
            try:
                path = folder.joinpath(*_parts(inside))
            except ValueError:
                continue
            if path.exists():
                found.append(Asset(kind=kind, source=source, path=path))
    return tuple(found)

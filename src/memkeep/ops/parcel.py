"""The file that `memkeep pack` writes: one snapshot in plain parts, for carrying it to another machine.

It is a tar archive in one zstd frame, and after that a skippable frame with the SHA-256 of all bytes before it:

    memkeep-<12 digits of the snapshot's id>/
        MANIFEST.json   a `Manifest`: what this is, and every entry with its BLAKE3
        restore.sh      brings it back where there is no memkeep
        files/...       folders that no part names, files in the order of the manifest, links, then the named folders
        SHA256SUMS      of every file above it, in that order, as sha256sum writes them

A manifest leaves no choice in how the archive is written, so a reader compares instead of parsing: a header other
than the one that must come next is damage.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from memkeep.errors import DamagedError
from memkeep.model import Baseline, Entry, Finding, Omission, Part, PartImage, Recipe, StoredEntry, Value
from memkeep.ops.tar import header

FORMAT = "memkeep/pack/1"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
AGE_MAGIC = b"age-encryption.org/v1"
_TRAILER = struct.pack("<II", 0x184D2A50, 32)  # the head of a skippable frame of 32 bytes
TRAILER_SIZE = len(_TRAILER) + 32
COMPARE = "   # is it what `memkeep pack` said? else copy the file again"  # behind `sha256sum` and the file's name
MANIFEST, SCRIPT, FILES, SUMS = "MANIFEST.json", "restore.sh", "files", "SHA256SUMS"
MAX_MANIFEST = 1 << 27  # bytes


class PackedEntry(Value):
    """A file, folder or link, and of a file its BLAKE3 in hex."""

    path: str
    kind: str = "file"
    size: int = 0
    mode: int = 0o600
    mtime_ns: int = 0
    target: str = ""
    blake3: str = ""


class PackedPart(Value):
    """A part as it lies under `files`, and what it was at the frozen moment."""

    part: Part
    how: str
    records: dict[str, int]  # of each collection
    baseline: Baseline
    entries: tuple[PackedEntry, ...]


class Manifest(Value):
    """What a packed file holds."""

    format: str
    snapshot: str
    created: str
    created_s: int  # since 1970, of what the archive holds beside the snapshot's own files
    system: str
    path: str
    host: str
    tag: str | None
    label: str | None
    records: int | None
    files: int
    bytes: int
    consistent: bool
    memkeep: str  # the version that took the snapshot
    packed_by: str  # the version that wrote the file
    mapping: str
    fingerprint: dict[str, Any]
    summary: dict[str, Any]
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...]
    script: PackedEntry
    parts: tuple[PackedPart, ...]


class Member(Value):
    """What comes next in the archive: its header, and of a file the bytes that follow it."""

    header: bytes
    path: str = ""  # under the archive's folder; "" for what has no bytes
    stored: StoredEntry | None = None


_MANIFEST = msgspec.json.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as JSON that a person can read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest:
    """Return the manifest that JSON holds; `DamagedError` when it is none, or one that contradicts itself."""
    try:
        manifest = _MANIFEST.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise damaged(MANIFEST, f"can't be read: {error}") from error
    if manifest.format != FORMAT:
        raise damaged(MANIFEST, f"is of the format {manifest.format!r}, not {FORMAT!r}")
    entries = [manifest.script, *(entry for part in manifest.parts for entry in part.entries)]
    for entry in entries:
        hashed = re.fullmatch(r"[0-9a-f]{64}", entry.blake3) is not None
        if entry.kind not in {"file", "dir", "link"} or entry.size < 0 or hashed != (entry.kind == "file"):
            raise damaged(MANIFEST, f"says what can't be of {entry.path!r}")
    files = [entry for part in manifest.parts for entry in part.entries if entry.kind == "file"]
    fits = (manifest.files, manifest.bytes) == (len(files), sum(entry.size for entry in files))
    if not fits or not re.fullmatch(r"[0-9a-f]{64}", manifest.snapshot) or manifest.script.path != SCRIPT:
        raise damaged(MANIFEST, "contradicts itself")
    return manifest


def images(manifest: Manifest) -> list[PartImage]:
    """Return the parts as they are known elsewhere; the recipes have a size and a digest, and no chunks."""
    return [
        PartImage(part=one.part, how=one.how, baseline=one.baseline, entries=tuple(map(unpacked, one.entries)))
        for one in manifest.parts
    ]


def packed(stored: StoredEntry) -> PackedEntry:
    """Return an entry as a manifest has it."""
    entry = stored.entry
    digest = stored.recipe.digest.hex() if stored.recipe is not None else ""
    return PackedEntry(**msgspec.structs.asdict(entry) | {"blake3": digest})


def unpacked(one: PackedEntry) -> StoredEntry:
    """Return an entry of a manifest as it is known elsewhere."""
    values = msgspec.structs.asdict(one)
    digest = bytes.fromhex(values.pop("blake3"))
    recipe = Recipe(size=one.size, digest=digest) if one.kind == "file" else None
    return StoredEntry(entry=Entry(**values), recipe=recipe)


def root(manifest: Manifest) -> str:
    """Return the name of the archive's folder."""
    return f"memkeep-{manifest.snapshot[:12]}"


def head(manifest: Manifest, size: int) -> bytes:
    """Return what an archive begins with, up to the bytes of a manifest of that size."""
    folder = Entry(path=root(manifest), kind="dir", mode=0o755, mtime_ns=manifest.created_s * 10**9)
    name = f"{root(manifest)}/{MANIFEST}"
    return header(folder) + header(Entry(path=name, size=size, mode=0o644, mtime_ns=manifest.created_s * 10**9))


def members(manifest: Manifest) -> Iterator[Member]:
    """Yield what follows the manifest, up to the sums."""
    when = manifest.created_s * 10**9
    yield _member(manifest, unpacked(manifest.script))
    every = [unpacked(entry) for part in manifest.parts for entry in part.entries]
    named = {stored.entry.path for stored in every if stored.entry.kind == "dir"}
    above = {str(up) for stored in every for up in PurePosixPath(stored.entry.path).parents} - named - {"."}
    # As a restore makes them: what no part names is for its owner alone.
    for path in ("", *sorted(above)):
        yield _member(manifest, StoredEntry(entry=Entry(path=path, kind="dir", mode=0o700, mtime_ns=when)), FILES)
    for kind in ("file", "link"):
        for stored in every:
            if stored.entry.kind == kind:
                yield _member(manifest, stored, FILES)
    # After what lies in them, the innermost first: a folder that may not be written to is whole by then.
    folders = [stored for stored in every if stored.entry.kind == "dir"]
    for stored in sorted(folders, key=lambda one: one.entry.path.count("/"), reverse=True):
        yield _member(manifest, stored, FILES)


def sums_header(manifest: Manifest, size: int) -> bytes:
    """Return the header of the sums."""
    return header(Entry(path=f"{root(manifest)}/{SUMS}", size=size, mode=0o644, mtime_ns=manifest.created_s * 10**9))


def sums(digests: Sequence[tuple[str, str]]) -> bytes:
    """Return paths and their hex SHA-256 as sha256sum writes them: odd names escaped, and marked by a backslash."""
    return b"".join(_sum(path, digest) for path, digest in digests)


def trailer(digest: bytes) -> bytes:
    """Return what a packed file ends with."""
    return _TRAILER + digest


def damaged(path: str, what: str) -> DamagedError:
    """Return the error that a file in an archive is not what was packed."""
    return DamagedError(f"{path} in the packed file {what}", obj=path, hint=COMPARE)


def _member(manifest: Manifest, stored: StoredEntry, folder: str = "") -> Member:
    entry = stored.entry
    path = "/".join(filter(None, (folder, entry.path)))
    full = msgspec.structs.replace(entry, path=f"{root(manifest)}/{path}")
    return Member(header=header(full), path=path, stored=stored if entry.kind == "file" else None)


def _sum(path: str, digest: str) -> bytes:
    name = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if name != path else ""
    return f"{mark}{digest}  {name}\n".encode()

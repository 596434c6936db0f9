"""Write one snapshot into one file of plain parts: see `parcel` for what it looks like."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard
from blake3 import blake3

from memkeep import __version__, clock
from memkeep.errors import DamagedError, RefusedError, StorageError, StoreError
from memkeep.events import SILENT, Events
from memkeep.model import Entry, Omission, PartImage, Recipe, Role, Snapshot, StoredEntry
from memkeep.ops import age, parcel, restore_script, secrets, tar
from memkeep.ops.backup import Secrets
from memkeep.ops.entries import check_entries
from memkeep.storage.base import ObjectExistsError
from memkeep.storage.local import new_file
from memkeep.vault.vault import Vault

LEVEL = 3  # of zstd
_THREADS = 2  # whatever the machine has: the bytes depend on whether there are any
_PIECE = 1 << 20


class PackResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was packed into which file ("-": standard output); `bytes` is what it holds, `packed_bytes` its own size."""

    snapshot: str
    system: str
    file: str
    encrypted: bool
    parts: tuple[str, ...]
    files: int
    bytes: int
    packed_bytes: int
    sha256: str
    records: int | None
    omitted: tuple[Omission, ...]


def pack(
    vault: Vault,
    snapshot: str,
    output: Path | BinaryIO,
    *,
    secrets: Secrets = "auto",
    lock: age.Lock | None = None,
    events: Events = SILENT,
) -> PackResult:
    """Write a snapshot into a new file, checking every byte as it is read; on any error there is no file.

    `secrets="auto"` takes secret parts into an encrypted file and leaves them out of another. Raises `RefusedError`
    when the file is there already, `DamagedError` (the vault can't give the bytes), `StorageError` (no room for them).
    """
    chosen = vault.resolve(snapshot)
    lock = lock or age.Lock()
    if isinstance(output, Path):
        output = output.expanduser().absolute()
        _refuse_existing(output, chosen)
    taken = _Taken(vault, chosen, take_secrets=secrets == "include" or (secrets == "auto" and bool(lock)))
    manifest = taken.manifest
    events.step("packing", manifest.bytes)
    with _opened(output, chosen) as file, ThreadPoolExecutor(2, "memkeep-read") as pool:
        counted = _Counted(file)
        pieces = _finished(_archive(manifest, lambda stored: taken.stream(stored, pool), events))
        if lock:
            age.write_encrypted(pieces, counted, lock)
        else:
            for piece in pieces:
                counted.write(piece)
    return PackResult(
        snapshot=chosen.id,
        system=chosen.system,
        file=str(output) if isinstance(output, Path) else "-",
        encrypted=bool(lock),
        parts=tuple(one.part.name for one in manifest.parts),
        files=manifest.files,
        bytes=manifest.bytes,
        packed_bytes=counted.size,
        sha256=counted.hasher.hexdigest(),
        records=manifest.records,
        omitted=manifest.omitted,
    )


class _Taken:
    """What of a snapshot goes into the file: its manifest, and the bytes of each entry."""

    def __init__(self, vault: Vault, snapshot: Snapshot, *, take_secrets: bool) -> None:
        self._vault = vault
        self._redacted: dict[str, bytes] = {}
        images, self._omitted = [], list(snapshot.omitted)
        for summary in snapshot.parts:
            if summary.role is Role.SECRET and not take_secrets:
                self._omitted.append(Omission(part=summary.name, reason="secret, and the packed file is not encrypted"))
                continue
            image = vault.image(summary)
            images.append(image if take_secrets or not image.part.secrets else self._without_secrets(image, snapshot))
        check_entries(images)
        self._recipes = {stored.entry.path: stored.recipe for image in images for stored in image.entries}
        self.manifest = _manifest(snapshot, images, tuple(dict.fromkeys(self._omitted)))

    def stream(self, stored: StoredEntry, pool: ThreadPoolExecutor) -> Iterator[bytes]:
        """Yield the bytes of an entry; `DamagedError` when they are not what was written."""
        path = stored.entry.path
        recipe = self._recipes[path]
        if path in self._redacted:
            yield self._redacted[path]
        elif recipe is not None:
            yield from self._vault.reader.stream(recipe, pool)

    def _without_secrets(self, image: PartImage, snapshot: Snapshot) -> PartImage:
        """Replace the secret values of a configuration, as a backup into a vault without encryption does."""
        redact = secrets.redactor(image.part)
        entries = []
        for stored in image.entries:
            if stored.recipe is None:
                entries.append(stored)
                continue
            try:
                data = redact(self._vault.reader.read(stored.recipe))
            except StoreError as error:
                error.unchanged = "No file was written."
                error.hint = f"memkeep pack {snapshot.id[:12]} -o FILE --include-secrets"
                raise
            self._redacted[stored.entry.path] = data
            entry = msgspec.structs.replace(stored.entry, size=len(data))
            entries.append(StoredEntry(entry=entry, recipe=Recipe(size=len(data), digest=blake3(data).digest())))
        self._omitted.append(Omission(part=image.part.name, reason=secrets.reason(image.part)))
        return msgspec.structs.replace(image, entries=tuple(entries))


def _manifest(snapshot: Snapshot, images: list[PartImage], omitted: tuple[Omission, ...]) -> parcel.Manifest:
    script = restore_script.TEXT.encode()
    same = {name: getattr(snapshot, name) for name in parcel.Manifest.__struct_fields__ if hasattr(snapshot, name)}
    taken = clock.moment(snapshot.created)
    when = int(taken.timestamp()) if taken is not None else 0
    files = [stored.entry for image in images for stored in image.entries if stored.entry.kind == "file"]
    return parcel.Manifest(
        **same
        | {
            "format": parcel.FORMAT,
            "snapshot": snapshot.id,
            "created_s": when,
            "files": len(files),
            "bytes": sum(entry.size for entry in files),
            "packed_by": __version__,
            "omitted": omitted,
            "script": parcel.packed(
                StoredEntry(
                    entry=Entry(path=parcel.SCRIPT, size=len(script), mode=0o755, mtime_ns=when * 10**9),
                    recipe=Recipe(size=len(script), digest=blake3(script).digest()),
                )
            ),
            "parts": tuple(_packed(image) for image in images),
        }
    )


def _packed(image: PartImage) -> parcel.PackedPart:
    return parcel.PackedPart(
        part=image.part,
        how=image.how,
        records={one.map.collection: one.rows for one in image.collections},
        baseline=image.baseline,
        entries=tuple(parcel.packed(stored) for stored in image.entries),
    )


def _archive(
    manifest: parcel.Manifest, stream: Callable[[StoredEntry], Iterator[bytes]], events: Events
) -> Iterator[bytes]:
    """Yield a tar archive."""
    data = parcel.encode(manifest)
    if len(data) > parcel.MAX_MANIFEST:
        raise StorageError(f"a manifest of {len(data):,} bytes is more than a packed file takes", code="too_large")
    yield parcel.head(manifest, len(data)) + data + tar.padding(len(data))
    digests = [(parcel.MANIFEST, hashlib.sha256(data).hexdigest())]
    for member in parcel.members(manifest):
        yield member.header
        if member.stored is not None:
            hasher, size = hashlib.sha256(), 0
            script = [restore_script.TEXT.encode()]
            for piece in stream(member.stored) if member.path != parcel.SCRIPT else script:
                hasher.update(piece)
                size += len(piece)
                events.advance(len(piece))
                yield piece
            if size != member.stored.entry.size:
                raise DamagedError(f"the vault has {size} bytes for {member.path}, not {member.stored.entry.size}")
            digests.append((member.path, hasher.hexdigest()))
            yield tar.padding(size)
    sums = parcel.sums(digests)
    yield parcel.sums_header(manifest, len(sums)) + sums + tar.padding(len(sums))
    yield tar.END


def _finished(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress an archive, and end it with the digest of all that."""
    hasher = hashlib.sha256()
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=_THREADS, write_checksum=True).compressobj()
    for piece in pieces:
        if packed := compressor.compress(piece):
            hasher.update(packed)
            yield packed
    packed = compressor.flush()
    hasher.update(packed)
    yield packed
    yield parcel.trailer(hasher.digest())


class _Counted:
    """A file to write to, its bytes counted and hashed as they go."""

    def __init__(self, file: age.Output) -> None:
        self._file = file
        self.size = 0
        self.hasher = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(data)
        self.hasher.update(data)
        return len(data)


@contextmanager
def _opened(output: Path | BinaryIO, snapshot: Snapshot) -> Iterator[age.Output]:
    """Lend the file to write to; one on disk appears whole at the end, or not at all."""
    if not isinstance(output, Path):
        yield output
        output.flush()
        return
    try:
        with new_file(output) as file:
            yield file
    except ObjectExistsError:
        raise _existing(output, snapshot) from None
    except StorageError as error:
        error.unchanged = "No file was written."
        raise


def _refuse_existing(output: Path, snapshot: Snapshot) -> None:
    if output.is_symlink() or output.exists():
        raise _existing(output, snapshot)


def _existing(output: Path, snapshot: Snapshot) -> RefusedError:
    message = f"{output} exists already"
    return RefusedError(message, hint=f"memkeep pack {snapshot.id[:12]} -o ANOTHER-FILE.tar.zst", code="target_exists")

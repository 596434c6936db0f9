"""A small reader of Lance table manifests, without the library: what one version of a table is made of.

Format, from Lance's `protos/table.proto` and `protos/file.proto` and checked on tables of Lance 2.0 to 14:

    _versions/<2^64 - 1 - version, 20 digits>.manifest   naming V2
    _versions/<version>.manifest                         naming V1 (older tables)
    _versions/d<version>.manifest                        detached: not part of the table's history

A manifest ends with an i64 (where its message begins), two u16 (format version) and `LANC`, all little-endian. The
message is a u32 length and a protobuf `Manifest`, which reaches exactly to those last 16 bytes. Before it may lie an
`IndexSection` (u32 length and message) at the offset that `Manifest.index_section` says.

What is not understood is refused, never guessed. Unknown fields are passed over, as protobuf means them to be: what a
reader must know of is announced by a reader flag.
"""

import os
import re
from pathlib import Path
from uuid import UUID

from memkeep.engines.lance_proto import Message, ProtoError
from memkeep.errors import StoreError
from memkeep.model import Value

KNOWN_FLAGS = 1 | 2 | 4 | 8 | 16 | 32  # deletion files, stable row ids, v2, config, base paths, no transaction file
_DETACHED = 1 << 63
_V2_NAME = re.compile(r"(\d{20})\.manifest")
_V1_NAME = re.compile(r"(\d{1,19})\.manifest")
_VECTOR = re.compile(r"fixed_size_list:(?:halffloat|float|double):(\d+)")
_DELETION_ENDINGS = {0: "arrow", 1: "bin"}
_TAIL = 16  # bytes: where the message begins, two numbers of the format, `LANC`
_LENGTH = 4  # bytes of the length before a message
_UUID = 16


class DataFile(Value):
    """One file with some columns of a fragment."""

    path: str  # under the table's folder
    fields: tuple[int, ...]  # ids of the columns in it
    size: int  # bytes; 0 when the manifest does not say
    base: int | None  # of another place, when it is not in the table's folder


class Fragment(Value):
    """Some rows of the table."""

    id: int
    files: tuple[DataFile, ...]
    physical_rows: int  # deleted ones included
    deleted_rows: int = 0
    deletion_file: str = ""  # under the table's folder
    deletion_base: int | None = None
    row_files: tuple[str, ...] = ()  # row ids and row versions that lie in files of their own

    @property
    def rows(self) -> int:
        """Rows that a reader sees."""
        return self.physical_rows - self.deleted_rows


class Index(Value):
    """One index over some columns."""

    uuid: str
    name: str
    fields: tuple[int, ...]
    kind: str  # e.g. "InvertedIndex", "VectorIndex"; "" in old tables
    files: dict[str, int]  # name under _indices/<uuid>/ -> bytes; empty when the manifest does not list them
    base: int | None


class Manifest(Value):
    """One version of a Lance table."""

    version: int
    columns: dict[str, str]  # top-level column -> logical type, in order
    field_names: dict[int, str]  # id of a top-level column -> its name
    vectors: dict[str, int]  # fixed-size vector column -> dimensions
    blobs: tuple[str, ...]
    fragments: tuple[Fragment, ...]
    indices: tuple[Index, ...]
    transaction: str  # file under _transactions/, or ""
    writer: str
    storage_version: str
    bases: dict[int, str]  # id of another place -> its path or URL

    @property
    def rows(self) -> int:
        """Rows that a reader sees."""
        return sum(fragment.rows for fragment in self.fragments)


class VersionFile(Value):
    """The manifest file of one version."""

    version: int
    name: str


def newest(folder: Path) -> VersionFile | None:
    """Return the newest version in a table's folder, None when there is none; raises `OSError`."""
    best: VersionFile | None = None
    with os.scandir(folder / "_versions") as names:
        for entry in names:
            version = version_of(entry.name)
            if version is not None and (best is None or version > best.version):
                best = VersionFile(version=version, name=entry.name)
    return best


def version_of(name: str) -> int | None:
    """Return the version that a manifest's file name stands for; None for detached ones and other files."""
    if match := _V2_NAME.fullmatch(name):
        version = (1 << 64) - 1 - int(match[1])
    elif match := _V1_NAME.fullmatch(name):
        version = int(match[1])
    else:
        return None
    return version if 0 <= version < _DETACHED else None


def parse(data: bytes, where: str, expect: int | None = None) -> Manifest:
    """Read a manifest file's bytes; `where` names it in errors, `expect` is the version that its name says.

    Raises `StoreError` (code `lance_manifest`) when it is cut, garbled, or needs what is not known here.
    """
    try:
        return _manifest(data, expect)
    except ProtoError as error:
        raise StoreError(
            f"the Lance manifest {where} cannot be read: {error}",
            unchanged="The table was not changed, and nothing of it was taken.",
            hint="memkeep snapshots",
            code="lance_manifest",
        ) from error


def _manifest(data: bytes, expect: int | None) -> Manifest:
    if len(data) < _TAIL + _LENGTH or data[-4:] != b"LANC":
        raise ProtoError("it does not end as a manifest does")
    start = int.from_bytes(data[-_TAIL:-8], "little", signed=True)
    block = _block(data, start)
    if start + _LENGTH + len(block) != len(data) - _TAIL:
        raise ProtoError("its length is not the one that it says")
    said = Message(block)
    if expect is not None and said.number(3) != expect:
        raise ProtoError(f"it says version {said.number(3)}, its name says {expect}")
    unknown = said.number(9) & ~KNOWN_FLAGS
    if unknown:
        raise ProtoError(f"it needs features that this version of memkeep does not know (flags {unknown:#x})")
    # A top-level column has the parent -1.
    columns = {field.text(2): field for field in said.messages(1) if field.signed(4) == -1}
    types = {name: field.text(5) for name, field in columns.items()}
    indices = Message(_block(data, said.number(6))).messages(1) if said.has(6) else []
    lists: dict[bytes, tuple[int, ...]] = {}
    return Manifest(
        version=said.number(3),
        columns=types,
        field_names={field.signed(3): name for name, field in columns.items()},
        vectors={name: int(match[1]) for name, type_ in types.items() if (match := _VECTOR.fullmatch(type_))},
        blobs=tuple(name for name, field in columns.items() if any(map(_is_blob, field.blocks(10)))),
        fragments=tuple(_fragment(fragment, lists) for fragment in said.messages(2)),
        indices=tuple(map(_index, indices)),
        transaction=_inside(said.text(12)) if said.has(12) else "",
        writer=f"{said.message(13).text(1)} {said.message(13).text(2)}".strip(),
        storage_version=said.message(15).text(2),
        bases={base.number(1): base.text(4) for base in said.messages(18)},
    )


def _is_blob(metadata: bytes) -> bool:
    """Say whether an entry of a field's metadata marks its values as kept apart."""
    return b"lance-encoding:blob" in metadata or b"lance.blob" in metadata


def _fragment(said: Message, lists: dict[bytes, tuple[int, ...]]) -> Fragment:
    identity = said.number(1)
    deletion = said.message(3)
    deletion_file = ""
    if said.has(3):
        kind = deletion.number(1)
        if kind not in _DELETION_ENDINGS:
            raise ProtoError(f"a deletion file is of the unknown kind {kind}")
        deletion_file = f"_deletions/{identity}-{deletion.number(2)}-{deletion.number(3)}.{_DELETION_ENDINGS[kind]}"
    return Fragment(
        id=identity,
        files=tuple(_data_file(file, lists) for file in said.messages(2)),
        physical_rows=said.number(4),
        deleted_rows=deletion.number(4),
        deletion_file=deletion_file,
        deletion_base=deletion.maybe(7),
        row_files=tuple(_inside(file.text(1)) for field in (6, 8, 10) for file in said.messages(field)),
    )


def _data_file(said: Message, lists: dict[bytes, tuple[int, ...]]) -> DataFile:
    return DataFile(
        path=f"data/{_inside(said.text(1))}",
        fields=said.integers(2, lists),
        size=said.number(6),
        base=said.maybe(7),
    )


def _index(said: Message) -> Index:
    raw = said.message(1).block(1)
    if len(raw) != _UUID:
        raise ProtoError("an index has no proper id")
    return Index(
        uuid=str(UUID(bytes=raw)),
        name=said.text(3),
        fields=said.integers(2),
        kind=said.message(6).text(1).rpartition(".")[2].removesuffix("Details"),
        files={_inside(file.text(1)): file.number(2) for file in said.messages(10)},
        base=said.maybe(9),
    )


def _inside(path: str) -> str:
    """Return a relative path that cannot lead out of the folder it is under."""
    if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in path.split("/"):
        raise ProtoError(f"it names a file outside its folder: {path!r}")
    return path


def _block(data: bytes, start: int) -> bytes:
    """Return the message that a u32 length at `start` announces."""
    if not 0 <= start <= len(data) - _TAIL - _LENGTH:
        raise ProtoError("a part of it begins outside it")
    end = start + _LENGTH + int.from_bytes(data[start : start + _LENGTH], "little")
    if end > len(data) - _TAIL:
        raise ProtoError("a part of it is longer than the file")
    return data[start + _LENGTH : end]

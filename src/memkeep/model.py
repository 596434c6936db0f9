"""The values that cross boundaries: stores, parts, snapshots, findings. No behaviour beyond small derived facts."""

from enum import StrEnum
from typing import Any, Literal, dataclass_transform

import msgspec


class Role(StrEnum):
    """What a part is to its store."""

    CANONICAL = "canonical"  # the memory itself
    DERIVED = "derived"  # can be made again from canonical parts (perhaps at a cost)
    CONFIG = "config"
    SECRET = "secret"  # noqa: S105 - a role's name, not a password
    DISPOSABLE = "disposable"  # caches and locks


class Rung(StrEnum):
    """The ladder of verification, lowest first."""

    NONE = "none"
    PRESENT = "present"
    INTACT = "intact"
    READABLE = "readable"
    RESTORABLE = "restorable"
    EQUIVALENT = "equivalent"

    @property
    def height(self) -> int:
        """Position on the ladder, 0 for `none`."""
        return list(Rung).index(self)


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # memory is lost, damaged or at risk
    WARNING = "warning"  # should be mended
    INFO = "info"  # worth knowing


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all values: immutable, keyword-only, and comparable."""


class Finding(Value):
    """One thing noticed: what, where, and how to mend it."""

    code: str  # stable, snake_case
    severity: Severity
    message: str
    part: str | None = None
    record: str | None = None
    object: str | None = None  # the vault object that it concerns
    snapshots: tuple[str, ...] = ()  # the snapshots that it hurts
    mend: str | None = None  # a command or a sentence


class Omission(Value):
    """A part, or a file in one, that a snapshot does not hold, and why."""

    part: str
    reason: str


TimeUnit = Literal["s", "ms", "iso", "auto"]  # auto: seconds or milliseconds, told apart by size


class TableMap(Value):
    """How rows of one table (SQLite, Lance) or one kind of file become records."""

    collection: str  # e.g. "facts"; unique within a store
    table: str  # the table's name; "" for files
    id: str  # the column that names a record
    fields: dict[str, str] = {}  # portable field -> column, e.g. {"text": "content"}; other columns keep their names
    vectors: tuple[str, ...] = ()  # columns that hold embeddings
    times: dict[str, TimeUnit] = {}  # portable field -> unit of its raw values
    primary: bool = True  # counts in `records`; ids of other collections are shown as "<collection>:<id>"
    include: tuple[str, ...] = ()  # for files: only these paths (fnmatch, `*` crosses `/`) are records; empty means all
    unique: tuple[str, ...] = ()  # columns that name a row where the id is only a number that the database gave it
    links: tuple[str, ...] = ()  # columns that name records of the store; a row goes where one of those goes


def is_url(path: str) -> bool:
    """Say whether a store or a part lies in a server: its path is a URL then, without secrets."""
    return "://" in path


class Part(Value):
    """One component of a store: a database, a Lance table, a file, a folder of files, what a server keeps of it."""

    name: str  # its path under the store's root, POSIX; unique in the store; of a server's part the image's folder
    engine: str  # one of those in `engines.catalog`
    role: Role
    path: str  # absolute path of the live thing, or its URL
    maps: tuple[TableMap, ...] = ()
    exclude: tuple[str, ...] = ()  # names under a folder part that belong to other parts or are left out
    include: tuple[str, ...] = ()  # for folder parts: only these names (glob); empty means all
    secrets: tuple[
        str, ...
    ] = ()  # what to redact when secrets are not taken: a JSON file's dotted keys, `table.column`
    user: str | None = None  # only what is of this user is taken


class Hooks(Value):
    """How to stop and start a product, as a shell runs it."""

    stop: str
    start: str


class Store(Value):
    """One live instance of a system."""

    system: str
    path: str  # absolute; a folder, the one file that is the store, or a URL
    root: str  # the folder that part names are relative to; "" when no part is a file
    parts: tuple[Part, ...]
    records: int | None = None  # None: not counted (unreadable)
    mapping: str = ""  # for `custom`: how the records were recognised, one sentence
    fingerprint: dict[str, Any] = {}  # embedding provider/model/dims, schema and product versions
    omitted: tuple[Omission, ...] = ()  # known from the layout alone (.env files, links that leave the store)
    findings: tuple[Finding, ...] = ()
    user: str | None = None  # only what is of this user is taken; such a store is another one than the whole
    hooks: Hooks | None = None  # when the settings say that it is to stand still while it is frozen


class Entry(Value):
    """One file, folder or link of an image."""

    path: str  # under the store's root, POSIX
    kind: Literal["file", "dir", "link"] = "file"
    size: int = 0
    mode: int = 0o600
    mtime_ns: int = 0
    target: str = ""  # of a link


class Run(Value):
    """Equal-sized blocks lying one after another in a file: vectors, which may be found again elsewhere."""

    offset: int
    count: int
    stride: int  # bytes a block


class TableState(Value):
    """What one table held at the frozen moment."""

    rows: int
    digest: str  # hex BLAKE3 over the rows in key order, vectors included; "" when not computed


class Probe(Value):
    """One recall question and the answer the store gave."""

    kind: Literal["vector", "text"]
    table: str
    column: str
    question: str  # the record's id (vector) or the words (text)
    ids: tuple[str, ...]
    scores: tuple[float, ...]
    metric: str = ""  # the distance that a vector is asked by, where its column has a choice


class Baseline(Value):
    """What a part was at the frozen moment, for later comparison."""

    tables: dict[str, TableState] = {}
    probes: tuple[Probe, ...] = ()
    facts: dict[str, Any] = {}  # e.g. {"lance_version": 53}, {"vectors": {"embedding": {"dims": {"768": 5}}}}


class Recipe(Value):
    """How one stream of bytes is put together again from chunks: parallel arrays, in order."""

    size: int
    digest: bytes  # 32 bytes, BLAKE3 of the stream
    ids: bytes = b""  # 16 bytes a piece
    starts: bytes = b""  # uint32 LE a piece: where in the chunk it begins
    lengths: bytes = b""  # uint32 LE a piece
    runs: tuple[Run, ...] = ()


class StoredEntry(Value):
    """An entry and, for a file, the recipe of its bytes."""

    entry: Entry
    recipe: Recipe | None = None


class StoredGroup(Value):
    """One stored group of records."""

    bucket: int
    rows: int
    chunk: bytes  # 16 bytes


class StoredCollection(Value):
    """The records of one collection, in stable groups."""

    map: TableMap
    bits: int  # number of bits of the id's CRC-32 that choose the bucket
    rows: int
    groups: tuple[StoredGroup, ...] = ()


class PartImage(Value):
    """All that a snapshot holds of one part."""

    part: Part
    how: str  # how one consistent moment was had
    entries: tuple[StoredEntry, ...] = ()
    collections: tuple[StoredCollection, ...] = ()
    baseline: Baseline = Baseline()


class PartSummary(Value):
    """What the manifest says of a part without reading its image."""

    name: str
    engine: str
    role: Role
    how: str
    files: int
    bytes: int
    rows: dict[str, int] = {}  # table -> rows
    image: Recipe | None = None  # of the encoded PartImage


class Origin(Value):
    """Which snapshot a copy was made of: the first one, when it was copied from vault to vault."""

    vault: str  # the id of that vault
    snapshot: str


BEFORE_RESTORE = "before-restore"
"""The tag of what a restore that changes a live store keeps of it first."""


class Snapshot(Value, kw_only=True):
    """One consistent moment of one store: the manifest."""

    id: str = ""  # hex SHA-256 of the stored manifest; filled in when read
    created: str  # ISO-8601, UTC
    system: str
    path: str
    user: str | None = None  # whose memory alone it holds; None: everybody's
    host: str
    parent: str | None = None
    tag: str | None = None
    label: str | None = None
    records: int | None = None
    source_bytes: int = 0
    added_bytes: int = 0
    duration_s: float = 0.0
    rung: Rung = Rung.NONE
    consistent: bool = True
    parts: tuple[PartSummary, ...] = ()
    omitted: tuple[Omission, ...] = ()
    findings: tuple[Finding, ...] = ()
    mapping: str = ""
    fingerprint: dict[str, Any] = {}
    summary: dict[str, Any] = {}  # counts by category and scope, oldest and newest
    memkeep: str = ""  # version that made it
    origin: Origin | None = None  # of a copy

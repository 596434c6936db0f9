"""The contract of an engine: hold one consistent moment of a part, say what is in it, and read it back.

Engines know databases; they know nothing of vaults. `Engine.freeze` works on a live part and may only read it;
`Engine.open` works on an image that lies in a private folder (a restored snapshot). Both give an `Opened`.
A `ServerEngine` keeps what lies in a server; its images are files too, and are read without the server.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from memkeep.events import Events
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Value
from memkeep.records.groups import Group


class Opened(Protocol):
    """One moment of one part, held until the context manager that gave it exits.

    Call `scan` before `stream` (a scan may find the runs of vectors that streaming reports). All methods may be
    called from one thread at a time, except that `stream` may run while `scan` runs in another thread.
    """

    how: str
    """How the moment was made consistent, one short sentence: `read transaction (WAL)`, `pinned version 53` ..."""

    def entries(self) -> list[Entry]:
        """Return every file, folder and link of the image, paths relative to the store's root."""
        ...

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes at the frozen moment, in buffers of at most 1 MiB; raise `StoreError` when it can't."""
        ...

    def runs(self, entry: Entry) -> tuple[Run, ...]:
        """Return where vectors lie in a file, as known after `scan`; may be empty."""
        ...

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every row of every table once; yield the records of the part's maps in groups.

        `bits` gives, for collections that have a parent snapshot, the number of bucket bits to keep (else choose
        by row count). With `probes` given those questions are asked again, else new ones are chosen. After the
        last group `baseline()` is complete.
        """
        ...

    def baseline(self) -> Baseline:
        """Return counts and digests of all tables, and the probes with their answers. Only after `scan` ended."""
        ...

    def check(self) -> list[Finding]:
        """Run the database's own integrity checks on the moment; an empty list means all is well."""
        ...

    def moved(self) -> bool:
        """Say whether the live part has changed since it was frozen (always False for `open`)."""
        ...

    def held(self) -> bool:
        """Say whether the moment is still one moment. False means: throw away what was streamed and freeze again."""
        ...

    def omitted(self) -> list[Omission]:
        """Return what of the part is not in `entries()`, and why."""
        ...

    def findings(self) -> list[Finding]:
        """Return what was noticed while freezing or scanning (e.g. a database that is encrypted)."""
        ...


class Engine(Protocol):
    """What can freeze, check and read one kind of part. Stateless."""

    name: str

    def freeze(self, part: Part, root: Path, scratch: Path) -> AbstractContextManager[Opened]:
        """Hold one consistent moment of the live part, reading only.

        `root` is the store's root, `scratch` an empty private folder for this part, deleted by the caller. Raises
        `StoreError` when the part is gone or unreadable, `UnstableError` when it never held still.
        """
        ...

    def open(self, part: Part, root: Path) -> AbstractContextManager[Opened]:
        """Open an image that was written under `root` (a private folder; side files may be made there)."""
        ...

    def count(self, part: Part, table: str) -> int | None:
        """Count the rows of a live table quickly and without changing anything; None when it can't be read."""
        ...


class ServerTable(Value):
    """One table or collection of a server."""

    name: str  # a collection's name, or `schema.table`
    columns: dict[str, str]  # name -> type; keys of payloads and JSON columns among them, as records name them
    vectors: dict[str, int] = {}  # column -> dimensions; 0 when they differ or there are none (sparse)
    key: str = ""  # the one column that names a row; "" when there is none
    rows: int | None = None


class ServerInspection(Value):
    """What a server has at a URL."""

    url: str
    version: str
    tables: tuple[ServerTable, ...]


class Rebuilt(Value):
    """What was put into a server."""

    rows: int
    findings: tuple[Finding, ...] = ()


class ServerEngine(Engine, Protocol):
    """An engine whose parts lie in a server: `Part.path` is a URL, without secrets (see `logins`)."""

    def inspect(self, url: str) -> ServerInspection:
        """Return what is there. Raises `StoreError`: `store_unreachable`, `store_denied` or `store_missing`."""
        ...

    def size(self, part: Part) -> int:
        """Return about how many bytes the part has now."""
        ...

    def aim(self, part: Part, url: str) -> str:
        """Return where in the server of a URL that a person named the part would go, as a URL."""
        ...

    def exists(self, part: Part, target: str) -> bool:
        """Say whether anything lies where the part would go. Raises `StoreError` as `inspect` does."""
        ...

    def by_hand(self, part: Part, root: Path) -> str:
        """Say in a few words how the image that lies under `root` is loaded without memkeep."""
        ...

    def rebuild(self, part: Part, root: Path, target: str, *, replace: bool, events: Events) -> Rebuilt:
        """Put the image that lies under `root` into a server, compare it there with the image, then let it be seen.

        What is there is replaced only with `replace`, else `RefusedError` (`target_exists`). When it fails, what was
        there is as it was, and nothing half-made stays.
        """
        ...

    def recall(self, part: Part, root: Path, target: str, baseline: Baseline) -> list[Finding]:
        """Ask the search of a server that was rebuilt what it was asked when it was frozen; say what is different.

        The image lies under `root`. Raises `StoreError` when the server does not answer.
        """
        ...

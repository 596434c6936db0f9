"""The contract of a system: where a product keeps its memory, as parts and a mapping to records. Nothing else.

A system is a module; adding one is that module and its name in `detect.SYSTEMS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from memkeep.model import Finding, Store, TableMap, Value
from memkeep.records.record import Record
from memkeep.records.shape import Row, Shape
from memkeep.systems.look import Look


class OpenClaw(Value):
    """One `openclaw.json`: the folder it lies in, which is the state folder it speaks for, and what it says."""

    state_dir: Path
    data: dict[str, Any]


class Places(Value):
    """What the environment says of where products keep their things; made by `detect`."""

    home: Path
    state_dir: Path  # `OPENCLAW_STATE_DIR`, or `~/.openclaw`
    environ: Mapping[str, str] = {}
    configs: tuple[OpenClaw, ...] = ()  # of the state folder in use, and of those found on the way


class System(Protocol):
    """A product. Stateless."""

    name: str

    queries: tuple[str, ...]
    """Questions that `detect` asks of databases by `Look.rows`; asked of each database while it is first looked at."""

    def detect(self, look: Look, path: Path, places: Places) -> list[Store]:
        """Return the stores of this system that lie exactly at `path` (a folder or a database); [] when none does.

        Told by content (table and column names), never by path. All that belongs to the store is in a part or in
        `Store.omitted`; what the product's own knowledge notices (a vault in plain text) is in `Store.findings`.
        Reads only, through `look`; changes nothing, side files included.
        """
        ...

    def default_paths(self, places: Places) -> list[Path]:
        """Return where this product keeps its stores by default or by what the configs say, there or not."""
        ...


class ServerSystem(System, Protocol):
    """A product whose store may lie in a server as a whole."""

    def detect_url(self, look: Look, url: str, places: Places) -> list[Store]:
        """Return the stores of this system that a server has at a URL without secrets; [] when it has none.

        The URL of a database may name the tables that count: see `servers`.
        """
        ...


class Side(Value):
    """One collection of a snapshot: the part that it is of, and its records, portable names over native values."""

    part: str
    rows: Iterable[dict[str, Any]]  # under `id` what the product has as the record's id, a number too


Sides = Mapping[str, Side]
"""The collections of a snapshot, by name. Each may be read once."""


Known = Mapping[str, Sequence[Row]]
"""The rows of the collections that a `ShapedSystem` asked for, by the collection's name."""
Refine = Callable[[Record], Record]


class ShapedSystem(System, Protocol):
    """A product that knows more of its records than its maps say."""

    lookups: tuple[str, ...]
    """Small collections that tell something of the records: the names of users."""

    def shape(self, map_: TableMap) -> Shape:
        """Return how the rows of one of its maps are portable records."""
        ...

    def refine(self, known: Known) -> Refine:
        """Return what completes a record by what several columns, or other rows, say of it."""
        ...


class ManyUserSystem(System, Protocol):
    """A product that keeps the memory of several users in one store, and tells them apart."""

    def of_user(self, store: Store, user: str) -> Store:
        """Return a store as one from which only what is of one user is taken, in the parts that tell."""
        ...


class SecretSystem(System, Protocol):
    """A product that keeps settings, and so perhaps secrets, as JSON in a column of its database."""

    secret_columns: tuple[str, ...]
    """These columns, as `table.column`."""


class LostId(Value):
    """An id that the product's own database destroyed, and what it was: another part of the store still has it."""

    was: int | float | str  # a text where a mend before this one could not tell
    id: str  # as the database spells ids
    text: str
    part: str
    columns: tuple[tuple[str, str], ...]  # (table, column): all that hold such ids


class TwofoldSystem(System, Protocol):
    """A product whose memory lies in two places that can come apart."""

    def drift(self, sides: Sides) -> list[Finding]:
        """Return what the places disagree about, each finding with the record that it is about."""
        ...

    def lost_ids(self, sides: Sides) -> list[LostId]:
        """Return the ids that one place has destroyed and another still has."""
        ...

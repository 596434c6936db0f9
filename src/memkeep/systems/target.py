"""The contract of a target: how records of any product become rows of one, and how an empty store of it is made."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from memkeep.engines.rows import Columns
from memkeep.errors import UsageError
from memkeep.model import Part, Store, TableMap, Value
from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems.base import Known
from memkeep.systems.making import Making


class Wish(Value, kw_only=True):
    """What a new store is to take."""

    dims: int | None = None  # of the vectors; None: no record has one
    model: str | None = None
    rehearses: str | None = None  # in a dry run: the place that the one given stands for; nothing is made outside of it


def is_valid(status: str | None) -> bool:
    """Say whether records of this status are recalled by their product: not superseded, archived or deleted."""
    return status not in {"superseded", "archived", "deleted", "paused"}


ENDS = ("expires_at", "valid_until")
"""The fields of a record that say until when it is valid."""


def no_size(name: str) -> UsageError:
    """Return the error that a product whose store must say how large vectors are can't be given a new one."""
    return UsageError(
        f"{name} keeps vectors, and no record has one: their size is not known",
        hint="memkeep import --help   # --dims N, as many as your model makes; then memkeep embed STORE --missing",
    )


class Target(Protocol):
    """A product that records can move to. Stateless."""

    name: str
    """The system's."""

    names: tuple[str, ...]
    """What a person calls it before a path: `mem0:/new/folder`."""

    heeds: tuple[str, ...]
    """The fields of a record that say until when it is recalled, and that the product itself goes by: of `ENDS`."""

    def hides(self, map_: TableMap) -> bool:
        """Say whether a table can keep records that are no longer valid without the product's recalling them."""
        ...

    def identity(self, system: str, identity: str) -> str:
        """Return the id that a record of another system has here."""
        ...

    def complete(self, made: Record, row: Row, map_: TableMap) -> Row:
        """Return a new row of a record from elsewhere with all that the product needs in it."""
        ...

    def beside(self, made: Record, known: Known) -> Iterable[tuple[str, Row]]:
        """Yield what a record needs in other collections, by their name: its user, its categories.

        A record of the product itself needs it where those that it had did not come along.
        """
        ...

    def create(self, name: str, place: str, wish: Wish, making: Making) -> Store:
        """Make an empty store as the product makes it, at a path or URL where nothing is, and return it.

        What is made is noted in `making`. Raises `RefusedError` (`target_exists`) and `StoreError`.
        """
        ...


class Outline(NamedTuple):
    """A table of a server as it would be made."""

    part: Part
    columns: Columns
    there: bool  # it is there already, and empty


@runtime_checkable
class NamingTarget(Protocol):
    """A product whose records refer to others by ids that a store has given them: to users, to categories."""

    def names_there(self, known: Known, coming: Iterable[Record]) -> Any:
        """Return what `settled` is to know of a store; `coming` are the product's own records that come."""
        ...

    def settled(self, made: Record, map_: TableMap, row: Row, names: Any) -> Row | None:
        """Return a row of a record with the ids that are there; None for what is there already."""
        ...


@runtime_checkable
class AskingTarget(Protocol):
    """A product that is asked for the memories of somebody only."""

    def of_nobody(self) -> str:
        """Say what becomes of memories of no user, agent or session."""
        ...


@runtime_checkable
class JoiningTarget(Protocol):
    """A product that has a table for relationships."""

    def complete_joined(self, row: Row, map_: TableMap) -> Row:
        """Return a new row of a relationship from elsewhere with all that the product needs in it."""
        ...


@runtime_checkable
class ServedTarget(Protocol):
    """A product whose store may lie in a server as a whole."""

    schemes: tuple[str, ...]

    def settled(self, url: str) -> str:
        """Return a URL with the name of the collection or table that the product uses, where a URL needs one."""
        ...

    def outline(self, place: str, wish: Wish) -> Outline:
        """Return what `create` would make at a URL; nothing is made.

        Raises `RefusedError` (`target_exists`), and `StoreError` when the server can't be asked.
        """
        ...

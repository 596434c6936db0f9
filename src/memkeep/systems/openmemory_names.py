"""Users, apps and categories of an OpenMemory that is there already, under ids of its own: what comes goes to them.

Their names are unique, so a second row of one would be refused, and what refers to it would refer to nothing.
"""

from collections.abc import Iterable
from typing import Any

from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems.base import Known

_OF = {"user_id": "users", "owner_id": "users", "changed_by": "users", "app_id": "apps", "category_id": "categories"}


class Names:
    """What the store calls those that records come with."""

    def __init__(self, known: Known, coming: Iterable[Record]) -> None:
        """Take the rows that are there, and the product's own records of users, apps and categories that come."""
        self._ids: dict[tuple[str, str], str] = {}  # (collection, id as it comes) -> id that is there
        self._users = {str(row.get("user_id")): str(row["id"]) for row in known.get("users", ())}
        self._apps = {(_plain(row.get("owner_id")), row.get("name")): str(row["id"]) for row in known.get("apps", ())}
        self._categories = {str(row.get("name")): str(row["id"]) for row in known.get("categories", ())}
        ours = sorted(coming, key=lambda made: made.collection != "users")
        for made in ours:
            row = made.metadata | {"id": made.id, "name": made.text}
            self._learn(made.collection, row)

    def row(self, collection: str, row: Row) -> Row | None:
        """Return a row with the ids that are there; None for a user, app or category that is there under another."""
        if collection in {"users", "apps", "categories"}:
            self._learn(collection, row)
            there = self._ids.get((collection, _plain(row.get("id"))))
            if there is not None and _plain(there) != _plain(row.get("id")):
                return None
        return {column: self._there(collection, column, value) for column, value in row.items()}

    def settle(self, user: tuple[str, str], app: tuple[str, str]) -> None:
        """Learn what a memory's user and app are, each by its name and the id that it comes with."""
        self._learn("users", {"user_id": user[0], "id": user[1]})
        self._learn("apps", {"owner_id": user[1], "name": app[0], "id": app[1]})

    def _there(self, collection: str, column: str, value: Any) -> Any:
        of = _OF.get(column) if not (collection == "users" and column == "user_id") else None
        return value if of is None else self._ids.get((of, _plain(value)), value)

    def _learn(self, collection: str, row: Row) -> None:
        identity = _plain(row.get("id"))
        there: str | None = None
        if collection == "users":
            there = self._users.get(str(row.get("user_id")))
        elif collection == "apps":
            owner = _plain(row.get("owner_id"))
            there = self._apps.get((_plain(self._ids.get(("users", owner), owner)), row.get("name")))
        elif collection == "categories":
            there = self._categories.get(str(row.get("name")))
        if there is not None:
            self._ids[collection, identity] = there


def _plain(identity: Any) -> str:
    return str(identity).replace("-", "").lower()

"""Records into OpenMemory: a row in its database, with its user and its app, and a point in Qdrant under the same id.

A new store has its points in a folder of Qdrant's local mode, `qdrant-local`, unless `QDRANT_HOST` or a compose file
in the folder says where its Qdrant is, which is then used.
"""

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from memkeep.engines import postgres_new, qdrant_new, sqlite_new
from memkeep.model import Part, Store, TableMap
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems import mem0, openmemory, openmemory_servers
from memkeep.systems.base import Known
from memkeep.systems.detect import discover
from memkeep.systems.look import Look
from memkeep.systems.making import Making
from memkeep.systems.openmemory_maps import MEMORIES, POINTS
from memkeep.systems.openmemory_names import Names
from memkeep.systems.openmemory_schema import SCHEMA
from memkeep.systems.target import Wish

name = openmemory.name
names: tuple[str, ...] = (openmemory.name,)

_COLLECTION = "openmemory"
_LOCAL = "qdrant-local"
_USER, _APP = "default_user", "openmemory"  # the product's own for whom nobody says
_STATES = {"active", "paused", "archived", "deleted"}
_GONE = {"superseded": "archived"}
_TIME = "1970-01-01 00:00:00.000000"
heeds: tuple[str, ...] = ()


def hides(map_: TableMap) -> bool:  # noqa: ARG001 - the contract's signature
    """Say yes: a memory has a state."""
    return True


def identity(system: str, identity: str) -> str:
    """Return a UUID as the database spells it: 32 hex digits, of which one is always a letter.

    An id that reads as a number is destroyed by the type that the product declares for its columns.
    """
    plain = as_uuid(system, identity).replace("-", "")
    while not _is_safe(plain):
        plain = as_uuid(system, f"{identity}#{plain}").replace("-", "")
    return plain


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a memory its user and app; a point what mem0 writes into it. Memories that are gone have no point."""
    if map_.collection.startswith(POINTS):
        before = map_.fields["text"].removesuffix("data")
        text = made.text.encode("utf-8", "surrogatepass")
        known = {key: value for key, value in row.items() if key.startswith("vector") or key == "bm25"}
        payload = {
            "data": made.text,
            "hash": hashlib.md5(text, usedforsecurity=False).hexdigest(),
            "user_id": made.user or _USER,
            "source_app": "openmemory",
            "mcp_client": made.agent or _APP,
        }
        times = {key: row[key] for name in ("created_at", "updated_at") if row.get(key := f"{before}{name}")}
        point = {f"{before}{key}": value for key, value in payload.items()}
        return {"id": str(uuid.UUID(str(row["id"])))} | point | times | known
    if map_.collection != MEMORIES:
        return row
    user = _user_id(made)
    state = _GONE.get(made.status or "active", made.status or "active")
    created = row.get("created_at") or row.get("updated_at") or _TIME
    return row | {
        "content": made.text,
        "user_id": user,
        "app_id": _app_id(user, made.agent or _APP),
        "state": state if state in _STATES else "active",
        "created_at": created,
        "updated_at": row.get("updated_at") or created,
    }


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield the user, the app and the categories of a memory, by the ids that it has for them if it is our own."""
    owner, app = made.user or _USER, made.agent or _APP
    own = made.metadata if made.system == name else {}
    user = str(own.get("user_id") or _user_id(made))
    app_id = str(own.get("app_id") or _app_id(user, app))
    times = {"created_at": _TIME, "updated_at": _TIME}
    yield "users", {"id": user, "user_id": owner, "name": owner, "metadata": "{}", **times}
    app_row = {"id": app_id, "owner_id": user, "name": app, "metadata": "{}", "is_active": 1}
    yield "apps", app_row | times
    for tag in made.tags:
        category = identity("category", tag)
        yield "categories", {"id": category, "name": tag, "description": f"Category: {tag}", **times}
        memory = made.id if made.system == name else identity(made.system, made.id)
        yield "memory_categories", {"memory_id": memory, "category_id": category}


def names_there(known: Known, coming: Iterable[Record]) -> Names:
    """Return what the store calls the users, apps and categories that records come with."""
    names = Names(known, coming)
    for user in known.get("users", ()):
        owner = str(user.get("user_id"))
        would_be = identity("user", owner)
        names.settle((owner, would_be), ("", ""))
        for app in known.get("apps", ()):
            title = str(app.get("name"))
            names.settle((owner, would_be), (title, _app_id(would_be, title)))
    for category in known.get("categories", ()):
        names.row("categories", {"id": identity("category", str(category.get("name"))), "name": category.get("name")})
    return names


def settled(made: Record, map_: TableMap, row: Row, names: Names) -> Row | None:
    """Return a row of a record with the ids that are there; None for what is there already."""
    if map_.collection.startswith(POINTS):
        return row
    if map_.collection == MEMORIES:
        owner, app = made.user or _USER, made.agent or _APP
        names.settle((owner, str(row.get("user_id"))), (app, str(row.get("app_id"))))
    return names.row(map_.collection, row)


def create(name: str, place: str, wish: Wish, making: Making) -> Store:  # noqa: ARG001 - the contract's signature
    """Make an empty database, and a collection for the points where records have vectors."""
    folder = Path(place).expanduser().absolute()
    with making.path(folder / "api" / "openmemory.db"):
        sqlite_new.create(folder / "api" / "openmemory.db", SCHEMA)
    if wish.dims is None:
        return discover([folder])[0]
    settings = mem0.collection_settings(wish.dims)
    served = _served(folder if wish.rehearses is None else Path(wish.rehearses).expanduser().absolute())
    there = served is not None and _is_there(served, wish.dims)
    if served is not None and wish.rehearses is None:
        if served.engine == "qdrant":
            making.collection(served.path, settings, there=there)
        else:
            making.table(served.path, served.include[0], wish.dims, there=there)
    else:
        with making.path(folder / _LOCAL):
            qdrant_new.create_local(folder / _LOCAL, _COLLECTION, settings)
    return discover([folder])[0]


def _served(folder: Path) -> Part | None:
    """Return the collection, or the table of pgvector, in which the settings say that the points are to lie."""
    told = openmemory_servers.said(folder, folder / "api", os.environ, None)
    parts = openmemory_servers.vectors(Look(()), told, memories=None, local=True).parts
    return next((part for part in parts if part.engine in {"qdrant", "postgres"}), None)


def _is_there(served: Part, dims: int) -> bool:
    """Say whether what is to be made is there, and empty; raises `RefusedError` for anything else."""
    if served.engine == "qdrant":
        return qdrant_new.is_there(served.path, dims)
    return postgres_new.is_there(served.path, served.include[0], dims)


def _user_id(made: Record) -> str:
    return identity("user", made.user or _USER)


def _app_id(user: str, app: str) -> str:
    return identity("app", f"{user}/{app}")


def _is_safe(plain: str) -> bool:
    try:
        float(plain)
    except ValueError:
        return True
    return False

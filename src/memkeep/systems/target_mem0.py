"""Records into mem0: Qdrant's local mode in a folder, a collection of a Qdrant server, or a table of pgvector."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from memkeep.engines import postgres_new, qdrant_new, sqlite_new
from memkeep.engines.rows import Columns
from memkeep.model import Part, Role, Store, TableMap, is_url
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems import mem0, servers
from memkeep.systems.base import Known
from memkeep.systems.detect import discover
from memkeep.systems.making import Making
from memkeep.systems.target import ENDS, Outline, Wish, is_valid, no_size

name = mem0.name
names: tuple[str, ...] = (mem0.name,)
schemes: tuple[str, ...] = ("postgresql", "qdrant", "qdrants")

COLLECTION = "mem0"
TABLE = "memories"  # of the self-hosted server (POSTGRES_COLLECTION_NAME)
_PAST = "1970-01-01"
_HISTORY = """
CREATE TABLE history (
    id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, new_memory TEXT, event TEXT, created_at DATETIME,
    updated_at DATETIME, is_deleted INTEGER, actor_id TEXT, role TEXT);
CREATE TABLE messages (
    id TEXT PRIMARY KEY, session_scope TEXT, role TEXT, content TEXT, name TEXT, created_at DATETIME);
"""
heeds: tuple[str, ...] = ENDS


def hides(map_: TableMap) -> bool:  # noqa: ARG001 - the contract's signature
    """Say yes: what is past its `expiration_date` is not found."""
    return True


def of_nobody() -> str:
    """Say that they are not found: `get_all` and `search` want at least one of the three."""
    return "mem0 finds memories by one of these only"


def identity(system: str, identity: str) -> str:
    """Return a UUID: Qdrant and the table of pgvector take nothing else that a product could have."""
    return as_uuid(system, identity)


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a memory the keys that the product always writes: the hash of the text, and for its own search the text."""
    said = mem0.shape(map_).fields
    before = said["text"].removesuffix("data")
    typescript = said["created_at"].endswith("createdAt")
    text = made.text.encode("utf-8", "surrogatepass")
    filled = {f"{before}data": made.text, f"{before}hash": hashlib.md5(text, usedforsecurity=False).hexdigest()}
    filled[f"{before}{'textLemmatized' if typescript else 'text_lemmatized'}"] = made.text
    until = min(filter(None, (row.get(f"{before}expiration_date"), made.valid_until)), default=None, key=str)
    if until is not None or not is_valid(made.status):
        filled[f"{before}expiration_date"] = str(until)[:10] if is_valid(made.status) else _PAST
    return row | filled


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield nothing: the history is of what the product did."""
    return ()


def create(name: str, place: str, wish: Wish, making: Making) -> Store:  # noqa: ARG001 - the contract's signature
    """Make an empty collection or table; beside a folder's points `history.db`."""
    dims = _dims(wish)
    settings = mem0.collection_settings(dims)
    if is_url(place):
        made = outline(place, wish)
        if made.part.engine == "postgres":
            making.table(made.part.path, made.part.include[0], dims, there=made.there)
        else:
            making.collection(made.part.path, settings, there=made.there)
        return Store(system=mem0.name, path=place, root="", parts=(made.part,), records=0)
    folder = Path(place).expanduser().absolute()
    with making.path(folder / "history.db"):
        sqlite_new.create(folder / "history.db", _HISTORY)
    with making.path(folder / "qdrant"):
        qdrant_new.create_local(folder / "qdrant", COLLECTION, settings)
    store = discover([folder])[0]
    parts = tuple(
        msgspec.structs.replace(part, maps=(_map(COLLECTION, "", "vector"),)) if part.engine == "qdrant-local" else part
        for part in store.parts
    )
    return msgspec.structs.replace(store, parts=parts, records=0)


def settled(url: str) -> str:
    """Return a URL of Qdrant with mem0's usual collection where it names none."""
    pieces = urlsplit(url)
    return url if pieces.scheme.startswith("postgres") or pieces.path.strip("/") else f"{url.rstrip('/')}/{COLLECTION}"


def outline(place: str, wish: Wish) -> Outline:
    """Return the table, that of the self-hosted server unless another is named, or the collection."""
    dims = _dims(wish)
    bare, only = servers.without_tables(settled(place))
    if urlsplit(bare).scheme.startswith("postgres"):
        table = next(iter(only), f"public.{TABLE}")
        maps = (_map(table, "payload.", "vector"),)
        part = Part(name="postgres", engine="postgres", role=Role.CANONICAL, path=bare, include=(table,), maps=maps)
        columns = Columns(names=("id", "vector", "payload"), vectors={"vector": dims})
        return Outline(part, columns, there=postgres_new.is_there(bare, table, dims))
    name = unquote(urlsplit(bare).path.strip("/").rpartition("/")[2])
    part = servers.collection(bare, "qdrant", name)
    part = msgspec.structs.replace(part, maps=(_map(name, "", "vector"),))
    vectors = {"vector": dims, "vector.bm25": 0}
    return Outline(part, Columns(names=("id", *vectors), vectors=vectors), there=qdrant_new.is_there(part.path, dims))


def _dims(wish: Wish) -> int:
    if wish.dims is None:
        raise no_size(name)
    return wish.dims


def _map(table: str, before: str, vector: str) -> TableMap:
    keys = {"text": "data", "user": "user_id", "scope": "agent_id", "created_at": "created_at"}
    keys |= {"updated_at": "updated_at"}
    return TableMap(
        collection=table.rpartition(".")[2],
        table=table,
        id="id",
        fields={field: before + key for field, key in keys.items()},
        vectors=(vector,),
        times={"created_at": "iso", "updated_at": "iso"},
    )

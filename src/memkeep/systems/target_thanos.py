"""Records into Thanos: its table of pgvector. Relationships go into the `relationships.db` of its folder."""

from collections.abc import Iterable

from memkeep.engines import postgres_new
from memkeep.engines.rows import Columns
from memkeep.errors import UsageError
from memkeep.model import Part, Role, Store, TableMap, is_url
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems import servers, thanos
from memkeep.systems.base import Known
from memkeep.systems.making import Making
from memkeep.systems.target import Outline, Wish, no_size

name = thanos.name
names: tuple[str, ...] = (thanos.name,)
schemes: tuple[str, ...] = ("postgresql",)
_TABLE = "public.thanos_memories"
_TIME = "1970-01-01T00:00:00"
_NEW_HEAT = 1.0  # as the product gives a memory
heeds: tuple[str, ...] = ()


def hides(map_: TableMap) -> bool:  # noqa: ARG001 - the contract's signature
    """Say no: every memory is found."""
    return False


def identity(system: str, identity: str) -> str:
    """Return a UUID."""
    return as_uuid(system, identity)


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a memory its text, and the heat of a new one."""
    if not map_.primary:
        return row
    return {"payload.heat": _NEW_HEAT} | row | {"payload.data": made.text}


def complete_joined(row: Row, map_: TableMap) -> Row:
    """Give a relationship its times; its number is the database's to give."""
    known = row.get("created_at") or row.get("updated_at") or _TIME
    row = {"created_at": known, "updated_at": row.get("updated_at") or known} | row
    return {column: value for column, value in row.items() if column != map_.id}


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield nothing: all of a memory is in its payload."""
    return ()


def create(name: str, place: str, wish: Wish, making: Making) -> Store:  # noqa: ARG001 - the contract's signature
    """Make an empty table in a database."""
    made = outline(place, wish)
    making.table(made.part.path, _TABLE, made.columns.vectors["vector"], there=made.there)
    return Store(system=thanos.name, path=made.part.path, root="", parts=(made.part,), records=0)


def settled(url: str) -> str:
    """Return the URL: the product has one table."""
    return url


def outline(place: str, wish: Wish) -> Outline:
    """Return the table of memories."""
    if not is_url(place):
        raise UsageError(
            f"the memories of {name} lie in Postgres: {place} is a path", hint=f"memkeep migrate FROM --to {name}:URL"
        )
    if wish.dims is None:
        raise no_size(name)
    url, _ = servers.without_tables(servers.told(place)[1])
    map_ = TableMap(
        collection="memories",
        table=_TABLE,
        id="id",
        fields={"text": "payload.data", "user": "payload.user_id", "created_at": "payload.created_at"},
        vectors=("vector",),
        times={"created_at": "iso"},
    )
    part = Part(name="postgres", engine="postgres", role=Role.CANONICAL, path=url, include=(_TABLE,), maps=(map_,))
    columns = Columns(names=("id", "vector", "payload"), vectors={"vector": wish.dims})
    return Outline(part, columns, there=postgres_new.is_there(url, _TABLE, wish.dims))

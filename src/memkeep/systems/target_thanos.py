"""Records into Thanos: its table of pgvector. Relationships go into the `relationships.db` of its folder."""

from collections.abc import Iterable

from memkeep.engines import postgres_new
from memkeep.errors import UsageError
from memkeep.model import Part, Role, Store, TableMap, is_url
from memkeep.records.ids import as_uuid
from memkeep.records.record import Record
from memkeep.records.shape import Row
from memkeep.systems import servers, thanos
from memkeep.systems.base import Known
from memkeep.systems.target import Wish, is_valid, no_size

name = thanos.name
names: tuple[str, ...] = (thanos.name,)
_TABLE = "public.thanos_memories"
_NEW_HEAT = 1.0  # as the product gives a memory


def hides(made: Record) -> bool:
    """Say no: every memory is found."""
    return is_valid(made)


def identity(system: str, identity: str) -> str:
    """Return a UUID."""
    return as_uuid(system, identity)


def complete(made: Record, row: Row, map_: TableMap) -> Row:
    """Give a memory its text, and the heat of a new one."""
    if not map_.primary:
        return row
    return {"payload.heat": _NEW_HEAT} | row | {"payload.data": made.text}


def beside(made: Record, known: Known) -> Iterable[tuple[str, Row]]:  # noqa: ARG001 - the contract's signature
    """Yield nothing: all of a memory is in its payload."""
    return ()


def create(name: str, place: str, wish: Wish) -> Store:
    """Make an empty table in a database."""
    if not is_url(place):
        raise UsageError(
            f"the memories of {name} lie in Postgres: {place} is a path", hint=f"memkeep migrate FROM --to {name}:URL"
        )
    if wish.dims is None:
        raise no_size(name)
    url, _ = servers.without_tables(servers.told(place)[1])
    postgres_new.create_vectors(url, _TABLE, wish.dims)
    map_ = TableMap(
        collection="memories",
        table=_TABLE,
        id="id",
        fields={"text": "payload.data", "user": "payload.user_id", "created_at": "payload.created_at"},
        vectors=("vector",),
        times={"created_at": "iso"},
    )
    part = Part(name="postgres", engine="postgres", role=Role.CANONICAL, path=url, include=(_TABLE,), maps=(map_,))
    return Store(system=thanos.name, path=url, root="", parts=(part,), records=0)

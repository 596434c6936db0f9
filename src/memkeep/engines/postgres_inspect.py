"""A look at the tables of a Postgres database: columns, vectors, keys of JSON columns, and how many rows."""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from typing import TYPE_CHECKING

from memkeep.engines import logins
from memkeep.engines.base import ServerInspection, ServerTable
from memkeep.engines.postgres_catalogue import Relation, relations
from memkeep.engines.postgres_connect import connected
from memkeep.engines.postgres_tables import quote

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_COUNTED = 1_000_000  # rows, above which the server's own estimate does
_SAMPLE = 20
_VECTORS = frozenset({"vector", "halfvec", "sparsevec"})
_JSON = frozenset({"json", "jsonb"})


def inspect(url: str) -> ServerInspection:
    """Return what is there. Raises `StoreError`: `store_unreachable`, `store_denied` or `store_missing`."""
    bare = logins.clean(url)
    with connected(bare) as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
        found = [_table(connection, one) for one in relations(connection) if one.kind in "rp" and not one.within]
    return ServerInspection(url=bare, version=str(row[0]).split()[0] if row else "", tables=tuple(found))


def _table(connection: "Connection", relation: Relation) -> ServerTable:
    rows = connection.execute(
        """SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, a.atttypmod,
                  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary
                          AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
           FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
           WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
        [relation.oid],
    ).fetchall()
    columns: dict[str, str] = {}
    for name, type_, kind, _, _ in rows:
        columns[name] = type_
        if kind in _JSON and relation.readable:
            columns |= dict.fromkeys((f"{name}.{key}" for key in _keys(connection, relation, name)), "json")
    return ServerTable(
        name=relation.full,
        columns=columns,
        vectors={row[0]: max(0, row[3]) for row in rows if row[2] in _VECTORS},
        key=next((row[0] for row in rows if row[4]), ""),
        rows=_rows(connection, relation) if relation.readable else None,
    )


def _keys(connection: "Connection", relation: Relation, column: str) -> list[str]:
    """Return the keys of a JSON column, of the first rows that there are."""
    name = quote(column)
    rows = connection.execute(
        f"""SELECT DISTINCT k FROM (SELECT {name}::jsonb AS j FROM {relation.source} WHERE {name} IS NOT NULL
                                    LIMIT {_SAMPLE}) s, jsonb_object_keys(CASE jsonb_typeof(j) WHEN 'object' THEN j
                                                                          ELSE '{{}}' END) k ORDER BY k"""
    ).fetchall()
    return [row[0] for row in rows]


def _rows(connection: "Connection", relation: Relation) -> int:
    row = connection.execute("SELECT reltuples::int8 FROM pg_class WHERE oid = %s", [relation.oid]).fetchone()
    if row and row[0] > _COUNTED:
        return int(row[0])
    row = connection.execute(f"SELECT count(*) FROM {relation.source}").fetchone()
    return int(row[0]) if row else 0

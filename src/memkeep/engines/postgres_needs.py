"""What tables need that somebody made besides types: functions, collations; and what needs the tables.

A function is taken when a default, a check, an index, a trigger, a policy or a rule of a table names it. What its body
calls only the server knows when it runs it.
"""
# ruff: noqa: S608 - only constants, and names that `postgres_tables.quote` quotes

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.postgres_tables import Function, Table, quote, text

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_OWN = 16384  # objects below that are the server's own
_PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}
# What of some tables (numbers, %(tables)s) may name functions and collations; `early`: their rows can't do without it.
_PARTS = """parts AS (
    SELECT 'pg_class'::regclass AS of, c AS id, true AS early FROM unnest(%(tables)s::oid[]) c
    UNION SELECT 'pg_class'::regclass, indexrelid, true FROM pg_index WHERE indrelid = ANY(%(tables)s)
    UNION SELECT 'pg_attrdef'::regclass, oid, true FROM pg_attrdef WHERE adrelid = ANY(%(tables)s)
    UNION SELECT 'pg_constraint'::regclass, oid, true FROM pg_constraint WHERE conrelid = ANY(%(tables)s)
    UNION SELECT 'pg_trigger'::regclass, oid, false FROM pg_trigger WHERE tgrelid = ANY(%(tables)s) AND NOT tgisinternal
    UNION SELECT 'pg_policy'::regclass, oid, false FROM pg_policy WHERE polrelid = ANY(%(tables)s)
    UNION SELECT 'pg_rewrite'::regclass, oid, false FROM pg_rewrite WHERE ev_class = ANY(%(tables)s)
    UNION SELECT 'pg_type'::regclass, t, true FROM unnest(%(types)s::oid[]) t)"""
_OF_EXTENSION = "SELECT FROM pg_depend e WHERE e.classid = {0}::regclass AND e.objid = {1} AND e.deptype = 'e'"


class Functions(NamedTuple):
    """The functions that tables name, in the order of making, and the schemas and types that they need."""

    made: tuple[Function, ...]
    schemas: set[str]
    types: set[int]


def collect_functions(connection: "Connection", tables: list[int]) -> Functions:
    """Return what makes the functions that some tables name, and those that are named by these."""
    rows = connection.execute(
        f"""WITH RECURSIVE {_PARTS}, needed AS (
              SELECT d.refobjid AS id, parts.early, 0 AS depth FROM parts JOIN pg_depend d ON d.classid = parts.of
                AND d.objid = parts.id AND d.refclassid = 'pg_proc'::regclass
              UNION SELECT d.refobjid, needed.early, depth + 1 FROM needed JOIN pg_depend d ON d.objid = needed.id
                AND d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass WHERE depth < 20)
            SELECT n.nspname, format('%%I.%%I(%%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)),
                   pg_get_functiondef(p.oid), bool_or(needed.early), EXISTS (
                     SELECT FROM pg_depend d JOIN pg_type t ON t.oid = d.refobjid
                     LEFT JOIN pg_type e ON e.oid = t.typelem
                     WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_type'::regclass
                       AND coalesce(nullif(t.typrelid, 0), e.typrelid) = ANY(%(tables)s)),
                   array(SELECT d.refobjid FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                         AND d.refclassid = 'pg_type'::regclass)
            FROM needed JOIN pg_proc p ON p.oid = needed.id JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE p.oid >= %(own)s AND p.prokind IN ('f', 'p')
              AND NOT EXISTS ({_OF_EXTENSION.format("'pg_proc'", "p.oid")})
            GROUP BY n.nspname, p.proname, p.proargtypes, p.oid ORDER BY max(depth) DESC, 2""",
        {"tables": tables, "types": [], "own": _OWN},
    ).fetchall()
    found = []
    for _, name, statement, early, late, _ in rows:
        create = statement.replace("CREATE OR REPLACE ", "CREATE ", 1).rstrip()
        found.append(Function(name=name, create=create, when="last" if not early else "rows" if late else "before"))
    return Functions(tuple(found), {row[0] for row in rows}, {oid for row in rows for oid in row[5]})


def collect_collations(
    connection: "Connection", tables: list[int], types: list[int]
) -> tuple[dict[str, str], set[str]]:
    """Return what makes the collations that some tables and types name, by name, and their schemas."""
    rows = connection.execute(
        f"""WITH {_PARTS} SELECT DISTINCT n.nspname, format('%%I.%%I', n.nspname, c.collname), to_jsonb(c)
            FROM parts JOIN pg_depend d ON d.classid = parts.of AND d.objid = parts.id
              AND d.refclassid = 'pg_collation'::regclass
            JOIN pg_collation c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.collnamespace
            WHERE c.oid >= %(own)s AND NOT EXISTS ({_OF_EXTENSION.format("'pg_collation'", "c.oid")}) ORDER BY 2""",
        {"tables": tables, "types": types, "own": _OWN},
    ).fetchall()
    return {name: _collation(name, one) for _, name, one in rows}, {row[0] for row in rows}


def needing(connection: "Connection", tables: list[int]) -> list[tuple[str, str]]:
    """Return, by the full name of a table, what is left out although it is made of it: views, and functions."""
    rows = connection.execute(
        f"""WITH {_PARTS}
            SELECT DISTINCT n.nspname || '.' || c.relname,
                   CASE v.relkind WHEN 'm' THEN 'a materialized view' ELSE 'a view' END, v.oid::regclass::text
            FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
            JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm') JOIN pg_class c ON c.oid = d.refobjid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY(%(tables)s)
            UNION
            SELECT n.nspname || '.' || c.relname, 'a function', p.oid::regprocedure::text
            FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
            JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
            LEFT JOIN pg_type e ON e.oid = t.typelem
            JOIN pg_class c ON c.oid = coalesce(nullif(t.typrelid, 0), e.typrelid) AND c.oid = ANY(%(tables)s)
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE NOT EXISTS (SELECT FROM parts JOIN pg_depend u ON u.classid = parts.of AND u.objid = parts.id
                              AND u.refclassid = 'pg_proc'::regclass AND u.refobjid = p.oid)
            ORDER BY 1, 3""",
        {"tables": tables, "types": []},
    ).fetchall()
    return [(table, f"{name}, {what} over it") for table, what, name in rows]


def large_objects(connection: "Connection", tables: Iterable[Table]) -> list[tuple[str, str]]:
    """Return the columns that name large objects, and how many."""
    if connection.execute("SELECT FROM pg_largeobject_metadata LIMIT 1").fetchone() is None:
        return []
    found = []
    for table in (one for one in tables if not one.within):
        for column in (one for one in table.columns if one.kind == "oid"):
            row = connection.execute(
                f"SELECT count(DISTINCT m.oid) FROM {table.source} t JOIN pg_largeobject_metadata m "
                f"ON m.oid = t.{quote(column.name)}::oid"
            ).fetchone()
            if row and row[0]:
                said = f"it names {row[0]} large object{'s' if row[0] > 1 else ''} that no table has"
                found.append((f"{table.full}.{column.name}", said))
    return found


def _collation(name: str, row: dict[str, Any]) -> str:
    """Return the statement that makes a collation, from its row in the catalogue of any version."""
    words = [f"PROVIDER = {_PROVIDERS.get(row['collprovider'], 'libc')}"]
    locale = row.get("colllocale") or row.get("colliculocale")
    if locale is not None:
        words.append(f"LOCALE = {text(locale)}")
    else:
        words += [
            f"{key} = {text(row[place])}" for key, place in (("LC_COLLATE", "collcollate"), ("LC_CTYPE", "collctype"))
        ]
    words += ["DETERMINISTIC = false"] if not row["collisdeterministic"] else []
    words += [f"RULES = {text(row['collicurules'])}"] if row.get("collicurules") else []
    return f"CREATE COLLATION {name} ({', '.join(words)})"

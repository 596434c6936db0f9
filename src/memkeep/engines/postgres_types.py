"""The types of columns: which are read in binary form, and the statements that make those that somebody defined.

The binary form of arrays and of rows names the types in them by numbers; those of the server's own types are the same
everywhere, others only in that database. Such columns are taken as text, and so are names of objects (`regclass`),
which are such numbers, and types that have no binary form.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.postgres_tables import quote, text

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

_OWN = 16384  # objects below that are the server's own, and the same in every database


class Types(NamedTuple):
    """What the types of some tables need."""

    statements: dict[str, str]  # name as SQL writes it -> statement, in the order of making
    extensions: set[str]
    schemas: set[str]  # of the statements
    oids: list[int]  # of the types that they make


class _Type(NamedTuple):
    oid: int
    name: str  # bare
    schema: str
    sql: str
    kind: str  # b, c (row), d (domain), e (enum), r (range), m (multirange)
    category: str
    element: int
    base: int
    relation: int
    portable: bool  # has a binary form, and is no name of an object
    extension: str | None
    of_table: bool  # of its rows: the table makes it


def kinds_of(connection: "Connection", oids: Iterable[int]) -> dict[int, tuple[str, bool]]:
    """Return, by type, its bare name (of a domain that of its base), and whether its binary form fits any database."""
    known = _closure(connection, oids)
    return {oid: (_base(known, oid).name, _portable(known, oid)) for oid in oids}


def collect_types(connection: "Connection", tables: list[int], more: set[int]) -> Types:
    """Return what makes the types of the columns of some tables, and some more."""
    rows = connection.execute(
        "SELECT DISTINCT atttypid FROM pg_attribute WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped",
        [tables],
    ).fetchall()
    known = _closure(connection, {*more, *(row[0] for row in rows)})
    statements: dict[str, str] = {}
    made: list[_Type] = []
    done: set[int] = set()

    def visit(oid: int) -> None:
        if oid in done or oid not in known:
            return
        done.add(oid)
        one = known[oid]
        for other in _needs(connection, one):
            visit(other)
        if (
            one.oid >= _OWN
            and one.extension is None
            and one.kind in "cder"
            and not one.of_table
            and one.category != "A"
        ):
            statements[one.sql] = make(connection, one.oid)
            made.append(one)

    for oid in sorted(known):
        visit(oid)
    extensions = {one.extension for one in known.values() if one.extension is not None}
    return Types(statements, extensions, {one.schema for one in made}, [one.oid for one in made])


def make(connection: "Connection", oid: int) -> str:
    """Return the statement that makes a type that somebody defined."""
    kind, name, base, default, filled, relation, collation = connection.execute(
        """SELECT t.typtype::text, quote_ident(n.nspname) || '.' || quote_ident(t.typname),
                  format_type(t.typbasetype, t.typtypmod), t.typdefault, t.typnotnull, t.typrelid,
                  CASE WHEN t.typcollation <> b.typcollation THEN t.typcollation::regcollation::text END
           FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type b ON b.oid = t.typbasetype
           WHERE t.oid = %s""",
        [oid],
    ).fetchone() or ("", "", "", None, False, 0, None)
    if kind == "e":
        rows = connection.execute(
            "SELECT enumlabel FROM pg_enum WHERE enumtypid = %s ORDER BY enumsortorder", [oid]
        ).fetchall()
        return f"CREATE TYPE {name} AS ENUM ({', '.join(text(row[0]) for row in rows)})"
    if kind == "d":
        checks = connection.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = %s AND contype = 'c' "
            "ORDER BY conname",
            [oid],
        ).fetchall()
        words = [f"CREATE DOMAIN {name} AS {base}"]
        words += [f"COLLATE {collation}"] if collation else []
        words += [f"DEFAULT {default}"] if default is not None else []
        words += ["NOT NULL"] if filled else []
        return " ".join([*words, *(f"CONSTRAINT {quote(check)} {said}" for check, said in checks)])
    if kind == "r":
        return f"CREATE TYPE {name} AS RANGE ({_range(connection, oid)})"
    fields = connection.execute(
        """SELECT quote_ident(attname) || ' ' || format_type(atttypid, atttypmod)
                  || CASE WHEN attcollation <> typcollation THEN ' COLLATE ' || attcollation::regcollation ELSE '' END
           FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
           WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
        [relation],
    ).fetchall()
    return f"CREATE TYPE {name} AS ({', '.join(field for (field,) in fields)})"


def _range(connection: "Connection", oid: int) -> str:
    """Return what a range is made of; functions that somebody made for it, of which it works without, are left out."""
    row = connection.execute(
        """SELECT format_type(r.rngsubtype, NULL), quote_ident(n.nspname) || '.' || quote_ident(m.typname),
                  CASE WHEN NOT c.opcdefault THEN quote_ident(o.nspname) || '.' || quote_ident(c.opcname) END,
                  CASE WHEN r.rngcollation <> s.typcollation THEN r.rngcollation::regcollation::text END,
                  CASE WHEN r.rngsubdiff::oid BETWEEN 1 AND %s - 1 THEN r.rngsubdiff::regproc::text END
           FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype JOIN pg_opclass c ON c.oid = r.rngsubopc
           JOIN pg_namespace o ON o.oid = c.opcnamespace JOIN pg_type m ON m.oid = r.rngmultitypid
           JOIN pg_namespace n ON n.oid = m.typnamespace WHERE r.rngtypid = %s""",
        [_OWN, oid],
    ).fetchone() or ("", None, None, None, None)
    names = ("SUBTYPE", "MULTIRANGE_TYPE_NAME", "SUBTYPE_OPCLASS", "COLLATION", "SUBTYPE_DIFF")
    return ", ".join(f"{name} = {value}" for name, value in zip(names, row, strict=True) if value is not None)


def _needs(connection: "Connection", one: _Type) -> list[int]:
    """Return the types that a type is made of."""
    found = [oid for oid in (one.element, one.base) if oid]
    if one.kind == "c":
        rows = connection.execute(
            "SELECT atttypid FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped", [one.relation]
        ).fetchall()
        found += [row[0] for row in rows]
    if one.kind in "rm":
        rows = connection.execute(
            """SELECT CASE WHEN rngtypid = %s THEN rngsubtype ELSE rngtypid END FROM pg_range
               WHERE rngtypid = %s OR rngmultitypid = %s""",
            [one.oid, one.oid, one.oid],
        ).fetchall()
        found += [row[0] for row in rows]
    return found


def _closure(connection: "Connection", oids: Iterable[int]) -> dict[int, _Type]:
    known: dict[int, _Type] = {}
    asked = set(oids)
    while asked:
        rows: list[tuple[Any, ...]] = connection.execute(
            """SELECT t.oid, t.typname, n.nspname, format('%%I.%%I', n.nspname, t.typname), t.typtype::text,
                      t.typcategory::text, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, t.typbasetype,
                      t.typrelid, t.typsend <> 0 AND t.typreceive <> 0 AND t.typname !~ '^(reg[a-z]+|aclitem|tsquery)$',
                      (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                       WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'),
                      EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
               FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY(%s)""",
            [sorted(asked)],
        ).fetchall()
        found = {row[0]: _Type(*row) for row in rows}
        known |= found
        asked = {oid for one in found.values() for oid in _needs(connection, one)} - known.keys()
    return known


def _base(known: dict[int, _Type], oid: int) -> _Type:
    while known[oid].base:
        oid = known[oid].base
    return known[oid]


def _portable(known: dict[int, _Type], oid: int) -> bool:
    """Say whether a type's binary form holds no number that only its database knows."""
    one = _base(known, oid)
    if one.kind == "c" or not one.portable:
        return False
    if one.category == "A":
        return one.element < _OWN and _portable(known, one.element)
    return True

"""What the catalogue of a server says of some tables, and the statements that make them again.

Read with the schemas of extensions as the search path, so that their types and operators are written without a
schema: in another server they may lie in another one. Everything else is written with its schema.
"""
# ruff: noqa: S608 - only names of the catalogue itself, and options that are constants

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.postgres_extras import extras
from memkeep.engines.postgres_needs import collect_collations, collect_functions, needing
from memkeep.engines.postgres_tables import Column, Extension, Function, Sequence, Table, file_name, quote, text
from memkeep.engines.postgres_types import collect_types, kinds_of

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection

PATH = "coalesce(string_agg(DISTINCT quote_ident(n.nspname), ', '), '')"
_VECTORS = frozenset({"vector", "halfvec"})
# So an index of a partitioned table is written; made like that, no partition would have it.
_ONLY = re.compile(r'^(CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")+"|\w+) ON )ONLY ')
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_HIDDEN = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"


class Relation(NamedTuple):
    """A table, or what is like one, as the catalogue lists it."""

    oid: int
    schema: str
    name: str
    kind: str  # r: a table, p: a partitioned one; others are left out
    readable: bool
    filtered: bool  # row-level security would hide rows from this role
    root: int = 0  # of a partitioned table and its partitions: the table that has no other above it
    whole: bool = False  # all partitions below the root are tables, so that it gives their rows, and takes them

    @property
    def full(self) -> str:
        """The name by which maps and `include` know it."""
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """The name as SQL writes it."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def within(self) -> bool:
        """Say whether its rows are those of another table."""
        return self.whole and self.root != self.oid

    @property
    def source(self) -> str:
        """What SQL reads its rows from."""
        return self.sql if self.whole and not self.within else f"ONLY {self.sql}"

    @property
    def what(self) -> str:
        """Say what it is when it is no table, else nothing."""
        return _KINDS.get(self.kind, "")


def relations(connection: "Connection") -> list[Relation]:
    """Return the tables of a database, and its views, without those of extensions and of the server itself."""
    rows = connection.execute(
        f"""SELECT c.oid, n.nspname, c.relname, c.relkind::text, has_table_privilege(c.oid, 'SELECT')
                   AND has_schema_privilege(n.oid, 'USAGE'), row_security_active(c.oid),
                   coalesce(pg_partition_root(c.oid)::oid, 0::oid)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND {_HIDDEN}
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                              AND d.deptype = 'e')
            ORDER BY n.nspname, c.relname"""
    ).fetchall()
    found = [Relation(*row) for row in rows]
    broken = {one.root for one in found if one.kind not in "rp"}
    return [one._replace(whole=one.root != 0 and one.root not in broken) for one in found]


def spelled(connection: "Connection", full: str) -> str:
    """Return a table's name as SQL writes it; a schema may have dots in its name."""
    row = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname || '.' || c.relname = %s",
        [full],
    ).fetchone()
    schema, name = row or (full.partition(".")[0], full.partition(".")[2])
    return f"{quote(schema)}.{quote(name)}"


def search_extensions(connection: "Connection") -> None:
    """Let the schemas of the database's extensions be the search path of this transaction."""
    connection.execute(
        f"SELECT set_config('search_path', {PATH}, true) FROM pg_extension e JOIN pg_namespace n "
        "ON n.oid = e.extnamespace WHERE n.nspname <> 'pg_catalog'"
    )


def find_extensions(connection: "Connection") -> None:
    """Let this transaction find what extensions have after all that it finds anyway: triggers may rely on that."""
    connection.execute(
        "SELECT set_config('search_path', "
        f"concat_ws(', ', nullif(current_setting('search_path'), ''), nullif({PATH}, '')), true) "
        "FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE n.nspname <> 'pg_catalog'"
    )


class Catalogue(NamedTuple):
    """What is known of the tables, before a row is read."""

    extensions: dict[str, Extension]
    types: dict[str, str]
    collations: dict[str, str]
    functions: tuple[Function, ...]
    schemas: set[str]  # of all of these, and of sequences
    sequences: tuple[Sequence, ...]
    tables: tuple[Table, ...]  # parents before their children; `rows` and `segments` are not known yet
    notes: tuple[tuple[str, str], ...]  # the full name of a table, and what of it is left out


def describe(connection: "Connection", wanted: list[Relation]) -> Catalogue:
    """Return all that makes the tables, as the present transaction sees it."""
    oids = [relation.oid for relation in wanted]
    functions = collect_functions(connection, oids)
    types = collect_types(connection, oids, functions.types)
    extensions = _extensions(connection, oids, types.extensions)
    sequences, schemas, notes = _sequences(connection, oids)
    collations, more = collect_collations(connection, oids, types.oids)
    notes += needing(connection, oids)
    names = {relation.oid: relation.full for relation in wanted}
    tables = []
    shapes: dict[int, list[str]] = {}
    for relation in _parents_first(connection, wanted):
        columns, definitions, shapes[relation.oid] = _columns(connection, relation)
        create = _create(connection, relation, definitions, shapes)
        finish, links, left = _constraints(connection, relation, oids)
        notes += [(relation.full, f"{name}, a foreign key to a table that is not taken") for name in left]
        indexes, broken = _indexes(connection, relation)
        notes += [(relation.full, f"{name}, an index that its server calls invalid") for name in broken]
        tables.append(
            Table(
                schema=relation.schema,
                name=relation.name,
                folder=file_name(relation.full),
                columns=columns,
                rows=0,
                key=_key(connection, relation),
                create=create,
                finish=tuple(finish),
                links=tuple(links),
                extras=tuple(extras(connection, relation)),
                indexes=tuple(indexes),
                whole=relation.whole and not relation.within,
                within=names[relation.root] if relation.within else "",
            )
        )
    schemas |= types.schemas | functions.schemas | more
    return Catalogue(
        extensions, types.statements, collations, functions.made, schemas, sequences, tuple(tables), tuple(notes)
    )


def _parents_first(connection: "Connection", wanted: list[Relation]) -> list[Relation]:
    parents: dict[int, list[int]] = {}
    for child, parent in connection.execute(
        "SELECT inhrelid, inhparent FROM pg_inherits WHERE inhrelid = ANY(%s)", [[one.oid for one in wanted]]
    ).fetchall():
        parents.setdefault(child, []).append(parent)

    def depth(oid: int) -> int:
        return 1 + max((depth(parent) for parent in parents.get(oid, ())), default=-1)

    return sorted(wanted, key=lambda one: depth(one.oid))


def columns_of(connection: "Connection", relation: Relation) -> tuple[Column, ...]:
    """Return the columns of a table that have values of their own."""
    return _columns(connection, relation)[0]


def _columns(connection: "Connection", relation: Relation) -> tuple[tuple[Column, ...], list[str], list[str]]:
    """Return the columns that have values of their own, the definitions of all that are not inherited, and of all.

    The last are without identities, which partitions have from their table.
    """
    rows = connection.execute(
        """SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull AND NOT EXISTS (
                    SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                    AND NOT k.convalidated AND a.attnum = ANY(k.conkey)), a.attidentity::text,
                  a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid), a.attislocal,
                  CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END
           FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
        [relation.oid],
    ).fetchall()
    kinds = kinds_of(connection, [row[2] for row in rows])
    columns, definitions, shape = [], [], []
    for name, type_, oid, filled, identity, generated, default, local, collation in rows:
        if not generated:
            kind, portable = kinds[oid]
            form = "vector" if kind in _VECTORS else "binary" if portable else "text"
            columns.append(Column(name=name, type=type_, kind=kind, form=form))  # type: ignore[arg-type]
        words = [quote(name), type_]
        words += [f"COLLATE {collation}"] if collation else []
        if generated:
            words.append(f"GENERATED ALWAYS AS ({default}) {'STORED' if generated == 's' else 'VIRTUAL'}")
        elif default is not None:
            words.append(f"DEFAULT {default}")
        end = ["NOT NULL"] if filled else []
        shape.append(" ".join([*words, *end]))
        if local:
            words += [_identity(connection, relation, name, identity)] if identity else []
            definitions.append(" ".join([*words, *end]))
    return tuple(columns), definitions, shape


def _identity(connection: "Connection", relation: Relation, column: str, identity: str) -> str:
    row = connection.execute(
        """SELECT n.nspname, c.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
           FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE s.seqrelid = pg_get_serial_sequence(%s, %s)::regclass""",
        [relation.sql, column],
    ).fetchone()
    when = "ALWAYS" if identity == "a" else "BY DEFAULT"
    if row is None:
        return f"GENERATED {when} AS IDENTITY"
    return f"GENERATED {when} AS IDENTITY (SEQUENCE NAME {quote(row[0])}.{quote(row[1])} {_steps(row[2:])})"


def _steps(row: Any) -> str:
    start, step, least, most, cache, cycle = row
    words = f"START WITH {start} INCREMENT BY {step} MINVALUE {least} MAXVALUE {most} CACHE {cache}"
    return f"{words} CYCLE" if cycle else words


def _create(
    connection: "Connection", relation: Relation, definitions: list[str], shapes: dict[int, list[str]]
) -> tuple[str, ...]:
    """Return what makes a table; a partition with columns unlike those of its table is made by itself at first."""
    row = connection.execute(
        """SELECT c.relpersistence = 'u', c.relispartition, pg_get_partkeydef(c.oid),
                  pg_get_expr(c.relpartbound, c.oid),
                  (SELECT array_agg(quote_ident(n.nspname) || '.' || quote_ident(p.relname) ORDER BY i.inhseqno)
                   FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n
                   ON n.oid = p.relnamespace WHERE i.inhrelid = c.oid),
                  array_to_string(c.reloptions, ', '),
                  (SELECT min(inhparent::int8) FROM pg_inherits WHERE inhrelid = c.oid)
           FROM pg_class c WHERE c.oid = %s""",
        [relation.oid],
    ).fetchone()
    unlogged, partition, by, bounds, parents, options, parent = row or (False, False, *[None] * 5)
    own = shapes[relation.oid]
    alike = partition and shapes.get(parent, own) == own
    words = [f"CREATE {'UNLOGGED ' if unlogged else ''}TABLE {relation.sql}"]
    if alike:
        words.append(f"PARTITION OF {parents[0]} {bounds}")
    else:
        told = own if partition else definitions
        words.append("(\n  " + ",\n  ".join(told) + "\n)" if told else "()")
        words += [f"INHERITS ({', '.join(parents)})"] if parents and not partition else []
    words += [f"PARTITION BY {by}"] if by else []
    words += [f"WITH ({options})"] if options else []
    made = " ".join(words)
    if partition and not alike:
        return made, f"ALTER TABLE {parents[0]} ATTACH PARTITION {relation.sql} {bounds}"
    return (made,)


def _key(connection: "Connection", relation: Relation) -> tuple[str, ...]:
    rows = connection.execute(
        """SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
           WHERE i.indrelid = %s AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place""",
        [relation.oid],
    ).fetchall()
    return tuple(row[0] for row in rows)


def _constraints(
    connection: "Connection", relation: Relation, oids: list[int]
) -> tuple[list[str], list[str], list[str]]:
    """Return the keys and checks, the foreign keys, and the names of those that lead to tables elsewhere."""
    rows = connection.execute(
        """SELECT conname, contype::text, pg_get_constraintdef(oid), confrelid FROM pg_constraint
           WHERE conrelid = %s AND contype IN ('p', 'u', 'x', 'c', 'f', 'n') AND conislocal AND conparentid = 0
             AND (contype <> 'n' OR NOT convalidated)  -- the others are of the columns
           ORDER BY position(contype::text IN 'puxcnf'), conname""",
        [relation.oid],
    ).fetchall()
    finish, links, left = [], [], []
    for name, type_, definition, other in rows:
        statement = f"ALTER TABLE ONLY {relation.sql} ADD CONSTRAINT {quote(name)} {definition}"
        if type_ in "cnf":  # of a parent, also of its children
            statement = statement.replace("ALTER TABLE ONLY", "ALTER TABLE", 1)
        if relation.kind == "p":
            statement = statement.replace("ALTER TABLE ONLY", "ALTER TABLE", 1)
        if type_ == "f" and other not in oids:
            left.append(name)
        elif type_ == "f":
            links.append(statement)
        else:
            finish.append(statement)
    return finish, links, left


def _indexes(connection: "Connection", relation: Relation) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the indexes that no constraint makes, with the extension that each needs, and those that are invalid."""
    rows = connection.execute(
        """SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid OR c.relkind = 'I', coalesce((
               SELECT min(e.extname) FROM pg_depend d JOIN pg_depend m ON m.classid = d.refclassid
               AND m.objid = d.refobjid AND m.deptype = 'e' JOIN pg_extension e ON e.oid = m.refobjid
               WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid), '')
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           WHERE i.indrelid = %s AND NOT c.relispartition AND NOT EXISTS (
               SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
           ORDER BY c.relname""",
        [relation.oid],
    ).fetchall()
    made = [(_ONLY.sub(r"\1", row[1]), row[3]) for row in rows if row[2]]
    return made, [row[0] for row in rows if not row[2]]


def _sequences(
    connection: "Connection", oids: list[int]
) -> tuple[tuple[Sequence, ...], set[str], list[tuple[str, str]]]:
    """Return the sequences that columns own or draw from, their schemas, and those that this role may not see."""
    rows = connection.execute(
        """WITH used AS (
             SELECT objid AS seq, refobjid AS rel, refobjsubid AS att, deptype::text AS how FROM pg_depend
             WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = ANY(%s)
               AND refobjsubid > 0 AND deptype IN ('a', 'i')
             UNION ALL
             SELECT d.refobjid, a.adrelid, a.adnum, 'n' FROM pg_attrdef a JOIN pg_depend d
             ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid AND d.refclassid = 'pg_class'::regclass
             WHERE a.adrelid = ANY(%s))
           SELECT DISTINCT ON (s.seqrelid) n.nspname, c.relname, tn.nspname, t.relname, a.attname, u.how,
                  format_type(s.seqtypid, NULL), has_sequence_privilege(s.seqrelid, 'SELECT'),
                  s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
           FROM used u JOIN pg_sequence s ON s.seqrelid = u.seq JOIN pg_class c ON c.oid = s.seqrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class t ON t.oid = u.rel
           JOIN pg_namespace tn ON tn.oid = t.relnamespace
           JOIN pg_attribute a ON a.attrelid = u.rel AND a.attnum = u.att
           ORDER BY s.seqrelid, u.how""",
        [oids, oids],
    ).fetchall()
    found, notes = [], []
    for schema, name, table_schema, table, column, how, type_, seen, *steps in rows:
        sequence = f"{quote(schema)}.{quote(name)}"
        of = f"{quote(table_schema)}.{quote(table)}"
        finish = [f"ALTER SEQUENCE {sequence} OWNED BY {of}.{quote(column)}"] if how == "a" else []
        if seen:
            last, called = connection.execute(f"SELECT last_value, is_called FROM {sequence}").fetchone() or (1, False)
            finish.append(f"SELECT setval({text(sequence)}, {last}, {str(called).lower()})")
        else:
            finish.append(
                f"SELECT setval({text(sequence)}, max({quote(column)})) FROM {of} "
                f"HAVING max({quote(column)}) IS NOT NULL"
            )
            notes.append((f"{table_schema}.{table}", f"where {name} stands, which this role may not see"))
        create = "" if how == "i" else f"CREATE SEQUENCE {sequence} AS {type_} {_steps(steps)}"
        found.append(Sequence(name=sequence, create=create, finish=tuple(finish)))
    return tuple(found), {row[0] for row in rows}, notes


def _extensions(connection: "Connection", oids: list[int], of_types: set[str]) -> dict[str, Extension]:
    """Return the extensions that types, defaults and checks belong to; those of indexes are noted with them."""
    rows = connection.execute(
        """SELECT e.extname, e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
           WHERE e.extname = ANY(%s) OR e.oid IN (
             SELECT m.refobjid FROM pg_depend d JOIN pg_depend m
             ON m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e'
             WHERE (d.classid = 'pg_attrdef'::regclass
                    AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = ANY(%s)))
                OR (d.classid = 'pg_constraint'::regclass
                    AND d.objid IN (SELECT oid FROM pg_constraint WHERE conrelid = ANY(%s))))
           ORDER BY e.extname""",
        [sorted(of_types), oids, oids],
    ).fetchall()
    return {name: Extension(version=version, schema=schema) for name, version, schema in rows}

"""What a table works without: comments, statistics, triggers, rules, row-level security, how its values are stored."""

from typing import TYPE_CHECKING

from memkeep.engines.postgres_tables import quote, text

if TYPE_CHECKING:
    from memkeep.engines.postgres_catalogue import Relation
    from memkeep.engines.postgres_connect import Connection

_STORAGE = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
_COMPRESSION = {"p": "pglz", "l": "lz4"}
_STATES = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
_IDENTITIES = {"f": "FULL", "n": "NOTHING"}


def extras(connection: "Connection", relation: "Relation") -> list[str]:
    """Return the statements, those after which nothing else can be made last."""
    return [
        *_columns(connection, relation),
        *_comments(connection, relation),
        *_order(connection, relation),
        *_triggers(connection, relation),
        *_policies(connection, relation),
        *_later_comments(connection, relation),
    ]


def _columns(connection: "Connection", relation: "Relation") -> list[str]:
    found = []
    for name, storage, compression, target, options in connection.execute(
        """SELECT a.attname, CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text ELSE '' END,
                  a.attcompression::text, nullif(a.attstattarget, -1), array_to_string(a.attoptions, ', ')
           FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
           WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
        [relation.oid],
    ).fetchall():
        alter = f"ALTER TABLE ONLY {relation.sql} ALTER COLUMN {quote(name)} SET"
        found += [f"{alter} STORAGE {_STORAGE[storage]}"] if storage in _STORAGE else []
        found += [f"{alter} COMPRESSION {_COMPRESSION[compression]}"] if compression in _COMPRESSION else []
        found += [f"{alter} STATISTICS {target}"] if target is not None else []
        found += [f"{alter} ({options})"] if options else []
    return found


def _comments(connection: "Connection", relation: "Relation") -> list[str]:
    return [
        f"COMMENT ON {'COLUMN' if column else 'TABLE'} {relation.sql}{'.' + quote(column) if column else ''} "
        f"IS {text(said)}"
        for column, said in connection.execute(
            """SELECT a.attname, d.description FROM pg_description d
               LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
               WHERE d.classoid = 'pg_class'::regclass AND d.objoid = %s ORDER BY d.objsubid""",
            [relation.oid],
        ).fetchall()
    ]


def _order(connection: "Connection", relation: "Relation") -> list[str]:
    """Return what says how rows are identified and clustered, and which statistics are kept of them."""
    found = []
    for name, clustered, replicated in connection.execute(
        """SELECT c.relname, i.indisclustered, i.indisreplident FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           WHERE i.indrelid = %s AND (i.indisclustered OR i.indisreplident) ORDER BY 1""",
        [relation.oid],
    ).fetchall():
        found += [f"ALTER TABLE {relation.sql} CLUSTER ON {quote(name)}"] if clustered else []
        found += [f"ALTER TABLE ONLY {relation.sql} REPLICA IDENTITY USING INDEX {quote(name)}"] if replicated else []
    row = connection.execute("SELECT relreplident::text FROM pg_class WHERE oid = %s", [relation.oid]).fetchone()
    if row and row[0] in _IDENTITIES:
        found.append(f"ALTER TABLE ONLY {relation.sql} REPLICA IDENTITY {_IDENTITIES[row[0]]}")
    return found + [
        said[0]
        for said in connection.execute(
            "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid = %s ORDER BY stxname",
            [relation.oid],
        ).fetchall()
    ]


def _triggers(connection: "Connection", relation: "Relation") -> list[str]:
    found = []
    for what, name, made, state in connection.execute(
        """SELECT 'TRIGGER', tgname, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger
           WHERE tgrelid = %s AND NOT tgisinternal AND tgparentid = 0
           UNION ALL SELECT 'RULE', rulename, rtrim(pg_get_ruledef(oid), ';'), ev_enabled::text FROM pg_rewrite
           WHERE ev_class = %s AND rulename <> '_RETURN' ORDER BY 1 DESC, 2""",
        [relation.oid, relation.oid],
    ).fetchall():
        found.append(made)
        found += [f"ALTER TABLE {relation.sql} {_STATES[state]} {what} {quote(name)}"] if state in _STATES else []
    return found


def _policies(connection: "Connection", relation: "Relation") -> list[str]:
    found = []
    for name, loose, command, roles, using, check in connection.execute(
        """SELECT policyname, permissive, cmd, array_to_string(array(SELECT CASE r WHEN 'public' THEN 'public'
                  ELSE quote_ident(r) END FROM unnest(roles) r), ', '), qual, with_check
           FROM pg_policies WHERE schemaname = %s AND tablename = %s ORDER BY policyname""",
        [relation.schema, relation.name],
    ).fetchall():
        words = f"CREATE POLICY {quote(name)} ON {relation.sql} AS {loose} FOR {command} TO {roles}"
        words += f" USING ({using})" if using else ""
        found.append(words + (f" WITH CHECK ({check})" if check else ""))
    row = connection.execute(
        "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s", [relation.oid]
    ).fetchone() or (False, False)
    found += [f"ALTER TABLE {relation.sql} ENABLE ROW LEVEL SECURITY"] if row[0] else []
    found += [f"ALTER TABLE {relation.sql} FORCE ROW LEVEL SECURITY"] if row[1] else []
    return found


def _later_comments(connection: "Connection", relation: "Relation") -> list[str]:
    """Return the comments on what belongs to a table."""
    return [
        f"COMMENT ON {'CONSTRAINT' if what == 'table constraint' else what.upper()} {name} IS {text(said)}"
        for what, name, said in connection.execute(
            """WITH mine AS (
                 SELECT 'pg_class'::regclass AS of, indexrelid AS id FROM pg_index WHERE indrelid = %(table)s
                 UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = %(table)s
                 UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = %(table)s
                 UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = %(table)s
                 UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid = %(table)s)
               SELECT o.type, o.identity, d.description FROM mine
               JOIN pg_description d ON d.classoid = mine.of AND d.objoid = mine.id AND d.objsubid = 0
               CROSS JOIN LATERAL pg_identify_object(mine.of, mine.id, 0) o ORDER BY 1, 2""",
            {"table": relation.oid},
        ).fetchall()
    ]

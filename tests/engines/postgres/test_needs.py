"""What tables need and what hangs on them: functions, collations, rules, disabled triggers, comments, large objects."""

import json
import subprocess
from collections.abc import Callable

import pytest
from tests.engines.postgres.conftest import Database, Snap, rebuild

from memkeep.errors import UnsupportedError
from memkeep.model import Severity

AROUND = """
CREATE SCHEMA kinds;
CREATE COLLATION kinds.plain (provider = libc, locale = 'C');
CREATE DOMAIN kinds.word AS text COLLATE kinds.plain NOT NULL DEFAULT 'x';
CREATE TYPE kinds.span AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = kinds.spans);
CREATE TYPE kinds.mood AS ENUM ('sad', 'happy');
CREATE TYPE kinds.pair AS (a int, t text COLLATE "C");
CREATE SEQUENCE kinds.shared START 7;
CREATE FUNCTION kinds.fresh(mood kinds.mood = 'sad') RETURNS text LANGUAGE sql AS $$ SELECT 'n' || 1 $$;
CREATE FUNCTION low(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(t);
CREATE FUNCTION lower_still(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN low(t);
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.t = ''touched''; RETURN NEW; END';
CREATE TABLE notes (id text PRIMARY KEY DEFAULT kinds.fresh(), t text, k int DEFAULT nextval('kinds.shared'),
  w kinds.word, s kinds.span, ss kinds.spans, p kinds.pair, q tsquery, low text GENERATED ALWAYS AS (low(t)) STORED,
  late int, CONSTRAINT short CHECK (length(lower_still(t)) < 100));
CREATE FUNCTION good(n notes) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN n.t IS NOT NULL; END';
ALTER TABLE notes ADD CONSTRAINT whole CHECK (good(notes));
INSERT INTO notes VALUES ('1', 'A', 1, 'w', '[1,2]', '{[1,2]}', '(1,b)', ''), ('2', 'B', 2, 'w', NULL, NULL, NULL, 'a');
ALTER TABLE notes ADD CONSTRAINT lately NOT NULL late NOT VALID;
CREATE INDEX lowest ON notes (lower_still(t) COLLATE kinds.plain);
CREATE INDEX plain ON notes (t);
CREATE TRIGGER one BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touched();
CREATE TRIGGER two BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touched();
ALTER TABLE notes DISABLE TRIGGER one;
ALTER TABLE notes ENABLE ALWAYS TRIGGER two;
CREATE RULE kept AS ON DELETE TO notes DO INSTEAD NOTHING;
CREATE STATISTICS of_both ON id, t FROM notes;
ALTER TABLE notes ALTER t SET STATISTICS 500, ALTER t SET STORAGE EXTERNAL, ALTER w SET COMPRESSION pglz,
  ALTER t SET (n_distinct = 5), REPLICA IDENTITY FULL, CLUSTER ON plain;
COMMENT ON INDEX plain IS 'an index'; COMMENT ON CONSTRAINT short ON notes IS 'a check';
COMMENT ON TRIGGER one ON notes IS 'a trigger'; COMMENT ON RULE kept ON notes IS 'a rule';
"""


def _dump(database: Database, *options: str) -> str:
    command = [database.server.programs / "pg_dump", "--no-owner", *options, database.url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in said.splitlines() if "restrict" not in line)


def test_what_tables_need_comes_along(database: Database, other: Database, snap: Callable[..., Snap]) -> None:
    database.run(AROUND)
    taken = snap(database.part(include=("public.notes",)))
    assert taken.opened.findings() == []
    assert rebuild(database.part(), taken.root, other.url).findings == ()
    assert _dump(other) == _dump(database)


def test_an_image_from_before_functions_and_collations_were_kept_still_comes_back(
    database: Database, other: Database, snap: Callable[..., Snap]
) -> None:
    database.fill(20)
    taken = snap(database.part())
    described = taken.root / "postgres" / "tables.json"
    said = json.loads(described.read_text())
    assert (said.pop("functions"), said.pop("collations")) == ([], {})
    described.write_text(json.dumps(said))
    assert rebuild(database.part(), taken.root, other.url).rows == 20
    assert _dump(other, "--schema-only") == _dump(database, "--schema-only")
    assert snap(other.part()).baseline.tables == taken.baseline.tables


def test_psql_alone_brings_it_too(database: Database, other: Database, snap: Callable[..., Snap]) -> None:
    database.run(AROUND)
    taken = snap(database.part(include=("public.notes",)))
    command = [database.server.programs / "psql", "-qX1v", "ON_ERROR_STOP=1", "-f", "restore.sql", other.url]
    subprocess.run(command, check=True, cwd=taken.root / "postgres", capture_output=True)
    assert _dump(other) == _dump(database)


def test_a_function_that_is_there_stays_as_it_is(
    database: Database, other: Database, snap: Callable[..., Snap]
) -> None:
    database.run(AROUND)
    taken = snap(database.part(include=("public.notes",)))
    theirs = "CREATE FUNCTION low(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(t) || ''"
    other.run(theirs)
    rebuild(database.part(), taken.root, other.url)
    assert "||" in other.run("SELECT pg_get_functiondef('low'::regproc)")[0][0]


def test_what_is_made_of_the_tables_is_said(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(3)
    database.run(
        """CREATE VIEW seen AS SELECT * FROM memories;
        CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM memories;
        CREATE FUNCTION match() RETURNS SETOF memories LANGUAGE sql AS 'SELECT * FROM memories'"""
    )
    found = snap(database.part(include=("public.memories",))).opened.findings()
    assert {one.severity for one in found} == {Severity.INFO}
    for name in ("seen, a view", "counted, a materialized view", "match(), a function"):
        assert any(name in one.message for one in found), name


def test_large_objects_are_no_part_of_a_table_and_said(database: Database, snap: Callable[..., Snap]) -> None:
    database.run("CREATE TABLE files (id int, data oid); INSERT INTO files VALUES (1, lo_from_bytea(0, 'abc')), (2, 7)")
    taken = snap(database.part()).opened
    assert [one.severity for one in taken.findings()] == [Severity.ERROR]
    assert [(one.part, one.reason) for one in taken.omitted()] == [
        ("postgres/public.files.data", "it names 1 large object that no table has")
    ]


def test_what_a_server_cannot_make_is_named(database: Database, other: Database, snap: Callable[..., Snap]) -> None:
    database.run("CREATE FUNCTION one() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
    database.run("CREATE TABLE notes (id int DEFAULT one())")
    taken = snap(database.part())
    other.run("DROP EXTENSION plpgsql")
    with pytest.raises(UnsupportedError, match=r"does not take CREATE FUNCTION public\.one") as told:
        rebuild(database.part(), taken.root, other.url)
    assert told.value.code == "target_unfit"


def test_what_is_replaced_keeps_rights_on_columns_and_its_publications(
    database: Database, snap: Callable[..., Snap]
) -> None:
    database.fill(3)
    role = f"reader_{database.name}"
    database.run(
        f"""CREATE ROLE "{role}"; GRANT SELECT (id, vector), UPDATE (payload) ON memories TO "{role}";
        CREATE PUBLICATION feed FOR TABLE memories (id, payload) WHERE (id IS NOT NULL)"""
    )
    part = database.part(include=("public.memories",))
    taken = snap(part)
    before = _dump(database, "--schema-only")
    assert rebuild(part, taken.root, database.url, replace=True).findings == ()
    assert _dump(database, "--schema-only") == before

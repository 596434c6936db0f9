"""What an image of Postgres tables holds, and that it is read without a server as it was written."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, Snap, at, read, rebuild

from memkeep.engines.postgres import PostgresEngine
from memkeep.errors import StoreError
from memkeep.model import TableMap

TYPES = """
CREATE SCHEMA "My.Schema";
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN "My.Schema".positive AS int CHECK (value > 0);
CREATE TYPE pair AS (a int, m mood);
CREATE TABLE things (
  id int GENERATED ALWAYS AS IDENTITY (START 5) PRIMARY KEY, v vector(70), anyv vector, h halfvec(200), s sparsevec(5),
  twice int GENERATED ALWAYS AS (n * 2) STORED, n serial, flag bool, i2 int2, i8 int8, f4 float4, f8 float8,
  num numeric, t text COLLATE "C", vc varchar(9), c char(3), b bytea, u uuid, j json, jb jsonb, d date, ti time,
  tz timetz, ts timestamp, tstz timestamptz, iv interval, ia int[], ta text[][], bits bit(5), vb varbit,
  m macaddr, ip inet,
  mo mood, moods mood[], p pair, pos "My.Schema".positive, poss "My.Schema".positive[], r int4range, mr int4multirange,
  va vector[],
  rc regclass, tv tsvector, mny money);
INSERT INTO things (v, anyv, h, s, flag, i2, i8, f4, f8, num, t, vc, c, b, u, j, jb, d, ti, tz, ts, tstz, iv, ia, ta,
  bits, vb, m, ip, mo, moods, p, pos, poss, r, mr, va, rc, tv, mny)
SELECT (SELECT array_agg(i + k)::vector FROM generate_series(1, 70) k),
  (SELECT array_agg(k)::vector FROM generate_series(1, 1 + i % 3) k),
  (SELECT array_agg(i + k)::vector::halfvec FROM generate_series(1, 200) k), '{1:1.5,4:-2}/5', i % 2 = 0, i,
  i * 10000000000,
  i / 3.0, i / 3.0, i * 1.10, 'text é ' || i, 'vc', 'c', '\\x00ff', gen_random_uuid(), '{"a":  [1, 2.50]}',
  '{"b": {"c": 1e3}, "z": null}', '2025-02-03', '10:11:12.000013', '10:11:12+02', '2025-02-03 04:05:06', now(),
  '1 mon 2 days 3.5s', ARRAY[1, NULL, i], '{{a,b},{c,NULL}}', B'10101', B'1', '08:00:2b:01:02:03', '10.0.0.0/8',
  'it''s ok', '{sad,NULL}'::mood[], ROW(i, 'happy')::pair, i, ARRAY[i]::"My.Schema".positive[], int4range(i, i + 5),
  '{[1,3),[7,9)}', ARRAY['[1,2]'::vector], 'things', to_tsvector('simple', 'a b'), 12.5
FROM generate_series(1, 40) i;
INSERT INTO things (num, f4, f8, d, ts, t, jb, j, ia, v) VALUES ('NaN', 'NaN', 'Infinity', 'infinity', '-infinity',
  '',
  '[1]', '"x"', '{}', NULL), ('-0.00010', '-0', '1e-300', '0044-03-15 BC', '294276-12-31', NULL,
  'null', '1', NULL, NULL),
  ('12345678901234567890.123', NULL, NULL, NULL, NULL, NULL, '123456789012345678901234567890', NULL, NULL, NULL);
CREATE TABLE "My.Schema"."T/x""y" (k int, v vector, parent int REFERENCES things (id));
INSERT INTO "My.Schema"."T/x""y" SELECT 1, '[1,2]', 5 FROM generate_series(1, 600);
CREATE TABLE nothing (); CREATE TABLE bare (); INSERT INTO bare SELECT FROM generate_series(1, 3);
CREATE TABLE empty (id text PRIMARY KEY, v vector(3));
CREATE TABLE parted (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200);
INSERT INTO parted SELECT i, i FROM generate_series(0, 199) i;
CREATE TABLE animal (name text CHECK (name <> '')); CREATE TABLE cat (lives int) INHERITS (animal);
INSERT INTO animal VALUES ('ant'); INSERT INTO cat VALUES ('tom', 9);
CREATE INDEX ON things USING hnsw (v vector_cosine_ops) WITH (m = 8);
CREATE INDEX ON things USING ivfflat (v vector_l2_ops) WITH (lists = 2);
CREATE UNIQUE INDEX ON things (n) WHERE n > 3;
CREATE INDEX things_words ON things USING gin (to_tsvector('simple', jb ->> 'data'));
COMMENT ON TABLE things IS 'it''s'; COMMENT ON COLUMN things.jb IS 'JSON';
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON animal FOR EACH ROW EXECUTE FUNCTION touched();
"""
THINGS = TableMap(collection="things", table="public.things", id="id", vectors=("v",))


def _dump(database: Database, *options: str) -> str:
    command = [database.server.programs / "pg_dump", *options, database.url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Random words of newer versions, and what PostgreSQL names after its own order of making.
    return "\n".join(line for line in said.splitlines() if "restrict" not in line)


@pytest.fixture
def full(database: Database) -> Database:
    database.run(TYPES)
    return database


def test_every_type_and_table_comes_back_as_pg_dump_sees_it(
    full: Database, other: Database, snap: Callable[..., Snap]
) -> None:
    taken = snap(full.part(THINGS))
    built = rebuild(full.part(THINGS), taken.root, other.url)
    assert built.findings == ()
    assert built.rows == sum(state.rows for state in taken.baseline.tables.values())
    again = snap(other.part(THINGS), probes=taken.baseline.probes)
    assert again.baseline == taken.baseline
    assert _dump(other, "--schema-only", "--no-owner") == _dump(full, "--schema-only", "--no-owner")
    names = [
        row[0]
        for row in full.run("SELECT attname FROM pg_attribute WHERE attrelid = 'things'::regclass AND attnum > 0")
    ]
    odd = {"moods", "p", "poss", "va", "rc"}  # their binary form names what only that database knows
    for place in names:
        form = f'"{place}"::text' if place in odd else f'"{place}"'
        copies = []
        for one in (full, other):
            with (
                one.connection.cursor() as cursor,
                cursor.copy(f"COPY (SELECT {form} FROM things ORDER BY id) TO STDOUT (FORMAT binary)") as copy,
            ):
                copies.append(b"".join(map(bytes, copy)))
        assert copies[0] == copies[1], place
    assert other.run("SELECT nextval('things_n_seq'), nextval('things_id_seq')") == full.run(
        "SELECT nextval('things_n_seq'), nextval('things_id_seq')"
    )


def test_psql_alone_loads_an_image(full: Database, other: Database, snap: Callable[..., Snap]) -> None:
    taken = snap(full.part())
    command = [full.server.programs / "psql", "-qX1v", "ON_ERROR_STOP=1", "-f", "restore.sql", other.url]
    subprocess.run(command, check=True, cwd=taken.root / "postgres", capture_output=True)
    assert snap(other.part()).baseline.tables == taken.baseline.tables


def test_an_image_is_read_without_a_server_as_it_was_written(full: Database, snap: Callable[..., Snap]) -> None:
    taken = snap(full.part(THINGS))
    assert taken.baseline.facts.pop("recall"), "the live server was not asked"
    with PostgresEngine().open(at(full.part(THINGS), "postgresql://nobody@127.0.0.1:1/none"), taken.root) as opened:
        again = read(opened, taken.root, probes=taken.baseline.probes)
        assert (again.records, again.baseline) == (taken.records, taken.baseline)
        assert opened.check() == opened.findings() == []
        assert not opened.moved()
        assert opened.held()


def test_values_are_told_as_people_write_them(full: Database, snap: Callable[..., Snap]) -> None:
    records = snap(full.part(THINGS)).records
    first = records["5"]
    assert first["num"] == "1.10"
    assert first["flag"] is False
    assert (first["d"], first["ti"], first["tz"]) == ("2025-02-03", "10:11:12.000013", "10:11:12+02:00")
    assert (first["ts"], first["iv"]) == ("2025-02-03T04:05:06", "1 mons 2 days 3500000 us")
    assert (first["ia"], first["ta"]) == ([1, None, 1], [["a", "b"], ["c", None]])
    assert (first["mo"], first["moods"], first["p"]) == (
        {"bytes": 7, "blake3": first["mo"]["blake3"]},
        "{sad,NULL}",
        "(1,happy)",
    )
    assert (first["j.a"], first["jb.b"]) == ([1, 2.5], {"c": 1000})
    assert first["v"] == {"dims": 70, "type": "f32", "blake3": first["v"]["blake3"]}
    assert (first["h"]["type"], first["bits"], first["c"]) == ("f16", "10101", "c  ")
    assert first["s"] == {"dims": 5, "indices": [0, 3], "values": [1.5, -2.0]}
    odd = records["45"]
    assert (odd["num"], odd["f8"], odd["d"], odd["ts"]) == ("NaN", {"float": "inf"}, "infinity", "-infinity")
    assert (odd["jb"], odd["j"], odd["ia"], odd["v"], odd["t"]) == ([1], "x", [], None, "")
    assert records["46"]["num"] == "-0.00010"
    assert records["47"]["num"] == "12345678901234567890.123"


def test_records_are_counted_and_probed(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(300)
    taken = snap(database.part(MEMORIES))
    facts = taken.baseline.facts
    assert facts["summary"]["memories"]["scope"] == {"user-0": 100, "user-1": 100, "user-2": 100}
    assert (facts["summary"]["memories"]["oldest"], facts["summary"]["memories"]["newest"]) == (
        "2025-01-01",
        "2025-01-09",
    )
    assert facts["vectors"] == {"public.memories.vector": {"count": 300, "dims": {"64": 300}, "missing": 0}}
    assert len(taken.baseline.probes) == 4
    for probe in taken.baseline.probes:
        near = database.run(
            f"""SELECT id FROM memories ORDER BY vector <-> (SELECT vector FROM memories
                WHERE id = '{probe.question}') LIMIT 5"""
        )
        assert set(probe.ids) == {str(row[0]) for row in near}


def test_a_changed_row_changes_the_digest_and_one_segment(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(3000)
    first = snap(database.part(MEMORIES))
    database.run("UPDATE memories SET payload = payload || '{\"data\": \"new\"}' WHERE payload ->> 'data' = 'text 77'")
    database.run("DELETE FROM memories WHERE payload ->> 'data' = 'text 78'")
    second = snap(database.part(MEMORIES))
    assert first.baseline.tables != second.baseline.tables
    files = [
        {path.relative_to(one.root): path.read_bytes() for path in one.root.rglob("rows/*.copy")}
        for one in (first, second)
    ]
    assert len(files[0]) > 1
    assert len({name for name in files[0] | files[1] if files[0].get(name) != files[1].get(name)}) <= 3


def test_vectors_lie_in_runs_of_equal_blocks(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(50)
    taken = snap(database.part(MEMORIES))
    entry = next(one for one in taken.opened.entries() if one.path.endswith("vectors/vector.copy"))
    (run,) = taken.opened.runs(entry)
    assert (run.offset, run.count, run.stride) == (19, 50, 16 + 4 * 64)
    assert run.offset + run.count * run.stride + 2 == entry.size == len(b"".join(taken.opened.stream(entry)))


def test_only_the_tables_that_are_asked_for_are_taken(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(5)
    database.run("CREATE TABLE secrets (id int); CREATE TABLE child (m uuid REFERENCES memories (id))")
    assert set(snap(database.part(include=("public.memories",))).baseline.tables) == {"public.memories"}
    some = snap(database.part(include=("public.child", "public.gone")))
    said = " ".join(finding.message for finding in some.opened.findings())
    assert "no such table" in said
    assert "child_m_fkey" in said
    with pytest.raises(StoreError, match="no such table") as told:
        snap(database.part(include=("public.gone",)))
    assert told.value.code == "store_missing"


def test_views_and_invalid_indexes_are_left_out_and_said(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(5)
    database.run("CREATE VIEW seen AS SELECT * FROM memories")
    database.run("CREATE INDEX broken ON memories (id)")
    database.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass")
    taken = snap(database.part())
    assert {one.part for one in taken.opened.omitted()} == {"postgres/public.seen", "postgres/public.memories"}
    assert "broken" not in (taken.root / "postgres/finish.sql").read_text()


def test_a_damaged_image_is_a_finding(database: Database, snap: Callable[..., Snap]) -> None:
    database.fill(50)
    part = database.part(MEMORIES)
    taken = snap(part)
    file = next(taken.root.rglob("rows/first.copy"))
    whole = file.read_bytes()
    for cut in (len(whole) - 1, len(whole) // 2, 10, 0):
        file.write_bytes(whole[:cut])
        with PostgresEngine().open(part, taken.root) as opened:
            read(opened, taken.root)
            assert [one.code for one in opened.findings()] == ["postgres_unreadable"], cut
    file.unlink()
    with PostgresEngine().open(part, taken.root) as opened:
        read(opened, taken.root)
        assert [one.code for one in opened.findings()] == ["postgres_unreadable"]
    Path(taken.root / "postgres/tables.json").write_text("{}")
    with pytest.raises(StoreError), PostgresEngine().open(part, taken.root) as opened:
        read(opened, taken.root)


def test_a_look_tells_columns_vectors_and_keys(database: Database) -> None:
    database.fill(5)
    seen = PostgresEngine().inspect(database.url)
    (table,) = seen.tables
    assert (table.name, table.key, table.rows, table.vectors) == ("public.memories", "id", 5, {"vector": 64})
    assert {"payload.data", "payload.user_id", "payload"} <= table.columns.keys()
    assert PostgresEngine().count(database.part(), "public.memories") == 5
    assert PostgresEngine().count(database.part(), "public.none") is None
    assert PostgresEngine().size(database.part()) > 1000

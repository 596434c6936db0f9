"""A partitioned table is one table: its rows are those of all its partitions, and it comes back in the same ones."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, Snap, at, frozen, read
from tests.engines.postgres.test_image import _dump

from memkeep.engines.postgres import PostgresEngine
from memkeep.errors import StoreError
from memkeep.library import OpenVault

TABLES = """
CREATE TABLE memories (id uuid, vector vector(2), payload jsonb, year int DEFAULT 2024,
  number int GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (id, year))
  PARTITION BY RANGE (year);
CREATE TABLE memories_2024 PARTITION OF memories FOR VALUES FROM (2024) TO (2025);
CREATE TABLE memories_2025 (number int NOT NULL, year int NOT NULL, payload jsonb DEFAULT '{}', id uuid NOT NULL,
  vector vector(2), CONSTRAINT said CHECK (payload IS NOT NULL));
ALTER TABLE memories ATTACH PARTITION memories_2025 FOR VALUES FROM (2025) TO (2026);
CREATE TABLE memories_rest PARTITION OF memories DEFAULT PARTITION BY HASH (id);
CREATE TABLE memories_rest_0 PARTITION OF memories_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE memories_rest_1 PARTITION OF memories_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX near ON memories USING hnsw (vector vector_cosine_ops);
CREATE INDEX ON memories_2024 (year);
INSERT INTO memories SELECT lpad(i::text, 32, '0')::uuid, ARRAY[cos(i * 6.28 / 60), sin(i * 6.28 / 60)]::vector,
  jsonb_build_object('data', 'text ' || i, 'user_id', 'u' || i % 2), 2023 + i % 4 FROM generate_series(1, 60) i
"""
WHERE = "SELECT tableoid::regclass::text, id::text, vector::text, payload::text, year FROM memories ORDER BY 2"


@pytest.fixture
def parted(database: Database) -> Database:
    database.run(TABLES)
    return database


def _same(one: Database, other: Database) -> bool:
    assert _dump(one, "--schema-only", "--no-owner") == _dump(other, "--schema-only", "--no-owner")
    return one.run(WHERE) == other.run(WHERE)


def test_its_records_and_answers_are_those_of_all_partitions(parted: Database, snap: Callable[..., Snap]) -> None:
    taken = snap(parted.part(MEMORIES, include=("public.memories",)))
    assert len(taken.records) == 60
    rows = {name: state.rows for name, state in taken.baseline.tables.items()}
    leaves = [f"public.memories_{end}" for end in ("2024", "2025", "rest", "rest_0", "rest_1")]
    assert rows == dict.fromkeys(leaves, 0) | {"public.memories": 60}
    assert taken.baseline.facts["summary"]["memories"]["scope"] == {"u0": 30, "u1": 30}
    assert len(taken.baseline.probes) == len(taken.baseline.facts["recall"]) == 4
    assert all(question in ids for _, _, question, ids in taken.baseline.facts["recall"])
    with PostgresEngine().open(at(parted.part(MEMORIES), "postgresql://nobody@127.0.0.1:1/none"), taken.root) as opened:
        again = read(opened, taken.root, probes=taken.baseline.probes)
        assert again.records == taken.records
        assert sum(len(batch) for batch in opened.rows(MEMORIES)) == 60
        assert opened.check() == opened.findings() == []


@pytest.mark.parametrize("name", ["memories_2024", "memories_2025", "memories_rest_0"])
def test_a_write_into_any_partition_is_seen(parted: Database, tmp_path: Path, name: str) -> None:
    with frozen(parted.part(MEMORIES), tmp_path / "scratch") as opened:
        assert not opened.moved()
        parted.run(f"UPDATE {name} SET year = year")
        assert opened.moved()


def test_psql_alone_puts_its_rows_where_they_were(parted: Database, other: Database, snap: Callable[..., Snap]) -> None:
    taken = snap(parted.part(MEMORIES))
    command = [parted.server.programs / "psql", "-qX1v", "ON_ERROR_STOP=1", "-f", "restore.sql", other.url]
    subprocess.run(command, check=True, capture_output=True, cwd=taken.root / "postgres")
    assert _same(parted, other)


def test_it_comes_back_with_its_partitions_and_can_be_compared_and_exported(
    parted: Database, other: Database, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    [report] = vault.backup(parted.url).snapshots
    assert (report.records, report.consistent, report.omitted) == (60, True, ())
    assert vault.restore(report.id, to=other.url).findings == ()
    assert _same(parted, other)
    changes = vault.diff(report.id, parted.url)
    assert (changes.added, changes.removed, changes.changed) == ((), (), ())
    parted.run("UPDATE memories SET year = 2024 WHERE year = 2025 AND id::text LIKE '%02'")
    parted.run("DELETE FROM memories_rest_1")
    changes = vault.diff(report.id, parted.url)
    gone = 60 - parted.run("SELECT count(*) FROM memories")[0][0]
    assert (len(changes.added), len(changes.removed), len(changes.changed)) == (0, gone, 1)
    exported = vault.export(report.id, tmp_path / "out")
    assert exported.memories + sum(exported.collections.values()) == 60


def test_in_place_a_partition_that_came_later_goes_and_undo_brings_it_back(
    parted: Database, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault()
    [report] = vault.backup(parted.url).snapshots
    before = parted.run(WHERE)
    parted.run(
        "DELETE FROM memories; CREATE TABLE memories_2030 PARTITION OF memories FOR VALUES FROM (2030) TO (2031)"
    )
    parted.run("INSERT INTO memories VALUES (gen_random_uuid(), '[1,2]', '{}', 2030)")
    later = parted.run(WHERE)
    done = vault.restore(report.id, in_place=True, confirm=report.system)
    assert parted.run(WHERE) == before
    assert done.undo is not None
    vault.restore(str(done.parked).split()[-1], in_place=True, confirm=report.system)
    assert parted.run(WHERE) == later


def test_rows_go_back_into_the_partitions_of_a_live_table_and_what_the_server_alone_numbers_stays(
    parted: Database, new_vault: Callable[..., OpenVault]
) -> None:
    vault = new_vault()
    [report] = vault.backup(parted.url).snapshots
    before = parted.run(WHERE)
    parted.run("DELETE FROM memories_2024; UPDATE memories_2025 SET payload = '{}'")
    done = vault.restore_into(parted.url, report.id, conflict="update")
    assert done.merged is not None
    assert (done.merged.inserted, done.merged.updated, done.merged.same) == (15, 15, 30)
    assert parted.run(WHERE) == before


def test_of_one_user_only_the_rows_are_taken(parted: Database, snap: Callable[..., Snap]) -> None:
    users = msgspec.structs.replace(MEMORIES, fields={"user": "payload.user_id"})
    taken = snap(parted.part(users, include=("public.memories",), user="u1"))
    assert {row["payload.user_id"] for row in taken.records.values()} == {"u1"}
    assert [one.reason for one in taken.opened.omitted()] == ["30 rows that are not of u1"]


def test_a_partition_alone_is_not_taken(parted: Database, tmp_path: Path) -> None:
    part = parted.part(include=("public.memories_2024",))
    with pytest.raises(StoreError, match="it is a partition"), frozen(part, tmp_path):
        pass


def test_whoever_may_read_the_table_need_not_be_let_into_its_partitions(
    parted: Database, snap: Callable[..., Snap]
) -> None:
    role = f"reader_{parted.name}"
    parted.run(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON memories, memories_number_seq TO {role}")
    with psycopg.connect(parted.url) as owner:
        url = parted.url.replace(f"{owner.info.user}@", f"{role}@")
    taken = snap(at(parted.part(MEMORIES), url))
    assert len(taken.records) == 60
    assert taken.opened.omitted() == []


def test_where_a_partition_lies_elsewhere_the_others_are_tables_of_their_own(
    parted: Database, snap: Callable[..., Snap]
) -> None:
    parted.run("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing")
    parted.run("ALTER TABLE memories DROP CONSTRAINT memories_pkey; DROP INDEX near")
    parted.run(
        "CREATE FOREIGN TABLE memories_old PARTITION OF memories FOR VALUES FROM (2000) TO (2001) SERVER elsewhere"
    )
    taken = snap(parted.part(MEMORIES))
    rows: dict[str, Any] = {name: state.rows for name, state in taken.baseline.tables.items()}
    assert (rows["public.memories"], sum(rows.values()), rows["public.memories_2024"]) == (0, 60, 15)
    assert [one.part for one in taken.opened.omitted()] == ["postgres/public.memories_old"]
    assert {one.name for one in PostgresEngine().inspect(parted.url).tables} == {"public.memories", *rows}

from typing import Any

import pytest

from memkeep.engines.postgres import PostgresEngine
from memkeep.engines.rows import Deleted, Gone, RowDeleter
from memkeep.errors import StoreError

SCHEMA = """
CREATE SCHEMA "odd.one";
CREATE TABLE memories (id uuid PRIMARY KEY, payload jsonb);
CREATE TABLE parts (id int PRIMARY KEY, memory uuid REFERENCES memories ON DELETE CASCADE);
CREATE TABLE pieces (id int, part int REFERENCES parts ON DELETE CASCADE);
CREATE TABLE "odd.one"."notes" (id bigint, "o.f" text);
INSERT INTO memories SELECT ('00000000-0000-0000-0000-00000000000' || i)::uuid, jsonb_build_object('the key', 'K-' || i)
  FROM generate_series(1, 4) i;
INSERT INTO parts SELECT i, ('00000000-0000-0000-0000-00000000000' || i)::uuid FROM generate_series(1, 4) i;
INSERT INTO pieces SELECT i, i FROM generate_series(1, 4) i;
INSERT INTO "odd.one"."notes" SELECT i, 'AB-' || i FROM generate_series(1, 4) i;
"""
ID = "00000000-0000-0000-0000-00000000000"


def test_rows_go_with_what_hangs_on_them_once_it_is_said_to_last(database: Any) -> None:
    database.run(SCHEMA)
    engine = PostgresEngine()
    assert isinstance(engine, RowDeleter)
    gone = [
        Gone(table="public.memories", columns=("id",), ids=(f"{ID}1", f"{ID}9")),
        Gone(table="public.memories", columns=("payload.the key", "no"), ids=("k2",), spelled=False),
        Gone(table="odd.one.notes", columns=("id", "o.f"), ids=("3", "ab4"), spelled=False),
        Gone(table="public.gone", columns=("id",), ids=("1",)),
    ]
    with engine.delete_rows(database.part(), gone) as one:
        assert one.result == Deleted(
            tables={"public.memories": 2, "odd.one.notes": 2}, beside={"public.parts": 2, "public.pieces": 2}
        )
    assert database.run("SELECT count(*) FROM memories") == [(4,)]
    with engine.delete_rows(database.part(), gone) as one:
        one.commit()
    assert database.run("SELECT right(id::text, 1) FROM memories ORDER BY 1") == [("3",), ("4",)]
    assert database.run("SELECT id FROM pieces ORDER BY 1") == [(3,), (4,)]
    assert database.run('SELECT id FROM "odd.one".notes ORDER BY 1') == [(1,), (2,)]


def test_what_others_hold_on_to_is_refused_in_the_server_s_words(database: Any) -> None:
    database.run(SCHEMA)
    database.run(f"CREATE TABLE holds (memory uuid REFERENCES memories); INSERT INTO holds VALUES ('{ID}1')")
    gone = [Gone(table="public.memories", columns=("id",), ids=(f"{ID}1",))]
    with pytest.raises(StoreError, match="holds"), PostgresEngine().delete_rows(database.part(), gone):
        pass
    assert database.run("SELECT count(*) FROM memories") == [(4,)]

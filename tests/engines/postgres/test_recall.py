"""The server's own search gives after a restore what it gave before, or it is said."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.engines.postgres.conftest import MEMORIES, Database, Snap, rebuild

from memkeep.engines.postgres import PostgresEngine
from memkeep.library import OpenVault
from memkeep.model import Severity

INDEXES = {
    "hnsw cosine": "CREATE INDEX near ON memories USING hnsw (vector vector_cosine_ops)",
    "ivfflat l2": "CREATE INDEX near ON memories USING ivfflat (vector) WITH (lists = 2)",
    "hnsw ip": "CREATE INDEX near ON memories USING hnsw (vector vector_ip_ops)",
}


def _id(number: object) -> str:
    return f"lpad(({number})::text, 32, '0')::uuid"


def _spread(database: Database, rows: int = 60) -> None:
    """Make rows whose vectors go round a circle, so that each has neighbours of its own."""
    database.run("CREATE TABLE memories (id uuid PRIMARY KEY, vector vector(2), payload jsonb)")
    database.run(
        f"""INSERT INTO memories SELECT {_id("i")}, ARRAY[cos(i * 6.28 / {rows}), sin(i * 6.28 / {rows})]::vector,
        jsonb_build_object('data', 'text ' || i, 'hash', 'f' || i, 'user_id', 'ana', 'created_at', '2025-01-01')
        FROM generate_series(1, {rows}) i"""
    )


def _differing(snap: Snap, target: str) -> list[Any]:
    return PostgresEngine().recall(snap.opened.part, snap.root, target, snap.baseline)


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_the_index_of_a_restored_table_answers_as_the_one_before(
    database: Database, other: Database, snap: Callable[..., Snap], index: str
) -> None:
    _spread(database)
    database.run(index)
    kept = snap(database.part(MEMORIES))
    asked = kept.baseline.facts["recall"]
    assert len(asked) == 4
    assert all(question in ids for _, _, question, ids in asked)
    rebuild(kept.opened.part, kept.root, other.url)
    assert _differing(kept, other.url) == []
    other.run(
        f"UPDATE memories SET vector = '[-1, 0.001]' WHERE id = {_id(5)}"
    )  # a neighbour, not one that is asked for
    (found,) = _differing(kept, other.url)
    assert (found.code, found.severity, found.part) == ("recall_differs", Severity.WARNING, "postgres")
    question = asked[0][2]
    other.run(f"UPDATE memories SET vector = '[-1, 0]' WHERE id = '{question}'")
    (found,) = _differing(kept, other.url)
    assert (found.severity, found.record) == (Severity.ERROR, question)


def test_a_table_without_an_index_is_searched_row_by_row_and_not_asked(
    database: Database, snap: Callable[..., Snap]
) -> None:
    _spread(database)
    database.run(
        "CREATE INDEX ON memories USING hnsw (vector vector_l2_ops) WHERE payload IS NOT NULL"
    )  # not what a search uses
    assert "recall" not in snap(database.part(MEMORIES)).baseline.facts


def test_a_restore_says_that_a_vector_was_changed_on_the_way(
    database: Database, other: Database, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    _spread(database)
    database.run(INDEXES["hnsw cosine"])
    vault = new_vault()
    assert vault.backup(database.url).snapshots[0].records
    plain = PostgresEngine.rebuild

    def spoiling(self: PostgresEngine, *words: Any, **more: Any) -> Any:
        done = plain(self, *words, **more)
        other.run(f"UPDATE memories SET vector = '[-1, 0]' WHERE id = {_id(1)}")
        return done

    monkeypatch.setattr(PostgresEngine, "rebuild", spoiling)
    found = [one for one in vault.restore("latest", to=other.url).findings if one.code == "recall_differs"]
    assert [one.severity for one in found] == [Severity.ERROR]

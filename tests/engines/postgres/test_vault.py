"""Postgres tables in a vault: what a day costs, and that they come back into a server."""

from collections.abc import Callable

from tests.engines.postgres.conftest import Database, Snap

from memkeep.library import OpenVault


def _vectors(database: Database, where: str) -> None:
    database.run(
        f"""UPDATE memories SET vector = (SELECT array_agg(random() - 0.5)::vector FROM generate_series(1, 1536) k
            WHERE k + length(id::text) > 0) WHERE {where}"""
    )


def test_a_day_costs_little_more_than_what_is_new(database: Database, new_vault: Callable[..., OpenVault]) -> None:
    vault = new_vault()
    database.fill(1000)
    database.run("ALTER TABLE memories ALTER vector TYPE vector")
    _vectors(database, "true")
    first = vault.backup(database.url).snapshots[0]
    assert first.added_bytes > 5_000_000
    assert vault.backup(database.url).snapshots[0].added_bytes < 5000
    some = "id IN (SELECT id FROM memories ORDER BY id OFFSET 300 LIMIT 10)"
    new = 10 * 1536 * 4
    _vectors(database, some)  # in place: every file keeps its size
    assert vault.backup(database.url).snapshots[0].added_bytes < 2 * new
    database.run("INSERT INTO memories (vector, payload) SELECT vector, payload FROM memories LIMIT 10")
    _vectors(database, "id IN (SELECT id FROM memories ORDER BY ctid DESC LIMIT 10)")
    database.run("DELETE FROM memories WHERE id IN (SELECT id FROM memories ORDER BY id OFFSET 100 LIMIT 2)")
    assert vault.backup(database.url).snapshots[0].added_bytes < 2 * new
    database.run("UPDATE memories SET payload = payload || '{\"heat\": 0.97}'")
    assert vault.backup(database.url).snapshots[0].added_bytes < new


def test_a_snapshot_goes_into_another_server(
    database: Database, other: Database, new_vault: Callable[..., OpenVault], snap: Callable[..., Snap]
) -> None:
    vault = new_vault()
    database.fill(100)
    vault.backup(database.url)
    vault.restore("latest", to=other.url)
    assert snap(other.part()).baseline.tables == snap(database.part()).baseline.tables
    assert not [one for one in vault.verify("latest").findings if one.severity == "error"]

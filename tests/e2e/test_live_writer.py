"""An agent writes all the while: every snapshot is one moment of its store, or says that it is not."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memkeep.model import Rung
from memkeep.testing import agent

FIRST = agent.KEPT + 2

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]


def _moment(vault: Any, report: Any, folder: Path) -> agent.Moment:
    """Restore a snapshot and say which moment it is; its SQLite, FTS, vectors and log are checked on the way."""
    vault.restore(report.id, to=folder)
    assert {path.name for path in folder.iterdir()} <= {"facts.db", "lancedb", "memory.wal"}
    return agent.read_moment(folder)


@pytest.mark.parametrize(("journal", "pace"), [("wal", "0"), ("wal", "0.03"), ("delete", "0.02")])
def test_every_snapshot_of_a_busy_store_is_one_moment_or_says_that_it_is_not(
    journal: str, pace: str, tmp_path: Path, new_vault: Callable[..., Any], writing: Callable[..., Any]
) -> None:
    store, vault = agent.build(tmp_path / "memory", journal=journal), new_vault()
    with writing(store, FIRST, "--journal", journal, "--pace", pace) as writer:
        reports = [vault.backup(store).snapshots[0] for _ in range(10)]
        last = writer.stop()
    moments = [_moment(vault, report, tmp_path / str(number)) for number, report in enumerate(reports)]
    sqlite = [moment.sqlite for moment in moments]
    assert sqlite == sorted(sqlite)
    assert FIRST <= sqlite[0] + 1 <= sqlite[-1] < last + 1  # the agent did write meanwhile
    assert len(set(sqlite)) > 1
    for report, moment in zip(reports, moments, strict=True):
        assert report.rung is Rung.READABLE
        if report.consistent:
            assert moment.whole, moment
            assert report.findings == ()
        else:
            assert [finding.code for finding in report.findings] == ["parts_drifted"]
    assert any(report.consistent for report in reports) or pace == "0"
    assert agent.read_moment(store) == (last, last, last)  # the agent's own store took no harm


def test_all_that_a_killed_agent_had_committed_is_in_the_snapshot(
    tmp_path: Path, new_vault: Callable[..., Any], writing: Callable[..., Any], tree_hash: Callable[..., Any]
) -> None:
    store, vault = agent.build(tmp_path / "memory", lance=False), new_vault()
    with writing(store, FIRST, "--checkpoint", "0", "--pace", "0.001", "--no-lance") as writer:
        while (store / "facts.db-wal").stat().st_size < 1 << 18:
            pass
        writer.kill()
    before = tree_hash(store)
    report = vault.backup(store).snapshots[0]
    assert tree_hash(store) == before
    assert (store / "facts.db-wal").stat().st_size >= 1 << 18
    moment = _moment(vault, report, tmp_path / "restored")
    with closing(sqlite3.connect(store / "facts.db")) as connection:
        [committed] = connection.execute("SELECT max(created_at) FROM facts").fetchone()
    assert moment.sqlite == committed > FIRST


def test_a_transaction_that_was_not_committed_is_not_in_the_snapshot(
    tmp_path: Path, new_vault: Callable[..., Any], tree_hash: Callable[..., Any]
) -> None:
    vault = new_vault()
    for journal in ("wal", "delete"):
        store = agent.build(tmp_path / journal, journal=journal, lance=False)
        with closing(sqlite3.connect(store / "facts.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE facts SET text = 'half ' || hex(randomblob(2000))")
            before = tree_hash(store)
            report = vault.backup(store).snapshots[0]
            assert tree_hash(store) == before
            connection.execute("ROLLBACK")
        moment = _moment(vault, report, tmp_path / f"{journal}-restored")
        assert moment == (FIRST - 1, None, FIRST - 1)

"""A plan and what is done of it: nothing that has changed since, nothing by halves, and never the last of its kind."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import lance
import msgspec
import pytest

from memkeep.errors import FileError, PlanStaleError, RefusedError, StoreError
from memkeep.library import OpenVault
from memkeep.ops.in_server import park
from memkeep.ops.plan import digest
from memkeep.records.record import Record
from memkeep.testing import agent


def change(path: Path, *statements: str) -> list[Any]:
    found = []
    with closing(sqlite3.connect(path)) as con, con:
        for sql in statements:
            found = con.execute(sql).fetchall()
    return found


def state(store: Path) -> tuple[list[Any], list[Any], list[str]]:
    """Return the facts, the links, and the ids in Lance."""
    table = lance.dataset(str(store / "lancedb" / "memories.lance"))
    return (
        change(store / "facts.db", "SELECT * FROM facts ORDER BY id"),
        change(store / "facts.db", "SELECT * FROM memory_links ORDER BY id"),
        sorted(table.to_table(["id"]).column(0).to_pylist()),
    )


def edit(plan: Path, chosen: Callable[[dict[str, Any]], bool], **fields: Any) -> int:
    """Change lines of a plan, as a person with an editor does; return how many."""
    lines, done = [], 0
    for text in plan.read_text().splitlines():
        if text.startswith("#") or "memkeep/plan/1" in text:
            lines.append(text)
            continue
        line = json.loads(text)
        if chosen(line):
            line |= fields
            done += 1
        lines.append(json.dumps(line, ensure_ascii=False))
    plan.write_text("\n".join(lines) + "\n")
    return done


def test_a_record_is_the_same_until_it_says_something_else() -> None:
    inner = {"tier": "core", "injected_count": 1, "last_injected_at": 5}
    record = Record(id="1", text="a", access_count=0, metadata={"why": "b", "recall_count": 0, "metadata": inner})
    used = {"why": "b", "recall_count": 9, "metadata": inner | {"injected_count": 7, "last_injected_at": 8}}
    same = {"metadata": used, "access_count": 3, "heat": 0.1, "updated_at": "2026-01-01T00:00:00+00:00"}
    assert digest(msgspec.structs.replace(record, **same)) == digest(record)
    others: list[dict[str, Any]] = [
        {"text": "b"},
        {"status": "superseded"},
        {"expires_at": "2027-01-01T00:00:00+00:00"},
        {"metadata": used | {"why": "c"}},
        {"metadata": used | {"metadata": inner | {"tier": "working"}}},
    ]
    assert digest(record) not in {digest(msgspec.structs.replace(record, **other)) for other in others}


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    """Return a small store in which a fact with a vector and a link is said twice."""
    store = agent.build(tmp_path / "agent" / "memory", batches=2)
    change(
        store / "facts.db",
        "UPDATE facts SET text = (SELECT text FROM facts WHERE id = '{1}'), recall_count = 9 WHERE id = '{4}'".format(
            *map(agent.identity, range(5))
        ),
    )
    return store


def duplicates(vault: OpenVault, store: Path, plan: Path) -> list[dict[str, Any]]:
    vault.audit(store, categories=["duplicates"], plan=plan)
    lines = [json.loads(line) for line in plan.read_text().splitlines() if not line.startswith("#")]
    return [line for line in lines[1:] if "exact_duplicate" in line["kinds"]]


def test_a_plan_is_stale_when_a_record_says_something_else_since(
    hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault(encrypted=False)
    (line,) = duplicates(vault, hybrid, tmp_path / "plan")
    change(hybrid / "facts.db", f"UPDATE facts SET recall_count = recall_count + 1 WHERE id = '{line['id']}'")
    assert vault.apply(tmp_path / "plan", dry_run=True).deleted == 1  # it was recalled: it says the same
    change(hybrid / "facts.db", f"UPDATE facts SET why = 'another reason' WHERE id = '{line['id']}'")
    before = state(hybrid)
    with pytest.raises(PlanStaleError, match=line["id"]) as caught:
        vault.apply(tmp_path / "plan")
    assert caught.value.exit == 14
    assert state(hybrid) == before
    assert vault.snapshots().snapshots == ()


@pytest.mark.parametrize("done", ["text = 'something else'", None])
def test_a_plan_is_stale_when_the_one_that_is_to_stay_has_changed_or_gone(
    hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path, done: str | None
) -> None:
    vault = new_vault(encrypted=False)
    (line,) = duplicates(vault, hybrid, tmp_path / "plan")
    where = f"WHERE id = '{line['same_as']}'"
    change(hybrid / "facts.db", f"UPDATE facts SET {done} {where}" if done else f"DELETE FROM facts {where}")
    with pytest.raises(PlanStaleError, match=line["same_as"]):
        vault.apply(tmp_path / "plan")


def test_a_record_that_changes_while_the_store_is_kept_makes_the_plan_stale(
    hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = new_vault(encrypted=False)
    (line,) = duplicates(vault, hybrid, tmp_path / "plan")

    def meanwhile(*arguments: Any) -> str | None:
        kept = park(*arguments)
        change(hybrid / "facts.db", f"UPDATE facts SET text = 'newer' WHERE id = '{line['id']}'")
        return kept

    monkeypatch.setattr("memkeep.ops.apply.park", meanwhile)
    before = state(hybrid)
    with pytest.raises(PlanStaleError, match=line["id"]):
        vault.apply(tmp_path / "plan")
    facts, links, vectors = state(hybrid)
    assert (links, vectors) == before[1:]
    assert [row[1] for row in facts if row[0] == line["id"]] == ["newer"]


def test_two_that_say_the_same_are_never_both_deleted(
    hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault(encrypted=False)
    plan = tmp_path / "plan"
    (line,) = duplicates(vault, hybrid, plan)
    with plan.open("a") as file:
        file.write(json.dumps(line | {"id": line["same_as"], "same_as": None, "seen": line["same_seen"]}) + "\n")
    with pytest.raises(RefusedError, match="would both be deleted"):
        vault.apply(plan)


def test_what_a_person_keeps_or_strikes_out_stays(
    hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault(encrypted=False)
    plan = tmp_path / "plan"
    before = state(hybrid)
    assert duplicates(vault, hybrid, plan)
    assert edit(plan, lambda line: "exact_duplicate" in line["kinds"], action="keep") == 1
    done = vault.apply(plan)
    assert (done.deleted, done.snapshot, done.undo) == (0, None, None)
    assert state(hybrid) == before
    with pytest.raises(RefusedError, match="may have been edited"):
        vault.audit(hybrid, plan=plan)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{"plan": "memkeep/plan/9", "system": "s", "store": "/", "taken": "t"}', "plan/9"),
        ("{", "line 1"),
    ],
)
def test_a_file_that_is_no_plan_is_named_with_its_line(
    new_vault: Callable[..., OpenVault], tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "plan").write_text(text)
    with pytest.raises(FileError, match=said):
        new_vault(encrypted=False).apply(tmp_path / "plan")


def test_a_word_that_is_no_action_is_refused(hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path) -> None:
    vault = new_vault(encrypted=False)
    duplicates(vault, hybrid, tmp_path / "plan")
    edit(tmp_path / "plan", lambda _: True, action="drop")
    with pytest.raises(FileError, match="action"):
        vault.apply(tmp_path / "plan")


def test_a_database_that_will_not_let_go_leaves_every_part_as_it_was(
    hybrid: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault(encrypted=False)
    change(
        hybrid / "facts.db",
        "CREATE TRIGGER no BEFORE DELETE ON facts BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    )
    before = state(hybrid)
    duplicates(vault, hybrid, tmp_path / "plan")
    with pytest.raises(StoreError, match="not this one"):
        vault.apply(tmp_path / "plan")
    assert state(hybrid) == before


def test_the_command_line_says_what_went_and_how_to_bring_it_back(
    hybrid: Path, run_cli: Callable[..., Any], home: Path
) -> None:
    assert run_cli("init", "--no-encryption").code == 0
    assert "clean-up.plan" in run_cli("audit", hybrid, "--plan", "clean-up.plan", "--category", "duplicates").stdout
    dry = run_cli("apply", "clean-up.plan", "--dry-run")
    assert "Would delete 1 record" in dry.stdout
    assert "Next: memkeep apply clean-up.plan" in dry.stdout
    ran = run_cli("apply", "clean-up.plan")
    assert "Deleted 1 record" in ran.stdout
    assert "To bring it all back: memkeep restore" in ran.stdout
    stale = run_cli("apply", "clean-up.plan", "--json")
    assert stale.code == 14
    assert stale.json["error"]["code"] == "plan_stale"

"""Every verb as a process, on a small store: its document, its words for people, its exit status, and no harm done."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import memkeep
from memkeep.cli.results import result_types
from memkeep.cli.table import VERBS
from memkeep.model import Finding, Severity
from memkeep.ops.outcome import status_of

SYSTEM = "custom"


class World(NamedTuple):
    """A store at two moments, and a vault with a snapshot of each."""

    store: Path
    vault: Path
    first: str
    second: str
    run: Callable[..., Any]


def _write(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store / "memory.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def world(home: Path, run_cli: Callable) -> World:
    store, vault = home / "an agent's müll", home / "vault"
    store.mkdir()
    _write(
        store,
        "CREATE TABLE memories (id TEXT PRIMARY KEY, text TEXT, category TEXT)",
        "INSERT INTO memories VALUES ('one', 'the cat sleeps', 'fact'), ('two', 'rye bread', 'taste')",
    )
    memkeep.init_vault(vault, encrypt=False)
    opened = memkeep.open_vault(vault)
    first = opened.backup(store).snapshots[0].id
    _write(
        store,
        "UPDATE memories SET text = 'the cat \x1b[2J runs' WHERE id = 'one'",
        "DELETE FROM memories WHERE id = 'two'",
        "INSERT INTO memories VALUES ('three', 'Lisbon', 'place')",
    )
    second = opened.backup(store, tag="nightly", label="the second").snapshots[0].id

    def run(*words: Any) -> Any:
        return run_cli(*words, "--vault", vault)

    return World(store, vault, first, second, run)


def _settings(world: World) -> Path:
    """Return settings that name the store and no other place."""
    file = world.vault.parent / "settings.toml"
    file.write_text(f'[stores.one]\npath = "{world.store}"\n', encoding="utf-8")
    return file


def words_for(verb: str, world: World) -> list[Any]:
    """Return a use of a verb that succeeds."""
    return {
        "init": ["init", "--no-encryption", "--vault", world.vault.parent / "other"],
        "backup": ["backup", world.store],
        "status": ["status", world.store],
        "schedule": ["schedule", "show"],
        "run": ["run", "--config", _settings(world)],
        "verify": ["verify", "latest", "--rung", "equivalent"],
        "discover": ["discover", world.store],
        "snapshots": ["snapshots"],
        "show": ["show", "latest"],
        "diff": ["diff", world.first[:10], "latest"],
        "history": ["history", "one"],
        "search": ["search", "CAT"],
        "restore": ["restore", world.first[:10], "--to", world.vault.parent / "back"],
        "demo": ["demo"],
        "completion": ["completion", "bash"],
    }[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_answers_programs_with_one_document_and_harms_nothing(
    verb: str, world: World, run_cli: Callable, tree_hash: Callable
) -> None:
    before = tree_hash(world.store)
    ran = run_cli("--vault", world.vault, *words_for(verb, world), "--json")
    assert (ran.code, ran.stderr) == (0, ""), ran.stdout
    assert set(ran.json) == {"schema", "ok", "result"}
    assert (ran.json["schema"], ran.json["ok"]) == (f"memkeep/{verb}/1", True)
    msgspec.convert(ran.result, result_types()[verb], strict=True)
    assert tree_hash(world.store) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_answers_people_with_plain_lines(verb: str, world: World, run_cli: Callable) -> None:
    ran = run_cli("--vault", world.vault, *words_for(verb, world))
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.strip()
    assert "\x1b" not in ran.stdout
    assert "Traceback" not in ran.stdout


def test_the_documents_have_the_fields_that_scripts_rely_on(world: World) -> None:
    store = world.run("discover", world.store, "--json").result["stores"][0]
    assert {"system", "path", "parts", "records"} <= set(store)
    assert set(store["parts"][0]) == {"name", "engine", "role"}
    report = world.run("backup", world.store, "--json").result["snapshots"][0]
    assert set(report) == {
        "id",
        "system",
        "path",
        "records",
        "source_bytes",
        "added_bytes",
        "duration_s",
        "rung",
        "consistent",
        "omitted",
        "findings",
    }
    assert set(world.run("verify", "--json").result) == {"snapshot", "rung", "findings"}
    every = world.run("verify", "--all", "--json").result
    assert set(every) == {"snapshots", "findings"}
    assert set(every["snapshots"][0]) == {"snapshot", "rung", "findings"}
    assert world.run("diff", world.first, world.second, "--json").result == {
        "added": ["three"],
        "removed": ["two"],
        "changed": [{"id": "one", "fields": {"text": ["the cat sleeps", "the cat \x1b[2J runs"]}}],
    }


def test_init_gives_what_is_needed_to_open_the_vault(home: Path, run_cli: Callable) -> None:
    password = home / "password"
    password.write_text("a word\n", encoding="utf-8")
    made = run_cli("init", "--vault", "v", "--password-file", password, "--json").result
    assert set(made) == {"vault", "id", "encrypted", "recovery_key"}
    assert made["encrypted"] is True
    key = home / "recovery"
    key.write_text(f"{made['recovery_key'].lower()}\n", encoding="utf-8")
    for way in (["--password-file", password], ["--password-file", key], ["--password-command", "echo 'a word'"]):
        assert run_cli("snapshots", "--vault", "v", *way).code == 0
    assert run_cli("snapshots", "--vault", "v", "--password-command", "echo wrong").code == 12
    assert run_cli("init", "--vault", "v", "--password-file", password).code == 13


def test_options_of_all_verbs_stand_before_or_after_the_verb(world: World, run_cli: Callable) -> None:
    vault = ["--vault", world.vault]
    answers = {
        run_cli(*words).stdout
        for words in (
            ["--json", *vault, "snapshots"],
            ["--json", "snapshots", *vault],
            [*vault, "snapshots", "--json"],
            ["--vault", "nowhere", "snapshots", *vault, "--json"],
        )
    }
    assert len(answers) == 1
    assert len(json.loads(answers.pop())["result"]["snapshots"]) == 2


def test_the_flag_wins_over_the_environment_and_that_over_the_settings(
    world: World, home: Path, run_cli: Callable
) -> None:
    settings = home / ".config" / "memkeep" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'vault = "main"\n[vaults.main]\nurl = "{world.vault}"\n', encoding="utf-8")
    assert len(run_cli("snapshots", "--json").result["snapshots"]) == 2
    assert run_cli("snapshots", env={"MEMKEEP_VAULT": "elsewhere"}).code == 10
    assert run_cli("snapshots", "--vault", "main", env={"MEMKEEP_VAULT": "elsewhere"}).code == 0
    other = home / "other.toml"
    other.write_text('vault = "elsewhere"\n', encoding="utf-8")
    assert run_cli("snapshots", "--config", other).code == 10
    assert run_cli("snapshots", env={"MEMKEEP_CONFIG": str(other)}).code == 10
    assert run_cli("snapshots", "--config", "missing.toml").code == 2
    other.write_text('vualt = "elsewhere"\n', encoding="utf-8")
    assert "`vault`" in run_cli("snapshots", "--config", other).stderr


def test_snapshots_can_be_chosen_by_tag_and_by_system(world: World) -> None:
    def listed(*words: str) -> list[str]:
        return [row["id"] for row in world.run("snapshots", *words, "--json").result["snapshots"]]

    assert listed() == [world.first, world.second]
    assert listed("--tag", "nightly") == [world.second]
    assert listed("--system", SYSTEM) == [world.first, world.second]
    assert listed("--system", "oc-memory") == []


def test_memories_can_be_found_and_followed(world: World) -> None:
    hits = world.run("search", "cat", "--json").result["hits"]
    assert [(hit["id"], len(hit["snapshots"])) for hit in hits] == [("one", 1), ("one", 1)]
    assert world.run("search", "cat", "--snapshot", world.first[:8], "--json").result["hits"][0]["text"] == (
        "the cat sleeps"
    )
    moments = world.run("history", "two", "--json").result["moments"]
    assert [moment["event"] for moment in moments] == ["added", "removed"]
    shown = world.run("history", "one").stdout
    assert "the cat \\x1b[2J runs" in shown


def test_a_dry_run_writes_nothing(world: World, home: Path, tree_hash: Callable) -> None:
    before = tree_hash(home)
    assert world.run("backup", world.store, "--dry-run", "--json").result["snapshots"][0]["id"] == ""
    assert world.run("restore", "latest", "--to", home / "back", "--dry-run", "--json").result["dry_run"] is True
    assert tree_hash(home) == before


def test_a_restored_store_is_the_old_one(world: World, home: Path) -> None:
    back = home / "back"
    assert world.run("restore", world.first[:8], "--to", back, "--part", "memory.db").code == 0
    with closing(sqlite3.connect(back / "memory.db")) as connection:
        assert connection.execute("SELECT text FROM memories WHERE id = 'one'").fetchone() == ("the cat sleeps",)
    assert world.run("diff", world.first, back, "--json").result == {"added": [], "removed": [], "changed": []}
    assert world.run("restore", world.first[:8], "--to", back).code == 13


def test_in_place_needs_the_system_s_name_and_says_how_to_undo(world: World, tree_hash: Callable) -> None:
    before = tree_hash(world.store)
    refused = world.run("restore", world.first[:8], "--in-place")
    assert refused.code == 13
    assert f"--confirm={SYSTEM}" in refused.stderr
    assert tree_hash(world.store) == before
    done = world.run("restore", world.first[:8], "--in-place", f"--confirm={SYSTEM}")
    assert done.code == 0
    assert "Undo: " in done.stdout
    assert world.run("diff", world.first, world.store, "--json").result == {"added": [], "removed": [], "changed": []}


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "latest"],
        ["restore", "latest", "--to", "x", "--in-place"],
        ["restore", "latest", "--to", "x", "--part", "memroy.db"],
        ["verify", "latest", "--all"],
        ["backup", ".", "--no-secrets", "--include-secrets"],
        ["search", " "],
        ["snapshots", "--password-file", "a", "--password-command", "b", "--config", "missing"],
    ],
)
def test_contradictory_words_are_usage_errors(words: list[str], world: World) -> None:
    ran = world.run(*words, "--json")
    assert (ran.code, ran.json["error"]["exit"]) == (2, 2)


@pytest.mark.parametrize(
    "words",
    [["show", "ffff0"], ["history", "nobody"], ["backup", "nowhere"], ["discover", "nowhere"], ["diff", "x", "y"]],
)
def test_what_is_not_there_is_named(words: list[str], world: World) -> None:
    ran = world.run(*words)
    assert ran.code == 1
    lines = ran.stderr.splitlines()
    assert len(lines) == 3
    assert any(word in lines[0] for word in words[1:])
    assert lines[2].startswith("Next: ")


@pytest.mark.damage
def test_damaged_bytes_end_with_20_and_a_whole_document(world: World) -> None:
    pack = max((world.vault / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    for words in (["verify", "--all"], ["verify", world.first[:8]], ["verify", "latest"]):
        ran = world.run(*words, "--json")
        assert ran.code == 20, ran.stdout
        assert ran.json["ok"] is True
        named = [finding for finding in ran.result["findings"] if finding["object"]]
        if named:
            assert pack.name in named[0]["object"]
            break
    else:
        pytest.fail("no verify named the damaged object")
    shown = world.run("verify", "--all")
    assert shown.code == 20
    assert pack.name in shown.stdout
    refused = world.run("restore", world.first[:8], "--to", "back")
    assert refused.code == 20
    assert not (world.store.parent / "back").exists()


def _findings() -> Iterator[tuple[list[Finding], int]]:
    def finding(code: str, severity: Severity, obj: str | None = None) -> Finding:
        return Finding(code=code, severity=severity, message="m", object=obj)

    worry = finding("plain_text", Severity.WARNING)
    broken = finding("sqlite_damaged", Severity.ERROR)
    unread = finding("part_unread", Severity.ERROR)
    damaged = finding("damaged", Severity.ERROR, "data/ab/cd")
    yield [], 0
    yield [worry], 0
    yield [worry, broken], 4
    yield [broken, unread], 3
    yield [unread, damaged], 20


@pytest.mark.parametrize(("findings", "status"), list(_findings()))
def test_the_worst_finding_decides_the_exit_status(findings: list[Finding], status: int) -> None:
    assert status_of(findings) == status


def test_memkeep_alone_says_what_there_is_and_what_to_do_next(world: World, run_cli: Callable) -> None:
    alone = run_cli()
    assert alone.code == 0
    assert len(alone.stdout.splitlines()) <= 10
    assert alone.stdout.splitlines()[-1].startswith("Next: memkeep ")
    assert run_cli("--json").json["schema"] == "memkeep/status/1"
    with_vault = run_cli("--vault", world.vault)
    assert str(world.store) in with_vault.stdout
    assert len(with_vault.stdout.splitlines()) <= 10


def test_names_that_are_no_unicode_can_be_told(home: Path, run_cli: Callable) -> None:
    odd = Path(os.fsdecode(os.fsencode(home) + b"/agent \xff"))
    odd.mkdir()
    _write(odd, "CREATE TABLE memories (id TEXT PRIMARY KEY, text TEXT)")
    assert run_cli("discover", odd, "--json").result["stores"][0]["path"] == str(odd)
    assert run_cli("discover", odd).stdout.splitlines()[0].endswith("agent \\udcff")

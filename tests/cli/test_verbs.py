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
from memkeep.errors import DamagedError
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


def _mirror(world: World) -> Path:
    """Return another vault."""
    place = world.vault.parent / "mirror"
    if not place.exists():
        memkeep.init_vault(place, encrypt=False)
    return place


def _entities(world: World) -> Path:
    """Return a file as the reference server of MCP writes it."""
    file = world.vault.parent / "memory.jsonl"
    file.write_text('{"type":"entity","name":"Ada","entityType":"person","observations":["likes tea"]}\n')
    return file


def _cells(world: World) -> Path:
    """Return a store of oc-memory."""
    file = world.vault.parent / "cells.db"
    assert world.run("import", _entities(world), "--into", f"oc-memory:{file}").code == 0
    return file


def _plan(world: World) -> Path:
    """Return a plan that deletes a record which is there twice."""
    twice, plan = world.vault.parent / "twice", world.vault.parent / "plan"
    twice.mkdir()
    _write(
        twice,
        "CREATE TABLE memories (id TEXT PRIMARY KEY, text TEXT)",
        "INSERT INTO memories VALUES ('one', 'the cat sleeps all day'), ('two', 'the cat sleeps all day')",
    )
    assert world.run("audit", twice, "--category", "duplicates", "--plan", plan).code in {0, 4}
    return plan


def words_for(verb: str, world: World) -> list[Any]:
    """Return a use of a verb that succeeds."""
    if verb == "embed":
        return ["embed", _cells(world), "--missing", "--model", "nomic-embed-text", "--provider", "ollama", "--dry-run"]
    if verb == "apply":
        return ["apply", _plan(world), "--dry-run"]
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
        "copy": ["copy", "--to", _mirror(world)],
        "pack": ["pack", "latest", "-o", world.vault.parent / "memory.tar.zst"],
        "estimate": ["estimate", world.store],
        "export": ["export", "latest", "--format", "json", "-o", world.vault.parent / "export"],
        "import": ["import", _entities(world), "--into", f"oc-memory:{world.vault.parent / 'imported.db'}"],
        "migrate": ["migrate", "latest", "--to", f"oc-memory:{world.vault.parent / 'moved.db'}"],
        "audit": ["audit", "latest", "--category", "duplicates"],
        "forget": ["forget", "--keep-last", "1"],
        "prune": ["prune"],
        "key": ["key", "list"],
        "repair": ["repair"],
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
        "user",
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
        "collections": 1,
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
    assert world.run("diff", world.first, back, "--json").result == {
        "added": [],
        "removed": [],
        "changed": [],
        "collections": 1,
    }
    assert world.run("restore", world.first[:8], "--to", back).code == 13


def test_rows_beside_the_records_make_a_difference_that_is_said(world: World) -> None:
    with closing(sqlite3.connect(world.store / "memory.db")) as connection, connection:
        connection.execute("CREATE TABLE beside (name)")
        connection.execute("INSERT INTO beside VALUES (1)")
    shown = world.run("diff", "latest", world.store)
    assert shown.stdout == "No record differs, but other rows do: memory.db/beside\n"


def test_in_place_needs_the_system_s_name_and_says_how_to_undo(world: World, tree_hash: Callable) -> None:
    before = tree_hash(world.store)
    refused = world.run("restore", world.first[:8], "--in-place")
    assert refused.code == 13
    assert f"--confirm={SYSTEM}" in refused.stderr
    assert tree_hash(world.store) == before
    done = world.run("restore", world.first[:8], "--in-place", f"--confirm={SYSTEM}")
    assert done.code == 0
    assert "Undo: " in done.stdout
    assert world.run("diff", world.first, world.store, "--json").result == {
        "added": [],
        "removed": [],
        "changed": [],
        "collections": 1,
    }


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


def test_forget_names_what_goes_and_what_stays_and_why(world: World) -> None:
    plan = world.run("forget", "--keep-last", "1", "--dry-run")
    assert plan.code == 0
    rows = {line.split()[0]: line for line in plan.stdout.splitlines() if line[:1] in "0123456789abcdef"}
    assert "would go" in rows[world.first[:12]]
    assert "last, last good" in rows[world.second[:12]]
    assert "Would forget 1 snapshot and keep 1." in plan.stdout
    done = world.run("forget", "--keep-last", "1")
    assert "Forgot 1 snapshot, kept 1." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Next: memkeep prune --vault ")
    assert [one["id"] for one in world.run("snapshots", "--json").result["snapshots"]] == [world.second]


def test_forget_takes_its_rules_from_the_settings_when_no_flag_has_any(world: World, home: Path) -> None:
    nothing = world.run("forget", "--json")
    assert (nothing.code, nothing.json["error"]["code"]) == (2, "retention")
    assert nothing.json["error"]["hint"].startswith("memkeep forget --keep-daily 7")
    settings = home / "settings.toml"
    settings.write_text('[retention]\npolicy = "rolling-7"\n', encoding="utf-8")
    kept = world.run("forget", "--config", settings, "--json").result["kept"]
    assert [one["reasons"][0] for one in kept] == ["within 7d", "within 7d"]
    kept = world.run("forget", "--config", settings, "--keep-tag", "nightly", "--dry-run", "--json").result["kept"]
    assert [one["reasons"] for one in kept] == [["tag nightly", "last good"]]


def test_forget_never_mixes_names_and_rules_and_wants_the_last_one_confirmed(world: World) -> None:
    assert world.run("forget", world.first[:8], "--keep-last", "1").code == 2
    assert world.run("forget", "--keep-last", "0").code == 2
    assert world.run("forget", "--keep-last", "-1").code == 2
    last = world.run("forget", world.first, world.second, "--json")
    assert (last.code, last.json["error"]["code"]) == (13, "last_good")
    assert world.run("forget", world.first, world.second, f"--confirm={SYSTEM}").code == 0


def test_forget_offers_the_policies_that_there_are() -> None:
    from memkeep.cli.commands.forget import POLICY_NAMES
    from memkeep.ops.retention import POLICIES

    assert tuple(POLICIES) == POLICY_NAMES


def test_passwords_are_added_changed_and_revoked(home: Path, run_cli: Callable) -> None:
    words = {name: home / name for name in ("one", "two", "three")}
    for name, path in words.items():
        path.write_text(f"{name}\n", encoding="utf-8")
    old = run_cli("init", "--vault", "v", "--password-file", words["one"], "--json").result["recovery_key"]

    def run(*more: Any, by: str = "one") -> Any:
        return run_cli("key", *more, "--vault", "v", "--password-file", words[by])

    shown = run("add", "--new-password-file", words["two"], "--label", "laptop")
    assert (shown.code, shown.stderr) == (0, "")
    assert "laptop" in shown.stdout
    assert run("change", "--new-password-command", "echo three", by="two").code == 0
    assert run("list", by="two").code == 12
    mine = next(row for row in run("list", "--json", by="three").result["slots"] if row["yours"])
    assert mine["label"] == "laptop"
    refused = run("remove", mine["id"][:8], "--json")
    assert (refused.code, refused.json["error"]["code"]) == (13, "not_confirmed")
    hint = refused.json["error"]["hint"].split()
    assert run_cli(*hint[1:], "--password-file", words["one"]).code == 0
    assert run("list", by="three").code == 12
    new = run("recovery", "--json").result["recovery_key"]
    for key, code in ((old, 12), (new, 0)):
        assert run_cli("key", "list", "--vault", "v", "--password-command", f"echo {key}").code == code
    assert (
        run_cli("verify", "--all", "--vault", "v", "--password-file", words["one"], "--json").result["findings"] == []
    )


def test_key_refuses_words_that_make_no_sense(world: World) -> None:
    for words in (
        ["list", "abc"],
        ["remove", "--label", "x"],
        ["add", "--new-password-file", "a", "--new-password-command", "b"],
        ["rotate"],
    ):
        assert world.run("key", *words).code == 2
    assert (
        world.run("key", "add", "--new-password-command", "echo x", "--json").json["error"]["code"] == "not_encrypted"
    )


def test_without_a_terminal_key_says_which_flag_gives_the_new_password(home: Path, run_cli: Callable) -> None:
    run_cli("init", "--vault", "v", "--password-command", "echo pw")
    ran = run_cli("key", "add", "--vault", "v", "--password-command", "echo pw", "--json")
    assert (ran.code, ran.json["error"]["hint"]) == (
        12,
        "memkeep key add --new-password-file FILE --vault v --password-command 'echo pw'",
    )


def test_discover_names_what_is_missing_first(world: World, run_cli: Callable) -> None:
    assert "memkeep init" in run_cli("discover", world.store).stdout.splitlines()[-1]
    assert "memkeep backup" in world.run("discover", world.store).stdout.splitlines()[-1]


def test_status_names_a_snapshot_whose_manifest_is_lost(world: World) -> None:
    (world.vault / "snapshots" / world.first).unlink()
    ran = world.run("status", world.store)
    assert ran.code == DamagedError.exit
    assert f"damaged or lost: {world.first}" in ran.stdout
    assert world.run("status", world.store, "--json").result["unreadable"] == [world.first]

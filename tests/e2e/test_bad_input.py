"""What people do wrong, and what is wrong with their stores: an error of three lines, its exit status, no harm done."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import memkeep
from memkeep.cli.main import run
from memkeep.library import OpenVault
from memkeep.testing import agent
from memkeep.vault import format

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("private_tmp")]

Tree = Callable[[Path], dict[str, str]]


class Told(NamedTuple):
    """Exit status, and what was said."""

    exit: int
    out: str
    err: str


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault], home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("os.fsync", lambda _: None)
    new_vault()
    monkeypatch.setenv("MEMKEEP_PASSWORD", "pw")
    monkeypatch.setenv("MEMKEEP_VAULT", str(home / "vault"))
    return home / "vault"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def said(*words: Any) -> Told:
        status = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return Told(status, out, err)

    return said


def is_an_error(told: Told, exit: int, *parts: str) -> None:
    """Check that these three lines were said, and nothing else: what; what is unchanged; what to do next."""
    assert told.exit == exit, told
    assert told.out == ""
    what, unchanged, following = told.err.splitlines()
    assert what.startswith("Error: ")
    assert unchanged
    assert following.startswith("Next: ")
    for part in parts:
        assert part in told.err


def database(path: Path, *statements: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return path


def notes(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "one.md").write_text("# One\n")
    return folder


def test_what_is_no_store_is_refused(vault: Path, say: Callable[..., Told], tmp_path: Path, tree_hash: Tree) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.db").touch()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "zero.db").touch()
    (tmp_path / "dotenv").mkdir()
    (tmp_path / "dotenv" / ".env").write_text("KEY=1\n")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    before = tree_hash(vault)
    for name, said in {
        "nowhere": "does not exist",
        "empty": "holds nothing to keep",
        "zero.db": "holds nothing to keep",
        "only": "holds nothing to keep",
        "dotenv": "holds nothing to keep",
        "dangling": "dangling",
        "pipe": "neither a folder nor a file",
        "/dev/null": "neither a folder nor a file",
    }.items():
        for verb in ("backup", "discover"):
            is_an_error(say(verb, tmp_path / name), 1, name, said)
    is_an_error(say("backup"), 1, "no store of agent memory was found")
    assert tree_hash(vault) == before


def test_a_database_that_is_none_is_kept_as_bytes_and_said_to_be_a_problem(
    vault: Path, say: Callable[..., Told], tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"\x93\x11" * 4096)
    torn = database(tmp_path / "torn.db", "CREATE TABLE memories(id TEXT, text TEXT)")
    with closing(sqlite3.connect(torn)) as connection, connection:
        connection.executemany("INSERT INTO memories VALUES(?, ?)", [(str(n), "x" * 500) for n in range(100)])
    os.truncate(torn, 20_000)
    for path, why in ((garbage, "does not begin as an SQLite file"), (torn, "malformed")):
        told = say("backup", path, "--json")
        assert told.exit == 4, told
        [report] = json.loads(told.out)["result"]["snapshots"]
        assert report["rung"] == "intact"
        assert [why in finding["message"] for finding in report["findings"]] == [True]
        assert say("verify", report["id"][:12], "--rung", "equivalent").exit == 4
        told = say("restore", report["id"], "--to", tmp_path / "back" / path.name)
        assert told.exit == 0
        assert (tmp_path / "back" / path.name / path.name).read_bytes() == path.read_bytes()
    assert vault.is_dir()


def test_a_table_without_the_usual_columns_is_kept_with_no_records(
    vault: Path, say: Callable[..., Told], tmp_path: Path
) -> None:
    for number, statements in enumerate(
        [
            ("CREATE TABLE facts(id TEXT, text TEXT, category TEXT, decay_class TEXT)",),  # of hybrid, but for a column
            ("CREATE TABLE mem_cells(id INTEGER, scene TEXT, cell_type TEXT, content TEXT)",),  # of oc-memory, but one
            ("CREATE TABLE t(x)", "INSERT INTO t VALUES (1)"),
        ]
    ):
        path = database(tmp_path / f"{number}.db", *statements)
        told = say("backup", path, "--json")
        [report] = json.loads(told.out)["result"]["snapshots"]
        assert (told.exit, report["system"], report["rung"]) == (0, "custom", "readable")
    assert vault.is_dir()


def test_a_column_that_the_settings_name_and_the_table_lacks_is_named(
    vault: Path, say: Callable[..., Told], tmp_path: Path, home: Path
) -> None:
    database(tmp_path / "mine" / "some.db", "CREATE TABLE notes(key TEXT, body TEXT)")
    settings = home / "settings.toml"
    settings.write_text(
        f'[stores.mine]\npath = "{tmp_path / "mine"}"\nsystem = "custom"\n'
        '[[stores.mine.parts]]\nname = "some.db"\ntable = "notes"\nid = "key"\ntext = "boddy"\n'
    )
    is_an_error(say("backup", tmp_path / "mine", "--config", settings), 2, "boddy", "body")
    settings.write_text(settings.read_text().replace("boddy", "body"))
    assert say("backup", tmp_path / "mine", "--config", settings).exit == 0
    assert vault.is_dir()


def test_a_lance_table_whose_manifest_is_cut_is_not_taken_for_kept(
    vault: Path, say: Callable[..., Told], copy_store: Callable[..., Path], tree_hash: Tree
) -> None:
    table = copy_store("memory-lancedb-2026.3.13", "lancedb")
    for manifest in (table / "memories.lance" / "_versions").iterdir():
        os.truncate(manifest, 20)
    before = tree_hash(table), tree_hash(vault)
    is_an_error(say("backup", table), 1, "manifest")
    assert (tree_hash(table), tree_hash(vault)) == before

    memory = agent.build(table.parent / "memory")
    for manifest in (memory / "lancedb" / "memories.lance" / "_versions").glob("*.manifest"):
        os.truncate(manifest, 20)
    told = say("backup", memory, "--json")
    assert told.exit == 3  # some of the source was not read
    [report] = json.loads(told.out)["result"]["snapshots"]
    assert [omission["part"] for omission in report["omitted"]] == ["lancedb/memories.lance"]
    assert [finding["code"] for finding in report["findings"]] == ["part_unread"]
    assert report["records"] == 31


class Vanishing:
    """Hears of progress, and removes a store when a step begins."""

    def __init__(self, store: Path, at: str) -> None:
        self._store, self._at = store, at

    def step(self, name: str, total: int | None = None) -> None:
        assert total is None or total >= 0
        if name == self._at:
            shutil.rmtree(self._store, ignore_errors=True)

    def advance(self, amount: int = 1) -> None:
        assert amount >= 0

    def note(self, text: str) -> None:
        assert text


@pytest.mark.parametrize("step", ["freezing", "facts.db", "lancedb/memories.lance", "memory.wal", "committing"])
def test_a_store_that_vanishes_half_way_is_whole_in_the_vault_or_not_in_it(
    step: str, vault: Path, tmp_path: Path
) -> None:
    opened = memkeep.open_vault(vault, "pw")
    store = agent.build(tmp_path / "memory")
    error = None
    try:
        opened.backup(store, events=Vanishing(store, step))
    except memkeep.errors.MemkeepError as caught:
        error = caught
    assert not store.exists()
    made = memkeep.open_vault(vault, "pw").snapshots().snapshots
    if error is not None:
        assert (error.exit, made) == (1, ())
        assert error.hint
        assert error.unchanged
    else:
        memkeep.open_vault(vault, "pw").restore(to=tmp_path / "back")
        assert agent.read_moment(tmp_path / "back").whole
    assert error is not None or step != "freezing"
    assert error is None or step != "committing"


def test_a_link_that_leaves_the_store_is_left_out_and_said(
    vault: Path, say: Callable[..., Told], tmp_path: Path
) -> None:
    store = notes(tmp_path / "store")
    (tmp_path / "secret.txt").write_text("not of this store")
    (store / "out.txt").symlink_to("../secret.txt")
    (store / "away").symlink_to("/etc")
    (store / "in.md").symlink_to("one.md")
    [report] = json.loads(say("backup", store, "--json").out)["result"]["snapshots"]
    assert {omission["part"] for omission in report["omitted"]} == {"out.txt", "away"}
    assert say("restore", "latest", "--to", tmp_path / "back").exit == 0
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"one.md", "in.md"}
    assert (tmp_path / "back" / "in.md").readlink() == Path("one.md")
    assert vault.is_dir()


@pytest.mark.parametrize("name", ["with space", "ünïcödé 日本 🧠", "-rf", "a'b\"c", "new\nline", "*?[x]", "$HOME;`id`"])
def test_odd_paths_are_paths_as_any_other(
    name: str, vault: Path, say: Callable[..., Told], tmp_path: Path, copy_store: Callable[..., Path]
) -> None:
    store = tmp_path / name / "store"
    store.mkdir(parents=True)
    shutil.copy(copy_store("oc-memory") / "memory.db", store / f"{name}.db")
    (store / f"{name}.md").write_text("# One\n")
    told = say("backup", store, "--json")
    assert told.exit == 0, told
    reports = json.loads(told.out)["result"]["snapshots"]
    assert any(report["path"].startswith(str(store)) for report in reports)
    target = tmp_path / name / "back to"
    assert say("restore", "latest", "--to", target).exit == 0
    assert (target / f"{name}.db").read_bytes() == (store / f"{name}.db").read_bytes()
    assert say("diff", "latest", store).exit == 0
    assert vault.is_dir()


def test_a_wrong_password_and_no_password_are_told_apart(
    vault: Path, say: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, tree_hash: Tree
) -> None:
    before = tree_hash(vault)
    monkeypatch.setenv("MEMKEEP_PASSWORD", "another")
    for words in (
        ["snapshots"],
        ["verify"],
        ["backup", str(vault.parent)],
        ["status"],
        ["restore", "latest", "--to", "x"],
    ):
        is_an_error(say(*words), 12, "password")
    monkeypatch.delenv("MEMKEEP_PASSWORD")
    is_an_error(say("snapshots"), 12, "--password-file")
    assert tree_hash(vault) == before


def test_a_vault_of_a_newer_version_says_so(vault: Path, say: Callable[..., Told], tree_hash: Tree) -> None:
    config = json.loads((vault / "config").read_text()) | {"version": 2, "digest": "", "more": ["to", "come"]}
    blank = json.dumps(config).encode()
    (vault / "config").write_bytes(blank.replace(b'""', f'"{format.digest_of(blank)}"'.encode()))
    before = tree_hash(vault)
    is_an_error(say("snapshots"), 1, "version 2", "upgrade memkeep")
    assert json.loads(say("verify", "--json").out)["error"]["code"] == "vault_too_new"
    assert tree_hash(vault) == before


def test_what_is_no_vault_is_told_apart(vault: Path, say: Callable[..., Told], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "empty").mkdir()
    is_an_error(say("snapshots", "--vault", tmp_path / "nowhere"), 10, "memkeep init --vault")
    is_an_error(say("snapshots", "--vault", tmp_path / "empty"), 10, "memkeep init --vault")
    is_an_error(say("snapshots", "--vault", tmp_path / "file"), 1, "Not a directory")
    is_an_error(say("snapshots", "--vault", "ftp://server/x"), 2, "ftp://server/x")
    is_an_error(say("init", "--vault", vault), 13, "is a vault already")
    is_an_error(say("init", "--vault", tmp_path / "file"), 1, "Not a directory")


def test_a_vault_is_not_made_among_other_things(
    vault: Path, say: Callable[..., Told], tmp_path: Path, tree_hash: Tree
) -> None:
    store = notes(tmp_path / "store")
    before = tree_hash(store)
    is_an_error(say("init", "--vault", store), 13, "one.md")
    assert tree_hash(store) == before
    (tmp_path / "killed").mkdir()
    shutil.copytree(vault / "keys", tmp_path / "killed" / "keys")  # as a killed `init` leaves it
    assert say("init", "--vault", tmp_path / "killed").exit == 0


def test_a_vault_that_lies_in_the_store_does_not_keep_itself(
    vault: Path, say: Callable[..., Told], tmp_path: Path
) -> None:
    store = notes(tmp_path / "store")
    inside = store / "my [vault]"
    shutil.move(vault, inside)
    for _ in range(2):
        told = say("backup", store, "--vault", inside, "--json")
        [report] = json.loads(told.out)["result"]["snapshots"]
        assert {"part": "my [vault]", "reason": "the vault itself"} in report["omitted"]
        assert report["source_bytes"] == len("# One\n")
    assert say("restore", "latest", "--to", tmp_path / "back", "--vault", inside).exit == 0
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["one.md"]


# Does these things once as it is, so that all is imported; then becomes somebody else, who may not even read the
# interpreter's own files.
AS_NOBODY = """
import json, os, sys
from memkeep.cli.main import run
words = json.loads(sys.argv[1])
os.environ["MEMKEEP_VAULT"] = sys.argv[2]
assert [run(each) for each in words] == [0] * len(words)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.environ["MEMKEEP_VAULT"] = sys.argv[3]
for name in [name for name in os.environ if name.startswith("XDG_")]:
    del os.environ[name]
os.environ["HOME"] = os.environ["TMPDIR"] = sys.argv[4]
import tempfile
tempfile.tempdir = None
for each in words:
    print(json.dumps(["status", run([word.replace("back-first", "back") for word in each])]))
"""


def test_a_vault_that_may_only_be_read_can_be_read_and_says_so(vault: Path, tmp_path: Path) -> None:
    store = notes(tmp_path / "store")
    memkeep.open_vault(vault, "pw").backup(store)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go
        there = Path(name)
        there.chmod(0o755)
        for path in (vault, store):
            shutil.copytree(path, there / path.name)
        shutil.copytree(vault, there / "first")
        before = {path: path.stat().st_mode for path in there.rglob("*")}
        for path in before:
            path.chmod(0o555 if path.is_dir() else 0o444)
        for folder in ("work", "first"):
            (there / folder).mkdir(exist_ok=True)
            (there / folder).chmod(0o777)
        words = [
            ["snapshots", "--json"],
            ["verify", "--rung", "equivalent", "--json"],
            ["restore", "latest", "--to", str(there / "work" / "back-first"), "--json"],
            ["backup", str(there / "store"), "--json"],
        ]
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, json.dumps(words), there / "first", there / "vault", there / "work"],
            env={**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = [json.loads(line) for line in done.stdout.splitlines()][len(words) :]
        assert said[1::2] == [["status", 0], ["status", 0], ["status", 0], ["status", 1]]
        error = said[-2]["error"]
        assert error["code"] == "storage_denied"
        assert "whole" in error["unchanged"]
        assert (there / "work" / "back" / "one.md").read_text() == "# One\n"
        for path in before:
            path.chmod(0o755)


def test_a_store_that_may_not_be_read_is_told(tmp_path: Path, say: Callable[..., Told], vault: Path) -> None:
    store = notes(tmp_path / "store")
    (store / "two.md").write_text("# Two\n")
    (store / "two.md").chmod(0)
    told = say("backup", store, "--json")
    [report] = json.loads(told.out)["result"]["snapshots"]
    if os.access(store / "two.md", os.R_OK):  # as root
        assert (told.exit, report["records"]) == (0, 2)
    else:
        assert told.exit == 3
        assert [omission["part"] for omission in report["omitted"]] == ["two.md"]
    assert vault.is_dir()

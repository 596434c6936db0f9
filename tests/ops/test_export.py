"""Exports: whole or not at all, told apart from what others wrote, checked later, and without secrets in git."""

import errno
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from tests.records.portable import Given, vector

import memkeep
from memkeep.errors import FileError, MemkeepError, RefusedError, StorageError, UsageError
from memkeep.events import Silent
from memkeep.ops import export as exporting
from memkeep.ops.export import ExportResult, export
from memkeep.ops.exported import verify_export
from memkeep.records.formats import csv as format_csv
from memkeep.records.formats.base import Format
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.record import Record, Relationship

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz123456"
PASSWORD = "hunter2-Tr0ub4dor"
RECORDS = [
    Record(id="a", text="the cat sleeps", vectors={"": vector(0.1, 0.2)}),
    Record(id="b", text="rye bread", title="bread"),
    Record(id="s", text="beside", collection="scenes", primary=False),
]
JOINED = Relationship(source="a", target="b", type="eats")
SOURCE = Given(*RECORDS, JOINED)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Return a folder with nothing in it."""
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def codes(folder: Path) -> list[tuple[str, str | None]]:
    return [(one.code, one.part) for one in verify_export(folder).findings]


def test_a_snapshot_gives_the_same_bytes_again(memory: Path, room: Path) -> None:
    memkeep.init_vault(room / "vault", encrypt=False)
    vault = memkeep.open_vault(room / "vault")
    vault.backup(memory)
    first = vault.export("latest", room / "a", format="json")
    second = vault.export("latest", room / "b", format="json")
    assert first.memories == 31
    assert first.checksum == second.checksum
    assert files(room / "a") == files(room / "b")


@pytest.mark.parametrize("format", FORMATS, ids=lambda one: one.name)
def test_every_format_is_sealed_checked_and_the_same_again(room: Path, format: Format) -> None:
    first, second = (export(SOURCE, room / name, format.name) for name in ("a", "b"))
    assert first.checksum == second.checksum
    assert files(room / "a") == files(room / "b")
    assert codes(room / "a") == []
    checked = verify_export(room / "a")
    assert (checked.format, checked.memories) == (format.name, 2 if format.name != "oc-memory" else checked.memories)


def test_a_live_store_is_exported_and_not_changed(memory: Path, room: Path, tree_hash: Callable) -> None:
    before = tree_hash(memory)
    made = memkeep.export_store(memory, room / "out", vectors=False)
    assert (made.memories, made.relationships) == (31, 12)
    assert b'embedding":[' not in (room / "out/export.json").read_bytes()
    assert tree_hash(memory) == before
    assert memkeep.verify_export(room / "out").memories == 31


def test_an_export_takes_the_place_of_another_and_its_stale_files_are_gone(room: Path) -> None:
    out = room / "out"
    export(SOURCE, out, "csv")
    out.chmod(0o755)
    assert set(files(out)) == {
        "memories.csv",
        "collections.csv",
        "relationships.csv",
        "metadata.json",
        "checksums.json",
    }
    made = export(SOURCE, out, "json")
    assert set(files(out)) == {*made.files, "checksums.json"} == {"export.json", "metadata.json", "checksums.json"}
    assert out.stat().st_mode & 0o777 == 0o755
    assert [one.name for one in room.iterdir()] == ["out"]
    assert (made.memories, made.relationships, made.collections) == (2, 1, {"scenes": 1})


@pytest.mark.parametrize("foreign", ["notes.md", ".hidden", "sub/notes.md", "checksums.json"])
def test_a_folder_with_files_of_others_is_refused(room: Path, foreign: str, tree_hash: Callable) -> None:
    (room / "out" / foreign).parent.mkdir(parents=True)
    (room / "out" / foreign).write_text('{"files": {}}')
    before = tree_hash(room)
    with pytest.raises(RefusedError, match=foreign):
        export(SOURCE, room / "out", "json")
    assert tree_hash(room) == before


def test_a_list_that_names_files_elsewhere_makes_nobody_remove_them(room: Path) -> None:
    (room / "precious").write_text("x")
    out = room / "out"
    export(SOURCE, out, "json")
    own = json.loads((out / "checksums.json").read_text())["files"]
    for name in ("../precious", str(room / "precious"), ".git/config"):
        (out / "checksums.json").write_text(json.dumps({"files": {**own, name: ""}, "combined": ""}))
        with pytest.raises(RefusedError):
            export(SOURCE, out, "json")
    assert (room / "precious").exists()


def test_a_file_or_a_folder_that_is_none_is_refused(room: Path) -> None:
    (room / "file").write_text("")
    with pytest.raises(RefusedError, match="no folder"):
        export(SOURCE, room / "file", "json")
    with pytest.raises(UsageError, match="no format 'xml'"):
        export(SOURCE, room / "out", "xml")


def test_when_the_disk_is_full_the_old_export_stays(
    room: Path, tree_hash: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(SOURCE, room / "out", "json")
    before = tree_hash(room)

    def full(source: Any, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(format_csv, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        export(SOURCE, room / "out", "csv")
    assert tree_hash(room) == before


def test_killed_between_the_two_names_the_old_export_comes_back(
    room: Path, tree_hash: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = room / "out"
    export(SOURCE, out, "json")
    before = tree_hash(room)
    out.rename(room / ".out.memkeep-old")
    monkeypatch.setattr(format_csv, "write", Mock(side_effect=OSError(errno.EIO, "gone")))
    with pytest.raises(StorageError):
        export(SOURCE, out, "csv")
    assert tree_hash(room) == before
    out.rename(room / ".out.memkeep-old")
    export(SOURCE, out, "jsonl")
    assert [one.name for one in room.iterdir()] == ["out"]


def test_killed_at_any_rename_among_files_of_others_the_next_export_mends_it(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename
    number = 0
    while True:
        out = room / str(number)
        _workspace(out)
        (out / "README.md").write_text("mine")
        export(SOURCE, out, "csv", git=True)
        calls = iter(range(number))

        def rename(path: Path, target: Path, calls: Iterator[int] = calls) -> Path:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return real(path, target)

        monkeypatch.setattr(Path, "rename", rename)
        try:
            export(SOURCE, out, "json", git=True)
            whole = True
        except KeyboardInterrupt:
            whole = False
        monkeypatch.setattr(Path, "rename", real)
        export(SOURCE, out, "jsonl", git=True)
        assert set(files(out)) == {
            *("README.md", "checksums.json", "metadata.json"),
            *("memories.jsonl", "collections.jsonl", "relationships.jsonl"),
        }
        assert codes(out) == [("export_foreign", "README.md")]
        number += 1
        if whole:
            break
    assert number > 4


def test_what_a_format_loses_is_said_before_anything_is_written(room: Path) -> None:
    said: list[tuple[str, bool]] = []

    class Hears(Silent):
        def note(self, text: str) -> None:
            said.append((text, any(room.iterdir())))

    made = export(SOURCE, room / "out", "markdown", events=Hears())
    assert said == [("markdown does not carry vectors of 1 record", False)]
    assert made.losses == {"vectors": 1}
    assert [one.code for one in made.findings] == ["export_loses"]
    assert json.loads((room / "out/metadata.json").read_text())["losses"] == {"vectors": 1}


def test_a_dry_run_counts_and_writes_nothing(room: Path) -> None:
    made = export(SOURCE, room / "out", "markdown", dry_run=True)
    assert (made.memories, made.relationships, made.losses, made.files) == (2, 1, {"vectors": 1}, ())
    assert not any(room.iterdir())


def test_the_checksums_can_be_redone_without_memkeep(room: Path) -> None:
    made = export(SOURCE, room, "csv")
    said = json.loads((room / "checksums.json").read_text())
    lines = "".join(f"{said['files'][name]}  {name}\n" for name in sorted(said["files"]))
    done = subprocess.run(
        ["sha256sum", "--check", "--strict"], check=False, input=lines, cwd=room, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(lines.encode()).hexdigest() == said["combined"] == made.checksum


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut_a_record(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def _break_a_record(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"content"', b'"content', 1))


@pytest.mark.parametrize(
    ("name", "harm", "found"),
    [
        ("memories.jsonl", _flip, ("export_changed", "memories.jsonl")),
        ("metadata.json", _flip, ("export_changed", "metadata.json")),
        ("memories.jsonl", Path.unlink, ("export_missing", "memories.jsonl")),
        ("metadata.json", Path.unlink, ("export_missing", "metadata.json")),
        ("checksums.json", Path.unlink, ("export_checksums", "checksums.json")),
        ("checksums.json", lambda path: path.write_text("{"), ("export_checksums", "checksums.json")),
        ("notes.txt", Path.touch, ("export_foreign", "notes.txt")),
        ("memories.jsonl", _break_a_record, ("export_broken", "memories.jsonl, line 1")),
        ("memories.jsonl", _cut_a_record, ("export_counts", None)),
        ("collections.jsonl", _cut_a_record, ("export_counts", None)),
        ("relationships.jsonl", _cut_a_record, ("export_counts", None)),
    ],
)
def test_harm_is_found_and_named(room: Path, name: str, harm: Callable[[Path], Any], found: Any) -> None:
    export(SOURCE, room / "out", "jsonl")
    assert codes(room / "out") == []
    harm(room / "out" / name)
    assert found in codes(room / "out")


def test_a_list_of_checksums_that_was_changed_with_its_file_is_found(room: Path) -> None:
    export(SOURCE, room / "out", "json")
    file, sums = room / "out/export.json", room / "out/checksums.json"
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_bytes(file.read_bytes().replace(b"the cat", b"the dog"))
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(file.read_bytes()).hexdigest()))
    assert codes(room / "out") == [("export_checksums", "checksums.json")]


def test_what_is_no_export_is_told_apart(room: Path) -> None:
    with pytest.raises(FileError, match="there is no folder"):
        verify_export(room / "gone")
    assert [code for code, _ in codes(room)] == ["export_checksums", "export_unknown"]


SECRETS = Given(
    Record(
        id="1",
        text=f"the key is {KEY} today",
        title=f"key {KEY}",
        tags=(KEY,),
        metadata={
            "password": PASSWORD,
            "dbPassword": PASSWORD,
            "deep": [{"note": KEY, "raw": KEY.encode()}],
            "place": "Lisbon",
        },
        native={"text": f"api_key = {KEY}"},
        vectors={"": vector(1, 2)},
    ),
    Relationship(source="1", target="1", type="t", metadata={"why": KEY}),
)


@pytest.mark.parametrize("name", ["json", "csv", "parquet", "markdown", "alf", "oc-memory"])
def test_no_secret_is_in_what_is_redacted_wherever_it_stood(room: Path, name: str) -> None:
    made = export(SECRETS, room / "out", name, redact=True)
    whole = b"".join(files(room / "out").values())
    assert KEY.encode() not in whole
    assert PASSWORD.encode() not in whole
    assert made.redacted is not None
    assert sum(made.redacted.values()) >= 8
    assert KEY not in repr(made)
    assert made.findings[-1].code == "export_redacted"


def test_redacted_texts_have_a_mark_and_the_rest_is_as_it_was(room: Path) -> None:
    export(SECRETS, room / "out", "json", redact=True)
    one = json.loads((room / "out/export.json").read_text())["memories"][0]
    assert one["content"].startswith("the key is [redacted ")
    assert one["content"].endswith("] today")
    assert one["metadata"]["password"].startswith("[redacted ")
    assert one["metadata"]["place"] == "Lisbon"
    assert one["embedding"] == [1.0, 2.0]
    plain = export(SECRETS, room / "plain", "json")
    assert plain.redacted is None
    assert KEY in (room / "plain/export.json").read_text()


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout


def _workspace(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    _git(folder, "init", "-q", "-b", "main")
    return folder


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = tmp_path_factory.mktemp("git") / "config"
    settings.write_text("[user]\nname = Anna\nemail = anna@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")


def test_git_has_the_export_and_nothing_else_of_what_lies_there(room: Path) -> None:
    work = _workspace(room / "work")
    (work / "mine.txt").write_text("mine")
    (work / "staged.txt").write_text("staged")
    _git(work, "add", "staged.txt")
    made = export(SOURCE, work / "memory", "json", git=True)
    assert made.commit == _git(work, "rev-parse", "HEAD").strip()
    assert _git(work, "show", "--name-only", "--format=%B").split("\n") == [
        "Memory of thanos: 3 added, 1 link changed",
        "",
        "+ the cat sleeps",
        "+ bread",
        "+ beside",
        "",
        "",
        "memory/checksums.json",
        "memory/export.json",
        "memory/metadata.json",
        "",
    ]
    assert _git(work, "status", "--porcelain") == "A  staged.txt\n?? mine.txt\n"


def test_the_message_says_what_changed_and_stale_files_leave_git(room: Path) -> None:
    work = _workspace(room / "work")
    export(SOURCE, work / "memory", "csv", git=True)
    later = [Record(id="a", text="the cat runs"), Record(id="c", text="Lisbon"), RECORDS[2]]
    made = export(Given(*later), work / "memory", "json", git=True)
    assert made.changes is not None
    assert (made.changes.added, made.changes.changed, made.changes.removed) == (1, 1, 1)
    assert _git(work, "log", "-1", "--format=%B").strip().split("\n") == [
        "Memory of thanos: 1 added, 1 changed, 1 removed, 1 link changed",
        "",
        "~ the cat runs",
        "+ Lisbon",
        "- bread",
    ]
    assert "memory/memories.csv" not in _git(work, "ls-files")
    assert _git(work, "status", "--porcelain") == ""


def test_nothing_new_is_no_commit(room: Path) -> None:
    export(SOURCE, room / "out", "json", git=True)
    again = export(SOURCE, room / "out", "json", git=True)
    assert again.commit is None
    assert again.changes == type(again.changes)()
    assert _git(room / "out", "rev-list", "--count", "HEAD") == "1\n"


def test_no_secret_goes_into_git_unless_that_is_said(room: Path) -> None:
    out = room / "out"
    export(SECRETS, out, "json")
    export(SECRETS, out, "json", git=True)
    export(Given(), out, "json", git=True)
    assert KEY not in _git(out, "log", "-p")
    export(SECRETS, out, "json", git=True, redact=False)
    assert KEY in _git(out, "log", "-p")


def test_a_file_in_the_way_is_not_replaced(room: Path) -> None:
    work = _workspace(room / "work")
    (work / "export.json").write_text("mine")
    with pytest.raises(RefusedError, match="no export wrote it"):
        export(SOURCE, work, "json", git=True)
    assert files(work) == {"export.json": b"mine"}


def test_an_export_of_a_repository_of_its_own_is_replaced_without_git_too(room: Path) -> None:
    export(SOURCE, room / "out", "json", git=True)
    export(SOURCE, room / "out", "csv")
    assert "memories.csv" in files(room / "out")
    assert _git(room / "out", "rev-list", "--count", "HEAD") == "1\n"


def test_a_push_goes_out_and_one_that_fails_says_that_the_commit_is_here(room: Path) -> None:
    bare, work = room / "bare.git", _workspace(room / "work")
    _git(room, "init", "-q", "--bare", str(bare))
    _git(work, "remote", "add", "origin", str(bare))
    made = export(SOURCE, work / "memory", "json", git=True, push=True)
    assert made.pushed
    assert _git(bare, "rev-parse", "main").strip() == made.commit
    _git(work, "remote", "set-url", "origin", f"https://anna:{PASSWORD}@localhost:1/x.git")
    with pytest.raises(MemkeepError) as error:
        export(Given(RECORDS[0]), work / "memory", "json", git=True, push=True)
    assert error.value.code == "push_failed"
    assert _git(work, "rev-parse", "HEAD")[:12] in error.value.unchanged
    assert PASSWORD not in error.value.message


def test_a_commit_that_git_refuses_is_an_error_and_the_files_are_there(room: Path) -> None:
    work = _workspace(room / "work")
    (work / ".gitignore").write_text("memory\n")
    with pytest.raises(MemkeepError, match="git add failed") as error:
        export(SOURCE, work / "memory", "json", git=True)
    assert error.value.code == "git_failed"
    assert codes(work / "memory") == []


def test_a_missing_library_is_named(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(source: Any, folder: Path) -> None:
        raise ModuleNotFoundError("No module named 'orjson'", name="orjson")

    fake = SimpleNamespace(name="fake", lossless=True, write=missing)
    monkeypatch.setattr(exporting, "FORMATS", (fake,))
    with pytest.raises(MemkeepError, match="orjson") as error:
        export(SOURCE, room / "out", "fake")
    assert error.value.hint == "pip install 'memkeep[export]'"


def test_only_a_commit_is_pushed(room: Path) -> None:
    with pytest.raises(UsageError):
        export(SOURCE, room / "out", "json", push=True)


def test_the_result_says_what_was_left_out(room: Path) -> None:
    source = Given(*RECORDS)
    source.about = source.about.__class__(system="x", path="/x", taken="2026-01-01T00:00:00+00:00", omitted=("y: z",))
    made: ExportResult = export(source, room / "out", "json")
    assert made.omitted == ("y: z",)
    assert json.loads((room / "out/export.json").read_text())["metadata"]["omitted"] == ["y: z"]

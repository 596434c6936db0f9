"""Plain files and folders: what is taken, what is left out and why, and that each file is one state."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memkeep import clock
from memkeep.engines import descriptors, files
from memkeep.engines.files import SMALL, FilesEngine, FilesOpened
from memkeep.errors import StoreError, UnstableError
from memkeep.model import Part, Role, Severity, TableMap
from memkeep.records import groups

NOTES = TableMap(collection="notes", table="", id="path", fields={"text": "text", "updated_at": "modified"})
LARGE = bytes(range(256)) * 12_000  # about 3 MB

Hold = Callable[..., AbstractContextManager[FilesOpened]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Make a store with notes, a large file, an empty folder and an empty file."""
    root = tmp_path / "store"
    (root / "workspace" / "memory" / "daily notes").mkdir(parents=True)
    (root / "workspace" / "empty").mkdir()
    (root / "workspace" / "MEMORY.md").write_text("# What I know\n\nCafé ☕ 日本語\n")
    (root / "workspace" / "memory" / "2026-01-02.md").write_text("A day.\r\n")
    (root / "workspace" / "memory" / "daily notes" / "länge.TXT").write_text("text")
    (root / "workspace" / "memory" / "log.jsonl").write_text('{"a": 1}\n')
    (root / "workspace" / "nothing.md").touch()
    (root / "workspace" / "large.bin").write_bytes(LARGE)
    for number, path in enumerate(sorted(root.rglob("*"))):
        if path.is_file():
            os.utime(path, ns=(0, 1_700_000_000_123_456_789 + number))
    return root


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    """Return `hold(root, name, path=None, **part)`: a context with the frozen part."""
    numbers = iter(range(1000))

    @contextmanager
    def held(root: Path, name: str, path: Path | None = None, **options: Any) -> Iterator[FilesOpened]:
        scratch = tmp_path / f"scratch-{next(numbers)}"
        scratch.mkdir()
        options = {"maps": (NOTES,)} | options
        place = path or (root if name == "." else root / name)
        part = Part(name=name, engine="files", role=Role.CANONICAL, path=str(place), **options)
        with FilesEngine().freeze(part, root, scratch) as opened:
            yield opened

    return held


def write_out(opened: FilesOpened, root: Path) -> Path:
    """Write an image as a restore does."""
    root.mkdir()
    for entry in sorted(opened.entries(), key=lambda entry: (entry.kind == "link", entry.path)):
        place = root / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "dir":
            place.mkdir(exist_ok=True)
        elif entry.kind == "link":
            place.symlink_to(entry.target)
        else:
            pieces = list(opened.stream(entry))
            assert all(0 < len(piece) <= 1 << 20 for piece in pieces)
            assert sum(map(len, pieces)) == entry.size
            place.write_bytes(b"".join(pieces))
            place.chmod(entry.mode)
            os.utime(place, ns=(0, entry.mtime_ns))
    return root


def descriptors_open() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def files_in(opened: FilesOpened) -> set[str]:
    return {entry.path for entry in opened.entries() if entry.kind == "file"}


def records(opened: FilesOpened) -> dict[str, dict[str, Any]]:
    out = {}
    for group in opened.scan({}):
        columns, rows = groups.decode(group.data)
        assert columns == ["path", "text", "size", "modified"]
        out |= {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    return out


def test_a_folder_is_taken_whole_with_its_permissions_times_and_empty_folders(
    store: Path, hold: Hold, tmp_path: Path, tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    (store / "workspace" / "MEMORY.md").chmod(0o600)
    (store / "workspace" / "memory").chmod(0o750)
    before = tree_hash(store)
    with hold(store, "workspace") as opened:
        entries = {entry.path: entry for entry in opened.entries()}
        root = write_out(opened, tmp_path / "restored")
        assert opened.omitted() == []
        assert opened.findings() == []
        assert opened.check() == []
        assert opened.held()
        assert not opened.moved()
    assert tree_hash(store) == before
    assert list(entries) == sorted(entries)
    assert entries["workspace/memory"].mode == 0o750
    assert entries["workspace/empty"].kind == "dir"
    assert entries["workspace/MEMORY.md"].mode == 0o600
    for path, entry in entries.items():
        live = store / path
        assert entry.mtime_ns == live.stat().st_mtime_ns
        if entry.kind == "file":
            assert (root / path).read_bytes() == live.read_bytes()


def test_the_root_itself_can_be_a_part(store: Path, hold: Hold, tmp_path: Path) -> None:
    with hold(store, ".") as opened:
        paths = {entry.path for entry in opened.entries()}
        assert "workspace/MEMORY.md" in paths
        assert "workspace" in paths
        assert not paths & {"", ".", "./workspace"}
        assert "workspace/MEMORY.md" in records(opened)
    link = tmp_path / "home"
    link.symlink_to(store)
    with hold(link, ".") as opened:
        assert {entry.path for entry in opened.entries()} == paths


def test_one_file_can_be_a_part(store: Path, hold: Hold, tmp_path: Path) -> None:
    with hold(store, "workspace/MEMORY.md") as opened:
        (entry,) = opened.entries()
        assert entry.path == "workspace/MEMORY.md"
        assert list(records(opened)) == ["workspace/MEMORY.md"]
        assert opened.baseline().tables[""].rows == 1
        root = write_out(opened, tmp_path / "restored")
    assert (root / "workspace" / "MEMORY.md").read_bytes() == (store / "workspace" / "MEMORY.md").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "memory.wal").write_text("x")
    with hold(store, "outside/memory.wal", elsewhere / "memory.wal") as opened:
        assert files_in(opened) == {"outside/memory.wal"}
        assert records(opened) == {}


def test_notes_become_records(store: Path, hold: Hold) -> None:
    (store / "workspace" / "bad.md").write_bytes(b"caf\xe9\n")
    os.utime(store / "workspace" / "bad.md", ns=(0, 1_600_000_000_000_001_999))
    with hold(store, "workspace") as opened:
        found = records(opened)
        facts = opened.baseline().facts
    assert sorted(found) == [
        "workspace/MEMORY.md",
        "workspace/bad.md",
        "workspace/memory/2026-01-02.md",
        "workspace/memory/daily notes/länge.TXT",
        "workspace/nothing.md",
    ]
    assert found["workspace/memory/2026-01-02.md"]["text"] == "A day.\r\n"
    assert found["workspace/MEMORY.md"]["text"] == "# What I know\n\nCafé ☕ 日本語\n"
    assert found["workspace/MEMORY.md"]["size"] == len((store / "workspace" / "MEMORY.md").read_bytes())
    assert found["workspace/nothing.md"]["text"] == ""
    assert found["workspace/bad.md"] == {
        "path": "workspace/bad.md",
        "text": {"text": "636166e90a"},
        "size": 5,
        "modified": "2020-09-13T12:26:40.000001+00:00",
    }
    assert facts["summary"]["notes"]["rows"] == 5


def test_a_map_says_which_notes_are_records(store: Path, hold: Hold) -> None:
    some = TableMap(collection="some", table="", id="path", include=("MEMORY.md", "memory/*.TXT"))
    rows = TableMap(collection="rows", table="memories", id="id")
    with hold(store, "workspace", maps=(some, rows)) as opened:
        assert sorted(records(opened)) == ["workspace/MEMORY.md", "workspace/memory/daily notes/länge.TXT"]
        assert len(files_in(opened)) == 6  # all are in the image


def test_groups_stay_when_a_note_is_added(tmp_path: Path, hold: Hold) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for number in range(200):
        (root / f"note-{number:03d}.md").write_text(f"note {number}")
    with hold(root, ".") as opened:
        before = {group.bucket: group for group in opened.scan({})}
    (root / "note-200.md").write_text("note 200")
    with hold(root, ".") as opened:
        best = groups.bits_for(200)
        after = {group.bucket: group for group in opened.scan({"notes": best})}
    assert best > 0
    assert {group.bits for group in before.values()} == {best}
    assert sum(before[bucket].data != after[bucket].data for bucket in before) == 1
    assert sum(group.rows for group in after.values()) == 201
    with hold(root, ".") as opened:
        assert {group.bits for group in opened.scan({"notes": best + 6})} == {best}


def test_the_digest_is_that_of_content_and_names(store: Path, hold: Hold, tmp_path: Path) -> None:
    def digest(**options: Any) -> str:
        with hold(store, "workspace", **options) as opened:
            list(opened.scan({}))
            return opened.baseline().tables[""].digest

    first = digest()
    with hold(store, "workspace") as opened:
        root = write_out(opened, tmp_path / "restored")
    part = Part(name="workspace", engine="files", role=Role.CANONICAL, path="/gone", maps=(NOTES,))
    with FilesEngine().open(part, root) as image:
        found = records(image)
        assert image.baseline().tables[""].digest == first
        assert image.baseline().tables[""].rows == 6
        assert b"".join(image.stream(next(e for e in image.entries() if e.path.endswith("large.bin")))) == LARGE
        assert not image.moved()
        assert image.held()
    with hold(store, "workspace") as opened:
        assert records(opened) == found
    seen = {first}
    note = store / "workspace" / "memory" / "2026-01-02.md"
    for change in (
        lambda: note.write_text("A daz.\r\n"),
        lambda: note.rename(note.with_name("2026-01-03.md")),
        (store / "workspace" / "empty").rmdir,
        lambda: (store / "workspace" / "here").symlink_to("MEMORY.md"),
        lambda: (store / "workspace" / "large.bin").write_bytes(LARGE[:-1] + b"x"),
    ):
        change()
        seen.add(digest())
    assert len(seen) == 6


def test_patterns_choose_what_belongs_to_the_part(store: Path, hold: Hold) -> None:
    with hold(store, "workspace", exclude=("memory", "*.bin")) as opened:
        assert files_in(opened) == {"workspace/MEMORY.md", "workspace/nothing.md"}
        assert opened.omitted() == []
    with hold(store, "workspace", exclude=("memory/daily notes/l[?]nge.TXT", "memory/daily notes")) as opened:
        assert len(files_in(opened)) == 5
    (store / "workspace" / "a[1]*.md").write_text("odd name")
    (store / "workspace" / "a1b.md").write_text("not that one")
    with hold(store, "workspace", exclude=("a[[]1][*].md",)) as opened:
        assert "workspace/a1b.md" in files_in(opened)
        assert "workspace/a[1]*.md" not in files_in(opened)
    with hold(store, "workspace", exclude=("a[1]*.md",)) as opened:  # as a path and as a pattern
        assert not files_in(opened) & {"workspace/a[1]*.md", "workspace/a1b.md"}
    with hold(store, "workspace", include=("MEMORY.md", "memory/*.TXT")) as opened:
        assert {entry.path for entry in opened.entries()} == {
            "workspace",
            "workspace/MEMORY.md",
            "workspace/memory",
            "workspace/memory/daily notes",
            "workspace/memory/daily notes/länge.TXT",
        }
        assert opened.omitted() == []


def test_dotenv_files_are_never_taken(store: Path, hold: Hold) -> None:
    for name in (".env", ".env.local", "prod.env", "memory/.env"):
        (store / "workspace" / name).write_text("KEY=secret")
    (store / "workspace" / "environment.md").write_text("about .env")
    with hold(store, "workspace") as opened:
        assert "workspace/environment.md" in files_in(opened)
        assert not any("KEY" in str(b"".join(opened.stream(entry))) for entry in opened.entries())
        assert {(one.part, one.reason) for one in opened.omitted()} == {
            (f"workspace/{name}", ".env files are never taken")
            for name in (".env", ".env.local", "prod.env", "memory/.env")
        }
    with hold(store, "workspace/.env") as opened:
        assert opened.entries() == []
        assert len(opened.omitted()) == 1


def test_links_that_stay_in_the_store_are_kept_as_links(store: Path, hold: Hold, tmp_path: Path) -> None:
    work = store / "workspace"
    (work / "to file").symlink_to("memory/../MEMORY.md")
    (work / "memory" / "up").symlink_to("../MEMORY.md")
    (work / "to folder").symlink_to("./memory")
    (work / "dangling").symlink_to("not/there")
    (store / "beside").mkdir()
    (store / "beside" / "note.md").write_text("beside")
    (work / "beside").symlink_to("../beside/note.md")
    with hold(store, "workspace") as opened:
        links = {entry.path: entry.target for entry in opened.entries() if entry.kind == "link"}
        root = write_out(opened, tmp_path / "restored")
        assert opened.findings() == []
        assert opened.omitted() == []
        assert "workspace/to folder/2026-01-02.md" not in files_in(opened)
    assert links == {
        "workspace/to file": "memory/../MEMORY.md",
        "workspace/memory/up": "../MEMORY.md",
        "workspace/to folder": "./memory",
        "workspace/dangling": "not/there",
        "workspace/beside": "../beside/note.md",
    }
    assert os.readlink(root / "workspace" / "to folder") == "./memory"  # noqa: PTH115 - the text as it is
    with hold(store, "workspace/to file") as opened:
        assert [(entry.kind, entry.target) for entry in opened.entries()] == [("link", "memory/../MEMORY.md")]


def test_links_that_leave_the_store_are_not_followed_and_said(store: Path, hold: Hold, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.md").write_text("PRIVATE")
    work = store / "workspace"
    (work / "file.md").symlink_to(secret / "key.md")
    (work / "folder").symlink_to("../../secret")
    (work / "chain").symlink_to("folder/key.md")
    (work / "absolute").symlink_to(work / "MEMORY.md")
    (work / "memory" / "loop").symlink_to("loop")
    with hold(store, "workspace") as opened:
        assert not any(
            entry.path.split("/")[-1] in {"file.md", "folder", "chain", "absolute"} for entry in opened.entries()
        )
        assert not any(b"PRIVATE" in b"".join(opened.stream(entry)) for entry in opened.entries())
        omitted = {one.part: one.reason for one in opened.omitted()}
        findings = {one.part: one for one in opened.findings()}
    assert set(findings) == {"workspace/file.md", "workspace/folder", "workspace/chain"}
    for part, finding in findings.items():
        assert (finding.code, finding.severity) == ("link_leaves_store", Severity.WARNING)
        assert omitted[part].startswith("symbolic link leaves the store")
        assert str(secret) in finding.message
    assert "absolute path" in omitted["workspace/absolute"]
    # A part that lies elsewhere has its own folder as its bounds.
    with hold(tmp_path / "other", "workspace", work) as opened:
        assert {one.part for one in opened.findings()} == set(findings)


def test_what_is_no_file_is_left_out_with_a_reason(store: Path, hold: Hold) -> None:
    work = store / "workspace"
    os.mkfifo(work / "pipe")
    os.mknod(work / "device", 0o600 | 0o020000, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(work)  # the names of sockets are short
        server.bind("socket")
        os.chdir(here)
        with hold(store, "workspace") as opened:
            assert len(files_in(opened)) == 6
            assert {one.part: one.reason for one in opened.omitted()} == {
                "workspace/pipe": "a named pipe, not a file",
                "workspace/device": "a device, not a file",
                "workspace/socket": "a socket, not a file",
            }


def test_names_that_are_not_utf8_are_left_out_and_said(store: Path, hold: Hold) -> None:
    (store / "workspace" / os.fsdecode(b"caf\xe9.md")).write_text("x")
    (store / "workspace" / os.fsdecode(b"d\xff")).mkdir()
    (store / "workspace" / os.fsdecode(b"d\xff") / "inner.md").write_text("x")
    with hold(store, "workspace") as opened:
        assert len(files_in(opened)) == 6
        assert {one.part for one in opened.omitted()} == {"workspace/caf\\xe9.md", "workspace/d\\xff"}
        assert {(one.code, one.part) for one in opened.findings()} == {
            ("name_not_text", "workspace/caf\\xe9.md"),
            ("name_not_text", "workspace/d\\xff"),
        }


def test_what_may_not_be_read_is_left_out_and_said(store: Path, agent: Any, tmp_path: Path) -> None:
    (store / "workspace" / "secret.md").write_text("mine")
    (store / "workspace" / "secret.md").chmod(0)
    (store / "workspace" / "closed").mkdir(mode=0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for folder in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), tmp_path.parents):
        if not folder.stat().st_mode & 0o001:  # pytest's own, which another user may not pass through
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    scratch.chmod(0o777)
    code = """
        import os, resource, sys  # while they may still be read
        from pathlib import Path
        import msgspec
        from memkeep.engines.files import FilesEngine
        from memkeep.errors import StoreError
        from memkeep.model import Part, Role
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        root, scratch = map(Path, sys.argv[1:])
        part = Part(name="workspace", engine="files", role=Role.CANONICAL, path=str(root / "workspace"))
        with FilesEngine().freeze(part, root, scratch) as opened:
            found = [opened.omitted(), opened.findings(), [entry.path for entry in opened.entries()]]
        os.mkdir(scratch / "closed", 0)
        closed = msgspec.structs.replace(part, path=str(scratch / "closed"))
        try:
            FilesEngine().freeze(closed, scratch, scratch).__enter__()
        except StoreError as error:
            found.append(error.message)
        print(msgspec.json.encode(found).decode())
    """
    omitted, findings, paths, message = msgspec.json.decode(agent(code, store, scratch).hear())
    assert {one["part"]: one["reason"] for one in omitted} == {
        "workspace/secret.md": "cannot be read: Permission denied",
        "workspace/closed": "cannot be read: Permission denied",
    }
    assert {(one["code"], one["severity"], one["part"]) for one in findings} == {
        ("part_unread", "error", "workspace/secret.md"),
        ("part_unread", "error", "workspace/closed"),
    }
    assert "workspace/MEMORY.md" in paths
    assert "workspace/secret.md" not in paths
    assert "Permission denied" in message


@pytest.mark.parametrize("name", ["gone", "gone/deep", "workspace/MEMORY.md/below"])
def test_a_part_that_is_gone_is_refused(store: Path, hold: Hold, name: str) -> None:
    with pytest.raises(StoreError) as raised, hold(store, name):
        pass
    assert name in raised.value.message
    assert raised.value.hint
    part = Part(name=name, engine="files", role=Role.CANONICAL, path=str(store / name), maps=(NOTES,))
    assert FilesEngine().count(part, "") is None
    with pytest.raises(StoreError), FilesEngine().open(part, store):
        pass


def test_a_file_that_vanishes_between_listing_and_reading_is_left_out(
    store: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_one = files._open

    def vanishing(place: Path) -> int:
        if place.name in {"MEMORY.md", "large.bin"}:
            place.unlink(missing_ok=True)
        return open_one(place)

    monkeypatch.setattr(files, "_open", vanishing)
    with hold(store, "workspace") as opened:
        assert len(files_in(opened)) == 4
        assert {one.part: one.reason for one in opened.omitted()} == {
            "workspace/MEMORY.md": "vanished while it was read",
            "workspace/large.bin": "vanished while it was read",
        }
        list(opened.scan({}))
        assert opened.baseline().tables[""].rows == 4
        assert opened.moved()


def test_a_small_file_that_is_written_while_it_is_read_is_read_again(
    store: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = store / "workspace" / "MEMORY.md"
    pauses: list[float] = []
    monkeypatch.setattr(clock, "pause", pauses.append)
    pread, writes = os.pread, iter(["first", "second state", "third"])

    def writing(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        if os.path.samestat(os.fstat(descriptor), note.stat()) and (text := next(writes, None)):
            note.write_text(text)
        return data

    monkeypatch.setattr(os, "pread", writing)
    with hold(store, "workspace/MEMORY.md") as opened:
        (entry,) = opened.entries()
        assert b"".join(opened.stream(entry)) == b"third"
        assert entry.size == 5
        assert entry.mtime_ns == note.stat().st_mtime_ns
        assert not opened.moved()
    assert len(pauses) >= 3


def test_a_small_file_that_never_holds_still_is_unstable(
    store: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = store / "workspace" / "MEMORY.md"
    monkeypatch.setattr(clock, "pause", lambda _: None)
    pread = os.pread

    def writing(descriptor: int, length: int, offset: int) -> bytes:
        with note.open("a") as file:
            file.write("more\n")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", writing)
    with pytest.raises(UnstableError, match=r"MEMORY\.md") as raised, hold(store, "workspace"):
        pass
    assert raised.value.hint


def test_a_write_in_the_same_tick_of_the_clock_is_not_missed(
    store: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = store / "workspace" / "MEMORY.md"
    note.write_text("before")
    stamp = note.stat().st_mtime_ns
    monkeypatch.setattr(
        clock, "now", lambda: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stamp // 1000 + 900)
    )
    monkeypatch.setattr(clock, "pause", lambda _: None)
    fstat, pread, reads = os.fstat, os.pread, []

    class Frozen:
        """A state whose times stand still."""

        def __init__(self, real: os.stat_result) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return stamp if name in {"st_mtime_ns", "st_ctime_ns"} else getattr(self._real, name)

    def writing(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        reads.append(data)
        if len(reads) == 1:
            note.write_text("after!")
        return data

    monkeypatch.setattr(os, "fstat", lambda descriptor: Frozen(fstat(descriptor)))
    monkeypatch.setattr(os, "pread", writing)
    with hold(store, "workspace/MEMORY.md") as opened:
        (entry,) = opened.entries()
        assert b"".join(opened.stream(entry)) == b"after!"
    assert reads == [b"before", b"after!", b"after!"]


def test_small_files_stay_what_they_were(store: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_IN_MEMORY", 20)  # the rest goes to scratch
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.stat().st_size <= SMALL}
    with hold(store, "workspace") as opened:
        for path in before:
            path.write_text("changed since")
        for entry in opened.entries():
            if store / entry.path in before:
                assert b"".join(opened.stream(entry)) == before[store / entry.path]
        assert opened.held()
        assert opened.moved()
        assert records(opened)["workspace/memory/2026-01-02.md"]["text"] == "A day.\r\n"


@pytest.mark.parametrize("room", [100, 0], ids=["descriptor", "path"])
def test_a_large_file_that_is_replaced_stays_and_one_that_is_written_in_place_is_noticed(
    store: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(descriptors, "room", lambda _: room)
    large = store / "workspace" / "large.bin"

    def take(change: Callable[[], object]) -> tuple[bytes, bool]:
        large.write_bytes(LARGE)
        with hold(store, "workspace/large.bin") as opened:
            (entry,) = opened.entries()
            data = b""
            for number, piece in enumerate(opened.stream(entry)):
                data += piece
                if number == 0:
                    change()
            return data, opened.held()

    def replace() -> None:
        other = large.with_name("other")
        other.write_bytes(b"x" * len(LARGE))
        other.replace(large)

    def write_in_place() -> None:
        with large.open("r+b") as file:
            file.write(b"y" * len(LARGE))

    def append() -> None:
        with large.open("ab") as file:
            file.write(b"one more line")

    data, held = take(lambda: None)
    assert (data, held) == (LARGE, True)
    data, held = take(append)
    assert (data, held) == (LARGE, True)
    data, held = take(write_in_place)
    assert data != LARGE
    assert not held
    data, held = take(replace)
    assert held == (room > 0)
    if held:
        assert data == LARGE
    with pytest.raises(UnstableError):
        take(lambda: large.write_bytes(b"short"))


def test_a_large_file_that_changed_between_scan_and_stream_is_noticed(store: Path, hold: Hold) -> None:
    large = store / "workspace" / "large.bin"
    with hold(store, "workspace/large.bin") as opened:
        (entry,) = opened.entries()
        list(opened.scan({}))
        stamp = large.stat()
        with large.open("r+b") as file:
            file.write(b"!")
        os.utime(large, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as if nothing had been
        list(opened.stream(entry))
        assert not opened.held()


def test_the_part_has_moved_when_anything_appears_vanishes_or_changes(store: Path, hold: Hold) -> None:
    work = store / "workspace"
    changes: list[Callable[[], object]] = [
        lambda: (work / "new.md").write_text("new"),
        (work / "new.md").unlink,
        lambda: (work / "MEMORY.md").write_text("other"),
        lambda: os.utime(work / "MEMORY.md", ns=(0, 5)),
        lambda: (work / "MEMORY.md").chmod(0o640),
        lambda: (work / "large.bin").write_bytes(LARGE + b"more"),
        (work / "empty").rmdir,
        lambda: (work / "here").symlink_to("MEMORY.md"),
        lambda: (work / "memory" / "daily notes" / "länge.TXT").rename(work / "memory" / "other.txt"),
    ]
    for change in changes:
        with hold(store, "workspace", exclude=("left",)) as opened:
            assert not opened.moved()
            (work / "left").write_text("not ours")
            (work / ".env").write_text("not ours either")
            assert not opened.moved()
            change()
            assert opened.moved()
            (work / "left").unlink()
            (work / ".env").unlink()
    with hold(store, "workspace/MEMORY.md") as opened:
        (work / "MEMORY.md").unlink()
        assert opened.moved()


def test_notes_are_counted_without_reading_them(store: Path) -> None:
    part = Part(name="workspace", engine="files", role=Role.CANONICAL, path=str(store / "workspace"), maps=(NOTES,))
    assert FilesEngine().count(part, "") == 4
    assert FilesEngine().count(part, "memories") is None


def test_descriptors_are_let_go(store: Path, hold: Hold) -> None:
    with hold(store, "workspace"):
        pass
    before = descriptors_open()
    with hold(store, "workspace") as opened:
        list(opened.scan({}))
        assert len(descriptors_open()) == len(before) + 1
    assert descriptors_open() == before


@pytest.mark.real
def test_the_workspace_of_a_real_agent_comes_back_byte_for_byte(
    copy_store: Callable[..., Path], hold: Hold, tmp_path: Path, tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    store = copy_store("openclaw-core-2026.9.6", "state-dir")
    with hold(store, ".") as opened:
        root = write_out(opened, tmp_path / "restored")
        found = records(opened)
        assert opened.omitted() == []
        assert opened.findings() == []
    live, restored = tree_hash(store), tree_hash(root)
    assert {path: line.split()[1:] for path, line in restored.items()} == {
        path: line.split()[1:] for path, line in live.items()
    }
    assert set(found) == {
        path.relative_to(store).as_posix() for path in store.rglob("*") if path.suffix in {".md", ".txt"}
    }
    assert all(record["text"] == (store / path).read_text() for path, record in found.items())

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import memkeep
from memkeep.errors import StorageError
from memkeep.storage import local
from memkeep.storage.base import ObjectExistsError, ObjectMissingError
from memkeep.storage.local import LocalStorage
from memkeep.testing.storage_contract import KEY, StorageContract

NOBODY = 65534


@pytest.mark.contract
class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(tmp_path / "a vault with spaces, ünïcödé")


@pytest.mark.contract
class TestLocalStorageWithoutHardLinks(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
        return LocalStorage(tmp_path / "vault")


@pytest.mark.contract
class TestLocalStorageWithoutLocks(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
        monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
        return LocalStorage(tmp_path / "vault")


def failing(number: int, *, after: int = 0, real: Callable[..., object] | None = None) -> Callable[..., object]:
    calls: list[int] = []

    def fail(*words: object, **named: object) -> object:
        calls.append(1)
        if real is not None and len(calls) <= after:
            return real(*words, **named)
        raise OSError(number, os.strerror(number))

    return fail


def files_under(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_an_object_is_a_file_under_its_key_that_only_the_owner_can_read(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "deep" / "vault")
    storage.put_new(KEY, [b"bytes"])
    assert files_under(tmp_path / "deep" / "vault") == [KEY]
    path = tmp_path / "deep" / "vault" / KEY
    assert path.read_bytes() == b"bytes"
    assert path.stat().st_nlink == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_is_synced_before_it_is_named_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    storage.put_new("data/ab/first", [b"makes the folders"])
    done: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        done.append(
            "sync " + str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(str(tmp_path)).partition("-")[0]
        )

    def link(source: Path, target: Path) -> None:
        real_link(source, target)
        done.append("link")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    storage.put_new("data/ab/second", [b"x"])
    assert done == [f"sync /tmp/{os.getpid()}", "link", "sync /data/ab"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EIO, "storage"),
        (errno.EACCES, "storage_denied"),
        (errno.EROFS, "storage_denied"),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link", "mkdir"])
def test_a_write_that_the_system_refuses_is_a_storage_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    storage = LocalStorage(tmp_path)
    storage.put_new("data/earlier", [b"stays"])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(StorageError, match="data/ab/abcd") as error:
            storage.put_new(KEY, [b"half", b"whole"])
    assert error.value.code == code
    assert os.strerror(number) in error.value.message
    assert "Earlier snapshots are whole" in error.value.unchanged
    assert str(tmp_path) in error.value.hint
    assert files_under(tmp_path) == ["data/earlier"]
    storage.put_new(KEY, [b"half", b"whole"])
    assert storage.get(KEY) == b"halfwhole"


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, after=3, real=os.write))
        with pytest.raises(StorageError, match="No space left on device"):
            storage.put_new(KEY, [bytes(1000)] * 10)
    assert files_under(tmp_path) == []


def test_a_write_may_take_less_than_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    storage = LocalStorage(tmp_path)
    assert storage.put_new(KEY, [bytes(range(100)), b"end"]) == 103
    assert storage.get(KEY) == bytes(range(100)) + b"end"


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_read_that_the_system_refuses_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    storage = LocalStorage(tmp_path)
    storage.put_new(KEY, [b"x"])
    monkeypatch.setattr(os, "pread", failing(number))
    with pytest.raises(StorageError, match=f"could not read {KEY}.*{os.strerror(number)}"):
        storage.get_range(KEY, 0, 1)


def test_a_vault_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "vault").write_bytes(b"a file")
    storage = LocalStorage(tmp_path / "vault")
    for ask in (
        lambda: storage.get("config"),
        lambda: storage.stat("config"),
        lambda: list(storage.list("")),
        lambda: storage.put_new("config", [b"x"]),
    ):
        with pytest.raises(StorageError, match="Not a directory"):
            ask()
    assert (tmp_path / "vault").read_bytes() == b"a file"


def test_a_vault_that_is_not_there_is_empty_and_is_not_made_by_looking(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "vault")
    assert list(storage.list("")) == []
    with pytest.raises(ObjectMissingError):
        storage.get("config")
    assert not (tmp_path / "vault").exists()


def test_what_is_no_object_is_not_listed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put_new("data/ab/object", [b"x"])
    (tmp_path / "tmp" / "99-left").write_bytes(b"being written")
    (tmp_path / "data" / ".DS_Store").write_bytes(b"litter")
    (tmp_path / "data" / "ünïcode").write_bytes(b"litter")
    (tmp_path / "data" / "empty folder").mkdir()
    (tmp_path / "data" / "to-nowhere").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data" / "to-a-folder").symlink_to(tmp_path / "data" / "ab")
    os.mkfifo(tmp_path / "data" / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "data" / "socket"))
        assert [found.key for found in storage.list("")] == ["data/ab/object"]
        assert [found.key for found in storage.list("data/")] == ["data/ab/object"]


def test_what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    first = LocalStorage(tmp_path)

    def buffers() -> Iterator[bytes]:
        yield b"half"
        (tmp_path / "tmp" / "1-stale").write_bytes(b"left behind")
        LocalStorage(tmp_path).put_new("other", [b"sweeps"])
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        yield b"whole"

    first.put_new(KEY, buffers())
    assert first.get(KEY) == b"halfwhole"
    assert files_under(tmp_path) == [KEY, "other"]


def test_a_file_that_was_swept_before_it_could_be_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    storage.put_new("first", [b"x"])
    real, taken = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not taken:
            taken.append(list((tmp_path / "tmp").iterdir()))
            for path in taken[0]:
                path.unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    storage.put_new(KEY, [b"bytes"])
    assert len(taken[0]) == 1
    assert storage.get(KEY) == b"bytes"


def put_and_die(root: Path) -> None:
    def buffers() -> Iterator[bytes]:
        yield bytes(100_000)
        os.kill(os.getpid(), signal.SIGKILL)

    LocalStorage(root).put_new(KEY, buffers())


@pytest.mark.crash
def test_a_writer_that_is_killed_leaves_no_object_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=put_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.split("/")[0] for path in files_under(tmp_path)] == ["tmp"]
    storage = LocalStorage(tmp_path)
    assert list(storage.list("")) == []
    storage.put_new(KEY, [b"whole"])
    assert files_under(tmp_path) == [KEY]


KILL_AT = """
import os, signal, sys
from pathlib import Path
from memkeep.storage.local import LocalStorage

calls, number = [], int(sys.argv[2])

def dying(real):
    def call(*words, **named):
        calls.append(real.__name__)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **named)
    return call

for name in ("open", "mkdir", "write", "fsync", "link", "unlink", "close"):
    setattr(os, name, dying(getattr(os, name)))
LocalStorage(Path(sys.argv[1])).put_new("data/ab/abcd", [b"half", b"whole"])
print(len(calls))
"""


@pytest.mark.crash
def test_killed_before_any_call_to_the_system_an_object_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    number = 0
    done = None
    while done is None:
        number += 1
        root = tmp_path / f"{number}"
        said = subprocess.run(
            [sys.executable, "-c", KILL_AT, str(root), str(number)],
            env={"PYTHONPATH": str(Path(memkeep.__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (said.returncode, said.stderr) in {(0, ""), (-signal.SIGKILL, "")}
        if said.returncode == 0:
            done = int(said.stdout)
        storage = LocalStorage(root)
        listed = [found.key for found in storage.list("")]
        assert listed in ([], [KEY])
        if listed:
            assert storage.get(KEY) == b"halfwhole"
        else:
            storage.put_new(KEY, [b"halfwhole"])
        storage.put_new("next", [b"x"])
        assert files_under(root) == [KEY, "next"]
    assert done == number - 1 > 15


def test_two_may_not_make_one_key_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.ENOTSUP))
    storage = LocalStorage(tmp_path)

    def buffers() -> Iterator[bytes]:
        yield b"late"
        storage.put_new(KEY, [b"early"])

    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, buffers())
    assert storage.get(KEY) == b"early"
    assert files_under(tmp_path) == [KEY]


def test_a_file_system_that_cannot_sync_folders_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    storage = LocalStorage(tmp_path)
    storage.put_new(KEY, [b"x"])
    assert storage.get(KEY) == b"x"


def as_nobody(script: str, *words: Path) -> subprocess.CompletedProcess[str]:
    """Run Python where permissions count: as a user who is not root."""
    return subprocess.run(
        [sys.executable, "-c", BECOME_NOBODY + script, *map(str, words)],
        env={"PYTHONPATH": str(Path(memkeep.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


BECOME_NOBODY = f"""
import os, sys
from pathlib import Path
from memkeep.errors import StorageError
from memkeep.storage.local import LocalStorage

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""

ASK = """
storage = LocalStorage(Path(sys.argv[1]))
asked = {
    "get": lambda: storage.get("data/ab/abcd"),
    "list": lambda: list(storage.list("")),
    "put": lambda: storage.put_new("data/ab/other", [b"x"]),
    "delete": lambda: storage.delete("data/ab/abcd"),
}
for name, ask in asked.items():
    try:
        ask()
    except StorageError as error:
        print(name, error.code, error.message)
    else:
        print(name, "done")
"""


def test_a_folder_that_may_not_be_entered_is_a_storage_error(anyones: Path) -> None:
    root = anyones / "vault"
    LocalStorage(root).put_new(KEY, [b"x"])
    root.chmod(0o000)
    said = as_nobody(ASK, root)
    root.chmod(0o700)
    assert (said.returncode, said.stderr) == (0, "")
    lines = said.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [name, "storage_denied"] for name in ("get", "list", "put", "delete")
    ]
    assert all("Permission denied" in line for line in lines)
    assert LocalStorage(root).get(KEY) == b"x"


def test_a_folder_that_may_only_be_read_is_read(anyones: Path) -> None:
    root = anyones / "vault"
    LocalStorage(root).put_new(KEY, [b"x"])
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = as_nobody(ASK, root)
    for path in (root, *root.rglob("*")):
        path.chmod(0o700)
    assert (said.returncode, said.stderr) == (0, "")
    assert [line.split()[:2] for line in said.stdout.splitlines()] == [
        ["get", "done"],
        ["list", "done"],
        ["put", "storage_denied"],
        ["delete", "storage_denied"],
    ]
    assert files_under(root) == [KEY]


def test_a_vault_can_be_made_in_a_folder_that_may_be_written_but_not_read(anyones: Path) -> None:
    drop = anyones / "drop"
    drop.mkdir()
    drop.chmod(0o333)
    script = (
        "storage = LocalStorage(Path(sys.argv[1])); storage.put_new('config', [b'x']); print(storage.get('config'))"
    )
    said = as_nobody(script, drop / "vault")
    drop.chmod(0o700)
    assert (said.stdout.strip(), said.stderr) == ("b'x'", "")


@pytest.fixture
def anyones() -> Iterator[Path]:
    """Return a folder that everybody can reach; those of pytest are private."""
    with tempfile.TemporaryDirectory(prefix="memkeep test ", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def test_messages_quote_a_folder_with_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path / "with spaces")
    monkeypatch.setattr(local, "_write_all", failing(errno.ENOSPC))
    with pytest.raises(StorageError) as error:
        storage.put_new(KEY, [b"x"])
    assert error.value.hint == f"df -h '{tmp_path}/with spaces'"

"""SFTP against a real OpenSSH server: the contract, and all that can go wrong between here and there."""

import asyncio
import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest
from tests.conftest import REPO
from tests.openssh import SshServer, new_key

from memkeep.errors import StorageError, StorageUnreachableError, UnsupportedError, UsageError
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Storage
from memkeep.storage.places import storage_at
from memkeep.testing.storage_contract import KEY, StorageContract


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the vault's folder on the server; it is not there yet."""
    return tmp_path / "served" / "vault"


@pytest.fixture
def storage(ssh_server: SshServer, folder: Path) -> Storage:
    return storage_at(ssh_server.url(folder))


@pytest.fixture
def fails(ssh_server: SshServer, folder: Path) -> Callable[..., StorageError]:
    """Return `fails(url=...)`: the error of the first call."""

    def first(url: str = "") -> StorageError:
        with pytest.raises(StorageError) as error:
            list(storage_at(url or ssh_server.url(folder)).list(""))
        return error.value

    return first


@pytest.mark.contract
class TestSftpStorage(StorageContract):
    @pytest.fixture
    def storage(self, ssh_server: SshServer, folder: Path) -> Storage:
        return storage_at(ssh_server.url(folder))


def files(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


# Writing


def test_files_and_folders_are_for_their_owner_alone(storage: Storage, folder: Path) -> None:
    storage.put_new(KEY, [b"x"])
    assert (folder / KEY).stat().st_mode & 0o777 == 0o400
    for made in (folder, folder / "data", folder / "data/ab", folder / "tmp"):
        assert made.stat().st_mode & 0o777 == 0o700
    assert files(folder) == {KEY: 1}


def test_bytes_are_synced_before_they_have_a_name_and_the_name_before_it_is_reported(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(kind: type, name: str) -> None:
        real = getattr(kind, name)

        async def call(*words: object) -> object:
            answer = await real(*words)
            done.append(name)
            return answer

        monkeypatch.setattr(kind, name, call)

    for kind, name in (
        (asyncssh.SFTPClientFile, "write"),
        (asyncssh.SFTPClientFile, "fsync"),
        (asyncssh.SFTPClient, "link"),
    ):
        noted(kind, name)
    storage.put_new("a", [b"x"])
    assert done == ["write", "fsync", "link", "fsync"]
    assert storage.capabilities.exclusive


@pytest.mark.parametrize("denied", ["hardlink", "hardlink,remove", "remove", "hardlink,fsync"])
def test_what_the_server_can_not_do_is_done_otherwise(
    ssh_server: SshServer, storage: Storage, folder: Path, denied: str
) -> None:
    ssh_server.sftp = f"internal-sftp -P {denied}"
    ssh_server.restart()
    storage.put_new(KEY, [b"one"])
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [b"two"])
    assert storage.get(KEY) == b"one"
    assert [stat.key for stat in storage.list("")] == [KEY]
    assert storage.capabilities.exclusive == ("hardlink" not in denied)
    if "remove" not in denied:
        assert files(folder) == {KEY: 3}


def test_what_killed_writers_left_is_removed_when_it_is_old(storage: Storage, folder: Path) -> None:
    (folder / "tmp").mkdir(parents=True)
    for name, age in (("old", 90_000), ("young", 80_000), (".odd", 90_000)):
        (folder / "tmp" / name).write_bytes(b"half")
        then = time.time() - age
        os.utime(folder / "tmp" / name, (then, then))
    storage.put_new("a", [b"x"])
    assert set(files(folder)) == {"a", "tmp/young", "tmp/.odd"}


def test_large_buffers_and_many_small_ones_arrive_in_order(storage: Storage) -> None:
    whole = os.urandom(5 << 20)
    small = [whole[at : at + 777] for at in range(0, len(whole), 777)]
    assert storage.put_new("small", small) == len(whole)
    assert storage.put_new("large", [whole[:3], memoryview(whole)[3:]]) == len(whole)
    assert storage.get("small") == storage.get("large") == whole
    assert storage.get_range("large", 1_000_000, 1_000_000) == whole[1_000_000:2_000_000]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system to fill")
def test_a_full_disk_is_said_to_be_full(storage: Storage, folder: Path) -> None:
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this system lets nobody mount")
    try:
        storage.put_new("before", [bytes(1 << 20)])
        with pytest.raises(StorageError) as error:
            storage.put_new(KEY, [bytes(1 << 20)] * 8)
        assert (error.value.code, "df -h" in error.value.hint) == ("disk_full", True)
        assert files(folder) == {"before": 1 << 20}
        storage.put_new(KEY, [b"small"])
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_server_that_takes_nothing_is_said_to_deny(ssh_server: SshServer, storage: Storage) -> None:
    ssh_server.sftp = "internal-sftp -R"
    ssh_server.restart()
    with pytest.raises(StorageError) as error:
        storage.put_new(KEY, [b"x"])
    assert error.value.code == "storage_denied"


def test_a_file_where_the_folder_should_be_is_named(storage: Storage, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("no folder")
    for ask in (lambda: storage.put_new(KEY, [b"x"]), lambda: list(storage.list(""))):
        with pytest.raises(StorageError, match="is not a folder") as error:
            ask()
        assert (error.value.code, isinstance(error.value, ObjectMissingError)) == ("storage", False)


def test_links_to_files_are_listed_and_other_things_are_not(storage: Storage, folder: Path) -> None:
    storage.put_new("data/a", [b"four"])
    (folder / "data" / "b").symlink_to("a")
    (folder / "data" / "broken").symlink_to("nothing")
    (folder / "data" / "loop").symlink_to("..")
    os.mkfifo(folder / "data" / "pipe")
    (folder / "data" / os.fsdecode(b"\xff")).write_text("x")
    assert sorted(storage.list("")) == [("data/a", 4), ("data/b", 4)]


# The account that may only add, as docs/how-to/sftp.md describes it


@pytest.fixture
def guarded(ssh_server: SshServer) -> Iterator[SshServer]:
    """Return the server as the how-to sets it up, for an account that is not root's."""
    allowed = re.search(r"internal-sftp -p (\S+)", (REPO / "docs/how-to/sftp.md").read_text())
    assert allowed is not None
    with tempfile.TemporaryDirectory(prefix="memkeep-sftp-") as name:
        login = Path(name, "login")
        login.mkdir()
        if os.geteuid() == 0:
            Path(name).chmod(0o755)
            ssh_server.user = "nobody"
            shutil.chown(login, "nobody")
            shutil.copy(ssh_server.folder / "authorized_keys", name)
            ssh_server.keys = f"{name}/authorized_keys"
        ssh_server.sftp = f"internal-sftp -p {allowed[1]} -d {login}"
        ssh_server.restart()
        yield ssh_server


async def attack(server: SshServer, key: str, other: str) -> set[str]:
    """Try to harm an object by every request there is; return what the server did."""
    done = set()
    async with (
        asyncssh.connect("127.0.0.1", server.port, username=server.user) as line,
        line.start_sftp_client() as sftp,
    ):

        async def write(flags: str) -> None:
            async with sftp.open(key, flags) as file:
                await file.write("other")

        folder = str(Path(key).parent)
        attempts = {
            "remove": sftp.remove(key),
            "empty": write("w"),
            "overwrite": write("r+"),
            "append": write("a"),
            "cut": sftp.truncate(key, 0),
            "change mode": sftp.chmod(key, 0o600),
            "rename": sftp.rename(key, "gone"),
            "rename as POSIX has it": sftp.posix_rename(key, "gone"),
            "replace": sftp.posix_rename(other, key),
            "rename folder": sftp.rename(folder, "gone"),
            "remove folder": sftp.rmdir(folder),
            "change mode of folder": sftp.chmod(folder, 0),
            "link over": sftp.link(other, key),
            "symlink over": sftp.symlink(other, key),
        }
        for name, attempt in attempts.items():
            with contextlib.suppress(asyncssh.SFTPError):
                await attempt
                done.add(name)
    return done


def test_an_account_that_may_only_add_can_change_nothing(guarded: SshServer) -> None:
    storage = storage_at(guarded.url("/~/vault"))
    storage.put_new(KEY, [b"precious"])
    storage.put_new("data/ab/other", [b"more"])
    assert storage.capabilities.exclusive
    with pytest.raises(StorageError) as error:
        storage.delete(KEY)
    assert error.value.code == "storage_denied"
    with pytest.raises(ObjectExistsError):
        storage.put_new(KEY, [b"other"])
    assert asyncio.run(attack(guarded, f"vault/{KEY}", "vault/data/ab/other")) == set()
    assert (storage.get(KEY), storage.get("data/ab/other")) == (b"precious", b"more")


# The line


def test_a_server_killed_in_the_middle_of_a_put_leaves_nothing_and_the_put_can_be_made_again(
    ssh_server: SshServer, storage: Storage, folder: Path
) -> None:
    whole = os.urandom(1 << 20)

    def buffers() -> Iterator[bytes]:
        yield from [whole] * 9
        until(lambda: any(size >= 4 << 20 for size in files(folder).values()))
        ssh_server.stop()
        yield from [whole] * 9

    with pytest.raises(StorageUnreachableError):
        storage.put_new(KEY, buffers())
    with pytest.raises(StorageUnreachableError):
        storage.get(KEY)
    assert not (folder / KEY).exists()
    ssh_server.start()
    assert list(storage.list("")) == []
    assert storage.put_new(KEY, [whole] * 3) == 3 << 20
    assert storage.get(KEY) == whole * 3


def test_a_server_killed_in_the_middle_of_a_get_is_asked_again_by_the_next(
    ssh_server: SshServer, storage: Storage, folder: Path
) -> None:
    storage.put_new(KEY, [b"x"])
    with (folder / "large").open("wb") as file:
        file.truncate(1 << 40)

    def sent() -> int:
        counts = [Path(f"/proc/{process}/io").read_text().split() for process in ssh_server.sessions()]
        return max((int(words[1]) for words in counts), default=0)

    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(storage.get, "large")
        until(lambda: sent() > 8 << 20)
        ssh_server.stop()
        with pytest.raises(StorageUnreachableError, match="broke"):
            getting.result(10)
    ssh_server.start()
    assert storage.get(KEY) == b"x"


def test_a_connection_that_ended_meanwhile_is_made_again(ssh_server: SshServer, storage: Storage) -> None:
    storage.put_new(KEY, [b"x"])
    ssh_server.restart()
    until(storage._session._links[0].connection.is_closed)  # type: ignore[attr-defined]
    assert storage.get(KEY) == b"x"


def test_many_threads_share_one_connection(ssh_server: SshServer, storage: Storage) -> None:
    storage.put_new(KEY, [bytes(1000)])
    sessions = ssh_server.sessions()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: storage.get(KEY), range(50))) == {bytes(1000)}
    assert ssh_server.sessions() == sessions


def test_no_thread_and_no_connection_outlive_the_storage(ssh_server: SshServer, folder: Path) -> None:
    before = set(threading.enumerate())
    storage = storage_at(ssh_server.url(folder))
    assert list(storage.list("")) == []
    threads = set(threading.enumerate()) - before
    assert "memkeep-sftp" in {thread.name for thread in threads}
    gone = weakref.ref(storage)
    del storage
    gc.collect()
    assert gone() is None
    until(lambda: not any(thread.is_alive() for thread in threads))
    until(lambda: ssh_server.sessions() == [])


def test_a_server_that_is_not_there_is_unreachable(ssh_server: SshServer, fails: Callable[..., StorageError]) -> None:
    ssh_server.stop()
    error = fails()
    assert isinstance(error, StorageUnreachableError)
    assert error.hint == f"ssh -p {ssh_server.port} {ssh_server.user}@127.0.0.1"


# Who the server is


@pytest.mark.parametrize("settings", ["", "StrictHostKeyChecking no", "UserKnownHostsFile none"])
def test_an_unknown_server_is_refused(ssh_server: SshServer, fails: Callable[..., StorageError], settings: str) -> None:
    ssh_server.known_hosts.write_text("other.example " + ssh_server.known_host().partition(" ")[2])
    (ssh_server.home / ".ssh" / "config").write_text(settings)
    error = fails()
    assert error.code == "host_key_unknown"
    assert error.hint.startswith(f"ssh -p {ssh_server.port} {ssh_server.user}@127.0.0.1 exit ")
    ssh_server.known_hosts.unlink()
    assert fails().code == "host_key_unknown"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_server_with_another_key_is_refused(
    ssh_server: SshServer, fails: Callable[..., StorageError], kind: str
) -> None:
    ssh_server.change_host_key(kind)
    ssh_server.restart()
    error = fails()
    assert error.code == "host_key_changed", error.message
    command = error.hint.partition("   ")[0]
    assert command == f"ssh-keygen -R '[127.0.0.1]:{ssh_server.port}'"
    subprocess.run(
        ["ssh-keygen", "-f", ssh_server.known_hosts, "-R", f"[127.0.0.1]:{ssh_server.port}"],
        check=True,
        capture_output=True,
    )
    assert fails().code == "host_key_unknown"


# Who we are


def test_a_key_that_the_server_does_not_know_is_refused(
    ssh_server: SshServer, fails: Callable[..., StorageError]
) -> None:
    for name in ("id_ed25519", "id_ed25519.pub"):
        (ssh_server.home / ".ssh" / name).unlink()
    new_key(ssh_server.home / ".ssh" / "id_ed25519")
    error = fails()
    assert (error.code, isinstance(error, StorageUnreachableError)) == ("storage_denied", False)
    assert error.hint == f"ssh-copy-id -p {ssh_server.port} {ssh_server.user}@127.0.0.1"


def test_a_key_with_a_passphrase_is_taken_from_the_agent_and_never_asked_for(
    ssh_server: SshServer, storage: Storage, fails: Callable[..., StorageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ssh_server.home / ".ssh" / "id_ed25519"
    address = str(ssh_server.folder / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path(address).exists())
        subprocess.run(
            ["ssh-add", str(key)], env={**os.environ, "SSH_AUTH_SOCK": address}, check=True, capture_output=True
        )
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True, capture_output=True)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        assert fails().code == "storage_denied"
        monkeypatch.setenv("SSH_AUTH_SOCK", address)
        storage.put_new(KEY, [b"x"])
    finally:
        agent.kill()
        agent.wait()


def test_aliases_ports_keys_and_jumps_come_from_the_ssh_config(ssh_server: SshServer, folder: Path) -> None:
    ssh = ssh_server.home / ".ssh"
    (ssh / "id_ed25519").rename(ssh / "other")
    ssh_server.known_hosts.rename(ssh / "known_elsewhere")
    (ssh / "config").write_text(
        f"""
Host Backups
    HostName 127.0.0.1
    Port {ssh_server.port}
    User {ssh_server.user}
    IdentityFile ~/.ssh/other
    UserKnownHostsFile ~/.ssh/known_elsewhere ~/.ssh/not_there
Host far
    ProxyJump Backups
    HostName 127.0.0.1
    HostKeyAlias [127.0.0.1]:{ssh_server.port}
    Port {ssh_server.port}
    User {ssh_server.user}
    IdentityFile ~/.ssh/other
    UserKnownHostsFile ~/.ssh/known_elsewhere
    Ciphers aes128-ctr
"""
    )
    storage_at(f"sftp://Backups{folder}").put_new("a", [b"x"])
    far = storage_at(f"sftp://far{folder}")
    assert far.get("a") == b"x"
    assert far.url == f"sftp://far{folder}"


# URLs


@pytest.mark.parametrize("path", ["/~/in login", "/./in%20login", "/~/in%20login/"])
def test_a_path_may_begin_in_the_login_folder(ssh_server: SshServer, tmp_path: Path, path: str) -> None:
    login = tmp_path / "login"
    login.mkdir()
    ssh_server.sftp = f"internal-sftp -d {login}"
    ssh_server.restart()
    storage_at(ssh_server.url(path)).put_new(KEY, [b"x"])
    assert files(login) == {f"in login/{KEY}": 1}
    storage_at(ssh_server.url("/~")).put_new("b", [b"x"])
    assert (login / "b").exists()
    storage_at(ssh_server.url(f"/{login}/absolute")).put_new("c", [b"x"])  # two slashes, as restic has it
    assert (login / "absolute" / "c").exists()


@pytest.mark.parametrize(
    "url",
    [
        "sftp://user:secret@host/vault",
        "sftp://host",
        "sftp://host/",
        "sftp:///vault",
        "sftp://host:port/vault",
        "sftp://host/vault?x=1",
        "sftp://[::1/vault",
        "sftp://-oProxyCommand=x/vault",
    ],
)
def test_what_is_no_place_on_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as error:
        storage_at(url)
    assert "secret" not in error.value.message + error.value.hint
    assert error.value.hint


def test_without_the_library_the_error_says_what_to_install(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(UnsupportedError, match="asyncssh") as error:
        storage.get(KEY)
    assert error.value.hint == "pip install 'memkeep[sftp]'"

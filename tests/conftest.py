"""What all tests share: the real stores, a home of one's own, the hash of a tree, and the command line as a process."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.openssh import SshServer, sshd

import memkeep
from memkeep.testing import servers

if TYPE_CHECKING:
    from memkeep.library import OpenVault

REPO = Path(__file__).resolve().parent.parent


class Ran(NamedTuple):
    """A finished process."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document on standard output; fails when there is none, or anything beside it."""
        return json.loads(self.stdout)

    @property
    def result(self) -> Any:
        """The result in that document; fails when it is an error."""
        assert self.json["ok"], self.stdout
        return self.json["result"]


@pytest.fixture(scope="session")
def stores() -> Path:
    """Return the folder of stores that the products themselves wrote. Never open one in place: see `copy_store`."""
    folder = Path(os.environ.get("MEMKEEP_SHARED", REPO.parent / "shared")) / "stores"
    if not folder.is_dir():
        pytest.fail(f"the real stores are not at {folder}: set MEMKEEP_SHARED to the folder that holds `stores`")
    return folder


@pytest.fixture
def copy_store(stores: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return `copy_store(name, sub="")`: a writable copy of a store, or of a folder in it, with its times kept."""

    def copy(name: str, sub: str = "") -> Path:
        target = tmp_path / "stores" / name / sub
        number = 1
        while target.exists():
            number += 1
            target = tmp_path / f"stores-{number}" / name / sub
        shutil.copytree(stores / name / sub, target, symlinks=True)
        for path in (target, *target.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR))
        return target

    return copy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home; nothing of the user's own settings, vaults or products is seen."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("MEMKEEP_", "OC_MEMORY_", "OPENCLAW_", "XDG_", "_MEMKEEP_")) or name in {
            "NO_COLOR",
            "FORCE_COLOR",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    for name, place in (
        ("CONFIG", ".config"),
        ("DATA", ".local/share"),
        ("CACHE", ".cache"),
        ("STATE", ".local/state"),
    ):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder / place))
    return folder


@pytest.fixture
def tree_hash() -> Callable[[Path], dict[str, str]]:
    """Return `tree_hash(path)`: relative path -> type, mode and SHA-256 of all below it, SQLite's `-shm` excepted."""

    def hashes(root: Path) -> dict[str, str]:
        found = {}
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.name.endswith("-shm"):
                continue
            mode = path.lstat().st_mode
            content = ""
            if stat.S_ISLNK(mode):
                content = str(path.readlink())
            elif stat.S_ISREG(mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.relative_to(root).as_posix()] = f"{stat.filemode(mode)} {content}"
        return found

    return hashes


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give scratch files a folder of their own, for this process and those it starts; fail when any are left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert list(folder.rglob("*")) == []


@pytest.fixture
def new_vault(home: Path, monkeypatch: pytest.MonkeyPatch) -> "Callable[..., OpenVault]":
    """Return `new_vault(name="vault", encrypted=True)`: a vault at `home / name`, opened; its password is `pw`."""
    # A password that is cheap to try; what it costs is written in the key slot.
    monkeypatch.setattr("memkeep.vault.crypto.ARGON", {"memory_kib": 1024, "iterations": 1, "lanes": 1})

    def make(name: str = "vault", *, encrypted: bool = True) -> "OpenVault":
        password = "pw" if encrypted else None
        memkeep.init_vault(home / name, password, encrypt=encrypted)
        return memkeep.open_vault(home / name, password)

    return make


@pytest.fixture(scope="session")
def debian() -> Callable[[str], str]:
    """Return `debian(package)`: the path of the program of that name, installed first where root may."""

    def program(package: str) -> str:
        if shutil.which(package) is None and os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(["apt-get", "install", "-y", "-qq", package], capture_output=True, check=False)
        found = shutil.which(package)
        if found is None:
            pytest.fail(f"this test needs `{package}`: apt-get install {package}")
        return found

    return program


@pytest.fixture
def run_cli(home: Path) -> Callable[..., Ran]:
    """Return `run_cli(*words, input="", env={})`: `memkeep` as a process in that home, without a terminal."""

    def run(*words: str | Path, input: str = "", env: dict[str, str] | None = None, cwd: Path | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "memkeep", *map(str, words)],
            input=input.encode("utf-8", "surrogateescape"),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(Path(memkeep.__file__).parent.parent), **(env or {})},
            cwd=cwd or home,
            timeout=120,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    return run


@pytest.fixture
def ssh_server(home: Path, tmp_path: Path) -> Iterator[SshServer]:
    """Return a running OpenSSH server; the home has the key that it lets in, and knows its host key."""
    sshd()
    server = SshServer(tmp_path / "sshd", home)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[servers.Server]:
    """Run a strict S3 for all tests of this process; they share it, each with buckets of its own."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[servers.Server]:
    """Run an S3 that replaces what is there, for all tests of this process."""
    with servers.rclone() as server:
        yield server


@pytest.fixture
def moto(moto_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> servers.Server:
    """Return a strict S3, and point this process and those it starts to it. Never kill this one."""
    _point(moto_server, monkeypatch)
    return moto_server


@pytest.fixture
def rclone(rclone_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> servers.Server:
    """Return an S3 that replaces what is there, and point this process and those it starts to it. Never kill it."""
    _point(rclone_server, monkeypatch)
    return rclone_server


def _point(server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)

"""A real OpenSSH server on loopback: its own keys, its own settings, and a client's `~/.ssh` in a home of its own."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest


class SshServer:
    """An `sshd` that serves SFTP to the key in `home/.ssh`; its address is in `home/.ssh/known_hosts`."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self.folder = folder
        self.user = getpass.getuser()
        self.settings: list[str] = []  # more lines of sshd_config
        self.sftp = "internal-sftp"
        self.keys = f"{folder}/authorized_keys"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        folder.mkdir()
        (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        new_key(home / ".ssh" / "id_ed25519")
        shutil.copy(home / ".ssh" / "id_ed25519.pub", folder / "authorized_keys")
        self.change_host_key()
        self.known_hosts.write_text(self.known_host())

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    def url(self, path: Path | str) -> str:
        return f"sftp://{self.user}@127.0.0.1:{self.port}{path}"

    def known_host(self) -> str:
        key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {' '.join(key)}\n"

    def change_host_key(self, kind: str = "ed25519") -> None:
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)
        new_key(self.folder / "host_key", kind)

    def start(self) -> None:
        (self.folder / "sshd_config").write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.folder}/host_key",
                    f"AuthorizedKeysFile {self.keys}",
                    "PidFile none",
                    "UsePAM no",
                    "StrictModes no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "LogLevel ERROR",
                    f"Subsystem sftp {self.sftp}",
                    *self.settings,
                ]
            )
            + "\n"
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                assert self._process.poll() is None, (self.folder / "log").read_text()
            else:
                return

    def sessions(self) -> list[int]:
        """Return the processes that serve connections."""
        assert self._process is not None
        below, found = [self._process.pid], []
        while below:
            one = below.pop()
            try:
                numbers = [int(word) for word in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            below += numbers
            found += numbers
        return found

    def stop(self) -> None:
        """Kill the server and all of its connections."""
        if self._process is not None:
            for process in (self._process.pid, *self.sessions()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()


def new_key(path: Path, kind: str = "ed25519") -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)], check=True)


def sshd() -> str:
    """Return the server's program; as root install it when it is missing."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            pytest.skip("sshd is not installed: apt-get install openssh-server")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # installed, but not started
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-q", "--no-install-recommends", "openssh-server"],
            check=True,
            capture_output=True,
            env=quiet,
        )
        return sshd()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return found

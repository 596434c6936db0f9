"""A real OpenSSH server on loopback: its own keys, its own settings, and a client's `~/.ssh` in a home of its own."""

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from memkeep.testing.servers import reserve_port

DEADLINE = 30.0  # seconds for it to come up or to be gone


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
        self._reserved = reserve_port()
        self.port: int = self._reserved.getsockname()[1]
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
                    "LogLevel INFO",
                    f"Subsystem sftp {self.sftp}",
                    *self.settings,
                ]
            )
            + "\n"
        )
        with (self.folder / "log").open("ab") as log:
            said_before = log.tell()
            self._process = subprocess.Popen(
                [sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        # It says itself that it listens: a connection made to find out could reach a server that is being killed.
        log_file = self.folder / "log"
        deadline = time.monotonic() + DEADLINE
        while b"Server listening on" not in log_file.read_bytes()[said_before:]:
            assert time.monotonic() < deadline, log_file.read_text()
            assert self._process.poll() is None, log_file.read_text()
            time.sleep(0.005)

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
        """Kill the server and all of its connections; return when none is left that holds the port."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)  # so that no session begins between the look and the kill
            sessions = self.sessions()
            for process in (*sessions, self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._process.wait()
            self._process = None
            deadline = time.monotonic() + DEADLINE
            while any(map(_runs, sessions)):
                assert time.monotonic() < deadline, sessions
                time.sleep(0.005)

    def close(self) -> None:
        """Stop, and give the port back."""
        self.stop()
        self._reserved.close()

    def restart(self) -> None:
        self.stop()
        self.start()


def _runs(process: int) -> bool:
    """Tell whether a process has anything open still: one that is dead but not waited for has not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


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

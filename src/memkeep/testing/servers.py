"""Object stores on loopback, as processes: for tests, benchmarks and trying things. Needs the development packages.

with moto() as server:
    os.environ.update(server.environment)
    memkeep.init_vault(server.bucket() + "/vault", password)
"""

import itertools
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from urllib.request import Request, urlopen

from memkeep import clock

DEADLINE = 60.0  # seconds for a server to come up
PAGE = 100  # objects that moto lists in one answer
KEY, SECRET = "AKIAMEMKEEPTESTS", "not/a+secret/of+anybody/at+all/only+a+test"


class Server:
    """A running server; `environment` is what a client needs."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        log: Path,
        port: int,
        environment: dict[str, str],
        make: Callable[[str], object],
        page: int,
    ) -> None:
        self.process = process
        self.log = log  # what it has said so far; moto says a line a request
        self.port = port
        self.environment = environment
        self.page = page  # objects that it lists in one answer
        self._make = make
        self._numbers = itertools.count(1)

    def bucket(self, name: str = "") -> str:
        """Make an empty bucket; return its URL."""
        name = name or f"bucket-{next(self._numbers)}"
        self._make(name)
        return f"s3://{name}"

    def kill(self) -> None:
        """Unplug it."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it hang, holding its connections; it is killed at the end all the same."""
        self.process.send_signal(signal.SIGSTOP)


@contextmanager
def moto(**more: str) -> Iterator[Server]:
    """Run a strict S3: it honours `If-None-Match`, compares checksums and knows Object Lock, but takes any key.

    `more` are variables of its own, such as `INITIAL_NO_AUTH_ACTION_COUNT`.
    """
    with reserve_port() as reserved:
        port: int = reserved.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with _running(command, port, {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE), **more}) as (process, log):
            yield Server(process, log, port, s3_environment(url), lambda name: _send("PUT", f"{url}/{name}"), PAGE)


@contextmanager
def rclone() -> Iterator[Server]:
    """Run an S3 that checks signatures and lets every put replace what is there, `If-None-Match` or not."""
    with reserve_port() as reserved, tempfile.TemporaryDirectory(prefix="memkeep-rclone-") as folder:
        port: int = reserved.getsockname()[1]
        command = [str(Path(sysconfig.get_path("scripts"), "rclone")), "serve", "s3", folder]
        command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", f"{folder}/none"]
        with _running(command, port, dict(os.environ)) as (process, log):
            url = f"http://127.0.0.1:{port}"
            yield Server(process, log, port, s3_environment(url), lambda name: _signed_put(url, name), 1000)


def s3_environment(url: str) -> dict[str, str]:
    """Return the variables with which a client reaches the S3 at a URL."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def reserve_port(host: str = "127.0.0.1") -> socket.socket:
    """Bind a port of loopback without listening: nobody else is given it, and a server told of it can still listen.

    The server must set `SO_REUSEADDR`, as most do.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((host, 0))
    return reserved


@contextmanager
def _running(
    command: Sequence[str], port: int, environment: dict[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    with (
        tempfile.NamedTemporaryFile(prefix="memkeep-server-") as log,
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            start = clock.monotonic()
            while not _listens(port):
                if process.poll() is not None or clock.monotonic() - start > DEADLINE:
                    said = Path(log.name).read_text(errors="replace")[-2000:]
                    message = f"{command[0]} did not come up: {said}"
                    raise RuntimeError(message)
                clock.pause(0.02)
            yield process, Path(log.name)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _signed_put(url: str, bucket: str) -> None:
    """Make a bucket where signatures are checked."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(bucket, endpoint=url, region="us-east-1", access_key_id=KEY, secret_access_key=SECRET)
    _send("PUT", obstore.sign(store, "PUT", "", timedelta(minutes=1)))


def _send(method: str, url: str, body: bytes | None = None) -> None:
    with urlopen(Request(url, method=method, data=body), timeout=DEADLINE):  # noqa: S310 - loopback
        pass

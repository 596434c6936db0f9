"""A day's backup into a bucket: what it sends, through a proxy that counts."""

import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from measure import MB, Bench, Run

from memkeep.testing.servers import moto

_BUFFER = 1 << 16


class Counted:
    """What went to the server: every request as `METHOD /path`, and all bytes."""

    def __init__(self, upstream: int) -> None:
        self.requests: list[str] = []
        self.sent = 0
        self._upstream = upstream
        self._lock = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream)) as server, suppress(OSError):
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()
            with client.makefile("rb") as said:
                while self._one(said, server):
                    pass

    def _one(self, said: BinaryIO, server: socket.socket) -> bool:
        """Pass one request on; return whether there was one."""
        head = b""
        length = 0
        while (line := said.readline()) not in {b"\r\n", b""}:
            head += line
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"transfer-encoding":
                sys.exit("a request without a length can't be counted")
        if not head:
            return False
        head += line
        with self._lock:
            self.requests.append(b" ".join(head.split(b" ", 2)[:2]).decode())
            self.sent += len(head) + length
        server.sendall(head)
        while length:
            piece = said.read(min(_BUFFER, length))
            if not piece:
                return False
            server.sendall(piece)
            length -= len(piece)
        return True


def bucket_day(bench: Bench, day: int) -> Counted:
    """Back the store up into a bucket, age it by a day, and return what backing up that day sent."""
    with moto() as server:
        place = f"{server.bucket()}/vault"

        def backup(environment: dict[str, str]) -> Run:
            env = bench.env | server.environment | environment
            return Run([*bench.memkeep, "backup", str(bench.source), "--vault", place, "--json"], env)

        Run([*bench.memkeep, "init", "--vault", place, "--json"], bench.env | server.environment)
        first = backup({})
        bench.churn("churn", str(bench.store), "--day", str(day))
        with _counted(server.port) as (counted, port):
            run = backup({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    print(f"  into a bucket: first {first.seconds:.2f} s, a day {run.seconds:.2f} s, {counted.sent / MB:.2f} MB sent")
    for kind, count in sorted(Counter(_kind(one, place) for one in counted.requests).items()):
        print(f"    {count} x {kind}", flush=True)
    return counted


@contextmanager
def _counted(upstream: int) -> Iterator[tuple[Counted, int]]:
    counted = Counted(upstream)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=counted.serve, args=(listener,), daemon=True).start()
        yield counted, listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_BUFFER):
            target.sendall(piece)


def _kind(request: str, place: str) -> str:
    """Return what a request is about: without the names of objects."""
    method, _, path = request.partition(" ")
    plain, _, query = path.partition("?")
    inside = plain.removeprefix("/" + place.removeprefix("s3://")).strip("/")
    if "list-type" in query:
        prefix = next((one for one in query.split("&") if one.startswith("prefix=")), "prefix=")
        return f"LIST {prefix.removeprefix('prefix=').replace('%2F', '/')}"
    return f"{method} {inside.partition('/')[0] or plain}"

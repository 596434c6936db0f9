"""Backups of a collection while it is written to, and while things go wrong: one moment, or a plain word."""

import io
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engines.qdrant.conftest import Client, plain_points, rows_of

from memkeep.engines import qdrant_freeze, qdrant_nodes, qdrant_tar
from memkeep.engines.qdrant import QdrantEngine
from memkeep.errors import StoreError
from memkeep.model import Part, Role, Severity
from memkeep.testing.qdrant_server import QdrantServer, qdrant

Parts = Callable[..., Part]
BATCH = 20


@contextmanager
def writing(client: Client, name: str, work: Callable[[int], None]) -> Iterator[None]:
    """Work in rounds on a thread, until the block ends."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        number = 0
        try:
            while not stop.is_set():
                work(number)
                number += 1
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


EAGER = {"optimizers_config": {"indexing_threshold": 10, "default_segment_number": 2}}


@pytest.mark.parametrize(("more", "deletes"), [(EAGER, False), ({}, True)])
def test_each_snapshot_is_one_moment_of_a_collection_that_is_written_to(
    client: Client,
    engine: QdrantEngine,
    part: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    more: dict[str, Any],
    deletes: bool,
) -> None:
    # Without deletions the server is never quiet, and need not be; with them a quiet instant is waited for.
    monkeypatch.setattr(qdrant_freeze, "_PATIENCE", 30 if deletes else 0.5)
    name = client.make(32, **more)

    def work(number: int) -> None:
        """Each round adds a whole batch, rewrites one and removes one."""
        client.put(name, plain_points(number * BATCH, BATCH, 32, batch=number))
        if number >= 10:
            client.put(name, plain_points((number - 5) * BATCH, BATCH, 32, batch=number))
            if deletes:
                client.delete(name, list(range((number - 10) * BATCH, (number - 9) * BATCH)))

    with writing(client, name, work):
        proven = 0
        for attempt in range(9):
            scratch = tmp_path / str(attempt)
            with engine.freeze(part(name), tmp_path, scratch) as opened:
                rows = rows_of(opened)
                said = {finding.code for finding in opened.findings()}
            shutil.rmtree(scratch)
            if said == {"qdrant_optimising"}:  # on a slow machine: then nothing is claimed
                continue
            assert said == set()
            proven += 1
            rounds: dict[int, list[int]] = {}
            for ident, row in rows.items():
                rounds.setdefault(int(ident) // BATCH, []).append(row["batch"])
            assert all(len(batches) == BATCH and len(set(batches)) == 1 for batches in rounds.values())
            if proven == 3:
                return
    assert proven


def test_points_deleted_during_an_optimisation_do_not_come_back(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_freeze, "_PATIENCE", 0.1)
    name = client.make(64, optimizers_config={"indexing_threshold": 10, "default_segment_number": 2})
    real = qdrant_nodes.clock

    def always_busy(server: Any, shard: int) -> Any:
        import msgspec

        return msgspec.structs.replace(real(server, shard), busy=True)

    monkeypatch.setattr(qdrant_nodes, "clock", always_busy)
    for start in range(0, 3000, 500):
        client.put(name, plain_points(start, 500, 64))
        client.delete(name, list(range(start, start + 50)))
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        rows = rows_of(opened)
    assert len(rows) == 2700
    assert not {ident for ident in rows if int(ident) % 500 < 50}


def test_a_server_killed_in_the_middle_is_said(engine: QdrantEngine, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with qdrant(tmp_path / "server") as running, closing_client(running) as client:
        name = client.make(256)
        client.put(name, plain_points(0, 2000, 256))
        with relay(running, kill=running.kill) as port:
            told = unreadable(engine, f"qdrant://127.0.0.1:{port}/{name}", tmp_path)
    assert told.code == "store_unreachable"


def test_a_connection_cut_in_the_middle_is_said(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path
) -> None:
    name = client.make(256)
    client.put(name, plain_points(0, 2000, 256))
    with relay(client.server) as port:
        told = unreadable(engine, f"qdrant://127.0.0.1:{port}/{name}", tmp_path)
    assert told.code == "store_unreachable"


def test_a_collection_dropped_half_way_is_kept_whole_or_said(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make()
    client.put(name, plain_points(0, 100))
    unpack = qdrant_tar.unpack

    def drop(buffers: Any, folder: Path) -> None:
        unpack(buffers, folder)
        client.ask("DELETE", f"/collections/{name}")

    monkeypatch.setattr(qdrant_tar, "unpack", drop)
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        assert len(rows_of(opened)) == 100
        assert [finding.code for finding in opened.findings()] == ["qdrant_gone"]
        assert not opened.moved()


def test_a_collection_dropped_before_its_shard_is_read_is_said(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make()
    shards = qdrant_nodes.shards

    def drop(server: Any) -> Any:
        found = shards(server)
        client.ask("DELETE", f"/collections/{name}")
        return found

    monkeypatch.setattr(qdrant_nodes, "shards", drop)
    assert unreadable(engine, client.server.url(name), tmp_path).code == "store_missing"


def test_a_full_disk_of_the_server_is_said_or_does_no_harm(engine: QdrantEngine, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        with qdrant(folder, QDRANT__STORAGE__WAL__WAL_CAPACITY_MB="1") as running, closing_client(running) as client:
            name = client.make(64)
            client.put(name, plain_points(0, 500, 64))
            with (folder / "filler").open("wb") as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            part = Part(name=f"qdrant/{name}", engine="qdrant", role=Role.CANONICAL, path=running.url(name))
            try:
                with engine.freeze(part, tmp_path, tmp_path / "scratch") as opened:
                    list(opened.scan({}))
                    assert opened.baseline().tables[name].rows == 500
            except StoreError as error:
                assert error.hint  # noqa: PT017 - either is right
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_shard_on_a_node_that_cannot_be_reached_is_left_out_and_said(
    client: Client, engine: QdrantEngine, part: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make(shard_number=2)
    client.put(name, plain_points(0, 100))
    shards = qdrant_nodes.shards

    def one_is_away(server: Any) -> Any:
        first, second = shards(server)
        return [first, qdrant_nodes.Where(id=second.id, nodes=(server.where.on("127.0.0.9"),))]

    monkeypatch.setattr(qdrant_nodes, "shards", one_is_away)
    with engine.freeze(part(name), tmp_path, tmp_path) as opened:
        assert [one.part for one in opened.omitted()] == [f"qdrant/{name}/shards/1"]
        found = [finding for finding in opened.findings() if finding.severity is Severity.ERROR]
        assert [finding.code for finding in found] == ["part_unread"]
        assert 0 < len(rows_of(opened)) < 100


def packed(members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\b", ""])
def test_no_file_of_a_snapshot_lands_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError):
        qdrant_tar.unpack([packed([(name, b"x")])], tmp_path / "in")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_snapshot_has_only_files_and_folders(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(StoreError):
        qdrant_tar.unpack([packed([("a", b"")], kind)], tmp_path)


@pytest.mark.parametrize("cut", [100, 512, 1000, 1536, 2048, 3000])
def test_a_snapshot_that_is_cut_is_said(tmp_path: Path, cut: int) -> None:
    whole = packed([("a", b"1" * 600), ("b", b"2" * 600)])[: 2 * (512 + 1024) + 1024]
    with pytest.raises(StoreError):
        qdrant_tar.unpack([whole[:cut]], tmp_path)


@pytest.mark.parametrize("at", [0, 150, 512 + 1024 + 3])
def test_a_snapshot_whose_headers_are_garbled_is_said(tmp_path: Path, at: int) -> None:
    whole = bytearray(packed([("a", b"1" * 600), ("b", b"2" * 600)]))
    whole[at] ^= 0x55
    with pytest.raises(StoreError):
        qdrant_tar.unpack([bytes(whole)], tmp_path)


def test_what_is_packed_unpacks_to_the_same_with_its_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "wal").mkdir(parents=True)
    deep = source / "segments" / ("long-name-" * 9) / ("deeper-" * 10)
    deep.mkdir(parents=True)
    (deep / "sparse").write_bytes(b"")
    with (deep / "sparse").open("r+b") as file:
        for number in range(60):
            file.seek(number * 40_960)
            file.write(bytes([number + 1]) * 5000)
        file.truncate(5_000_001)
    (source / "empty").write_bytes(b"")
    (source / "hole").write_bytes(bytes(100_000))
    (source / "full").write_bytes(b"x" * 70_001)
    with (tmp_path / "packed").open("w+b") as out:
        qdrant_tar.pack(source, out)
    assert (tmp_path / "packed").stat().st_size < 800_000
    qdrant_tar.unpack([(tmp_path / "packed").read_bytes()], tmp_path / "target")
    tar = tmp_path / "with-tar"
    tar.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "packed", "-C", tar], check=True)
    for path in source.rglob("*"):
        if path.is_file():
            for other in (tmp_path / "target", tar):
                assert (other / path.relative_to(source)).read_bytes() == path.read_bytes()


@contextmanager
def closing_client(server: QdrantServer) -> Iterator[Client]:
    client = Client(server)
    with client.http:
        yield client


def unreadable(engine: QdrantEngine, url: str, folder: Path) -> StoreError:
    name = url.rpartition("/")[2]
    part = Part(name=f"qdrant/{name}", engine="qdrant", role=Role.CANONICAL, path=url)
    with pytest.raises(StoreError) as told, engine.freeze(part, folder, folder / "scratch"):
        pass
    return told.value


class Relay:
    """Passes bytes on to a server, until so many came back on one connection: then it cuts, or kills the server."""

    def __init__(self, server: QdrantServer, kill: Callable[[], None] | None, limit: int) -> None:
        self.server, self.kill, self.limit = server, kill, limit
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sockets: list[socket.socket] = []
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection((self.server.host, self.server.port))
                self.sockets += (near, far)
                for pair in ((near, far, 1 << 30), (far, near, self.limit)):
                    self.threads.append(threading.Thread(target=self.copy, args=pair))
                    self.threads[-1].start()

    def copy(self, source: socket.socket, target: socket.socket, limit: int) -> None:
        with suppress(OSError):
            while data := source.recv(16_384):
                limit -= len(data)
                if limit < 0:
                    if self.kill is not None:
                        self.kill()
                    break
                target.sendall(data)
        for one in (source, target):
            unplug(one)

    def close(self) -> None:
        unplug(self.listener)
        for one in self.sockets:
            unplug(one)
        for thread in self.threads:
            thread.join()
        for one in (self.listener, *self.sockets):
            one.close()


def unplug(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(server: QdrantServer, kill: Callable[[], None] | None = None, after: int = 100_000) -> Iterator[int]:
    made = Relay(server, kill, after)
    try:
        yield made.listener.getsockname()[1]
    finally:
        made.close()

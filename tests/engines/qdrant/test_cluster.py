"""A collection whose shards lie on two nodes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.engines.qdrant.conftest import Client, plain_points, rows_of

from memkeep.engines.qdrant import QdrantEngine
from memkeep.model import Part, Role
from memkeep.testing.qdrant_server import QdrantServer, running
from memkeep.testing.servers import reserve_port

FIRST, SECOND = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[QdrantServer]]:
    """Return two nodes of a cluster, which answer on the same port of two addresses."""
    with ExitStack() as stack:
        http, grpc, peer = (stack.enter_context(reserve_port(FIRST)).getsockname()[1] for _ in range(3))
        made = []
        for host in (FIRST, SECOND):
            (tmp_path / host).mkdir()
            arguments = ["--uri", f"http://{host}:{peer}"]
            arguments += ["--bootstrap", f"http://{FIRST}:{peer}"] if made else []
            settings = {"QDRANT__CLUSTER__ENABLED": "true", "QDRANT__CLUSTER__P2P__PORT": str(peer)}
            node = running(tmp_path / host, host=host, port=http, grpc=grpc, settings=settings, arguments=arguments)
            made.append(stack.enter_context(node))
        yield made


def test_each_shard_is_asked_where_it_lies_and_one_that_is_away_is_said(
    nodes: list[QdrantServer], engine: QdrantEngine, tmp_path: Path
) -> None:
    client = Client(nodes[0])
    with client.http:
        wait(lambda: len(client.ask("GET", "/cluster")["peers"]) == 2)
        name = client.make(shard_number=2)
        wait(lambda: len(client.ask("GET", f"/collections/{name}/cluster")["remote_shards"]) == 1)
        client.put(name, plain_points(0, 100))
        part = Part(name=f"qdrant/{name}", engine="qdrant", role=Role.CANONICAL, path=nodes[0].url(name))
        with engine.freeze(part, tmp_path, tmp_path / "both") as opened:
            list(opened.scan({}))
            assert opened.baseline().tables[name].rows == 100
            assert (opened.findings(), opened.omitted()) == ([], [])
            assert not opened.moved()
            client.put(name, plain_points(100, 10))
            assert opened.moved()
        nodes[1].kill()
        with engine.freeze(part, tmp_path, tmp_path / "one") as opened:
            assert rows_of(opened) == {}
            assert 0 < opened.baseline().tables[name].rows < 100
            assert len(opened.omitted()) == 1
            assert [finding.code for finding in opened.findings()] == ["part_unread"]


def wait(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

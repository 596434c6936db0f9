from collections.abc import Callable
from typing import Any

import pytest

from memkeep.engines.qdrant import QdrantEngine
from memkeep.engines.qdrant_http import Server
from memkeep.engines.rows import Deleted, Gone, RowDeleter
from memkeep.errors import StoreError
from memkeep.model import Part

UUID = "0f7e8a7e-1111-4222-8333-123456789abc"


def test_points_go_by_ids_in_any_spelling_once_it_is_said_to_last(
    client: Any, engine: QdrantEngine, part: Callable[..., Part]
) -> None:
    name = client.make(size=2)
    client.put(name, [{"id": one, "vector": [1, number], "payload": {}} for number, one in enumerate((1, 2, UUID))])
    assert isinstance(engine, RowDeleter)
    gone = [
        Gone(table=name, columns=("id",), ids=("1", "no id", "77")),
        Gone(table=name, columns=("id",), ids=(UUID.replace("-", ""),), spelled=False),
        Gone(table="another", columns=("id",), ids=("2",)),
    ]
    with engine.delete_rows(part(name), gone) as one:
        assert one.result == Deleted(tables={name: 2})
    assert len(client.points(name)) == 3
    with engine.delete_rows(part(name), gone) as one:
        one.commit()
    assert list(client.points(name)) == [2]


def test_points_are_put_back_when_the_server_fails_in_between(
    client: Any, engine: QdrantEngine, part: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make(size=2)
    client.put(name, [{"id": number, "vector": [1, number], "payload": {"n": number}} for number in range(250)])
    before = client.points(name)
    send, deletions = Server.send, []

    def failing(self: Server, method: str, path: str, body: object = None, **params: str) -> Any:
        if path.endswith("/delete"):
            deletions.append(body)
            if len(deletions) == 2:
                raise StoreError("the server is full")
        return send(self, method, path, body, **params)

    gone = [Gone(table=name, columns=("id",), ids=tuple(map(str, range(250))))]
    monkeypatch.setattr(Server, "send", failing)
    with engine.delete_rows(part(name), gone) as one, pytest.raises(StoreError, match="were not deleted: the server"):
        one.commit()
    assert len(deletions) == 2
    after = client.points(name)
    assert {key: one["payload"] for key, one in after.items()} == {key: one["payload"] for key, one in before.items()}
    assert after[7]["vector"] == pytest.approx(before[7]["vector"])

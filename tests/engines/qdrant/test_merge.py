"""Points of a snapshot among those of a live collection."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.engines.qdrant.conftest import Client

from memkeep.engines import qdrant_write
from memkeep.errors import RefusedError, StoreError
from memkeep.library import OpenVault
from memkeep.ops.merged import MergeResult

IDS = [str(uuid.UUID(int=number + 1)) for number in range(6)]


def point(number: int, text: str, *, user: str = "ann", at: str = "2025-01-01T00:00:00") -> dict[str, Any]:
    vector = [0.0] * 8
    vector[number] = 1.0
    return {"id": IDS[number], "vector": vector, "payload": {"content": text, "user_id": user, "updated_at": at}}


@pytest.fixture
def collection(client: Client) -> str:
    name = client.make()
    client.put(name, [point(number, f"memory {number}", user="bob" if number == 5 else "ann") for number in range(6)])
    return name


@pytest.fixture
def url(client: Client, collection: str) -> str:
    return f"qdrant://{client.server.base.removeprefix('http://')}/{collection}"


@pytest.fixture
def vault(new_vault: Callable[..., OpenVault], url: str) -> OpenVault:
    made = new_vault()
    assert made.backup(url).snapshots[0].records == 6
    return made


def merged(vault: OpenVault, url: str, **more: Any) -> MergeResult:
    """Rehearse and do it; both must say the same."""
    rehearsed = vault.restore_into(url, dry_run=True, **more).merged
    done = vault.restore_into(url, **more).merged
    assert done is not None
    assert done == rehearsed
    return done


def texts(client: Client, collection: str) -> list[str]:
    found = client.points(collection)
    return [found[one]["payload"]["content"] if one in found else "" for one in IDS]


@pytest.mark.parametrize(
    ("conflict", "wanted"),
    [
        ("skip", ("later", (2, 0, 1, 3))),
        ("update", ("memory 1", (2, 1, 0, 3))),
        ("newer", ("later", (2, 0, 1, 3))),
    ],
)
def test_what_is_lost_comes_back_and_what_differs_goes_by_the_policy(
    vault: OpenVault, url: str, client: Client, collection: str, conflict: Any, wanted: tuple[str, tuple[int, ...]]
) -> None:
    second, numbers = wanted
    client.delete(collection, [IDS[0], IDS[5]])
    client.put(collection, [point(1, "later", at="2026-01-01T00:00:00")])
    done = merged(vault, url, conflict=conflict)
    assert (done.inserted, done.updated, done.skipped, done.same) == numbers
    assert texts(client, collection) == ["memory 0", second, "memory 2", "memory 3", "memory 4", "memory 5"]


def test_only_the_points_of_one_user(vault: OpenVault, url: str, client: Client, collection: str) -> None:
    client.delete(collection, IDS)
    assert merged(vault, url, user="bob").inserted == 1
    assert texts(client, collection) == ["", "", "", "", "", "memory 5"]


def test_a_conflict_refuses_it_all(vault: OpenVault, url: str, client: Client, collection: str) -> None:
    client.delete(collection, [IDS[0]])
    client.put(collection, [point(1, "later")])
    with pytest.raises(RefusedError, match=IDS[1]):
        vault.restore_into(url, conflict="fail")
    assert texts(client, collection)[0] == ""


def test_points_of_another_size_are_named_beforehand(vault: OpenVault, client: Client, url: str) -> None:
    other = client.make(4)
    client.put(other, [{"id": 1, "vector": [1, 0, 0, 0], "payload": {"content": "x", "user_id": "ann"}}])
    done = merged(vault, f"{url.rpartition('/')[0]}/{other}")
    assert len(done.failed) == 6
    assert "8 dimensions" in done.failed[0].reason
    assert len(client.points(other)) == 1


def test_a_server_that_fails_in_between_is_left_as_it_was(
    vault: OpenVault, url: str, client: Client, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.delete(collection, [IDS[0]])
    client.put(collection, [point(1, "later")])
    put = qdrant_write.put
    calls = []

    def fails_once(*arguments: Any) -> None:
        calls.append(arguments)
        put(*arguments)
        if len(calls) == 1:
            raise StoreError("the disk of the server is full")

    monkeypatch.setattr(qdrant_write, "put", fails_once)
    with pytest.raises(StoreError, match="not merged: the disk"):
        vault.restore_into(url, conflict="update")
    assert texts(client, collection) == ["", "later", "memory 2", "memory 3", "memory 4", "memory 5"]

"""Collections whose server lets only little be asked at once, or only so often."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.engines.qdrant.conftest import Client, plain_points

from memkeep import clock
from memkeep.engines.qdrant_http import Server, address
from memkeep.engines.qdrant_image import CollectionImage
from memkeep.errors import StoreError
from memkeep.library import OpenVault

STRICT = {"enabled": True, "max_query_limit": 20, "upsert_max_batchsize": 7, "unindexed_filtering_retrieve": False}


def test_a_strict_collection_goes_the_whole_way(
    client: Client, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make(strict_mode_config=STRICT)
    points = plain_points(0, 50)
    for at in range(0, 50, 7):
        client.put(name, points[at : at + 7])
    before = _points(client, name)
    vault, url = new_vault(), client.server.url(name)
    report = vault.backup(url).snapshots[0]
    assert (report.records, report.findings) == (50, ())
    vault.restore(report.id, to=f"{url}-again")
    assert _points(client, f"{name}-again") == before

    def refuse(server: Server, folder: Any, image: CollectionImage, events: Any) -> None:
        raise StoreError(f"{server.where.told} takes no snapshot")

    monkeypatch.setattr("memkeep.engines.qdrant_write.upload", refuse)
    done = vault.restore(report.id, to=f"{url}-as-points")
    assert [one.code for one in done.findings] == ["qdrant_as_points"]
    assert _points(client, f"{name}-as-points") == before
    client.delete(name, list(range(30)))
    merged = vault.restore_into(url).merged
    assert merged is not None
    assert merged.inserted == 30
    assert _points(client, name) == before


def test_a_server_that_wants_to_be_asked_less_often_is_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = client.make(strict_mode_config={"enabled": True, "read_rate_limit": 2})
    path, waited = f"/collections/{name}", list[float]()

    def lift(seconds: float) -> None:
        waited.append(seconds)
        client.ask("PATCH", path, {"strict_mode_config": {"enabled": False}})

    monkeypatch.setattr(clock, "pause", lift)
    with Server(address(client.server.url(name))) as server:
        for _ in range(5):
            assert server.send("POST", f"{path}/points/scroll", {"limit": 1})["points"] == []
    assert waited
    assert waited[0] >= 1


def _points(client: Client, name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    offset = None
    while True:
        page = client.ask(
            "POST", f"/collections/{name}/points/scroll", {"limit": 20, "with_vector": True, "offset": offset}
        )
        found |= {point["id"]: point for point in page["points"]}
        if (offset := page["next_page_offset"]) is None:
            return found

"""Collections that products themselves wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engines.qdrant.conftest import NUMBERS, Client, rows_of, write_out

from memkeep.engines.qdrant import QdrantEngine
from memkeep.events import SILENT
from memkeep.model import Part


@pytest.mark.real
def test_the_collection_of_openmemory_is_kept_and_comes_back(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], stores: Path, tmp_path: Path
) -> None:
    name = f"openmemory-{next(NUMBERS)}"
    snapshot = next((stores / "openmemory/qdrant-snapshots").glob("*.snapshot"))
    with snapshot.open("rb") as file:
        sent = client.http.post(f"/collections/{name}/snapshots/upload?priority=snapshot", files={"snapshot": file})
    assert sent.status_code == 200, sent.text
    told = client.points(name)
    with engine.freeze(part(name), tmp_path, tmp_path / "scratch") as opened:
        rows = rows_of(opened)
        facts = opened.baseline().facts
        write_out(opened, tmp_path / "root")
    assert rows.keys() == told.keys()
    assert len(rows) == 58
    for ident, row in rows.items():
        payload = told[ident]["payload"]
        assert {key: row.get(key) for key in payload} == payload
    assert facts["vectors"][f"{name}.vector.bm25"]["missing"] == 8
    target = client.server.url(f"{name}-copy")
    assert engine.rebuild(part(name), tmp_path / "root", target, replace=False, events=SILENT).findings == ()
    assert client.points(f"{name}-copy") == told

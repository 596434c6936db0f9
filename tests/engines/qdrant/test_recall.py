"""The server's own search gives after a restore what it gave before, or it is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines.qdrant.conftest import KINDS, Client, odd_point, plain_points, vector, write_out

from memkeep.engines.qdrant import QdrantEngine
from memkeep.events import SILENT
from memkeep.model import Baseline, Part, Severity

Kept = tuple[Path, Baseline]
INDEXED: dict[str, Any] = {"optimizers_config": {"indexing_threshold": 1}, "hnsw_config": {"full_scan_threshold": 10}}


@pytest.fixture
def keep(engine: QdrantEngine, tmp_path: Path) -> Callable[[Part], Kept]:
    def kept(part: Part) -> Kept:
        root = tmp_path / "root"
        with engine.freeze(part, root, tmp_path / "scratch") as opened:
            for _ in opened.scan({}):
                pass
            write_out(opened, root)
            return root, opened.baseline()

    return kept


def test_the_index_of_a_restored_collection_answers_as_the_one_before(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], keep: Callable[[Part], Kept]
) -> None:
    name = client.make(**INDEXED)
    client.put(name, plain_points(0, 300))
    client.wait_until_idle(name)
    root, baseline = keep(part(name))
    asked = baseline.facts["recall"]
    assert len(asked) == 4
    assert all(question in ids and len(ids) == 5 for _, _, question, ids in asked)
    copy = f"{name}-copy"
    target = client.server.url(copy)
    engine.rebuild(part(name), root, target, replace=False, events=SILENT)
    client.wait_until_idle(copy)
    assert engine.recall(part(name), root, target, baseline) == []
    question, neighbour = asked[0][2], next(one for one in asked[0][3] if one != asked[0][2])
    for changed, severity in ((neighbour, Severity.WARNING), (question, Severity.ERROR)):
        away = [-number for number in vector(8, int(question))]
        client.put(copy, [{"id": int(changed), "vector": away}])
        (found,) = engine.recall(part(name), root, target, baseline)
        assert (found.code, found.severity) == ("recall_differs", severity)


def test_each_plain_vector_of_a_collection_is_asked_for(
    client: Client, engine: QdrantEngine, part: Callable[..., Part], keep: Callable[[Part], Kept]
) -> None:
    name = client.make(**KINDS)
    client.put(name, [odd_point(i) for i in range(120)])
    root, baseline = keep(part(name))
    columns = {column for _, column, _, _ in baseline.facts["recall"]}
    assert columns == {"vector.bytes", "vector.cosine", "vector.far", "vector.half"}
    assert engine.recall(part(name), root, part(name).path, baseline) == []

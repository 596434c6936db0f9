import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Ran

from memkeep.library import OpenVault, discover
from memkeep.model import Rung
from memkeep.ops import mixtures
from memkeep.ops.embed import EmbedOptions, embed
from memkeep.ops.embedder import Embedder
from memkeep.ops.vectors import look
from memkeep.records.record import Vector
from memkeep.testing.embedder import Embedder as Endpoint
from memkeep.testing.embedder import embedder

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with embedder(dims=768) as server:
        yield server


@pytest.fixture
def store(copy_store: Callable[..., Path], endpoint: Endpoint) -> Path:
    """Return an oc-memory whose vectors are all of `nomic-embed-text`."""
    path = copy_store("oc-memory") / "memory.db"
    embed(None, discover(path)[0], ollama(endpoint), EmbedOptions(every=True, snapshot=False))
    return path


def ollama(endpoint: Endpoint, model: str = "nomic-embed-text") -> Embedder:
    return Embedder(provider="ollama", model=model, url=endpoint.url)


def put(store: Path, vectors: dict[int, bytes | None]) -> None:
    with closing(sqlite3.connect(store)) as con, con:
        con.executemany("UPDATE mem_cells SET embedding = ? WHERE id = ?", [(v, k) for k, v in vectors.items()])


def cells(store: Path) -> dict[int, str]:
    with closing(sqlite3.connect(store)) as con:
        return dict(con.execute("SELECT id, content FROM mem_cells"))


def codes(report: Any) -> list[str]:
    return [one.code for one in report.findings]


def test_a_store_of_one_model_is_told_to_be_one(store: Path, endpoint: Endpoint) -> None:
    report = look(None, str(store), ollama(endpoint))
    assert not report.findings
    assert all(one.cosine == pytest.approx(1.0) for one in report.compared)
    assert len(report.compared) == sum(one.count for one in report.kinds)


def test_a_model_that_is_not_the_one_is_found_by_its_cosines(store: Path, endpoint: Endpoint) -> None:
    report = look(None, str(store), ollama(endpoint, "other-model"))
    assert codes(report) == ["other_model"]
    assert all(abs(one.cosine or 0) < 0.2 for one in report.compared)
    assert "cosine" in report.findings[0].message


def test_the_one_memory_of_another_model_is_named(store: Path, endpoint: Endpoint) -> None:
    record, text = list(cells(store).items())[3]
    put(store, {record: endpoint.vectors("other-model", [text]).tobytes()})
    report = look(None, str(store), ollama(endpoint))
    assert codes(report) == ["mixed_models"]
    assert f" {record} (cosine" in report.findings[0].message
    assert look(None, str(store)).findings == ()


def test_vectors_of_two_sizes_need_no_model_to_be_found(
    store: Path, endpoint: Endpoint, new_vault: Callable[..., OpenVault]
) -> None:
    put(store, {next(iter(cells(store))): np.ones(384, np.float32).tobytes()})
    report = look(None, str(store))
    assert codes(report) == ["mixed_models"]
    assert "1 of 384 dimensions" in report.findings[0].message
    vault = new_vault(encrypted=False)
    kept = vault.backup(store).snapshots[0]
    found = vault.verify(kept.id)
    assert codes(found.snapshots[0]) == ["mixed_models"]
    assert found.snapshots[0].rung is Rung.READABLE
    assert codes(look(None, str(store), ollama(endpoint))) == ["mixed_models", "mixed_models"]


def test_what_is_near_but_not_the_same_is_told_apart(store: Path, endpoint: Endpoint) -> None:
    texts = cells(store)
    noise = np.random.default_rng(3).standard_normal((len(texts), 768)) / 55
    made = (endpoint.vectors("nomic-embed-text", list(texts.values())) + noise).astype("<f4")
    put(store, {key: row.tobytes() for key, row in zip(texts, made, strict=True)})
    report = look(None, str(store), ollama(endpoint))
    assert codes(report) == ["vectors_differ"]


def test_hybrid_says_itself_that_two_models_are_mixed(copy_store: Callable[..., Path]) -> None:
    folder = copy_store("hybrid-2026.4.273", "memory")
    with closing(sqlite3.connect(folder / "facts.db")) as con, con:
        con.execute("UPDATE facts SET embedding_model = 'fake-hash-embed'")
        con.execute("UPDATE facts SET embedding_model = 'new' WHERE id IN (SELECT id FROM facts ORDER BY id LIMIT 9)")
    assert codes(look(None, str(folder))) == ["mixed_models"]
    with closing(sqlite3.connect(folder / "facts.db")) as con, con:
        con.execute("UPDATE facts SET embedding_model = 'new'")
    assert codes(look(None, str(folder))) == ["other_model"]


def test_the_command_looks_at_a_snapshot_and_at_a_store(
    store: Path, endpoint: Endpoint, new_vault: Callable[..., OpenVault], run_cli: Callable[..., Ran], home: Path
) -> None:
    vault = new_vault(encrypted=False)
    vault.backup(store)
    record, text = list(cells(store).items())[3]
    put(store, {record: endpoint.vectors("other-model", [text]).tobytes()})
    words = ["--vectors", "--provider", "ollama", "--json", "--vault", home / "vault"]
    good = run_cli("verify", "latest", *words, env={"OLLAMA_URL": endpoint.url})
    bad = run_cli("verify", store, *words, env={"OLLAMA_URL": endpoint.url})
    assert (good.code, bad.code) == (0, 4), good.stdout + bad.stdout
    assert good.result["model"] == good.result["configured"] == "nomic-embed-text"
    assert [one["code"] for one in bad.result["findings"]] == ["mixed_models"]


def _model(seed: int, count: int, *, topics: int = 1, apart: float = 0.8) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return vectors as models make them: about a common direction, varying in a few, about topics of their own."""
    random = np.random.default_rng(seed)
    common, basis = random.standard_normal(768), random.standard_normal((24, 768))
    where = apart * random.standard_normal((topics, 24))
    made = [
        common + (random.standard_normal(24) + where[at % topics]) @ basis / np.sqrt(24) * 0.8 for at in range(count)
    ]
    return np.stack([one / np.linalg.norm(one) for one in made]).astype(np.float32)


def judged(*groups: "np.ndarray[Any, np.dtype[np.float32]]") -> list[str]:
    mixture = mixtures.Mixture()
    for number, group in enumerate(groups):
        for at, row in enumerate(group):
            mixture.add(f"{number}-{at}", Vector.f32(row.astype("<f4").tobytes()))
    return [code for code, _ in mixtures.judged(mixture)]


@pytest.mark.parametrize("seed", range(6))
def test_groups_that_are_strangers_are_two_models_and_topics_are_not(seed: int) -> None:
    assert judged(_model(seed, 200)) == []
    for apart in (0.8, 2.5, 10):
        for topics in (2, 7):
            assert judged(_model(seed, 200, topics=topics, apart=apart)) == []
    assert judged(_model(seed, 150), _model(seed + 100, 30)) == ["mixed_groups"]
    assert judged(_model(seed, 150, topics=3), _model(seed + 100, 100, topics=3)) == ["mixed_groups"]


def test_vectors_of_unit_length_beside_others_are_told() -> None:
    one = _model(1, 100)
    lengths = np.random.default_rng(1).uniform(5, 20, (100, 1)).astype(np.float32)
    assert judged(one * lengths) == []
    assert judged(np.where(np.arange(100)[:, None] < 10, one, one * lengths)) == ["mixed_lengths"]


def test_too_few_vectors_say_nothing() -> None:
    assert judged(_model(1, 3), _model(2, 3)) == []
    assert judged(_model(1, 1)) == []

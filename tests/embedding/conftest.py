"""Endpoints on loopback, and time that passes at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memkeep import clock
from memkeep.embedding.base import Provider
from memkeep.embedding.ollama import Ollama
from memkeep.embedding.openai import OpenAI
from memkeep.embedding.pace import Pace
from memkeep.testing.embedder import Embedder, embedder


@pytest.fixture
def endpoint() -> Iterator[Embedder]:
    with embedder() as server:
        yield server


@pytest.fixture(params=["openai", "ollama"])
def provider(endpoint: Embedder, request: pytest.FixtureRequest) -> Iterator[Provider]:
    pace = Pace(3)
    made: Provider = (
        OpenAI(f"{endpoint.url}/v1", "m", pace=pace, timeout=0.5)
        if request.param == "openai"
        else Ollama(endpoint.url, "m", pace=pace, timeout=0.5)
    )
    yield made
    made.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that were waited; they pass at once, for the clock too."""
    waited: list[float] = []
    real = clock.monotonic
    monkeypatch.setattr(clock, "pause", waited.append)
    monkeypatch.setattr(clock, "monotonic", lambda: real() + sum(waited))
    return waited


@pytest.fixture
def static_model(tmp_path: Path) -> Path:
    """Return a folder with a tiny model in model2vec's own form: three words, eight dimensions."""
    import numpy as np
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "green": 2, "blue": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)
    folder = tmp_path / "tiny-model"
    StaticModel(vectors, words, normalize=True).save_pretrained(folder)
    return folder

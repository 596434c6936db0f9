import shutil
from pathlib import Path

import numpy as np
import pytest

from memkeep.embedding.base import Provider, TextRefusedError, TryLaterError
from memkeep.embedding.local import Local
from memkeep.embedding.ollama import Ollama
from memkeep.embedding.openai import OpenAI
from memkeep.errors import EmbedderError, UsageError
from memkeep.testing.embedder import Embedder, embedder

TEXTS = ["one", "two 𝄞", "three\n"]


def test_vectors_come_in_the_order_of_the_texts(provider: Provider, endpoint: Embedder) -> None:
    assert np.array_equal(provider.embed(TEXTS), endpoint.vectors("m", TEXTS))


def test_an_endpoint_that_knows_no_base64_answers_with_numbers(endpoint: Embedder) -> None:
    endpoint.packs = False
    provider = OpenAI(f"{endpoint.url}/v1", "m")
    assert np.allclose(provider.embed(TEXTS), endpoint.vectors("m", TEXTS))
    provider.embed(["again"])
    assert endpoint.requests == 2
    provider.close()


def test_an_ollama_from_before_batches_is_asked_one_by_one() -> None:
    with embedder(old=True) as server:
        provider = Ollama(server.url, "m")
        assert np.allclose(provider.embed(TEXTS), server.vectors("m", TEXTS))
        assert server.requests == 3
        provider.close()


def test_a_model_that_ollama_does_not_have_is_named_with_the_command_that_fetches_it() -> None:
    with embedder(models=("other",)) as server:
        for old in (False, True):
            server.old = old
            provider = Ollama(server.url, "nomic-embed-text")
            with pytest.raises(EmbedderError) as caught:
                provider.embed(TEXTS)
            assert caught.value.hint == "ollama pull nomic-embed-text"
            provider.close()


def test_the_size_of_vectors_can_be_chosen(endpoint: Embedder) -> None:
    for provider in (OpenAI(f"{endpoint.url}/v1", "m", dims=7), Ollama(endpoint.url, "m", dims=7)):
        assert provider.embed(TEXTS).shape == (3, 7)
        provider.close()


def test_a_key_goes_only_into_the_header_and_a_wrong_one_is_told(endpoint: Embedder) -> None:
    endpoint.key = "sk-right"
    right, wrong = OpenAI(f"{endpoint.url}/v1", "m", key="sk-right"), OpenAI(f"{endpoint.url}/v1", "m", key="sk-wrong")
    assert right.embed(["one"]).shape == (1, 32)
    with pytest.raises(EmbedderError) as caught:
        wrong.embed(["one"])
    assert caught.value.code == "embedder_denied"
    assert "sk-" not in f"{caught.value} {right.identity}"
    with pytest.raises(UsageError, match="others can see it"):
        OpenAI("http://user:sk-secret@127.0.0.1/v1", "m")
    right.close()
    wrong.close()


@pytest.mark.parametrize("fault", ["429", "500", "503", "few", "torn", "hang", "close", "other"])
def test_what_may_pass_is_told_apart_from_what_will_not(provider: Provider, endpoint: Embedder, fault: str) -> None:
    endpoint.faults.append(fault)  # type: ignore[arg-type]
    with pytest.raises(TryLaterError) as caught:
        provider.embed(TEXTS)
    assert caught.value.busy == (fault in {"429", "503"})
    assert provider.embed(TEXTS).shape == (3, 32)


def test_a_vector_that_is_no_numbers_or_only_zeros_is_none(endpoint: Embedder) -> None:
    provider = OpenAI(f"{endpoint.url}/v1", "m")
    for fault in ("nan", "zeros"):
        endpoint.faults.append(fault)  # type: ignore[arg-type]
        with pytest.raises(TextRefusedError):
            provider.embed(TEXTS)
    provider.close()


def test_a_text_that_is_too_long_is_refused(provider: Provider, endpoint: Embedder) -> None:
    endpoint.longest = 4
    with pytest.raises(TextRefusedError, match="context length"):
        provider.embed(TEXTS)


def test_vectors_of_several_sizes_in_one_answer_are_none() -> None:
    from memkeep.embedding.vectors import matrix

    for lie in ([[1.0, 2.0], [1.0]], [["a"], ["b"]], [[], []], ["AAAA", "AAA"], ["?", "?"], [[[1.0]], [[1.0]]]):
        with pytest.raises(TryLaterError):
            matrix(lie, 2)


def test_a_model_of_this_machine_makes_what_its_library_makes(static_model: Path, tmp_path: Path) -> None:
    from model2vec import StaticModel

    provider = Local(str(static_model))
    texts = ["red green", "blue"]
    assert np.array_equal(provider.embed(texts), StaticModel.from_pretrained(static_model).encode(texts))
    moved = shutil.copytree(static_model, tmp_path / "elsewhere")
    assert Local(str(moved)).identity == provider.identity
    with pytest.raises(UsageError, match=r"config\.json"):
        Local(str(tmp_path / "none"))
    (moved / "model.safetensors").write_bytes(b"x")
    with pytest.raises(EmbedderError):
        Local(str(moved))

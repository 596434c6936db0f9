from collections.abc import Iterable

import pytest

from memkeep.embedding.base import Provider
from memkeep.embedding.openai import OpenAI
from memkeep.embedding.pace import Pace, rate
from memkeep.embedding.work import Done, Item, embed
from memkeep.errors import EmbedderError, RefusedError, UsageError
from memkeep.testing.embedder import Embedder, embedder


def items(count: int, *more: str) -> list[Item]:
    texts = [f"text {number}" for number in range(count)] + list(more)
    return [Item(f"{at:016d}".encode(), text) for at, text in enumerate(texts)]


def run(provider: Provider, given: Iterable[Item], **more: object) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the vectors and the refusals, by text."""
    options = {"batch": 8} | more
    made: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    for done in embed(provider, given, **options):  # type: ignore[arg-type]
        made |= _by_text(done)
        refused |= {item.text: why for item, why in done.refused}
    return made, refused


def _by_text(done: Done) -> dict[str, bytes]:
    if done.vectors is None:
        return {}
    return {item.text: row.tobytes() for item, row in zip(done.items, done.vectors, strict=True)}


def right(endpoint: Embedder, given: Iterable[Item]) -> dict[str, bytes]:
    texts = [item.text for item in given]
    return {text: row.tobytes() for text, row in zip(texts, endpoint.vectors("m", texts), strict=True)}


def test_every_text_is_served_once_and_several_batches_at_once(provider: Provider, endpoint: Embedder) -> None:
    endpoint._seconds = 0.01
    given = items(100)
    made, refused = run(provider, given)
    assert made == right(endpoint, given)
    assert not refused
    assert set(endpoint.served.values()) == {1}
    assert 1 < endpoint.most <= 3
    assert endpoint.requests == 1 + 13


def test_one_text_that_is_refused_does_not_lose_the_others(provider: Provider, endpoint: Embedder) -> None:
    endpoint.longest = 100
    given = [*items(20), Item(b"k" * 16, "x" * 101), *items(9)[5:]]
    made, refused = run(provider, given)
    assert made == right(endpoint, [item for item in given if len(item.text) <= 100])
    assert list(refused) == ["x" * 101]
    assert "context length" in refused["x" * 101]


def test_a_text_on_which_the_endpoint_fails_each_time_does_not_lose_the_others(
    provider: Provider, endpoint: Embedder, pauses: list[float]
) -> None:
    endpoint.poison = "poison"
    given = items(30, "poison", "last")
    made, refused = run(provider, given)
    assert list(refused) == ["poison"]
    assert made.keys() == {item.text for item in given} - {"poison"}


@pytest.mark.parametrize("fault", ["429", "500", "503", "few", "nan", "torn", "close", "other"])
def test_what_passes_is_tried_again(provider: Provider, endpoint: Embedder, pauses: list[float], fault: str) -> None:
    if fault == "nan" and provider.name == "ollama":
        pytest.skip("JSON has no such number")
    given = items(40)
    endpoint.faults.extend([None, fault, fault, None, fault])  # type: ignore[list-item]
    made, refused = run(provider, given)
    assert made == right(endpoint, given)
    assert not refused


def test_an_endpoint_that_hangs_is_asked_again(provider: Provider, endpoint: Embedder) -> None:
    endpoint.faults.extend([None, "hang"])
    made, _ = run(provider, items(30))
    assert len(made) == 30


def test_all_threads_wait_as_long_as_the_endpoint_asks(
    provider: Provider, endpoint: Embedder, pauses: list[float]
) -> None:
    endpoint.faults.append("busy")
    run(provider, items(1))
    assert sum(pauses) == pytest.approx(1, abs=0.1)


def test_requests_keep_to_a_rate(endpoint: Embedder, pauses: list[float]) -> None:
    provider = OpenAI(f"{endpoint.url}/v1", "m", pace=Pace(3, rate("60/min")))
    run(provider, items(33))
    assert endpoint.requests == 5
    assert sum(pauses) == pytest.approx(4, abs=0.2)
    provider.close()


@pytest.mark.parametrize("text", ["", "60", "0/min", "x/min", "-1/s", "1/year"])
def test_what_is_no_rate_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        rate(text)


def test_an_endpoint_that_fails_with_everything_is_given_up_and_what_it_gave_is_kept(
    provider: Provider, endpoint: Embedder, pauses: list[float]
) -> None:
    endpoint.faults.extend([None, None, *["500"] * 500])
    kept: list[Done] = []
    with pytest.raises(EmbedderError, match="one text after another"):
        kept.extend(embed(provider, items(100), batch=8))
    assert sum(len(done.items) for done in kept) == 9


def test_what_came_of_a_batch_before_it_failed_is_not_lost(
    provider: Provider, endpoint: Embedder, pauses: list[float]
) -> None:
    endpoint.longest = 100
    given = [*items(5), Item(b"k" * 16, "x" * 101)]
    endpoint.faults.extend([None, None, None, "401"])  # the first, what was cut off twice, and the end
    kept: list[Done] = []
    with pytest.raises(EmbedderError):
        kept.extend(embed(provider, given, batch=8))
    assert sum(len(done.items) for done in kept) == sum(endpoint.served.values()) > 1


def test_an_endpoint_that_refuses_everything_is_not_asked_for_each_text(provider: Provider, endpoint: Embedder) -> None:
    endpoint.longest = 0
    with pytest.raises(EmbedderError):
        run(provider, items(1000))
    assert endpoint.requests < 60


def test_an_endpoint_that_asks_to_come_tomorrow_is_not_waited_for(
    provider: Provider, endpoint: Embedder, pauses: list[float]
) -> None:
    endpoint.faults.extend(["busy"] * 2000)
    with pytest.raises(EmbedderError) as caught:
        run(provider, items(5))
    assert caught.value.code == "embedder_busy"
    assert sum(pauses) < 2000


def test_vectors_of_another_size_are_refused_before_more_is_paid(provider: Provider, endpoint: Embedder) -> None:
    with pytest.raises(RefusedError) as caught:
        run(provider, items(50), dims=31)
    assert caught.value.code == "other_model"
    assert sum(endpoint.served.values()) == 1


def test_a_model_that_changes_in_the_middle_is_noticed(provider: Provider, endpoint: Embedder) -> None:
    endpoint.faults.extend([None, None, "dims"])
    with pytest.raises(EmbedderError, match="31 dimensions, not of 32"):
        run(provider, items(50))


def test_nobody_at_the_address_is_told_soon(pauses: list[float]) -> None:
    with embedder() as server:
        url = server.url
    provider = OpenAI(f"{url}/v1", "m")
    with pytest.raises(EmbedderError) as caught:
        run(provider, items(5))
    assert caught.value.code == "embedder_unreachable"
    assert sum(pauses) < 3
    provider.close()


def test_an_endpoint_is_kept_busy() -> None:
    with embedder(serving=3, seconds=0.03, dims=256) as server:
        provider = OpenAI(f"{server.url}/v1", "m", pace=Pace(3))
        made, _ = run(provider, items(16 * 60), batch=16)
        assert len(made) == 16 * 60
        assert server.busy > 0.75  # beside other tests; what it is alone, the benchmark says
        provider.close()


def test_nothing_is_asked_for_when_there_is_nothing_to_do(provider: Provider, endpoint: Embedder) -> None:
    assert run(provider, []) == ({}, {})
    assert endpoint.requests == 0

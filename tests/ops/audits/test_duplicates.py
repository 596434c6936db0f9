from collections.abc import Callable

import numpy as np
import pytest

from memkeep.ops.audits import near_vectors
from memkeep.ops.audits.base import Noticed
from memkeep.records.record import Record, Vector

Told = Callable[..., dict[str, list[Noticed]]]
DOG = "Anna walks the dog in the park every morning before work"


def ids(found: list[Noticed]) -> list[tuple[str, str | None]]:
    return [(one.id, one.same_as) for one in found]


def test_of_equal_texts_the_one_that_was_recalled_most_stays(told: Told) -> None:
    made = [
        Record(id="1", text=DOG, access_count=1),
        Record(id="2", text=f"  {DOG.upper()}\n", access_count=5),
        Record(id="3", text=DOG.replace("dog", "cat")),
    ]
    assert ids(told(made, "duplicates")["exact_duplicate"]) == [("1", "2")]


def test_what_two_users_say_in_the_same_words_is_no_duplicate(told: Told) -> None:
    made = [Record(id="1", text=DOG, user="anna"), Record(id="2", text=DOG, user="bob")]
    made += [Record(id="3", text=DOG, user="anna", status="superseded"), Record(id="4", text=DOG, primary=False)]
    assert told(made, "duplicates") == {}


def test_nearly_the_same_words_are_noticed_and_exact_ones_are_not_named_twice(told: Told) -> None:
    made = [
        Record(id="1", text=DOG),
        Record(id="2", text=DOG.replace("walks the dog", "walks her dog")),
        Record(id="3", text=DOG),
        Record(id="4", text="The invoice of March was paid late by the client"),
    ]
    found = told(made, "duplicates")
    assert ids(found["exact_duplicate"]) == [("3", "1")]
    assert ids(found["near_duplicate_text"]) == [("2", "1")]


@pytest.mark.parametrize("other", ["port 5433", "no port 5432", "port 5432 and never another"])
def test_another_number_or_a_no_makes_another_memory(told: Told, other: str) -> None:
    text = "The database of the staging cluster in Frankfurt listens on port 5432"
    made = [Record(id="1", text=text), Record(id="2", text=text.replace("port 5432", other))]
    assert "near_duplicate_text" not in told(made, "duplicates")


def test_a_thousand_that_are_all_alike_are_one_group(told: Told) -> None:
    words = [f"{a}{b}{c}" for a in "abcdefghij" for b in "abcdefghij" for c in "abcdefghij"]
    text = "The long note that says the same thing over and over again and ends with "
    found = told([Record(id=f"{n:04}", text=text + word) for n, word in enumerate(words)], "duplicates")
    assert len(found["near_duplicate_text"]) >= 990


def planted(n: int, dims: int, pairs: int, *, seed: int = 1, spread: float = 1.0) -> tuple[np.ndarray, set[int]]:
    """Return unit vectors around 20 topics, and the rows that are near copies of earlier ones."""
    random = np.random.default_rng(seed)
    topics = random.standard_normal((20, dims))
    rows = topics[random.integers(0, 20, n)] * spread + random.standard_normal((n, dims)) * 0.7
    source = random.choice(n - pairs, pairs, replace=False)
    rows[n - pairs :] = rows[source] + random.standard_normal((pairs, dims)) * 0.15
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows.astype(np.float32)), set(range(n - pairs, n))


def exact_pairs(unit: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    rows, columns = np.nonzero(np.triu(unit @ unit.T >= threshold, 1))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_nearly_all_pairs_that_are_alike_are_found(spread: float) -> None:
    unit, _ = planted(4000, 64, 150, spread=spread)
    wanted = exact_pairs(unit, 0.95)
    first = near_vectors.groups(unit, 0.95)
    found = sum(first[one] == first[other] for one, other in wanted)
    assert len(wanted) >= 100
    assert found >= 0.99 * len(wanted)


def test_no_two_are_in_a_group_that_no_chain_of_pairs_joins() -> None:
    unit, _ = planted(3000, 32, 100)
    first = near_vectors.groups(unit, 0.95)
    joined = np.arange(len(unit))
    for one, other in exact_pairs(unit, 0.95):
        joined[joined == joined[max(one, other)]] = joined[min(one, other)]
    for row, root in enumerate(first.tolist()):
        assert joined[row] == joined[root]


def test_equal_and_nearly_equal_vectors_by_the_thousand_are_one_group() -> None:
    random = np.random.default_rng(3)
    one = random.standard_normal(48)
    rows = np.concatenate((np.tile(one, (1000, 1)), one + random.standard_normal((1000, 48)) * 1e-3))
    unit = near_vectors.normalised(rows.astype(np.float32))
    assert set(near_vectors.groups(unit, 0.95).tolist()) == {0}


def test_huge_and_tiny_vectors_are_scaled_without_overflow() -> None:
    rows = np.array([[1e38, 1e38], [1e-38, 1e-38], [3.0, 4.0]], np.float32)
    assert np.allclose(np.linalg.norm(near_vectors.normalised(rows), axis=1), 1)


def test_what_means_the_same_is_noticed_beside_the_one_that_stays(told: Told) -> None:
    def vector(*numbers: float) -> dict[str, Vector]:
        return {"": Vector.f32(np.array(numbers, "<f4").tobytes())}

    made = [
        Record(id="1", text="She likes tea", vectors=vector(1, 0, 0)),
        Record(id="2", text="Tea is what she drinks", vectors=vector(2, 0.1, 0), importance=0.9),
        Record(id="3", text="Berlin", vectors=vector(0, 1, 0)),
        Record(id="4", text="zero", vectors=vector(0, 0, 0)),
        Record(id="5", text="no number", vectors=vector(float("nan"), 0, 0)),
        Record(id="6", text="another size", vectors=vector(1, 0)),
        Record(id="7", text="of another", vectors=vector(1, 0, 0), user="bob"),
    ]
    assert ids(told(made, "duplicates")["near_duplicate_vector"]) == [("1", "2")]


def test_a_chain_does_not_make_its_ends_the_same(told: Told) -> None:
    angles = [0.0, 0.3, 0.6, 0.9]  # neighbours have a cosine of 0.955
    made = [
        Record(
            id=str(number),
            text=f"text {number}",
            vectors={"": Vector.f32(np.array([np.cos(a), np.sin(a)], "<f4").tobytes())},
        )
        for number, a in enumerate(angles)
    ]
    assert ids(told(made, "duplicates")["near_duplicate_vector"]) == [("1", "0"), ("3", "2")]

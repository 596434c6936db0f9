"""What is said when a server's own search answers in another way than before."""

import pytest

from memkeep.engines import recall
from memkeep.model import Baseline, Probe, Severity

TRUE = {"a": ("a", "b", "c"), "d": ("d", "e", "f")}


def _baseline(answers: dict[str, list[str]]) -> Baseline:
    probes = tuple(
        Probe(kind="vector", table="t", column="v", question=name, ids=ids, scores=(0.0, 1.0, 2.0))
        for name, ids in TRUE.items()
    )
    return Baseline(probes=probes, facts=recall.fact(_answers(answers)))


def _answers(found: dict[str, list[str]]) -> recall.Answers:
    return {("t", "v", name): ids for name, ids in found.items()}


BEFORE = {"a": ["a", "b", "x"], "d": ["d", "e", "f"]}


def test_the_same_neighbours_in_another_order_are_no_finding() -> None:
    after = _answers({"a": ["x", "b", "a"], "d": ["d", "f", "e"]})
    assert recall.compare("p", _baseline(BEFORE), after) == []


@pytest.mark.parametrize(
    ("after", "severity", "said"),
    [
        ({"a": ["a", "b", "c"], "d": ["d", "e", "f"]}, Severity.WARNING, "gives 5 of 6 neighbours"),
        ({"a": ["a", "b", "x"], "d": ["e", "f", "g"]}, Severity.ERROR, "does not find d by its own vector"),
        ({"a": ["a", "y", "z"], "d": ["d", "y", "z"]}, Severity.ERROR, "gives 2 of 6 neighbours"),
        ({}, Severity.ERROR, "does not find a, d by their own vector"),
    ],
)
def test_other_neighbours_are_counted(after: dict[str, list[str]], severity: Severity, said: str) -> None:
    before = {"a": ["a", "b", "x"], "d": ["d", "e", "f"]}
    (found,) = recall.compare("p", _baseline(before), _answers(after))
    assert (found.code, found.severity) == ("recall_differs", severity)
    assert said in found.message


def test_a_server_that_was_not_asked_before_is_not_compared() -> None:
    assert recall.compare("p", Baseline(), _answers({"a": ["b"]})) == []

"""Where the tables and the vectors of OpenMemory differ, told from records alone."""

from typing import Any

import pytest

from memkeep.model import Severity
from memkeep.systems.base import Side
from memkeep.systems.openmemory_drift import drift, lost_ids

A, B, C = (letter * 8 + "-" + "-".join([letter * 4] * 3) + "-" + letter * 12 for letter in "abc")
LOST = "12345678-9012-4e34-1234-567890123456"  # reads as infinity


def sides(memories: list[dict[str, Any]], points: list[dict[str, Any]] | None) -> dict[str, Side]:
    found = {"memories": Side(part="api/openmemory.db", rows=memories)}
    return found if points is None else {**found, "points": Side(part="qdrant/openmemory", rows=points)}


def memory(id: Any, text: str = "text", state: str = "active", **more: Any) -> dict[str, Any]:
    return {"id": id.replace("-", "") if isinstance(id, str) else id, "text": text, "state": state, **more}


def point(id: str, text: str | None = "text", **more: Any) -> dict[str, Any]:
    return {"id": id, "text": text, **more}


def told(*args: Any) -> list[tuple[str, str | None]]:
    return [(one.code, one.record) for one in drift(sides(*args))]


def test_ids_agree_however_they_are_spelled() -> None:
    assert told([memory(A), memory(B.upper())], [point(A), point(B)]) == []


@pytest.mark.parametrize("state", ["archived", "paused"])
def test_archived_and_paused_memories_may_have_a_point_or_none(state: str) -> None:
    assert told([memory(A, state=state), memory(B, state=state)], [point(A)]) == []


def test_each_kind_of_drift_is_told_by_its_ids() -> None:
    memories = [memory(A), memory(B, state="deleted"), memory(C, "new")]
    found = drift(sides(memories, [point(B, "other"), point(C, "old"), point(LOST)]))
    assert {(one.code, one.record, one.part) for one in found} == {
        ("vector_missing", A, "api/openmemory.db"),
        ("deleted_searchable", B, "qdrant/openmemory"),
        ("text_differs", C, "api/openmemory.db"),
        ("row_missing", LOST, "qdrant/openmemory"),
    }
    assert all(one.severity is Severity.WARNING and one.mend and str(one.record) in one.message for one in found)


@pytest.mark.parametrize(
    ("sql", "vector", "newer"),
    [
        ("2026-03-02 10:00:00.5", "2026-03-02T09:00:00+00:00", "newer is SQL"),
        ("2026-03-02 10:00:00", "2026-03-02T06:00:01-04:00", "newer is the vector store"),
        (None, None, "newer is neither"),
    ],
)
def test_it_is_said_which_text_is_newer(sql: str | None, vector: str | None, newer: str) -> None:
    [found] = drift(sides([memory(A, "x", updated_at=sql)], [point(A, "y", updated_at=vector)]))
    assert newer in found.message


def test_texts_that_look_alike_are_not_alike() -> None:
    assert told([memory(A, "caf\u00e9")], [point(A, "cafe\u0301")]) == [("text_differs", A)]
    assert told([memory(A, "")], [point(A, None)]) == []


def test_of_many_the_first_are_named_and_the_others_counted() -> None:
    found = drift(sides([memory(f"{number:032x}") for number in range(0xA000, 0xA000 + 50)], []))
    assert len(found) == 21
    assert "30 more" in found[-1].message


def test_without_its_vectors_nothing_is_compared() -> None:
    assert told([memory(A)], None) == []
    assert drift({}) == []


@pytest.mark.parametrize(
    ("dashed", "number"),
    [
        (LOST, float("inf")),
        (LOST, {"float": "inf"}),
        ("00000000-0000-0000-0000-000000000001", 1),
        ("00000000-0000-0000-0000-0000000001e3", 1000),
        ("12345678-9012-3456-7890-123456789012", 12345678901234567890123456789012.0),
        ("12345678-9012-3456-7890-123456789012", 1.2345678901234568e31),
        (
            "12345678-9012-3456-7890-123456789012",
            "1.23456789012346e+31",
        ),  # as a mended table has what it could not tell
        (LOST, "Inf"),
    ],
)
def test_a_destroyed_id_is_found_again_by_the_number_that_it_reads_as(dashed: str, number: Any) -> None:
    memories, points = [memory(number, "mine", "paused")], [point(dashed, "mine"), point(B)]
    assert told(memories, points) == [("id_destroyed", dashed), ("row_missing", B)]
    [lost] = lost_ids(sides(memories, points))
    assert (lost.id, lost.text, lost.part) == (dashed.replace("-", ""), "mine", "api/openmemory.db")
    assert ("memory_categories", "memory_id") in lost.columns


def test_a_destroyed_id_is_found_though_its_text_was_edited() -> None:
    memories, points = [memory(float("inf"), "edited")], [point(LOST, "as it was")]
    assert told(memories, points) == [("id_destroyed", LOST), ("text_differs", LOST)]
    assert len(lost_ids(sides(memories, points))) == 1


def test_of_two_ids_that_read_as_the_same_number_the_text_decides() -> None:
    other = "1" + LOST[1:].replace("9012-4e34", "9999-4e99")
    memories, points = [memory(float("inf"), "mine")], [point(other, "not mine"), point(LOST, "mine")]
    [lost] = lost_ids(sides(memories, points))
    assert lost.id == LOST.replace("-", "")
    assert told(memories, points) == [("id_destroyed", LOST), ("row_missing", other)]


@pytest.mark.parametrize(
    "points",
    [
        None,
        [],
        [point(B, "mine")],  # the same text under an id that is no number
        [point(LOST, "x"), point(LOST.replace("12345678-", "22345678-"), "x")],  # two that may be it
        [point("00000000-0000-0000-0000-000000000001", "mine")],  # the same text, another number
    ],
)
def test_what_can_not_be_told_is_not_guessed(points: list[dict[str, Any]] | None) -> None:
    memories = [memory(float("inf"), "mine")]
    assert lost_ids(sides(memories, points)) == []
    first = drift(sides(memories, points))[0]
    assert (first.code, first.record) == ("id_destroyed", "inf")
    assert "mine" in first.message


def test_an_id_that_has_a_row_is_no_one_elses() -> None:
    memories = [memory(float("inf"), "mine"), memory(LOST)]
    assert lost_ids(sides(memories, [point(LOST)])) == []

"""Times of every year."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.records import moments

_SECONDS = st.integers(-62_135_596_800, 253_402_300_799)


@given(_SECONDS, st.integers(0, 999_999))
def test_a_time_is_spelled_as_the_calendar_has_it(seconds: int, micros: int) -> None:
    text = moments.from_raw(seconds * 1000 + micros // 1000, "ms")
    assert (
        text == (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, milliseconds=micros // 1000)).isoformat()
    )


@given(st.integers(-(10**15), 10**15))
def test_seconds_of_every_year_come_back(seconds: int) -> None:
    assert moments.to_number(moments.from_raw(seconds, "s"), "s") == seconds
    assert moments.to_number(moments.from_raw(seconds, "ms"), "ms") == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T01:16:30.120279",
        "2026-11-21T01:16:30",
        "2026-11-21 01:16:30.120000",
        "2026-11-21T01:16:30.120Z",
        "2026-11-21T01:16:30.120279+00:00",
        "+12026-11-21T01:16:30+00:00",
        "-00044-03-15T12:00:00+00:00",
    ],
)
def test_a_spelling_comes_back_by_one_that_is_like_it(text: str) -> None:
    assert moments.to_text(moments.from_raw(text, "iso"), like=text) == text


@pytest.mark.parametrize(
    "raw", ["", "yesterday", "2026-02-30", "2026-13-01", "2026-01-01T25:00", None, True, float("nan"), 1e300]
)
def test_what_is_no_time_is_none(raw: object) -> None:
    assert moments.from_raw(raw, "auto") is None

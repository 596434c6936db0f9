"""When a schedule runs, as a person says it and as cron and systemd read it."""

import shutil
import subprocess

import pytest

from memkeep.errors import UsageError
from memkeep.ops.schedule_times import When, calendar_times, cron_times, daily, every


def _minutes(field: str, all: int) -> list[int]:
    return list(range(all)) if field == "*" else [int(one) for one in field.split(",")]


def _points(lines: list[str]) -> list[int]:
    """Return the minutes of the day at which crontab lines run."""
    found = []
    for line in lines:
        minute, hour, *rest = line.split(" ")
        assert rest == ["*", "*", "*"]
        found += [h * 60 + m for h in _minutes(hour, 24) for m in _minutes(minute, 60)]
    return sorted(found)


@pytest.mark.parametrize("span", ["1m", "5m", "30min", "45m", "90m", "1h", "2 h", "6h", "160m", "12h", "24h", "1d"])
@pytest.mark.parametrize("delay", [0, 17, 59])
def test_cron_runs_at_exactly_the_asked_distance(span: str, delay: int) -> None:
    when = every(span)
    step = 24 * 60 // len(when.minutes)
    points = _points(cron_times(when, delay))
    assert len(points) == len(set(points)) == len(when.minutes)
    assert {(later - one) % (24 * 60) for one, later in zip(points, points[1:] + points[:1], strict=True)} <= {step, 0}
    assert all(point % step == delay % step for point in points)


@pytest.mark.parametrize(
    ("when", "lines"),
    [
        (every("6h"), ["17 0,6,12,18 * * *"]),
        (every("15m"), ["2,17,32,47 * * * *"]),
        (every("1m"), ["* * * * *"]),
        (daily("03:00"), ["17 3 * * *"]),
        (daily("23:50"), ["7 0 * * *"]),
    ],
)
def test_the_lines_are_as_a_person_would_write_them(when: When, lines: list[str]) -> None:
    assert cron_times(when, 17) == lines


@pytest.mark.parametrize(
    ("span", "near"),
    [("7h", "6h and 8h"), ("5h", "4h and 6h"), ("50m", "30m and 1h"), ("2d", "24h"), ("7m", "6m and 10m")],
)
def test_what_no_day_is_a_multiple_of_is_refused_with_the_nearest(span: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"nearest are {near}"):
        every(span)


@pytest.mark.parametrize("span", ["", "0h", "6", "h", "-1h", "1.5h", "6h; rm", "1w", "٦h"])
def test_what_is_no_span_is_refused(span: str) -> None:
    with pytest.raises(UsageError):
        every(span)


@pytest.mark.parametrize("time", ["", "3", "24:00", "03:60", "03:00:00", "3am"])
def test_what_is_no_time_of_the_day_is_refused(time: str) -> None:
    with pytest.raises(UsageError):
        daily(time)


def test_the_text_is_read_back_as_the_same() -> None:
    assert every("1d").text == "every 24h"
    assert every("120m").text == "every 2h"
    assert daily("3:05").text == "daily 03:05"


@pytest.mark.parametrize("when", [every("6h"), every("90m"), every("1m"), daily("23:59")])
def test_systemd_reads_its_times(when: When) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    for times in calendar_times(when):
        subprocess.run(["systemd-analyze", "calendar", times], check=True, capture_output=True)

"""The only place that reads the wall clock or sleeps, so that tests can freeze time."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the current moment, timezone-aware, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds from an arbitrary start, for measuring durations."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait before a retry."""
    time.sleep(seconds)

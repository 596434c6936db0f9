"""The only place that reads the wall clock or sleeps, so that tests can freeze time; and what texts say of it."""

import time
from datetime import UTC, datetime

_FIRST, _LAST = 1900, 9000  # years


def now() -> datetime:
    """Return the current moment, timezone-aware, in UTC."""
    return datetime.now(UTC)


def moment(text: str) -> datetime | None:
    """Return the moment that ISO 8601 text says, in UTC; None when it says none, or one too far away to count with.

    Text that names no zone is taken as UTC.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not _FIRST < at.year < _LAST:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def monotonic() -> float:
    """Return seconds from an arbitrary start, for measuring durations."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait before a retry."""
    time.sleep(seconds)

"""Times as products write them, and as people read them."""

import math
from datetime import UTC, datetime

from memkeep.model import TimeUnit

# hybrid's own rule for old rows: above 1e10 it is milliseconds; pro's: below 1e12 it is seconds. Both hold for this.
_MILLISECONDS_FROM = 1e11


def to_iso(raw: object, unit: TimeUnit) -> str | None:
    """Return a raw time as ISO-8601 in UTC; None for what is no time. Text without a zone is meant as UTC."""
    if isinstance(raw, str):
        try:
            moment = datetime.fromisoformat(raw.strip())
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw) or raw <= 0:
        return None
    milliseconds = unit == "ms" or (unit != "s" and raw >= _MILLISECONDS_FROM)
    try:
        return datetime.fromtimestamp(raw / 1000 if milliseconds else raw, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None

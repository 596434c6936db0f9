"""Times of every year between a product's raw value and portable text.

Portable text is ISO-8601 in UTC, `2026-01-02T03:04:05.678901+00:00`, with as many digits of a fraction as are needed
(none, or 6, or 9); years outside of 0000 to 9999 have a sign and at least five digits, `+12026-...`, as ISO-8601 has
them by agreement. The calendar is Gregorian all the way.
"""

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from memkeep.model import TimeUnit

_DAY = 86_400
_BILLION = 1_000_000_000
_MILLISECONDS_FROM = 1e11  # the rule of `times.to_iso` for `auto`
_TEXT = re.compile(
    r"([+-]\d{5,}|-?\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s*(Z|z|[+-]\d\d:?\d\d)?"
)
_COMMON = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{6})?(\+00:00)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CENTURIES = 250_000_000_000_000_000  # microseconds: up to the year 9892
_LIMIT = 10**16  # seconds: some 300 million years, and what a float tells apart


def from_raw(raw: object, unit: TimeUnit) -> str | None:
    """Return a raw value as portable text; None for what is no time. Text without a zone is meant as UTC."""
    if isinstance(raw, str):
        if _COMMON.fullmatch(raw) and (quick := _quick(raw)) is not None:
            return quick
        told = order(raw)
        return None if told is None else _text(told)
    if isinstance(raw, bool) or not isinstance(raw, int | float) or raw != raw or abs(raw) > _LIMIT * 1000:  # noqa: PLR0124 - NaN
        return None
    milliseconds = unit == "ms" or (unit != "s" and abs(raw) >= _MILLISECONDS_FROM)
    scale = 1_000 if milliseconds else 1_000_000
    micros = round(raw * scale)
    if micros / scale == raw and 0 <= micros < _CENTURIES:
        return (_EPOCH + timedelta(microseconds=micros)).isoformat()
    exact = Fraction(repr(raw)) if isinstance(raw, float) else Fraction(raw)
    return _text(round(exact * (_BILLION // 1000 if milliseconds else _BILLION)))


def to_number(text: str | None, unit: TimeUnit) -> int | float | None:
    """Return portable text as seconds or, for `ms`, milliseconds: a whole number where it is one; None for no time."""
    told = None if text is None else order(text)
    if told is None:
        return None
    scale = _BILLION // 1000 if unit == "ms" else _BILLION
    whole, rest = divmod(told, scale)
    return told / scale if rest else whole


def to_text(text: str | None, *, like: str) -> str | None:
    """Return portable text spelled as another time is: its separator, its fraction, its zone or none."""
    if text is None:
        return None
    spelled = from_raw(text, "iso")
    if spelled is None:
        return None
    date, _, rest = spelled.partition("T")
    clock = rest.removesuffix("+00:00")
    if "." in like and "." not in clock:
        clock += ".000000"
    zone = "Z" if like[-1:] in "Zz" else "+00:00" if like.endswith("+00:00") else ""
    if zone == "Z" and re.search(r"\.\d{3}Z$", like) and re.fullmatch(r".*\.\d{3}000", clock):
        clock = clock[:-3]
    return f"{date}{' ' if ' ' in like[:12] else 'T'}{clock}{zone}"


def order(text: str) -> int | None:
    """Return a time as a number that grows with it, nanoseconds from 1970; None for what is no time."""
    if _COMMON.fullmatch(text) and (moment := _moment(text)) is not None:
        return (moment - _EPOCH) // _MICROSECOND * 1000
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    y, mo, d, h, mi, s = int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
    if not (1 <= mo <= 12 and 1 <= d <= _days_in(y, mo) and h <= 23 and mi <= 59 and s <= 60):  # noqa: PLR2004 - a clock
        return None
    offset = 0
    if zone and zone not in "Zz":
        digits = zone[1:].replace(":", "")
        offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60 * (-1 if zone[0] == "-" else 1)
    seconds = _days(y, mo, d) * _DAY + h * 3600 + mi * 60 + s - offset
    return seconds * _BILLION + int((fraction or "0").ljust(9, "0"))


def _quick(raw: str) -> str | None:
    """Return a time in the usual spelling as portable text; None for what needs more care."""
    moment = _moment(raw)
    return None if moment is None else moment.isoformat()


def _moment(raw: str) -> datetime | None:
    """Return a time in the usual spelling, by the standard library; None for what it does not have."""
    try:
        moment = datetime.fromisoformat(raw)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, _BILLION)
    days, clock = divmod(seconds, _DAY)
    year, month, day = _date(days)
    shown = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+06d}"  # noqa: PLR2004 - what four digits hold
    tail = "" if not fraction else f".{fraction // 1000:06d}" if fraction % 1000 == 0 else f".{fraction:09d}"
    return f"{shown}-{month:02d}-{day:02d}T{clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}{tail}+00:00"


def _days_in(year: int, month: int) -> int:
    if month == 2:  # noqa: PLR2004 - February
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in {4, 6, 9, 11} else 31


def _days(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01, counted in cycles of 400 years of 146,097 days that begin in March."""
    year -= month <= 2  # noqa: PLR2004 - the year begins in March
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _date(days: int) -> tuple[int, int, int]:
    era, of_era = divmod(days + 719_468, 146_097)
    years = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * years + years // 4 - years // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 - March to December
    return years + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1  # noqa: PLR2004

"""When a schedule runs: the same minutes of every day, as cron and as systemd write them."""

import re
from collections.abc import Iterable
from itertools import groupby

from memkeep.errors import UsageError
from memkeep.model import Value

DAY = 24 * 60
_UNITS = {"m": 1, "min": 1, "h": 60, "d": DAY}
_NEAT = (1, 2, 3, 5, 6, 10, 15, 20, 30, 60, 90, 120, 180, 240, 360, 480, 720, DAY)  # offered in place of another
_WIDEST = 60  # minutes by which the runs of machines with one schedule are spread


class When(Value):
    """Minutes of the day, `text` as a person says it, and within how many minutes the moment may be put off."""

    text: str
    minutes: tuple[int, ...]
    spread: int


def every(text: str) -> When:
    """Read `6h`, `90m` or `1d`; refuses what does not divide a day, since no scheduler keeps to it over midnight."""
    said = re.fullmatch(r"([1-9]\d{0,5}) ?(m|min|h|d)", text.strip())
    step = int(said[1]) * _UNITS[said[2]] if said else 0
    if not said:
        raise UsageError(f"--every {text} is no time span", hint="memkeep schedule install --every 6h")
    if DAY % step:
        near = [
            max((one for one in _NEAT if one < step), default=1),
            min((one for one in _NEAT if one > step), default=DAY),
        ]
        told = " and ".join(dict.fromkeys(map(_span, near)))
        raise UsageError(
            f"a day is no multiple of {text}; the nearest are {told}",
            hint=f"memkeep schedule install --every {_span(near[0])}",
        )
    return When(text=f"every {_span(step)}", minutes=tuple(range(0, DAY, step)), spread=min(step, _WIDEST))


def daily(text: str) -> When:
    """Read a time of the day, `03:00`, in the machine's own time zone."""
    said = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text.strip())
    if not said:
        raise UsageError(f"--daily {text} is no time of the day", hint="memkeep schedule install --daily 03:00")
    minute = int(said[1]) * 60 + int(said[2])
    return When(text=f"daily {minute // 60:02}:{minute % 60:02}", minutes=(minute,), spread=15)


def cron_times(when: When, delay: int) -> list[str]:
    """Return the five fields of each line of a crontab; `delay` minutes later than asked for."""
    return [
        f"{_listed(minutes, 60, '')} {_listed(hours, 24, '')} * * *" for hours, minutes in _grouped(when.minutes, delay)
    ]


def calendar_times(when: When) -> list[str]:
    """Return the expressions of systemd's `OnCalendar=`."""
    return [
        f"*-*-* {_listed(hours, 24, '02')}:{_listed(minutes, 60, '02')}:00"
        for hours, minutes in _grouped(when.minutes, 0)
    ]


def _grouped(points: Iterable[int], delay: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return (hours, minutes) whose products are the points."""
    moved = sorted(((point + delay) % DAY % 60, (point + delay) % DAY // 60) for point in points)
    hours = {minute: tuple(hour for _, hour in same) for minute, same in groupby(moved, key=lambda one: one[0])}
    alike = dict.fromkeys(hours.values())
    return [(those, tuple(minute for minute, each in hours.items() if each == those)) for those in alike]


def _listed(numbers: tuple[int, ...], all: int, form: str) -> str:
    return "*" if len(numbers) == all else ",".join(format(number, form) for number in numbers)


def _span(minutes: int) -> str:
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"

"""Which snapshots a retention policy keeps, and why. Pure: it is told the time, and reads and changes nothing.

Each store (a system at a path on a host) is judged by itself.

* `keep_last` keeps the newest N. `keep_hourly`, `-daily`, `-weekly`, `-monthly` and `-yearly` keep the newest of each
  of the newest N periods *that have a snapshot*: a machine that was off for a month loses nothing by it.
* Periods are those of the wall clock where `forget` runs, as people count days; weeks are ISO weeks (Monday to Sunday).
  The hour that is repeated when summer time ends is two hours.
* `keep_within` keeps what is at most so old, seen from the store's newest snapshot, not from now: a store that is no
  longer backed up, or a clock that runs ahead, does not empty the vault.
* A snapshot of the future, or whose time can't be read, is kept, counts for no rule, and so pushes out no other.
* What a restore kept of a store as it was (the tag `before-restore`) is there to undo it: it is kept for seven days,
  as old as that seen from the store's newest snapshot, or for `keep_within` or `keep_tag`. It counts for no other rule,
  and so pushes out no snapshot that was good; a store that has nothing else is judged by it.
* Whatever the rules say, of each store the newest snapshot that was proven to `readable` or higher is kept, and never
  is none kept.
"""

import calendar
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

import msgspec

from memkeep import clock
from memkeep.config import Retention
from memkeep.errors import UsageError
from memkeep.model import BEFORE_RESTORE, Rung

POLICIES = {
    "thanos": Retention(keep_daily=7, keep_weekly=4),
    "openmemory": Retention(keep_daily=7, keep_weekly=4, keep_monthly=12),
    "rolling-7": Retention(keep_within="7d"),
}
"""The named policies. Under `thanos` a week's snapshot is that of its end, Sunday: a week that has not ended counts
for none of the four."""

EXAMPLE = "memkeep forget --keep-daily 7 --keep-weekly 4 --dry-run"
_SPAN = re.compile(r"(?=.)(?:(\d{1,4})y)?(?:(\d{1,5})m)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?", re.ASCII)
_SUNDAY = 7
_UNDO = "7d"  # how long a restore can be undone

Period = Callable[[datetime], str]


def _hour(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:00%z")


def _day(at: datetime) -> str:
    return at.date().isoformat()


def _week(at: datetime) -> str:
    year, week, _ = at.isocalendar()
    return f"{year}-W{week:02}"


def _month(at: datetime) -> str:
    return f"{at.year:04}-{at.month:02}"


def _year(at: datetime) -> str:
    return f"{at.year:04}"


PERIODS: dict[str, Period] = {"hourly": _hour, "daily": _day, "weekly": _week, "monthly": _month, "yearly": _year}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy looks at in a snapshot; `created` is ISO 8601, `rung` the one last proven."""

    id: str
    created: str
    system: str
    path: str
    host: str = ""
    user: str | None = None
    tag: str | None = None
    rung: Rung = Rung.NONE

    @property
    def store(self) -> tuple[str, str, str, str]:
        """What it is a snapshot of."""
        return (self.system, self.path, self.host, self.user or "")

    @property
    def good(self) -> bool:
        """Whether it was proven that its memories can be read."""
        return self.rung.height >= Rung.READABLE.height


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot and why it is kept: `last`, `daily 2026-11-21`, ...; without a reason it goes."""

    snapshot: Candidate
    reasons: tuple[str, ...]


def settled(wanted: Retention) -> Retention:
    """Return the rules that a request comes to: its own, and of its policy those that it has no word on.

    Raises `UsageError` for an unknown policy, a number below 0, a span that is none, and rules that keep nothing.
    """
    if wanted.policy is not None and wanted.policy not in POLICIES:
        known = ", ".join(POLICIES)
        raise _unfit(f"there is no retention policy called {wanted.policy}: known are {known}")
    base = POLICIES.get(wanted.policy or "", Retention())
    own = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) not in (None, ())}
    rules = msgspec.structs.replace(base, **own)
    numbers = [rules.keep_last, *(getattr(rules, f"keep_{name}") for name in PERIODS)]
    if any(number is not None and number < 0 for number in numbers):
        raise _unfit("a number of snapshots to keep can't be below 0")
    if rules.keep_within is not None:
        _span(rules.keep_within)
    if not any(numbers) and rules.keep_within is None and not rules.keep_tag:
        raise _unfit("these rules would keep no snapshot at all")
    return rules


def judge(
    snapshots: Iterable[Candidate],
    wanted: Retention,
    *,
    now: datetime,
    zone: tzinfo | None = None,
    unguarded: frozenset[str] = frozenset(),
) -> list[Verdict]:
    """Say of each snapshot why it is kept, in the order given. `zone` is whose days are meant, None the machine's own.

    `unguarded` names systems whose last good snapshot may go. Raises `UsageError` as `settled` does.
    """
    rules = settled(wanted)
    given = list(snapshots)
    stores: dict[tuple[str, str, str, str], list[Candidate]] = {}
    for one in given:
        stores.setdefault(one.store, []).append(one)
    reasons: dict[str, list[str]] = {}
    for (system, *_), own in stores.items():
        reasons |= _judge_store(own, rules, now, zone, guarded=system not in unguarded)
    return [Verdict(snapshot=one, reasons=tuple(reasons[one.id])) for one in given]


def _judge_store(
    own: Sequence[Candidate], rules: Retention, now: datetime, zone: tzinfo | None, *, guarded: bool
) -> dict[str, list[str]]:
    """Return the reasons for each snapshot of one store, by id."""
    reasons: dict[str, list[str]] = {one.id: [] for one in own}
    dated = []
    for one in own:
        at = moment(one.created, zone)
        if at is None:
            reasons[one.id].append("time unreadable")
        elif at > now:
            reasons[one.id].append("time in the future")
        else:
            dated.append(_Dated(at.astimezone(UTC), at, one))
    dated.sort(key=lambda known: (known.instant, known.snapshot.id), reverse=True)
    backups = [known for known in dated if known.snapshot.tag != BEFORE_RESTORE] or dated
    for word, one in (*_wanted(backups, rules, zone), *_undoing(dated, rules, zone)):
        reasons[one.id].append(word)
    for one in own:
        if one.tag is not None and one.tag in rules.keep_tag:
            reasons[one.id].append(f"tag {one.tag}")
    best = next((known.snapshot for known in (*backups, *dated) if known.snapshot.good), None)
    if guarded and best is not None:
        reasons[best.id].append("last good")
    if not any(reasons.values()):
        reasons[dated[0].snapshot.id].append("last of its store")
    return reasons


def _wanted(dated: "Sequence[_Dated]", rules: Retention, zone: tzinfo | None) -> Iterator[tuple[str, Candidate]]:
    """Yield what the rules of time keep of one store, and why; `dated` is newest first."""
    for known in dated[: rules.keep_last or 0]:
        yield "last", known.snapshot
    for name, period in PERIODS.items():
        eligible = _of_ended_weeks(dated) if name == "weekly" and rules.policy == "thanos" else dated
        for word, one in _newest_of_each(eligible, period, getattr(rules, f"keep_{name}") or 0):
            yield f"{name} {word}", one
    if rules.keep_within is not None and dated:
        since = _before(dated[0].wall, rules.keep_within, zone)
        for known in dated:
            if known.instant >= since:
                yield f"within {rules.keep_within}", known.snapshot


def _undoing(dated: "Sequence[_Dated]", rules: Retention, zone: tzinfo | None) -> Iterator[tuple[str, Candidate]]:
    """Yield what undoes a restore that is not long ago; `dated` is newest first."""
    if dated:
        since = min(_before(dated[0].wall, span, zone) for span in (_UNDO, rules.keep_within or _UNDO))
        for known in dated:
            if known.snapshot.tag == BEFORE_RESTORE and known.instant >= since:
                yield "undoes a restore", known.snapshot


class _Dated(NamedTuple):
    """A snapshot and when it was taken. Wall clocks of one zone do not compare by instant where one hour repeats."""

    instant: datetime  # UTC
    wall: datetime  # the same on the clock of the zone
    snapshot: Candidate


def _newest_of_each(dated: Sequence[_Dated], period: Period, most: int) -> list[tuple[str, Candidate]]:
    """Return the newest of each of the newest periods; `dated` is newest first."""
    found: dict[str, Candidate] = {}
    for known in dated:
        if len(found) == most:
            break
        found.setdefault(period(known.wall), known.snapshot)
    return list(found.items())


def _of_ended_weeks(dated: Sequence[_Dated]) -> Sequence[_Dated]:
    """Return those of weeks that are over, seen from the newest: its own week is only if it was taken on a Sunday."""
    if not dated or dated[0].wall.isoweekday() == _SUNDAY:
        return dated
    unfinished = _week(dated[0].wall)
    return [known for known in dated if _week(known.wall) != unfinished]


def moment(created: str, zone: tzinfo | None) -> datetime | None:
    """Return when a snapshot was taken, by the clock of a zone (None: the machine's); None when it says no time."""
    at = clock.moment(created)
    return at.astimezone(zone) if at is not None else None


def _before(at: datetime, span: str, zone: tzinfo | None) -> datetime:
    """Return the moment that lies a span before another: years, months and days by the calendar, hours by the clock."""
    years, months, days, hours = _span(span)
    year, month = divmod(at.year * 12 + at.month - 1 - years * 12 - months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    try:
        wall = at.replace(tzinfo=None, year=year, month=month + 1, day=min(at.day, last)) - timedelta(days=days)
        there = wall.replace(tzinfo=zone) if zone is not None else wall.astimezone()
        return there.astimezone(UTC) - timedelta(hours=hours)
    except (ValueError, OverflowError, OSError):
        return datetime.min.replace(tzinfo=UTC)  # before the calendar begins: all is within


def _span(text: str) -> tuple[int, int, int, int]:
    """Return the years, months, days and hours of a span such as `2y5m7d3h`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise _unfit(f"{text!r} is no span of time: write years, months, days and hours as in 30d or 2y5m7d3h")
    years, months, days, hours = (int(number or 0) for number in found.groups())
    return years, months, days, hours


def _unfit(message: str) -> UsageError:
    return UsageError(message, hint=EXAMPLE, code="retention")

"""What a retention policy keeps, beside a model that tries every rule on every snapshot."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memkeep.config import Retention
from memkeep.errors import UsageError
from memkeep.model import BEFORE_RESTORE, Rung
from memkeep.ops.retention import POLICIES, Candidate, judge, settled

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def made(
    at: datetime | str, *, name: str = "", system: str = "a", rung: Rung = Rung.READABLE, tag: str | None = None
) -> Candidate:
    created = at if isinstance(at, str) else at.isoformat()
    return Candidate(id=name or created, created=created, system=system, path="/p", rung=rung, tag=tag)


def kept(snapshots: list[Candidate], *, now: datetime = NOW, zone: ZoneInfo = BERLIN, **rules: object) -> dict:
    verdicts = judge(snapshots, Retention(**rules), now=now, zone=zone)
    assert [one.snapshot for one in verdicts] == snapshots
    return {one.snapshot.id: [why for why in one.reasons if why != "last good"] for one in verdicts if one.reasons}


def daily(days: int, *, end: datetime = NOW) -> list[Candidate]:
    return [made(end - timedelta(days=number)) for number in range(days)]


def days_of(found: dict) -> list[str]:
    return [name[:10] for name in found]


def test_the_newest_of_each_period_is_kept_and_says_why() -> None:
    found = kept([made("2026-11-21T08:00Z"), made("2026-11-21T09:00Z"), made("2026-11-20T09:00Z")], keep_daily=5)
    assert found == {"2026-11-21T09:00Z": ["daily 2026-11-21"], "2026-11-20T09:00Z": ["daily 2026-11-20"]}


def test_periods_without_a_snapshot_do_not_count() -> None:
    found = kept([made("2026-11-20T09:00Z"), made("2026-03-01T09:00Z"), made("2020-03-01T09:00Z")], keep_daily=2)
    assert days_of(found) == ["2026-11-20", "2026-03-01"]


def test_a_day_is_one_of_the_wall_clock() -> None:
    # 23:30 UTC on the 19th is half past midnight of the 20th in Berlin.
    found = kept([made("2026-11-20T22:00Z"), made("2026-11-19T23:30Z"), made("2026-11-19T22:30Z")], keep_daily=9)
    assert found == {"2026-11-20T22:00Z": ["daily 2026-11-20"], "2026-11-19T22:30Z": ["daily 2026-11-19"]}


def test_the_hour_that_is_repeated_when_summer_time_ends_is_two() -> None:
    moments = ["2026-10-25T00:59Z", "2026-10-25T00:10Z", "2026-10-25T01:10Z", "2026-10-25T02:10Z"]
    found = kept([made(at) for at in moments], keep_hourly=9)
    assert [found[at] for at in moments if at in found] == [
        ["hourly 2026-10-25 02:00+0200"],
        ["hourly 2026-10-25 02:00+0100"],
        ["hourly 2026-10-25 03:00+0100"],
    ]
    # 01:10 UTC is 02:10 again: newer than 02:59 of an hour before.
    assert list(kept([made("2026-10-25T00:59Z"), made("2026-10-25T01:10Z")], keep_last=1)) == ["2026-10-25T01:10Z"]


def test_weeks_and_their_years_are_those_of_iso() -> None:
    found = kept([made("2027-01-03T09:00Z"), made("2026-12-28T09:00Z"), made("2024-12-30T09:00Z")],
                 now=datetime(2027, 2, 1, tzinfo=UTC), keep_weekly=5, keep_yearly=5)  # fmt: skip
    assert found == {
        "2027-01-03T09:00Z": ["weekly 2026-W53", "yearly 2027"],
        "2026-12-28T09:00Z": ["yearly 2026"],
        "2024-12-30T09:00Z": ["weekly 2025-W01", "yearly 2024"],
    }


@pytest.mark.parametrize(
    ("span", "newest", "oldest"),
    [
        ("30d", "2026-11-20T12:00Z", "2026-10-21T11:00Z"),  # summer time ended between
        ("1y", "2024-02-29T12:00Z", "2023-02-28T12:00Z"),  # a leap day has none a year before
        ("1m", "2026-03-31T10:00Z", "2026-02-28T11:00Z"),  # nor March's last day a month before; 12:00 by both clocks
        ("1d", "2026-10-25T12:00Z", "2026-10-24T11:00Z"),  # a day of 25 hours
        ("24h", "2026-10-25T12:00Z", "2026-10-24T12:00Z"),
        ("2y5m7d3h", "2026-11-20T12:00Z", "2024-06-13T08:00Z"),
    ],
)
def test_a_span_is_counted_by_the_calendar_from_the_newest_snapshot(span: str, newest: str, oldest: str) -> None:
    late = datetime.fromisoformat(oldest)
    snapshots = [made(newest), made(late), made(late - timedelta(seconds=1))]
    assert list(kept(snapshots, now=datetime(2030, 1, 1, tzinfo=UTC), keep_within=span)) == [
        newest,
        late.isoformat(),
    ]


def test_a_span_before_all_calendars_keeps_all() -> None:
    assert len(kept(daily(3), keep_within="9999y99999m")) == 3
    assert len(kept([made("0001-01-02T00:00+00:00"), made("0001-01-03T00:00+00:00")], keep_within="5d")) == 2


def test_a_snapshot_of_the_future_is_kept_and_pushes_out_no_other() -> None:
    snapshots = [made(NOW + timedelta(days=400)), *daily(3)]
    found = kept(snapshots, keep_last=2, keep_within="1h", keep_daily=1)
    assert found.pop(snapshots[0].id) == ["time in the future"]
    assert list(found) == [one.id for one in snapshots[1:3]]


@pytest.mark.parametrize("created", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_a_snapshot_whose_time_cant_be_read_is_kept_and_pushes_out_no_other(created: str) -> None:
    found = kept([made(created, name="odd"), *daily(2)], keep_last=1)
    assert found == {"odd": ["time unreadable"], NOW.isoformat(): ["last"]}


def test_each_store_is_judged_by_itself() -> None:
    old = [made(NOW - timedelta(days=900 + number), system="b", name=f"b{number}") for number in range(3)]
    assert list(kept([*daily(3), *old], keep_last=1)) == [NOW.isoformat(), "b0"]


def test_the_last_good_one_stays_whatever_the_rules_say() -> None:
    snapshots = [made(one.created, rung=Rung.INTACT) for one in daily(4)[:3]] + daily(4)[3:]
    verdicts = judge(snapshots, Retention(keep_last=1), now=NOW)
    assert [one.reasons for one in verdicts] == [("last",), (), (), ("last good",)]
    verdicts = judge(snapshots, Retention(keep_last=1), now=NOW, unguarded=frozenset({"a"}))
    assert [one.reasons for one in verdicts] == [("last",), (), (), ()]


def test_never_is_none_kept() -> None:
    verdicts = judge(daily(3), Retention(keep_tag=("x",)), now=NOW, unguarded=frozenset({"a"}))
    assert [one.reasons for one in verdicts] == [("last of its store",), (), ()]
    assert list(kept([made(NOW, tag="x", name="new"), made(NOW - timedelta(days=9), tag="y", name="old")],
                     keep_tag=("y", "z"))) == ["new", "old"]  # fmt: skip


def test_the_policy_thanos_keeps_what_its_guide_shows() -> None:
    end = datetime(2024, 1, 26, 1, tzinfo=UTC)  # a Friday, two o'clock in Berlin
    found = kept(daily(60, end=end), now=NOW, policy="thanos")
    assert days_of(found) == [
        *(f"2024-01-{day}" for day in range(26, 19, -1)),
        "2024-01-14",
        "2024-01-07",
        "2023-12-31",
    ]
    assert found["2024-01-21T01:00:00+00:00"] == ["daily 2024-01-21", "weekly 2024-W03"]


def test_the_policy_thanos_counts_this_week_once_its_sunday_has_come() -> None:
    found = kept(daily(60, end=datetime(2024, 1, 28, 1, tzinfo=UTC)), now=NOW, policy="thanos")
    assert days_of(found)[7:] == ["2024-01-21", "2024-01-14", "2024-01-07"]


def test_run_every_day_a_policy_keeps_what_it_would_have_kept_at_once() -> None:
    for policy in POLICIES:
        start = datetime(2025, 1, 1, 1, tzinfo=UTC)
        held: list[Candidate] = []
        for number in range(420):
            now = start + timedelta(days=number)
            held.append(made(now))
            names = kept(held, now=now, policy=policy)
            held = [one for one in held if one.id in names]
        every = kept(daily(420, end=now), now=now, policy=policy)
        # The oldest month or week of all is the one that is begun in the middle.
        assert set(names) == set(every), policy


def test_the_policy_rolling_7_is_a_window_of_seven_days() -> None:
    assert len(kept(daily(60), policy="rolling-7")) == 8


def test_a_key_of_ones_own_wins_over_that_of_the_policy_and_the_rest_of_it_stays() -> None:
    rules = settled(Retention(policy="openmemory", keep_daily=30, keep_tag=("x",)))
    assert (rules.keep_daily, rules.keep_weekly, rules.keep_monthly, rules.keep_tag) == (30, 4, 12, ("x",))
    assert settled(Retention(policy="openmemory", keep_monthly=0)).keep_monthly == 0


@pytest.mark.parametrize(
    "wanted",
    [
        Retention(),
        Retention(keep_last=0, keep_daily=0),
        Retention(policy="thanos", keep_daily=0, keep_weekly=0),
        Retention(policy="tahnos"),
        Retention(keep_last=3, keep_daily=-1),
        *(Retention(keep_within=span) for span in ("", "30", "d", "3d2y", "-3d", "1.5d", "٣d", "99999999999d", "3 d")),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_an_example(wanted: Retention) -> None:
    with pytest.raises(UsageError) as error:
        judge(daily(2), wanted, now=NOW)
    assert error.value.hint.startswith("memkeep forget --keep-daily 7")


COUNTS = st.none() | st.integers(0, 4)
RULES = st.builds(
    Retention,
    policy=st.sampled_from([None, None, "openmemory"]),
    keep_last=COUNTS,
    keep_hourly=COUNTS,
    keep_daily=COUNTS,
    keep_weekly=COUNTS,
    keep_monthly=COUNTS,
    keep_yearly=COUNTS,
    keep_within=st.sampled_from([None, None, *("5h", "3d")]),
    keep_tag=st.sampled_from([(), ("x",)]),
)
# Crowded about the ends of a year, of summer time and of February.
CENTRES = ["2024-02-29T12:00+00:00", "2026-10-25T01:00+00:00", "2026-03-29T01:00+00:00", "2027-01-01T00:00+00:00"]
MOMENTS = st.builds(
    lambda centre, hours, minutes: datetime.fromisoformat(centre) + timedelta(hours=hours, minutes=minutes),
    st.sampled_from(CENTRES),
    st.integers(-60, 60) | st.integers(-9000, 9000),
    st.integers(0, 90),
)
SNAPSHOTS = st.lists(
    st.builds(
        made,
        MOMENTS,
        system=st.sampled_from("ab"),
        rung=st.sampled_from(list(Rung)),
        tag=st.sampled_from([None, "x"]),
    ),
    max_size=12,
)
KEYS = {
    "keep_hourly": lambda at: (at.date(), at.hour, at.utcoffset()),
    "keep_daily": lambda at: at.date(),
    "keep_weekly": lambda at: at.isocalendar()[:2],
    "keep_monthly": lambda at: (at.year, at.month),
    "keep_yearly": lambda at: at.year,
}


SPANS = {
    "5h": lambda newest: newest - timedelta(hours=5),
    "3d": lambda newest: (newest.astimezone(BERLIN) - timedelta(days=3)).astimezone(UTC),  # of the wall clock
}


def model(snapshots: list[Candidate], rules: Retention, now: datetime) -> set[str]:
    """Try each rule on each snapshot, by counting what is newer."""
    found = set()
    for one in snapshots:
        at = datetime.fromisoformat(one.created)
        rest = [
            other for other in snapshots if other.store == one.store and datetime.fromisoformat(other.created) <= now
        ]
        newer = [other for other in rest if (datetime.fromisoformat(other.created), other.id) > (at, one.id)]
        wanted = at > now or len(newer) < (rules.keep_last or 0) or one.tag in rules.keep_tag
        wanted |= one.good and not any(other.good for other in newer)
        for name, key in KEYS.items():
            mine = key(at.astimezone(BERLIN))
            others = {key(datetime.fromisoformat(other.created).astimezone(BERLIN)) for other in newer}
            wanted |= mine not in others and len(others) < (getattr(rules, name) or 0)
        if rules.keep_within and rest:
            newest = max(datetime.fromisoformat(other.created) for other in rest)
            wanted |= at <= now and at >= SPANS[rules.keep_within](newest)
        if wanted:
            found.add(one.id)
    return found


@pytest.mark.property
@given(SNAPSHOTS, RULES, MOMENTS)
def test_the_policy_agrees_with_a_model(given_: list[Candidate], wanted: Retention, now: datetime) -> None:
    snapshots = [msgspec.structs.replace(one, id=f"{number}") for number, one in enumerate(given_)]
    try:
        rules = settled(wanted)
    except UsageError:
        return
    verdicts = judge(snapshots, wanted, now=now, zone=BERLIN)
    found = {one.snapshot.id for one in verdicts if one.reasons}
    expected = model(snapshots, rules, now)
    for store in {one.store for one in snapshots}:
        own = {one.id for one in snapshots if one.store == store}
        assert found & own == expected & own or (not expected & own and len(found & own) == 1)
    assert {one.store for one in snapshots} == {one.snapshot.store for one in verdicts if one.reasons}
    # Doing it again changes nothing, and the order that snapshots come in means nothing.
    left = [one for one in snapshots if one.id in found]
    assert all(one.reasons for one in judge(left, wanted, now=now, zone=BERLIN))
    turned = judge(snapshots[::-1], wanted, now=now, zone=BERLIN)
    assert sorted(turned, key=lambda one: one.snapshot.id) == sorted(verdicts, key=lambda one: one.snapshot.id)


def test_what_a_restore_kept_pushes_out_no_backup_and_is_kept_while_it_may_be_undone() -> None:
    days = daily(3)
    parked = [made(NOW - timedelta(days=1, hours=number), tag=BEFORE_RESTORE) for number in (1, 30, 200)]
    found = kept([*days, *parked], keep_last=1)
    assert found == {days[0].id: ["last"]} | {one.id: ["undoes a restore"] for one in parked[:2]}
    assert list(kept([*days, *parked], keep_last=1, keep_within="20d")) == [one.id for one in (*days, *parked)]


def test_the_last_good_one_is_a_backup_though_a_restore_kept_something_since() -> None:
    good, bad = made(NOW - timedelta(days=40)), made(NOW - timedelta(days=30), rung=Rung.INTACT)
    parked = made(NOW, tag=BEFORE_RESTORE)
    verdicts = judge([good, bad, parked], Retention(keep_last=1), now=NOW)
    assert [one.reasons for one in verdicts] == [("last good",), ("last",), ("undoes a restore",)]


def test_a_store_of_which_only_a_restore_kept_something_is_judged_by_that() -> None:
    parked = [made(NOW - timedelta(days=number), tag=BEFORE_RESTORE) for number in (0, 20, 30)]
    assert list(kept(parked, keep_last=2)) == [one.id for one in parked[:2]]

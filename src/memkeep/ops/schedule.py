"""Have `memkeep run` started again and again: by systemd's user manager or by cron, whichever the machine has."""

import os
from collections.abc import Sequence
from typing import Protocol

import msgspec

from memkeep.errors import MemkeepError, UnsupportedError
from memkeep.ops import schedule_cron, schedule_systemd
from memkeep.ops.schedule_job import Job, rehearse
from memkeep.ops.schedule_times import When, daily, every

DEFAULT = "6h"


class Scheduler(Protocol):
    """A way to have a job run: the modules `schedule_systemd` and `schedule_cron`."""

    name: str
    gives: tuple[str, ...]  # variables that its jobs have by themselves

    def available(self) -> bool:
        """Say whether the machine has it."""
        ...

    def installed(self) -> str | None:
        """Return when memkeep's schedule runs, None when there is none here."""
        ...

    def rendered(self, job: Job, when: When, delay: int) -> dict[str, str]:
        """Return what would be written: path (or `crontab`) -> text."""
        ...

    def install(self, job: Job, when: When, delay: int) -> None:
        """Write it, in place of one that is there."""
        ...

    def remove(self) -> None:
        """Take away what was written, and nothing else."""
        ...

    def notes(self) -> list[str]:
        """Return what the user should know of it."""
        ...


SCHEDULERS: tuple[Scheduler, ...] = (schedule_systemd, schedule_cron)


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule that is installed: `by` is `systemd` or `cron`, `when` is like `every 6h`."""

    by: str
    when: str


class ScheduleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed now, and what was or would be written: path, or `crontab`, and its text.

    `heartbeat` has lines for an agent's `HEARTBEAT.md`, `notes` what the user should know.
    """

    installed: Installed | None
    by: str | None
    when: str | None
    command: tuple[str, ...]
    files: dict[str, str]
    heartbeat: tuple[str, ...]
    notes: tuple[str, ...]


def installed() -> Installed | None:
    """Return the schedule of this user, None when there is none or the scheduler does not say."""
    for scheduler in SCHEDULERS:
        try:
            when = scheduler.installed()
        except MemkeepError:
            continue
        if when is not None:
            return Installed(by=scheduler.name, when=when)
    return None


def install(
    job: Job, when: When | None, by: str | None, delay: float, *, vaults: Sequence[str] = (), check: bool = True
) -> ScheduleResult:
    """Install a schedule, in place of any that is there; `check` tries before whether a run could open its vaults.

    `delay` in [0, 1) says how late in its spread a run is, where the scheduler can't draw that itself.
    """
    chosen, moment = _chosen(by), when or every(DEFAULT)
    given = {name: os.environ[name] for name in chosen.gives if name in os.environ}
    found = rehearse(job, tuple(vaults), given) if check else []
    chosen.install(job, moment, int(delay * moment.spread))
    for other in SCHEDULERS:
        if other is not chosen and other.installed() is not None:
            other.remove()
    return _result(chosen, job, moment, delay, [*chosen.notes(), *found])


def show(job: Job, when: When | None, by: str | None, delay: float) -> ScheduleResult:
    """Return what is installed, or what would be; nothing is changed."""
    there = installed()
    moment = when or _when_of(there) or every(DEFAULT)
    try:
        chosen = _chosen(by or (there.by if there else None))
    except UnsupportedError as error:
        return _result(None, job, moment, delay, [f"{error.message}: {error.hint}"])
    return _result(chosen, job, moment, delay, chosen.notes())


def remove(job: Job) -> ScheduleResult:
    """Take the schedule away, wherever it is."""
    for scheduler in SCHEDULERS:
        scheduler.remove()
    return ScheduleResult(
        installed=None, by=None, when=None, command=job.command, files={}, heartbeat=heartbeat(None), notes=()
    )


def heartbeat(there: Installed | None) -> tuple[str, ...]:
    """Return lines for an agent's `HEARTBEAT.md`: what to look at, and when to tell its person."""
    first = () if there else ("- Every few hours: run `memkeep run --json` (nothing else starts it on this machine).",)
    return (
        "## Periodic: is my memory backed up?",
        *first,
        "- Run `memkeep status --json` and read `result`.",
        "- Tell my person when the exit status is not 0 (say `error.message` and `error.hint`).",
        "- Tell my person when `last_run` is null, or its `started` is more than two days ago.",
        "- Tell my person when `last_run.exit` is neither 0 nor null (say `last_run.step` and `last_run.message`).",
        "- Tell my person when a store has `protected` false, `present` false, or `age_s` over 172800 (two days).",
        "- Otherwise say nothing. Never run `memkeep forget`, `prune`, `restore` or `key` from here.",
    )


def _result(chosen: Scheduler | None, job: Job, when: When, delay: float, notes: Sequence[str]) -> ScheduleResult:
    there = installed()
    return ScheduleResult(
        installed=there,
        by=chosen.name if chosen else None,
        when=when.text,
        command=job.command,
        files=chosen.rendered(job, when, int(delay * when.spread)) if chosen else {},
        heartbeat=heartbeat(there),
        notes=tuple(notes),
    )


def _chosen(by: str | None) -> Scheduler:
    for scheduler in SCHEDULERS:
        if scheduler.name == by or (by is None and scheduler.available()):
            if not scheduler.available():
                raise UnsupportedError(f"there is no {by} for this user here", hint="memkeep schedule show")
            return scheduler
    raise UnsupportedError(
        "this machine has neither a systemd user manager nor crontab",
        hint="apt install cron   # or have the agent run `memkeep run` from its HEARTBEAT.md",
    )


def _when_of(there: Installed | None) -> When | None:
    word, _, rest = there.when.partition(" ") if there else ("", "", "")
    read = {"every": every, "daily": daily}.get(word)
    return read(rest) if read else None

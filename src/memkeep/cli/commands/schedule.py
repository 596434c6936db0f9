"""`memkeep schedule`."""

import sys
from typing import TYPE_CHECKING

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.config import Config
    from memkeep.ops.schedule import ScheduleResult


@verb(example="memkeep schedule install --daily 03:00")
@click.argument("action", type=click.Choice(["install", "show", "remove"]), help="What to do with the schedule.")
@click.option("--every", metavar="SPAN", help="Run again and again: 6h (the default), 30m, 1d.")
@click.option("--daily", metavar="HH:MM", help="Run once a day.")
@click.option("--with", "by", type=click.Choice(["systemd", "cron"]), help="Default: whichever there is.")
@click.option("--unchecked", is_flag=True, help="Install without trying to open the vault first.")
def command(face: Face, *, action: str, every: str | None, daily: str | None, by: str | None, unchecked: bool) -> Reply:
    """Have `memkeep run` started again and again, by systemd or cron.

    `install` puts it into a timer of your own systemd, or your crontab; a second time replaces the first. `show` prints
    what is or would be installed, and lines for an agent's HEARTBEAT.md. `remove` takes away exactly what was
    installed. The places that you give are written down, passwords never: they must come from a file (--password-file,
    or the settings), a command or a keyring, and `install` tries that first.
    """
    import random

    from memkeep.cli.wiring import settings
    from memkeep.ops import schedule
    from memkeep.ops.schedule_job import job
    from memkeep.ops.schedule_times import daily as at
    from memkeep.ops.schedule_times import every as step

    if every and daily:
        raise click.UsageError("--every and --daily were both given")
    config = settings(face)
    one = job(_program(), _words(face, config))
    when = step(every) if every else at(daily) if daily else None
    delay = random.SystemRandom().random()
    if action == "install":
        result = schedule.install(one, when, by, delay, vaults=config.run.copy_to, check=not unchecked)
    elif action == "show":
        result = schedule.show(one, when, by, delay)
    else:
        result = schedule.remove(one)
    words = [f"--{name} {value}" for name, value in (("every", every), ("daily", daily), ("with", by)) if value]
    then = " ".join(["memkeep schedule install", *words])
    return Reply(result, lambda out: _render(out, result, action, then))


def _program() -> tuple[str, ...]:
    """Return how this memkeep is started: its own script, or this interpreter with the module."""
    import os
    from pathlib import Path

    own = Path(sys.argv[0])
    if own.name == "memkeep" and own.is_file() and os.access(own, os.X_OK):
        return (str(own.absolute()),)
    return (sys.executable, "-m", "memkeep")


def _words(face: Face, config: "Config") -> tuple[str, ...]:
    """Return the shared options that were given, with places that hold from any folder."""
    import os
    from pathlib import Path

    def place(text: str) -> str:
        return text if "://" in text or text in config.vaults else str(Path(text).expanduser().absolute())

    words: list[str] = []
    vault = face.vault or os.environ.get("MEMKEEP_VAULT")
    for flag, value in (("--vault", vault), ("--config", face.config), ("--password-file", face.password_file)):
        words += [flag, place(value)] if value else []
    return (*words, *(["--password-command", face.password_command] if face.password_command else []))


def _render(out: Printer, result: "ScheduleResult", action: str, then: str) -> None:
    if action == "remove":
        out.advice("There is no schedule now.")
        return
    if result.installed:
        out.line(Span("Installed: ", "good"), f"{result.installed.when}, by {result.installed.by}")
    else:
        out.line(Span("Not installed. ", "warn"), f"It would run {result.when}, by {result.by or 'no one'}.")
    if action == "show":
        for place, text in result.files.items():
            out.line()
            out.line(Span(place, "bold"))
            out.block(text)
        out.line()
        out.line(Span("For an agent's HEARTBEAT.md:", "bold"))
        out.block("\n".join(result.heartbeat))
    for note in result.notes:
        out.advice(Span("note: ", "warn"), note)
    if result.installed:
        out.next("memkeep run")
    else:
        out.next(then)

"""`memkeep estimate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memkeep.amounts import count, duration, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.backup import FailedStore
    from memkeep.ops.estimate import BackupEstimate, RestoreEstimate

SHORTEST = 0.1  # seconds that are told apart from none
SPEEDS = (1_000_000, 10_000_000, 100_000_000)  # bytes a second


class Speed(click.ParamType[int]):
    """A number of bytes a second."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        from memkeep.config import parse_rate

        try:
            return parse_rate(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@verb(example="memkeep estimate ~/.openclaw/memory --speed 10MB/s")
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(),
    metavar="[PATH]...",
    help="Stores: paths, URLs, names; else all that are found.",
)
@click.option("--snapshot", type=SNAPSHOT, metavar="SNAPSHOT", help="Of restoring or packing this one instead.")
@click.option("--to", metavar="DIR", type=click.Path(), help="Where it would be restored: is there room?")
@click.option("--speed", type=Speed(), metavar="SPEED", help="Of the line, such as 10MB/s.")
@click.option("--include-secrets", is_flag=True, help="As for a backup that takes credentials in any case.")
@click.option("--no-secrets", is_flag=True, help="As for a backup that takes none.")
def command(
    face: Face,
    *,
    paths: tuple[str, ...],
    snapshot: str | None,
    to: str | None,
    speed: int | None,
    include_secrets: bool,
    no_secrets: bool,
) -> Reply:
    """Say how much would be moved, how long, and whether it fits.

    For a backup: all of it is done but for writing to the vault, so what it would add is counted and not guessed. With
    --snapshot: what a restore or a pack of it would fetch and write.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import find_stores, open_vault, settings
    from memkeep.errors import StoreError
    from memkeep.ops.estimate import estimate_backup, estimate_restore
    from memkeep.ops.outcome import status_of_failed, worst

    if snapshot is None and to is not None:
        raise click.UsageError("--to is for --snapshot")
    if snapshot is not None and (paths or include_secrets or no_secrets):
        raise click.UsageError("--snapshot goes with --to and --speed, not with what is for a backup")
    if no_secrets and include_secrets:
        raise click.UsageError("--no-secrets and --include-secrets were both given")
    config = settings(face)
    vault = open_vault(face, config)
    if snapshot is not None:
        restore = estimate_restore(vault, snapshot, to=Path(to) if to else None, speed=speed)
        return Reply(restore, lambda out: _show_restore(out, restore), exit=_room(restore.fits))
    unfound: list[FailedStore] = []
    stores = find_stores(paths, config, unfound)
    if not stores and not unfound:
        where = f"at {', '.join(paths)}" if paths else "in the places where products keep it"
        raise StoreError(f"no store of agent memory was found {where}", hint="memkeep discover PATH", code="no_store")
    with listening(face) as events:
        result = estimate_backup(
            vault,
            stores,
            unfound=unfound,
            secrets="exclude" if no_secrets else "include" if include_secrets else "auto",
            speed=speed,
            events=events,
        )
    return Reply(
        result,
        lambda out: _show_backup(out, result, paths),
        exit=worst((_room(result.fits), status_of_failed(result.failed))),
    )


def _room(fits: bool | None) -> int:  # noqa: FBT001 - a value, not a flag
    """Return the exit status of whether there is room."""
    from memkeep.errors import PROBLEMS

    return PROBLEMS if fits is False else 0


def _show_backup(out: Printer, result: "BackupEstimate", paths: tuple[str, ...]) -> None:
    import shlex

    from memkeep.cli.views import show_omissions

    for store in result.stores:
        out.line(Span(store.system, "bold"), "  ", store.path)
        read = f"{count(store.records, 'record')}, {size(store.source_bytes)}"
        out.line(f"  {read}, would add {size(store.added_bytes)}")
        show_omissions(out, store.omitted)
    for failed in result.failed:
        out.line("  ", Span("could not be taken: ", "bad"), failed.message)
    out.line(f"In all, with index and log, {size(result.added_bytes)} would be added to {result.vault}")
    _show_space(out, result.free_bytes, fits=result.fits)
    _show_times(out, result.added_bytes, result.speed)
    if result.fits is not False and not result.failed:
        out.next(shlex.join(("memkeep", "backup", *paths)))


def _show_restore(out: Printer, result: "RestoreEstimate") -> None:
    from memkeep.cli.views import short

    out.line(Span(short(result.snapshot), "bold"), f" ({result.system}): {count(result.records, 'record')}")
    out.line(f"  {size(result.fetch_bytes)} would be fetched, {size(result.bytes)} written")
    _show_space(out, result.free_bytes, fits=result.fits)
    _show_times(out, result.fetch_bytes, result.speed)


def _show_space(out: Printer, free: int | None, *, fits: bool | None) -> None:
    if free is not None:
        verdict = Span("it fits", "good") if fits else Span("it does not fit", "bad")
        out.line(f"  {size(free)} are free: ", verdict)


def _show_times(out: Printer, amount: int, speed: int | None) -> None:
    for rate in (speed,) if speed else SPEEDS:
        out.line(f"  {_lasting(amount / rate)} at {size(rate)}/s")


def _lasting(seconds: float) -> str:
    return duration(seconds) if seconds >= SHORTEST else f"less than {duration(SHORTEST)}"

"""`memkeep prune`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, moment
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.prune import PruneResult


@verb(example="memkeep prune")
@click.option("--grace", metavar="TIME", help="How long to wait before removing: 24h, 90m, 0.  [default: see above]")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def command(face: Face, *, grace: str | None, dry_run: bool) -> Reply:
    """Give back the space of what no snapshot needs any more.

    Backups may go on meanwhile. In a folder or over SFTP the space is free at once, unless a backup is running. In a
    bucket, where a running backup can't be seen for sure, it is marked first, and removed by the first prune that
    comes a day later. --grace says otherwise: 0 only when no backup runs anywhere.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.config import period

    wait = period(grace, "--grace") if grace is not None else None
    vault = open_vault(face, settings(face), ahead="memkeep.ops.prune")
    from memkeep.ops.outcome import status_of_prune
    from memkeep.ops.prune import prune

    with listening(face) as events:
        result = prune(vault, grace=wait, dry_run=dry_run, events=events)
    return Reply(result, lambda out: _render(out, result), exit=status_of_prune(result))


def _render(out: Printer, result: "PruneResult") -> None:
    what = "Would remove" if result.dry_run else "Removed"
    if result.removed_objects or result.marked_until or result.held:
        out.line(f"{what} {size(result.removed_bytes)} in {count(result.removed_objects, 'object')}.")
    else:
        out.line("There is nothing worth removing: the snapshots need what is there, or nearly all of it.")
    if result.copied_bytes:
        out.advice(
            f"  {size(result.copied_bytes)} that are still needed {'would be' if result.dry_run else 'were'} copied"
        )
    if result.marked_until:
        out.line(
            f"{size(result.marked_bytes)} are marked: they go with the first prune after {moment(result.marked_until)}."
        )
    if result.locked_until:
        many = f"{size(result.locked_bytes)} in {count(result.locked_objects, 'object')}"
        out.line(f"Object Lock holds {many} of that until {moment(result.locked_until)}: hidden, and still there.")
    for message in result.held:
        out.line("  held: ", message)
    out.advice(f"The vault {'would have' if result.dry_run else 'has'} {size(result.kept_bytes)}.")
    if result.dry_run:
        out.advice("Nothing was written: this was a dry run.")
        out.next("memkeep prune")
    else:
        out.next("memkeep verify --all")

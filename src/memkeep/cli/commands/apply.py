"""`memkeep apply`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.apply import ApplyResult


@verb(example="memkeep apply clean-up.plan --dry-run")
@click.argument(
    "plan", type=click.Path(), metavar="PLAN", help="What `memkeep audit --plan` wrote and you have edited."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted; no vault is needed.")
def command(face: Face, *, plan: str, dry_run: bool) -> Reply:
    """Delete the memories that a plan of `memkeep audit` names.

    With a memory go its vectors, links and whatever else of the store belongs to it. First the store is kept as a
    snapshot, and the command that brings all of it back is shown. Either all is deleted or nothing. When a memory that
    the plan names says something else since, or the one that is to stay in its place does, nothing is done (exit 14).
    """
    from pathlib import Path
    from shlex import quote

    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.ops.apply import apply

    config = settings(face)
    vault = None if dry_run else open_vault(face, config)
    with listening(face) as events:
        result = apply(vault, Path(plan), dry_run=dry_run, config=config, events=events)
    return Reply(result, lambda out: _render(out, result, quote(plan)))


def _render(out: Printer, result: "ApplyResult", plan: str) -> None:
    done = "Would delete" if result.dry_run else "Deleted"
    out.line(Span(done, "bold"), f" {count(result.deleted, 'record')} of {result.store}; {result.kept:,} stay.")
    for one in result.tables:
        out.line(f"  {count(one.rows, 'row')} of {one.table} in {one.part}", "" if one.named else "  (taken along)")
    if result.undo:
        out.line("To bring it all back: ", Span(out.face.runnable(result.undo), "bold"))
    elif result.dry_run and result.deleted:
        from memkeep.errors import quoted

        out.next(f"memkeep apply {quoted(plan)}")

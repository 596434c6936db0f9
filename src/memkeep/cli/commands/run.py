"""`memkeep run`."""

from typing import TYPE_CHECKING

from memkeep.amounts import duration
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.run import RunResult, StepReport


@verb(example="memkeep run --quiet")
def command(face: Face) -> Reply:
    """Do what the settings say: backup, verify, forget, prune, copy.

    `[run]` in the settings chooses the steps, how far the newest snapshots are proven, and where copies go. Nothing is
    forgotten or pruned unless backup and verify went well. The exit status is that of the worst step: best is 0, then
    4, 3, and then the failures by their number. One run is done at a time; a second one ends with 11. `run.log` in the
    state folder has a line for each step.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import find_stores, open_other, open_vault, settings
    from memkeep.ops.run import run

    config = settings(face)
    with listening(face) as events:
        result = run(
            config,
            lambda: open_vault(face, config),
            lambda name: open_other(face, config, name, verb="copy", flag="--to", file=None, command=None),
            lambda unfound: find_stores((), config, unfound),
            events=events,
        )
    return Reply(result, lambda out: _render(out, result), exit=result.exit)


def _render(out: Printer, result: "RunResult") -> None:
    """Write a line for each step; with `--quiet` only for those that did not go well."""
    for step in result.steps:
        _show(out, step)
    out.advice(f"Done in {duration(result.seconds)}, exit status {result.exit}.")
    out.next("memkeep status")


def _show(out: Printer, step: "StepReport") -> None:
    title = f"{step.name} to {step.to}" if step.to else step.name
    if step.ok:
        out.advice(Span(title, "bold"), "  ", step.said)
    elif step.skipped:
        out.line(Span(title, "bold"), "  ", Span("skipped: ", "warn"), step.skipped)
    else:
        out.line(Span(title, "bold"), "  ", Span(f"exit {step.exit}: ", "bad"), step.said)
        for failed in getattr(step.result, "failed", ()):
            out.line("  ", Span("failed: ", "bad"), failed.path, ": ", failed.message)
        if step.error and step.error.hint:
            out.line("  ", Span("mend: ", "dim"), step.error.hint)

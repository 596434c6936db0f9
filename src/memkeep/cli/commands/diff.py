"""`memkeep diff`."""

from typing import TYPE_CHECKING

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.diff import DiffResult


@verb(example="memkeep diff 3f9a latest")
@click.argument("before", metavar="A", type=SNAPSHOT, help="A snapshot, or a live store: a path, a URL or a name.")
@click.argument("after", metavar="B", type=SNAPSHOT, help="Another.")
def command(face: Face, *, before: str, after: str) -> Reply:
    """Show which memories differ between two moments.

    A and B are snapshots (an id's beginning, or `latest`) or live stores, which are only read: a path, a URL, or the
    name of a store in the settings. Beside a live store `latest` is the latest snapshot of that one.
    """
    from memkeep.cli.wiring import open_vault, settings

    config = settings(face)
    vault = open_vault(face, config, ahead="memkeep.ops.diff")
    from memkeep.ops.diff import diff

    result = diff(vault, before, after, config=config)
    return Reply(result, lambda out: _render(out, result))


def _render(out: Printer, result: "DiffResult") -> None:
    from memkeep.cli.views import show_fields

    for identity in result.added:
        out.line(Span("+ ", "good"), identity)
    for identity in result.removed:
        out.line(Span("- ", "bad"), identity)
    for change in result.changed:
        out.line(Span("~ ", "warn"), change.id)
        show_fields(out, change.fields)
    if not result.collections:
        out.line(Span("Nothing was compared: ", "warn"), "no records are known on either side.")
        return
    numbers = (len(result.added), len(result.removed), len(result.changed))
    if any(numbers):
        out.advice(f"{numbers[0]} added, {numbers[1]} removed, {numbers[2]} changed.")
    elif result.others:
        out.line(Span("No record differs, but other rows do: ", "warn"), ", ".join(result.others))
    else:
        out.advice("No difference.")

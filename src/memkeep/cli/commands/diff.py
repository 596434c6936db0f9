"""`memkeep diff`."""

from typing import TYPE_CHECKING, Any

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.diff import DiffResult

SHOWN = 60  # characters of a value before and after; JSON has them whole


@verb(example="memkeep diff 3f9a latest")
@click.argument("before", metavar="A", type=SNAPSHOT, help="A snapshot, or the path of a live store.")
@click.argument("after", metavar="B", type=SNAPSHOT, help="Another.")
def command(face: Face, *, before: str, after: str) -> Reply:
    """Show which memories differ between two moments.

    A and B are snapshots (an id's beginning, or `latest`) or paths of live stores, which are only read.
    """
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.ops.diff import diff

    result = diff(open_vault(face, settings(face)), before, after)
    return Reply(result, lambda out: _render(out, result))


def _render(out: Printer, result: "DiffResult") -> None:
    for identity in result.added:
        out.line(Span("+ ", "good"), identity)
    for identity in result.removed:
        out.line(Span("- ", "bad"), identity)
    for change in result.changed:
        out.line(Span("~ ", "warn"), change.id)
        for name, (before, after) in change.fields.items():
            out.line(f"    {name}: ", Span(_value(before), "bad"), " -> ", Span(_value(after), "good"))
    numbers = (len(result.added), len(result.removed), len(result.changed))
    out.advice(f"{numbers[0]} added, {numbers[1]} removed, {numbers[2]} changed." if any(numbers) else "No difference.")


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)

"""`memkeep history`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, moment
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.history import HistoryResult

SIGNS = {"added": ("+ ", "good"), "changed": ("~ ", "warn"), "removed": ("- ", "bad")}


@verb(example="memkeep history 0d9f2c61-5a4e-4a57-9c1b-6f3f4a8f2b10")
@click.argument("identity", metavar="ID", help="The id of a memory, as `diff` and `search` show it.")
def command(face: Face, *, identity: str) -> Reply:
    """Follow one memory through all snapshots.

    The oldest comes first; snapshots in which it stayed the same are left out.
    """
    from memkeep.cli.wiring import open_vault, settings

    vault = open_vault(face, settings(face), ahead="memkeep.ops.history")
    from memkeep.ops.history import history

    result = history(vault, identity)
    return Reply(result, lambda out: _render(out, result))


def _render(out: Printer, result: "HistoryResult") -> None:
    from memkeep.cli.views import brief, short, show_fields

    for one in result.moments:
        sign, style = SIGNS[one.event]
        out.line(Span(sign, style), f"{moment(one.created)}  {one.event} in ", short(one.snapshot), "  ", one.path)
        if one.event == "changed":
            show_fields(out, one.fields)
        elif one.event == "added":
            for name, (_, value) in one.fields.items():
                out.line(f"    {name}: ", brief(value))
    out.advice(f"In {count(result.snapshots, 'snapshot')}.")

"""`memkeep demo`."""

import sys
from typing import TYPE_CHECKING

from memkeep.amounts import duration, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.demo import DemoResult


@verb(example="memkeep demo")
def command(face: Face) -> Reply:
    """See all of it work in seconds, on a store made for the purpose.

    A store of SQLite and LanceDB is backed up while an agent writes to it, damaged, restored and proven equal.
    Everything happens in a scratch folder that is gone afterwards.
    """
    from memkeep.cli.progress import listening
    from memkeep.ops.demo import run

    with listening(face, _tell) as events:
        result = run(events)
    return Reply(result, lambda out: _render(out, result))


def _tell(note: str) -> None:
    """Print one step of the story as soon as it is over."""
    out = Printer(sys.stdout)
    title, _, outcome = note.partition(": ")
    out.line(Span(title, "bold"))
    out.line("  ", outcome)
    sys.stdout.flush()


def _render(out: Printer, result: "DemoResult") -> None:
    cost = f"first backup {size(result.first_bytes)}, day two {size(result.day_two_bytes)}"
    out.line(f"Store {size(result.store_bytes)}, {cost}, all in {duration(result.seconds)}. Nothing was left behind.")
    out.next("memkeep")

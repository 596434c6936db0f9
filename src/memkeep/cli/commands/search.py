"""`memkeep search`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.search import SearchResult


@verb(example='memkeep search "rye bread" --snapshot latest')
@click.argument("text", help="Words; a memory must have all of them.")
@click.option("--snapshot", metavar="S", type=SNAPSHOT, help="Only in this one.")
def command(face: Face, *, text: str, snapshot: str | None) -> Reply:
    """Find words in the memories of one snapshot or of all.

    Upper and lower case are alike.
    """
    from memkeep.cli.wiring import open_vault, settings

    vault = open_vault(face, settings(face), ahead="memkeep.ops.search")
    from memkeep.ops.search import search

    result = search(vault, text, snapshot=snapshot)
    return Reply(result, lambda out: _render(out, result))


def _render(out: Printer, result: "SearchResult") -> None:
    from memkeep.cli.views import brief, short
    from memkeep.errors import quoted

    memories = {(hit.path, hit.id, hit.text) for hit in result.hits}
    # A product may keep the text again beside its vector; that is said only where it differs.
    hits = [hit for hit in result.hits if (hit.path, hit.id.partition(":")[2], hit.text) not in memories]
    for hit in hits:
        where = short(hit.snapshots[-1])
        held = f"in {where}" if len(hit.snapshots) == 1 else f"in {count(len(hit.snapshots), 'snapshot')}, last {where}"
        out.line(Span(hit.id, "bold"), "  ", Span(held, "dim"))
        out.line("  ", brief(hit.text, 200))
    if hits:
        many = len({(hit.path, hit.id) for hit in hits})
        versions = f", {count(len(hits), 'version')} of them" if len(hits) > many else ""
        out.advice(f"{count(many, 'memory', 'memories')} found{versions}.")
        out.next(f"memkeep history {quoted(hits[0].id)}")
    else:
        out.line("Nothing found.")

"""`memkeep import`."""  # noqa: N999 - the verb is a word of Python

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.engines.merging import Conflict
    from memkeep.ops.imports import ImportResult


@verb(example="memkeep import ~/export --into ~/.openclaw/memory.db --dry-run")
@click.argument("path", metavar="FILE|DIR", type=click.Path(), help="An export of memkeep, or what a product wrote.")
@click.option(
    "--into", metavar="STORE", required=True, help="A path, a URL, a name; `system:path` for one that is to be made."
)
@click.option("--map", "changes", metavar="FIELD=VALUE", multiple=True, help="Change a field, as scope=agent:main.")
@click.option(
    "--conflict",
    type=click.Choice(["skip", "update", "fail", "newer"]),
    help="What happens to a record that is there with other values (skip).",
)
@click.option(
    "--dims", metavar="N", type=click.IntRange(1), help="The size of vectors in a new store, unless that of most."
)
@click.option("--zone", metavar="ZONE", help="Of the host that wrote OpenMemory's zip, Europe/Berlin, if not UTC.")
@click.option("--history", is_flag=True, help="Of a folder of notes all that its git repository remembers.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def command(
    face: Face,
    *,
    path: str,
    into: str,
    changes: tuple[str, ...],
    conflict: "Conflict | None",
    dims: int | None,
    zone: str | None,
    history: bool,
    dry_run: bool,
) -> Reply:
    """Put an export, or what a product wrote, into a store.

    The format is told by content: what `memkeep export` writes, the exports of hybrid-mem, memory-pro, OpenMemory,
    oc-memory, Thanos and mem0, archives of `openclaw backup`, `memory.jsonl` of MCP, folders of markdown notes. Ids,
    times, scopes and counters are kept; every record that can't be read is named and the others go in. A second run
    changes nothing. A store that is there is kept as a snapshot first.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import has_vault, open_vault, settings
    from memkeep.ops.imports import Reading, import_
    from memkeep.ops.migrate import change_of
    from memkeep.ops.outcome import status_of

    config = settings(face)
    vault = open_vault(face, config) if has_vault(face, config) else None
    with listening(face) as events:
        result = import_(
            vault,
            path,
            into,
            reading=Reading(zone=zone, history=history),
            changes=[change_of(text) for text in changes],
            conflict=conflict or "skip",
            dims=dims,
            dry_run=dry_run,
            config=config,
            events=events,
        )
    return Reply(result, lambda out: _render(out, result), exit=status_of(result.findings))


def _render(out: Printer, result: "ImportResult") -> None:
    from memkeep.cli.views import show_moved

    refused = f", {count(len(result.refused), 'record')} refused" if result.refused else ""
    out.advice("Read ", result.source, " as ", Span(result.format, "bold"), refused)
    show_moved(out, result)

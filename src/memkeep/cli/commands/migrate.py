"""`memkeep migrate`."""

from typing import TYPE_CHECKING

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.engines.merging import Conflict


@verb(example="memkeep migrate ~/.openclaw/memory.db --to openclaw-hybrid:~/.openclaw/memory --dry-run")
@click.argument("source", metavar="FROM", type=SNAPSHOT, help="A snapshot, or a live store, which is only read.")
@click.option(
    "--to", metavar="STORE", required=True, help="A path, a URL, a name; `system:path` for one that is to be made."
)
@click.option("--map", "changes", metavar="FIELD=VALUE", multiple=True, help="Change a field, as scope=agent:main.")
@click.option(
    "--dims", metavar="N", type=click.IntRange(1), help="The size of vectors in a new store, unless that of most."
)
@click.option("--user", metavar="U", help="Only the records of this user.")
@click.option(
    "--conflict",
    type=click.Choice(["skip", "update", "fail", "newer"]),
    help="What happens to a record that is there with other values (skip).",
)
@click.option("--dry-run", is_flag=True, help="Only say what would become of every field.")
def command(
    face: Face,
    *,
    source: str,
    to: str,
    changes: tuple[str, ...],
    dims: int | None,
    user: str | None,
    conflict: "Conflict | None",
    dry_run: bool,
) -> Reply:
    """Move memory from any product into any other.

    The plan says, field by field, what the target keeps as its own, what it carries beside, and what it has no place
    for. Nothing is deleted from the source. A target that is there is kept as a snapshot first. --map FIELD:OLD=NEW
    changes only where the field is OLD. Vectors go along where size and model fit; `memkeep embed` makes the others.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.views import show_moved
    from memkeep.cli.wiring import has_vault, open_vault, settings
    from memkeep.ops.migrate import change_of, migrate
    from memkeep.ops.outcome import status_of
    from memkeep.ops.records import is_live

    config = settings(face)
    vault = open_vault(face, config) if has_vault(face, config) or not is_live(source, config) else None
    with listening(face) as events:
        result = migrate(
            vault,
            source,
            to,
            changes=[change_of(text) for text in changes],
            conflict=conflict or "skip",
            user=user,
            dims=dims,
            dry_run=dry_run,
            config=config,
            events=events,
        )
    return Reply(result, lambda out: show_moved(out, result), exit=status_of(result.findings))

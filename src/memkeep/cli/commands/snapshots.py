"""`memkeep snapshots`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import number, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, Text, moment
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.snapshots import SnapshotList


@verb(example="memkeep snapshots --tag nightly")
@click.option("--tag", metavar="T", help="Only those with this tag.")
@click.option("--system", metavar="NAME", help="Only those of this system.")
def command(face: Face, *, tag: str | None, system: str | None) -> Reply:
    """List the snapshots of the vault.

    The oldest comes first. Any unique beginning of an id names a snapshot, and so does `latest`.
    """
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.errors import DamagedError

    vault = open_vault(face, settings(face), ahead="memkeep.ops.snapshots")
    from memkeep.ops.snapshots import list_snapshots

    result = list_snapshots(vault, system=system, tag=tag)
    return Reply(result, lambda out: _render(out, result), exit=DamagedError.exit if result.unreadable else 0)


def _render(out: Printer, result: "SnapshotList") -> None:
    from memkeep.cli.views import rung, short

    if result.snapshots:
        rows: list[tuple[Text, ...]] = [
            (
                short(row.id),
                moment(row.created),
                row.system,
                number(row.records),
                size(row.added_bytes),
                rung(row.rung),
                row.tag or "",
                row.path,
            )
            for row in result.snapshots
        ]
        header: tuple[str, ...] = ("snapshot", "taken", "system", "records", "added", "proven", "tag", "store")
        if not any(row.tag for row in result.snapshots):
            rows, header = [(*row[:6], row[7]) for row in rows], (*header[:6], header[7])
        out.table(header, rows, right=(3, 4))
    else:
        out.line("There is no snapshot.")
    for key in result.unreadable:
        out.line(Span("damaged or lost: ", "bad"), key)
    if result.unreadable:
        out.next("memkeep verify --all")
    else:
        out.next(f"memkeep show {short(result.snapshots[-1].id)}" if result.snapshots else "memkeep backup")

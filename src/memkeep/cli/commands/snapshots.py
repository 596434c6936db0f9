"""`memkeep snapshots`."""

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, size
from memkeep.cli.words import verb


@verb(example="memkeep snapshots --tag nightly")
@click.option("--tag", metavar="T", help="Only those with this tag.")
@click.option("--system", metavar="NAME", help="Only those of this system.")
def command(face: Face, *, tag: str | None, system: str | None) -> Reply:
    """List the snapshots of the vault.

    The oldest comes first. Any unique beginning of an id names a snapshot, and so does `latest`.
    """
    from memkeep.cli.output import moment
    from memkeep.cli.results import Snapshots, snapshot_row
    from memkeep.cli.views import rung, short
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.ops.snapshots import list_snapshots

    filters = {name: value for name, value in (("tag", tag), ("system", system)) if value}
    rows = [
        snapshot_row(snapshot)
        for snapshot in list_snapshots(open_vault(face, settings(face)))
        if all(getattr(snapshot, name) == value for name, value in filters.items())
    ]

    def render(out: Printer) -> None:
        if not rows:
            out.line("No such snapshot." if filters else "No snapshot yet.")
            out.next("memkeep snapshots" if filters else "memkeep backup")
            return
        out.table(
            ("snapshot", "taken", "system", "records", "added", "rung", "tag", "store"),
            [
                (
                    short(row.id),
                    moment(row.created),
                    row.system,
                    "?" if row.records is None else f"{row.records:,}",
                    size(row.added_bytes),
                    rung(row.rung),
                    row.tag or "",
                    row.path,
                )
                for row in rows
            ],
            right=(3, 4),
        )
        out.next(f"memkeep show {short(rows[-1].id)}")

    return Reply(Snapshots(snapshots=rows), render)

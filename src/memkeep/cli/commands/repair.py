"""`memkeep repair`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.losses import HurtSnapshot
    from memkeep.ops.repair import RepairResult


@verb(example="memkeep repair --dry-run")
@click.option("--from", "mirror", metavar="VAULT", help="Bring what is lost from a mirror: a folder, a URL or a name.")
@click.option("--from-password-file", type=click.Path(), metavar="FILE", help="That vault's password, from a file.")
@click.option("--from-password-command", metavar="CMD", help="That vault's password, from what a command prints.")
@click.option("--dry-run", is_flag=True, help="Only say what would be mended, and what is lost.")
def command(
    face: Face,
    *,
    mirror: str | None,
    from_password_file: str | None,
    from_password_command: str | None,
    dry_run: bool,
) -> Reply:
    """Mend a damaged vault as far as it can be, and say what is lost.

    Reads every pack. Lost index segments are made again from the packs, and what is readable of a damaged pack is
    stored again. What snapshots have lost even so comes from a mirror that `memkeep copy` filled (or was filled from).
    Of each snapshot that can't be made whole it names what is lost; the rest of it can be restored. The password of
    --from may also be in MEMKEEP_FROM_PASSWORD, MEMKEEP_FROM_PASSWORD_FILE, MEMKEEP_FROM_PASSWORD_COMMAND or in that
    vault's settings.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_other, open_vault, settings
    from memkeep.errors import DamagedError
    from memkeep.ops.outcome import status_of
    from memkeep.ops.repair import repair

    config = settings(face)
    vault = open_vault(face, config)
    other = None
    if mirror is not None:
        other = open_other(
            face, config, mirror, verb="repair", flag="--from", file=from_password_file, command=from_password_command
        )
    with listening(face) as events:
        result = repair(vault, mirror=other, dry_run=dry_run, events=events)
    status = DamagedError.exit if result.hurt or result.lost else status_of(result.findings)
    return Reply(result, lambda out: _render(out, result), exit=status)


def _render(out: Printer, result: "RepairResult") -> None:
    from memkeep.cli.views import short, show_findings

    would = "Would describe" if result.dry_run else "Described"
    if result.rebuilt_packs:
        out.line(f"{would} {count(result.rebuilt_packs, 'pack')} anew, {count(result.rebuilt_chunks, 'chunk')}.")
    if result.damaged_packs:
        done = "would be saved" if result.dry_run else "saved"
        packs = count(len(result.damaged_packs), "damaged pack")
        out.line(f"{packs}; {count(result.saved_chunks, 'chunk')} {done} out of them.")
    if result.brought_bytes:
        done = "Would bring" if result.dry_run else "Brought"
        out.line(f"{done} {size(result.brought_bytes)} from the mirror.")
    for key in result.removed:
        out.line("  would be removed: " if result.dry_run else "  removed: ", key)
    for one in result.hurt:
        out.line(Span(short(one.snapshot), "bold"), Span("  can't be made whole", "bad"), f"  {one.system}  {one.path}")
        _show_lost(out, one)
    for name in result.lost:
        out.line(Span(short(name), "bold"), Span("  is lost", "bad"), "  (its manifest is damaged or gone)")
    show_findings(out, result.findings)
    mendable = result.rebuilt_packs or result.damaged_packs or result.removed
    found = mendable or result.hurt or result.lost or result.findings
    nothing = "" if found else "; there is nothing to mend"
    out.line(f"{count(len(result.whole), 'snapshot')} whole, {len(result.hurt) + len(result.lost)} not{nothing}.")
    if result.dry_run and mendable and not result.brought_bytes:
        out.next("memkeep repair")
    elif result.hurt:
        out.next(f"memkeep backup   # then, to do without them: memkeep forget {short(result.hurt[0].snapshot)}")
    elif result.lost:
        out.next(f"memkeep forget {short(result.lost[0])}   # to do without it")
    else:
        out.next("memkeep verify --all")


def _show_lost(out: Printer, one: "HurtSnapshot") -> None:
    for part in one.lost:
        if part.whole:
            out.line("  lost: ", part.part)
        for path in part.files:
            out.line("  lost: ", path)
        for collection, rows in part.records.items():
            out.line(f"  lost: {count(rows, 'record')} of {collection} in {part.part} (for diff and search only)")

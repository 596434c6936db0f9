"""`memkeep restore`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.engines.merging import Conflict
    from memkeep.ops.restore import RestoreResult


@verb(example="memkeep restore latest --to ~/restored")
@click.argument("snapshot", type=SNAPSHOT, help="`latest`, any unique beginning of an id, or a packed file.")
@click.option("--to", metavar="DIR|URL", help="Into this folder, which must be new or empty, or into this server.")
@click.option("--part", "parts", metavar="NAME", multiple=True, help="Only this part; may be given again.")
@click.option(
    "--in-place", is_flag=True, help="Over the live store; what is there is parked, in servers as a snapshot."
)
@click.option("--confirm", metavar="SYSTEM", help="The system's name, to confirm --in-place.")
@click.option("--into", metavar="STORE", help="Record by record into a live store: a path, a URL or a name.")
@click.option(
    "--conflict",
    type=click.Choice(["skip", "update", "fail", "newer"]),
    help="With --into: what happens to a record that is there with other values (skip).",
)
@click.option("--user", metavar="U", help="With --into: only the records of this user.")
@click.option("--even-if-open", is_flag=True, help="In place although a process holds files of the store open.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--age-identity", metavar="FILE", type=click.Path(), multiple=True, help="Opens an encrypted file.")
@click.option("--age-passphrase-file", metavar="FILE", type=click.Path(), help="Opens a file behind a passphrase.")
def command(
    face: Face,
    *,
    snapshot: str,
    to: str | None,
    parts: tuple[str, ...],
    in_place: bool,
    confirm: str | None,
    into: str | None,
    conflict: "Conflict | None",
    user: str | None,
    even_if_open: bool,
    dry_run: bool,
    age_identity: tuple[str, ...],
    age_passphrase_file: str | None,
) -> Reply:
    """Bring a snapshot back: whole, or record by record.

    The parts lie under DIR as they lay under the store's root; what lay in a server lies there as files, and goes into
    another server with --to URL: postgresql://USER@HOST/DATABASE, qdrant://HOST:PORT/COLLECTION. The result is checked
    before it is called done. A file that `memkeep pack` wrote needs no vault. Where several stores are kept, `latest`
    is the latest of the one that --into names, or of the system that --confirm does.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_vault, settings, unlocking
    from memkeep.errors import quoted
    from memkeep.model import is_url
    from memkeep.ops.parcel_read import is_parcel

    if sum((to is not None, in_place, into is not None)) > 1:
        raise click.UsageError("of --to, --in-place and --into only one can be meant")
    if into is None and (conflict is not None or user is not None):
        raise click.UsageError("--conflict and --user are for --into STORE")
    if is_parcel(snapshot):
        if to is None:
            raise click.UsageError("a packed file is restored into a new folder or a server: --to DIR|URL")
        from memkeep.ops.outcome import status_of
        from memkeep.ops.unpack import restore_file

        unlock = unlocking(age_identity, age_passphrase_file)
        config = settings(face) if is_url(to) else None
        file = Path(snapshot)
        with listening(face) as events:
            result = restore_file(
                file, to=to, parts=parts, unlock=unlock, dry_run=dry_run, config=config, events=events
            )
        then = f"memkeep discover {result.to}"
        return Reply(result, lambda out: _render(out, result, then), exit=status_of(result.findings))
    if age_identity or age_passphrase_file:
        raise click.UsageError(f"{snapshot} is no packed file, which is all that age opens")
    config = settings(face)
    vault = open_vault(face, config, ahead="memkeep.ops.restore")
    from memkeep.ops.in_server import LAY_IN_A_SERVER
    from memkeep.ops.outcome import status_of
    from memkeep.ops.restore import restore, restore_into

    if into is not None:
        with listening(face) as events:
            result = restore_into(
                vault,
                snapshot,
                into,
                conflict=conflict or "skip",
                user=user,
                parts=parts,
                dry_run=dry_run,
                config=config,
                events=events,
            )
        return Reply(result, lambda out: _render_merge(out, result), exit=status_of(result.findings))
    with listening(face) as events:
        result = restore(
            vault,
            snapshot,
            to=to,
            parts=parts,
            in_place=in_place,
            confirm=confirm,
            even_if_open=even_if_open,
            dry_run=dry_run,
            config=config,
            events=events,
        )
    then = f"memkeep diff {result.snapshot[:12]} {quoted(result.to)}"
    if len(result.parts) < len(vault.resolve(result.snapshot).parts):
        then = f"memkeep discover {quoted(result.to)}"  # what of it lies elsewhere would be told as removed
    if any(finding.code == LAY_IN_A_SERVER for finding in result.findings):
        then = f"memkeep restore {result.snapshot[:12]} --to URL   # into a server, where it can be used and compared"
    return Reply(result, lambda out: _render(out, result, then), exit=status_of(result.findings))


def _render_merge(out: Printer, result: "RestoreResult") -> None:
    from memkeep.cli.views import short, show_findings, show_omissions

    assert result.merged is not None  # noqa: S101 - of a merge
    merged = result.merged
    verb_ = "Would merge " if result.dry_run else "Merged "
    out.advice(verb_, Span(short(result.snapshot), "bold"), f" ({result.system}) into {result.to}")
    for one in merged.tables:
        changes = f"{one.inserted} inserted, {one.updated} updated, {one.skipped} skipped, {one.same} the same"
        out.line(f"  {one.table}: {changes}")
    if not merged.tables:
        out.line("  no records were chosen")
    if merged.failed:
        out.line("  ", Span(f"{len(merged.failed)} refused", "bad"))
    show_omissions(out, result.omitted)
    show_findings(out, result.findings)
    if result.dry_run:
        out.advice("Nothing was written: this was a dry run.")
    else:
        out.line("The store as it was is ", result.parked or "")
        out.line(Span("Undo: ", "dim"), result.undo or "")


def _render(out: Printer, result: "RestoreResult", then: str) -> None:
    from memkeep.cli.views import short, show_findings, show_omissions

    what = f"{count(result.records, 'record')} in {count(len(result.parts), 'part')}"
    if result.dry_run:
        out.line("Would restore ", Span(short(result.snapshot), "bold"), f" ({result.system}) to {result.to}")
    else:
        out.advice("Restored ", Span(short(result.snapshot), "bold"), f" ({result.system}) to {result.to}")
    out.advice(f"  {what}, {count(result.files, 'file')}, {size(result.bytes)}")
    show_omissions(out, result.omitted)
    show_findings(out, result.findings)
    if result.parked:
        out.line("What was there is parked in ", result.parked)
    if result.undo:
        out.line(Span("Undo: ", "dim"), result.undo)
    elif result.dry_run:
        out.advice("Nothing was written: this was a dry run.")
    else:
        out.next(then)

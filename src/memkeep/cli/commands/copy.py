"""`memkeep copy`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.copy import CopyResult


@verb(example="memkeep copy --to /mnt/disk/vault --to-password-file ~/.mirror-password")
@click.argument("snapshots", nargs=-1, type=SNAPSHOT, metavar="[SNAPSHOT]...", help="All unless given.")
@click.option("--to", required=True, metavar="VAULT", help="A folder, a URL or a name from the settings.")
@click.option("--to-password-file", type=click.Path(), metavar="FILE", help="That vault's password, from a file.")
@click.option("--to-password-command", metavar="CMD", help="That vault's password, from what a command prints.")
@click.option("--include-secrets", is_flag=True, help="Take credentials into an unencrypted vault too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be copied.")
def command(
    face: Face,
    *,
    snapshots: tuple[str, ...],
    to: str,
    to_password_file: str | None,
    to_password_command: str | None,
    include_secrets: bool,
    dry_run: bool,
) -> Reply:
    """Mirror snapshots into another vault, without restoring them.

    The other vault must exist (`memkeep init`); it may have another password and lie anywhere. What it has is not
    sent again, but for what has gone missing or was cut off there since: copies that lack it are healed, or named. The
    password of --to may also be in MEMKEEP_TO_PASSWORD, MEMKEEP_TO_PASSWORD_FILE, MEMKEEP_TO_PASSWORD_COMMAND or in
    that vault's settings.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_other, open_vault, settings, vault_place
    from memkeep.config import vault_settings
    from memkeep.ops.copy import copy, same_vault
    from memkeep.ops.open import same_place
    from memkeep.ops.outcome import status_of

    config = settings(face)
    if same_place(vault_place(face, config).url, vault_settings(config, to).url):
        raise same_vault(to)  # before anybody is asked for a password
    source = open_vault(face, config)
    target = open_other(face, config, to, verb="copy", flag="--to", file=to_password_file, command=to_password_command)
    with listening(face) as events:
        result = copy(source, target, snapshots, include_secrets=include_secrets, dry_run=dry_run, events=events)
    return Reply(result, lambda out: _render(out, result, to, to_password_file), exit=status_of(result.findings))


def _render(out: Printer, result: "CopyResult", to: str, to_password_file: str | None) -> None:
    import shlex

    from memkeep.cli.views import short, show_findings, show_omissions

    for row in result.copied:
        made = " -> would be copied" if result.dry_run else f" -> {short(row.snapshot)}"
        out.advice(Span(short(row.source), "bold"), f"{made}  {row.system}  {row.path}")
        show_omissions(out, row.omitted)
    for name in result.healed:
        done = "would be healed" if result.dry_run else "was healed"
        out.line(Span(short(name), "bold"), f"  its copy had lost something and {done}")
    show_findings(out, result.findings)
    there = f", {len(result.present)} there already" if result.present else ""
    lost = f", {len(result.failed)} not whole" if result.failed else ""
    done = f"{count(len(result.copied), 'snapshot')} to {result.vault}{there}{lost}"
    if result.dry_run:
        out.line(f"Would copy {done}; at most {size(result.bytes)} to move.")
        out.advice("Nothing was written: this was a dry run.")
    else:
        out.advice(f"Copied {done}; added {size(result.added_bytes)}.")
        secret = f" --password-file {shlex.quote(to_password_file)}" if to_password_file else ""
        out.next(f"memkeep verify --all --vault {shlex.quote(to)}{secret}")

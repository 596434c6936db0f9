"""`memkeep backup`."""

import shlex
import sys
from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, duration, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, interactive
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.config import Config
    from memkeep.ops.backup import BackupResult, FailedStore, SnapshotReport
    from memkeep.vault.vault import Vault


@verb(example="memkeep backup ~/.openclaw/memory --tag nightly")
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(),
    metavar="[PATH]...",
    help="Stores: paths, URLs, names; else all that are found.",
)
@click.option("--user", metavar="U", help="Only what is of this user, of products that keep several apart (Thanos).")
@click.option("--tag", metavar="T", help="A word to find the snapshot by.")
@click.option("--label", metavar="L", help="A sentence to remember it by.")
@click.option("--no-secrets", is_flag=True, help="Leave credentials out of an encrypted vault too.")
@click.option("--include-secrets", is_flag=True, help="Take credentials into an unencrypted vault too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be taken.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
def command(
    face: Face,
    *,
    paths: tuple[str, ...],
    user: str | None,
    tag: str | None,
    label: str | None,
    no_secrets: bool,
    include_secrets: bool,
    dry_run: bool,
    no_verify: bool,
) -> Reply:
    """Take a snapshot of every store, or of those at PATH.

    The agents keep running: each snapshot is one consistent moment of all parts of a store. What was written is read
    back before it is called done.
    """
    from concurrent.futures import ThreadPoolExecutor

    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import find_stores, settings
    from memkeep.errors import StoreError

    if no_secrets and include_secrets:
        raise click.UsageError("--no-secrets and --include-secrets were both given")
    config = settings(face)
    unfound: list[FailedStore] = []
    with ThreadPoolExecutor(1, "memkeep-discover") as pool:
        looking = pool.submit(
            find_stores, paths, config, unfound
        )  # in a child process, while the vault's key is derived here
        vault = _open_or_offer(face, config)
        stores = looking.result()
    from memkeep.ops.backup import backup
    from memkeep.ops.outcome import status_of_backup

    if not stores and not unfound:
        where = f"at {', '.join(paths)}" if paths else "in the places where products keep it"
        raise StoreError(f"no store of agent memory was found {where}", hint="memkeep discover PATH", code="no_store")
    with listening(face) as events:
        result = backup(
            vault,
            stores,
            unfound=unfound,
            user=user,
            tag=tag,
            label=label,
            secrets="exclude" if no_secrets else "include" if include_secrets else "auto",
            dry_run=dry_run,
            verify=not no_verify,
            events=events,
        )
    status = status_of_backup(result, proven=not (dry_run or no_verify))
    taking = shlex.join(["memkeep", "backup", *paths, *(["--user", user] if user else [])]) if dry_run else None
    return Reply(result, lambda out: _render(out, result, taking), exit=status)


def _open_or_offer(face: Face, config: "Config") -> "Vault":
    """Open the vault; a person who has none yet is offered the default one."""
    from memkeep.cli.commands.init import show
    from memkeep.cli.secrets import password
    from memkeep.cli.wiring import named_vault, open_vault, vault_place
    from memkeep.errors import VaultMissingError
    from memkeep.ops.open import init_vault
    from memkeep.ops.open import open_vault as open_at

    try:
        return open_vault(face, config, ahead="memkeep.ops.backup")
    except VaultMissingError:
        if face.json or not interactive() or named_vault(face, config):
            raise
        place = vault_place(face, config)
        if not click.confirm(f"There is no vault yet. Make an encrypted one in {place.url}?", default=True, err=True):
            raise
        secret = password(face, place, new=True)
        show(Printer(sys.stderr), init_vault(place.url, secret, settings=place))
        return open_at(place.url, secret, settings=place)


def _render(out: Printer, result: "BackupResult", taking: str | None) -> None:
    """Write what was taken; after a dry run `taking` is the command that takes it."""
    for report in result.snapshots:
        _show(out, report, dry_run=taking is not None)
    for one in result.failed:
        out.line(Span("failed: ", "bad"), one.path, ": ", one.message)
    if taking is not None:
        out.advice("Nothing was written: this was a dry run.")
        out.next(taking)
    elif result.failed and result.failed[0].hint:
        out.next(result.failed[0].hint)
    else:
        out.next("memkeep snapshots")


def _show(out: Printer, report: "SnapshotReport", *, dry_run: bool) -> None:
    from memkeep.cli.views import rung, short, show_findings, show_omissions

    name = "would be taken" if dry_run else short(report.id)
    whose = f"  of {report.user} alone" if report.user is not None else ""
    out.advice(Span(name, "bold"), "  ", report.system, "  ", report.path, whose)
    read = f"{count(report.records, 'record')}, {size(report.source_bytes)}"
    added = "" if dry_run else f", added {size(report.added_bytes)} in {duration(report.duration_s)}, "
    out.advice("  ", read, added, "" if dry_run else rung(report.rung))
    if not report.consistent:
        out.line("  ", Span("not one moment: ", "warn"), "parts changed while others were read")
    show_omissions(out, report.omitted)
    show_findings(out, report.findings)

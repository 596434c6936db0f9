"""`memkeep status`, and `memkeep` alone."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, number
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, Text, ago
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.config import Config
    from memkeep.ops.status import StatusResult, StoreStatus
    from memkeep.vault.vault import Vault


@verb(example="memkeep status --json")
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(),
    metavar="[PATH]...",
    help="Stores: paths, URLs, names; else all that are found.",
)
def command(face: Face, *, paths: tuple[str, ...]) -> Reply:
    """Show every store, its last snapshot, and what is unprotected.

    Stores are those that are found now and those that were backed up once.
    """
    return report(face, paths)


def report(face: Face, paths: tuple[str, ...] = ()) -> Reply:
    """Do what `memkeep status` does."""
    from memkeep.cli.wiring import find_stores, settings, vault_place
    from memkeep.errors import DamagedError

    config = settings(face)
    vault = _vault(face, config)
    from memkeep.ops.status import status

    result = status(vault, find_stores(paths, config))
    place = vault_place(face, config).url
    exit_status = DamagedError.exit if result.unreadable else 0
    return Reply(result, lambda out: _render(out, result, place), exit=exit_status)


def _vault(face: Face, config: "Config") -> "Vault | None":
    """Open the vault; None when there is none and none was named."""
    from memkeep.cli.wiring import named_vault, open_vault
    from memkeep.errors import VaultMissingError

    try:
        return open_vault(face, config, ahead="memkeep.ops.status")
    except VaultMissingError:
        if named_vault(face, config):
            raise
        return None


def _render(out: Printer, result: "StatusResult", place: str) -> None:
    from memkeep.cli.views import show_findings, show_omissions

    if result.vault is None:
        out.line(f"There is no vault yet in {place}.")
    else:
        out.line(f"Vault {result.vault}: ", _vault_facts(result))
    if result.schedule or result.last_run:
        out.line(_schedule(result))
    if result.stores:
        out.line()
        out.table(
            ("system", "records", "last snapshot", "proven", "store"),
            [
                (
                    row.system,
                    number(row.records),
                    _last(row),
                    _proven(row),
                    row.path if row.present else f"{row.path} (gone)",
                )
                for row in result.stores
            ],
            right=(1,),
        )
    for key in result.unreadable:
        out.line(Span("damaged or lost: ", "bad"), key)
    for row in result.stores:
        if row.unprotected or row.findings:
            out.line()
            out.line(Span(row.path, "bold"))
            show_omissions(out, row.unprotected)
            show_findings(out, row.findings)
    out.line()
    bare = sum(row.present and not row.protected for row in result.stores)
    if bare:
        out.line(Span(f"{count(bare, 'store')} without a snapshot.", "warn"))
    if not result.stores:
        out.line("No store of agent memory was found in the places where products keep it.")
    out.next(_next(result, bare))


def _schedule(result: "StatusResult") -> str:
    """Say in one line what is done unattended, and how that went."""
    kept = f"Runs {result.schedule.when}, by {result.schedule.by}. " if result.schedule else "No schedule. "
    last = result.last_run
    if last is None:
        return f"{kept}Not run yet."
    if last.exit is None:
        return f"{kept}A run is at work." if last.running else f"{kept}The last run was killed."
    why = ": ".join(filter(None, (last.step or last.code, last.message)))
    how = f"exit status {last.exit}" + (f" ({why})" if last.exit else "")
    return f"{kept}Last run {ago(last.started)}: {how}."


def _vault_facts(result: "StatusResult") -> str:
    return f"{count(result.snapshots, 'snapshot')}, {'encrypted' if result.encrypted else 'not encrypted'}"


def _last(row: "StoreStatus") -> Text:
    return ago(row.last_at) if row.last_at else Span("never", "bad")


def _proven(row: "StoreStatus") -> Text:
    from memkeep.cli.views import rung

    return rung(row.rung)


def _next(result: "StatusResult", bare: int) -> str:
    if result.unreadable:
        return "memkeep verify --all"
    if not result.stores:
        return "memkeep demo   # or, for a store elsewhere: memkeep discover PATH"
    if result.vault is None:
        return "memkeep init"
    return "memkeep backup" if bare else "memkeep snapshots"

"""`memkeep audit`."""

from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.audit import AuditKind, AuditResult

CATEGORIES = (
    *("poisoning", "secrets", "orphans", "vectors", "contradictions"),
    *("duplicates", "outdated", "places", "importance"),
)


@verb(example="memkeep audit ~/.openclaw/memory --category duplicates --category secrets")
@click.argument(
    "name", metavar="STORE|SNAPSHOT", type=SNAPSHOT, help="A live store, which is only read, or a snapshot."
)
@click.option(
    "--category", type=click.Choice(CATEGORIES), multiple=True, help="Look only for these; may be given again."
)
@click.option("--limit", type=click.IntRange(min=0), default=5, show_default=True, help="Examples of each kind.")
@click.option("--plan", type=click.Path(), metavar="FILE", help="Write what to do about it into a new file, to edit.")
@click.option(
    "--hosts", is_flag=True, help="Also ask the network whether the hosts that memories name have an address."
)
def command(face: Face, *, name: str, category: tuple[str, ...], limit: int, plan: str | None, hosts: bool) -> Reply:
    """Look through memories for what should not be there.

    Duplicates in words and in meaning, contradictions, what is outdated or was never recalled, vectors that recall
    can't use, links and vectors of records that are gone, files that are not there, secrets and personal data, and
    signs of poisoning: orders to the agent and hidden text. Changes nothing, and shows no secret. Exits with 4 when it
    found more than what is only worth knowing.

    --plan proposes for each record to delete or to keep it. Look at the file, change it, then `memkeep apply`.
    """
    from pathlib import Path

    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.ops.audit import audit, status_of_audit
    from memkeep.ops.records import is_live

    config = settings(face)
    vault = None if is_live(name, config) else open_vault(face, config)
    with listening(face) as events:
        result = audit(
            vault,
            name,
            categories=category,
            limit=limit,
            ask_hosts=hosts,
            plan=Path(plan) if plan else None,
            config=config,
            events=events,
        )
    return Reply(result, lambda out: _render(out, result), exit=status_of_audit(result))


def _render(out: Printer, result: "AuditResult") -> None:
    from memkeep.cli.views import show_findings

    of = f"snapshot {result.snapshot[:12]}" if result.snapshot else result.path
    out.line(Span(result.system, "bold"), f"  {of}  {count(result.records, 'record')}")
    found = [one for one in result.kinds if one.count]
    for one in found:
        _show(out, one)
    show_findings(out, result.unread)
    for sentence in result.omitted:
        out.line(Span("not read: ", "warn"), sentence)
    for sentence in result.unchecked:
        out.advice(Span("not looked at: ", "dim"), sentence)
    looked = {one.category for one in result.kinds}
    clean = sorted(looked - {one.category for one in found})
    if clean:
        out.line("Nothing found of: ", ", ".join(clean))
    if result.plan:
        from shlex import quote

        out.line(f"{count(result.planned, 'line')} in {result.plan}: look at each, then")
        out.next(f"memkeep apply {quote(result.plan)} --dry-run")


def _show(out: Printer, one: "AuditKind") -> None:
    from memkeep.cli.views import MANNER

    out.line(Span(one.category, "bold"), "  ", Span(f"{one.title}: {one.count:,}", MANNER[one.severity]))
    for example in one.examples:
        out.line(f"    {example.collection}:{example.id}  ", Span(example.why, "dim"))
    if one.count > len(one.examples):
        out.line(Span(f"    and {one.count - len(one.examples):,} more", "dim"))
    out.advice("    ", Span("mend: ", "dim"), one.mend)

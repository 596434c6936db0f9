"""How the values of the model are shown to a person."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from memkeep.amounts import count
from memkeep.cli.output import Printer, Span, Text
from memkeep.model import Finding, Omission, Rung, Severity

if TYPE_CHECKING:
    from memkeep.model import Store
    from memkeep.ops.migrate import MigrateResult

MOST = 20  # findings that people are shown at once; one lost index segment may cause thousands
SHORT = 12  # characters of an id that people are shown; any unique prefix names a snapshot
MANNER = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}


def short(identity: str) -> str:
    """Return the beginning of an id."""
    return identity[:SHORT]


def rung(reached: Rung) -> Text:
    """Return a rung in the colour of how far up the ladder it is."""
    if reached.height >= Rung.READABLE.height:
        return Span(reached.value, "good")
    return Span(reached.value, "warn" if reached.height else "bad")


def show_findings(out: Printer, findings: Iterable[Finding]) -> None:
    """Write findings, the worst first, each with its mend."""
    order = list(Severity)
    worst_first = sorted(findings, key=lambda one: order.index(one.severity))
    for finding in worst_first[:MOST]:
        place = " ".join(filter(None, (finding.part, finding.record)))
        out.line(
            "  ",
            Span(f"{finding.severity.value}: ", MANNER[finding.severity]),
            f"{place}: " if place else "",
            finding.message,
        )
        if finding.object:
            hurt = f", hurts {', '.join(map(short, finding.snapshots))}" if finding.snapshots else ""
            out.line("    ", Span("object ", "dim"), finding.object, hurt)
        if finding.mend:
            out.advice("    ", Span("mend: ", "dim"), finding.mend)
    if len(worst_first) > MOST:
        out.line(f"  and {count(len(worst_first) - MOST, 'more finding')}: --json has them all")


def show_omissions(out: Printer, omitted: Iterable[Omission]) -> None:
    """Write what was left out, and why."""
    for omission in omitted:
        out.line("  ", Span("left out: ", "dim"), f"{omission.part} ({omission.reason})")


def show_store(out: Printer, store: "Store") -> None:
    """Write one store and its parts."""
    out.line(Span(store.system, "bold"), "  ", store.path)
    parts = count(len(store.parts), "part")
    out.line(f"  {count(store.records, 'record')} in {parts}")
    if store.mapping:
        out.line("  ", Span("records: ", "dim"), store.mapping)


def show_fields(out: Printer, fields: dict[str, list[Any]]) -> None:
    """Write the fields of a record that changed: before and after."""
    for name, (before, after) in fields.items():
        out.line(f"    {name}: ", Span(brief(before), "bad"), " -> ", Span(brief(after), "good"))


def brief(value: Any, most: int = 60) -> str:
    """Return a value in few characters; `--json` has it whole."""
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"


def show_moved(out: Printer, result: "MigrateResult") -> None:
    """Write what was moved, field by field."""
    word = "Would move " if result.dry_run else "Moved "
    if result.merged.failed:
        word += "what the target takes of "
    what = f"{count(result.records, 'record')}, {count(result.relationships, 'relationship')}"
    made = " (new)" if result.created else ""
    out.advice(word, Span(what, "bold"), f" of {result.from_system} into {result.to_system}, {result.to}{made}")
    for fate, title, manner in (
        ("native", "kept", "good"),
        ("metadata", "carried beside", "warn"),
        ("lost", "no place for", "bad"),
    ):
        mine = [one for one in result.fields if one.fate == fate]
        names = [f"{one.field} ({one.records:,})" for one in mine if not one.field.startswith("metadata.")]
        if keys := len(mine) - len(names):
            names.append(count(keys, "key of metadata", "keys of metadata"))
        if names:
            out.advice("  ", Span(f"{title}: ", manner), ", ".join(names))
    for one in result.merged.tables:
        changes = f"{one.inserted} inserted, {one.updated} updated, {one.skipped} skipped, {one.same} the same"
        out.line(f"  {one.table}: {changes}")
    show_findings(out, result.findings)
    if result.dry_run:
        out.advice("Nothing was written: this was a dry run.")
        return
    if result.kept:
        out.line("The target as it was is snapshot ", result.kept[:12])
    if result.undo:
        out.line(Span("Undo: ", "dim"), result.undo)

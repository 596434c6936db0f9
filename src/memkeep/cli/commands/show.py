"""`memkeep show`."""

from typing import TYPE_CHECKING, Any

import click

from memkeep.amounts import count, duration, number, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, Text, moment
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memkeep.ops.snapshots import ShowResult


@verb(example="memkeep show latest")
@click.argument("snapshot", type=SNAPSHOT, help="`latest`, or any unique beginning of an id.")
def command(face: Face, *, snapshot: str) -> Reply:
    """Show what one snapshot holds.

    Its parts, its memories by category and scope, the embedding model, the product's versions, what was left out,
    and what was found.
    """
    from memkeep.cli.wiring import open_vault, settings

    vault = open_vault(face, settings(face), ahead="memkeep.ops.snapshots")
    from memkeep.ops.snapshots import show

    result = show(vault, snapshot)
    return Reply(result, lambda out: _render(out, result))


def _render(out: Printer, result: "ShowResult") -> None:
    from memkeep.cli.views import short, show_findings, show_omissions

    out.fields(_facts(result))
    out.line()
    rows = [
        (part.name or ".", part.role.value, number(sum(part.rows.values())), size(part.bytes), part.how)
        for part in result.parts
    ]
    out.table(("part", "role", "rows", "size", "frozen by"), rows, right=(2, 3))
    if result.omitted or result.findings:
        out.line()
    show_omissions(out, result.omitted)
    show_findings(out, result.findings)
    out.next(f"memkeep restore {short(result.id)} --to DIR")


def _facts(result: "ShowResult") -> "Iterator[tuple[str, Text]]":
    from memkeep.cli.views import rung

    yield "snapshot", Span(result.id, "bold")
    yield "store", f"{result.system}  {result.path}  on {result.host}"
    took = f"in {duration(result.duration_s)}, added {size(result.added_bytes)}"
    yield "taken", f"{moment(result.created)}, {took}, by memkeep {result.memkeep}"
    yield "proven", rung(result.rung)
    if not result.consistent:
        yield "moment", Span("parts changed while others were read", "warn")
    for name, value in (("tag", result.tag), ("label", result.label), ("mapping", result.mapping)):
        if value:
            yield name, value
    yield "records", count(result.records, "record")
    for name, counts in (("categories", result.categories), ("scopes", result.scopes)):
        if counts:
            yield name, _counts(counts)
    if result.oldest and result.newest:
        yield "made", f"{moment(result.oldest)} to {moment(result.newest)}"
    for name, fact in sorted(result.fingerprint.items()):
        yield name, _value(fact)
    for name, fact in sorted(result.vectors.items()):
        yield f"vectors {name}", _vectors(fact)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '(none)'} {many:,}" for name, many in sorted(counts.items(), key=lambda one: -one[1]))


def _vectors(fact: dict[str, Any]) -> str:
    """Say how many vectors of which size a column has: `41 of 16 dimensions, 2 missing`."""
    sizes = [f"{many:,} of {dims} dimensions" for dims, many in fact["dims"].items()]
    missing = [f"{number(fact['missing'])} missing"] if fact["missing"] else []
    return ", ".join(sizes + missing) or "none"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return "none" if value is None else str(value)

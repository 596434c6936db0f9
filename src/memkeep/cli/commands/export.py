"""`memkeep export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.export import ExportResult
    from memkeep.ops.exported import VerifiedExport

NAMES = ("alf", "csv", "json", "jsonl", "markdown", "oc-memory", "parquet")
"""Of the formats in `records.formats.catalog`, which is not loaded for a page of help."""


@verb(example="memkeep export latest --format json -o ~/memory-export")
@click.argument("source", metavar="[SNAPSHOT|STORE]", required=False, type=SNAPSHOT)
@click.option("--format", "format_", type=click.Choice(NAMES), help="What to write.")
@click.option("-o", "--output", metavar="DIR", type=click.Path(), help="The folder to write, or to replace.")
@click.option("--user", metavar="U", help="Only the records of this user.")
@click.option("--scope", metavar="S", help="Only the records of this scope.")
@click.option("--since", metavar="T", help="Only what was made or changed since, as 2026-11-01.")
@click.option("--no-vectors", is_flag=True, help="Leave the embeddings out.")
@click.option("--redact/--no-redact", default=None, help="Take keys and passwords out of texts (with --git: yes).")
@click.option("--git", is_flag=True, help="Commit the files in the git workspace that DIR lies in, or make one.")
@click.option("--push", is_flag=True, help="Push the commit too.")
@click.option("--dry-run", is_flag=True, help="Only count, and name what the format would lose.")
@click.option("--verify", "check", metavar="DIR", type=click.Path(), help="Check an export that is there instead.")
def command(
    face: Face,
    *,
    source: str | None,
    format_: str | None,
    output: str | None,
    user: str | None,
    scope: str | None,
    since: str | None,
    no_vectors: bool,
    redact: bool | None,
    git: bool,
    push: bool,
    dry_run: bool,
    check: str | None,
) -> Reply:
    """Write memories as open files, or check such files.

    Of a snapshot, or of a live store, which is only read. The folder is written beside its place and takes it when it
    is whole; what stands there must be an earlier export. What the format has no place for is said before anything is
    written. The same snapshot gives the same bytes.
    """
    if check is not None:
        if any((source, output, format_, git, push, dry_run)):
            raise click.UsageError("--verify DIR only checks what is there, and something to write was given")
        return _verify(face, Path(check))
    if source is None or output is None or format_ is None:
        raise click.UsageError("an export needs SNAPSHOT or STORE, --format and -o DIR")
    if push and not git:
        raise click.UsageError("--push needs --git")
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import has_vault, open_vault, settings
    from memkeep.ops.export import export
    from memkeep.ops.outcome import status_of
    from memkeep.ops.records import Filters, is_live, of

    config = settings(face)
    vault = open_vault(face, config) if has_vault(face, config) or not is_live(source, config) else None
    filters = Filters(user=user, scope=scope, since=since, vectors=not no_vectors)
    with (
        listening(face, _tell) as events,
        of(vault, source, config=config, filters=filters, events=events) as records,
    ):
        result = export(
            records, Path(output), format_, redact=redact, git=git, push=push, dry_run=dry_run, events=events
        )
    return Reply(result, lambda out: _render(out, result), exit=status_of(result.findings))


def _verify(face: Face, folder: Path) -> Reply:
    from memkeep.cli.progress import listening
    from memkeep.ops.exported import verify_export
    from memkeep.ops.outcome import status_of

    with listening(face) as events:
        result = verify_export(folder, events=events)
    return Reply(result, lambda out: _render_check(out, result), exit=status_of(result.findings))


def _tell(text: str) -> None:
    """Say on standard error, while nothing is written yet, what the files will not have."""
    import sys

    from memkeep.cli.output import clean

    print(clean(text), file=sys.stderr)  # noqa: T201 - for a person, now


def _render(out: Printer, result: "ExportResult") -> None:
    from shlex import quote

    from memkeep.cli.views import show_findings

    word = "Would write " if result.dry_run else "Wrote "
    what = f"{count(result.memories, 'memory', 'memories')}, {count(result.relationships, 'relationship')}"
    out.advice(word, Span(what, "bold"), f" of {result.system} as {result.format} into {result.folder}")
    for name, many in result.collections.items():
        out.advice(f"  and {count(many, 'record')} of {name}")
    if result.files:
        out.advice(f"  {count(len(result.files), 'file')}, {size(result.bytes)}, SHA-256 {result.checksum}")
    for kind, many in (result.redacted or {}).items():
        out.line("  ", Span("taken out: ", "dim"), f"{kind}, {count(many, 'time')}")
    for text in result.omitted:
        out.line("  ", Span("left out: ", "dim"), text)
    show_findings(out, result.findings)
    if result.commit is not None:
        out.advice("  committed as ", Span(result.commit[:12], "bold"), " and pushed" if result.pushed else "")
    elif result.changes is not None:
        out.advice("  nothing is different from what git has")
    if not result.dry_run:
        out.next(f"memkeep export --verify {quote(result.folder)}")


def _render_check(out: Printer, result: "VerifiedExport") -> None:
    from memkeep.cli.views import show_findings
    from memkeep.model import Severity

    what = f"{count(result.memories, 'memory', 'memories')}, {count(result.relationships, 'relationship')}"
    out.line(f"{result.format or 'no known format'}: {what} in {count(result.files, 'file')}")
    show_findings(out, result.findings)
    if all(one.severity is Severity.INFO for one in result.findings):
        out.advice("All is well.")

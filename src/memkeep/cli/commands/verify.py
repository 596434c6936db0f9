"""`memkeep verify`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memkeep.model import Finding
    from memkeep.ops.embedder import Embedder, Name
    from memkeep.ops.vectors import VectorsReport
    from memkeep.ops.verify import VerifyResult

MEANING = {
    "intact": "every byte is what was written",
    "readable": "the databases open, integrity checks and counts hold",
    "restorable": "it was restored into scratch space",
    "equivalent": "restored, it has the same rows and vectors, and recall gives the same answers",
}
RUNGS = tuple(MEANING)


@verb(example="memkeep verify latest --rung equivalent")
@click.argument(
    "snapshot",
    required=False,
    type=SNAPSHOT,
    help="The newest one unless given; or a packed file. With --vectors also a live store.",
)
@click.option("--rung", type=click.Choice(RUNGS), default="readable", show_default=True, help="How far to prove it.")
@click.option("--all", "every", is_flag=True, help="All snapshots, and every object of the vault.")
@click.option("--vectors", is_flag=True, help="Instead: whether the vectors are of one model, and of which.")
@click.option("--model", metavar="M", help="With --vectors: embed a sample again with this model, and compare.")
@click.option(
    "--provider",
    type=click.Choice(["ollama", "openai", "local"]),
    help="Who has the model; see `memkeep embed --help`.",
)
@click.option("--url", metavar="URL", help="The endpoint.  [env: OLLAMA_URL, OPENAI_BASE_URL]")
@click.option("--sample", metavar="N", type=click.IntRange(1, 10_000), help="Texts that are embedded again (20).")
@click.option("--age-identity", metavar="FILE", type=click.Path(), multiple=True, help="Opens an encrypted file.")
@click.option("--age-passphrase-file", metavar="FILE", type=click.Path(), help="Opens a file behind a passphrase.")
def command(
    face: Face,
    *,
    snapshot: str | None,
    rung: str,
    every: bool,
    vectors: bool,
    model: str | None,
    provider: "Name | None",
    url: str | None,
    sample: int | None,
    age_identity: tuple[str, ...],
    age_passphrase_file: str | None,
) -> Reply:
    """Prove that a snapshot is good, up to a rung of the ladder.

    intact: every byte is what was written. readable: databases open, integrity checks and counts hold. restorable:
    it was restored into scratch space. equivalent: what came back has the same rows and vectors, and gives the same
    answers to the same questions. A file that `memkeep pack` wrote needs no vault, and is proven up to restorable.

    With --vectors it is looked for signs that two models made the vectors of a store or a snapshot: several sizes,
    lengths or names, groups that are strangers to each other. With a model a sample is embedded again, and the cosine
    with what is there is shown: near 1 the model made it, near 0 another did.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.results import Verified, VerifiedAll
    from memkeep.cli.wiring import open_vault, settings, unlocking
    from memkeep.model import Rung
    from memkeep.ops.parcel_read import is_parcel

    asked = (model, provider, url, sample) != (None, None, None, None)
    if asked and not vectors:
        raise click.UsageError("--model, --provider, --url and --sample are for --vectors")
    if vectors:
        if every or age_identity or age_passphrase_file:
            raise click.UsageError("--vectors looks at one snapshot or one live store")
        from memkeep.ops.embedder import Embedder

        embedder = Embedder(provider=provider, model=model, url=url) if asked else None
        return _vectors(face, snapshot or "latest", embedder, sample)
    if every and snapshot:
        raise click.UsageError("--all and SNAPSHOT were both given")
    if snapshot is not None and is_parcel(snapshot):
        if Rung(rung).height > Rung.RESTORABLE.height:
            raise click.UsageError("a packed file is proven up to restorable: --rung restorable")
        from memkeep.ops.unpack import verify_file
        from memkeep.ops.verify import VerifyReport

        unlock = unlocking(age_identity, age_passphrase_file)
        with listening(face) as events:
            one = verify_file(Path(snapshot), rung=Rung(rung), unlock=unlock, events=events)
            report = VerifyReport(snapshots=(one,))
    else:
        if age_identity or age_passphrase_file:
            raise click.UsageError("age opens only packed files, and none was given")
        vault = open_vault(face, settings(face), cached=False, ahead="memkeep.ops.verify")
        from memkeep.ops.verify import verify

        with listening(face) as events:
            report = verify(vault, snapshot, rung=Rung(rung), all=every, events=events)
    findings = tuple(one for number, one in enumerate(report.all_findings) if one not in report.all_findings[:number])
    result: Verified | VerifiedAll
    if every:
        rows = [Verified(snapshot=one.snapshot, rung=one.rung, findings=one.findings) for one in report.snapshots]
        result = VerifiedAll(snapshots=rows, findings=findings)
    elif report.snapshots:
        result = Verified(
            snapshot=report.snapshots[0].snapshot or None, rung=report.snapshots[0].rung, findings=findings
        )
    else:
        result = Verified(snapshot=None, rung=Rung.NONE, findings=findings)
    from memkeep.ops.outcome import status_of_verify

    status = status_of_verify(report, Rung(rung))
    return Reply(result, lambda out: _render(out, report.snapshots, findings), exit=status)


def _vectors(face: Face, name: str, embedder: "Embedder | None", sample: int | None) -> Reply:
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.errors import PROBLEMS
    from memkeep.ops.records import is_live
    from memkeep.ops.vectors import SAMPLE, look

    config = settings(face)
    vault = None if is_live(name, config) else open_vault(face, config)
    with listening(face) as events:
        report = look(vault, name, embedder, sample=sample or SAMPLE, config=config, events=events)
    return Reply(report, lambda out: _render_vectors(out, report), exit=PROBLEMS if report.findings else 0)


def _render_vectors(out: Printer, report: "VectorsReport") -> None:
    from memkeep.cli.views import show_findings

    out.line(Span(report.system, "bold"), "  ", report.snapshot or report.path)
    for kind in report.kinds:
        out.line(f"  {kind.collection}: {count(kind.count, 'vector')} of {kind.dims} dimensions")
    out.line(f"  configured: {report.configured or 'nobody says'}")
    for one in report.compared:
        cosine = "another size" if one.cosine is None else f"{one.cosine:.3f}"
        out.line(f"  {cosine}  {one.place} {one.record}")
    show_findings(out, report.findings)
    out.advice(f"{count(len(report.findings), 'finding')}." if report.findings else "Nothing speaks against one model.")


def _render(out: Printer, rows: "Sequence[VerifyResult]", findings: "Sequence[Finding]") -> None:
    from memkeep.cli.views import rung, short, show_findings

    for row in rows:
        out.line(short(row.snapshot), "  ", rung(row.rung))
    show_findings(out, findings)
    reached = min((row.rung for row in rows), key=lambda one: one.height, default=None)
    meaning = f": {MEANING[reached]}" if reached in MEANING else ""
    out.advice(f"{count(len(findings), 'finding')}." if findings else f"All is well{meaning}.")
    if any(finding.mend == "memkeep repair" for finding in findings):
        out.next("memkeep repair --dry-run")

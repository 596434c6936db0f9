"""`memkeep embed`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.embed import EmbedResult
    from memkeep.ops.embedder import Name


@verb(example="memkeep embed ~/.openclaw/memory.db --provider ollama --model nomic-embed-text")
@click.argument(
    "store", metavar="STORE|DIR", help="A path, a URL, a name from the settings; or the folder of an export."
)
@click.option("--missing/--all", "missing", default=True, help="Only texts without a vector, or all anew.")
@click.option("--model", metavar="M", help="What the store says, unless given; of a local one its folder.")
@click.option(
    "--provider",
    type=click.Choice(["ollama", "openai", "local"]),
    help="What the store or the environment says, unless given.",
)
@click.option("--url", metavar="URL", help="The endpoint.  [env: OLLAMA_URL, OPENAI_BASE_URL]")
@click.option("--key-file", metavar="FILE", type=click.Path(), help="The key, from a file.  [env: OPENAI_API_KEY]")
@click.option("--dims", metavar="N", type=click.IntRange(1), help="For models that make vectors of several sizes.")
@click.option(
    "--batch", metavar="N", type=click.IntRange(1), default=64, show_default=True, help="Texts in one request."
)
@click.option(
    "--parallel", metavar="N", type=click.IntRange(1, 256), default=4, show_default=True, help="Requests at a time."
)
@click.option("--rate", metavar="N/min", help="Requests in a time, at most.")
@click.option("--no-snapshot", is_flag=True, help="Keep no snapshot of what is replaced.")
@click.option("--dry-run", is_flag=True, help="Only say how much there is to do; nobody is asked anything.")
def command(
    face: Face,
    *,
    store: str,
    missing: bool,
    model: str | None,
    provider: "Name | None",
    url: str | None,
    key_file: str | None,
    dims: int | None,
    batch: int,
    parallel: int,
    rate: str | None,
    no_snapshot: bool,
    dry_run: bool,
) -> Reply:
    """Make the vectors of a store's texts, the missing ones or all.

    ollama: at OLLAMA_URL, or on this machine. openai: any endpoint that speaks as OpenAI's does. local: a folder with a
    model of model2vec or sentence-transformers; nothing is fetched.

    What a store was is kept as a snapshot first; of an export only a format that loses nothing will do. A run that was
    stopped is gone on with by the same command: what was paid for is not paid again. Vectors of two models are never
    mixed: a few that are there are made again first, and compared. A text that the model does not take is named, and
    the others go in.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.wiring import has_vault, open_vault, settings
    from memkeep.embedding.pace import rate as per_second
    from memkeep.errors import PROBLEMS
    from memkeep.ops.embed import EmbedOptions, embed, embed_export
    from memkeep.ops.embed_folder import is_export
    from memkeep.ops.embedder import Embedder
    from memkeep.ops.records import store_at

    config = settings(face)
    options = EmbedOptions(
        every=not missing,
        batch=batch,
        parallel=parallel,
        rate=per_second(rate) if rate else None,
        snapshot=not no_snapshot,
        dry_run=dry_run,
    )
    asked = Embedder(provider=provider, model=model, url=url, key=_key(key_file), dims=dims)
    if is_export(store):
        with listening(face) as events:
            result = embed_export(store, asked, options, events=events)
    else:
        live = store_at(store, config)
        wants_vault = not (no_snapshot or dry_run) and has_vault(face, config)
        vault = open_vault(face, config) if wants_vault else None
        with listening(face) as events:
            result = embed(vault, live, asked, options, events=events)
    return Reply(result, lambda out: _render(out, result), exit=PROBLEMS if result.refused or result.changed else 0)


def _key(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the key file {file} can't be read: {error}") from error


def _render(out: Printer, result: "EmbedResult") -> None:
    from memkeep.cli.views import show_findings

    who = f"{result.model} ({result.provider})"
    if result.dry_run:
        out.line(f"Would embed {count(result.texts, 'text')} of ", Span(result.store, "bold"), f" with {who}")
        out.line(f"  {result.characters:,} characters, for {result.wanted:,} of {count(result.records, 'record')}")
        if result.kept:
            out.line(f"  {count(result.kept, 'more text')} an earlier run has paid for")
        out.advice("Nothing was asked or written: this was a dry run.")
        return
    if not result.wanted:
        out.line(f"All {count(result.records, 'record')} of {result.store} have a vector.")
        return
    out.line(f"Wrote {count(result.written, 'vector')} into ", Span(result.store, "bold"), f" with {who}")
    out.line(f"  {count(result.embedded, 'text')} embedded now, {result.kept:,} paid for by an earlier run")
    if result.compared:
        from memkeep.ops.embed_check import shown

        out.line(f"  the model is the one of the vectors that were there: cosine {shown(result.compared)}")
    show_findings(out, result.findings)
    if result.undo:
        out.line("The store as it was is snapshot ", (result.snapshot or "")[:12])
        out.line(Span("Undo: ", "dim"), result.undo)

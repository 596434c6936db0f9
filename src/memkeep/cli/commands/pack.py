"""`memkeep pack`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memkeep.amounts import count, size
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import SNAPSHOT, verb

if TYPE_CHECKING:
    from memkeep.ops.pack import PackResult

STDOUT = "-"


@verb(example="memkeep pack latest -o ~/memory.tar.zst")
@click.argument("snapshot", type=SNAPSHOT, help="`latest`, or any unique beginning of an id.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(),
    help="The file to write; `-` is standard output.",
)
@click.option("--include-secrets", is_flag=True, help="Take credentials into a file that is not encrypted too.")
@click.option("--no-secrets", is_flag=True, help="Leave credentials out of an encrypted file too.")
@click.option(
    "--age-recipient", "recipients", metavar="KEY", multiple=True, help="Encrypt for an age or SSH public key."
)
@click.option("--age-passphrase-file", metavar="FILE", type=click.Path(), help="Encrypt with a passphrase from a file.")
def command(
    face: Face,
    *,
    snapshot: str,
    output: str,
    include_secrets: bool,
    no_secrets: bool,
    recipients: tuple[str, ...],
    age_passphrase_file: str | None,
) -> Reply:
    """Write one snapshot into one file for another machine.

    It is a tar archive, compressed with zstd, of the plain files, their SHA-256, a readable manifest and a script that
    brings them back where there is no memkeep. `memkeep restore FILE --to DIR` does it where there is.
    """
    from memkeep.cli.progress import listening
    from memkeep.cli.secrets import from_file
    from memkeep.cli.wiring import open_vault, settings
    from memkeep.ops.age import Lock
    from memkeep.ops.pack import pack

    if no_secrets and include_secrets:
        raise click.UsageError("--no-secrets and --include-secrets were both given")
    if recipients and age_passphrase_file:
        raise click.UsageError("--age-recipient and --age-passphrase-file were both given")
    if output == STDOUT and face.json:
        raise click.UsageError("standard output can't take both the file and a JSON document")
    if output == STDOUT and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal, which can't take the file")
    lock = Lock(recipients=recipients, passphrase=from_file(age_passphrase_file) if age_passphrase_file else None)
    vault = open_vault(face, settings(face))
    with listening(face) as events:
        result = pack(
            vault,
            snapshot,
            sys.stdout.buffer if output == STDOUT else Path(output),
            secrets="exclude" if no_secrets else "include" if include_secrets else "auto",
            lock=lock,
            events=events,
        )
    return Reply(result, lambda out: _render(Printer(sys.stderr, face) if output == STDOUT else out, result))


def _render(out: Printer, result: "PackResult") -> None:
    from shlex import quote

    from memkeep.cli.views import short, show_omissions

    out.advice("Packed ", Span(short(result.snapshot), "bold"), f" ({result.system}) into {result.file}")
    what = f"{count(result.records, 'record')} in {count(len(result.parts), 'part')}, {count(result.files, 'file')}"
    plain = "encrypted" if result.encrypted else "not encrypted: whoever has the file can read it"
    out.advice(f"  {what}, {size(result.bytes)} in {size(result.packed_bytes)}, {plain}")
    out.advice(f"  SHA-256 {result.sha256}")
    show_omissions(out, result.omitted)
    if result.file != STDOUT:
        key = " --age-identity FILE" if result.encrypted else ""
        out.advice(Span("Next: ", "dim"), f"memkeep restore {quote(result.file)} --to DIR{key}")

"""`memkeep init`."""

from typing import TYPE_CHECKING

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.ops.open import InitResult


@verb(example="memkeep init --vault ~/vault --password-file ~/.vault-password")
@click.option("--no-encryption", is_flag=True, help="Let everyone who can read the vault read the memories.")
def command(face: Face, *, no_encryption: bool) -> Reply:
    """Make a vault.

    It is encrypted with a password, and a recovery key is printed once: without one of the two nothing can be read.
    Without --vault it is made in the user's data folder, where every verb looks for it. A vault may also lie in an
    object store (s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX): keys and endpoint come from the
    variables and files of the provider's own tools, never from the URL.
    """
    from memkeep.cli.secrets import password
    from memkeep.cli.wiring import settings, vault_place
    from memkeep.ops.open import init_vault

    place = vault_place(face, settings(face))
    secret = None if no_encryption else password(face, place, new=True)
    result = init_vault(place.url, secret, encrypt=not no_encryption, settings=place)

    def render(out: Printer) -> None:
        show(out, result)
        out.next("memkeep backup")

    return Reply(result, render)


def show(out: Printer, result: "InitResult") -> None:
    """Write where the vault is, and the recovery key."""
    out.advice("Made ", "an encrypted" if result.encrypted else "an unencrypted", f" vault in {result.vault}")
    if result.recovery_key:
        out.line()
        out.line("  Recovery key: ", Span(result.recovery_key, "bold"))
        out.line()
        out.advice("Write it down: it opens the vault when the password is lost, and is not shown again.")

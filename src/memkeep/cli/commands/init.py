"""`memkeep init`."""

from typing import TYPE_CHECKING

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.config import VaultSettings
    from memkeep.ops.open import InitResult


@verb(example="memkeep init --vault ~/vault --password-file ~/.vault-password")
@click.option("--no-encryption", is_flag=True, help="Let everyone who can read the vault read the memories.")
def command(face: Face, *, no_encryption: bool) -> Reply:
    """Make a vault.

    It is encrypted with a password, and a recovery key is printed once: without one of the two nothing can be read.
    Without --vault it is made in the user's data folder, where every verb looks for it.
    """
    from memkeep.cli.wiring import settings, vault_place

    result = make(face, vault_place(face, settings(face)), encrypt=not no_encryption)

    def render(out: Printer) -> None:
        show(out, result)
        out.next("memkeep backup")

    return Reply(result, render)


def make(face: Face, place: "VaultSettings", *, encrypt: bool) -> "InitResult":
    """Make the vault of a place; the password is asked for twice when it is not given otherwise."""
    from memkeep.cli.secrets import password
    from memkeep.ops.open import init_vault

    return init_vault(place.url, password(face, place, new=True) if encrypt else None, encrypt=encrypt)


def show(out: Printer, result: "InitResult") -> None:
    """Write where the vault is, and the recovery key."""
    out.advice("Made ", "an encrypted" if result.encrypted else "an unencrypted", f" vault in {result.vault}")
    if result.recovery_key:
        out.line()
        out.line("  Recovery key: ", Span(result.recovery_key, "bold"))
        out.line()
        out.advice("Write it down: it opens the vault when the password is lost, and is not shown again.")

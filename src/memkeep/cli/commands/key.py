"""`memkeep key`."""

from typing import TYPE_CHECKING

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer, Span, moment
from memkeep.cli.words import verb

if TYPE_CHECKING:
    from memkeep.config import VaultSettings
    from memkeep.ops.keys import KeyResult
    from memkeep.vault.vault import Vault

ACTIONS = ("list", "add", "change", "remove", "recovery", "remember", "unremember")
NEW = ("add", "change")


@verb(example="memkeep key add --label laptop --new-password-file ~/.laptop-password")
@click.argument("action", type=click.Choice(ACTIONS), help="See above.")
@click.argument("id", required=False, help="The key to remove, any unique beginning of its id.")
@click.option("--new-password-file", metavar="FILE", type=click.Path(allow_dash=True), help="The new one from a file.")
@click.option("--new-password-command", metavar="CMD", help="The new one from what a command prints.")
@click.option("--label", metavar="TEXT", help="What to call it; it is not encrypted.")
@click.option("--confirm", metavar="ID", help="The id of the key to remove, to confirm it.")
def command(
    face: Face,
    *,
    action: str,
    id: str | None,
    new_password_file: str | None,
    new_password_command: str | None,
    label: str | None,
    confirm: str | None,
) -> Reply:
    """Manage what opens the vault: its passwords and its recovery key.

    list: show them. add: one more password. change: a new password for the one that is given now. remove: revoke ID,
    or the given password; never the last key. recovery: a new recovery key, shown once; the old one is revoked.
    remember, unremember: put the given password into this user's keyring, or take it out again.

    Revoking does not change the master key that all passwords lead to: who had a password and a copy of the vault's
    objects may have kept it. Then `memkeep copy` to a new vault, which has another.
    """
    from memkeep.cli.secrets import from_command, from_file, new_password, password
    from memkeep.cli.wiring import settings, vault_place
    from memkeep.ops.open import open_vault

    if id and action != "remove":
        raise click.UsageError(f"`key {action}` takes no ID")
    if (new_password_file or new_password_command or label) and action not in NEW:
        raise click.UsageError(f"`key {action}` makes no password")
    if new_password_file and new_password_command:
        raise click.UsageError("--new-password-file and --new-password-command were both given")
    place = vault_place(face, settings(face))
    given: list[str] = []

    def ask() -> str:
        given.append(password(face, place))
        return given[0]

    if action == "unremember":
        return _unremember(place)
    vault = open_vault(place.url, ask, settings=place)
    new = ""
    if action in NEW:
        if new_password_file:
            new = from_file(new_password_file)
        elif new_password_command:
            new = from_command(new_password_command)
        else:
            new = new_password(face, place.url)
    if action == "remember":
        return _remember(vault, place, given)
    result = _act(vault, action, given[0] if given else None, id=id, new=new, label=label or "", confirm=confirm)
    return Reply(result, lambda out: _render(out, result))


def _act(
    vault: "Vault", action: str, secret: str | None, *, id: str | None, new: str, label: str, confirm: str | None
) -> "KeyResult":
    from memkeep.ops import keys

    if action == "list":
        return keys.list_keys(vault, secret)
    _ = vault.keys.master  # a vault without encryption has no keys
    known = secret or ""
    if action == "add":
        return keys.add_password(vault, known, new, label=label)
    if action == "change":
        return keys.change_password(vault, known, new, label=label)
    if action == "remove":
        return keys.remove_key(vault, known, id, confirm=confirm)
    return keys.new_recovery(vault, known)


def _remember(vault: "Vault", place: "VaultSettings", given: list[str]) -> Reply:
    from memkeep.cli import keyrings
    from memkeep.ops.keys import list_keys

    _ = vault.keys.master
    keyrings.store(place.url, given[0])
    result = list_keys(vault, given[0])
    return Reply(result, lambda out: out.advice("The keyring has the password: memkeep will not ask for it here."))


def _unremember(place: "VaultSettings") -> Reply:
    from memkeep.cli import keyrings
    from memkeep.ops.keys import KeyResult

    there = keyrings.remove(place.url)
    words = "The password was taken out of the keyring." if there else "The keyring has no password of this vault."
    return Reply(KeyResult(slots=()), lambda out: out.advice(words))


def _render(out: Printer, result: "KeyResult") -> None:
    from memkeep.cli.views import short

    if result.recovery_key:
        out.line()
        out.line("  Recovery key: ", Span(result.recovery_key, "bold"))
        out.line()
        out.advice("Write it down: it is not shown again.")
    if result.added:
        out.advice("Added ", short(result.added), ".")
    for name in result.removed:
        out.advice("Revoked ", short(name), ".")
    manner = {"good": "good", "damaged": "bad", "newer": "warn", "revoked": "warn"}
    rows = [
        (
            short(row.id),
            row.kind,
            _made(row.created),
            Span(row.state, manner[row.state]),
            "yours" if row.yours else "",
            row.label or "",
        )
        for row in result.slots
    ]
    if rows:
        out.table(("key", "kind", "made", "state", "", "label"), rows)
    else:
        out.line("The vault is not encrypted: it has no keys.")
    if result.removed:
        out.advice("Who had a revoked password and a copy of the vault may have kept the master key.")
        out.next("memkeep key --help   # says what to do then")


def _made(created: str | None) -> str:
    try:
        return moment(created or "")
    except ValueError:
        return "?"

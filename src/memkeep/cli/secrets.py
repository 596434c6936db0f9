"""Where a password comes from: never the command line itself, and never a question that no one can answer.

The first of these that is given:

1. `--password-file` or `--password-command`;
2. `MEMKEEP_PASSWORD`, `MEMKEEP_PASSWORD_FILE`, `MEMKEEP_PASSWORD_COMMAND`;
3. the vault's `password_file` or `password_command` in the settings;
4. a systemd credential of the name `memkeep-password` (or the vault's `password_credential`), when there is one;
5. the user's keyring, when there is one and `memkeep key remember` put it there;
6. a prompt on a terminal.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep.cli.face import Face
from memkeep.errors import UsageError, WrongKeyError

if TYPE_CHECKING:
    from memkeep.config import VaultSettings

WAYS = "Give --password-file FILE, --password-command CMD or MEMKEEP_PASSWORD."

CREDENTIAL = "memkeep-password"


def password(
    face: Face, settings: "VaultSettings", *, new: bool = False, environ: Mapping[str, str] = os.environ
) -> str:
    """Return the vault's password; `new` asks twice. `WrongKeyError` when there is none or it can't be read."""
    if face.password_file and face.password_command:
        raise UsageError("--password-file and --password-command were both given")
    sources: list[tuple[str | None, Callable[[str], str]]] = [
        (face.password_file, from_file),
        (face.password_command, from_command),
        (environ.get("MEMKEEP_PASSWORD"), str),
        (environ.get("MEMKEEP_PASSWORD_FILE"), from_file),
        (environ.get("MEMKEEP_PASSWORD_COMMAND"), from_command),
        (settings.password_file, from_file),
        (settings.password_command, from_command),
    ]
    for given, read in sources:
        if given:
            return read(given)
    credential = _credential(settings, environ)
    if credential is not None:
        return from_file(str(credential))
    if not new:
        from memkeep.cli.keyrings import find

        if (remembered := find(settings.url)) is not None:
            return remembered
    return _asked(face, settings.url, new=new)


def new_password(face: Face, vault: str) -> str:
    """Ask twice on the terminal for a password that a vault shall have."""
    return _asked(face, vault, new=True)


def _credential(settings: "VaultSettings", environ: Mapping[str, str]) -> Path | None:
    """Return the file in which systemd hands this service the password; None when it does not."""
    name = settings.password_credential or CREDENTIAL
    if "/" in name or name in {".", ".."}:
        raise UsageError(f"`password_credential` is the name of a credential, not {name}", hint="memkeep --help")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, name) if folder else None
    return path if path is not None and path.is_file() else None


def from_file(name: str) -> str:
    """Return what a file holds, without the newline at its end; `-` is standard input."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WrongKeyError(f"the password file {name} cannot be read: {reason}", hint=_look(name)) from error
    return _filled(text, f"the password file {name} is empty", _look(name))


def from_command(command: str) -> str:
    """Return what a command prints, without the newline at its end; it is run without a shell."""
    import shlex
    import subprocess

    try:
        words = shlex.split(command)
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    except subprocess.CalledProcessError as error:
        message = f"the password command `{command}` failed: it ended with status {error.returncode}"
        raise WrongKeyError(message, hint=command) from error
    except (OSError, ValueError, IndexError) as error:
        raise WrongKeyError(f"the password command `{command}` failed: {error}", hint=command) from error
    return _filled(done.stdout, f"the password command `{command}` printed nothing", command)


def _asked(face: Face, vault: str, *, new: bool) -> str:
    """Ask on the terminal; without one say how else to give the password."""
    from memkeep.cli.output import interactive

    if not interactive():
        verb, flag = (face.verb or "status", "--password-file")
        if new and verb == "key":
            verb, flag = "key add", "--new-password-file"
        raise WrongKeyError(
            f"the vault {vault} needs a {'new ' if new else ''}password, and there is no terminal to ask on",
            hint=f"memkeep {verb} {flag} FILE",
        )
    import getpass

    face.typed = True
    ask = "New password" if new else "Password"
    try:
        given = getpass.getpass(f"{ask} for the vault {vault}: ")
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201 - the question stands in the line still
        raise
    if not given:
        raise WrongKeyError("no password was given", hint=f"memkeep {face.verb or 'status'}")
    if new and getpass.getpass("The same again: ") != given:
        raise UsageError("the two passwords differ", hint=f"memkeep {face.verb or 'init'}")
    return given


def _filled(text: str, otherwise: str, hint: str) -> str:
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise WrongKeyError(otherwise, hint=hint)
    return text


def _look(name: str) -> str:
    import shlex

    return f"ls -l {shlex.quote(name)}"

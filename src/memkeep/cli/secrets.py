"""Where a password comes from: never the command line itself, and never a question that no one can answer.

The first of these that is given: `--password-file` or `--password-command`; `MEMKEEP_PASSWORD`,
`MEMKEEP_PASSWORD_FILE` or `MEMKEEP_PASSWORD_COMMAND`; the vault's settings in the config; a prompt on a terminal.
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


def password(
    face: Face, settings: "VaultSettings", *, new: bool = False, environ: Mapping[str, str] = os.environ
) -> str:
    """Return the vault's password; `new` asks twice. `WrongKeyError` when there is none or it can't be read."""
    if face.password_file and face.password_command:
        raise UsageError("--password-file and --password-command were both given", hint="memkeep --help")
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
    return _asked(face, settings.url, new=new)


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
    except (OSError, ValueError, IndexError, subprocess.CalledProcessError) as error:
        raise WrongKeyError(f"the password command `{command}` failed: {error}", hint=command) from error
    return _filled(done.stdout, f"the password command `{command}` printed nothing", command)


def _asked(face: Face, vault: str, *, new: bool) -> str:
    """Ask on the terminal; without one say how else to give the password."""
    from memkeep.cli.output import interactive

    if not interactive():
        raise WrongKeyError(
            f"the vault {vault} needs a password, and there is no terminal to ask on",
            hint=f"memkeep {face.verb or 'status'} --password-file FILE",
        )
    import getpass

    ask = "New password" if new else "Password"
    given = getpass.getpass(f"{ask} for the vault {vault}: ")
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

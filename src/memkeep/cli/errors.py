"""Failures as answers: three lines for a person, one document for a program, one exit status for both."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import click

from memkeep.cli.face import Face
from memkeep.errors import MemkeepError, WrongKeyError, quoted

INTERRUPTED = 130
TRACEBACK = "MEMKEEP_TRACEBACK"
# The values of a positional argument stand in the rest of click's sentence once more.
_CHOICE = re.compile(r" for '\{[^}]*\}'| '\{[^}]*\}'")


class Failure(NamedTuple):
    """What went wrong, as both a person and a program are told."""

    code: str
    message: str
    unchanged: str
    hint: str
    exit: int


def report(face: Face, error: BaseException) -> int:
    """Tell of a failure where the command line asked for it, and return the exit status."""
    failure = explain(face, error)
    failure = failure._replace(hint=face.runnable(failure.hint))
    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exception(error)
    if face.json and _documented(face, failure):
        return failure.exit
    _told(failure)
    _let_go()
    return failure.exit


def explain(face: Face, error: BaseException) -> Failure:
    """Return what to say of an exception."""
    if face.typed and isinstance(error, WrongKeyError) and error.code == "wrong_key":
        return Failure(error.code, str(error), error.unchanged, _again(face), error.exit)
    if isinstance(error, MemkeepError):
        return Failure(error.code, str(error), error.unchanged, error.hint or _help(face), error.exit)
    if isinstance(error, click.ClickException):
        return Failure("usage", _sentence(error), "Nothing was changed.", _usage_hint(face, error), 2)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Failure(
            "interrupted",
            "interrupted",
            "Earlier snapshots are whole; nothing half-made is listed.",
            _again(face),
            INTERRUPTED,
        )
    if isinstance(error, OSError):
        return Failure("system", _system(error), _unknown(), _look(error), 1)
    return Failure("internal", f"an error in memkeep: {type(error).__name__}: {error}", _unknown(), _traced(face), 1)


def _documented(face: Face, failure: Failure) -> bool:
    """Print the failure as a document; False when standard output takes none."""
    from memkeep.cli.output import abandon_stdout, document, finish

    code, message, unchanged, hint, status = failure
    error = {"code": code, "message": message, "hint": hint, "exit": status, "unchanged": unchanged}
    try:
        document({"schema": face.schema, "ok": False, "error": error})
        finish(sys.stdout)
    except OSError:
        abandon_stdout()
        return False
    return True


def _let_go() -> None:
    """Leave nothing in standard output that the interpreter would fail to write at its end."""
    from memkeep.cli.output import abandon_stdout, finish

    try:
        finish(sys.stdout)
    except OSError:
        abandon_stdout()


def _told(failure: Failure) -> None:
    """Print the failure as three lines on standard error."""
    from memkeep.cli.output import Printer, Span, finish

    out = Printer(sys.stderr)
    try:
        out.line(Span("Error: ", "bad"), _flat(failure.message))
        out.line(_flat(failure.unchanged))
        out.line(Span("Next: ", "dim"), _flat(failure.hint))
        finish(sys.stderr)
    except OSError:
        return  # no one is left to tell; the exit status still says it


def _flat(text: str) -> str:
    return " ".join(text.split())


def _sentence(error: click.ClickException) -> str:
    """Return click's message in the manner of our own: no capital, no full stop."""
    text = _flat(error.format_message()).removesuffix(".").replace("a valid integer range", "a whole number")
    text = _CHOICE.sub("", text)
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _usage_hint(face: Face, error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchCommand) and error.possibilities:
        return f"memkeep {error.possibilities[0]} --help"
    return _help(face)


def _help(face: Face) -> str:
    return f"memkeep {face.verb} --help" if face.verb else "memkeep --help"


def _again(face: Face) -> str:
    import shlex

    return shlex.join(["memkeep", *face.argv])


def _traced(face: Face) -> str:
    return f"{TRACEBACK}=1 {_again(face)}"


def _system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason}: {error.filename}" if error.filename else reason


def _look(error: OSError) -> str:
    """Return the command that shows what the system's refusal is about."""
    if not isinstance(error.filename, str):
        return "memkeep status"
    folder = quoted(Path(error.filename).parent)
    return f"df -h {folder}" if error.errno in {errno.ENOSPC, errno.EDQUOT} else f"ls -ld {folder}"


def _unknown() -> str:
    return "What was begun may be unfinished; earlier snapshots are whole."

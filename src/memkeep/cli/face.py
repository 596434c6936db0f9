"""What a verb is given (`Face`) and what it gives back (`Reply`)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memkeep.cli.output import Printer

REMARK = "   # "  # between a command and what is said of it; a shell takes both
VAULTLESS = frozenset(("demo", "discover", "completion", "--help"))


class Face:
    """What the command line said about where and how, beside the verb's own words."""

    __slots__ = ("argv", "config", "json", "password_command", "password_file", "quiet", "typed", "vault", "verb")

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.verb: str | None = None
        # Wanted even when the rest of the line can't be understood: the error must be JSON too.
        self.json = "--json" in (argv[: argv.index("--")] if "--" in argv else argv)
        self.quiet = False
        self.typed = False  # whether the password was asked for on the terminal
        self.vault: str | None = None
        self.password_file: str | None = None
        self.password_command: str | None = None
        self.config: str | None = None

    @property
    def schema(self) -> str:
        """Name and version of the document that `--json` prints."""
        return f"memkeep/{self.verb or 'error'}/1"

    def runnable(self, command: str) -> str:
        """Return a command as it must be typed here: with the vault, settings and password that were given so far."""
        words = command.split()
        if words[:2] == ["pip", "install"]:
            return _of_this_python(command)
        flags = {
            "--vault": self.vault,
            "--config": self.config,
            "--password-file": self.password_file,
            "--password-command": self.password_command,
        }
        given = [(flag, text) for flag, text in flags.items() if text and text != "-"]
        # What names a vault or a password itself may mean others than were given so far.
        if words[:1] != ["memkeep"] or VAULTLESS.intersection(words) or "--vault" in words:
            return command
        if flags.keys() & words:
            given = [(flag, text) for flag, text in given if flag not in words and "password" not in flag]
        from shlex import quote

        line, gap, remark = command.partition(REMARK)
        added = "".join(f" {flag} {quote(text)}" for flag, text in given)
        return f"{line}{added}{gap}{remark}"


def _of_this_python(command: str) -> str:
    """Return a command of pip as it must be typed for the Python that runs: the one on the PATH may be another's."""
    import sys
    from pathlib import Path
    from shlex import quote
    from shutil import which

    found = which("pip")
    own = found is not None and Path(found).parent == Path(sys.executable).parent
    return command if own else f"{quote(sys.executable)} -m {command}"


class Reply:
    """What a verb did: the result for programs, the same for people, and the exit status.

    `result` is a `msgspec.Struct` or plain values; `render` writes it for a person and is called only for one.
    """

    __slots__ = ("exit", "render", "result")

    def __init__(self, result: Any, render: Callable[["Printer"], None], *, exit: int = 0) -> None:
        self.result = result
        self.render = render
        self.exit = exit


class Answered(Exception):  # noqa: N818 - help and version are answers, not errors
    """Ends the parsing of a command line early, with a reply (`--help`, `--version`)."""

    def __init__(self, reply: Reply, schema: str) -> None:
        super().__init__(schema)
        self.reply = reply
        self.schema = schema

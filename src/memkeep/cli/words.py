"""The verbs as click commands: loaded when used, with the options that stand before or after any verb."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from memkeep.cli.face import Answered, Face, Reply
from memkeep.cli.table import SECTIONS, VERBS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EVERYWHERE = "Everywhere"


def face_of(ctx: click.Context) -> Face:
    """Return the face of a command line; a fresh one where there is none (shell completion)."""
    return ctx.find_object(Face) or Face([])


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option in the face; the one nearest to the end of the line wins."""
    if value == "":
        raise click.BadParameter("it is empty", ctx=ctx, param=param)
    if value and param.name:
        setattr(face_of(ctx), param.name, value)


def _answer(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """End the parsing with the help page or the version."""
    if not value or ctx.resilient_parsing:
        return
    if param.name == "version":
        from memkeep import __version__

        raise Answered(
            Reply({"version": __version__}, lambda out: out.line(f"memkeep {__version__}")), "memkeep/version/1"
        )
    page = ctx.get_help()
    raise Answered(Reply({"help": page}, lambda out: out.block(page)), "memkeep/help/1")


class Shared(click.Option):
    """An option of every verb."""


def _shared() -> list[click.Parameter]:
    def option(*names: str, **more: Any) -> click.Option:
        return Shared(names, expose_value=False, callback=_remember, **more)

    return [
        option("--json", is_flag=True, help="Print exactly one JSON document."),
        option("--quiet", "-q", is_flag=True, help="No progress and no advice."),
        option(
            "--vault", type=click.Path(), metavar="PLACE", help="The vault: a folder or a URL.  [env: MEMKEEP_VAULT]"
        ),
        option(
            "--password-file", type=click.Path(allow_dash=True), metavar="FILE", help="Take the password from a file."
        ),
        option("--password-command", metavar="CMD", help="Take the password from what a command prints."),
        option("--config", type=click.Path(), metavar="FILE", help="Settings to use instead of the user's own."),
        click.Option(
            ["--help", "-h"], is_flag=True, is_eager=True, expose_value=False, callback=_answer, help="Show this page."
        ),
    ]


class Verb(click.Command):
    """One verb: its own options, then those of every verb, then an example."""

    def __init__(self, *args: Any, example: str, **more: Any) -> None:
        more.update(context_settings=SETTINGS, add_help_option=False)
        super().__init__(*args, **more)
        self.example = example
        self.params.extend(_shared())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verb's own options and the shared ones as two lists."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example as it would be typed."""
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{self.example}\n")


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    own = [param.get_help_record(ctx) for param in options if not _is_shared(param)]
    shared = [param.get_help_record(ctx) for param in options if _is_shared(param)]
    for title, records in (("Options", own), (EVERYWHERE, shared)):
        rows = [record for record in records if record]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _is_shared(param: click.Option) -> bool:
    return isinstance(param, Shared) or param.name == "help"


def verb(*, example: str) -> Callable[[Callable[..., Reply]], Verb]:
    """Make a function the verb that its module is named after; its docstring is the help."""

    def decorate(function: Callable[..., Reply]) -> Verb:
        name = function.__module__.rpartition(".")[2]
        return click.command(name, cls=Verb, example=example)(click.pass_obj(function))

    return decorate


class Root(click.Group):
    """`memkeep` itself. Its verbs stand in a table; a module is imported when its verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help page."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"memkeep.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that a word names; the error for any other word names the nearest."""
        if args[0] not in VERBS and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx)
        if args[0] in VERBS:
            face_of(ctx).verb = args[0]
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, then the options."""
        width = max(map(len, VERBS))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), help_) for name, help_ in verbs.items()])
        _write_options(self, ctx, formatter)


def root() -> Root:
    """Return the whole command line."""
    version = click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_answer, help="Show the version."
    )
    return Root(
        "memkeep",
        params=[*_shared(), version],
        add_help_option=False,
        context_settings=SETTINGS,
        invoke_without_command=True,
        subcommand_metavar="VERB ...",
        callback=_bare,
        help="Keep the memory of AI agents safe: back it up, prove the backup, bring it back, show what changed.\n\n"
        "Without a verb: the status, or what was found and what to do next.",
    )


@click.pass_context
def _bare(ctx: click.Context) -> Reply | None:
    """Answer `memkeep` without a verb as `memkeep status` does."""
    if ctx.invoked_subcommand:
        return None
    face = face_of(ctx)
    face.verb = "status"
    from memkeep.cli.commands.status import report

    return report(face)


class SnapshotName(click.ParamType[str]):
    """The name of a snapshot: `latest`, or any unique beginning of its id."""

    name = "snapshot"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[str]]":
        """Offer the one name that needs no vault to be opened."""
        from click.shell_completion import CompletionItem

        return [CompletionItem("latest")] if "latest".startswith(incomplete) else []


SNAPSHOT = SnapshotName()

"""`memkeep completion`."""

import click

from memkeep.cli.face import Face, Reply
from memkeep.cli.words import root, verb


@verb(example='eval "$(memkeep completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), help="Your shell.")
def command(_face: Face, *, shell: str) -> Reply:
    """Print the completion script of a shell.

    Put the example's line into the start-up file of bash, or of zsh with its name in place of bash. Fish reads the
    script from ~/.config/fish/completions/memkeep.fish.
    """
    from click.shell_completion import get_completion_class

    from memkeep.cli.main import COMPLETE
    from memkeep.cli.results import Completion

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}", ctx=click.get_current_context())
    maker = kind(root(), {}, "memkeep", COMPLETE)
    script = maker.source_template % maker.source_vars()
    return Reply(Completion(shell=shell, script=script), lambda out: out.block(script))

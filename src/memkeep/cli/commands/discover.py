"""`memkeep discover`."""

import shlex

import click

from memkeep.amounts import count
from memkeep.cli.face import Face, Reply
from memkeep.cli.output import Printer
from memkeep.cli.words import verb


@verb(example="memkeep discover ~/.openclaw --json")
@click.argument("paths", nargs=-1, type=click.Path(), metavar="[PATH]...", help="Folders, files or URLs to look at.")
def command(face: Face, *, paths: tuple[str, ...]) -> Reply:
    """Find the stores of agent memory, changing nothing.

    Without PATH the products' own places are looked at, and what OpenClaw's settings name.
    """
    from memkeep.cli.results import Discovered, store_row
    from memkeep.cli.views import show_findings, show_omissions, show_store
    from memkeep.cli.wiring import find_stores, has_vault, settings

    config = settings(face)
    stores = find_stores(paths, config)

    def render(out: Printer) -> None:
        for store in stores:
            show_store(out, store)
            parts = [(f"    {part.name or '.'}", part.engine, part.role.value) for part in store.parts]
            out.table(("    part", "engine", "role"), parts)
            show_omissions(out, store.omitted)
            show_findings(out, store.findings)
            out.line()
        if stores:
            out.advice(f"{count(len(stores), 'store')} found.")
            taking = shlex.join(["memkeep", "backup", *paths])
            out.next(taking if has_vault(face, config) else "memkeep init")
        else:
            out.line("No store of agent memory was found.")
            out.next("memkeep discover PATH")

    return Reply(Discovered(stores=[store_row(store) for store in stores]), render)

"""Stop a product while its store is frozen, and start it again, whatever happens.

For those who want it: `stop` and `start` in `[stores.NAME]`, such as `docker compose stop api`. The product stands
still only until all parts are held. A guard in a process of its own starts it when memkeep is killed in between.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memkeep.errors import StoreError
from memkeep.model import Finding, Hooks, Severity

_GUARD = 'read -r done || exec sh -c "$1"'  # at the end of its input without a word: nobody else will start it
_TAIL = 300  # characters of what a command said


@contextmanager
def stopped(hooks: Hooks | None, folder: Path, findings: list[Finding]) -> Iterator[None]:
    """Run `stop`, and `start` at exit; both by `sh`, in the store's folder.

    Raises `StoreError` when `stop` fails; the product is started again then too. A `start` that fails is a finding.
    """
    if hooks is None:
        yield
        return
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "memkeep", hooks.start],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what interrupts memkeep does not interrupt it
        text=True,
    )
    try:
        if said := _run(hooks.stop, folder):
            raise StoreError(f"`{hooks.stop}` failed: {said}", unchanged="Nothing was backed up.", hint=hooks.stop)
        yield
    finally:
        if said := _run(hooks.start, folder):
            findings.append(
                Finding(
                    code="not_started",
                    severity=Severity.ERROR,
                    message=f"the product was stopped for the backup, and `{hooks.start}` failed: {said}",
                    mend=hooks.start,
                )
            )
        guard.communicate("done\n")


def _run(command: str, folder: Path) -> str:
    """Run a command; return what it said when it failed, else nothing."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if not done.returncode:
        return ""
    return done.stdout.strip()[-_TAIL:] or f"exit status {done.returncode}"

"""Progress for people: bars on standard error, only on a terminal that can show them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memkeep.cli.face import Face
from memkeep.cli.output import clean
from memkeep.events import SILENT, Events, Silent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def listening(face: Face, tell: Callable[[str], None] | None = None) -> Iterator[Events]:
    """Give a listener that shows progress where someone can see it.

    With `tell` the notes go there, terminal or not; else they stand above the bar. `--json` and `--quiet` hear nothing.
    """
    if face.json or face.quiet:
        yield SILENT
    elif sys.stderr.isatty():
        bars = Bars(tell)
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield Teller(tell) if tell else SILENT


class Teller(Silent):
    """Passes notes on, and nothing else."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def note(self, text: str) -> None:
        """Pass a note on."""
        self._tell(text)


class Bars:
    """One bar for the present step; it goes away when the work is done. Nothing is imported before the first step."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def step(self, name: str, total: int | None = None) -> None:
        """Replace the bar by one for the next step."""
        progress = self._started()
        if self._task is not None:
            progress.remove_task(self._task)
        self._task = progress.add_task(clean(name), total=total)

    def advance(self, amount: int = 1) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Pass the note on while there is no bar in the way, or write it above the bar."""
        if self._tell is not None:
            self.close()
            self._tell(text)
        else:
            self._started().console.print(clean(text), markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away; the next step brings a new one."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def _started(self) -> "Progress":
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self._progress

"""Progress for people: bars on standard error, only on a terminal that can show them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memkeep.cli.face import Face
from memkeep.cli.output import clean
from memkeep.events import SILENT, Events

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def listening(face: Face) -> Iterator[Events]:
    """Give a listener that shows progress where someone can see it, and a silent one elsewhere."""
    if face.json or face.quiet or not sys.stderr.isatty():
        yield SILENT
        return
    bars = Bars()
    try:
        yield bars
    finally:
        bars.close()


class Bars:
    """One bar for the present step; it goes away when the work is done. Nothing is imported before the first step."""

    def __init__(self) -> None:
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
        """Write a line above the bar."""
        self._started().console.print(clean(text), markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()

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

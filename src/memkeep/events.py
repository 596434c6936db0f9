"""What a long operation tells of its progress, and to whom: a face gives the listener, the default hears nothing."""

from typing import Protocol


class Events(Protocol):
    """Hears of progress. Methods return at once, never fail, and may be called from several threads."""

    def step(self, name: str, total: int | None = None) -> None:
        """Begin the next step, a few words; `total` is its amount of work (bytes, rows, objects) if known.

        A step ends when the next one begins or the operation ends.
        """
        ...

    def advance(self, amount: int = 1) -> None:
        """Add to what is done of the present step."""
        ...

    def note(self, text: str) -> None:
        """Say one thing worth reading now."""
        ...


class Silent:
    """Hears everything and says nothing."""

    def step(self, name: str, total: int | None = None) -> None:
        """Ignore a step."""

    def advance(self, amount: int = 1) -> None:
        """Ignore an advance."""

    def note(self, text: str) -> None:
        """Ignore a note."""


SILENT: Events = Silent()

"""The contract of a provider: texts in, vectors out.

├── TextRefusedError     the provider takes not this text (or one of these): another one it may
├── TryLaterError        it did not do it now: worth another try, with `after` not before so many seconds
└── EmbedderError        it will not do it at all: the address, the key or the model is wrong (errors.py)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from memkeep.embedding.pace import Pace

if TYPE_CHECKING:
    import numpy as np


class TextRefusedError(Exception):
    """A text, or one of several, is not taken: too long, most often."""


class TryLaterError(Exception):
    """Nothing came of a request, and another try may do better.

    `after` are the seconds that the provider asked for; `busy` says that the texts had no part in it.
    """

    def __init__(self, reason: str, *, after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.busy = busy or after is not None


class Provider(Protocol):
    """What makes vectors of texts with one model. May be called from several threads at a time."""

    name: str  # `ollama`, `openai`, `local`
    model: str
    identity: str
    """Names the model so exactly that vectors of one identity may be mixed: the address, or the model's own bytes."""

    pace: Pace
    """What its requests wait for."""

    def embed(self, texts: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return one row of float32 for each text, in order, all of them finite and none of zeros only.

        Raises `TextRefusedError`, `TryLaterError`, `EmbedderError` and `pace.StoppedError`. Retries nothing.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...

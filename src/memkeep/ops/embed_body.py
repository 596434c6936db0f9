"""The contract of what vectors are made for: a live store, or the folder of an export."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from memkeep.embedding.base import Provider
from memkeep.embedding.journal import Journal
from memkeep.events import Events
from memkeep.ops.embed_texts import Text
from memkeep.ops.embed_write import Written


class Body(Protocol):
    """What has texts and takes their vectors."""

    @property
    def path(self) -> str:
        """Return where it is."""
        ...

    @property
    def system(self) -> str:
        """Return which product's it is."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Return what it says of itself."""
        ...

    def texts(self) -> Iterator[tuple[str, Text]]:
        """Yield all texts, each with the name of its place. Called more than once."""
        ...

    def sizes(self) -> Counter[int]:
        """Return which sizes of vectors it takes, if not any."""
        ...

    def keep(self, events: Events) -> tuple[str | None, str | None]:
        """Keep what it is now; return the snapshot's id, and the command that goes back to it."""
        ...

    def write(
        self,
        journal: Journal,
        provider: Provider,
        refused: Mapping[bytes, str],
        *,
        every: bool,
        kept: str | None,
        events: Events,
    ) -> Written:
        """Write the vectors of the journal, all or none; `refused` says why a text has none there."""
        ...

"""A live store as what vectors are made for."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from memkeep import clock
from memkeep.embedding.base import Provider
from memkeep.embedding.journal import Journal
from memkeep.engines.catalog import engine
from memkeep.engines.rows import RowEngine
from memkeep.errors import StoreError
from memkeep.events import Events
from memkeep.model import Store
from memkeep.ops.embed_texts import Text, opened, places
from memkeep.ops.embed_write import Writing, Written
from memkeep.ops.in_server import park
from memkeep.vault.vault import Vault

_ANY_SIZE = frozenset({"sqlite"})  # engines whose columns take vectors of any size


class StoreBody:
    """The texts of a live store; an `embed.Body`."""

    def __init__(self, store: Store, vault: Vault | None) -> None:
        """`vault` is where a snapshot of it goes first. Raises `StoreError` for a store without such vectors."""
        self._store = store
        self._vault = vault
        self._places = places(store)
        if not self._places:
            raise StoreError(
                f"{store.path} ({store.system}) has no vectors that can be made outside its product",
                hint=f"memkeep discover {shlex.quote(store.path)}",
            )

    @property
    def path(self) -> str:
        """Where it is."""
        return self._store.path

    @property
    def system(self) -> str:
        """Which product's it is."""
        return self._store.system

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What it says of itself."""
        return self._store.fingerprint

    def texts(self) -> Iterator[tuple[str, Text]]:
        """Yield all texts, at one moment, each with the name of its place."""
        with opened(self._store, self._places) as opening:
            for place in self._places:
                for one in opening.texts(place):
                    yield place.name, one

    def sizes(self) -> Counter[int]:
        """Return the sizes of vectors that its tables take, where they take one."""
        found: Counter[int] = Counter()
        for place in self._places:
            made = engine(place.part.engine)
            if place.part.engine not in _ANY_SIZE and isinstance(made, RowEngine):
                columns = made.columns(place.part, place.map.table)
                found[columns.vectors.get(place.vector, 0) if columns else 0] += 1
        del found[0]
        return found

    def keep(self, events: Events) -> tuple[str | None, str | None]:
        """Take a snapshot; return its id, and the command that goes back to it."""
        if self._vault is None:
            return None, None
        kept = park(self._vault, self._store, events)
        return kept, f"memkeep restore {kept[:12]} --in-place --confirm={self.system}" if kept else None

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
        """Write the vectors of the journal. Raises `StoreError`; all or nothing."""
        return Writing(self._store, journal, provider.identity, refused).write(
            self._places,
            every=every,
            provider=provider.name,
            model=provider.model,
            now=int(clock.now().timestamp()),
            kept=kept,
            events=events,
        )

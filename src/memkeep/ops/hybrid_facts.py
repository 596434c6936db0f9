"""Tell which facts of a live openclaw-hybrid store those of its own export are: that has eight digits of each id."""

from collections.abc import Iterator
from typing import Any

import msgspec

from memkeep.model import Store
from memkeep.ops import records
from memkeep.records.formats.base import About, Source
from memkeep.records.record import Record, Relationship

_DIGITS = 8


class Recognised:
    """A source in which a fact that the store has is that fact, with what the export says of it.

    Its times, scope, links and further tags, which no export has, stay as they are. Where several have the same eight
    digits none is taken for it.
    """

    def __init__(self, source: Source, store: Store) -> None:
        """Read the store, without vectors."""
        self._source = source
        self._known: dict[tuple[str, str], Record | None] = {}
        with records.of_store(store, filters=records.Filters(vectors=False)) as there:
            for one in there.records():
                name = one.collection, one.id[:_DIGITS]
                self._known[name] = None if name in self._known else one

    @property
    def about(self) -> About:
        """Where the records are from."""
        return self._source.about

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        for made in self._source.records():
            known = self._known.get((made.collection, made.id[:_DIGITS]))
            yield made if known is None else _with(known, made)

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them: nothing is in an export."""
        return self._source.relationships()


def _with(known: Record, made: Record) -> Record:
    said: dict[str, Any] = {"text": made.text, "category": made.category or known.category}
    if made.tags[:1] != known.tags[:1]:  # the export has no more than the first
        said["tags"] = made.tags
    more = {key: value for key, value in made.metadata.items() if key in known.metadata or made.primary}
    return msgspec.structs.replace(known, **said, metadata=known.metadata | more)

"""What products say of the model that makes their vectors: the one built in, and where they write its name down."""

from collections.abc import Sequence
from typing import Any

from memkeep.model import TableMap, Value
from memkeep.systems import oc_memory, openclaw_hybrid

_USUAL = {
    # Written into its code: github.com/sam-ueckert/oc-memory, commit 5738c61.
    oc_memory.name: ("ollama", "nomic-embed-text"),
}


class ModelColumn(Value):
    """A column that names the model of each record's vector."""

    collection: str
    column: str


class ModelRow(Value):
    """A row that names the model of all vectors."""

    beside: str  # the collection in whose part it is
    map: TableMap
    row: dict[str, Any]


def usual(system: str) -> tuple[str, str] | None:
    """Return the provider and the model that a product has built in; None when that is up to its user."""
    return _USUAL.get(system)


def model_columns(system: str) -> tuple[ModelColumn, ...]:
    """Return the columns that name a model."""
    return (ModelColumn(collection="facts", column="embedding_model"),) if system == openclaw_hybrid.name else ()


def model_rows(system: str, provider: str, model: str, now: int) -> Sequence[ModelRow]:
    """Return the rows that name the model, as they are for this one; `now` are epoch seconds."""
    if system != openclaw_hybrid.name:
        return []
    map_ = TableMap(collection="embedding_meta", table="embedding_meta", id="id", primary=False)
    return [ModelRow(beside="facts", map=map_, row={"id": 1, "provider": provider, "model": model, "updated_at": now})]

"""The portable record: one memory, or what joins two, as it leaves one product and enters another.

What a product has no portable name for is in `metadata` under the product's own name. A raw value that the portable
one does not give back (milliseconds in a column of seconds) is in `native`, so that the way back to the same product
is exact; other products ignore it.
"""

from typing import Any, Literal

from memkeep.model import Value

VectorType = Literal["f16", "f32", "f64", "sparse", "multi"]


class Vector(Value, kw_only=True, omit_defaults=True):
    """An embedding: bytes, not numbers, so that nothing is rounded on the way.

    `data` is little-endian: the elements as `type` says; of a sparse one the indices as u32 and then as many float32;
    of a multi-vector its rows of `dims` float32 one after another.
    """

    data: bytes
    type: VectorType = "f32"
    dims: int  # of a sparse one the number of its elements
    model: str | None = None  # as the product spells it; None where nobody says

    @staticmethod
    def f32(data: bytes, model: str | None = None) -> "Vector":
        """Return a vector of float32."""
        return Vector(data=data, dims=len(data) // 4, model=model)


class Record(Value, kw_only=True, omit_defaults=True):
    """One memory. Times are ISO-8601 texts in UTC where the product's value is a time; None where there is none."""

    id: str
    text: str
    collection: str = "memories"  # the product's name for its kind of record: `facts`, `cells`, `episodes`
    primary: bool = True  # False: not a memory itself but what a product keeps beside them
    category: str | None = None
    scope: str | None = None
    user: str | None = None
    agent: str | None = None
    session: str | None = None
    source: str | None = None
    title: str | None = None
    summary: str | None = None
    tags: tuple[str, ...] = ()
    importance: float | None = None  # 0 to 1, as products have it
    confidence: float | None = None
    heat: float | None = None
    access_count: int | None = None
    status: str | None = None  # active, superseded, archived, deleted; else the product's own word
    created_at: str | None = None
    updated_at: str | None = None
    last_accessed_at: str | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    expires_at: str | None = None
    superseded_by: str | None = None
    supersedes: str | None = None
    metadata: dict[str, Any] = {}  # str, int, float, bool, None, bytes, lists and dicts of these
    vectors: dict[str, Vector] = {}  # by name; "" is the only or main one
    native: dict[str, Any] = {}
    system: str = ""  # the product that it is from


class Relationship(Value, kw_only=True, omit_defaults=True):
    """What joins two records."""

    source: str  # id of a record
    target: str
    type: str
    id: str | None = None
    collection: str = "relationships"
    strength: float | None = None
    created_at: str | None = None
    updated_at: str | None = None
    metadata: dict[str, Any] = {}
    native: dict[str, Any] = {}
    system: str = ""


Portable = Record | Relationship
TIMES = ("created_at", "updated_at", "last_accessed_at", "valid_from", "valid_until", "expires_at")
"""Fields of a record that are times."""

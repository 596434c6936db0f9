"""What a snapshot says about its records at a glance: how many of which category and scope, the oldest and newest."""

from collections.abc import Sequence
from typing import Any

from memkeep.model import PartImage
from memkeep.records.times import to_iso


def summarise(images: Sequence[PartImage]) -> dict[str, Any]:
    """Add up what the engines counted for the primary collections.

    Gives {"categories": {name: n}, "scopes": {name: n}, "oldest": ISO or None, "newest": ISO or None, "collections":
    {name: rows}, "vectors": {"<part>:<table>.<column>": {"count", "dims": {"768": n}, "missing"}}}.
    """
    categories: dict[str, int] = {}
    scopes: dict[str, int] = {}
    times: list[str] = []
    collections: dict[str, int] = {}
    vectors: dict[str, Any] = {}
    for image in images:
        facts = image.baseline.facts.get("summary", {})
        for stored in image.collections:
            name = stored.map.collection
            collections[name] = collections.get(name, 0) + stored.rows
            if stored.map.primary and name in facts:
                _add(categories, facts[name].get("category", {}))
                _add(scopes, facts[name].get("scope", {}))
                unit = stored.map.times.get("created_at", "iso")
                ends = (facts[name].get("oldest"), facts[name].get("newest"))
                times += [iso for raw in ends if (iso := to_iso(raw, unit)) is not None]
        for column, counted in image.baseline.facts.get("vectors", {}).items():
            vectors[f"{image.part.name}:{column}"] = counted
    return {
        "categories": categories,
        "scopes": scopes,
        "oldest": min(times, default=None),
        "newest": max(times, default=None),
        "collections": collections,
        "vectors": vectors,
    }


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count

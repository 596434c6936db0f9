"""`memory.jsonl` of the MCP reference server for memory: entities and relations, one a line.

An entity is one record: its name is the id, its observations are the text, one a line, and stand in the metadata as
they are. Relations name entities.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memkeep.records.readers.base import Read, Refused, UnfitError
from memkeep.records.readers.json_stream import lines, portables
from memkeep.records.record import Portable, Record, Relationship

name = "mcp-memory"


def fits(path: Path) -> bool:
    """Say whether the first line of a file is an entity or a relation."""
    if not path.is_file() or path.suffix not in {".json", ".jsonl"}:
        return False
    first = next(iter(lines(path)), None)
    if first is None or isinstance(first, Refused) or not isinstance(first.value, dict):
        return False
    keys = {"entity": "entityType", "relation": "relationType"}
    return keys.get(str(first.value.get("type"))) in first.value


def read(path: Path) -> Iterator[Read]:
    """Yield entities as records and relations as relationships."""
    return portables(lines(path), {"": _portable})


def _portable(said: Any) -> Portable:
    kind = said.get("type") if isinstance(said, dict) else None
    if kind == "entity":
        identity, observations = said.get("name"), said.get("observations", [])
        if not isinstance(identity, str) or not isinstance(said.get("entityType", ""), str):
            raise UnfitError("no entity: `name` or `entityType` is no text")
        if not isinstance(observations, list) or not all(isinstance(each, str) for each in observations):
            raise UnfitError("no entity: `observations` is no list of texts")
        rest = {key: value for key, value in said.items() if key not in {"type", "name", "entityType"}}
        return Record(
            id=identity,
            text="\n".join(observations) or identity,
            title=identity,
            category=said.get("entityType"),
            collection="entities",
            metadata=rest,
            system=name,
        )
    if kind == "relation":
        ends = [said.get(key) for key in ("from", "to", "relationType")]
        if not all(isinstance(each, str) for each in ends):
            raise UnfitError("no relation: `from`, `to` or `relationType` is no text")
        rest = {key: value for key, value in said.items() if key not in {"type", "from", "to", "relationType"}}
        source, target, relation = ends
        return Relationship(
            source=source, target=target, type=relation, collection="relations", metadata=rest, system=name
        )
    raise UnfitError("neither an entity nor a relation")

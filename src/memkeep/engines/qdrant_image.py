"""The image of a Qdrant collection: what is in it, and where.

    <part>/collection.json      what a server must know to have the collection again
    <part>/shards/<n>/...       the files of each shard's snapshot, as the server sent them, unpacked

Packed as a tar, `shards/<n>` can be sent to `POST /collections/{c}/shards/{n}/snapshots/upload` of a collection that
was made with the `config`.
"""

from pathlib import Path
from typing import Any

import msgspec

from memkeep.errors import DamagedError
from memkeep.model import Value

NAME = "collection.json"
SHARDS = "shards"


class ShardImage(Value):
    """One shard of the image."""

    id: int
    key: str | int | None = None  # of a collection that is sharded by keys of its own
    deleted: tuple[int | str, ...] = ()  # points that its files still have though they had been deleted


class CollectionImage(Value):
    """What `collection.json` says."""

    collection: str
    version: str  # of the server
    config: dict[str, Any]  # as the server describes the collection
    indexes: dict[str, Any]  # payload key -> its index, as it is asked for
    aliases: tuple[str, ...] = ()
    shards: tuple[ShardImage, ...] = ()
    missing: tuple[int, ...] = ()  # shards that could not be read
    format: int = 1

    @property
    def vectors(self) -> dict[str, Any]:
        """The plain and multiple vectors by name, "" for the unnamed one."""
        return vectors_of(self.config)


def vectors_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the vectors by name, "" for the unnamed one."""
    found = config["params"].get("vectors") or {}
    return {"": found} if "size" in found and not isinstance(found["size"], dict) else found


def at_most(config: dict[str, Any], points: int, limit: str) -> int:
    """Return how many points one request may be about, of those that are wanted: a strict collection has limits."""
    strict = config.get("strict_mode_config") or {}
    return min(points, (strict.get("enabled") and strict.get(limit)) or points)


def write(folder: Path, image: CollectionImage) -> None:
    """Write `collection.json`, the same bytes for the same collection."""
    raw = msgspec.json.encode(image, order="sorted")
    (folder / NAME).write_bytes(msgspec.json.format(raw, indent=2))


def read(folder: Path) -> CollectionImage:
    """Read `collection.json`; raises `DamagedError`."""
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=CollectionImage)
    except (OSError, msgspec.MsgspecError) as error:
        raise DamagedError(f"{folder / NAME} is not what describes a Qdrant collection: {error}") from error


def shard_folder(folder: Path, shard: int) -> Path:
    """Return where the files of a shard lie."""
    return folder / SHARDS / str(shard)

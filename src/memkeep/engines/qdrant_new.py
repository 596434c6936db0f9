"""Make a new, empty collection of Qdrant: in a server, or in a folder of its local mode."""

import json
from pathlib import Path
from typing import Any

from memkeep.engines import sqlite_new
from memkeep.engines.qdrant_http import Server, address
from memkeep.engines.qdrant_image import vectors_of
from memkeep.engines.qdrant_rebuild import existing
from memkeep.errors import RefusedError, StoreError, quoted

# As qdrant-client's local mode makes it (qdrant_client/local/persistence.py).
_POINTS = "CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB);"


def is_there(url: str, dims: int) -> bool:
    """Say whether there is an empty collection whose unnamed vector takes `dims` dimensions.

    Raises `RefusedError` (`target_exists`) for another one, or one with points in it.
    """
    with Server(address(url)) as server:
        if existing(server) is None:
            return False
        vectors = vectors_of(server.get(server.where.path)["config"])
        size = vectors[""]["size"] if "" in vectors else None
        other = "of another kind" if size is None else f"takes vectors of {size} dimensions, not of {dims}"
        if size != dims or _count(server):
            raise RefusedError(
                f"{url} is there already, and {'not empty' if size == dims else other}",
                hint=f"memkeep discover {quoted(url)}",
                code="target_exists",
            )
        return True


def create(url: str, settings: dict[str, Any]) -> None:
    """Make a collection in a server. Raises `StoreError`."""
    with Server(address(url)) as server:
        server.send("PUT", server.where.path, settings)


def drop_empty(url: str) -> bool:
    """Drop a collection if nothing is in it; say whether it is gone. Raises `StoreError`."""
    with Server(address(url)) as server:
        if _count(server):
            return False
        server.send("DELETE", server.where.path)
    return True


def _count(server: Server) -> int:
    return int(server.send("POST", f"{server.where.path}/points/count", {"exact": True})["count"])


def create_local(folder: Path, collection: str, settings: dict[str, Any]) -> Path:
    """Make a folder of the local mode with one collection; return the database of its points."""
    if folder.exists():
        raise RefusedError(f"there is something at {folder} already", hint=f"ls {quoted(folder)}", code="target_exists")
    file = folder / "collection" / collection / "storage.sqlite"
    sqlite_new.create(file, _POINTS)
    try:
        (folder / "meta.json").write_text(json.dumps({"collections": {collection: settings}, "aliases": {}}))
    except OSError as error:
        raise StoreError(f"{folder} can't be written: {error.strerror}", hint="df -h") from error
    return file

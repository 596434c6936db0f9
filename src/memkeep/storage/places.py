"""From a path or URL to the storage that it names. To add a backend, write its module and name its scheme here."""

from importlib import import_module
from pathlib import Path

from memkeep.errors import UsageError
from memkeep.storage.base import Storage
from memkeep.storage.local import LocalStorage

SCHEMES: dict[str, str] = {
    "s3": "memkeep.storage.cloud",
    "gs": "memkeep.storage.cloud",
    "az": "memkeep.storage.cloud",
    "sftp": "memkeep.storage.sftp",
}
"""Scheme of a URL -> module with a function `connect(url) -> Storage`, imported when such a URL is met."""


def storage_at(place: str) -> Storage:
    """Return the storage that a path or URL names; nothing is asked of it yet.

    Raises `UsageError` for a scheme that no backend has, and what the backend raises for a URL that it can't take.
    """
    scheme, colon, rest = place.partition("://")
    if not colon or scheme == "file":
        return LocalStorage(Path(rest if colon else place).expanduser().absolute())
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in ("file", *SCHEMES))
        raise UsageError(
            f"memkeep can't reach {place}: it knows folders and {known}", hint="memkeep init --vault PLACE"
        )
    storage: Storage = import_module(SCHEMES[scheme]).connect(place)
    return storage

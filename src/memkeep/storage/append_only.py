"""A storage from which nothing is removed."""

import shlex

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities
from memkeep.storage.wrapper import StorageWrapper


class AppendOnlyStorage(StorageWrapper):
    """Refuses `delete`: with `put_new`, which never replaces, nothing that is there can be changed.

    This keeps memkeep itself from it. Against who takes over the machine only the storage's own rules help:
    credentials without the right to delete, and Object Lock.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the storage beneath can promise, save that nothing is removed."""
        return self._beneath.capabilities._replace(removes=False)

    def delete(self, key: str) -> None:
        """Refuse, with code `append_only`; `ObjectMissingError` when there is nothing to remove."""
        self._beneath.stat(key)
        raise StorageError(
            f"{key} is not removed from {self.url}: this machine's settings say append_only for it",
            hint=f"memkeep prune --vault {shlex.quote(self.url)}   # on a machine whose settings let it delete",
            code="append_only",
        )

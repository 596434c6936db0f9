"""Every error memkeep raises on purpose, grouped by what the caller would do about it.

    MemkeepError                 1   failed
    ├── UsageError               2   wrong words on the command line or in the config
    ├── VaultMissingError       10   there is no vault here
    ├── VaultLeasedError        11   someone else holds the vault
    ├── WrongKeyError           12   the password or key does not open the vault
    ├── RefusedError            13   the target exists, is live, or was not confirmed
    ├── PlanStaleError          14   the world moved since the plan was made
    ├── DamagedError            20   stored bytes are not what was written
    ├── StoreError               1   a source store cannot be found or read
    │   └── UnstableError        1   a source kept changing faster than it could be frozen
    ├── EmbedderError            1   what makes vectors of texts can't be asked, or answers nonsense
    ├── UnsupportedError         1   made by a newer version, or an extra is not installed
    └── StorageError             1   the vault's storage said no (full, denied, I/O)
        └── StorageUnreachableError  1   it did not answer, or asked to come later: worth another try

Each carries three lines for a person (what and which; what was not changed; the next command), a stable `code`
for programs and an exit status. Codes are only ever added.
"""

from typing import ClassVar

# The statuses that no error carries, since the verb did its work.
INCOMPLETE = 3  # finished, some of the source unread
PROBLEMS = 4  # finished, problems found


def quoted(text: object) -> str:
    """Return a path or other text as one word of a command that can be pasted into a shell."""
    from shlex import quote

    return quote(str(text))


class MemkeepError(Exception):
    """Something failed; `message` says what and which, `unchanged` what was (not) changed, `hint` the next command."""

    code: str = "failed"
    exit: ClassVar[int] = 1

    def __init__(
        self, message: str, *, unchanged: str = "Nothing was changed.", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.unchanged = unchanged
        self.hint = hint
        if code:
            self.code = code


class UsageError(MemkeepError):
    """The request itself is wrong."""

    code = "usage"
    exit = 2


class VaultMissingError(MemkeepError):
    """No vault lies at the given place."""

    code = "vault_missing"
    exit = 10


class VaultLeasedError(MemkeepError):
    """Another process holds the vault exclusively."""

    code = "vault_leased"
    exit = 11


class WrongKeyError(MemkeepError):
    """The given password or recovery key opens no key slot, or none was given."""

    code = "wrong_key"
    exit = 12


class RefusedError(MemkeepError):
    """The target exists, is live, or a dangerous thing was not confirmed."""

    code = "refused"
    exit = 13


class PlanStaleError(MemkeepError):
    """What the plan saw is no longer so."""

    code = "plan_stale"
    exit = 14


class DamagedError(MemkeepError):
    """Stored bytes are missing or are not what was written; `obj` is the vault object's key."""

    code = "damaged"
    exit = 20

    def __init__(
        self, message: str, *, obj: str = "", unchanged: str = "Nothing was changed.", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, unchanged=unchanged, hint=hint or "memkeep verify --all", code=code)
        self.obj = obj


class StoreError(MemkeepError):
    """A source store, or a part of it, cannot be found or read."""

    code = "store_unreadable"


class UnstableError(StoreError):
    """A part kept changing faster than one moment of it could be held."""

    code = "store_unstable"


class UnsupportedError(MemkeepError):
    """The format is newer than this memkeep, or a needed extra is not installed."""

    code = "unsupported"


class FileError(MemkeepError):
    """A file of records can't be read, or is not what it says."""

    code = "file_unreadable"


class EmbedderError(MemkeepError):
    """What makes vectors of texts does not: nobody is there, the key or the model is wrong, it answers nonsense."""

    code = "embedder"


class StorageError(MemkeepError):
    """The vault's storage refused an operation: disk full, permission, input/output error."""

    code = "storage"


class StorageUnreachableError(StorageError):
    """The storage did not answer in time, broke off, or asked to come later; whether it did it is not known."""

    code = "storage_unreachable"

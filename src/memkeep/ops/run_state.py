"""What unattended runs leave in the user's state folder: a lock, a log that rotates, and how the last run ended."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec

from memkeep import clock
from memkeep.errors import VaultLeasedError

LOG_BYTES = 256 * 1024
LOG_FILES = 4  # beside the one that is written


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that runs, and since when (ISO-8601, UTC)."""

    pid: int
    since: str


class LastRun(msgspec.Struct, frozen=True, kw_only=True):
    """How the last run ended: `exit` is its status, None while it runs or when it was killed.

    `step` is the one that ended worst, empty when all went well; `code` and `message` are its error's.
    """

    started: str
    seconds: float | None = None
    exit: int | None = None
    step: str = ""
    code: str = ""
    message: str = ""
    running: bool = False


def folder() -> Path:
    """Return the folder, which may not be there yet."""
    import platformdirs

    return Path(platformdirs.user_state_dir("memkeep"))


def made_folder() -> Path:
    """Return the folder, made when it is not there yet."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder()


@contextlib.contextmanager
def only_one() -> Iterator[Holder]:
    """Hold the lock of runs; `VaultLeasedError` says who holds it. The system frees it when the process ends."""
    me = Holder(pid=os.getpid(), since=clock.now().isoformat(timespec="seconds"))
    descriptor = os.open(made_folder() / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VaultLeasedError(
                f"another `memkeep run` is at work: {_who(os.pread(descriptor, 1024, 0))}",
                hint="memkeep status",
                code="already_running",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(me), 0)
        yield me
    finally:
        os.close(descriptor)


def _who(data: bytes) -> str:
    try:
        holder = msgspec.json.decode(data, type=Holder)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "a process that has just begun"
    return f"process {holder.pid}, since {holder.since}"


def note_last(last: LastRun) -> None:
    """Remember how the run stands or ended. A disk that is full costs only the memory of it."""
    with contextlib.suppress(OSError):
        path = folder() / "last-run.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(msgspec.json.encode(last))
        temporary.replace(path)


def last_run() -> LastRun | None:
    """Return how the last run of this user ended; None when there was none."""
    try:
        place = folder()
        last = msgspec.json.decode((place / "last-run.json").read_bytes(), type=LastRun)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    if last.exit is None:
        return msgspec.structs.replace(last, running=_held(place / "run.lock"))
    return last


def _held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Log:
    """Appends lines to `run.log`, each with its time in UTC and the process. It tells of steps, never of memories."""

    def __init__(self) -> None:
        self._handler = _Private(
            made_folder() / "run.log",
            maxBytes=LOG_BYTES,
            backupCount=LOG_FILES,
            encoding="utf-8",
            errors="backslashreplace",
        )

    def line(self, text: str) -> None:
        """Write one line."""
        flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        moment = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._handler.emit(
            logging.LogRecord("memkeep", logging.INFO, "", 0, f"{moment} {os.getpid()} {flat}", None, None)
        )

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Private(RotatingFileHandler):
    """A rotating log that only its user can read; where it can't be written, the run goes on without it."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return TextIOWrapper(open(descriptor, "ab"), encoding=self.encoding, errors=self.errors)  # noqa: PTH123

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Say nothing: the run's own answer says how it went."""

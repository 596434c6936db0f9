"""Fault injection below everything: count the changes that this process makes to a folder, and strike at the n-th.

A blow is an errno, which that change then fails with, or KILL, which ends the process there as `kill -9` does. A write
is struck in its middle: half of it gets through. Syncing is counted and not done: no power fails here.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memkeep import clock

KILL = -1
CHANGES = frozenset(
    {"open", "write", "fsync", "link", "symlink", "rename", "replace", "unlink", "mkdir", "rmdir", "ftruncate"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Strike:
    """What was counted, and whether the blow fell."""

    def __init__(self, folder: Path, at: int, blow: int, kinds: frozenset[str]) -> None:
        self.folder = os.path.realpath(folder)
        self.at = at
        self.blow = blow
        self.kinds = kinds
        self.count = 0
        self.fell: str | None = None  # the change that was struck

    def call(self, name: str, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Do a change, or strike."""
        if not self._concerns(name, args, options):
            return real(*args, **options)
        self.count += 1
        if self.count != self.at:
            return real(*args, **options)
        self.fell = name
        if name == "write":
            real(args[0], bytes(args[1])[: len(args[1]) // 2])
        if self.blow == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.blow, os.strerror(self.blow), args[0] if isinstance(args[0], str) else None)

    def _concerns(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
        if name not in self.kinds or (name == "open" and not args[1] & _WRITING):
            return False
        places = args[:2] if name in {"rename", "replace", "link", "symlink"} else args[:1]
        return any(self._inside(place, options) for place in places)

    def _inside(self, place: Any, options: dict[str, Any]) -> bool:
        if isinstance(place, int):
            path = _opened(place)
        elif options.get("dir_fd") is not None:
            path = _opened(options["dir_fd"]) / place
        else:
            path = Path(os.path.realpath(Path(place).parent), Path(place).name)
        return path.is_relative_to(self.folder)


def _leave_unsynced(_: int) -> None:
    return


def _opened(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _alone() -> bool:
    """Say whether this is the only thread; one that was joined may need a moment to be gone."""
    end = clock.monotonic() + 1
    while len(list(Path("/proc/self/task").iterdir())) > 1:
        if clock.monotonic() > end:
            return False
        clock.pause(0.001)
    return True


@contextmanager
def strike(folder: Path, at: int, blow: int, *, kinds: frozenset[str] = CHANGES) -> Iterator[Strike]:
    """Strike at the n-th change (from 1) of the given kinds to what is in a folder; 0 only counts."""
    struck = Strike(folder, at, blow, kinds)
    real = {name: getattr(os, name) for name in CHANGES}

    def instead(name: str) -> Callable[..., Any]:
        do = real[name] if name != "fsync" else _leave_unsynced
        return lambda *args, **options: struck.call(name, do, *args, **options)

    try:
        for name in real:
            setattr(os, name, instead(name))
        yield struck
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def killed(folder: Path, at: int, action: Callable[[], object], *, kinds: frozenset[str] = CHANGES) -> bool:
    """Do something in a forked process that is killed at the n-th change; return whether it got that far.

    What goes wrong there in another way raises `ChildProcessError` here. A process with other threads, such as those
    that lancedb or numpy (without `OPENBLAS_NUM_THREADS=1`) start, can't be forked safely: `RuntimeError`.
    """
    if not _alone():
        message = "this process has other threads"
        raise RuntimeError(message)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with strike(folder, at, KILL, kinds=kinds):
                action()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status != 0:
        message = f"the process ended with {status}"
        raise ChildProcessError(message)
    return False

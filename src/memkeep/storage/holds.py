"""What this machine knows of how long each object of a place is held: a file in the user's state folder.

A line an object, `2026-12-21T03:00:00Z data/ab/abcd...`, and the last one of an object counts. Lines are only added,
so that a crash costs at most the last one. What is lost is asked for again, and what another machine has prolonged is
prolonged once more: the file saves requests, and nothing else hangs on it.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from memkeep.storage.base import is_key

_FORM = "%Y-%m-%dT%H:%M:%SZ"
_SPARE = 1000  # lines that may be in vain before the file is written anew


class Holds:
    """Until when objects are held, as far as it is known here; where the file can't be written, for this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, datetime] | None = None

    def known(self) -> Mapping[str, datetime]:
        """Return all that is known; do not change it."""
        with self._lock:
            return self._read()

    def note(self, key: str, until: datetime) -> None:
        """Remember until when an object is held."""
        with self._lock:
            self._read()[key] = until
            self._append({key: until}.items())

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._known = {}
            with suppress(OSError):
                self._path.unlink()

    def _read(self) -> dict[str, datetime]:
        if self._known is None:
            self._known = {}
            lines: list[str] = []
            with suppress(OSError):
                lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
            for line in lines:
                moment, _, key = line.partition(" ")
                with suppress(ValueError):  # a line that a crash cut off
                    until = datetime.strptime(moment, _FORM).replace(tzinfo=UTC)
                    if is_key(key):
                        self._known[key] = until
            if len(lines) > 2 * len(self._known) + _SPARE:
                with suppress(OSError):
                    self._path.unlink()
                    self._append(self._known.items())
        return self._known

    def _append(self, entries: Iterable[tuple[str, datetime]]) -> None:
        # Each begins with a line's end: one that was cut off before it does not spoil it.
        text = "".join(f"\n{until.strftime(_FORM)} {key}" for key, until in entries)
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)

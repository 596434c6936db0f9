"""When the next request may be sent, for all threads together, and how many at a time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Semaphore

from memkeep import clock
from memkeep.errors import UsageError

_RATE = re.compile(r"(\d+(?:\.\d+)?) ?/ ?(s|sec|min|m|h)")
_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
_STEP = 0.5  # seconds, at most, after which a wait looks whether it is still wanted


class StoppedError(Exception):
    """Nothing is to be sent any more: another thread raises why."""


class Pace:
    """Lets some requests go at a time, evenly spaced, and none while the endpoint has asked to come later."""

    def __init__(self, at_once: int = 4, per_second: float | None = None) -> None:
        """Without a rate requests only wait for each other, and when they are told to."""
        self.at_once = at_once
        self.stopped = False
        self._slots = Semaphore(at_once)
        self._gap = 1 / per_second if per_second else 0.0
        self._next = 0.0  # as `clock.monotonic` says it
        self._not_before = 0.0
        self._lock = Lock()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold the right to one request, from when it may be sent. Raises `StoppedError`."""
        with self._slots:
            with self._lock:
                mine = max(self._next, clock.monotonic())
                self._next = mine + self._gap
            while not self.stopped and (left := max(mine, self._not_before) - clock.monotonic()) > 0:
                clock.pause(min(left, _STEP))
            if self.stopped:
                raise StoppedError
            yield

    def hold(self, seconds: float) -> None:
        """Let no request begin for so long."""
        with self._lock:
            self._not_before = max(self._not_before, clock.monotonic() + seconds)


def rate(text: str) -> float:
    """Return how many requests a second `60/min` is; raises `UsageError`."""
    said = _RATE.fullmatch(text.strip())
    if said is None or not float(said[1]):
        raise UsageError(f"{text!r} is no rate: write it like 60/min or 5/s", hint="memkeep embed --help")
    return float(said[1]) / _SECONDS[said[2]]

"""When the next request may be sent, for all threads together."""

import re
from threading import Lock

from memkeep import clock
from memkeep.errors import UsageError

_RATE = re.compile(r"(\d+(?:\.\d+)?) ?/ ?(s|sec|min|m|h)")
_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
_STEP = 0.5  # seconds, at most, after which a wait looks whether it is still wanted


class Pace:
    """Spaces requests evenly, and holds all of them back while the endpoint has asked to come later."""

    def __init__(self, per_second: float | None = None) -> None:
        """Without a rate requests only wait when they are told to."""
        self._gap = 1 / per_second if per_second else 0.0
        self._next = 0.0  # as `clock.monotonic` says it
        self._not_before = 0.0
        self._lock = Lock()
        self.stopped = False

    def wait(self) -> None:
        """Return when one request may be sent, or when nothing is to be sent any more."""
        with self._lock:
            mine = max(self._next, clock.monotonic())
            self._next = mine + self._gap
        while not self.stopped and (left := max(mine, self._not_before) - clock.monotonic()) > 0:
            clock.pause(min(left, _STEP))

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

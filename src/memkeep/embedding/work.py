"""Many texts through a provider: in batches, several at once, paced, tried again; a text that it refuses is named.

One text goes first, alone: whether the address, the key and the model are right is known before more is paid.
A batch that is refused, or that fails again and again, is cut in two until it is known which texts it is.
"""

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep import clock
from memkeep.embedding.base import Provider, TextRefusedError, TryLaterError
from memkeep.embedding.endpoint import UnreachableError
from memkeep.embedding.pace import Pace, StoppedError
from memkeep.errors import EmbedderError, RefusedError

if TYPE_CHECKING:
    import numpy as np

TRIES = 5  # of one batch; of what a failed batch was cut into
TRIES_CUT = 2
UNREACHED = 3  # tries to reach an address
FIRST_WAIT = 0.5  # seconds before the second try; doubled for each one after it,
LONGEST_WAIT = 30.0  # up to this
PATIENCE = 900.0  # seconds that an endpoint may ask to wait, or keep on being busy
ALIKE = 3  # texts that fail one after another, none between them taken: then it is not the texts


class Item(NamedTuple):
    """A text, and the name under which its vector is kept."""

    key: bytes
    text: str


class Done(NamedTuple):
    """What came of some texts: the vectors of those that have one, and why the others have none."""

    items: tuple[Item, ...]
    vectors: "np.ndarray[Any, np.dtype[np.float32]] | None"
    refused: tuple[tuple[Item, str], ...] = ()


def embed(provider: Provider, items: Iterable[Item], *, batch: int, dims: int | None = None) -> Iterator[Done]:
    """Yield what comes of the texts, as it comes.

    Vectors of another size than `dims`, or than the first one's, are refused. What was answered before an error is
    yielded before it is raised.
    """
    ahead = iter(items)
    worker = _Worker(provider, dims)
    if first := tuple(islice(ahead, 1)):
        yield from worker.do(first)
        yield from _at_once(worker, ahead, batch, provider.pace)


def _at_once(worker: "_Worker", ahead: Iterator[Item], batch: int, pace: Pace) -> Iterator[Done]:
    """Let several threads do batches: while some wait for an answer, others take one apart."""
    crew = _Crew(worker, 2 * pace.at_once)
    failed: Exception | None = None
    try:
        while True:
            while failed is None and crew.has_room and (one := tuple(islice(ahead, batch))):
                crew.give(one)
            if not crew.doing:
                break
            made, error = crew.take()
            if error is not None:
                failed = error if failed is None or isinstance(failed, StoppedError) else failed
                pace.stopped = True
            yield from made
    except BaseException:
        pace.stopped = True
        raise
    finally:
        crew.dismiss()
    if failed is not None:
        raise failed


class _Crew:
    """Threads that do batches. Python's own pool would keep an interrupted program until all answers have come."""

    def __init__(self, worker: "_Worker", most: int) -> None:
        self.doing = 0
        self._worker = worker
        self._most = most
        self._started = 0
        self._asked: queue.SimpleQueue[tuple[Item, ...]] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[tuple[list[Done], Exception | None]] = queue.SimpleQueue()

    @property
    def has_room(self) -> bool:
        """Whether a thread is free."""
        return self.doing < self._most

    def give(self, items: tuple[Item, ...]) -> None:
        """Let somebody do a batch."""
        self._asked.put(items)
        self.doing += 1
        if self._started < self._most:
            Thread(target=self._run, name=f"embed-{self._started}", daemon=True).start()
            self._started += 1

    def take(self) -> tuple[list[Done], Exception | None]:
        """Return what came of a batch, once there is one."""
        came = self._came.get()
        self.doing -= 1
        return came

    def dismiss(self) -> None:
        """Let the threads end when they have done what they are at."""
        for _ in range(self._started):
            self._asked.put(())

    def _run(self) -> None:
        while items := self._asked.get():
            self._came.put(self._worker.do_all(items))


class _Worker:
    """Does one batch at a time for each of several threads."""

    def __init__(self, provider: Provider, dims: int | None) -> None:
        self._provider = provider
        self._dims = dims
        self._taken = False  # something, ever
        self._alike = 0
        self._lock = Lock()

    def do_all(self, items: tuple[Item, ...]) -> tuple[list[Done], Exception | None]:
        """Return what came of a batch, and the error that ended it before its end."""
        made: list[Done] = []
        try:
            made.extend(self.do(items))
        except Exception as error:  # noqa: BLE001 - it is raised when all else is done
            return made, error
        return made, None

    def do(self, items: tuple[Item, ...]) -> Iterator[Done]:
        """Yield what comes of a batch. Raises `StoppedError` when another thread has failed."""
        waiting = deque([(items, TRIES)])
        while waiting:
            one, tries = waiting.popleft()
            try:
                vectors = self._try(one, tries)
            except (TextRefusedError, TryLaterError) as error:
                if len(one) > 1:
                    left = TRIES_CUT if isinstance(error, TryLaterError) else tries
                    half = len(one) // 2
                    waiting.extendleft([(one[half:], left), (one[:half], left)])
                    continue
                self._note(error)
                yield Done((), None, ((one[0], str(error)),))
            else:
                yield Done(one, vectors)

    def _note(self, error: Exception) -> None:
        """Take note of a text that was not taken; raises when it is not the text."""
        with self._lock:
            self._alike += 1
            hopeless = self._alike >= ALIKE and (isinstance(error, TryLaterError) or not self._taken)
        if hopeless:
            raise EmbedderError(
                f"{self._provider.name} ({self._provider.model}) fails with one text after another: {error}",
                hint="memkeep embed --help",
            ) from error

    def _try(self, items: Sequence[Item], tries: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the vectors of a batch, tried again while that may help."""
        texts = [item.text for item in items]
        begun, number = clock.monotonic(), 0
        while True:
            number += 1
            try:
                vectors = self._provider.embed(texts)
            except UnreachableError:
                if number >= UNREACHED:
                    raise
                clock.pause(_wait(number))
            except TryLaterError as error:
                self._again(error, number, tries, begun)
            else:
                return self._checked(vectors)

    def _again(self, error: TryLaterError, number: int, tries: int, begun: float) -> None:
        """Wait before the next try; raises when there is to be none."""
        pause = error.after if error.after is not None else _wait(number)
        if error.busy:
            if pause > PATIENCE or clock.monotonic() - begun + pause > PATIENCE:
                raise EmbedderError(
                    f"{error}; it asks to come again in {pause:,.0f} seconds",
                    hint="memkeep embed --help   # with --rate, the same command goes on later where this one stopped",
                    code="embedder_busy",
                ) from error
            self._provider.pace.hold(pause)
        elif number >= tries:
            raise error
        else:
            clock.pause(pause)

    def _checked(self, vectors: "np.ndarray[Any, np.dtype[np.float32]]") -> "np.ndarray[Any, np.dtype[np.float32]]":
        dims = vectors.shape[1]
        with self._lock:
            wanted, before = self._dims or dims, self._taken
            self._dims, self._taken, self._alike = wanted, True, 0
        if dims != wanted:
            kind = EmbedderError if before else RefusedError
            raise kind(
                f"{self._provider.name} ({self._provider.model}) makes vectors of {dims} dimensions, not of {wanted}",
                hint="memkeep embed --help",
                code="other_model",
            )
        return vectors


def _wait(number: int) -> float:
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (number - 1))

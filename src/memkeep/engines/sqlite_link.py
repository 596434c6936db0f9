"""The parent's end of the child process that touches databases."""

import fcntl
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self

import msgspec

from memkeep import errors
from memkeep.engines.sqlite_io import BUFFER, ERROR, LENGTH, STREAM, read_frame, write_frame
from memkeep.errors import MemkeepError, StoreError, UnsupportedError

_PATIENCE = 5.0
_AHEAD = 2  # requests that wait while one is answered
# The matrix library's threads wait for each other by spinning: beside other work they made a scan 20 times slower.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_START = "import sys; sys.path[:] = {path!r}; from memkeep.engines.sqlite_child import main; main({stream}, {parent})"


class Child:
    """A running child process, ended at exit from the context.

    `call` and `items` are for one thread at a time, and so is `stream`, which may run beside them.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise UnsupportedError(
                "memkeep can't find the Python that runs it.", hint="Run it with an ordinary Python."
            )
        # The search path of this process, whatever put it together, and nothing else of the environment's Python.
        home = str(Path(__file__).parents[2])
        path = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100 - of text, as sys.path is
        data, stream = os.pipe()
        code = _START.format(path=path if home in path else [*path, home], stream=stream, parent=os.getpid())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(stream,),
                env=os.environ | _ONE_THREAD,
                bufsize=0,
            )
        except OSError as error:
            os.close(data)
            message = f"The process that reads databases could not be started: {error.strerror}."
            raise MemkeepError(message, hint=f"{sys.executable} -V") from error
        finally:
            os.close(stream)
        self._data = open(data, "rb", buffering=1 << 16)  # noqa: SIM115, PTH123 - closed in `close`
        self._requests, self._replies, self._errors = self._pipes()
        for fd in (data, self._replies.fileno()):
            with suppress(AttributeError, OSError):  # larger pipes are for speed only, and only on Linux
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, BUFFER)
        self._number = 0
        self._sending = threading.Lock()
        self._asking = threading.Lock()
        self._streaming = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        for pipe in (self._requests, self._replies, self._errors, self._data):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:  # stuck in the kernel, on a dead network file system
            self._process.kill()
            self._process.wait()

    def call(self, op: str, **arguments: Any) -> Any:
        """Ask for one thing and return it."""
        conversation = self.items(op, **arguments)
        while True:
            try:
                next(conversation)
            except StopIteration as end:
                return end.value

    def items(self, op: str, **arguments: Any) -> Generator[Any, None, Any]:
        """Ask for many things and yield them; what comes last is the generator's value."""
        with _alone(self._asking):
            return (yield from self._answers(self._send(op, arguments)))

    def each(self, op: str, many: Iterable[dict[str, Any]]) -> None:
        """Ask for one thing after another, each while the one before is being done."""
        with _alone(self._asking):
            asked: deque[int] = deque()
            for arguments in many:
                asked.append(self._send(op, arguments))
                if len(asked) > _AHEAD:
                    deque(self._answers(asked.popleft()), 0)
            while asked:
                deque(self._answers(asked.popleft()), 0)

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file of the image."""
        with _alone(self._streaming):
            number = self._send("stream", {"path": path})
            try:
                while True:
                    there, size = STREAM.unpack(self._read(STREAM.size))
                    if size == ERROR:
                        described = msgspec.msgpack.decode(self._read(*LENGTH.unpack(self._read(LENGTH.size))))
                        if there == number:
                            raise _error(described)
                    elif there == number and not size:
                        return
                    else:
                        data = self._read(size)
                        if there == number:
                            yield data
            except GeneratorExit:
                with suppress(ValueError, StoreError):  # there may be nobody left to stop
                    self._send("stop", {"stream": number})
                raise

    def _answers(self, number: int) -> Generator[Any, None, Any]:
        """Yield what comes for a request; what comes last is the generator's value."""
        while True:
            try:
                there, kind, payload = read_frame(self._replies.fileno())
            except EOFError:
                self._ended()
            if there != number:  # of an earlier conversation that was left before its end
                continue
            if kind == "error":
                raise _error(payload)
            if kind == "done":
                return payload
            yield payload

    def _pipes(self) -> tuple[Any, Any, Any]:  # files, never bare descriptors, which may be another's once closed
        return self._process.stdin, self._process.stdout, self._process.stderr

    def _send(self, op: str, arguments: dict[str, Any]) -> int:
        with self._sending:
            self._number += 1
            try:
                write_frame(self._requests.fileno(), [self._number, op, arguments])
            except BrokenPipeError:
                self._ended()
            return self._number

    def _read(self, size: int) -> bytes:
        data = self._data.read(size)
        if len(data) != size:
            self._ended()
        return data

    def _ended(self) -> NoReturn:
        said = self._errors.read().decode(errors="replace").strip()
        self._process.wait()
        error = StoreError(
            f"The process that reads databases ended before its time (status {self._process.returncode}).",
            hint="Run the same command again.",
        )
        if said:
            error.add_note(said)
        raise error


class _alone:  # noqa: N801 - reads as a word
    """Hold a lock that nobody else may want: two conversations at once would mix their answers."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("one part of a store answers one question at a time")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _error(described: dict[str, str]) -> Exception:
    """Make the error that the child described; what it did not expect keeps its traceback as a note."""
    kind = getattr(errors, described["type"], None)
    if kind is None:
        error = MemkeepError("The process that reads databases failed.", hint="Run the same command again.")
        error.add_note(described["message"])
        return error
    return kind(described["message"], unchanged=described["unchanged"], hint=described["hint"], code=described["code"])  # type: ignore[no-any-return]

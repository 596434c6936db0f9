"""The entry point: run one verb, print one answer, return one exit status."""

import gc
import os
import sys
from typing import NoReturn

from memkeep.cli.face import Answered, Face, Reply
from memkeep.cli.words import root

COMPLETE = "_MEMKEEP_COMPLETE"
_GARBAGE = 100_000  # objects before cycles among them are looked for: rows by the thousand have none


def main(argv: list[str] | None = None) -> NoReturn:
    """Run `memkeep` with the given words (default: those of the process) and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit status; nothing escapes, not even an interruption."""
    if COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(root(), {}, "memkeep", COMPLETE, os.environ[COMPLETE])
    _ready_streams()
    gc.set_threshold(_GARBAGE)
    face = Face(argv)
    try:
        _heed_signals()
        reply, schema = _reply(face)
        return _write(face, reply, schema)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort: every failure becomes an answer
        from memkeep.cli.errors import report

        return report(face, error)


def _reply(face: Face) -> tuple[Reply, str]:
    """Parse the words and do what they say."""
    command = root()
    try:
        with command.make_context("memkeep", list(face.argv), obj=face) as ctx:
            reply = command.invoke(ctx)
    except Answered as answer:
        return answer.reply, answer.schema
    if not isinstance(reply, Reply):
        raise TypeError(f"`{face.verb}` gave no reply")
    return reply, face.schema


def _write(face: Face, reply: Reply, schema: str) -> int:
    """Print an answer on standard output; a reader that went away is no failure of the verb."""
    from memkeep.cli.output import Printer, abandon_stdout, document, finish
    from memkeep.errors import MemkeepError

    try:
        if face.json:
            document({"schema": schema, "ok": True, "result": reply.result})
        else:
            reply.render(Printer(sys.stdout, face))
        finish(sys.stdout)
    except BrokenPipeError:
        abandon_stdout()
    except OSError as error:
        raise MemkeepError(
            f"the answer could not be written: {error.strerror}",
            unchanged="What was asked for is done.",
            hint="df -h",
            code="system",
        ) from error
    return reply.exit


def _ready_streams() -> None:
    """Make sure that there are streams, and that no text is one that they can't write."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with the descriptor closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - lives as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _heed_signals() -> None:
    """Let a polite end (a stopped service, a closed terminal) clean up as Ctrl-C does."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores SIGHUP, and so it stays
                signal.signal(number, signal.default_int_handler)

"""What the command line prints: plain aligned text for people, one JSON document for programs."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TextIO

import click

from memkeep.amounts import count
from memkeep.cli.face import Face

# Not "printable" by Unicode's book, yet harmless and needed: no-break space, (non-)joiners of scripts and emoji.
HARMLESS = frozenset("\u00a0\u200c\u200d\u3000")


class Span(NamedTuple):
    """Text in a style: `bold`, `dim`, `good`, `warn`, `bad`."""

    text: str
    style: str


STYLES: dict[str, dict[str, Any]] = {
    "bold": {"bold": True},
    "dim": {"dim": True},
    "good": {"fg": "green"},
    "warn": {"fg": "yellow"},
    "bad": {"fg": "red", "bold": True},
}
Text = str | Span


class Printer:
    """Writes lines and tables to a stream; colours only on a terminal that wants them.

    Whatever comes from a store or a vault may hold control characters, so all text is cleaned here.
    """

    def __init__(self, stream: TextIO, face: Face | None = None) -> None:
        self.stream = stream
        self.face = face or Face([])
        self.colour = colourful(stream)
        self.columns = _columns() if stream.isatty() else None

    def line(self, *texts: Text) -> None:
        """Write one line."""
        self.stream.write("".join(self._painted(text) for text in texts).rstrip(" ") + "\n")

    def advice(self, *texts: Text) -> None:
        """Write one line unless `--quiet` was said."""
        if not self.face.quiet:
            self.line(*texts)

    def next(self, command: str) -> None:
        """Name the next command, unless `--quiet` was said."""
        self.advice(Span("Next: ", "dim"), self.face.runnable(command))

    def block(self, text: str) -> None:
        """Write the program's own text (a help page, a script) as it is."""
        self.stream.write(text if text.endswith("\n") else text + "\n")

    def fields(self, rows: Iterable[tuple[str, Text]]) -> None:
        """Write names and values as two columns."""
        rows = list(rows)
        widest = max((width(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.line(Span(name.ljust(widest), "dim"), "  ", value)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Text]], *, right: Iterable[int] = ()) -> None:
        """Write aligned columns, those in `right` flush right; on a terminal the last one is cut to fit."""
        cells = [[_cleaned(cell) for cell in row] for row in rows]
        widths = [
            max([width(name), *(width(_text(row[column])) for row in cells)]) for column, name in enumerate(header)
        ]
        flush = set(right)
        titles: list[Text] = [Span(name, "dim") for name in header]
        for row in (titles, *cells):
            line: list[Text] = []
            for column, cell in enumerate(row[:-1]):
                gap = " " * (widths[column] - width(_text(cell)))
                line += [gap, cell, "  "] if column in flush else [cell, gap, "  "]
            room = self.columns - sum(widths[:-1]) - 2 * len(widths[:-1]) if self.columns else None
            self.line(*line, row[-1] if room is None else _cut(row[-1], room))

    def _painted(self, text: Text) -> str:
        plain = clean(_text(text))
        return click.style(plain, **STYLES[text.style]) if self.colour and isinstance(text, Span) else plain


def colourful(stream: TextIO) -> bool:
    """Say whether a stream should get colours: a terminal, and neither `NO_COLOR` nor `TERM=dumb`."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def interactive() -> bool:
    """Say whether a person can be asked: both the question and the answer have a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def clean(text: str) -> str:
    """Return a text with everything that could move a cursor or hide other text written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in HARMLESS else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def document(value: dict[str, Any]) -> None:
    """Print one JSON document on standard output, in UTF-8 whatever the locale; lone surrogates as escapes."""
    import json

    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))


def plain(value: Any) -> Any:
    """Return structs and what they hold as values of JSON; numbers that JSON does not know become null."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    import msgspec

    return plain(msgspec.to_builtins(value, str_keys=True, enc_hook=str))


def finish(stream: TextIO) -> None:
    """Push everything out, so that a failing write is noticed while it can still be told."""
    stream.flush()


def abandon_stdout() -> None:
    """Point standard output elsewhere, so that the interpreter's last flush does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def moment(iso: str) -> str:
    """Return an ISO-8601 moment in the local time zone, to the minute; text that is none as it is."""
    from memkeep import clock

    at = clock.moment(iso)
    return at.astimezone().strftime("%Y-%m-%d %H:%M") if at is not None else iso


def ago(iso: str) -> str:
    """Return how long an ISO-8601 moment is past: `3 hours ago`; text that is none as it is."""
    from memkeep import clock

    at = clock.moment(iso)
    if at is None:
        return iso
    seconds = (clock.now() - at).total_seconds()
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return f"{count(int(seconds // length), unit)} ago"
    return "just now"


def _columns() -> int:
    from shutil import get_terminal_size

    return get_terminal_size().columns


def _text(text: Text) -> str:
    return text.text if isinstance(text, Span) else text


def _cleaned(text: Text) -> Text:
    return Span(clean(text.text), text.style) if isinstance(text, Span) else clean(text)


def _cut(text: Text, room: int) -> Text:
    plain_text = _text(text)
    if room < 1 or width(plain_text) <= room:
        return text
    while width(plain_text) > room - 1:
        plain_text = plain_text[:-1]
    shorter = plain_text + "…"
    return Span(shorter, text.style) if isinstance(text, Span) else shorter

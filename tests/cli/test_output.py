"""Text for people and documents for programs."""

import io
import json
import math
from collections.abc import Callable

import pytest

from memkeep.amounts import count, duration, size
from memkeep.cli.face import Face
from memkeep.cli.output import Printer, Span, ago, clean, document, moment, plain, width
from memkeep.model import Finding, Rung, Severity


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return what a table looks like on a terminal, under some environment."""

    def show(**environ: str) -> str:
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        stream = Terminal()
        Printer(stream).table(("id", "path"), [(Span("a", "good"), "/long/path/of/a/store")])
        return stream.getvalue()

    return show


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "1.0 MB"), (4_200_000, "4.2 MB"), (10**13, "10.0 TB")],
)
def test_sizes_are_short(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_agree_with_their_noun() -> None:
    assert [count(n, "memory", "memories") for n in (0, 1, 50_000, None)] == [
        "0 memories",
        "1 memory",
        "50,000 memories",
        "? memories",
    ]


def test_moments_are_in_the_local_zone_and_ages_are_round(monkeypatch: pytest.MonkeyPatch) -> None:
    import time
    from datetime import UTC, datetime

    from memkeep import clock

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    monkeypatch.setattr(clock, "now", lambda: datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    try:
        assert moment("2026-03-01T11:00:00+00:00") == "2026-03-01 16:30"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2026-03-01T11:59:30+00:00", "just now"),
        ("2026-03-01T11:58:00+00:00", "2 minutes ago"),
        ("2026-03-01T11:00:00+00:00", "1 hour ago"),
        ("2026-02-20T12:00:00+00:00", "9 days ago"),
        ("2026-03-02T12:00:00+00:00", "just now"),
    ],
)
def test_ages_are_round(iso: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from memkeep import clock

    monkeypatch.setattr(clock, "now", lambda: datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    assert ago(iso) == text


def test_tables_are_aligned_and_end_without_blanks() -> None:
    stream = io.StringIO()
    Printer(stream).table(("name", "n", "path"), [("a", "1", "x"), ("東京", "100", ""), ("ccc", "20", "y")], right=[1])
    assert stream.getvalue().splitlines() == [
        "name    n  path",
        "a       1  x",
        "東京  100",
        "ccc    20  y",
    ]


def test_a_terminal_gets_colours_and_lines_that_fit(terminal: Callable) -> None:
    assert "\x1b[32ma\x1b[0m" in terminal(TERM="xterm", COLUMNS="12")
    assert terminal(TERM="dumb", COLUMNS="12") == "id  path\na   /long/p…\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_it_is_not_wanted(environ: dict[str, str], terminal: Callable) -> None:
    assert "\x1b" not in terminal(**environ)


def test_a_file_gets_whole_lines_without_colours() -> None:
    stream = io.StringIO()
    Printer(stream).table(("path",), [(Span("x" * 300, "bad"),)])
    assert stream.getvalue() == f"path\n{'x' * 300}\n"


def test_quiet_keeps_lines_and_drops_advice() -> None:
    stream = io.StringIO()
    face = Face([])
    face.quiet = True
    out = Printer(stream, face)
    out.line("a fact")
    out.advice("a remark")
    out.next("memkeep status")
    assert stream.getvalue() == "a fact\n"


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("memkeep show 3f", "memkeep show 3f --vault '/my vault'"),
        ("memkeep demo   (or: memkeep status)", "memkeep demo   (or: memkeep status)"),
        ("memkeep init   # once", "memkeep init --vault '/my vault'   # once"),
        ("memkeep init --vault X", "memkeep init --vault X"),
        ("memkeep show --help", "memkeep show --help"),
        ("ls -l memkeep", "ls -l memkeep"),
    ],
)
def test_the_next_command_can_be_typed_as_it_stands(command: str, typed: str) -> None:
    face = Face([])
    assert face.runnable(command) == command
    face.vault = "/my vault"
    assert face.runnable(command) == typed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcödé, 東京, 👩‍💻", "plain text, ünïcödé, 東京, 👩‍💻"),
        ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("right\u202eto left", "right\\u202eto left"),
        ("bad \udc80 byte", "bad \\udc80 byte"),
    ],
)
def test_text_from_a_store_can_not_command_a_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown
    stream = io.StringIO()
    Printer(stream).line(Span(text, "bold"))
    Printer(stream).table(("x",), [(text,)])
    assert stream.getvalue().splitlines() == [shown, "x", shown]


def test_wide_and_combining_characters_are_counted_as_shown() -> None:
    assert [width(text) for text in ("abc", "東京", "e\u0301")] == [3, 4, 1]


def test_structs_become_values_of_json() -> None:
    finding = Finding(code="c", severity=Severity.ERROR, message="m", snapshots=("s",))
    assert plain({"list": [finding], "rung": Rung.INTACT, 1: (math.nan, math.inf, 1.5), "none": None}) == {
        "list": [
            {
                "code": "c",
                "severity": "error",
                "message": "m",
                "part": None,
                "record": None,
                "object": None,
                "snapshots": ["s"],
                "mend": None,
            }
        ],
        "rung": "intact",
        "1": [None, None, 1.5],
        "none": None,
    }


def test_a_document_is_utf_8_and_survives_names_that_are_not(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    document({"path": "/mémoire/\udcff", "text": "line\nbreak\x1b"})
    out = capfdbinary.readouterr().out
    assert out == b'{"path": "/m\xc3\xa9moire/\\udcff", "text": "line\\nbreak\\u001b"}\n'
    assert json.loads(out) == {"path": "/mémoire/\udcff", "text": "line\nbreak\x1b"}

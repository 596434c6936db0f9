"""Large JSON files, one element at a time: an object whose values may be long arrays, or an array.

The bytes are cut into elements by their brackets and quotes alone and each is then parsed by itself, so memory holds
one element, and one that is damaged inside its brackets does not hide the next.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from memkeep.errors import FileError, quoted
from memkeep.records.readers.base import Read, Refused
from memkeep.records.record import Portable

LIMIT = 256 << 20
"""Bytes of one element: more is no record, and would not fit into memory."""

_STEP = 1 << 20
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(rb'["{}\[\]]')
_SCALAR = re.compile(rb'[^\s,:{}\[\]"]*+')
_BOM = b"\xef\xbb\xbf"


class Element(NamedTuple):
    """One value: of a key of the outer object, or with a `position` one element of the array under it."""

    key: str  # "" where the outer value is an array
    position: int | None
    where: str  # for a person
    value: Any


class _BrokenError(ValueError):
    """The brackets do not match, or the file ends before they do."""


def elements(path: Path) -> Iterator[Element | Refused]:
    """Yield the values of a JSON file in its order; what can't be parsed is refused. Raises `FileError`."""
    try:
        with path.open("rb") as stream:
            yield from stream_elements(stream, path.name)
    except OSError as error:
        raise unreadable(path, error) from error


def stream_elements(stream: BinaryIO, file: str) -> Iterator[Element | Refused]:
    """Yield the values of JSON in a stream; `file` is what messages call it."""
    scanner = _Scanner(stream)
    try:
        for key, index, line, data in _cut(scanner):
            place = f"{key}[{index}]" if key and index is not None else key or f"[{index}]"
            where = f"{file}, line {line}, {place}"
            try:
                yield Element(key, index, where, parse(data))
            except ValueError as error:
                yield Refused(where=where, reason=str(error))
    except _BrokenError as error:
        yield Refused(where=f"{file}, line {scanner.line}", reason=str(error))


def lines(path: Path) -> Iterator[Element | Refused]:
    """Yield the values of a file with one JSON value a line; empty lines are skipped. Raises `FileError`."""
    try:
        with path.open("rb") as stream:
            yield from stream_lines(stream, path.name)
    except OSError as error:
        raise unreadable(path, error) from error


def stream_lines(stream: BinaryIO, file: str) -> Iterator[Element | Refused]:
    """Yield the values of a stream with one JSON value a line; `file` is what messages call it."""
    number = 0
    while line := stream.readline(LIMIT):
        number += 1
        where = f"{file}, line {number}"
        if len(line) == LIMIT and not line.endswith(b"\n"):
            yield Refused(where=where, reason=f"a line of more than {LIMIT >> 20} MiB")
            return
        if not line.strip().removeprefix(_BOM):
            continue
        try:
            yield Element("", number - 1, where, parse(line.removeprefix(_BOM)))
        except ValueError as error:
            yield Refused(where=where, reason=str(error))


def parse(data: bytes) -> Any:
    """Return a JSON value, with NaN and infinities as Python writes them; raises `ValueError` of one sentence."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except RecursionError:
        raise ValueError("nested too deeply") from None


def portables(
    found: Iterable[Element | Refused], parsers: Mapping[str, Callable[[Any], Portable]], lone: Collection[str] = ()
) -> Iterator[Read]:
    """Yield what the parser of each key makes of its elements, and what was refused; other keys are passed over.

    A parser raises `ValueError` of one sentence. The values of keys in `lone` are no lists but single records.
    """
    for each in found:
        if isinstance(each, Refused):
            yield each
        elif each.key in parsers:
            try:
                if each.position is None and each.key not in lone:
                    yield Refused(where=each.where, reason=f"`{each.key}` is no list")
                    continue
                made = parsers[each.key](each.value)
            except ValueError as error:
                yield Refused(where=each.where, reason=str(error))
            else:
                yield made


def first_keys(path: Path, count: int) -> dict[str, Any]:
    """Return the first keys of the outer object and their values; of an array its first element.

    An outer array has the key "". Empty for what is no such file.
    """
    found: dict[str, Any] = {}
    try:
        if not path.is_file():
            return {}
        for each in elements(path):
            if isinstance(each, Refused):
                break
            if each.key not in found and len(found) == count:
                break
            found.setdefault(each.key, each.value)
    except FileError:
        return {}
    return found


def unreadable(path: Path, error: Exception) -> FileError:
    """Return the error of a file that can't be read at all."""
    return FileError(f"{path} can't be read: {error}", hint=f"ls -l {quoted(path)}")


class _Scanner:
    """A stream of which the bytes of the value at hand are kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self.line = 1

    def peek(self) -> bytes:
        """Return the next byte that is no space, b"" at the end."""
        while True:
            found = _SPACE.match(self._data, self._at)
            self._pass(found.end() if found else self._at)
            if self._at < len(self._data) or not self._more():
                return self._data[self._at : self._at + 1]

    def skip(self) -> None:
        """Pass the byte that was peeked at."""
        self._pass(self._at + 1)

    def skip_mark(self) -> None:
        """Pass the mark that some programs begin a text with."""
        self._more()
        self._at = len(_BOM) if self._data.startswith(_BOM) else 0

    def value(self) -> bytes:
        """Return the bytes of the value that begins here."""
        depth, position = 0, self._at
        if self.peek() not in b'"{[':
            return self._scalar()
        while True:
            found = _BRACKET.search(self._data, position)
            if found is not None and found.group() == b'"':
                text = _STRING.match(self._data, found.start())
                found, position = (text, text.end()) if text else (None, found.start())
            elif found is not None:
                position = found.end()
                depth += 1 if found.group() in b"{[" else -1
            else:
                position = len(self._data)
            if found is None:
                offset = position - self._at
                if not self._more():
                    raise _BrokenError("the file ends in the middle of a value")
                position = self._at + offset
            elif depth <= 0:
                start = self._at
                self._pass(position)
                return self._data[start:position]

    def _scalar(self) -> bytes:
        while True:
            found = _SCALAR.match(self._data, self._at)
            end = found.end() if found else self._at
            if end < len(self._data) or not self._more():
                break
        start = self._at
        if end == start:
            raise _BrokenError(
                f"{self._data[start : start + 12]!r} is no JSON value" if self._data[start:] else "the file ends early"
            )
        self._pass(end)
        return self._data[start:end]

    def _pass(self, position: int) -> None:
        self.line += self._data.count(b"\n", self._at, position)
        self._at = position

    def _more(self) -> bool:
        kept = len(self._data) - self._at
        if kept > LIMIT:
            raise _BrokenError(f"a value of more than {LIMIT >> 20} MiB")
        read = self._stream.read(max(_STEP, kept))
        self._data = self._data[self._at :] + read
        self._at = 0
        return bool(read)


def _cut(scanner: _Scanner) -> Iterator[tuple[str, int | None, int, bytes]]:
    scanner.skip_mark()
    outer = scanner.peek()
    if outer == b"[":
        yield from _cut_array(scanner, "")
    elif outer == b"{":
        scanner.skip()
        while _goes_on(scanner, b"}"):
            if scanner.peek() != b'"':
                raise _BrokenError("a key is missing")
            key = _key(scanner.value())
            if scanner.peek() != b":":
                raise _BrokenError(f"a colon is missing after {key!r}")
            scanner.skip()
            if scanner.peek() == b"[":
                yield from _cut_array(scanner, key)
            else:
                line = scanner.line
                yield key, None, line, scanner.value()
    else:
        raise _BrokenError("neither an object nor an array" if outer else "the file is empty")
    if scanner.peek():
        raise _BrokenError("more follows where the JSON has ended")


def _cut_array(scanner: _Scanner, key: str) -> Iterator[tuple[str, int | None, int, bytes]]:
    scanner.skip()
    index = 0
    while _goes_on(scanner, b"]"):
        line = scanner.line
        yield key, index, line, scanner.value()
        index += 1


def _goes_on(scanner: _Scanner, closing: bytes) -> bool:
    """Say whether another element follows, passing the comma before it or the closing bracket."""
    found = scanner.peek()
    if found == b",":
        scanner.skip()
        found = scanner.peek()
    if found == closing:
        scanner.skip()
        return False
    if not found:
        raise _BrokenError("the file ends before its brackets are closed")
    return True


def _key(data: bytes) -> str:
    try:
        return str(parse(data))
    except ValueError as error:
        raise _BrokenError(str(error)) from error

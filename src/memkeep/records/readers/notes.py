"""Memory as people and agents keep it in markdown: `MEMORY.md`, `USER.md`, `DREAMS.md`, `memory/YYYY-MM-DD.md`.

One record is one item of a list, or one paragraph, as OpenClaw cuts such files for its index; headings are titles and
no records of their own. A record knows its path and lines. Its id is of its path and its text, and where the same text
is there several times of how many were before it: a second import finds all of them again, wherever they moved in the
file. The day in a file's name is when a record was made. Comments that OpenClaw puts into an entry (`importance:`,
`trigger:`, `project:`) stay in the text and are in the metadata too.
"""

import os
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from memkeep.errors import FileError, quoted
from memkeep.records import moments
from memkeep.records.readers.base import Read, Refused
from memkeep.records.record import Record

name = "markdown-notes"

_SPACE = uuid.UUID("6d656d6b-6565-5070-8e6f-746573000000")
_LARGEST = 64 << 20
_NAMED = {"MEMORY.md": "long-term", "USER.md": "user", "DREAMS.md": "dreams"}
_FOLDER = "memory"
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?!\d)[^/]*\.md")
_HEADING = re.compile(r"(#{1,6})(?:\s+(.*?))?\s*#*")
_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?:\s+|$)")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_RULE = re.compile(r"\s*(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,}|={3,})")
_MARK = re.compile(r"<!--\s*(importance|trigger|project):\s*(.*?)\s*-->", re.DOTALL)


class _Block(NamedTuple):
    """Lines of a file that are one record."""

    line: int  # the first, from 1
    lines: list[bytes]
    headings: tuple[str, ...]


def fits(path: Path) -> bool:
    """Say whether a folder has memory in markdown, or a file is some."""
    if path.is_file():
        return path.name in _NAMED or (path.suffix == ".md" and _DAY.fullmatch(path.name) is not None)
    return path.is_dir() and next(_files(path), None) is not None


def read(path: Path) -> Iterator[Read]:
    """Yield the items and paragraphs of all notes of a folder, or of one file, in the order of paths and lines."""
    if not fits(path):
        raise FileError(f"{path} has no notes: no MEMORY.md, no {_FOLDER}/YYYY-MM-DD.md", hint=f"ls {quoted(path)}")
    for file, shown in sorted(_files(path), key=lambda each: each[1]):
        try:
            if file.stat().st_size > _LARGEST:
                yield Refused(where=shown, reason=f"more than {_LARGEST >> 20} MiB")
                continue
            data = file.read_bytes()
        except OSError as error:
            yield Refused(where=shown, reason=str(error))
            continue
        yield from records_of(shown, data)


def is_note(path: str) -> bool:
    """Say whether a path in a workspace is that of a note."""
    pure = PurePosixPath(path)
    if len(pure.parts) == 1:
        return path in _NAMED or _DAY.fullmatch(path) is not None
    return pure.parts[0] == _FOLDER and pure.suffix == ".md"


def records_of(path: str, data: bytes) -> Iterator[Read]:
    """Yield the records of one note; `path` is where it lies in its workspace."""
    before = Counter[str]()
    for block in _blocks(data):
        where = f"{path}, line {block.line}"
        try:
            raw = b"\n".join(block.lines).decode()
        except UnicodeDecodeError as error:
            yield Refused(where=where, reason=f"byte {error.start} is not UTF-8")
            continue
        item = _ITEM.match(raw)
        marker = item.group() if item else ""
        text = raw.removeprefix(marker).rstrip()
        if not text:
            continue
        yield _record(path, block, marker, text, before[text])
        before[text] += 1


def _record(path: str, block: _Block, marker: str, text: str, number: int) -> Record:
    file = PurePosixPath(path).name
    day = _DAY.fullmatch(file)
    said: dict[str, Any] = {"path": path, "line": block.line, "end_line": block.line + len(block.lines) - 1}
    said |= {"marker": marker} if marker else {}
    said |= {"headings": list(block.headings)} if block.headings else {}
    said |= dict(_MARK.findall(text))
    return Record(
        id=str(uuid.uuid5(_SPACE, f"{path}\0{text}\0{number}")),
        text=text,
        collection="notes",
        title=block.headings[-1] if block.headings else None,
        category="daily" if day else _NAMED.get(path),
        source=path,
        created_at=moments.from_raw(day[1], "iso") if day else None,
        metadata=said,
        system=name,
    )


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the notes of a workspace, of its folder `memory`, or one, each with its path in the workspace.

    Links are not followed: they may lead anywhere.
    """
    if path.is_file():
        yield path, f"{_FOLDER}/{path.name}" if path.parent.name == _FOLDER else path.name
        return
    before = f"{_FOLDER}/" if path.name == _FOLDER and not (path / _FOLDER).is_dir() else ""
    for folder, folders, names in os.walk(path):
        if Path(folder) == path and not before:
            folders[:] = [each for each in folders if each == _FOLDER]
        for each in names:
            file = Path(folder, each)
            shown = before + file.relative_to(path).as_posix()
            if is_note(shown) and not file.is_symlink() and file.is_file():
                yield file, shown


def _blocks(data: bytes) -> Iterator[_Block]:
    """Cut a note into list items and paragraphs; what is indented or fenced goes with what it stands under."""
    headings: list[tuple[int, str]] = []
    held = _Held()
    fence: bytes | None = None
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        shown = line.decode(errors="replace")
        if fence is not None:
            held.add(number, line)
            if line.strip().startswith(fence) and not line.strip().strip(fence[:1]):
                fence = None
        elif found := _FENCE.match(shown):
            if not line[:1].isspace() and held.is_item_over:
                yield from held.take(headings)
            held.add(number, line)
            fence = found[1].encode()
        elif not line.strip():
            held.blank()
        elif (head := _HEADING.fullmatch(shown)) is not None:
            yield from held.take(headings)
            headings = [*(each for each in headings if each[0] < len(head[1])), (len(head[1]), (head[2] or "").strip())]
        elif _RULE.fullmatch(shown):
            yield from held.take(headings)
        else:
            starts = _ITEM.match(shown) is not None
            if starts or (held.blanks and not line[:1].isspace()):
                yield from held.take(headings)
            held.add(number, line)
    yield from held.take(headings)


class _Held:
    """The lines of the block at hand."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._first = 0
        self.blanks = 0

    @property
    def is_item_over(self) -> bool:
        """Say whether a line that is not indented begins something new."""
        return self.blanks > 0

    def add(self, number: int, line: bytes) -> None:
        """Take in a line, and the empty ones before it."""
        if not self._lines:
            self._first, self.blanks = number, 0
        self._lines += [b""] * self.blanks
        self._lines.append(line)
        self.blanks = 0

    def blank(self) -> None:
        """Remember an empty line: it belongs to the block only when the block goes on."""
        self.blanks += 1

    def take(self, headings: list[tuple[int, str]]) -> Iterator[_Block]:
        """Give the block, if there is one, and begin anew."""
        if self._lines:
            yield _Block(self._first, self._lines, tuple(title for _, title in headings if title))
        self._lines, self.blanks = [], 0

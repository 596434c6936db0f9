"""One `memories.md` for people: grouped by client and project, else by scope, with what is hot and what is cold.

Below each heading a comment, which no viewer shows, says all fields of the record, so that the file is read back; the
text itself stands in a fence and may be edited there, unless it has letters that no such file keeps. Vectors are left
out and are the only loss. Visible texts are made safe: no record can end its fence, open a comment, or look like a
heading.

Of an oc-memory the pages of its scenes, which that product writes too, lie beside it; they are not read back.

    ##### 🔥 first line of the text
    <!-- memkeep {"id": ..., "metadata": {...}, ...} -->
    - **Id:** `...` **Category:** ... **Heat:** 0.92 ...

    ```
    the text
    ```
"""

import heapq
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from memkeep.errors import FileError, quoted
from memkeep.records.formats.base import About, Source
from memkeep.records.formats.heaps import Heaps
from memkeep.records.formats.scenes import line, write_scenes
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.json_stream import LIMIT, parse, unreadable
from memkeep.records.record import Portable, Record, Relationship
from memkeep.records.wire import from_object, to_object

name = "markdown"
lossless = False
FILE = "memories.md"
HOT, COLD = 0.7, 0.3
GRAPH = 100
"""Relationships that the graph shows at most; more can't be read, and viewers refuse them."""

_MARK = "<!-- memkeep "
_HEAD = b"<!-- memkeep-markdown 1 -->\n"
_PREVIEW = 100
_FENCE = re.compile(r"`{3,}")
_UNSAFE = re.compile(r"[^\w .:/@+-]")
_SHOWN = ("category", "scope", "user", "agent", "source", "status", "importance", "confidence", "created_at")


def losses(made: Portable) -> Iterable[str]:
    """Return the vectors of a record: nobody reads them."""
    if not isinstance(made, Record):
        return ()
    return [f"vectors.{one}" if one else "vectors" for one in made.vectors]


def fits(path: Path) -> bool:
    """Say whether a file, or a folder's `memories.md`, was written by memkeep."""
    try:
        with _file(path).open("rb") as file:
            return file.readline(len(_HEAD)) == _HEAD
    except OSError:
        return False


def write(source: Source, folder: Path) -> None:
    """Write the file; groups wait on disk while the records stream by."""
    work = folder / ".groups"
    work.mkdir()
    heaps = Heaps(work)
    for record in source.records():
        heaps.add(json.dumps(_group(record)), _entry(record).encode())
    with (folder / FILE).open("wb") as out:
        out.write(_head(source.about).encode())
        before: tuple[str, ...] = ()
        for key, heap in heaps.close().items():
            group: tuple[str, ...] = tuple(json.loads(key)[1:])
            for depth, title in enumerate(group):
                if group[: depth + 1] != before[: depth + 1]:
                    out.write(f"{'#' * (depth + 2)} {title}\n\n".encode())
            before = group
            with heap.file.open("rb") as entries:
                while data := entries.read(1 << 20):
                    out.write(data)
            heap.file.unlink()
        _write_relationships(out, source)
    work.rmdir()
    if source.about.system == "oc-memory":
        write_scenes(source, folder)


def read(path: Path) -> Iterator[Read]:
    """Yield the records and relationships of a file that memkeep wrote, with the texts as they stand there now."""
    file = _file(path)
    try:
        with file.open("rb") as stream:
            if stream.readline(len(_HEAD)) != _HEAD:
                raise FileError(f"{file} is no markdown that memkeep wrote", hint=f"head -1 {quoted(file)}")
            yield from _read(stream, file.name)
    except OSError as error:
        raise unreadable(file, error) from error


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def _head(about: About) -> str:
    said = [f"# Memories of {line(about.system)}", f"**Taken:** {line(about.taken)}"]
    said.append(f"**Memories and records:** {about.records:,} | **Relationships:** {about.relationships:,}")
    said.append(f"🔥 hot (> {HOT}) · ❄️ cold (< {COLD})")
    return _HEAD.decode() + "\n\n".join(said) + "\n\n---\n\n"


def _group(record: Record) -> tuple[str, ...]:
    """Return where a record stands: a number that puts the kinds of groups in order, then its headings."""
    client, project = _said(record, "client"), _said(record, "project")
    if not record.primary:
        return ("3", f"Beside the memories: {_visible(record.collection)}")
    if client or project:
        return ("0", f"Client: {_visible(client) or 'none'}", f"Project: {_visible(project) or 'General'}")
    if record.scope:
        word = "Scene" if record.system == "oc-memory" else "Scope"
        return ("1", f"{word}: {_visible(record.scope)}")
    return ("2", "General")


def _said(record: Record, key: str) -> str:
    """Return what a product says under a key, wherever it keeps such keys."""
    inner = record.metadata.get("metadata")
    places = (record.metadata, inner if isinstance(inner, dict) else {})
    found = (place.get(key) for place in places)
    said = next((one for one in found if isinstance(one, str) and one.strip()), "")
    return said or (record.scope or "" if key == "client" and record.system == "thanos" else "")


def _entry(record: Record) -> str:
    text, fence = _fenced(record.text)
    heat = record.heat if record.heat is not None else record.importance
    mark = "" if heat is None else "🔥 " if heat > HOT else "❄️ " if heat < COLD else ""
    first = next((each for each in record.text.splitlines() if each.strip()), "(no text)")
    preview = _visible(first)
    preview = preview if len(preview) <= _PREVIEW else f"{preview[: _PREVIEW - 1]}…"
    kept = to_object(msgspec.structs.replace(record, vectors={}))
    if text == record.text:
        del kept["text"]
    shown = [("heat", heat), *((field, getattr(record, field)) for field in _SHOWN)]
    facts = [f"**{_word(field)}:** {_number(value)}" for field, value in shown if value is not None and value != ""]
    tags = [f"**Tags:** {', '.join(_visible(tag) for tag in record.tags)}"] if record.tags else []
    about = " · ".join((f"**Id:** `{_visible(record.id)}`", *facts, *tags))
    return f"##### {mark}{preview}\n{_comment(kept)}\n- {about}\n\n{fence}\n{text}\n{fence}\n\n"


def _fenced(text: str) -> tuple[str, str]:
    """Return a text as it can stand in a file, and a fence that is not in it."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "\N{SYMBOL FOR NULL}").replace("\r", "\n")
    longest = max((len(run) for run in _FENCE.findall(text)), default=2)
    return text, "`" * (longest + 1)


def _comment(value: dict[str, Any]) -> str:
    """Return a comment of one line that nothing in it can end, not even in a table."""
    said = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>|\x7f\x85\u2028\u2029":
        said = said.replace(mark, f"\\u{ord(mark):04x}")
    return f"{_MARK}{said} -->"


def _visible(text: str) -> str:
    """Return a text as one line that is neither markup nor the end of any."""
    return line(text).replace("<", "‹").replace(">", "›").replace("`", "'").replace("|", "¦")  # noqa: RUF001


def _word(field: str) -> str:
    return field.removesuffix("_at").replace("_", " ").capitalize()


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else _visible(str(value))


def _write_relationships(out: BinaryIO, source: Source) -> None:
    strongest = heapq.nsmallest(GRAPH, source.relationships(), key=_order)
    if not strongest:
        return
    out.write(b"---\n\n## Relationships\n\n```mermaid\ngraph TD\n")
    nodes: dict[str, str] = {}
    for each in strongest:
        for end in (each.source, each.target):
            if end not in nodes:
                nodes[end] = f"M{len(nodes) + 1}"
                out.write(f'    {nodes[end]}["{_label(end)}"]\n'.encode())
        out.write(f'    {nodes[each.source]} -->|"{_label(_joined(each))}"| {nodes[each.target]}\n'.encode())
    out.write(b"```\n\n")
    total = source.about.relationships
    if total > GRAPH:
        out.write(f"*The {GRAPH} strongest of {total:,} are drawn; all are listed.*\n\n".encode())
    out.write(b"| Source | Relation | Target | Strength | |\n|---|---|---|---|---|\n")
    for each in source.relationships():
        strength = "" if each.strength is None else _number(each.strength)
        cells = (f"`{_visible(each.source)}`", _visible(each.type), f"`{_visible(each.target)}`", strength)
        out.write(f"| {' | '.join(cells)} | {_comment(to_object(each))} |\n".encode())


def _order(made: Relationship) -> tuple[float, str, str, str]:
    known = made.strength is not None and math.isfinite(made.strength)
    return (-(made.strength or 0.0) if known else 0.0, made.source, made.target, made.type)


def _joined(made: Relationship) -> str:
    return made.type if made.strength is None else f"{made.type} {made.strength:.2f}"


def _label(text: str) -> str:
    """Return a text that a graph's label can hold."""
    safe = _UNSAFE.sub("_", line(text))
    return safe if len(safe) <= 40 else f"{safe[:39]}…"  # noqa: PLR2004 - what a box has room for


def _read(stream: BinaryIO, file: str) -> Iterator[Read]:
    lines = enumerate(iter(lambda: stream.readline(LIMIT), b""), 2)
    for number, data in lines:
        start = data.find(_MARK.encode())
        if start < 0 or not (start == 0 or data.startswith(b"| ")):
            continue
        where = f"{file}, line {number}"
        try:
            said = parse(data[start + len(_MARK) : data.rindex(b"-->")])
            if start:
                yield from_object(said, Relationship)
            else:
                yield _record(said, lines)
        except ValueError as error:
            yield Refused(where=where, reason=str(error))


def _record(said: Any, lines: Iterator[tuple[int, bytes]]) -> Portable:
    text = _text(lines)
    if not isinstance(said, dict):
        return from_object(said, Record)
    return from_object({"text": text} | said, Record)


def _text(lines: Iterator[tuple[int, bytes]]) -> str:
    """Return what stands in the next fence."""
    opened: bytes | None = None
    held: list[bytes] = []
    for _, data in lines:
        bare = data.rstrip(b"\r\n")
        if opened is None:
            opened = bare if _FENCE.fullmatch(bare.decode(errors="replace")) else None
        elif bare == opened:
            return b"".join(held).decode(errors="replace").removesuffix("\n")
        else:
            held.append(data)
    raise ValueError("the file ends before the text of a record does")

"""One JSON document, `export.json`, as Thanos's guide has it.

    {
    "metadata": {"made_by": "memkeep", "version": "1.0", "timestamp": ..., "memory_count": n, ...},
    "memories": [
    {...},
    {...}
    ],
    "collections": {
     "<name>": [
    {...}
    ]
    },
    "relationships": [
    ]
    }

The objects are those that `objects` describes, each on a line of its own, so that a program need not hold the document
and git shows what changed. A document that was laid out anew is read too, at once.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from memkeep.records.formats.base import About, Source
from memkeep.records.formats.lines import BROKEN, after_memories, opening, records_of, why
from memkeep.records.formats.objects import Section, dump, encode, from_wire, load, provenance
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.json_stream import elements
from memkeep.records.record import Portable, Record

FILE = "export.json"
BUFFER = 1 << 20
_HEAD = 1 << 16
_LONGEST = 1 << 26  # bytes of what is said of the whole
_MAKER = re.compile(rb'\A\s*\{\s*"metadata"\s*:\s*\{\s*"made_by"\s*:\s*"memkeep"')
_OURS = re.compile(rb'\A\{\n"metadata": \{.*\},\n\Z')


_HEADS: dict[bytes, Section] = {
    b'"memories": [': "memories",
    b'"collections": {': "collections",
    b'"relationships": [': "relationships",
}


class _Line(NamedTuple):
    """An object and where it stands."""

    text: bytes
    section: Section
    collection: str


name = "json"
lossless = True


def losses(made: Portable) -> Iterable[str]:  # noqa: ARG001 - the contract's signature
    """Return nothing: it keeps all."""
    return ()


def write(source: Source, folder: Path) -> None:
    """Write the file; the counts at its beginning are put in when they are known."""
    about = source.about
    with (folder / FILE).open("wb", buffering=BUFFER) as file:
        file.write(_header(about, 0, 0))
        memories, relationships = _write_body(file, source)
        file.seek(0)
        file.write(_header(about, memories, relationships))


def fits(path: Path) -> bool:
    """Say whether it is the file, or a folder that has it."""
    if path.is_dir():
        return (path / FILE).is_file()
    if path.name == FILE:
        return True
    if path.suffix != ".json":
        return False
    try:
        with path.open("rb") as file:
            return _MAKER.match(file.read(_HEAD)) is not None
    except OSError:
        return False


def read(path: Path) -> Iterator[Read]:
    """Yield what the file holds."""
    file = path / FILE if path.is_dir() else path
    with opening(file), file.open("rb") as opened:
        ours = _OURS.match(opened.readline(_HEAD) + opened.readline(_LONGEST)) is not None
    yield from records_of(file, _lines(file), _made) if ours else _elements(file)


def _header(about: About, memories: int, relationships: int) -> bytes:
    """Return the beginning of the document, of one length whatever the counts."""
    said = provenance(about)
    first = {name: said.pop(name) for name in ("made_by", "version", "timestamp", "user_id") if name in said}
    counts = f',"memory_count":{memories:<15},"relationship_count":{relationships:<15},'.encode()
    return b'{\n"metadata": ' + dump(first)[:-1] + counts + dump(said)[1:] + b",\n"


def _write_body(file: BinaryIO, source: Source) -> tuple[int, int]:
    rows = iter(source.records())
    memories = 0
    beside: Record | None = None
    file.write(b'"memories": [')
    for one in rows:
        if not one.primary:
            beside = one
            break
        file.write(b",\n" if memories else b"\n")
        file.write(encode(one))
        memories += 1
    file.write(b"\n],\n")
    file.write(b'"collections": {')
    if beside is not None:
        _write_collections(file, beside, rows)
    file.write(b"\n},\n")
    relationships = 0
    file.write(b'"relationships": [')
    for joined in source.relationships():
        file.write(b",\n" if relationships else b"\n")
        file.write(encode(joined))
        relationships += 1
    file.write(b"\n]\n}\n")
    return memories, relationships


def _write_collections(file: BinaryIO, first: Record, rows: Iterator[Record]) -> None:
    named: set[str] = set()
    current: str | None = None
    one: Record | None = first
    while one is not None:
        if one.collection != current:
            if one.collection in named:
                raise ValueError(f"records of {one.collection} do not come together")
            file.write(b"\n" if current is None else b"\n],\n")
            current = one.collection
            named.add(current)
            file.write(b" " + dump(_key(current)) + b": [\n")  # a space, which the names of this format do not have
        else:
            file.write(b",\n")
        file.write(encode(one))
        one = next(rows, None)
        if one is not None:
            after_memories(one)
    file.write(b"\n]")


def _key(name: str) -> str:
    """Return the name of a collection as a key; its records have it as it is."""
    return name.encode("utf-8", "backslashreplace").decode()


def _lines(path: Path) -> Iterator[tuple[int, _Line | ValueError]]:
    """Yield the objects of a document that lies in lines, unread."""
    section: Section = "memories"
    collection = ""
    comma: bool | None = None  # whether the line before ended in one; None at the beginning of a list
    number = 2
    with path.open("rb") as file:
        file.readline(), file.readline()
        for number, line in enumerate(file, 3):
            text = line.rstrip(b"\n")
            if text.startswith(b"{"):
                if comma is False:
                    yield number, ValueError("there is no comma before it")
                comma = text.endswith(b",")
                yield number, _Line(text.removesuffix(b","), section, collection)
            elif text.startswith(b"]") and not comma:
                comma = None
            elif text in _HEADS:
                section = _HEADS[text]
            elif text.startswith(b' "') and text.endswith(b": ["):
                collection = load(text.removesuffix(b": ["))
            elif text == b"}" and section == "relationships":
                return
            elif text not in (b"},", b""):
                yield number, ValueError(f"this is no record: {text[:40]!r}")
    yield number, ValueError("the file ends too early")


def _made(line: _Line) -> Portable:
    return _with_collection(load(line.text), line.section, line.collection)


def _with_collection(wire: Any, section: Section, collection: str) -> Portable:
    if section == "collections" and isinstance(wire, dict):
        wire.setdefault("collection", collection)
    return from_wire(wire, section)


def _elements(path: Path) -> Iterator[Read]:
    """Yield the records of a document that is laid out in another way."""
    for one in elements(path):
        if isinstance(one, Refused):
            yield one
        elif one.key == "collections" and isinstance(one.value, dict):
            for collection, rows in one.value.items():
                for position, wire in enumerate(rows):
                    yield _read(wire, "collections", f"{one.where}, {collection}[{position}]", collection)
        elif one.position is not None and one.key in ("memories", "relationships"):
            yield _read(one.value, "memories" if one.key == "memories" else "relationships", one.where)


def _read(wire: Any, section: Section, where: str, collection: str = "") -> Read:
    try:
        return _with_collection(wire, section, collection)
    except BROKEN as error:
        return Refused(where=where, reason=why(error))

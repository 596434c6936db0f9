"""JSON Lines: `memories.jsonl`, `relationships.jsonl`, and `collections.jsonl` for what is beside the memories.

Each line is the object that `objects` describes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from memkeep.records.formats.base import Source
from memkeep.records.formats.lines import files_of, fits_files, records_of, write_sections
from memkeep.records.formats.objects import Section, encode, from_wire, load
from memkeep.records.readers.base import Read
from memkeep.records.record import Portable

BUFFER = 1 << 20


name = "jsonl"
lossless = True


def losses(made: Portable) -> Iterable[str]:  # noqa: ARG001 - the contract's signature
    """Return nothing: it keeps all."""
    return ()


def write(source: Source, folder: Path) -> None:
    """Write the files."""
    write_sections(folder, "jsonl", source.records(), source.relationships(), _opened)


def fits(path: Path) -> bool:
    """Say whether the names are those of this format."""
    return fits_files(path, "jsonl")


def read(path: Path) -> Iterator[Read]:
    """Yield what the files hold."""
    for file, section in files_of(path, "jsonl"):
        yield from records_of(file, _rows(file), partial(_made, section))


@contextmanager
def _opened(path: Path, section: Section) -> Iterator[Callable[[Portable], None]]:
    del section
    with path.open("wb", buffering=BUFFER) as file:

        def write(made: Portable) -> None:
            file.write(encode(made))
            file.write(b"\n")

        yield write


def _made(section: Section, line: bytes) -> Portable:
    return from_wire(load(line), section)


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield number, line

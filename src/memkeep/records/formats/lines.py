"""Files of records, one after another: what `json`, `jsonl` and `csv` share."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memkeep.errors import FileError, quoted
from memkeep.records.formats.objects import Section
from memkeep.records.readers.base import Read, Refused
from memkeep.records.record import Portable, Record

SECTIONS: tuple[Section, ...] = ("memories", "collections", "relationships")


BROKEN: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    OSError,
    RecursionError,
    OverflowError,
)
"""What reading the text, or taking apart the values, of a broken file raises."""


def unreadable(path: Path, reason: object) -> FileError:
    """Return the error that names a file which can't be read."""
    return FileError(f"{path} can't be read: {reason}", hint=f"memkeep export --verify {quoted(path.parent)}")


def why(error: BaseException) -> str:
    """Return what is wrong, for a person."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


@contextmanager
def opening(path: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a file that is none of this format makes of opening it into a `FileError`."""
    try:
        yield
    except (*BROKEN, *kinds) as error:
        raise unreadable(path, why(error)) from error


def records_of(path: Path, rows: Iterator[tuple[int, Any]], parse: Callable[[Any], Portable]) -> Iterator[Read]:
    """Yield the records of a file from its rows, each with its line.

    A row that is an exception, or of which `parse` makes none, is refused, and the rest is read. When `rows` fails the
    rest is refused, or all of it: `FileError`.
    """
    line = 0
    while True:
        try:
            found = next(rows, None)
        except BROKEN as error:
            if not line:
                raise unreadable(path, why(error)) from error
            yield Refused(where=f"{path.name}, after line {line}", reason=why(error))
            return
        if found is None:
            return
        line, row = found
        try:
            if isinstance(row, Exception):
                raise row
            made = parse(row)
        except BROKEN as error:
            yield Refused(where=f"{path.name}, line {line}", reason=why(error))
        else:
            yield made


def write_sections(
    folder: Path,
    suffix: str,
    records: Iterable[Record],
    relationships: Iterable[Portable],
    opened: Callable[[Path, Section], Any],
) -> None:
    """Write `memories`, `collections` (what is beside them, if there is any) and `relationships` as files.

    `opened(path, section)` is a context manager that gives what writes one record.
    """
    rows = iter(records)
    waiting: list[Record] = []
    with opened(folder / f"memories.{suffix}", "memories") as write:
        for one in rows:
            if not one.primary:
                waiting.append(one)
                break
            write(one)
    if waiting:
        with opened(folder / f"collections.{suffix}", "collections") as write:
            write(waiting[0])
            for one in rows:
                write(after_memories(one))
    with opened(folder / f"relationships.{suffix}", "relationships") as write:
        for joined in relationships:
            write(joined)


def after_memories(made: Record) -> Record:
    """Return a record that comes after the memories; a memory there breaks the contract of `Source`."""
    if made.primary:
        raise ValueError(f"the memory {made.id} comes after records that are none")
    return made


def files_of(path: Path, suffix: str) -> Iterator[tuple[Path, Section]]:
    """Yield the files of records in a folder, or the one that `path` is, each with what it holds."""
    if path.is_dir():
        for section in SECTIONS:
            one = path / f"{section}.{suffix}"
            if one.exists():
                yield one, section
    else:
        yield path, next((section for section in SECTIONS if section == path.stem), "memories")


def fits_files(path: Path, suffix: str) -> bool:
    """Say whether a folder has a file of memories with this suffix, or whether a file is named as one of records."""
    if path.is_dir():
        return (path / f"memories.{suffix}").is_file()
    return path.suffix == f".{suffix}" and path.stem in SECTIONS

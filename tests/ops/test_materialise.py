"""Files that are laid out: each is read again, long ones while they are written."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from memkeep.errors import DamagedError, StorageError
from memkeep.events import SILENT
from memkeep.model import Entry, Part, PartImage, Recipe, Role, StoredEntry
from memkeep.ops.materialise import lay_out

PIECE = os.urandom(1 << 20)
LONG = 20  # pieces: more than are written before reading begins, and no whole number of those


def image(pieces: int) -> PartImage:
    data = PIECE * pieces
    entry = Entry(path="long", kind="file", size=len(data), mode=0o600, mtime_ns=0)
    recipe = Recipe(size=len(data), digest=blake3(data).digest(), ids=b"", starts=b"", lengths=b"")
    part = Part(name="long", path="/long", engine="files", role=Role.CANONICAL)
    stored = StoredEntry(entry=entry, recipe=recipe)
    return PartImage(part=part, how="", entries=(stored,))


@pytest.mark.parametrize("pieces", [0, 1, 8, LONG])
def test_a_file_of_any_length_is_what_was_stored(tmp_path: Path, pieces: int) -> None:
    lay_out(lambda _: iter([PIECE] * pieces), [image(pieces)], tmp_path, SILENT)
    assert (tmp_path / "long").read_bytes() == PIECE * pieces


@pytest.mark.parametrize("at", [0, 12 << 20, LONG - 1 << 20])
def test_a_byte_that_the_disk_changes_is_noticed_wherever_it_lies(tmp_path: Path, at: int) -> None:
    def stream(_: Any) -> Iterator[bytes]:
        for number in range(LONG):
            yield PIECE
            if number == at >> 20:  # before this much of it is read back
                with (tmp_path / "long").open("r+b") as file:
                    file.seek(at)
                    file.write(bytes([PIECE[0] ^ 1]))

    with pytest.raises(StorageError, match="does not read back"):
        lay_out(stream, [image(LONG)], tmp_path, SILENT)


def test_a_file_whose_stream_breaks_off_is_not_closed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, real = threading.Event(), os.pread
    refused: list[OSError] = []

    def pread(*given: int) -> bytes:
        over.wait(30)
        try:
            return real(*given)
        except OSError as error:
            refused.append(error)
            raise

    def stream(_: Any) -> Iterator[bytes]:
        yield from [PIECE] * 17
        over.set()
        raise DamagedError("a chunk is lost")

    monkeypatch.setattr("memkeep.ops.materialise.os.pread", pread)
    with pytest.raises(DamagedError, match="a chunk is lost"):
        lay_out(stream, [image(LONG)], tmp_path, SILENT)
    assert not refused

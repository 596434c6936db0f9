"""Archives of OpenClaw are unpacked, and what is hostile in one stays harmless."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memkeep.errors import FileError, RefusedError
from memkeep.ops.discover import discover
from memkeep.records.readers import archive

ROOT = "2026-11-21T01-02-03.004+00-00-openclaw-backup"


def _tar(path: Path, *members: tuple[str, bytes | dict[str, Any]], compress: int = 6) -> Path:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as out:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(info, key, value)
                out.addfile(info, io.BytesIO(bytes(info.size)))
            else:
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(held.getvalue(), compress, mtime=0))
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_the_stores_in_an_archive_can_be_looked_for(tmp_path: Path, stores: Path, into: Path) -> None:
    state = stores / "openclaw-core-2026.9.6" / "state-dir"
    inside = f"{ROOT}/payload/posix/home/anna/.openclaw"
    manifest = {
        "schemaVersion": 1,
        "archiveRoot": ROOT,
        "assets": [
            {"kind": "state", "sourcePath": "/home/anna/.openclaw", "archivePath": inside},
            {"kind": "evil", "sourcePath": "/", "archivePath": "../../etc"},
        ],
    }
    files = [each for each in sorted(state.rglob("*")) if each.is_file()]
    path = _tar(
        tmp_path / "b.tar.gz",
        (f"{ROOT}/manifest.json", json.dumps(manifest).encode()),
        *((f"{inside}/{each.relative_to(state).as_posix()}", each.read_bytes()) for each in files),
    )
    assert archive.fits(path)
    done = archive.unpack(path, into)
    (asset,) = done.assets
    assert (asset.kind, asset.source) == ("state", "/home/anna/.openclaw")
    assert done.files == len(files) + 1
    assert done.root.name == ROOT
    assert {each.system for each in discover([str(asset.path)])} >= {"openclaw-core", "openclaw-hybrid"}
    assert (asset.path / "workspace" / "MEMORY.md").read_bytes() == (state / "workspace" / "MEMORY.md").read_bytes()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", f"{ROOT}/" + "d/" * 300 + "x", ""])
def test_an_entry_that_leads_elsewhere_is_refused(tmp_path: Path, into: Path, name: str) -> None:
    path = _tar(tmp_path / "b.tar.gz", (f"{ROOT}/whole", b"x"), (name, b"evil"))
    with pytest.raises(FileError, match="leads out"):
        archive.unpack(path, into)
    assert {each.name for each in tmp_path.iterdir()} == {"into", "b.tar.gz"}


def test_links_and_devices_are_left_out_and_told(tmp_path: Path, into: Path) -> None:
    path = _tar(
        tmp_path / "b.tar.gz",
        ("r/link", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
        ("r/hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("r/device", {"type": tarfile.BLKTYPE}),
        ("r/pipe", {"type": tarfile.FIFOTYPE}),
        ("r/whole", b"x"),
        ("r/link/passwd", b"evil"),
    )
    done = archive.unpack(path, into)
    assert [each.split(" ")[0] for each in done.omitted] == ["r/link", "r/hard", "r/device", "r/pipe"]
    assert (into / "r" / "link").is_dir()
    assert not (into / "r" / "link").is_symlink()
    assert not any(each.is_symlink() for each in into.rglob("*"))


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path, into: Path) -> None:
    path = _tar(tmp_path / "b.tar.gz", ("r/one", b"first"), ("r/one", b"second"))
    with pytest.raises(FileError):
        archive.unpack(path, into)
    assert (into / "r" / "one").read_bytes() == b"first"


def test_a_small_archive_of_a_large_folder_is_refused_before_it_is_one(tmp_path: Path, into: Path) -> None:
    path = _tar(tmp_path / "b.tar.gz", ("r/zeros", {"size": 64 << 20}), compress=9)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(FileError, match="unpacks to more than"):
        archive.unpack(path, into, limit=1 << 20)
    assert sum(each.stat().st_size for each in into.rglob("*")) < 20 << 20


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path, into: Path) -> None:
    path = _tar(tmp_path / "b.tar.gz", ("./PaxHeaders/x", {"type": tarfile.XHDTYPE, "size": 40 << 20}), ("r/x", b"x"))
    with pytest.raises(FileError, match="a header of"):
        archive.unpack(path, into)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    return data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]


def _flip_second_header(data: bytes) -> bytes:
    plain = bytearray(gzip.decompress(data))
    plain[1024] ^= 0xFF
    return gzip.compress(bytes(plain))


def _no_end(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:2048])


@pytest.mark.parametrize("damage", [_cut, _flip, _flip_second_header, _no_end])
def test_an_archive_that_is_damaged_is_told(tmp_path: Path, into: Path, damage: Callable[[bytes], bytes]) -> None:
    path = _tar(tmp_path / "b.tar.gz", ("r/one", b"first"), ("r/two", bytes(range(256)) * 2))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=r"b\.tar\.gz"):
        archive.unpack(path, into)


def test_nothing_is_unpacked_into_a_folder_with_something_in_it(tmp_path: Path, into: Path) -> None:
    (into / "mine").touch()
    with pytest.raises(RefusedError):
        archive.unpack(_tar(tmp_path / "b.tar.gz", ("r/one", b"x")), into)


def test_other_files_are_no_such_archive(tmp_path: Path) -> None:
    assert not archive.fits(_tar(tmp_path / "b.tar.gz", ("r/one", b"x")))
    (tmp_path / "x").write_bytes(b"x")
    assert not archive.fits(tmp_path / "x")
    assert not archive.fits(tmp_path)

"""One snapshot in one file: plain tools can read it, memkeep brings it back, and nothing wrong in it goes unnoticed."""

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from memkeep.errors import DamagedError, MemkeepError, RefusedError, StorageError, UnsupportedError, UsageError
from memkeep.events import SILENT
from memkeep.library import OpenVault
from memkeep.model import Rung
from memkeep.ops import parcel, tar
from memkeep.ops.age import Lock, Unlock, write_encrypted
from memkeep.ops.pack import _archive, _finished
from memkeep.ops.parcel_read import is_parcel, open_parcel
from memkeep.ops.unpack import restore_file, verify_file
from memkeep.testing import faults
from memkeep.testing.strikes import strike

Manifest = parcel.Manifest
LONG = "a rather long name of a folder " * 3 + "/" + "and of a note " * 6
ODD = [
    "plain.md",
    "back\\slash.md",
    "two\nlines.md",
    "ends\r.md",
    "ünï ☕.md",
    f"{LONG}.md",
    " spaces  .md",
    "empty.md",
]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Return a store of files with odd names, times, permissions and links."""
    folder = tmp_path / "notes"
    for number, name in enumerate(ODD):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty.md" else os.urandom(700) * number + name.encode())
        path.chmod(0o600 | number)
        os.utime(path, ns=(0, 1_700_000_000_123_456_789 + number if number else 1_700_000_000 * 10**9))
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "sub" / "deep" / "link.md").symlink_to("../../plain.md")
    (folder / "sub" / "nowhere.md").symlink_to("gone.md")
    (folder / "sub").chmod(0o2750)
    os.utime(folder / "sub", ns=(0, 1_600_000_000_987_654_321))
    return folder


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    """Return where a packed file is kept, so that it is made once."""
    return {}


@pytest.fixture
def packed(request: pytest.FixtureRequest, made: dict[str, bytes], tmp_path: Path) -> Path:
    """Return a packed file of a small openclaw-hybrid store."""
    file = tmp_path / "memory.tar.zst"
    if not made:
        vault = request.getfixturevalue("new_vault")()
        vault.backup(request.getfixturevalue("memory"))
        vault.pack("latest", file)
        made["file"] = file.read_bytes()
    file.write_bytes(made["file"])
    file.chmod(0o600)
    return file


@pytest.fixture
def odd(notes: Path, new_vault: Callable[..., OpenVault], tmp_path: Path) -> Path:
    """Return a packed file of the odd notes."""
    vault = new_vault()
    vault.backup(notes)
    vault.pack("latest", tmp_path / "odd.tar.zst")
    return tmp_path / "odd.tar.zst"


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that a restore brings back, by path."""
    found = {}
    for path in sorted(root.rglob("*")):
        now = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        when = 0 if path.is_symlink() else now.st_mtime_ns
        found[str(path.relative_to(root))] = (
            stat.S_IFMT(now.st_mode),
            0 if path.is_symlink() else stat.S_IMODE(now.st_mode),
            when,
            content,
        )
    return found


def unpack(file: Path, to: Path, *through: str) -> Path:
    """Unpack with the real tools; return the archive's folder."""
    to.mkdir()
    subprocess.run(["sh", "-c", 'zstd -dc "$0" | "$@" tar -xpf -', str(file), *through], cwd=to, check=True)
    return next(to.iterdir())


def script(folder: Path, target: Path, *shell: str) -> "subprocess.CompletedProcess[str]":
    """Run the restore script."""
    return subprocess.run(
        [*(shell or ("sh",)), str(folder / "restore.sh"), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )


def plain(file: Path) -> bytes:
    """Return the tar archive in a packed file."""
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(file.read_bytes())).read()


def disguise(file: Path, archive: bytes) -> Path:
    """Write an archive as a packed file whose last digest is right."""
    file.write_bytes(b"".join(_finished([archive])))
    return file


def lie(file: Path, change: Callable[[Manifest], Manifest], data: bytes | None = None) -> Path:
    """Write a packed file anew, all of it in keeping with a changed manifest; `data` is then in every file."""
    with open_parcel(file, Unlock()) as source:
        manifest = source.manifest
        held = {
            stored.entry.path: b"".join(source.stream(stored))
            for image in source.images
            for stored in image.entries
            if stored.entry.kind == "file"
        }

    def stream(stored: Any) -> Iterator[bytes]:
        yield held.get(stored.entry.path, b"") if data is None else data

    return disguise(file, b"".join(_archive(change(manifest), stream, SILENT)))


def with_entries(manifest: Manifest, *entries: parcel.PackedEntry) -> Manifest:
    """Return a manifest with more entries in its last part."""
    part = manifest.parts[-1]
    parts = (*manifest.parts[:-1], msgspec.structs.replace(part, entries=(*part.entries, *entries)))
    files = [one for part in parts for one in part.entries if one.kind == "file"]
    return msgspec.structs.replace(manifest, parts=parts, files=len(files), bytes=sum(one.size for one in files))


def test_what_comes_back_is_what_a_restore_from_the_vault_gives(
    memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path, tree_hash: Callable[[Path], dict[str, str]]
) -> None:
    vault = new_vault()
    report = vault.backup(memory).snapshots[0]
    done = vault.pack(report.id, tmp_path / "m.tar.zst")
    assert stat.S_IMODE((tmp_path / "m.tar.zst").stat().st_mode) == 0o600
    assert (done.records, done.files, done.packed_bytes) == (31, 5, (tmp_path / "m.tar.zst").stat().st_size)
    assert done.sha256 == hashlib.sha256((tmp_path / "m.tar.zst").read_bytes()).hexdigest()
    direct = vault.restore(report.id, to=tmp_path / "direct")
    shutil.rmtree(tmp_path / "home" / "vault")
    came = restore_file(tmp_path / "m.tar.zst", to=tmp_path / "carried")
    assert msgspec.structs.replace(came, to=direct.to) == direct
    assert tree_hash(tmp_path / "carried") == tree_hash(tmp_path / "direct")


def test_odd_names_times_permissions_and_links_come_back(odd: Path, notes: Path, tmp_path: Path) -> None:
    restore_file(odd, to=tmp_path / "back")
    assert tree(tmp_path / "back") == tree(notes)


def test_plain_tools_bring_back_the_same(odd: Path, notes: Path, tmp_path: Path) -> None:
    folder = unpack(odd, tmp_path / "un")
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked
    assert checked.stdout.count(b"OK") == len(ODD) + 2
    done = script(folder, tmp_path / "back")
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(tmp_path / "back") == tree(notes)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_script_runs_in_every_shell(
    packed: Path, tmp_path: Path, shell: str, debian: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    debian(shell)
    if shell == "busybox":  # and with its own tools
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("tar", "sha256sum", "sed", "find", "cp", "wc", "ls", "mv", "rm", "mkdir", "grep", "dirname"):
            (tools / name).symlink_to(str(shutil.which("busybox")))
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    folder = unpack(packed, tmp_path / "un")
    restore_file(packed, to=tmp_path / "direct")
    done = script(folder, tmp_path / "back", *([shell] if shell != "busybox" else [shell, "sh"]))
    assert (done.returncode, done.stderr) == (0, "")
    contents = [
        {name: (kind, mode, data) for name, (kind, mode, _, data) in tree(tmp_path / where).items()}
        for where in ("back", "direct")
    ]
    assert contents[0] == contents[1]


def test_the_script_refuses_what_is_there_and_what_was_changed(packed: Path, tmp_path: Path) -> None:
    folder = unpack(packed, tmp_path / "un")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").touch()
    assert "is not empty" in script(folder, target).stderr
    assert [path.name for path in target.iterdir()] == ["mine"]
    faults.flip(folder / "files" / "facts.db", 5000)
    done = script(folder, tmp_path / "new")
    assert done.returncode == 1
    assert "files/facts.db: FAILED" in done.stderr
    faults.flip(folder / "files" / "facts.db", 5000)
    (folder / "files" / "more").touch()
    assert "does not name" in script(folder, tmp_path / "new").stderr
    (folder / "files" / "more").unlink()
    assert script(folder, tmp_path / "new").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir() if "memkeep" in path.name) == []


def test_the_same_snapshot_makes_the_same_file(
    memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    vault.backup(memory)
    first, second = (vault.pack("latest", tmp_path / name).sha256 for name in ("one", "two"))
    assert first == second


def test_a_file_that_is_there_stays(memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path) -> None:
    vault = new_vault()
    vault.backup(memory)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RefusedError):
        vault.pack("latest", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_that_appears_meanwhile_stays(
    memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = new_vault()
    vault.backup(memory)
    monkeypatch.setattr("memkeep.ops.pack._refuse_existing", lambda path, _: path.write_text("mine"))
    with pytest.raises(RefusedError):
        vault.pack("latest", tmp_path / "raced")
    assert (tmp_path / "raced").read_text() == "mine"


def test_a_damaged_vault_makes_no_file(memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path) -> None:
    vault = new_vault()
    vault.backup(memory)
    for path in (tmp_path / "home" / "vault" / "data").rglob("*"):
        if path.is_file():
            for tenth in range(1, 10):
                faults.flip(path, path.stat().st_size * tenth // 10)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DamagedError):
        vault.pack("latest", out / "m.tar.zst")
    assert list(out.iterdir()) == []


def test_a_disk_that_fills_up_at_any_change_leaves_no_file(
    memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    vault = new_vault()
    vault.backup(memory)
    out = tmp_path / "out"
    out.mkdir()
    with strike(out, 0, errno.ENOSPC) as counted:
        vault.pack("latest", out / "m.tar.zst")
    (out / "m.tar.zst").unlink()
    changes = 0
    for at in range(1, counted.count + 1):
        with strike(out, at, errno.ENOSPC) as struck, suppress(StorageError):
            vault.pack("latest", out / "m.tar.zst")
        if struck.fell in {"open", "write", "fsync", "link"}:
            changes += 1
            assert not (out / "m.tar.zst").exists(), struck.fell
        (out / "m.tar.zst").unlink(missing_ok=True)
        assert len(list(out.iterdir())) == (struck.fell == "unlink")
    assert changes >= 3


def test_a_restore_whose_disk_fills_up_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with strike(out, 0, errno.ENOSPC) as counted:
        restore_file(packed, to=out / "back")
    shutil.rmtree(out / "back")
    for at in range(1, counted.count + 1):
        with strike(out, at, errno.ENOSPC) as struck:
            try:
                restore_file(packed, to=out / "back")
            except StorageError:
                assert not (out / "back").exists()
        if struck.fell == "write":
            assert list(out.iterdir()) == []
        shutil.rmtree(out / "back", ignore_errors=True)


def test_any_flipped_byte_is_found(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    broken = tmp_path / "broken.tar.zst"
    for at in [*range(64), *range(64, len(whole) - 64, 29), *range(len(whole) - 64, len(whole))]:
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        assert is_parcel(str(broken))
        found = verify_file(broken, rung=Rung.INTACT)
        assert found.rung is Rung.NONE, at
        assert found.findings[0].object


def test_a_cut_or_longer_file_is_found(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    broken = tmp_path / "broken.tar.zst"
    for data in [*(whole[:at] for at in range(4, len(whole), 53)), whole[:-1], whole + b"\0", whole + whole[-40:]]:
        broken.write_bytes(data)
        with pytest.raises(DamagedError):
            restore_file(broken, to=tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_any_changed_byte_of_the_archive_is_named_though_the_digest_of_the_whole_was_made_anew(
    packed: Path, tmp_path: Path
) -> None:
    archive = plain(packed)
    whole = verify_file(packed, rung=Rung.INTACT)
    assert (whole.rung, whole.findings) == (Rung.INTACT, ())
    for at in range(0, len(archive), 397):
        changed = archive[:at] + bytes([archive[at] ^ (1 << at % 8)]) + archive[at + 1 :]
        found = verify_file(disguise(tmp_path / "broken.tar.zst", changed), rung=Rung.INTACT)
        assert found.rung is Rung.NONE, at
        assert found.findings[0].object


def test_a_changed_memory_is_named_by_its_file(packed: Path) -> None:
    archive = plain(packed)
    at = archive.index(b"SQLite format 3") + 9000
    disguise(packed, archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :])
    [found] = verify_file(packed).findings
    assert found.object == "files/facts.db"
    assert found.mend.startswith(f"sha256sum {packed}   # ")


def test_members_that_are_swapped_doubled_or_dropped_are_found(packed: Path, tmp_path: Path) -> None:
    archive = plain(packed)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        starts = [member.offset for member in opened]
    pieces = [archive[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    for at in range(len(pieces)):
        swapped = [*pieces[:at], *reversed(pieces[at : at + 2]), *pieces[at + 2 :]]
        for changed in (swapped, [*pieces[:at], *pieces[at + 1 :]], [*pieces[: at + 1], *pieces[at:]]):
            if changed != pieces:
                with pytest.raises(DamagedError):
                    restore_file(disguise(packed, b"".join(changed)), to=tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "entry",
    [
        parcel.PackedEntry(path="../out", blake3="0" * 64),
        parcel.PackedEntry(path="/tmp/out", blake3="0" * 64),
        parcel.PackedEntry(path="lancedb/../../out", blake3="0" * 64),
        parcel.PackedEntry(path="memory.wal", blake3="0" * 64),
        parcel.PackedEntry(path="lancedb/memories.lance/link", kind="link", target="../../../out"),
        parcel.PackedEntry(path="lancedb/memories.lance/link", kind="link", target="/etc/passwd"),
        parcel.PackedEntry(path="lancedb/memories.lance/data", blake3="0" * 64),
        parcel.PackedEntry(path="lancedb/memories.lance/dev", kind="char"),
        parcel.PackedEntry(path="lancedb/memories.lance/x", size=-1, blake3="0" * 64),
        parcel.PackedEntry(path="elsewhere", blake3="0" * 64),
    ],
    ids=lambda entry: f"{entry.kind} {entry.path} {entry.target}".strip(),
)
def test_a_manifest_that_leads_out_of_the_target_is_refused(packed: Path, tmp_path: Path, entry: Any) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DamagedError):
        restore_file(lie(packed, lambda manifest: with_entries(manifest, entry)), to=tmp_path / "back")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_says_it_is_too_large_is_refused_before_anything_is_written(packed: Path, tmp_path: Path) -> None:
    huge = parcel.PackedEntry(path="lancedb/memories.lance/huge", size=1 << 60, blake3="0" * 64)
    archive = plain(packed)
    with open_parcel(packed, Unlock()) as source:
        data = parcel.encode(manifest := with_entries(source.manifest, huge))
    end = archive.index(parcel.members(manifest).__next__().header)
    lying = parcel.head(manifest, len(data)) + data + tar.padding(len(data)) + archive[end:]
    with pytest.raises(StorageError, match="are free at"):
        restore_file(disguise(packed, lying), to=tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_zeros_without_end_are_not_unpacked(packed: Path, tmp_path: Path) -> None:
    archive = plain(packed)
    bomb = [archive[: -len(tar.END)], *[bytes(1 << 20)] * 2000]
    packed.write_bytes(b"".join(_finished(bomb)))
    assert packed.stat().st_size < 200_000
    with pytest.raises(DamagedError):
        restore_file(packed, to=tmp_path / "back")


def test_an_archive_that_another_tool_made_is_refused(packed: Path, tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind in (("../evil", tarfile.REGTYPE), ("/dev/evil", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            archive.addfile(member)
    with pytest.raises(DamagedError):
        restore_file(disguise(packed, made.getvalue()), to=tmp_path / "back")


def test_only_some_parts_come_back_when_asked(packed: Path, tmp_path: Path) -> None:
    done = restore_file(packed, to=tmp_path / "back", parts=["memory.wal"])
    assert (done.files, done.records, [path.name for path in (tmp_path / "back").iterdir()]) == (
        1,
        None,
        ["memory.wal"],
    )
    with pytest.raises(UsageError, match="it has facts"):
        restore_file(packed, to=tmp_path / "other", parts=["nothing"])


def test_a_target_that_is_not_empty_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        restore_file(packed, to=tmp_path)
    with open_parcel(packed, Unlock()) as source:
        live = Path(source.manifest.path)
    live.mkdir(parents=True, exist_ok=True)
    with pytest.raises(RefusedError, match="live store"):
        restore_file(packed, to=live / "inside")


def test_a_dry_run_writes_nothing(packed: Path, tmp_path: Path) -> None:
    done = restore_file(packed, to=tmp_path / "back", dry_run=True)
    assert (done.files, done.rung) == (5, Rung.NONE)
    assert not (tmp_path / "back").exists()


def test_a_database_that_was_damaged_when_it_was_backed_up_is_brought_back_and_named(
    memory: Path, new_vault: Callable[..., OpenVault], tmp_path: Path
) -> None:
    data = bytearray((memory / "facts.db").read_bytes())
    data[4096 * 3 : 4096 * 3 + 60] = bytes(60)
    (memory / "facts.db").write_bytes(data)
    vault = new_vault()
    vault.backup(memory, verify=False)
    vault.pack("latest", tmp_path / "m.tar.zst")
    done = restore_file(tmp_path / "m.tar.zst", to=tmp_path / "back")
    assert (tmp_path / "back" / "facts.db").exists()
    assert done.rung is Rung.INTACT
    assert {one.part for one in done.findings} == {"facts.db"}


def test_verify_climbs_as_far_as_a_file_goes(packed: Path) -> None:
    assert [verify_file(packed, rung=rung).rung for rung in (Rung.PRESENT, Rung.READABLE, Rung.EQUIVALENT)] == [
        Rung.PRESENT,
        Rung.READABLE,
        Rung.RESTORABLE,
    ]


def test_no_error_is_of_another_kind(packed: Path, tmp_path: Path) -> None:
    """A manifest of any other shape is damage too."""
    archive = plain(packed)
    for text in (b"", b"{}", b"[]", b'{"format": 1}', b"\xff" * 40, b"[" * 100_000):
        with open_parcel(packed, Unlock()) as source:
            head = parcel.head(source.manifest, len(text))
        disguise(broken := tmp_path / "broken.tar.zst", head + text + tar.padding(len(text)) + archive[-5000:])
        with pytest.raises(MemkeepError) as caught:
            restore_file(broken, to=tmp_path / "back")
        assert caught.value.exit == 20


def test_scratch_is_private(packed: Path, tmp_path: Path, private_tmp: Path) -> None:
    assert tempfile.gettempdir() == str(private_tmp)
    restore_file(packed, to=tmp_path / "back")
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o700


def test_a_passphrase_that_is_too_costly_to_try_here_is_not_called_wrong(tmp_path: Path) -> None:
    out = io.BytesIO()
    write_encrypted([b"plain"], out, Lock(passphrase="pw"))
    costly, times = re.subn(rb"(-> scrypt \S+) \d+", rb"\1 60", out.getvalue())
    assert times == 1
    file = tmp_path / "memory.tar.zst.age"
    file.write_bytes(costly)
    with pytest.raises(UnsupportedError, match="more work") as error:
        verify_file(file, unlock=Unlock(passphrase="pw"))
    plain = tmp_path / "memory.tar.zst"
    assert error.value.hint.startswith(f"age -d -o {plain} {file} && memkeep restore {plain} ")
    assert error.value.hint.endswith(f"memkeep restore {plain} --to DIR   # Debian's `age`")

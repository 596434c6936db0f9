"""Kill a pack, and then a restore of what was packed, at every change to the disk; print how many changes those were.

killed_packs.py VAULT FOLDER      the vault has a snapshot; FOLDER is empty
"""

import hashlib
import os
import sys
from pathlib import Path

import memkeep
from memkeep.testing.strikes import killed

os.fsync = lambda _: None  # no power fails here


def main(vault: Path, folder: Path) -> int:
    opened = memkeep.open_vault(vault, "pw")
    file, back = folder / "memory.tar.zst", folder / "back"
    want = opened.pack("latest", file).sha256
    memkeep.restore_file(file, to=back)
    content = hashes(back)
    kills = 0
    while True:
        kills += 1
        file.unlink(missing_ok=True)
        was_killed = killed(folder, kills, lambda: opened.pack("latest", file))
        if not file.exists():
            opened.pack("latest", file)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == want
        file.unlink()
        opened.pack("latest", file)  # which tidies up
        assert sorted(path.name for path in folder.iterdir()) == ["back", "memory.tar.zst"]
        if not was_killed:
            break
    at = 0
    while True:
        at += 1
        back.rename(folder / "old")
        was_killed = killed(folder, at, lambda: memkeep.restore_file(file, to=back))
        if not back.exists():
            memkeep.restore_file(file, to=back)
        assert hashes(back) == content
        assert not [path for path in folder.iterdir() if path.name.startswith(".")] or was_killed
        for path in sorted((folder / "old").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (folder / "old").rmdir()
        if not was_killed:
            return kills + at


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))  # noqa: T201 - what the test reads

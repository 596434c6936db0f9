"""Notes as a git repository remembers them: what was deleted or rewritten since is found again.

Git is asked only for what its objects say; nothing of the repository's own settings is run, and nothing is fetched.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from memkeep.errors import FileError, UnsupportedError, quoted
from memkeep.records import moments
from memkeep.records.readers.base import Read, Refused
from memkeep.records.readers.notes import is_note, records_of
from memkeep.records.record import Record

_SAFE = ("-c", "protocol.allow=never")  # an object that is missing is not fetched: that runs what the settings say
_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
_LARGEST = 64 << 20
_NOTHING = "0" * 40


class _Version(NamedTuple):
    """A note as a commit left it."""

    path: str
    blob: str
    commit: str
    seconds: int


def is_repository(path: Path) -> bool:
    """Say whether a folder lies in a git repository."""
    try:
        return _git(path, "rev-parse", "--is-inside-work-tree").strip() == b"true"
    except (FileError, UnsupportedError):
        return False


def read_history(path: Path) -> Iterator[Read]:
    """Yield each item and paragraph that any commit of any branch had, once, oldest first.

    What the newest commit no longer has is `archived`. A record was made on the day in its file's name, else when the
    first commit had it; `commit` in the metadata is the last one that had it so. `path` is the workspace: a repository
    or a folder in one. Raises `FileError`.
    """
    versions = _versions(path)
    last = {(each.path, each.blob): each for each in versions}
    now = {(shown, blob) for shown, blob in _tree(path)}
    with _blobs(path) as blob_of:
        present: set[str] = set()
        for shown, blob in sorted(now):
            present |= {each.id for each in _records(shown, blob_of(blob)) if isinstance(each, Record)}
        told: set[str] = set()
        read: set[tuple[str, str]] = set()
        for version in versions:
            if (version.path, version.blob) in read:
                continue
            read.add((version.path, version.blob))
            for each in _records(version.path, blob_of(version.blob)):
                if isinstance(each, Refused):
                    yield Refused(where=f"{version.commit[:12]}:{each.where}", reason=each.reason)
                elif isinstance(each, Record) and each.id not in told:
                    told.add(each.id)
                    commit = last[version.path, version.blob].commit
                    yield _dated(each, version, commit, archived=each.id not in present)


def _dated(record: Record, version: _Version, commit: str, *, archived: bool) -> Record:
    return msgspec.structs.replace(
        record,
        created_at=record.created_at or moments.from_raw(version.seconds, "s"),
        status="archived" if archived else None,
        metadata=record.metadata | {"commit": commit},
    )


def _records(path: str, data: bytes | None) -> Iterator[Read]:
    if data is None:
        yield Refused(where=path, reason="git has no such object, or it is too large")
    else:
        yield from records_of(path, data)


def _versions(path: Path) -> list[_Version]:
    """Return what commits left of each note, oldest first."""
    said = _git(
        path,
        *("log", "--all", "--reverse", "--diff-merges=separate", "--no-renames", "--relative", "--raw", "--no-abbrev"),
        *("-z", "--format=%x01%H %ct"),
    )
    found: list[_Version] = []
    commit, seconds, blob = "", 0, _NOTHING
    for part in said.split(b"\0"):
        field = part.decode("utf-8", "surrogateescape").lstrip("\n")
        if field.startswith("\x01"):
            commit, _, time = field[1:].partition(" ")
            time, _, field = time.partition("\n")
            seconds = int(time)
        if field.startswith(":"):
            _, mode, _, new, _ = field.split(" ", 4)
            blob = new if mode.startswith("100") else _NOTHING  # a file: no link, no other repository
        elif field and not field.startswith("\x01") and blob.strip("0") and is_note(field):
            found.append(_Version(field, blob, commit, seconds))
    return found


def _tree(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the notes of the newest commit, and their blobs."""
    try:
        said = _git(path, "ls-tree", "-r", "-z", "HEAD")
    except FileError:  # no commit on this branch yet
        return
    for part in said.split(b"\0"):
        head, _, shown = part.decode("utf-8", "surrogateescape").partition("\t")
        if head.startswith("100") and is_note(shown):
            yield shown, head.split(" ")[2]


@contextmanager
def _blobs(path: Path) -> Iterator["_Blobs"]:
    process = subprocess.Popen(
        _command(path, "cat-file", "--batch"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    )
    try:
        yield _Blobs(cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout))
    finally:
        process.kill()
        process.communicate()


class _Blobs:
    """The content of git's objects."""

    def __init__(self, ask: IO[bytes], answer: IO[bytes]) -> None:
        self._ask = ask
        self._answer = answer

    def __call__(self, blob: str) -> bytes | None:
        """Return an object's bytes; None when it is not there, or larger than any note."""
        self._ask.write(f"{blob}\n".encode())
        self._ask.flush()
        head = self._answer.readline().split()
        if len(head) != 3 or head[1] != b"blob":  # noqa: PLR2004 - name, kind, size
            return None
        size = int(head[2])
        if size > _LARGEST:
            left = size + 1
            while left:
                left -= len(self._answer.read(min(left, 1 << 20))) or left
            return None
        return self._answer.read(size + 1)[:size]


def _git(path: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(_command(path, *words), capture_output=True, check=False, env=_environment())
    except OSError as error:
        raise UnsupportedError(f"git can't be started: {error}", hint="apt-get install git") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        raise FileError(
            f"git can't read {path}: {why[-1] if why else 'it failed'}", hint=f"git -C {quoted(path)} log -1"
        )
    return done.stdout


def _command(path: Path, *words: str) -> list[str]:
    return ["git", "-C", str(path), "--no-pager", *_SAFE, *words]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | _ENVIRONMENT

"""Commit an export in the git workspace that it lies in: its own files, and nothing else of what is there."""

import os
import re
import shlex
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from memkeep.errors import MemkeepError, UnsupportedError
from memkeep.model import Value
from memkeep.ops.exported import metadata_of
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.readers.base import Refused
from memkeep.records.record import Portable, Record
from memkeep.records.secrets import redact
from memkeep.records.wire import pack

TITLES = 10  # in the message of a commit
_TITLE = 60  # characters
_INHERITED = ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "OBJECT_DIRECTORY", "COMMON_DIR", "NAMESPACE")
_LOGIN = re.compile(r"//[^/@\s]+@")
Seen = dict[bytes, bytes]
"""Of each record what names it and what it holds, both as digests; the name begins with what it is."""

_RECORD, _RELATIONSHIP = b"r", b"l"


class Changes(Value):
    """What differs between two exports, in records; a few of their titles."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    relationships: int = 0  # added, changed or removed
    titles: tuple[str, ...] = ()


def seen(folder: Path) -> Seen:
    """Return what an export holds; nothing when there is none, or it can't be read."""
    return dict(_seen(one) for one in _read(folder))


def changes(before: Path, after: Path, old: Seen) -> Changes:
    """Compare an export with an earlier one, which held `old`."""
    added = changed = links = 0
    titles: list[str] = []
    left = dict(old)
    for one in _read(after):
        name, held = _seen(one)
        was = left.pop(name, None)
        if was == held:
            continue
        if not isinstance(one, Record):
            links += 1
            continue
        added, changed = (added + 1, changed) if was is None else (added, changed + 1)
        if len(titles) < TITLES:
            titles.append(f"{'+' if was is None else '~'} {_title(one)}")
    removed = sum(name.startswith(_RECORD) for name in left)
    if removed and len(titles) < TITLES:
        gone = (one for one in _read(before) if isinstance(one, Record) and _seen(one)[0] in left)
        titles += [f"- {_title(one)}" for one, _ in zip(gone, range(TITLES - len(titles)), strict=False)]
    links += len(left) - removed
    return Changes(added=added, changed=changed, removed=removed, relationships=links, titles=tuple(titles))


def workspace(folder: Path) -> Path | None:
    """Return the top of the git workspace that a folder lies, or would lie, in; `UnsupportedError` without git."""
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    found = _git(there, "rev-parse", "--show-toplevel", check=False)
    top = found.stdout.rstrip("\n")
    return Path(top).resolve() if found.returncode == 0 and top else None


def begin(folder: Path) -> None:
    """Make a folder a git workspace of its own."""
    _git(folder, "init", "--quiet")


def commit(folder: Path, names: Collection[str], system: str, made: Changes) -> str | None:
    """Commit the export's files, those that are gone too; return the commit, or None when nothing is different."""
    tracked = set(_git(folder, "ls-files", "-z").stdout.split("\0"))
    there = [name for name in names if (folder / name).exists()]
    known = sorted({*there, *(tracked & set(names))})
    _git(folder, "add", "--pathspec-from-file=-", "--pathspec-file-nul", stdin="\0".join(there))
    changed = _git(folder, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", ".").stdout
    if not _concerns(folder, changed, known):
        return None
    words = ["commit", "--quiet", "--only", "--pathspec-from-file=-", "--pathspec-file-nul"]
    for text in _message(system, made):
        words += ["--message", text]
    _git(folder, *words, stdin="\0".join(known))
    return _git(folder, "rev-parse", "HEAD").stdout.strip()


def push(folder: Path, committed: str) -> None:
    """Push; raises `MemkeepError` (`push_failed`) when the commit stays here."""
    done = _git(folder, "-c", "push.autoSetupRemote=true", "push", "--quiet", check=False)
    if done.returncode:
        then = "push" if _git(folder, "remote").stdout else "remote add origin URL"
        raise MemkeepError(
            f"git could not push: {_said(done)}",
            unchanged=f"The export is written and committed here, as {committed[:12]}.",
            hint=f"git -C {shlex.quote(str(folder))} {then}",
            code="push_failed",
        )


def _concerns(folder: Path, status: str, known: Sequence[str]) -> bool:
    """Say whether one of the files is among those that git calls changed; git names them from the top."""
    top = workspace(folder) or folder
    wanted = {(folder / name).resolve().relative_to(top).as_posix() for name in known}
    return any(one[3:] in wanted for one in status.split("\0"))


def _message(system: str, made: Changes) -> Iterable[str]:
    numbers = [(made.added, "added"), (made.changed, "changed"), (made.removed, "removed")]
    words = [f"{many:,} {word}" for many, word in numbers if many]
    if made.relationships:
        words.append(f"{made.relationships:,} {'link' if made.relationships == 1 else 'links'} changed")
    yield f"Memory of {system}: {', '.join(words) or 'the same records'}"
    if made.titles:
        more = made.added + made.changed + made.removed - len(made.titles)
        yield "\n".join((*made.titles, *([f"and {more:,} more"] if more else [])))


def _read(folder: Path) -> Iterable[Portable]:
    """Yield the records of an export as far as they can be read."""
    said = metadata_of(folder)
    format_ = next((one for one in FORMATS if one.name == said.get("format")), None)
    if format_ is None:
        return
    try:
        for one in format_.read(folder):
            if not isinstance(one, Refused):
                yield one
    except MemkeepError:  # what is broken is replaced; the message then speaks of less
        return


def _seen(one: Portable) -> tuple[bytes, bytes]:
    from blake3 import blake3

    kind, name = (
        (_RECORD, (one.collection, one.id))
        if isinstance(one, Record)
        else (_RELATIONSHIP, (one.collection, one.id or "", one.source, one.target, one.type))
    )
    spelled = "\0".join(name).encode("utf-8", "surrogatepass")
    return kind + blake3(spelled).digest(16), blake3(pack(one)).digest(8)


def _title(one: Record) -> str:
    """Return a line that tells a person which memory it is, without what the export would not show."""
    text = " ".join(redact(one.title or one.text or one.id).split())
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _TITLE else shown[: _TITLE - 1] + "…"


def _git(folder: Path, *words: str, stdin: str | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":
    environ = {name: text for name, text in os.environ.items() if name not in {f"GIT_{one}" for one in _INHERITED}}
    environ |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["git", "--literal-pathspecs", "-C", str(folder), *words],
            input=stdin or "",
            env=environ,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError as error:
        raise UnsupportedError(
            "git is not installed", unchanged="Nothing was committed.", hint="apt-get install git"
        ) from error
    if check and done.returncode:
        verb = next(word for word in words if not word.startswith("-"))
        raise MemkeepError(
            f"git {verb} failed: {_said(done)}",
            unchanged="The export is written; it is not committed.",
            hint=f"git -C {shlex.quote(str(folder))} status",
            code="git_failed",
        )
    return done


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """Return what git said, in one line and without the login of a remote."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return _LOGIN.sub("//", redact("; ".join(lines[:4]))) or f"it ended with {done.returncode}"

"""What lies in a file or folder part, without reading a file: names, kinds and states, and what is left out and why.

Patterns are those of `fnmatch` on the path under the part's folder; `*` also crosses `/`. A folder that matches
`exclude` is left out with all that is in it. What a pattern leaves out belongs elsewhere and is not spoken of.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec

from memkeep.errors import StoreError
from memkeep.model import Finding, Omission, Part, Severity

ENV_REASON = ".env files are never taken"
VANISHED = "vanished while it was read"
UNNAMEABLE = "its name is not valid UTF-8"
_OTHERS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class Seen(msgspec.Struct, frozen=True):
    """One file, folder or link as it was found."""

    path: str  # under the store's root, POSIX
    under: str  # under the part's folder; the file's name when the part is one file
    place: Path
    kind: str  # "file", "dir" or "link"
    state: tuple[int, ...]  # of a file: device, inode, size, mtime in ns, ctime in ns; else device and inode
    size: int
    mode: int
    mtime_ns: int
    target: str = ""


class Walk:
    """One look at a part."""

    def __init__(self, part: Part, root: Path, top: Path) -> None:
        """Begin; `top` is the part's file or folder, `root` the folder that links may lead to."""
        self.omitted: list[Omission] = []
        self.findings: list[Finding] = []
        self._part = part
        self._top = top
        self._name = "" if part.name == "." else part.name
        self._excluded = frozenset(part.exclude)
        if not top.is_relative_to(root):  # a part that lies elsewhere: its own folder
            root = top if top.is_dir() and not top.is_symlink() else top.parent
        self._bounds = Path(os.path.realpath(root))

    def look(self) -> list[Seen]:
        """Return all that is there, in ascending order of the path; raises `StoreError` when the part is gone."""
        try:
            if not self._name:  # the root itself, which may be a link to where it lies
                found = list(self._folder(self._top, "", self._top.stat()))
            else:
                found = list(self._one(self._top, self._name, "", self._top.lstat()))
        except FileNotFoundError:
            raise StoreError(f"{self._top} is gone", hint=f"ls -la {shlex.quote(str(self._top.parent))}") from None
        except NotADirectoryError as error:
            raise StoreError(f"{self._top} is not a folder", hint=f"ls -la {shlex.quote(str(self._top))}") from error
        if self._part.include:
            kept = {str(parent) for seen in found if seen.kind != "dir" for parent in PurePosixPath(seen.path).parents}
            found = [seen for seen in found if seen.kind != "dir" or seen.path in kept]
        return sorted(found, key=lambda seen: seen.path)

    def leave(self, path: str, reason: str) -> None:
        """Note something that is not taken."""
        self.omitted.append(Omission(part=shown(path), reason=reason))

    def unread(self, path: str, error: OSError) -> None:
        """Note something that could not be read."""
        why = error.strerror or str(error)
        self.leave(path, f"cannot be read: {why}")
        self.findings.append(
            Finding(
                code="part_unread",
                severity=Severity.ERROR,
                message=f"{shown(path)} cannot be read: {why}",
                part=shown(path),
                mend="Let the user who runs memkeep read it, then back up again.",
            )
        )

    def _one(self, place: Path, path: str, under: str, now: os.stat_result) -> Iterator[Seen]:
        name = place.name
        if not is_text(path):
            self._unnameable(path)
        elif is_dotenv(name):
            self.leave(path, ENV_REASON)
        elif stat.S_ISDIR(now.st_mode):
            yield from self._folder(place, path, now)
        elif not self._included(under or name):
            return
        elif stat.S_ISLNK(now.st_mode):
            yield from self._link(place, path, under or name, now)
        elif stat.S_ISREG(now.st_mode):
            yield seen_file(place, path, under or name, now)
        else:
            self.leave(path, f"{_OTHERS.get(stat.S_IFMT(now.st_mode), 'something')}, not a file")

    def _folder(self, place: Path, path: str, now: os.stat_result) -> Iterator[Seen]:
        under = "" if place == self._top else place.relative_to(self._top).as_posix()
        if path:
            yield Seen(
                path, under, place, "dir", (now.st_dev, now.st_ino), 0, stat.S_IMODE(now.st_mode), now.st_mtime_ns
            )
        try:
            with os.scandir(place) as listing:
                names = sorted(entry.name for entry in listing)
        except FileNotFoundError:
            if place == self._top:
                raise
            self.leave(path, VANISHED)
            return
        except NotADirectoryError:
            raise
        except OSError as error:
            if place == self._top:
                raise StoreError(
                    f"{place} cannot be read: {error.strerror}", hint=f"ls -la {shlex.quote(str(place))}"
                ) from error
            self.unread(path, error)
            return
        for name in names:
            inner = f"{under}/{name}" if under else name
            if self._is_excluded(inner):
                continue
            try:
                state = os.lstat(place / name)
            except FileNotFoundError:
                self.leave(_joined(path, name), VANISHED)
                continue
            yield from self._one(place / name, _joined(path, name), inner, state)

    def _link(self, place: Path, path: str, under: str, now: os.stat_result) -> Iterator[Seen]:
        try:
            target = os.readlink(place)  # noqa: PTH115 - the text as it is, `./` and all
        except OSError:
            self.leave(path, VANISHED)
            return
        leads_to = Path(os.path.realpath(place))
        if not leads_to.is_relative_to(self._bounds):
            there = shown(str(leads_to))
            self.leave(path, f"symbolic link leaves the store, to {there}")
            self.findings.append(
                Finding(
                    code="link_leaves_store",
                    severity=Severity.WARNING,
                    message=f"{path} is a link to {there}, outside of the store; what is there is not kept.",
                    part=path,
                    mend=f"memkeep backup {shlex.quote(there)}",
                )
            )
        elif target.startswith("/") or not _stays(path, target):
            self.leave(path, f"a link by absolute path, to {shown(target)}, which is kept where it lies")
        elif not is_text(target):
            self._unnameable(path)
        else:
            state = (now.st_dev, now.st_ino, now.st_ctime_ns)
            yield Seen(path, under, place, "link", state, 0, stat.S_IMODE(now.st_mode), now.st_mtime_ns, target)

    def _is_excluded(self, under: str) -> bool:
        return under in self._excluded or any(fnmatchcase(under, pattern) for pattern in self._excluded)

    def _included(self, under: str) -> bool:
        return not self._part.include or any(fnmatchcase(under, pattern) for pattern in self._part.include)

    def _unnameable(self, path: str) -> None:
        self.leave(path, UNNAMEABLE)
        self.findings.append(unnameable(path))


def unnameable(path: str) -> Finding:
    """Return the finding that a file is not kept for its name, which no manifest could hold."""
    return Finding(
        code="name_not_text",
        severity=Severity.WARNING,
        message=f"The name of {shown(path)} is not valid UTF-8; it is not kept.",
        part=shown(path),
        mend="Give it a name in UTF-8.",
    )


def seen_file(place: Path, path: str, under: str, now: os.stat_result) -> Seen:
    """Return a file as `lstat` or `fstat` gives it."""
    state = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    return Seen(path, under, place, "file", state, now.st_size, stat.S_IMODE(now.st_mode), now.st_mtime_ns)


def is_dotenv(name: str) -> bool:
    """Say whether a file is a `.env` file by its name."""
    return name == ".env" or name.startswith(".env.") or name.endswith(".env")


def is_text(name: str) -> bool:
    """Say whether a file's name is valid UTF-8: the system's bytes that are not come as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def shown(name: str) -> str:
    """Return a name that can be printed and written as JSON."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _stays(path: str, target: str) -> bool:
    """Say whether a relative link still leads into the store when the store lies elsewhere."""
    depth = len(PurePosixPath(path).parts) - 1
    for piece in PurePosixPath(target).parts:
        depth += -1 if piece == ".." else 1
        if depth < 0:
            return False
    return bool(target)


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name

"""Turn a folder into parts: everything in it becomes part of one or is left out with a reason.

What a system decides is the role of each thing (`Choose`); the rest is the same for all: a database and a Lance table
are parts of their own, loose files are parts one by one or a folder at a time, a sidecar belongs to its database,
`.env` files are never taken, and a link that leaves the store is not followed.
"""

import glob
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from memkeep.engines.chroma_files import INCLUDE, is_segment
from memkeep.engines.files_walk import ENV_REASON, UNNAMEABLE, is_dotenv, is_text, shown, unnameable
from memkeep.model import Finding, Omission, Part, Role, Severity, TableMap
from memkeep.systems.look import OWN_PREFIX, SIDECAR_SUFFIXES, Folder, Link, Look, is_sidecar
from memkeep.systems.marks import chroma_database, is_qdrant_collection

NEVER = (".env", ".env.*", "*.env", "*/.env.*", ".memkeep-*")  # as patterns on a path, where `*` also crosses `/`
_SECRET_FILES = frozenset(
    {"auth-profiles.json", "auth.json", "oauth.json", "credentials.json", "credentials-pending.json"}
    | {".netrc", "id_rsa", "id_ed25519"}
)
OWN_REASON = "left by a restore of memkeep"


class Item(NamedTuple):
    """One thing met on the way: its path under the store's root, POSIX, and where it is."""

    name: str
    path: Path
    kind: Literal["database", "table", "file", "folder"]


class Leave(NamedTuple):
    """Do not take it; with no reason because it belongs to another store, so that nothing need be said."""

    reason: str = ""


Choose = Callable[[Item], Role | Leave]
Maps = Callable[[Item], tuple[TableMap, ...]]


class Gathered(NamedTuple):
    """The parts of a store, in ascending order of their names, and what was left out."""

    parts: list[Part]
    omitted: list[Omission]
    findings: list[Finding]

    def add(self, other: "Gathered") -> None:
        """Take over what was gathered elsewhere."""
        self.parts.extend(other.parts)
        self.omitted.extend(other.omitted)
        self.findings.extend(other.findings)


def no_maps(_: Item) -> tuple[TableMap, ...]:
    """Return no mapping."""
    return ()


def is_secret_file(name: str) -> bool:
    """Say whether a file holds keys or passwords, by the names that products and tools give such files."""
    return name in _SECRET_FILES or name.endswith(".pem")


def gather(
    look: Look,
    folder: Path,
    choose: Choose,
    maps: Maps = no_maps,
    *,
    name: str = "",
    bounds: Path | None = None,
    apart: Callable[[str], bool] = lambda _: False,
    whole: bool = False,
) -> Gathered:
    """Return everything in a folder as parts.

    `name` is the folder's path under the store's root, "" for the root itself; links may lead anywhere under
    `bounds`, which is the folder unless given. Loose files are parts one by one in
    the folder itself and in the folders whose path satisfies `apart`; every other folder is one part of the engine
    `files`, less what is a part of its own. `whole` makes the folder itself such a part, named "." if it is the root.
    """
    pending = [(folder, name)]
    while pending:  # list all folders first, so that the databases in them are inspected together
        here, under = pending.pop()
        items = [Item(_joined(under, each), here / each, "folder") for each in look.folder(here).folders]
        pending += [(item.path, item.name) for item in items if not isinstance(choose(item), Leave)]
    walk = _Walk(look, bounds or folder, choose, maps, apart)
    if whole:
        walk.take_whole(folder, name)
    else:
        walk.take_apart(folder, name)
    walk.out.parts.sort(key=lambda part: part.name)
    walk.out.omitted.sort(key=lambda omission: omission.part)
    return walk.out


class _Walk:
    """One gathering: what it goes by, and what it has found so far."""

    def __init__(self, look: Look, bounds: Path, choose: Choose, maps: Maps, apart: Callable[[str], bool]) -> None:
        self.look, self.bounds, self.choose, self.maps, self.apart = look, bounds, choose, maps, apart
        self.out = Gathered([], [], [])
        self.elsewhere: list[str] = []  # names of all that is not a loose file of the folder that holds it

    def take_apart(self, top: Path, top_name: str) -> None:
        """Make each loose file of a folder a part, and each folder in it one, or take that apart too."""
        pending = [(top, top_name)]
        while pending:
            folder, name = pending.pop()
            here = self.look.folder(folder)
            for item, role in self._loose(folder, name, here):
                self._part(item, "files", role)
            for item, role in self._subfolders(folder, name, here):
                if self.apart(item.name):
                    pending.append((item.path, item.name))
                else:
                    self.take_whole(item.path, item.name, role)

    def take_whole(self, top: Path, top_name: str, role: Role | None = None) -> None:
        """Make a folder with all its loose files one part; what is of another role becomes a part of its own."""
        if chroma_database(self.look, top):
            self.take_apart(top, top_name)
            return
        if role is None:
            chosen = self.choose(Item(top_name, top, "folder"))
            role = Role.CANONICAL if isinstance(chosen, Leave) else chosen
        first, loose = len(self.elsewhere), False
        pending = [(top, top_name)]
        while pending:
            folder, name = pending.pop()
            here = self.look.folder(folder)
            for item, its in self._loose(folder, name, here):
                if its is role and not chroma_database(self.look, folder):
                    loose = True
                else:
                    self._part(item, "files", its)
            pending += [(item.path, item.name) for item, _ in self._subfolders(folder, name, here)]
        apart = self.elsewhere[first:]
        if loose or (top_name and not apart):
            exclude = sorted({_pattern(each, top_name) for each in apart if each != (top_name or ".")})
            self._part(Item(top_name, top, "folder"), "files", role, (*exclude, *NEVER))

    def _loose(self, folder: Path, name: str, here: Folder) -> list[tuple[Item, Role]]:
        """Make parts of the databases and tables directly in a folder; return its loose files with their roles."""
        loose = []
        directory = self._directory(folder, name)
        if here.error:
            self._leave(name or ".", f"cannot be read: {here.error}")
        for each in here.others:
            self._leave(_joined(name, each), "a socket, pipe or device, not a file")
        for each in (*here.tables, *here.files, *here.links):
            under = _joined(name, each)
            if directory and each.startswith(directory.name):
                continue
            if each in here.files and is_sidecar(each, here.files):
                self._sidecar(under, each, here)
            elif each in here.links and not self._stays(under, here.links[each]):
                self._link(under, here.links[each])
            elif self._may_be_taken(under):
                kind = self._kind(folder / each, here)
                item = Item(under, folder / each, kind)
                role = self._chosen(item)
                if role and kind == "file":
                    loose.append((item, role))
                elif role:
                    self._part(item, "lance" if kind == "table" else self._engine(item.path), role)
        return loose

    def _directory(self, folder: Path, name: str) -> Path | None:
        """Make a part of a persistent directory of Chroma; return its database."""
        file = chroma_database(self.look, folder)
        if file is not None and (role := self._chosen(Item(_joined(name, file.name), file, "database"))):
            part = Item(name, folder, "folder")
            self.out.parts.append(
                Part(
                    name=name or ".",
                    engine="chroma",
                    role=role,
                    path=str(folder),
                    maps=self.maps(part),
                    include=INCLUDE,
                )
            )
            self.elsewhere += [_joined(name, file.name + end) for end in ("", *SIDECAR_SUFFIXES)]
        return file

    def _may_be_taken(self, name: str) -> bool:
        """Say whether a thing may be taken at all, going by its name; leave it out if not."""
        last = name.rpartition("/")[2]
        if not is_text(last):
            self._unnameable(name)
        elif last.startswith(OWN_PREFIX):
            self._leave(name, OWN_REASON)
        elif is_dotenv(last):
            self._leave(name, ENV_REASON)
        else:
            return True
        return False

    def _kind(self, path: Path, here: Folder) -> Literal["database", "table", "file"]:
        if path.name in here.tables:
            return "table"
        return "database" if path.name in here.suspects and self.look.is_database(path) else "file"

    def _engine(self, database: Path) -> str:
        return "qdrant-local" if is_qdrant_collection(self.look.columns(database)) else "sqlite"

    def _subfolders(self, folder: Path, name: str, here: Folder) -> list[tuple[Item, Role]]:
        wanted = []
        directory = chroma_database(self.look, folder)
        for each in here.folders:
            item = Item(_joined(name, each), folder / each, "folder")
            if directory and is_segment(each):
                self.elsewhere.append(item.name)
                continue
            if self._may_be_taken(item.name) and (role := self._chosen(item)):
                wanted.append((item, role))
        return wanted

    def _chosen(self, item: Item) -> Role | None:
        chosen = self.choose(item)
        if not isinstance(chosen, Leave):
            return chosen
        if chosen.reason:
            self._leave(item.name, chosen.reason)
        else:
            self.elsewhere.append(item.name)
        return None

    def _stays(self, name: str, link: Link) -> bool:
        """Say whether a link leads to a place in the store, and still would when the store lies elsewhere."""
        said = os.path.normpath(Path(name).parent / link.target)
        inside = not said.startswith("/") and said.split("/")[0] != ".."
        return inside and link.leads_to.is_relative_to(self.bounds)

    def _link(self, name: str, link: Link) -> None:
        target = shown(str(link.leads_to))
        if link.leads_to.is_relative_to(self.bounds):
            self._leave(name, f"a link by absolute path, to {target}, which is kept where it lies")
            return
        self._leave(name, f"a link that leaves the store, to {target}")
        self.out.findings.append(
            Finding(
                code="link_leaves_store",
                severity=Severity.WARNING,
                message=f"{name} is a link to {target}, outside of the store; what is there is not kept.",
                part=name,
                mend=f"memkeep backup {shlex.quote(target)}",
            )
        )

    def _sidecar(self, name: str, file: str, here: Folder) -> None:
        base = next(file.removesuffix(end) for end in SIDECAR_SUFFIXES if file.endswith(end))
        if base in here.files or base in here.links:
            self.elsewhere.append(name)
        else:
            self._leave(name, f"left behind by a database that is gone, {base}")

    def _unnameable(self, name: str) -> None:
        self._leave(name, UNNAMEABLE)
        self.out.findings.append(unnameable(name))

    def _leave(self, name: str, reason: str) -> None:
        self.elsewhere.append(name)
        self.out.omitted.append(Omission(part=shown(name), reason=reason))

    def _part(self, item: Item, engine: str, role: Role, exclude: tuple[str, ...] = ()) -> None:
        self.elsewhere.append(item.name)
        if engine in ("sqlite", "qdrant-local"):  # its sidecars may come into being later
            self.elsewhere += [item.name + end for end in SIDECAR_SUFFIXES]
        self.out.parts.append(
            Part(
                name=item.name or ".",
                engine=engine,
                role=role,
                path=str(item.path),
                maps=self.maps(item),
                exclude=exclude,
            )
        )


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _pattern(name: str, folder: str) -> str:
    """Return a name under a folder as a pattern that only it matches, relative to the folder."""
    under = name.removeprefix(f"{folder}/") if folder else name
    return "".join(glob.escape(letter) if is_text(letter) else "?" for letter in under)

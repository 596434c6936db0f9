"""Any other folder or file: databases, LanceDB tables and notes found by content, everything else kept as files.

Records are recognised by the usual column names, or mapped as `[stores.NAME]` in the settings says; `Store.mapping`
tells which. The loose files of a folder are one part, named "."; each markdown or text file among them is a record.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from memkeep.config import StoreSettings
from memkeep.engines import logins
from memkeep.engines.files_notes import SUFFIXES as NOTE_SUFFIXES
from memkeep.engines.files_walk import is_dotenv
from memkeep.errors import StoreError, UnsupportedError
from memkeep.model import Finding, Part, Role, Severity, Store, is_url
from memkeep.systems import custom_maps, marks, openclaw_json, qdrant_folder, servers
from memkeep.systems.gather import Choose, Gathered, Item, Leave, gather, is_secret_file
from memkeep.systems.look import COLLECTIONS, Look
from memkeep.systems.maps import dims

name = "custom"


def _count_query(table: str) -> str:
    quoted = table.replace('"', '""')
    return f'SELECT count(*) FROM "{quoted}"'  # noqa: S608 - quoted


queries = (_count_query("memories"), _count_query("memory"))  # the names that most stores use, which saves a process

_LEFT_OUT = {".git": "version control", "node_modules": "program code that can be installed again"}


def keep(look: Look, path: Path, settings: StoreSettings | None = None, said_in: str = "") -> Store | None:
    """Return what lies at a path as one store; None when there is nothing to keep.

    `settings` are those of `[stores.NAME]`, and `said_in` says where they were read. Raises `UsageError` when they
    name a part, a table or a column that is not there.
    """
    settings = settings or StoreSettings(path=str(path))
    in_folder = path.is_dir() and not look.is_table(path)
    notes: set[str] = set()
    if in_folder:
        gathered = gather(look, path, _choose(look, settings, notes), whole=True)
    else:
        gathered = Gathered([_alone(look, path)], [], [])
        notes.update({path.name} if path.name.lower().endswith(NOTE_SUFFIXES) else ())
    if not any(_holds_something(look, part) for part in gathered.parts):
        return None
    parts = [_with_secret_keys(part) for part in gathered.parts]
    unread: dict[Part, Finding] = {}
    parts += [part for url in settings.servers for part in _in_server(look, url, settings, unread)]
    away = {part.name for part in unread}
    known = msgspec.structs.replace(settings, parts=tuple(each for each in settings.parts if each.name not in away))
    parts = _mapped(look, parts, known, said_in)
    return Store(
        system=name,
        path=str(path),
        root=str(path if in_folder else path.parent),
        parts=(*parts, *unread),
        records=_count(look, parts, notes),
        mapping=custom_maps.sentence(parts, said_in if settings.parts else ""),
        fingerprint=_fingerprint(look, parts),
        omitted=tuple(gathered.omitted),
        findings=(*gathered.findings, *_of_folders(look, parts, path), *unread.values()),
    )


def keep_url(look: Look, url: str, settings: StoreSettings, said_in: str = "") -> Store | None:
    """Return what a server has at a URL (without secrets) as one store; None when there is nothing."""
    parts = servers.parts_of(look, url)
    if not parts:
        return None
    parts = _mapped(look, parts, settings, said_in)
    return Store(
        system=name,
        path=url,
        root="",
        parts=tuple(parts),
        records=_count(look, parts, ()),
        mapping=custom_maps.sentence(parts, said_in if settings.parts else ""),
        fingerprint=_fingerprint(look, parts),
    )


def _of_folders(look: Look, parts: Sequence[Part], root: Path) -> Iterator[Finding]:
    for folder in qdrant_folder.folders(parts):
        if folder.is_relative_to(root) and qdrant_folder.is_folder(look, folder):
            name = folder.relative_to(root).as_posix()
            yield from qdrant_folder.findings(look, folder, "" if name == "." else name)


def _in_server(look: Look, text: str, settings: StoreSettings, unread: dict[Part, Finding]) -> list[Part]:
    """Return what of the store lies in a server; a part of one that can't be asked goes into `unread`."""
    url = servers.told(text)[1]
    if settings.password_file:
        logins.remember_file(url, settings.password_file)
    try:
        return servers.parts_of(look, url)
    except UnsupportedError:
        raise
    except StoreError as error:
        part = servers.unasked(url)
        message, mend = error.message, error.hint
        unread[part] = Finding(code=error.code, severity=Severity.ERROR, part=part.name, message=message, mend=mend)
        return []


def _mapped(look: Look, parts: list[Part], settings: StoreSettings, said_in: str) -> list[Part]:
    if settings.parts:
        return custom_maps.as_said(look, parts, settings, said_in)
    return custom_maps.recognised_in(look, parts)


def _choose(look: Look, settings: StoreSettings, notes: set[str]) -> Choose:
    """Return what things are; the names of the notes among them are added to `notes`."""
    roles = {part.name: part.role for part in settings.parts if part.role}

    def choose(item: Item) -> Role | Leave:
        last = item.path.name
        if item.kind == "folder" and item.name and last in _LEFT_OUT:
            return Leave(_LEFT_OUT[last])
        if any(fnmatchcase(item.name, pattern) or fnmatchcase(last, pattern) for pattern in settings.exclude):
            return Leave("excluded by the settings")
        if item.kind == "file" and last.lower().endswith(NOTE_SUFFIXES) and not item.path.is_symlink():
            notes.add(item.name)
        return roles.get(item.name or ".") or _usual_role(look, item)

    return choose


def _usual_role(look: Look, item: Item) -> Role:
    secret_file = item.kind == "file" and is_secret_file(item.path.name)
    if secret_file or (item.kind == "database" and marks.is_credential_vault(look.columns(item.path))):
        return Role.SECRET
    if item.kind == "file" and item.path.name == openclaw_json.FILE:
        return Role.CONFIG if openclaw_json.read(item.path) is not None else Role.SECRET
    return Role.CANONICAL


def _with_secret_keys(part: Part) -> Part:
    if part.engine != "files" or part.role is not Role.CONFIG:
        return part
    return msgspec.structs.replace(part, secrets=openclaw_json.secrets(openclaw_json.read(Path(part.path))))


def _alone(look: Look, path: Path) -> Part:
    """Return the part that a single file or Lance table is."""
    item = Item(path.name, path, "table" if look.is_table(path) else "database" if look.is_database(path) else "file")
    engine = {"table": "lance", "database": "sqlite", "file": "files"}[item.kind]
    return Part(name=path.name, engine=engine, role=_usual_role(look, item), path=str(path))


def _holds_something(look: Look, part: Part) -> bool:
    path = Path(part.path)
    if part.engine == "lance":
        return True
    if not path.is_dir():
        return bool(look.folder(path.parent).files.get(path.name)) and not is_dotenv(path.name)
    return any(any(look.folder(folder).files.values()) for folder in look.survey(path, depth=None, skip=frozenset()))


def _count(look: Look, parts: Sequence[Part], notes: Iterable[str]) -> int | None:
    """Return how many records the primary collections have; None when one of them can't be counted."""
    queries = {
        Path(part.path): [_count_query(each.table) for each in part.maps if each.primary]
        for part in parts
        if part.engine == "sqlite"
    }
    look.ask({file: asked for file, asked in queries.items() if asked})
    total = 0
    apart = not any(part.engine == "files" and part.name == "." for part in parts)
    for file, asked in queries.items():
        for query in asked:
            rows = look.rows(file, query)
            if not rows:
                return None
            total += rows[0][0]
    for part in parts:
        primary = {each.table for each in part.maps if each.primary}
        if primary and part.engine == "files":
            total += sum(part.name in (".", note) or (apart and note.startswith(f"{part.name}/")) for note in notes)
        elif primary and part.engine != "sqlite":
            counted = _rows(look, part, primary)
            if counted is None:
                return None
            total += counted
    return total


def _rows(look: Look, part: Part, tables: Collection[str]) -> int | None:
    """Return how many rows some tables of a part have, in a Lance table or in a server; None when nobody says."""
    if not is_url(part.path) and part.engine not in COLLECTIONS:
        seen = look.lance(Path(part.path))
        return seen.rows if seen else 0
    counts = [table.rows for table in look.collections(part) if table.name in tables]
    return None if None in counts else sum(count or 0 for count in counts)


def _fingerprint(look: Look, parts: Sequence[Part]) -> dict[str, Any]:
    said = [dims(look.lance(Path(part.path))) for part in parts if part.engine == "lance"]
    said += [servers.dims(look, part) for part in parts if is_url(part.path) or part.engine in COLLECTIONS]
    return {"embedding": said[0]} if said and said[0] else {}

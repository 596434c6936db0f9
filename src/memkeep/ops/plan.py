"""The file between an audit and what is done about it: one line a record, made by memkeep and edited by a person.

Each line is a JSON object; lines that are empty or begin with `#` say nothing. The first object names the store. Of
every other one a person may change the `action`, or remove the line, which is to keep the record. `seen` is a digest of
the record as the audit saw it: a record that says something else since makes the plan stale.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from memkeep.errors import FileError, RefusedError, StorageError, UnsupportedError, quoted
from memkeep.ops.audit import Audited
from memkeep.ops.audits.base import Action
from memkeep.records.formats.base import Source
from memkeep.records.record import Portable, Record
from memkeep.records.wire import plain_json

FORMAT = "memkeep/plan/1"
_EXCERPT = 80  # characters
_HEAD = """\
# What `memkeep audit` proposes for {path}. Nothing was changed yet.
# Look at each line; "action" is "delete" or "keep". A line that is removed keeps its record.
# Then: memkeep apply {name} --dry-run
"""
_COUNTERS = frozenset({"access_count", "last_accessed_at", "heat", "updated_at"})
_COUNTING = ("recall", "access", "_count", "last_", "reinforced", "injected", "updated")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Which store a plan is of."""

    plan: str
    system: str
    store: str
    taken: str  # when it was looked at
    snapshot: str | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done with one record."""

    action: Action
    collection: str
    id: str
    kinds: tuple[str, ...]
    why: str
    text: str = ""  # its beginning, without secrets
    same_as: str | None = None  # the record that stays: what it says would be lost if that went too
    seen: str  # hex; "" of a vector of no record
    same_seen: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as it was read."""

    header: Header
    lines: tuple[Line, ...]

    def doomed(self) -> list[Line]:
        """Return the lines that say to delete."""
        return [line for line in self.lines if line.action == "delete"]


def digest(made: Portable) -> str:
    """Return what a record says, in 32 hex digits: not how often it was recalled, and not its vectors."""
    left_out: dict[str, Any] = dict.fromkeys(_COUNTERS.intersection(made.__struct_fields__))
    left_out |= {"native": {}} | ({"vectors": {}} if isinstance(made, Record) else {})
    told = msgspec.structs.replace(made, metadata=_said(made.metadata), **left_out)
    return blake3(plain_json(told)).hexdigest(16)


def _said(value: Any) -> Any:
    """Return what metadata says, without what only counts how often it was used."""
    if not isinstance(value, dict):
        return value
    counting = [key for key in value if any(one in key.lower() for one in _COUNTING)]
    return {key: _said(one) for key, one in value.items() if key not in counting}


def write(file: Path, source: Source, audited: Audited) -> int:
    """Write a plan of what an audit noticed; return how many lines it has. Raises `RefusedError` when it is there."""
    lines = _settled(_lines(audited), source)
    about = audited.about
    header = Header(plan=FORMAT, system=about.system, store=about.path, taken=about.taken, snapshot=about.snapshot)
    encode = msgspec.json.Encoder().encode
    body = b"".join(encode(one) + b"\n" for one in (header, *lines))
    _put_new(file, _HEAD.format(path=about.path, name=file.name).encode("utf-8", "replace") + body)
    return len(lines)


def read(file: Path) -> Plan:
    """Read a plan. Raises `FileError` naming the line that is none."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FileError(f"{file} can't be read: {error.strerror}", hint="memkeep audit STORE --plan FILE") from error
    header, lines = None, []
    for number, text in enumerate(data.splitlines(), 1):
        if not text.strip() or text.lstrip().startswith(b"#"):
            continue
        try:
            if header is None:
                header = msgspec.json.decode(text, type=Header)
            else:
                lines.append(msgspec.json.decode(text, type=Line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FileError(f"{file}, line {number}: {error}", hint=f"sed -n {number}p {quoted(file)}") from error
    if header is None:
        raise FileError(f"{file} is empty", hint="memkeep audit STORE --plan FILE")
    if header.plan != FORMAT:
        raise FileError(f"{file} is no plan of this memkeep: {header.plan}", hint="memkeep audit STORE --plan FILE")
    return Plan(header=header, lines=tuple(lines))


def _lines(audited: Audited) -> list[Line]:
    """Return one line a record: what was noticed of it, together."""
    found: dict[tuple[str, str], list[tuple[str, Action, str, str | None]]] = defaultdict(list)
    for kind, noticed in audited.noticed:
        for one in noticed:
            found[one.collection, one.id].append((kind.name, kind.proposal, one.why, one.same_as))
    lines = []
    for (collection, identity), told in found.items():
        deletes = [one for one in told if one[1] == "delete"]
        same = [as_ for _, _, _, as_ in deletes or told if as_ is not None]
        lines.append(
            Line(
                action="delete" if deletes else "keep",
                collection=collection,
                id=identity,
                kinds=tuple(kind for kind, _, _, _ in told),
                why="; ".join(why for _, _, why, _ in told),
                # What goes for another reason too does not need the one that says the same.
                same_as=same[0] if same and not any(as_ is None for _, _, _, as_ in deletes) else None,
                seen="",
            )
        )
    return lines


def _settled(lines: Sequence[Line], source: Source) -> list[Line]:
    """Return the lines with what the records said; a record whose like goes too is kept."""
    wanted = {(line.collection, line.id) for line in lines}
    wanted |= {(line.collection, line.same_as) for line in lines if line.same_as is not None}
    seen, texts = look_up(source, wanted)
    going = {(line.collection, line.id) for line in lines if line.action == "delete"}
    return [
        msgspec.structs.replace(
            line,
            action="keep" if line.same_as is not None and (line.collection, line.same_as) in going else line.action,
            text=_excerpt(texts.get((line.collection, line.id), "")),
            seen=seen.get((line.collection, line.id), ""),
            same_seen=seen.get((line.collection, line.same_as)) if line.same_as is not None else None,
        )
        for line in lines
    ]


def name_of(made: Portable) -> tuple[str, str]:
    """Return by what a plan names a record, or what joins two."""
    return (
        made.collection,
        made.id if made.id is not None else f"{getattr(made, 'source', '')} {getattr(made, 'target', '')}",
    )


def look_up(
    source: Source, wanted: Iterable[tuple[str, str | None]]
) -> tuple[dict[tuple[str, str | None], str], dict[tuple[str, str | None], str]]:
    """Return the digests and the texts of those of some records that are there."""
    names = set(wanted)
    seen: dict[tuple[str, str | None], str] = {}
    texts: dict[tuple[str, str | None], str] = {}
    for one in (*_chosen(source.records(), names), *_chosen(source.relationships(), names)):
        seen[name_of(one)] = digest(one)
        texts[name_of(one)] = one.text if isinstance(one, Record) else one.type
    return seen, texts


def _chosen(made: Iterable[Portable], names: set[tuple[str, str | None]]) -> Iterable[Portable]:
    return (one for one in made if name_of(one) in names)


def _excerpt(text: str) -> str:
    """Return the beginning of a text without secrets; nothing of it where they can't be told."""
    from memkeep.records.secrets import redact

    try:
        said = " ".join(redact(text).split())
    except UnsupportedError:
        return ""
    said = said.encode("utf-8", "replace").decode()
    return said if len(said) <= _EXCERPT else said[: _EXCERPT - 1] + "…"


def _put_new(file: Path, data: bytes) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise RefusedError(
            f"{file} is there already, and may have been edited",
            hint="choose another name for --plan",
            code="target_exists",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{file} can't be written: {error.strerror}", hint=f"ls -ld {quoted(file.parent)}"
        ) from error

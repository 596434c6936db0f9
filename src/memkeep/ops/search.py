"""Words over the records of one snapshot or of all."""

import unicodedata
from typing import Any

import msgspec

from memkeep.errors import UsageError
from memkeep.ops import sides
from memkeep.records.view import rows_by_id, shown_id, texts
from memkeep.vault.vault import Vault


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a record that has all the words, and the snapshots that hold that version, oldest first."""

    id: str
    system: str
    path: str
    text: str
    fields: dict[str, Any]
    snapshots: tuple[str, ...]


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Hits in the order of their ids."""

    text: str
    hits: tuple[Hit, ...]


def search(vault: Vault, text: str, *, snapshot: str | None = None) -> SearchResult:
    """Find the records whose text fields hold all words, upper and lower case alike.

    A group of records that several snapshots share is read once.
    """
    words = [_plain(word) for word in text.split()]
    if not words:
        raise UsageError("there is nothing to search for", hint='memkeep search "some words"')
    chosen = [vault.resolve(snapshot)] if snapshot else vault.snapshots()
    cache: dict[tuple[bytes, str], dict[str, dict[str, Any]]] = {}
    found: dict[tuple[str, str, str, bytes], tuple[dict[str, Any], list[str]]] = {}
    for one in chosen:
        for side in sides.of_snapshot(vault, one).values():
            for chunk in side.groups.values():
                key = (chunk, side.map.collection)
                if key not in cache:
                    rows = rows_by_id(side.map, side.load(chunk))
                    cache[key] = {record: fields for record, fields in rows.items() if _fits(fields, record, words)}
                for record, fields in cache[key].items():
                    name = (shown_id(side.map, record), one.system, one.path, msgspec.json.encode(fields))
                    found.setdefault(name, (fields, []))[1].append(one.id)
    hits = [
        Hit(id=record, system=system, path=path, text=_text(fields), fields=fields, snapshots=tuple(ids))
        for (record, system, path, _), (fields, ids) in found.items()
    ]
    return SearchResult(text=text, hits=tuple(sorted(hits, key=lambda hit: (hit.path, hit.id))))


def _fits(fields: dict[str, Any], record: str, words: list[str]) -> bool:
    whole = _plain("\n".join((record, *texts(fields))))
    return all(word in whole for word in words)


def _text(fields: dict[str, Any]) -> str:
    text = fields.get("text")
    return text if isinstance(text, str) else next(texts(fields), "")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()

"""One memory through all snapshots."""

from typing import Any, Literal

import msgspec

from memkeep.errors import StoreError, quoted
from memkeep.ops import sides
from memkeep.records.view import changed_fields
from memkeep.vault.vault import Vault


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot in which the memory appeared, changed or went; `fields` is name -> [before, after]."""

    snapshot: str
    created: str
    system: str
    path: str
    event: Literal["added", "changed", "removed"]
    fields: dict[str, list[Any]]


class HistoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first; snapshots in which nothing changed are left out."""

    id: str
    moments: tuple[Moment, ...]
    snapshots: int  # how many hold it


def history(vault: Vault, id: str) -> HistoryResult:
    """Follow a memory by its id (with `<collection>:` before it in a secondary collection) through all snapshots.

    Raises `StoreError` when no snapshot has it, `DamagedError` when one that can't be read may.
    """
    last: dict[tuple[str, str, str, str], dict[str, Any] | None] = {}
    moments: list[Moment] = []
    holding: set[str] = set()
    for snapshot in vault.snapshots():
        now: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        for name, side in sides.of_snapshot(vault, snapshot).items():
            prefix = f"{side.map.collection}:"
            record = id if side.map.primary else id.removeprefix(prefix) if id.startswith(prefix) else None
            found = side.find(record) if record is not None else None
            if found is not None:
                now[snapshot.system, snapshot.path, snapshot.user or "", name] = found
                holding.add(snapshot.id)
        keys = [key for key in last if key[:3] == (snapshot.system, snapshot.path, snapshot.user or "")]
        for key in dict.fromkeys((*keys, *now)):
            before, after = last.get(key), now.get(key)
            fields = changed_fields(before or {}, after or {})
            if (before is None) != (after is None) or fields:
                event: Literal["added", "changed", "removed"] = (
                    "added" if before is None else "removed" if after is None else "changed"
                )
                moments.append(
                    Moment(
                        snapshot=snapshot.id,
                        created=snapshot.created,
                        system=snapshot.system,
                        path=snapshot.path,
                        event=event,
                        fields=fields,
                    )
                )
            last[key] = after
    if not moments:
        if vault.damaged:
            raise vault.damaged[0]
        raise StoreError(f"no snapshot has a record called {id}", code="no_record", hint=f"memkeep search {quoted(id)}")
    return HistoryResult(id=id, moments=tuple(moments), snapshots=len(holding))

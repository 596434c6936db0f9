"""Which point lies where in the segments of a shard: the id trackers of Qdrant 1.14 and later.

A segment that takes writes has a log of changes, `mutable_id_tracker.mappings`: a byte for the kind (1 and 2 insert a
numbered point or a UUID, 3 and 4 delete one), the id (8 bytes, little-endian, or the 16 of a UUID in their own order),
and for an insert the place, u32. A finished segment has `id_tracker.mappings`: the number of points, u64, then for
each a byte (0 numbered, 1 UUID), the id and the place; and `id_tracker.deleted`, a bit a place. Beside both lie the
points' versions, u64 a place. A point that is in several segments counts where its version is highest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    import numpy as np

_INSERT, _INSERT_UUID, _DELETE, _DELETE_UUID = 1, 2, 3, 4


class UnknownLayoutError(Exception):
    """The files are not laid out as known here; there is another way to read them."""


class Places:
    """Where each point of a shard lies: the number of its segment and its place there."""

    def __init__(self, segments: Sequence[Path]) -> None:
        """Read the trackers of all segments. Raises `UnknownLayoutError`."""
        import numpy as np

        found = [_segment(folder) for folder in segments]
        self._kinds = []
        self._versions = []
        for kind in ("numbers", "uuids"):
            ids = np.concatenate([one[kind][0] for one in found] or [np.empty(0, "<u8")])
            where = np.concatenate([one[kind][1] for one in found] or [np.empty(0, "<u4")])
            versions = np.concatenate([one[kind][2] for one in found] or [np.empty(0, "<u8")])
            which = np.repeat(np.arange(len(found), dtype=np.uint32), [len(one[kind][0]) for one in found])
            order = np.lexsort((versions, ids))
            ids, where, which, versions = ids[order], where[order], which[order], versions[order]
            last = np.ones(len(ids), bool)
            last[:-1] = ids[1:] != ids[:-1]
            self._kinds.append((ids[last], which[last], where[last]))
            self._versions.append(versions[last])

    def __len__(self) -> int:
        return sum(len(ids) for ids, _, _ in self._kinds)

    def some(self, count: int) -> list[int | str]:
        """Return some ids, spread over all of them."""
        every = max(1, len(self) // count)
        numbers, uuids = (kind[0] for kind in self._kinds)
        found: list[int | str] = [int(one) for one in numbers[::every]]
        found += [str(UUID(bytes=bytes(one).ljust(16, b"\0"))) for one in uuids[-len(numbers) % every :: every]]
        return found[:count]

    def versions(self) -> dict[int | str, int]:
        """Return the number of the last write of each point."""
        numbers, uuids = (kind[0].tolist() for kind in self._kinds)
        names = [str(UUID(bytes=one.ljust(16, b"\0"))) for one in uuids]
        return dict(
            zip([*numbers, *names], [version for kind in self._versions for version in kind.tolist()], strict=True)
        )

    def rows(self, segment: int, count: int) -> "np.ndarray[Any, Any]":
        """Return which point lies at each place of a segment, as `name` takes it; -1 for none."""
        import numpy as np

        found = np.full(count, -1, np.int64)
        before = 0
        for ids, which, where in self._kinds:
            here = np.flatnonzero((which == segment) & (where < count))
            found[where[here]] = here + before
            before += len(ids)
        return found

    def name(self, row: int) -> str:
        """Return the id of a point as text."""
        numbers, uuids = (kind[0] for kind in self._kinds)
        if row < len(numbers):
            return str(int(numbers[row]))
        return str(UUID(bytes=bytes(uuids[row - len(numbers)]).ljust(16, b"\0")))

    def find(self, ids: Sequence[int | str]) -> list[tuple[int, int]]:
        """Return segment and place of each point. Raises `UnknownLayoutError` when one is not there."""
        import numpy as np

        numbers = np.array([one for one in ids if isinstance(one, int)], "<u8")
        digits = "".join([one.replace("-", "") for one in ids if isinstance(one, str)])
        uuids = np.frombuffer(bytes.fromhex(digits), "S16")
        found = [iter(_look_up(*kind, wanted)) for kind, wanted in zip(self._kinds, (numbers, uuids), strict=True)]
        return [next(found[isinstance(one, str)]) for one in ids]


def _look_up(ids: Any, which: Any, where: Any, wanted: Any) -> list[tuple[int, int]]:
    import numpy as np

    if not len(wanted):
        return []
    at = np.searchsorted(ids, wanted)
    if not len(ids) or (at >= len(ids)).any() or (ids[at] != wanted).any():
        raise UnknownLayoutError
    return list(zip(which[at].tolist(), where[at].tolist(), strict=True))


def _segment(folder: Path) -> dict[str, tuple[Any, Any, Any]]:
    """Return ids, places and versions of a segment's numbered points and of its UUIDs."""
    log, table = folder / "mutable_id_tracker.mappings", folder / "id_tracker.mappings"
    if log.is_file():
        found = _log(log.read_bytes())
        versions = _versions(folder / "mutable_id_tracker.versions")
    elif table.is_file():
        found = _table(table.read_bytes(), (folder / "id_tracker.deleted").read_bytes())
        versions = _versions(folder / "id_tracker.versions")
    elif (folder / "CURRENT").exists():
        raise UnknownLayoutError  # the database of older servers
    else:
        found = _kinds([], [], [], [])  # nothing was written yet
        versions = _versions(log)
    return {kind: (ids, places, _at(versions, places)) for kind, (ids, places) in found.items()}


def _versions(path: Path) -> "np.ndarray[Any, Any]":
    import numpy as np

    data = path.read_bytes() if path.is_file() else b""
    return np.frombuffer(data[: len(data) - len(data) % 8], "<u8")


def _at(versions: "np.ndarray[Any, Any]", places: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return the version of each place; 0 where none was written."""
    import numpy as np

    out = np.zeros(len(places), "<u8")
    known = places < len(versions)
    out[known] = versions[places[known]]
    return out


def _log(data: bytes) -> dict[str, tuple[Any, Any]]:
    """Replay a log: the last change of a point counts, and of two points at one place the later one."""
    import numpy as np

    numbers = np.frombuffer(data, "u1")[::13]
    if len(data) % 13 == 0 and (numbers == _INSERT).all():
        rows = np.frombuffer(data, [("kind", "u1"), ("id", "<u8"), ("place", "<u4")])
        if len(np.unique(rows["id"])) == len(rows):
            return _kinds(rows["id"], rows["place"], [], [])
    live: dict[int | bytes, int] = {}
    at = 0
    while at < len(data):
        kind = data[at]
        if kind not in {_INSERT, _INSERT_UUID, _DELETE, _DELETE_UUID}:
            raise UnknownLayoutError
        width = 16 if kind in {_INSERT_UUID, _DELETE_UUID} else 8
        end = at + 1 + width + 4 * (kind in {_INSERT, _INSERT_UUID})
        if end > len(data):
            break  # a change that was being written; the server passes over it too
        raw = data[at + 1 : at + 1 + width]
        point = raw if width > 8 else int.from_bytes(raw, "little")  # noqa: PLR2004
        if kind in {_DELETE, _DELETE_UUID}:
            live.pop(point, None)
        else:
            live[point] = int.from_bytes(data[end - 4 : end], "little")
        at = end
    plain = {point: place for point, place in live.items() if isinstance(point, int)}
    uuids = {point: place for point, place in live.items() if isinstance(point, bytes)}
    return _kinds(list(plain), list(plain.values()), list(uuids), list(uuids.values()))


def _table(data: bytes, deleted: bytes) -> dict[str, tuple[Any, Any]]:
    import numpy as np

    count = int.from_bytes(data[:8], "little")
    gone = np.unpackbits(np.frombuffer(deleted, "u1"), bitorder="little")
    heads = np.frombuffer(data, "u1")[8::13]
    if len(data) == 8 + 13 * count and not heads.any():
        rows = np.frombuffer(data, [("kind", "u1"), ("id", "<u8"), ("place", "<u4")], offset=8)
        kept = rows[gone[rows["place"]] == 0]
        return _kinds(kept["id"], kept["place"], [], [])
    numbers: list[int] = []
    uuids: list[bytes] = []
    places: tuple[list[int], list[int]] = ([], [])
    at = 8
    for _ in range(count):
        wide = data[at] if at < len(data) else 2
        if wide > 1:
            raise UnknownLayoutError
        end = at + 1 + (16 if wide else 8)
        place = int.from_bytes(data[end : end + 4], "little")
        if place >= len(gone):
            raise UnknownLayoutError
        if not gone[place]:
            places[wide].append(place)
            if wide:
                uuids.append(data[at + 1 : end])
            else:
                numbers.append(int.from_bytes(data[at + 1 : end], "little"))
        at = end + 4
    return _kinds(numbers, places[0], uuids, places[1])


def _kinds(numbers: Any, number_places: Any, uuids: Any, uuid_places: Any) -> dict[str, tuple[Any, Any]]:
    import numpy as np

    return {
        "numbers": (np.asarray(numbers, "<u8"), np.asarray(number_places, "<u4")),
        "uuids": (np.asarray(uuids, "S16"), np.asarray(uuid_places, "<u4")),
    }
